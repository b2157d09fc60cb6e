"""A beat is known by its command line, and its process goes without what only pages, workers and the CLI need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scheduling_project.process_role import global_options, is_beat, lean_command
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
CELERY = "/v/bin/celery"
BEAT = ["-A", "scheduling_project", "beat"]


@pytest.mark.parametrize(
    ("argv", "beat"),
    [
        ([CELERY, *BEAT], True),
        ([CELERY, "--app=scheduling_project", "beat", "-l", "info"], True),
        (["/v/lib/celery/__main__.py", "-b", "redis://x", *BEAT], True),
        (["/p/scheduling_project/lean_beat.py", *BEAT], True),
        ([CELERY, "-A", "scheduling_project", "worker", "-B"], False),
        ([CELERY, "--app", "beat", "worker"], False),
        ([CELERY, "-A"], False),
        (["manage.py", "beat"], False),
        ([], False),
    ],
)
def test_a_beat_is_known_by_its_command_line(argv: list[str], beat: bool) -> None:
    assert is_beat(argv) is beat


@pytest.mark.parametrize(
    ("before", "argv", "lean"),
    [
        (["python"], [CELERY, *BEAT, "-l", "info"], ["-m", "scheduling_project.lean_beat", *BEAT, "-l", "info"]),
        (
            ["python", "-u", "-Xdev"],
            [CELERY, "-q", *BEAT],
            ["-u", "-Xdev", "-m", "scheduling_project.lean_beat", "-q", *BEAT],
        ),
        (["python", "-m"], ["celery", *BEAT], ["-m", "scheduling_project.lean_beat", *BEAT]),
        (["python"], [CELERY, "-A", "another", "beat"], None),
        (["python"], [CELERY, "beat"], None),
        (["python"], [CELERY, "-b", "redis://x", *BEAT], None),
        (["python"], [CELERY, *BEAT, "--help"], None),
        (["python"], [CELERY, "-A", "scheduling_project", "worker"], None),
        (["python", "coverage", "run", "-m"], ["celery", *BEAT], None),
        (["python", "-P"], [CELERY, *BEAT], None),
        (["python"], ["/p/scheduling_project/lean_beat.py", *BEAT], None),
    ],
)
def test_a_process_becomes_lean_only_where_nothing_is_lost(
    before: list[str], argv: list[str], lean: list[str] | None
) -> None:
    # `python -m celery` shows in sys.argv as the path of celery's __main__
    shown = ["/v/lib/celery/__main__.py", *argv[1:]] if before[-1] == "-m" else argv
    assert lean_command(shown, [*before, *argv]) == lean


def test_started_from_elsewhere_a_process_stays_as_it_is() -> None:
    assert lean_command([CELERY, *BEAT], ["python", "-c", *BEAT]) is None
    assert lean_command([CELERY, *BEAT], BEAT) is None


def test_options_before_and_after_the_command_are_told_apart() -> None:
    assert global_options(["x", "-C", "-A", "scheduling_project.celery:app", "beat", "-q"]) == (
        frozenset({"-C"}),
        ["-q"],
    )
    assert global_options(["x", "-A", "scheduling_project"]) is None


def test_without_a_beat_s_command_line_the_lean_form_says_what_it_wants() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "scheduling_project.lean_beat", "-A", "another", "beat"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert said.returncode == 1
    assert "-A scheduling_project beat" in said.stderr


LEAN = """
import sys
sys.argv = ["/p/scheduling_project/lean_beat.py", "-A", "scheduling_project", "beat"]
from django.conf import settings
print(settings.WORKFLOW_LEASE_SECONDS, settings.DATA_DIR, settings.WORKFLOW_QUEUES, "pydantic" in sys.modules)
"""


def lean_settings(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "scheduling_project.settings", **variables}
    return subprocess.run(
        [sys.executable, "-c", LEAN],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_beat_has_its_environment_read_without_loading_what_checks_it() -> None:
    said = lean_settings(WORKFLOW_LEASE_SECONDS="77", DATA_DIR="/somewhere/else", WORKFLOW_QUEUES="a,b")
    assert (said.returncode, said.stdout) == (0, "77.0 /somewhere/else ['a', 'b'] False\n"), said.stderr


def test_a_beat_with_an_unusable_environment_says_why_and_does_not_start() -> None:
    said = lean_settings(WORKFLOW_LEASE_SECONDS="never")
    assert said.returncode == 1
    assert said.stdout == ""
    assert "WORKFLOW_LEASE_SECONDS='never'" in said.stderr
