"""What a running step can say and ask: lines, progress, heartbeat, snooze, cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import current_app
from django.db import OperationalError

from execution import engine, queue, runner, step_notes
from execution.models import Attempt, Execution, StepLog
from execution.runner import Outcome, Report
from execution.step_tasks import step_task
from execution.steps.context import StepContext, current
from tests.api_client import Api
from tests.execution import flow

pytestmark = pytest.mark.django_db

NAME = "tests.talking"
Body = Callable[[StepContext], Any]


@pytest.fixture(autouse=True)
def clean(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.WORKFLOW_LEASE_SECONDS = 1.0
    monkeypatch.setattr(runner, "close_old_connections", lambda: None)
    monkeypatch.setattr(engine, "close", lambda: None)
    yield
    current_app.tasks.pop(NAME, None)


def run(said: Body) -> tuple[Execution, Report]:
    def body() -> Any:
        context = current()
        assert context is not None
        return said(context)

    step_task(name=NAME)(body)
    execution = flow.begin({"s": {"task": NAME}, "after": flow.http("s")})
    return execution, runner.run(flow.step(execution, "s").pk, worker="w@h/1")


def test_lines_are_kept_with_their_attempt_and_shown() -> None:
    def body(context: StepContext) -> None:
        context.log("begun")
        context.log("odd \x00 \ud800", level="warning")
        context.log("x" * 5_000, level="debug")

    execution, _ = run(body)
    path = f"/api/executions/{execution.pk}/logs"
    api = Api()
    lines = api.ok("get", path)["results"]
    assert [(line["level"], line["message"][:20]) for line in lines] == [
        ("info", "begun"),
        ("warning", "odd  \\ud800"),
        ("debug", "x" * 20),
    ]
    assert len(lines[2]["message"]) == 4_000
    assert (lines[0]["step"], lines[0]["attempt"]) == ("s", 1)
    assert len(api.ok("get", f"{path}?level=warning&step=s")["results"]) == 1
    api.refused("get", f"{path}?level=loud", status=400, field="level")
    api.refused("get", "/api/executions/00000000-0000-0000-0000-000000000000/logs", status=404)


def test_lines_go_with_their_attempt_whoever_deletes_it() -> None:
    execution, _ = run(lambda context: context.log("begun"))
    engine.fetch_all("DELETE FROM execution_attempt", {})
    engine.fetch_all("SET CONSTRAINTS ALL IMMEDIATE", {})
    assert not StepLog.objects.exists()
    assert execution.pk


def test_a_talkative_attempt_is_cut(settings: Any) -> None:
    settings.WORKFLOW_LOG_LINES = 2
    run(lambda context: [context.log(f"line {n}") for n in range(5)] and None)
    assert [line.message for line in StepLog.objects.all()] == [
        "line 0",
        "line 1",
        "more than 2 lines: the others are not kept",
    ]


def test_an_unknown_level_fails_the_step() -> None:
    _, report = run(lambda context: context.log("x", level="loud"))
    assert report.outcome is Outcome.FAILED
    assert "'loud' is not a level" in report.error


def test_a_step_renews_its_lease_itself_and_learns_that_it_is_lost() -> None:
    def body(context: StepContext) -> None:
        context.heartbeat()
        queue.cancel(context.execution_id, reason="no longer wanted")
        context.heartbeat()

    execution, report = run(body)
    assert report.outcome is Outcome.LOST
    assert flow.states(execution)["s"] == "cancelled"


def test_an_absent_postgres_disturbs_neither_lines_nor_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("away")

    def body(context: StepContext) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(step_notes, "keep_line", away)
            patch.setattr(queue, "heartbeat", away)
            context.log("lost")
            context.heartbeat()

    _, report = run(body)
    assert report.outcome is Outcome.SUCCEEDED


def test_a_step_snoozes_and_is_not_charged() -> None:
    execution, report = run(lambda context: context.snooze(60, "the gate is closed"))
    run_ = flow.step(execution, "s")
    assert (report.outcome, run_.state, run_.failures) == (Outcome.SNOOZED, "queued", 0)
    assert run_.state_reason == "the gate is closed"


def test_a_step_that_asks_to_be_cancelled_is_skipped_and_what_needs_it_goes_on() -> None:
    execution, report = run(lambda context: context.cancel("nothing to do today"))
    assert report.outcome is Outcome.CANCELLED
    assert flow.states(execution) == {"s": "skipped", "after": "queued"}
    assert flow.step(execution, "s").state_reason == "nothing to do today"
    assert Attempt.objects.get().state == "cancelled"
