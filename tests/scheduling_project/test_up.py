"""What `manage.py up` decides and keeps, below the processes themselves."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scheduling_project.management.commands.up import wishes
from scheduling_project.supervisor.box import Facts, render
from scheduling_project.supervisor.data_folder import DataFolder, DataFolderError, _pid
from scheduling_project.supervisor.stack import PortTaken, choose_port, missing_until_ok

ROOT = Path(__file__).resolve().parents[2]


class TestPorts:
    def test_the_wanted_port_is_taken_when_it_is_free(self) -> None:
        assert choose_port(8000, variable="PORT", is_fixed=True, free=lambda port: True) == 8000

    def test_the_next_free_one_is_taken_when_nobody_insists(self) -> None:
        free = {8002, 8003}.__contains__
        assert choose_port(8000, variable="PORT", is_fixed=False, free=free) == 8002
        assert choose_port(8000, variable="PORT", is_fixed=False, free=free, taken=frozenset({8002})) == 8003

    def test_a_port_that_was_named_and_is_taken_is_one_sentence(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with pytest.raises(PortTaken, match=f"Port {port} is taken by another program: .* set PORT"):
                choose_port(port, variable="PORT", is_fixed=True)

    def test_no_free_port_at_all_is_one_sentence(self) -> None:
        with pytest.raises(PortTaken, match="No free port between 8000 and 8050: set PORT"):
            choose_port(8000, variable="PORT", is_fixed=False, free=lambda port: False)

    def test_the_port_of_a_killed_run_is_waited_for(self) -> None:
        answers = iter([False, False, True, True])
        assert choose_port(8000, variable="P", is_fixed=True, patience=5, free=lambda port: next(answers)) == 8000


class TestReadiness:
    @pytest.fixture
    def server(self) -> Iterator[str]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(int(self.path[1:]))
                self.end_headers()
                self.wfile.write(b"beat: not seen")

            def log_message(self, format: str, *args: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_address[1]}"
            server.shutdown()

    def test_only_200_is_ready(self, server: str) -> None:
        assert missing_until_ok(f"{server}/200", "web") is None
        assert missing_until_ok(f"{server}/202", "web") == "web answers 202"
        assert missing_until_ok(f"{server}/503", "web") == "web answers 503: beat: not seen"

    def test_no_answer_is_not_ready(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        assert "does not answer yet" in (missing_until_ok(f"http://127.0.0.1:{port}/", "web") or "")


class TestDataFolder:
    def test_it_is_private_ignored_by_git_and_keeps_its_secrets(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path / "data")
        folder.take()
        secret = folder.secret("admin password")
        assert len(secret) >= 16
        assert folder.secret("admin password") == secret
        assert folder.secret("other") != secret
        assert (folder.path / "secrets.json").stat().st_mode & 0o077 == 0
        assert (folder.path / ".gitignore").read_text() == "*\n"
        assert folder.path.stat().st_mode & 0o066 == 0
        folder.give_back()
        (folder.path / "secrets.json").write_text("damaged")
        assert DataFolder(tmp_path / "data").secret("admin password") != secret

    def test_a_second_run_is_told_who_is_there(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path)
        folder.take()
        with pytest.raises(DataFolderError, match=rf"process {os.getpid()}\) is running .*make stop"):
            DataFolder(tmp_path).take()
        folder.give_back()
        again = DataFolder(tmp_path)
        again.take()
        again.give_back()

    def test_a_folder_that_cannot_be_made_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataFolderError, match="set DATA_DIR"):
            DataFolder(tmp_path / "file" / "data").take()

    def test_nothing_runs_nothing_is_stopped(self, tmp_path: Path) -> None:
        assert DataFolder(tmp_path).stop_running() is None

    @pytest.mark.parametrize("stubborn", [False, True])
    def test_the_running_one_is_stopped_and_killed_when_it_must(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
    ) -> None:
        program = textwrap.dedent(
            f"""
            import signal, time
            from pathlib import Path
            from scheduling_project.supervisor.data_folder import DataFolder
            if {stubborn}:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            folder = DataFolder(Path({str(tmp_path)!r}))
            folder.take()
            print("taken", flush=True)
            time.sleep(60)
            """
        )
        other = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        monkeypatch.setattr("scheduling_project.supervisor.data_folder.STOP_TIMEOUT", 1.0)
        assert DataFolder(tmp_path).stop_running() == other.pid
        assert other.wait(10) == (-signal.SIGKILL if stubborn else -signal.SIGTERM)
        other.stdout.close()

    def test_a_process_that_only_has_the_noted_id_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scheduling_project.supervisor.data_folder.STOP_TIMEOUT", 0.2)
        bystander = subprocess.Popen(["sleep", "60"])
        folder = DataFolder(tmp_path)
        for note in (
            json.dumps({"pid": bystander.pid, "started": psutil.Process(bystander.pid).create_time() - 100}),
            json.dumps({"pid": bystander.pid}),
            "nonsense",
        ):
            lock = folder._lock.acquire(note)
            DataFolder(tmp_path).stop_running()
            assert bystander.poll() is None
            lock.release()
        bystander.kill()
        bystander.wait()
        assert _pid("[]") == 0

    def test_a_process_of_somebody_else_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = DataFolder(tmp_path)
        folder.take()

        def refused(pid: int, number: int) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "kill", refused)
        with pytest.raises(DataFolderError, match="belongs to another user"):
            DataFolder(tmp_path).stop_running()
        folder.give_back()

    def test_removing_deletes_what_runs_have_made_and_nothing_else(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path / "data")
        folder.take()
        folder.secret("admin password")
        (folder.path / "redis").mkdir()
        (folder.path / "thesis.txt").write_text("mine")
        folder.give_back()
        assert {path.name for path in folder.remove()} == {"redis", "secrets.json", "up.lock"}
        assert (folder.path / "thesis.txt").read_text() == "mine"
        (folder.path / "thesis.txt").unlink()
        assert folder.remove() == []
        assert not folder.path.exists()
        assert folder.remove() == []

    def test_a_killed_run_leaves_its_trace(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path)
        assert not folder.was_left_in_disorder()
        (tmp_path / "servers.json").write_text("{}")
        assert folder.was_left_in_disorder()


class TestWishes:
    OPTIONS = {"host": "127.0.0.1", "reload": None, "concurrency": 2}

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("PORT", "FLOWER_PORT", "DATABASE_URL", "REDIS_URL", "ADMIN_USER", "ADMIN_PASSWORD", "DEMO"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DATA_DIR", str(tmp_path))

    def test_the_laptop_has_everything(self, tmp_path: Path) -> None:
        found = wishes(self.OPTIONS)
        assert (found.port, found.port_is_fixed, found.flower_port) == (8000, False, 5555)
        assert (found.database_url, found.redis_url, found.admin_password) == (None, None, None)
        assert found.admin_user == "admin"
        assert found.demo
        assert found.reload
        assert found.data_dir == tmp_path

    def test_the_environment_is_honoured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = {
            "PORT": "9000",
            "FLOWER_PORT": "9001",
            "DATABASE_URL": "postgresql://db/x",
            "REDIS_URL": "redis://cache",
            "ADMIN_USER": "root",
            "ADMIN_PASSWORD": "secret",
            "DEMO": "0",
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        found = wishes(self.OPTIONS | {"reload": False})
        assert (found.port, found.port_is_fixed) == (9000, True)
        assert (found.flower_port, found.flower_port_is_fixed) == (9001, True)
        assert (found.database_url, found.redis_url) == ("postgresql://db/x", "redis://cache")
        assert (found.admin_user, found.admin_password) == ("root", "secret")
        assert not found.demo
        assert not found.reload


class TestBox:
    FACTS = Facts(
        url="http://127.0.0.1:8000",
        flower_url="http://127.0.0.1:5555/",
        user="admin",
        password="pass word",
        flower_password="pass word",
        token="a.b.c",
        workflow="demo",
        workflow_input="{}",
        data_dir="/somewhere",
        seconds=5.4,
        embedded=True,
    )

    def test_it_has_the_addresses_the_user_and_the_password(self) -> None:
        text = render(self.FACTS, colour=False, width=200)
        for part in ("/admin/", "/api/docs/", ":5555/", "admin", "pass word", "/somewhere", "Ready after 5 s"):
            assert part in text
        assert "\x1b" not in text
        assert "\x1b" in render(self.FACTS, colour=True, width=80)

    def test_what_is_not_known_is_not_invented(self) -> None:
        from dataclasses import replace

        text = render(replace(self.FACTS, password=None, workflow=None, embedded=False), colour=False, width=20)
        assert "the one you have set" in text
        assert "in Flower" in text
        assert "in your servers" in text
        assert "curl" not in text
        assert "/tour/" not in text
        assert "http://127.0.0.1:8000/admin/demo/order/tour/" in render(
            replace(self.FACTS, demo=True), colour=False, width=200
        )

    def test_the_command_can_be_pasted_into_a_shell_and_runs_a_workflow(self, tmp_path: Path) -> None:
        """The commands run as they stand, in a real shell, against a server that answers as the API does."""
        seen: list[tuple[str, str, str]] = []
        states = iter(["queued", "running", "succeeded"])

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status: int, body: dict[str, object]) -> None:
                seen.append((self.command, self.path, self.headers["Authorization"]))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def do_POST(self) -> None:
                assert self.rfile.read(int(self.headers["Content-Length"])) == b"{}"
                self.answer(201, {"id": "0192", "state": "queued"})

            def do_GET(self) -> None:
                state = next(states)
                self.answer(200, {"id": "0192", "state": state, "finished_at": "now" if state == "succeeded" else None})

            def log_message(self, format: str, *args: object) -> None:
                pass

        from dataclasses import replace

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            facts = replace(self.FACTS, url=f"http://127.0.0.1:{server.server_address[1]}")
            command = render(facts, colour=False, width=80).split("watch it:\n\n")[1]
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
            server.shutdown()
        assert done.stdout.splitlines() == ["0192 queued", "0192 running", "0192 succeeded"], done.stderr
        assert seen[0] == ("POST", "/api/workflows/demo/start/", "Bearer a.b.c")
        assert seen[1] == ("GET", "/api/executions/0192/", "Bearer a.b.c")
