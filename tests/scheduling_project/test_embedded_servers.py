"""The embedded servers, for real: start, stop, and everything that may have happened before."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedServerError
from scheduling_project.embedded import postgres as postgres_module
from scheduling_project.embedded import server as server_module
from scheduling_project.embedded.ports import free_port, is_free
from scheduling_project.embedded.server import last_lines
from scheduling_project.supervisor.process import CannotStart, GuardedProcess

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the account of Postgres can pass through when the tests run as root (tmp_path is not one)."""
    path = Path(tempfile.mkdtemp(prefix="scheduling-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def postgres(folder: Path, *, durable: bool = False) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder / "postgres", durable=durable)


def query(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def ended(pid: int, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def abandon(server: EmbeddedPostgres | EmbeddedRedis) -> int:
    """Let the server run on without a guard, as after a crash that nobody tidied up; return its process id."""
    assert server.process is not None
    assert server.url is not None
    user = psutil.Process(server.process.pid).uids().real
    command = server._command(int(server.url.rsplit(":", 1)[1].split("/")[0]))
    server.stop()
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, cwd="/", user=user, stdout=silent, stderr=silent, start_new_session=True).pid


class TestPostgres:
    def test_it_starts_serves_and_keeps_its_data_and_its_port(self, folder: Path) -> None:
        server = postgres(folder, durable=True)
        url = server.start()
        query(url, "CREATE TABLE kept (n int)")
        query(url, "INSERT INTO kept VALUES (7)")
        assert query(url, "SHOW fsync") == "on"
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            query(url, "SELECT 1")
        again = postgres(folder, durable=True)
        assert again.start() == url
        assert query(url, "SELECT n FROM kept") == 7
        assert again.notes == []
        again.stop()
        again.stop()

    def test_a_password_is_needed(self, folder: Path) -> None:
        with postgres(folder) as url, pytest.raises(psycopg.OperationalError, match="password"):
            query(url.replace(url.split(":")[2].split("@")[0], "wrong"), "SELECT 1")

    def test_it_is_independent_of_the_machines_locale_and_zone(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LC_ALL", "xx_YY.nonsense")
        monkeypatch.setenv("PGPORT", "1")
        monkeypatch.setenv("PGDATA", "/nowhere")
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        with postgres(folder) as url:
            assert query(url, "SHOW server_encoding") == "UTF8"
            assert query(url, "SELECT upper('é')") == "É"
            assert query(url, "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'") == "UTC"

    def test_the_programs_are_not_run_as_root(self, folder: Path) -> None:
        server = postgres(folder)
        with server:
            assert server.process is not None
            assert psutil.Process(server.process.pid).uids().effective != 0

    def test_two_at_once_in_one_folder_say_so(self, folder: Path) -> None:
        with postgres(folder), pytest.raises(EmbeddedServerError, match=f"already running for process {os.getpid()}"):
            postgres(folder).start()

    def test_a_stale_pid_file_is_removed(self, folder: Path) -> None:
        server = postgres(folder)
        server.start()
        server.stop()
        # The worst kind: the noted id belongs to a process that lives, but is not a Postgres.
        stale = server.cluster / "postmaster.pid"
        stale.write_text(f"{os.getpid()}\n{server.cluster}\n1\n5432\n\n127.0.0.1\n")
        with postgres(folder) as url:
            assert query(url, "SELECT 1") == 1

    @pytest.mark.parametrize("content", ["", "no number\n", "1"])
    def test_a_damaged_pid_file_is_removed(self, folder: Path, content: str) -> None:
        server = postgres(folder)
        server.start()
        server.stop()
        (server.cluster / "postmaster.pid").write_text(content)
        with postgres(folder) as url:
            assert query(url, "SELECT 1") == 1

    def test_a_server_that_a_killed_run_left_behind_is_ended(self, folder: Path) -> None:
        server = postgres(folder)
        server.start()
        pid = abandon(server)
        deadline = time.monotonic() + 10
        while not (server.cluster / "postmaster.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        again = postgres(folder)
        with again as url:
            assert query(url, "SELECT 1") == 1
        assert ended(pid)
        assert f"process {pid}" in again.notes[0]

    def test_it_recovers_from_kill_dash_nine(self, folder: Path) -> None:
        server = postgres(folder, durable=True)
        url = server.start()
        query(url, "CREATE TABLE kept AS SELECT 7 AS n")
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        assert server.process.wait(10) == 128 + signal.SIGKILL
        server.stop()
        with postgres(folder, durable=True) as url:
            assert query(url, "SELECT n FROM kept") == 7

    def test_a_half_made_cluster_is_made_anew(self, folder: Path) -> None:
        half = folder / "postgres" / "draft-1"
        half.mkdir(parents=True)
        (folder / "postgres").chmod(0o711)
        (half / "PG_VERSION").write_text("18\n")
        with postgres(folder) as url:
            assert query(url, "SELECT 1") == 1
        assert not half.exists()

    def test_data_of_another_version_are_refused_in_one_sentence(self, folder: Path) -> None:
        server = postgres(folder)
        server.start()
        server.stop()
        (server.cluster / "PG_VERSION").write_text("15\n")
        with pytest.raises(EmbeddedServerError, match=r"are of Postgres 15.*make reset"):
            postgres(folder).start()
        (server.cluster / "PG_VERSION").unlink()
        with pytest.raises(EmbeddedServerError, match="an unknown version"):
            postgres(folder).start()

    def test_a_port_that_is_taken_is_avoided(self, folder: Path) -> None:
        server = postgres(folder)
        url = server.start()
        server.stop()
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        with socket.create_server(("127.0.0.1", port)), postgres(folder) as other:
            assert f":{port}/" not in other
            assert query(other, "SELECT 1") == 1

    def test_a_port_that_is_taken_at_the_last_moment_is_given_up(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as thief:
            stolen = thief.getsockname()[1]
            offers = iter([stolen, stolen, free_port()])
            monkeypatch.setattr(server_module, "free_port", lambda preferred=None: next(offers))
            with postgres(folder) as url:
                assert query(url, "SELECT 1") == 1

    def test_it_gives_up_when_no_port_can_be_had(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as thief:
            monkeypatch.setattr(server_module, "free_port", lambda preferred=None: thief.getsockname()[1])
            monkeypatch.setattr(server_module, "START_ATTEMPTS", 2)
            with pytest.raises(EmbeddedServerError, match=r"(?s)did not start in 2 attempts.*could not bind"):
                postgres(folder).start()

    def test_a_broken_configuration_is_shown_with_the_servers_own_words(self, folder: Path) -> None:
        server = postgres(folder)
        server.start()
        server.stop()
        (server.cluster / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
        with pytest.raises(EmbeddedServerError, match=r"(?s)exit code.*no_such_setting"):
            postgres(folder).start()
        assert is_free(int((folder / "postgres" / "port").read_text()))

    def test_a_server_that_never_answers_is_given_up(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server_module, "READY_TIMEOUT", 0.3)
        monkeypatch.setattr(EmbeddedPostgres, "_command", lambda self, port: ["sleep", "30"])
        with pytest.raises(EmbeddedServerError, match="did not answer within"):
            postgres(folder).start()

    def test_another_server_on_our_port_is_not_taken_for_ours(self, folder: Path) -> None:
        mine, other = EmbeddedPostgres(folder / "mine", durable=False), postgres(folder)
        mine.start()
        with other as url:
            port = int(url.rsplit(":", 1)[1].split("/")[0])
            shutil.copy(folder / "postgres" / "password", folder / "mine" / "password")
            assert mine.process is not None
            with pytest.raises(EmbeddedServerError, match="Another Postgres answers"):
                mine._probe(port, mine.process)
        mine.stop()

    def test_a_failing_initdb_is_shown(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres_module, "ROLE", "pg_reserved")
        with pytest.raises(EmbeddedServerError, match=r"(?s)initdb failed.*pg_"):
            postgres(folder).start()
        assert list((folder / "postgres").glob("draft*")) == []

    def test_a_folder_that_cannot_be_written_to_is_said(self, folder: Path) -> None:
        (folder / "postgres").write_text("a file")
        with pytest.raises(EmbeddedServerError, match="set DATA_DIR"):
            postgres(folder).start()

    def test_removing_deletes_the_data(self, folder: Path) -> None:
        server = postgres(folder)
        server.start()
        with pytest.raises(EmbeddedServerError, match="already running"):
            postgres(folder).remove()
        server.stop()
        postgres(folder).remove()
        postgres(folder).remove()
        assert not server.folder.exists()

    def test_a_very_long_path_does_not_matter(self, folder: Path) -> None:
        deep = folder / ("d" * 80) / ("e" * 80)
        deep.mkdir(parents=True)
        with EmbeddedPostgres(deep / "postgres", durable=False) as url:
            assert query(url, "SELECT 1") == 1
        with EmbeddedRedis(deep / "redis", durable=False) as url:
            assert redis.Redis.from_url(url).ping()

    def test_the_log_does_not_grow_without_end(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server_module, "LOG_LIMIT", 10)
        server = postgres(folder)
        server.start()
        server.stop()
        server.log.write_text("x" * 5000)
        server.start()
        server.stop()
        assert "xxx" not in server.log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
class TestPostgresAsRoot:
    def test_data_below_a_private_folder_live_elsewhere_and_it_is_said(self, folder: Path) -> None:
        private = folder / "private"
        private.mkdir(mode=0o700)
        server = EmbeddedPostgres(private / "postgres", durable=False)
        url = server.start()
        query(url, "CREATE TABLE kept AS SELECT 7 AS n")
        server.stop()
        assert str(server.home) in server.notes[0]
        assert private.stat().st_mode & 0o777 == 0o700
        again = EmbeddedPostgres(private / "postgres", durable=False)
        with again as url:
            assert query(url, "SELECT n FROM kept") == 7
        assert again.home == server.home
        again.remove()
        assert not server.home.exists()
        assert not (private / "postgres").exists()

    def test_no_place_for_the_data_is_said(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        private = folder / "private"
        private.mkdir(mode=0o700)
        elsewhere = folder / "private" / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.setattr(EmbeddedPostgres._elsewhere, "__defaults__", ((elsewhere,),))
        with pytest.raises(EmbeddedServerError, match="set DATA_DIR"):
            EmbeddedPostgres(private / "postgres", durable=False).start()
        assert list(elsewhere.iterdir()) == []


class TestRedis:
    def test_it_starts_serves_and_keeps_its_data_and_its_port(self, folder: Path) -> None:
        server = EmbeddedRedis(folder / 'with "quotes" and spaces')
        url = server.start()
        client = redis.Redis.from_url(url)
        client.set("kept", "7")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.close()
        server.stop()
        again = EmbeddedRedis(folder / 'with "quotes" and spaces')
        assert again.start() == url
        client = redis.Redis.from_url(url)
        assert client.get("kept") == b"7"
        client.close()
        again.stop()

    def test_it_keeps_what_it_held_through_kill_dash_nine(self, folder: Path) -> None:
        server = EmbeddedRedis(folder / "redis")
        client = redis.Redis.from_url(server.start())
        client.set("kept", "7")
        time.sleep(1.5)  # the log is written to disk every second
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(5)
        client.close()
        server.stop()
        with EmbeddedRedis(folder / "redis") as url:
            client = redis.Redis.from_url(url)
            assert client.get("kept") == b"7"
            client.close()

    def test_it_is_not_open_to_everybody(self, folder: Path) -> None:
        with EmbeddedRedis(folder / "redis", durable=False) as url:
            port = int(url.rsplit(":", 1)[1].split("/")[0])
            client = redis.Redis(port=port, retry=Retry(NoBackoff(), 0))
            with pytest.raises(redis.exceptions.AuthenticationError):
                client.ping()
            client.close()
            configuration = (folder / "redis" / "redis.conf").stat()
            assert configuration.st_mode & 0o077 == 0

    def test_a_server_that_a_killed_run_left_behind_is_ended(self, folder: Path) -> None:
        server = EmbeddedRedis(folder / "redis")
        server.start()
        pid = abandon(server)
        deadline = time.monotonic() + 10
        while not server.pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        again = EmbeddedRedis(folder / "redis")
        with again as url:
            client = redis.Redis.from_url(url)
            assert client.ping()
            client.close()
        assert ended(pid)
        assert f"process {pid}" in again.notes[0]

    def test_a_stale_pid_file_does_no_harm(self, folder: Path) -> None:
        (folder / "redis").mkdir()
        for content in (f"{os.getpid()}\n", "99999999\n", "nonsense"):
            (folder / "redis" / "redis.pid").write_text(content)
            with EmbeddedRedis(folder / "redis", durable=False) as url:
                assert url.startswith("redis://:")

    def test_unreadable_data_are_moved_aside_and_it_is_said(self, folder: Path) -> None:
        server = EmbeddedRedis(folder / "redis")
        server.start()
        server.stop()
        (server.data / "appendonly.aof").write_bytes(b"this is not a log of Redis" * 10)
        again = EmbeddedRedis(folder / "redis")
        again.start()
        again.stop()
        assert "started empty" in again.notes[0]
        assert len(list((folder / "redis").glob("data-unreadable-*"))) == 1

    def test_a_port_that_is_taken_at_the_last_moment_is_given_up(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as thief:
            offers = iter([thief.getsockname()[1], free_port()])
            monkeypatch.setattr(server_module, "free_port", lambda preferred=None: next(offers))
            with EmbeddedRedis(folder / "redis", durable=False) as url:
                client = redis.Redis.from_url(url)
                assert client.ping()
                client.close()

    def test_another_server_on_our_port_is_not_taken_for_ours(self, folder: Path) -> None:
        mine, other = EmbeddedRedis(folder / "mine", durable=False), EmbeddedRedis(folder / "other", durable=False)
        mine.start()
        with other as url:
            shutil.copy(folder / "other" / "password", folder / "mine" / "password")
            assert mine.process is not None
            with pytest.raises(EmbeddedServerError, match="Another Redis"):
                mine._probe(int(url.rsplit(":", 1)[1].split("/")[0]), mine.process)
        mine.stop()

    def test_a_program_that_cannot_be_run_is_said(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(EmbeddedRedis, "_command", lambda self, port: ["/no/such/program"])
        with pytest.raises(EmbeddedServerError, match="cannot be run"):
            EmbeddedRedis(folder / "redis").start()

    def test_removing_deletes_the_data(self, folder: Path) -> None:
        server = EmbeddedRedis(folder / "redis")
        server.start()
        server.stop()
        server.remove()
        assert not (folder / "redis").exists()


class TestLeftovers:
    def test_a_process_that_does_not_end_is_named(self, folder: Path) -> None:
        data = folder / "data"
        data.mkdir()
        stubborn = subprocess.Popen(
            [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print(); time.sleep(60)"],
            cwd=data,
            stdout=subprocess.PIPE,
        )
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        server = EmbeddedRedis(folder / "redis")
        with pytest.raises(EmbeddedServerError, match=f"kill -9 {stubborn.pid}"):
            server._end_leftover(stubborn.pid, data, [(signal.SIGTERM, 0.2)])
        stubborn.kill()
        stubborn.wait()
        stubborn.stdout.close()


def test_when_the_starting_process_is_killed_the_servers_end(folder: Path) -> None:
    program = textwrap.dedent(
        f"""
        import time
        from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
        postgres = EmbeddedPostgres({str(folder / "postgres")!r}, durable=False)
        redis = EmbeddedRedis({str(folder / "redis")!r}, durable=False)
        postgres.start(), redis.start()
        print(postgres.process.pid, redis.process.pid, flush=True)
        time.sleep(60)
        """
    )
    starter = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pids = [int(word) for word in starter.stdout.readline().split()]
    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert len(pids) == 2
    assert all(ended(pid) for pid in pids)
    with postgres(folder) as url:
        assert query(url, "SELECT 1") == 1


def test_last_lines_of_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none") == []


def test_a_command_that_cannot_be_run_says_why() -> None:
    with pytest.raises(CannotStart, match="/no/such/program"):
        GuardedProcess.start(["/no/such/program"])
