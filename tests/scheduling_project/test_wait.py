"""`manage.py wait` and the container's entry point, which begins with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from scheduling_project.environment import PROJECT_ROOT


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def started(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(PROJECT_ROOT / "docker/entrypoint"), *command],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.django_db(transaction=True)
def test_servers_that_answer_are_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("wait", "--seconds", "0")
    assert "answer" in capsys.readouterr().out


def test_a_negative_time_is_refused() -> None:
    with pytest.raises(CommandError, match="--seconds: -1 is negative"):
        call_command("wait", "--seconds", "-1")


def test_the_entry_point_becomes_its_command_once_the_servers_answer() -> None:
    ended = started("sh", "-c", "echo became $0 $1", "one", "two words")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "became one two words"


@pytest.mark.parametrize(
    ("variable", "scheme", "name"), [("DATABASE_URL", "postgresql", "Postgres"), ("REDIS_URL", "redis", "Redis")]
)
def test_a_server_that_does_not_answer_is_named_and_the_command_not_run(
    nobody: int, variable: str, scheme: str, name: str
) -> None:
    ended = started("echo", "became", **{variable: f"{scheme}://127.0.0.1:{nobody}/0", "WAIT_SECONDS": "0"})
    assert ended.returncode == 1
    assert f"{name} did not answer within 0 s" in ended.stderr
    assert "became" not in ended.stdout
