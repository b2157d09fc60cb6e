"""A new app with a step task, as text: what ``manage.py new_task`` writes and prints. Pure but for `write`."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Celery looks for tasks in this module of every installed app.
TASKS_MODULE: Final = "tasks"
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,59}")


class ScaffoldError(ValueError):
    """The app cannot be made; the message says why and what to do instead."""


@dataclass(frozen=True, slots=True)
class TaskName:
    """``app.tasks.function``."""

    app: str
    function: str

    @property
    def dotted(self) -> str:
        return f"{self.app}.{TASKS_MODULE}.{self.function}"

    @property
    def workflow(self) -> str:
        return self.function.replace("_", "-")


def parse(name: str) -> TaskName:
    """Take a task's name apart.

    >>> parse("myapp.tasks.greet")
    TaskName(app='myapp', function='greet')

    Raises:
        ScaffoldError: it is not of the form ``app.tasks.function``, or a part cannot be a Python name.
    """
    parts = name.split(".")
    if len(parts) != 3 or parts[1] != TASKS_MODULE:
        raise ScaffoldError(
            f"{name!r} must look like myapp.tasks.greet: an app, its module `tasks` (where Celery looks), a function."
        )
    for part in (parts[0], parts[2]):
        if not _WORD.fullmatch(part):
            raise ScaffoldError(
                f"{part!r} in {name!r} must begin with a lower-case letter and hold lower-case letters, digits and _ "
                "only (at most 60)."
            )
        if keyword.iskeyword(part):
            raise ScaffoldError(f"{part!r} in {name!r} is a keyword of Python.")
    return TaskName(parts[0], parts[2])


def check_app(task: TaskName, *, labels: Collection[str]) -> None:
    """Refuse an app whose name is taken.

    Args:
        labels: the labels of the apps that are installed.

    Raises:
        ScaffoldError: an installed app or an importable package has that name.
    """
    if task.app in labels:
        raise ScaffoldError(f"An app called {task.app!r} is installed already: add a function to its tasks.py instead.")
    if importlib.util.find_spec(task.app) is not None:
        raise ScaffoldError(f"A Python package called {task.app!r} exists already: choose another name for the app.")


def folder_of(task: TaskName, path: Path, *, packages: Collection[Path]) -> Path:
    """The folder that the app gets.

    Args:
        packages: folders of this project's own code, in which an app of yours would be lost at the next update.

    Raises:
        ScaffoldError: `path` is no folder, or lies in one of `packages`, or the app's folder exists.
    """
    base = path.resolve()
    if not base.is_dir():
        raise ScaffoldError(f"{path} is not a folder: make it first, or name another one with --path.")
    for package in packages:
        if base.is_relative_to(package.resolve()):
            raise ScaffoldError(
                f"{base} belongs to the project itself: name a folder of yours with --path, or call this elsewhere."
            )
    folder = base / task.app
    if folder.exists() or folder.is_symlink():
        raise ScaffoldError(f"{folder} exists already and is not overwritten: add a function to its tasks.py instead.")
    return folder


def files_of(task: TaskName) -> Mapping[str, str]:
    """The files of the app, by name."""
    config = "".join(word.capitalize() for word in task.app.split("_")) + "Config"
    return {
        "__init__.py": f'"""The app {task.app}: step tasks for workflows."""\n',
        "apps.py": APPS.format(app=task.app, config=config),
        f"{TASKS_MODULE}.py": TASKS.format(app=task.app, function=task.function, dotted=task.dotted),
    }


def workflow_of(task: TaskName) -> dict[str, Any]:
    """A workflow of one step that runs the task: the body of ``POST /api/workflows``."""
    return {
        "name": task.workflow,
        "definition": {
            "input": {
                "type": "object",
                "properties": {"name": {"type": "string", "default": "world"}},
                "additionalProperties": False,
            },
            "steps": {task.function: {"task": task.dotted, "with": {"name": "${{ input.name || 'world' }}"}}},
            "output": f"${{{{ steps.{task.function}.output }}}}",
        },
    }


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Make the folder and its files; never touches what exists.

    Raises:
        ScaffoldError: somebody made the folder in the meantime, or it cannot be written.
    """
    try:
        folder.mkdir()
        for name, text in files.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be written: {error.strerror or error}") from error


def next_steps(task: TaskName, folder: Path, *, extra_apps: Collection[str], importable: bool) -> str:
    """What to do with the new app, for a person at a terminal."""
    apps = ",".join([*extra_apps, task.app])
    variables = f"EXTRA_APPS={apps}" if importable else f"PYTHONPATH={folder.parent} EXTRA_APPS={apps}"
    return NEXT_STEPS.format(
        folder=folder,
        variables=variables,
        workflow=json.dumps(workflow_of(task), indent=2),
        name=task.workflow,
    )


APPS = '''"""The app as Django sees it; ``EXTRA_APPS={app}`` installs it."""

from __future__ import annotations

from django.apps import AppConfig


class {config}(AppConfig):
    name = "{app}"
    default_auto_field = "django.db.models.BigAutoField"
'''

TASKS = '''"""Step tasks of {app}: ordinary Celery tasks that workflows may run."""

from __future__ import annotations

from execution.step_tasks import step_task
from execution.steps.context import current


@step_task(
    name="{dotted}",
    # The step's default retry policy; a workflow may state another one.
    autoretry_for=(ConnectionError, TimeoutError),  # other errors fail the step at once
    retry_backoff=2,  # the first retry after at most 2 s, then 4 s, 8 s, …
    retry_backoff_max=60,  # but never later than 60 s
    retry_jitter=True,  # anywhere between 0 and that delay, so that many failures do not return together
    max_retries=5,  # six attempts in all
)
def {function}(name: str = "world") -> dict[str, str | int]:
    """Greet somebody.

    Arguments are the members of the step's ``with``; the result must be JSON, and later steps read it as
    ``${{{{ steps.<name of the step>.output }}}}``.

    A step runs at least once: after a crash it runs again. Hand ``idempotency_key`` to whatever must not happen
    twice; it is the same for every attempt of this step of this execution.
    """
    step = current()  # None when the function is called outside a workflow, in a test for instance
    return {{
        "greeting": f"Hello, {{name}}!",
        "attempt": step.attempt if step else 1,
        "idempotency_key": step.idempotency_key if step else "",
    }}
'''

NEXT_STEPS = """Made {folder}

1. Start everything with your app (or put the line into your environment):

   {variables} make run

2. Create a workflow that runs the task. In the shell in which TOKEN is set (make run prints the line):

   curl -fsS http://127.0.0.1:8000/api/workflows -H "Authorization: Bearer $TOKEN" \\
     -H 'Content-Type: application/json' -d @- <<'JSON'
{workflow}
JSON

3. Run it:

   curl -fsS http://127.0.0.1:8000/api/workflows/{name}/start -H "Authorization: Bearer $TOKEN" \\
     -H 'Content-Type: application/json' -d '{{"input": {{"name": "Ada"}}}}'

In development (DEBUG=1) the worker reloads when you change the code."""
