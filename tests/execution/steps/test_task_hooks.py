"""Celery's hooks of a step task: which are called, with what, and that their errors harm nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import celery
import pytest
from celery import current_app
from celery.exceptions import Ignore

from execution import engine, runner
from execution.models import Execution, StepLog, StepRun
from execution.runner import Outcome
from execution.step_tasks import step_task
from execution.steps.context import Snooze
from tests.execution import flow

pytestmark = pytest.mark.django_db

CALLS: list[tuple[Any, ...]] = []
NAME = "tests.hooked"


class Flaky(Exception):
    pass


class Hooked(celery.Task):  # type: ignore[type-arg]
    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        CALLS.append(("before_start", kwargs, self.request.retries))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        CALLS.append(("on_success", retval, task_id))

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        CALLS.append(("on_failure", str(exc), "Flaky" in einfo.traceback))

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        CALLS.append(("on_retry", str(exc)))

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        CALLS.append(("after_return", status, self.request.retries))


class Broken(celery.Task):  # type: ignore[type-arg]
    abstract = True

    def before_start(self, *_: Any) -> None:
        raise RuntimeError("before")

    def on_success(self, *_: Any) -> None:
        raise RuntimeError("success")


@pytest.fixture(autouse=True)
def clean(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.WORKFLOW_LEASE_SECONDS = 1.0
    monkeypatch.setattr(runner, "close_old_connections", lambda: None)
    monkeypatch.setattr(engine, "close", lambda: None)
    CALLS.clear()
    yield
    current_app.tasks.pop(NAME, None)


def run(body: Any, base: type[Any] = Hooked, **options: Any) -> tuple[Execution, list[Outcome]]:
    body.__name__ = "body"
    step_task(name=NAME, base=base, **options)(body)
    execution = flow.begin({"s": {"task": NAME, "with": {"x": 1}}})
    outcomes = []
    while flow.fresh(execution).finished_at is None and len(outcomes) < 4:
        StepRun.objects.update(available_at=engine.now())
        outcomes.append(runner.run(flow.step(execution, "s").pk, worker="w@h/1").outcome)
    return execution, outcomes


def test_success() -> None:
    execution, _ = run(lambda x: x + 1)
    assert [
        ("before_start", {"x": 1}, 0),
        ("on_success", 2, f"{execution.pk}:s"),
        ("after_return", "SUCCESS", 0),
    ] == CALLS


def test_a_retry_and_then_a_failure() -> None:
    def body(x: int) -> None:
        raise Flaky("no")

    _, outcomes = run(body, autoretry_for=(Flaky,), max_retries=1, retry_backoff=False, default_retry_delay=0)
    assert outcomes == [Outcome.RETRY, Outcome.FAILED]
    assert CALLS == [
        ("before_start", {"x": 1}, 0),
        ("on_retry", "no"),
        ("after_return", "RETRY", 0),
        ("before_start", {"x": 1}, 1),
        ("on_failure", "no", True),
        ("after_return", "FAILURE", 1),
    ]


@pytest.mark.parametrize("error", [Ignore("no"), Snooze(0)])
def test_ignored_and_snoozed_bodies_get_no_later_hook(error: Exception) -> None:
    def body(x: int) -> None:
        raise error

    run(body)
    assert {call[0] for call in CALLS} == {"before_start"}


def test_an_error_in_a_hook_is_recorded_and_harmless() -> None:
    execution, outcomes = run(lambda x: x, base=Broken)
    assert outcomes == [Outcome.SUCCEEDED]
    assert [line.message for line in StepLog.objects.filter(attempt__step_run__execution=execution)] == [
        "before_start raised RuntimeError: before",
        "on_success raised RuntimeError: success",
    ]
