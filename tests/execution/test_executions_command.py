"""`manage.py executions` and `manage.py why`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from execution.management.commands import executions
from execution.management.timeline_text import Bar, drawn
from execution.models import Attempt, Execution, StepLog
from execution.states import ExecutionState, StepState
from tests import factories
from tests.commands import ends, read, run
from tests.execution.flow import begin, fail, fresh, held, http, succeed

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "LOOK_SECONDS", 0.01)


def test_executions_are_listed_by_state_workflow_and_age() -> None:
    old = factories.make_execution(state=ExecutionState.FAILED, created_at=factories.now() - timedelta(days=2))
    new = factories.make_execution(state=ExecutionState.SUCCEEDED)
    factories.make_execution()

    def listed(*options: Any) -> list[str]:
        return [one["id"] for one in read("executions", "list", *options)]

    assert len(listed()) == 3
    assert len(listed("--limit", 1)) == 1
    assert listed("--state", "failed,succeeded") == [str(new.pk), str(old.pk)]
    assert listed("--state", "failed", "--since", "24h") == []
    assert listed("--until", "1d") == [str(old.pk)]
    assert listed("--workflow", new.workflow.name) == [str(new.pk)]
    assert "10 s" in run("executions", "list", "--workflow", new.workflow.name)


def test_one_is_shown_with_steps_attempts_and_timeline() -> None:
    execution = begin({"a": http(), "b": http("a"), "c": http("b")}, input={"n": 1})
    succeed(execution, "a", 5)
    fail(execution, "b")
    told = run("executions", "show", execution.pk)
    for part in ("failed", '{"n": 1}', "a/1", "b/1", "█", "▒"):
        assert part in told
    shown = read("executions", "show", execution.pk)
    assert [step["state"] for step in shown["steps"]] == ["succeeded", "failed", "skipped"]
    assert shown["steps"][0]["output"] == 5
    assert [one["step"] for one in read("executions", "attempts", execution.pk)] == ["a", "b"]


def test_the_items_of_a_fan_out_are_on_the_timeline() -> None:
    execution = begin({"a": http(for_each=[1, 2])})
    succeed(execution, "a", index=0)
    assert "a[0]/1" in run("executions", "show", execution.pk)


def test_a_timeline_draws_what_goes_on_until_now_and_nothing_of_no_width() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    bars = [
        Bar("long", "running", at, None),
        Bar("x", "lost", at + timedelta(seconds=9.99), at + timedelta(seconds=10)),
    ]
    assert drawn(bars, begin=at, now=at + timedelta(seconds=10), width=10) == [
        "long ▓▓▓▓▓▓▓▓▓▓  10 s running",
        "x             ▒  0.01 s lost",
    ]
    assert drawn([], begin=at, now=at, width=10) == []


def test_it_is_started_and_waited_for() -> None:
    workflow = factories.make_workflow("alpha")
    code, out, err = ends("executions", "start", "alpha", "--input", '{"n": 1}', "--wait", "--timeout", "0.02")
    execution = Execution.objects.get(workflow=workflow)
    assert (code, out.strip()) == (3, str(execution.pk))
    assert "still queued: No worker serves queue default" in err
    succeed(execution, "work")
    assert ends("executions", "wait", execution.pk) == (0, "succeeded\n", "")
    other = read(
        "executions",
        "start",
        "alpha",
        "--start-at",
        "2099-01-01T00:00:00Z",
        "--timeout-seconds",
        5,
        "--deadline",
        "2099-01-01T00:00:03Z",
    )
    assert (other["state"], other["new"]) == ("scheduled", True)
    run("executions", "cancel", other["id"], "--reason", "wrong")
    code, out, _ = ends("executions", "wait", other["id"])
    assert (code, out.startswith("cancelled: cancelled by command:")) == (1, True)


def test_everything_that_can_be_done_is_done() -> None:
    execution = begin({"a": http(), "b": http("a")})
    assert run("executions", "priority", execution.pk, "critical") == "priority 0\n"
    run("executions", "pause", execution.pk, "--note", "n")
    assert fresh(execution).state == "paused"
    run("executions", "resume", execution.pk)
    succeed(execution, "a")
    fail(execution, "b")
    assert run("executions", "resume-from-failure", execution.pk, "--note", "n") == "1 steps are open again\n"
    again = read("executions", "rerun", execution.pk, "--input", '{"n": 2}', "--priority", "1", "--latest")
    copy = Execution.objects.get(pk=again["id"])
    assert (copy.input, copy.priority, copy.source_kind) == ({"n": 2}, 1, "rerun")


def test_the_lines_of_its_steps_are_printed_and_followed() -> None:
    execution = begin({"a": http()})
    claimed = held(execution, "a")
    attempt = Attempt.objects.get(pk=claimed.token)
    StepLog.objects.create(attempt=attempt, level="info", message="begun")
    StepLog.objects.create(attempt=attempt, level="error", message="[bold]oh[/bold]")
    assert "info    a/1: begun" in run("executions", "logs", execution.pk)
    assert [one["message"] for one in read("executions", "logs", execution.pk, "--level", "error")] == [
        "[bold]oh[/bold]"
    ]
    run("executions", "cancel", execution.pk)
    followed = run("executions", "logs", execution.pk, "--follow", "--json", "--step", "a")
    assert [json.loads(line)["message"] for line in followed.splitlines()] == ["begun", "[bold]oh[/bold]"]


def test_following_goes_on_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    execution = begin({"a": http()})
    claimed = held(execution, "a")
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        StepLog.objects.create(attempt_id=claimed.token, level="info", message=f"look {len(looks)}")
        if len(looks) == 2:
            run("executions", "cancel", execution.pk)

    monkeypatch.setattr(executions.time, "sleep", look)
    assert run("executions", "logs", execution.pk, "--follow").count("look") == 2


def test_why_names_the_blocker_also_for_a_step_run() -> None:
    execution = factories.make_execution(with_steps=True)
    step = execution.step_runs.get()
    answer = read("why", execution.pk)
    assert (answer["execution"], answer["blockers"][0]["code"]) == (str(execution.pk), "no_worker")
    assert read("why", step.pk) == answer
    assert "No worker serves queue default" in run("why", execution.pk)
    later = factories.now() + timedelta(hours=1)
    step.available_at, step.state, step.failures = later, StepState.QUEUED, 0
    step.save()
    assert f"It may start at {later:%Y-%m-%d %H:%M:%S} UTC" in run("why", execution.pk)
    ended = factories.make_execution(state=ExecutionState.SUCCEEDED)
    assert "It has succeeded" in run("why", ended.pk)


NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["executions", "show", "x"], "no execution 'x'"),
        (["executions", "show", NOBODY], "no execution"),
        (["executions", "cancel", NOBODY], "no such execution"),
        (["executions", "list", "--state", "lost"], "state: "),
        (["executions", "list", "--since", "soon"], "--since must be an instant"),
        (["executions", "list", "--since", "2026-01-01T00:00:00"], "--since must be an instant"),
        (["executions", "list", "--limit", "0"], "not a whole number"),
        (["executions", "start", "none"], "no workflow 'none'"),
        (["executions", "start", "alpha", "--start-at", "soon"], "start_at: "),
        (["executions", "start", "alpha", "--deadline", "2020-01-01T00:00:00Z"], "deadline: has passed already"),
        (["executions", "rerun", NOBODY, "--priority", "urgent"], "priority: "),
        (["executions", "priority", NOBODY, "urgent"], "priority: "),
        (["executions", "resume", NOBODY], "no such execution"),
        (["why", "x"], "no execution 'x'"),
        (["why", NOBODY], "no execution"),
    ],
    ids=lambda value: " ".join(value[:-1]) if isinstance(value, list) else "",
)
def test_a_mistake_is_named(arguments: list[str], error: str) -> None:
    factories.make_workflow("alpha")
    code, _, said = ends(*arguments)
    assert (code, error in said) == (1, True), said
    assert not Execution.objects.exists()
