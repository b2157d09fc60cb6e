"""`manage.py new_task`: what it makes runs as it is, and it never harms what exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from scheduling_project import scaffold
from scheduling_project.environment import PROJECT_ROOT

CHECK = """
import django, json, sys
django.setup()
from execution import definitions, step_tasks
from {app}.tasks import {function}
body = json.load(sys.stdin)
definitions.check(body["definition"])
policy = step_tasks.policy_of({function})
print(json.dumps([{function}(name="Ada"), policy.max_attempts, policy.backoff, policy.backoff_max, policy.origin]))
"""


def new_task(capsys: pytest.CaptureFixture[str], name: str, path: Path) -> str:
    call_command("new_task", name, path=path)
    return capsys.readouterr().out


def workflow_in(text: str) -> dict[str, object]:
    found = re.search(r"<<'JSON'\n(.*?)\nJSON\n", text, re.S)
    assert found is not None
    body: dict[str, object] = json.loads(found[1])
    return body


def test_the_app_that_it_makes_runs_and_its_workflow_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = new_task(capsys, "friendly_app.tasks.say_hello", tmp_path)
    assert sorted(path.name for path in (tmp_path / "friendly_app").iterdir()) == [
        "__init__.py",
        "apps.py",
        "tasks.py",
    ]
    assert f"PYTHONPATH={tmp_path} EXTRA_APPS=friendly_app make run" in text
    ran = subprocess.run(
        [sys.executable, "-c", CHECK.format(app="friendly_app", function="say_hello")],
        input=json.dumps(workflow_in(text)),
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "scheduling_project.settings",
            "PYTHONPATH": f"{tmp_path}:{PROJECT_ROOT}",
            "EXTRA_APPS": "friendly_app",
        },
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    greeting = {"greeting": "Hello, Ada!", "attempt": 1, "idempotency_key": ""}
    assert json.loads(ran.stdout) == [greeting, 6, 2.0, 60.0, "task"]


def test_what_it_writes_passes_the_projects_own_style(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_task(capsys, "friendly.tasks.greet", tmp_path)
    for command in ("check", "format --check"):
        ran = subprocess.run(
            [
                sys.executable,
                "-m",
                "ruff",
                *command.split(),
                "--config",
                str(PROJECT_ROOT / "pyproject.toml"),
                tmp_path,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_current_folder_is_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call_command("new_task", "friendly.tasks.greet")
    assert (tmp_path / "friendly" / "tasks.py").exists()
    assert "Made " in capsys.readouterr().out


def test_python_paths_are_only_named_where_they_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("EXTRA_APPS", "scheduling_project.drills")
    text = new_task(capsys, "friendly.tasks.greet", tmp_path)
    assert "\n   EXTRA_APPS=scheduling_project.drills,friendly make run\n" in text


REFUSED_NAMES = {
    "greet": "must look like myapp.tasks.greet",
    "myapp.greet": "must look like myapp.tasks.greet",
    "myapp.jobs.greet": "must look like myapp.tasks.greet",
    "my.app.tasks.greet": "must look like myapp.tasks.greet",
    "": "must look like myapp.tasks.greet",
    "MyApp.tasks.greet": "'MyApp' in 'MyApp.tasks.greet' must begin with a lower-case letter",
    "my-app.tasks.greet": "lower-case letters, digits and _",
    "myapp.tasks.9lives": "must begin with a lower-case letter",
    "../up.tasks.greet": "must look like myapp.tasks.greet",
    "my app.tasks.greet": "lower-case letters, digits and _",
    f"{'a' * 61}.tasks.greet": "at most 60",
    "myapp.tasks.": "must begin with a lower-case letter",
    "class.tasks.greet": "'class' in 'class.tasks.greet' is a keyword of Python",
    "myapp.tasks.lambda": "'lambda' in 'myapp.tasks.lambda' is a keyword of Python",
    "json.tasks.greet": "A Python package called 'json' exists already",
    "celery.tasks.greet": "A Python package called 'celery' exists already",
    "execution.tasks.greet": "An app called 'execution' is installed already",
    "auth.tasks.greet": "An app called 'auth' is installed already",
}


@pytest.mark.parametrize(("name", "message"), REFUSED_NAMES.items())
def test_a_name_that_cannot_be_used_is_refused_with_the_rule(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=re.escape(message)):
        call_command("new_task", name, path=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_nothing_is_overwritten(make: object, tmp_path: Path) -> None:
    make(tmp_path / "friendly")  # type: ignore[operator]
    with pytest.raises(CommandError, match="exists already and is not overwritten"):
        call_command("new_task", "friendly.tasks.greet", path=tmp_path)


def test_an_app_never_lands_in_the_projects_own_packages() -> None:
    for folder in ("execution", "scheduling_project/demo", "tests"):
        with pytest.raises(CommandError, match="belongs to the project itself"):
            call_command("new_task", "friendly.tasks.greet", path=PROJECT_ROOT / folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is not a folder"):
        call_command("new_task", "friendly.tasks.greet", path=tmp_path / "missing")


def test_a_folder_that_appears_in_between_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "friendly").mkdir()
    with pytest.raises(scaffold.ScaffoldError, match="cannot be written: File exists"):
        scaffold.write(tmp_path / "friendly", {"tasks.py": "mine"})
    assert list((tmp_path / "friendly").iterdir()) == []
