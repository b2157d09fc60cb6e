"""Row-level flow of the engine: creation, claim, finish, retry, dead letter, fan-out, on one connection."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from execution import advance, broker, creation, dispatch, engine, handoff, maintenance, queue
from execution.models import Attempt, DeadLetter, Execution, StepRun, Workflow, WorkflowVersion
from execution.plans import plan_by_id
from execution.queue import Claim
from execution.states import AttemptState, StepState

pytestmark = pytest.mark.django_db

TASK = {"task": "tests.ok"}


def workflow(steps: dict[str, Any], **definition: Any) -> Workflow:
    made = Workflow.objects.create(name=f"w{Workflow.objects.count()}")
    made.published = WorkflowVersion.objects.create(
        workflow=made, number=1, definition={"steps": steps, **definition}, published_at=engine.now()
    )
    made.save()
    return made


def begin(steps: dict[str, Any], *, input: Any = None, **definition: Any) -> Execution:
    return creation.start(workflow(steps, **definition), input=input)


def step(execution: Execution, name: str, index: int | None = None) -> StepRun:
    return StepRun.objects.get(execution=execution, name=name, item_index=index)


def claim(run: StepRun, **options: Any) -> Claim | None:
    return queue.claim(run.pk, worker="w@h/1", lease=30, **options)


def succeed(execution: Execution, name: str, output: Any = None, index: int | None = None) -> None:
    run = step(execution, name, index)
    held = claim(run)
    assert held is not None, f"{name} is {run.state} for {run.waiting_for}"
    plan = plan_by_id(held.version_id)
    ending = advance.ending_of(
        plan, plan.steps[name], state=StepState.SUCCEEDED, output=output, has_output=output is not None
    )
    assert advance.conclude(held, plan, ending) is not None


def fail(execution: Execution, name: str, index: int | None = None) -> None:
    held = claim(step(execution, name, index))
    assert held is not None
    plan = plan_by_id(held.version_id)
    planned = plan.steps[name]
    ending = advance.ending_of(
        plan,
        planned,
        state=StepState.FAILED,
        attempt_state=AttemptState.FAILED,
        reason="boom",
        charged=True,
        letter="" if planned.continue_on_error else "failed",
        error_type="ValueError",
        error="boom",
        fingerprint="f" * 32,
    )
    assert advance.conclude(held, plan, ending) is not None


def states(execution: Execution) -> dict[str, str]:
    return dict(StepRun.objects.filter(execution=execution, parent=None).values_list("name", "state"))


def fresh(execution: Execution) -> Execution:
    return Execution.objects.get(pk=execution.pk)


def test_a_diamond_runs_its_last_step_once_both_branches_have_ended() -> None:
    execution = begin(
        {"a": TASK, "b": TASK | {"needs": ["a"]}, "c": TASK | {"needs": ["a"]}, "d": TASK | {"needs": ["b", "c"]}}
    )
    assert states(execution) == {"a": "queued", "b": "waiting", "c": "waiting", "d": "waiting"}
    succeed(execution, "a", {"n": 1})
    assert states(execution) == {"a": "succeeded", "b": "queued", "c": "queued", "d": "waiting"}
    succeed(execution, "b")
    assert states(execution)["d"] == "waiting"
    succeed(execution, "c")
    assert states(execution)["d"] == "queued"
    assert fresh(execution).state == "running"
    succeed(execution, "d")
    ended = fresh(execution)
    assert (ended.state, ended.open_steps, ended.finished_at is not None) == ("succeeded", 0, True)


def test_a_claimed_step_run_cannot_be_claimed_again() -> None:
    execution = begin({"a": TASK})
    run = step(execution, "a")
    first = claim(run)
    assert first is not None
    assert (first.attempt, first.input, first.label) == (1, {}, f"{execution.workflow.name}.a")
    assert claim(run) is None
    assert Attempt.objects.get(step_run=run).pk == first.token


def test_a_hint_with_another_priority_than_the_row_is_dropped() -> None:
    run = step(begin({"a": TASK}), "a")
    assert claim(run, priority=0) is None
    assert claim(run, priority=6) is not None


def test_a_stale_attempt_commits_nothing() -> None:
    execution = begin({"a": TASK})
    run = step(execution, "a")
    held = claim(run)
    assert held is not None
    now = engine.now() + timedelta(hours=1)
    assert maintenance.rescue(now=now).queued == 1
    plan = plan_by_id(held.version_id)
    ending = advance.ending_of(plan, plan.steps["a"], state=StepState.SUCCEEDED)
    assert advance.conclude(held, plan, ending) is None
    assert not queue.heartbeat(run.pk, held.token, lease=30)
    run.refresh_from_db()
    assert (run.state, run.worker_deaths, run.failures) == ("queued", 1, 0)
    assert Attempt.objects.get(step_run=run).state == "lost"


def test_the_third_lost_worker_makes_a_dead_letter() -> None:
    execution = begin({"a": TASK})
    now = engine.now()
    for hours in range(1, 4):
        now += timedelta(hours=hours)
        assert queue.claim(step(execution, "a").pk, worker="w@h/1", lease=30, now=now) is not None
        now += timedelta(minutes=5)
        maintenance.rescue(now=now)
    letter = DeadLetter.objects.get(execution=execution)
    assert (letter.reason, letter.state, letter.attempts) == ("quarantined", "open", 3)
    assert fresh(execution).state == "failed"


def test_an_unhandled_failure_skips_what_needs_it_and_leaves_one_letter() -> None:
    execution = begin({"a": TASK, "b": TASK | {"needs": ["a"]}, "c": TASK | {"needs": ["b"]}, "other": TASK})
    fail(execution, "a")
    assert states(execution) == {"a": "failed", "b": "skipped", "c": "skipped", "other": "queued"}
    assert fresh(execution).state == "running"
    succeed(execution, "other")
    assert fresh(execution).state == "failed"
    letter = DeadLetter.objects.get(execution=execution)
    assert (letter.step_name, letter.state, letter.error) == ("a", "open", "boom")


def test_a_handled_failure_goes_on_and_leaves_no_letter() -> None:
    execution = begin({"a": TASK | {"on_error": "continue"}, "b": TASK | {"needs": ["a"]}})
    fail(execution, "a")
    assert states(execution) == {"a": "failed", "b": "queued"}
    succeed(execution, "b")
    assert fresh(execution).state == "succeeded"
    assert not DeadLetter.objects.exists()


def test_a_condition_that_does_not_hold_skips_the_step_and_the_rest_goes_on() -> None:
    execution = begin(
        {
            "a": TASK,
            "b": TASK | {"needs": ["a"], "when": {"steps": {"a": {"output": {"n": [{"numeric": [">", 5]}]}}}}},
            "c": TASK | {"needs": ["b"]},
        }
    )
    succeed(execution, "a", {"n": 1})
    assert states(execution) == {"a": "succeeded", "b": "skipped", "c": "queued"}
    assert "when" in step(execution, "b").state_reason


def test_a_fan_out_runs_an_item_each_and_fans_in_once() -> None:
    execution = begin(
        {"each": TASK | {"for_each": "${{ input.parts }}"}, "after": TASK | {"needs": ["each"]}},
        input={"parts": ["x", "y", "z"]},
        output="${{ steps.each.output.results }}",
    )
    assert states(execution) == {"each": "waiting", "after": "waiting"}
    for index in (2, 0, 1):
        succeed(execution, "each", {"i": index}, index=index)
    assert states(execution) == {"each": "succeeded", "after": "queued"}
    succeed(execution, "after")
    ended = fresh(execution)
    assert ended.state == "succeeded"
    assert ended.output.data == [{"i": 0}, {"i": 1}, {"i": 2}]


def test_a_fan_out_with_max_parallel_frees_the_next_item_as_one_ends() -> None:
    execution = begin({"each": TASK | {"for_each": [1, 2, 3], "max_parallel": 1}})
    items = lambda: list(  # noqa: E731
        StepRun.objects.filter(parent__execution=execution).order_by("item_index").values_list("state", flat=True)
    )
    assert items() == ["queued", "waiting", "waiting"]
    succeed(execution, "each", index=0)
    assert items() == ["succeeded", "queued", "waiting"]
    fail(execution, "each", index=1)
    succeed(execution, "each", index=2)
    assert states(execution) == {"each": "failed"}
    assert fresh(execution).state == "failed"
    assert DeadLetter.objects.filter(execution=execution).count() == 1


def test_an_empty_fan_out_succeeds_at_once() -> None:
    execution = begin({"each": TASK | {"for_each": []}, "after": TASK | {"needs": ["each"]}})
    assert states(execution) == {"each": "succeeded", "after": "queued"}


def test_a_durable_sleep_ends_by_the_timer() -> None:
    execution = begin({"nap": {"wait": "1h"}, "after": TASK | {"needs": ["nap"]}})
    assert step(execution, "nap").waiting_for == "timer"
    assert maintenance.ring_timers(now=engine.now()) == 0
    assert maintenance.ring_timers(now=engine.now() + timedelta(hours=2)) == 1
    assert states(execution) == {"nap": "succeeded", "after": "queued"}


def test_an_expression_that_cannot_be_evaluated_fails_the_step_with_a_letter() -> None:
    execution = begin({"each": TASK | {"for_each": "${{ input.parts }}"}}, input={"parts": 5})
    assert fresh(execution).state == "failed"
    letter = DeadLetter.objects.get(execution=execution)
    assert letter.reason == "unprepared"
    assert "needs a list" in letter.error


def test_cancel_ends_every_open_step_and_refuses_the_running_attempt() -> None:
    execution = begin({"a": TASK, "b": TASK | {"needs": ["a"]}})
    held = claim(step(execution, "a"))
    assert held is not None
    assert queue.cancel(execution.pk, reason="not wanted")
    assert states(execution) == {"a": "cancelled", "b": "cancelled"}
    plan = plan_by_id(held.version_id)
    assert advance.conclude(held, plan, advance.ending_of(plan, plan.steps["a"], state=StepState.SUCCEEDED)) is None
    assert not queue.cancel(execution.pk, reason="again")
    assert fresh(execution).state == "cancelled"


def test_the_same_idempotency_key_gives_the_same_execution() -> None:
    made = workflow({"a": TASK})
    first = creation.start(made, idempotency_key="k")
    again = creation.start(made, idempotency_key="k")
    assert first.pk == again.pk
    assert StepRun.objects.count() == 1


def test_the_in_flight_window_bounds_what_is_handed_over(settings: Any) -> None:
    settings.WORKFLOW_IN_FLIGHT_PER_LEVEL = 2
    made = workflow({"a": TASK})
    runs = [creation.start(made) for _ in range(5)]
    assert StepRun.objects.filter(dispatched_at__isnull=False).count() == 2
    assert handoff.mark_due(queues=["default"], bound=2) == []
    assert claim(step(runs[0], "a")) is not None
    assert len(handoff.mark_due(queues=["default"], bound=2)) == 1


def test_a_retryable_step_waits_for_its_time() -> None:
    execution = begin({"a": TASK})
    run = step(execution, "a")
    held = claim(run)
    assert held is not None
    now = engine.now()
    assert queue.reschedule(
        run.pk,
        token=held.token,
        state=StepState.RETRYABLE,
        attempt_state=AttemptState.RETRYABLE,
        at=now + timedelta(seconds=60),
        charged=True,
    )
    assert claim(run) is None
    assert handoff.mark_due(queues=["default"], bound=10, now=now) == []
    later = now + timedelta(seconds=61)
    assert [hint.id for hint in handoff.mark_due(queues=["default"], bound=10, now=later)] == [run.pk]
    again = claim(run, now=later)
    assert again is not None
    assert (again.attempt, again.failures) == (2, 1)


def test_a_broker_that_lost_its_messages_is_noticed_once() -> None:
    dispatch.check_epoch()
    creation.start(workflow({"a": TASK}))
    broker.client().delete(dispatch.EPOCH_KEY)
    assert dispatch.check_epoch() == 1
    assert dispatch.check_epoch() == 0
    assert StepRun.objects.get().dispatched_at is None


def test_ids_are_uuids() -> None:
    assert isinstance(begin({"a": TASK}).pk, UUID)


def test_an_emit_step_leaves_its_news_in_the_transaction_that_ends_it() -> None:
    from execution import news

    execution = begin(
        {
            "a": TASK,
            "say": {"needs": ["a"], "emit": {"type": "load.done", "data": {"n": "${{ steps.a.output.n }}"}}},
            "b": TASK | {"needs": ["say"]},
        }
    )
    succeed(execution, "a", {"n": 3})
    assert states(execution) == {"a": "succeeded", "say": "succeeded", "b": "queued"}
    (told,) = news.claim("emit")
    assert (told.execution_id, told.data) == (execution.pk, {"type": "load.done", "data": {"n": 3}})
