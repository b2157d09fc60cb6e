"""`manage.py up` as a whole: a real run, stopped, killed and started again."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from scheduling_project.embedded.discovery import announced
from scheduling_project.embedded.ports import free_port
from scheduling_project.supervisor.data_folder import DataFolder

pytestmark = pytest.mark.scenario
ROOT = Path(__file__).resolve().parents[2]
READY = 120.0


class Up:
    """One `manage.py up` in the background, and what it printed."""

    def __init__(self, data_dir: Path, **variables: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.flower_port = free_port()
        env = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
        env.pop("DJANGO_SETTINGS_MODULE", None)
        self.env = env | {
            "DATA_DIR": str(data_dir),
            "PORT": str(self.port),
            "FLOWER_PORT": str(self.flower_port),
            "DEMO": "0",
            "DEBUG": "1",
            **variables,
        }
        self.log = data_dir.parent / "up.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=ROOT,
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY
        while "Ready after" not in self.text:
            assert self.process.poll() is None, f"it ended:\n{self.text}"
            assert time.monotonic() < deadline, f"it never became ready:\n{self.text}"
            time.sleep(0.1)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def password(self) -> str:
        found = re.search(r"Password\s+(\S+)", self.text)
        assert found is not None
        return found.group(1)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="scheduling-test-") as folder:
        Path(folder).chmod(0o711)
        data = Path(folder) / "data"
        yield data
        DataFolder(data).stop_running()
        DataFolder(data).remove()


def fetch(url: str, *, password: str | None = None, token: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url)
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_one_command_starts_everything_and_ctrl_c_ends_it(data_dir: Path) -> None:
    up = Up(data_dir)
    up.wait_until_ready()
    family = up.family()
    password = up.password()
    base = f"http://127.0.0.1:{up.port}"
    assert fetch(f"{base}/readyz")[0] == 200
    assert fetch(f"{base}/admin/login/")[0] == 200
    assert fetch(f"http://127.0.0.1:{up.flower_port}/api/workers")[0] == 401
    assert fetch(f"http://127.0.0.1:{up.flower_port}/api/workers", password=password)[0] == 200

    second = subprocess.run(
        [sys.executable, "manage.py", "up"], cwd=ROOT, env=up.env, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert f"Another `up` (process {up.process.pid}) is running" in second.stdout

    bare = {name: value for name, value in up.env.items() if name != "PORT"}
    ping = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "scheduling_project", "inspect", "ping", "--timeout", "10"],
        cwd=ROOT,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pong" in ping.stdout, "a command typed beside it finds its servers"

    with psycopg.connect(announced(data_dir)["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")

    began = time.monotonic()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(20) == 0
    assert time.monotonic() - began < 10
    assert psutil.wait_procs(family, timeout=1)[1] == []
    assert announced(data_dir) == {}

    again = Up(data_dir)
    again.wait_until_ready()
    assert again.password() == password
    with psycopg.connect(announced(data_dir)["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    family = again.family()
    again.process.kill()
    again.process.wait()
    assert psutil.wait_procs(family, timeout=20)[1] == [], "kill -9 leaves no orphans"


def test_one_death_ends_the_rest_and_names_it(data_dir: Path) -> None:
    up = Up(data_dir)
    up.wait_until_ready()
    family = up.family()
    beat = next(
        member for member in family if "beat" in member.cmdline() and "guard.py" not in " ".join(member.cmdline())
    )
    beat.kill()
    assert up.process.wait(20) == 1
    assert "beat was ended by signal SIGKILL; stopping everything else. Its last lines:" in up.text
    assert psutil.wait_procs(family, timeout=1)[1] == []


def test_given_servers_are_used_and_stay(data_dir: Path) -> None:
    url = re.sub(r"/[^/]*$", "/up_scenario", os.environ["DATABASE_URL"])
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS up_scenario")
        connection.execute("CREATE DATABASE up_scenario")
    redis_url = re.sub(r"/\d*$", "/63", os.environ["REDIS_URL"])
    up = Up(data_dir, DATABASE_URL=url, REDIS_URL=redis_url, ADMIN_PASSWORD="given, with a comma")
    up.wait_until_ready()
    assert not (data_dir / "postgres").exists()
    assert not (data_dir / "redis").exists()
    assert "given, with a comma" in up.text
    assert "in Flower" in up.text
    up.process.terminate()
    assert up.process.wait(20) == 0
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM auth_user").fetchone() == (1,)


def test_a_preparation_that_fails_ends_it_with_a_reason(data_dir: Path) -> None:
    up = Up(data_dir, DATABASE_URL="postgresql://nobody:x@127.0.0.1:1/none")
    assert up.process.wait(60) == 1
    assert "prepare ended with exit code 1" in up.text
    assert "Postgres does not serve us" in up.text


def test_a_port_that_is_taken_is_said(data_dir: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        up = Up(data_dir, PORT=str(server.getsockname()[1]))
        assert up.process.wait(60) == 1
    assert "is taken by another program" in up.text


def test_the_token_of_the_box_opens_the_api(data_dir: Path) -> None:
    report = data_dir.parent / "report"
    up = Up(data_dir)
    up.wait_until_ready()
    env = up.env | announced(data_dir) | {"ADMIN_PASSWORD": up.password()}
    subprocess.run([sys.executable, "manage.py", "prepare", "--report", str(report)], cwd=ROOT, env=env, check=True)
    token = json.loads(report.read_text())["token"]
    base = f"http://127.0.0.1:{up.port}/api/executions"
    assert fetch(base)[0] == 401
    assert fetch(base, token=token)[0] == 200
