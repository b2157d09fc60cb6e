"""Which Celery tasks may be steps: those marked with `@step_task`, and those that ``WORKFLOW_TASKS`` names.

An explicit list, because whoever may edit a workflow could otherwise call any task of the deployment.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast, overload

import celery
from celery import shared_task
from django.conf import settings

from execution import json_kinds
from execution.json_kinds import Kinds
from execution.retry import UNLIMITED, Policy

P = ParamSpec("P")
R = TypeVar("R")

MARK = "workflow_step"


Task = celery.Task[Any, Any]


@overload
def step_task(function: Callable[P, R], /) -> celery.Task[P, R]: ...


@overload
def step_task(*args: Any, **options: Any) -> Callable[[Callable[P, R]], celery.Task[P, R]]: ...


def step_task(*args: Any, **options: Any) -> Any:
    """Like ``celery.shared_task``, and the task may be a step of a workflow.

    >>> @step_task(autoretry_for=(OSError,), retry_backoff=2, max_retries=5)
    ... def extract(day: str) -> dict: ...

    ``autoretry_for``, ``dont_autoretry_for``, ``max_retries``, ``retry_backoff``, ``retry_backoff_max`` and
    ``retry_jitter`` become the step's default retry policy.
    """
    if len(args) == 1 and callable(args[0]) and not options:
        return cast(Any, shared_task)(**{MARK: True})(args[0])
    return cast(Any, shared_task)(*args, **{MARK: True, **options})


def is_allowed(task: Task) -> bool:
    """Whether workflows may call this task."""
    if getattr(task, MARK, False):
        return True
    return any(fnmatch.fnmatchcase(task.name, pattern) for pattern in settings.WORKFLOW_TASKS)


def find(name: str) -> Task | None:
    """The task of that name that may be a step, or None."""
    task = _tasks().get(name)
    return task if task is not None and is_allowed(task) else None


@cache
def _tasks() -> Mapping[str, Task]:
    """The registry, after every app's tasks are imported. Once: Celery's import signal sets Django up again and runs
    its checks, which takes longer than a step. A worker has imported them when it began."""
    app = celery.current_app
    if not app.loader.worker_initialized:
        app.loader.import_default_modules()
    tasks: Mapping[str, Task] = app.tasks
    return tasks


@dataclass(frozen=True, slots=True)
class Description:
    """A step task as people choose it."""

    name: str
    signature: str
    doc: str
    policy: Policy | None


def available() -> list[Description]:
    """Every task that may be a step, by name."""
    return [
        Description(name, str(_signature(task)), inspect.getdoc(body_of(task)) or "", policy_of(task))
        for name, task in sorted(_tasks().items())
        if is_allowed(task)
    ]


def body_of(task: Task) -> Callable[..., Any]:
    """The task's function without Celery's autoretry wrapper: what is retried is decided by `execution.retry`."""
    body: Callable[..., Any] = getattr(task, "_orig_run", task.run)
    return body


def _signature(task: Task) -> inspect.Signature:
    return inspect.signature(body_of(task))


def check_arguments(task: Task, arguments: dict[str, Any]) -> str:
    """Why the task cannot be called with these keyword arguments; empty when it can."""
    try:
        _signature(task).bind(**arguments)
    except TypeError as error:
        return str(error)
    return ""


def annotations_of(task: Task) -> dict[str, Any]:
    """The annotations of a task's parameters and, as ``return``, of what it gives; those that can be resolved."""
    body = body_of(task)
    return json_kinds.hints_of(getattr(body, "__func__", body))


def misfits(
    task: Task, arguments: Mapping[str, Any], kinds_of: Callable[[Any], Kinds | None]
) -> list[tuple[tuple[Any, ...], str]]:
    """Which keyword arguments do not fit the annotations of a task's parameters: their paths, and the rules.

    Args:
        kinds_of: what an expression may give; None for what is none.
    """
    found: list[tuple[tuple[Any, ...], str]] = []
    hints = annotations_of(task)
    for name, value in arguments.items():
        if name not in hints:
            continue
        possible, accepted = kinds_of(value), json_kinds.of_annotation(hints[name])
        if possible is None:
            below = json_kinds.misfits(value, hints[name], unknown=lambda part: kinds_of(part) is not None)
            found.extend(((name, *path), rule) for path, rule in below)
        elif json_kinds.disagree(possible, accepted):
            told = f"takes {json_kinds.named(accepted)}, and this gives {json_kinds.named(possible)}"
            found.append(((name,), f"{name} {told}"))
    return found


def policy_of(task: Task) -> Policy | None:
    """The policy in a task's own autoretry options; None where it has no ``autoretry_for``."""
    exceptions = tuple(getattr(task, "autoretry_for", ()))
    if not exceptions:
        return None
    options = getattr(task, "retry_kwargs", {})
    retries = options.get("max_retries")
    if retries is None:
        retries = task.max_retries
    backoff = float(getattr(task, "retry_backoff", False))
    if backoff:
        first = float(int(max(1.0, backoff)))  # as Celery's wrapper does: True is 1 s, 2.5 is 2 s
    else:
        countdown = options.get("countdown")
        first = float(task.default_retry_delay if countdown is None else countdown)
    return Policy(
        max_attempts=UNLIMITED if retries is None else int(retries) + 1,
        backoff=first,
        factor=2.0 if backoff else 1.0,
        backoff_max=float(int(getattr(task, "retry_backoff_max", 600))) if backoff else first,
        jitter=bool(getattr(task, "retry_jitter", True)) if backoff else False,
        retry_on=tuple(path_of(exception) for exception in exceptions),
        give_up_on=tuple(path_of(exception) for exception in getattr(task, "dont_autoretry_for", ())),
        origin="task",
    )


def path_of(exception: type[BaseException]) -> str:
    """The class path that a policy names an exception by: ``OSError``, ``httpx.ConnectError``."""
    if exception.__module__ == "builtins":
        return exception.__qualname__
    return f"{exception.__module__}.{exception.__qualname__}"
