"""Each statement of the engine by itself: what it changes, and what it leaves alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from execution import advance, engine, graph_rows, queue, step_notes
from execution.models import Attempt, DeadLetter, Execution, QueueSettings, StepOutput, StepRun
from execution.plans import plan_by_id
from execution.states import DeadLetterState, ExecutionState, StepState
from tests import factories
from tests.execution import flow

pytestmark = pytest.mark.django_db

UNCLAIMABLE = [state for state in StepState if state not in {StepState.QUEUED, StepState.RETRYABLE}]


def claim(run: StepRun, **options: Any) -> queue.Claim | None:
    return queue.claim(run.pk, **{"worker": "w@h/1", "lease": 30, **options})


# ── Claim ──


@pytest.mark.parametrize("state", UNCLAIMABLE)
def test_nothing_but_queued_or_retryable_is_claimed(state: StepState) -> None:
    run = factories.make_step_run(state=state)
    assert claim(run) is None
    assert StepRun.objects.get(pk=run.pk).state == state


@pytest.mark.parametrize("state", [ExecutionState.PAUSED, *sorted(factories.EXECUTION_TERMINAL)])
def test_nothing_is_claimed_of_an_execution_that_is_paused_or_over(state: str) -> None:
    run = factories.make_step_run(factories.make_execution(state=ExecutionState(state)))
    assert claim(run) is None


def test_nothing_is_claimed_before_its_time_or_from_a_paused_queue() -> None:
    run = factories.make_step_run(available_at=engine.now() + timedelta(hours=1))
    assert claim(run) is None
    late = engine.now() + timedelta(hours=2)
    settings = QueueSettings.objects.create(name="default", paused_at=late)
    assert claim(run, now=late) is None
    settings.delete()
    assert claim(run, now=late) is not None


def test_a_claim_opens_the_execution_and_says_all_that_a_run_needs() -> None:
    workflow = factories.make_workflow(definition=factories.ONE_STEP, retry_policy={"max_attempts": 2})
    execution = factories.make_execution(workflow, input={"n": 1}, retry_policy={"max_attempts": 3}, source_kind="x")
    run = factories.make_step_run(
        execution, dispatched_at=engine.now(), dispatches=4, item_index=7, item=[1], timeout=9
    )
    held = claim(run, worker="me@h/5", lease=12)
    assert held is not None
    assert (held.input, held.item, held.item_index, held.timeout, held.attempt) == ({"n": 1}, [1], 7, 9.0, 1)
    assert (held.source_retry, held.workflow_retry, held.source_kind) == ({"max_attempts": 3}, {"max_attempts": 2}, "x")
    assert held.idempotency_key == run.idempotency_key == f"{execution.pk}:work:7"
    assert held.lease_until - held.claimed_at == timedelta(seconds=12)
    run.refresh_from_db()
    assert (run.state, run.worker, run.dispatched_at, run.dispatches) == ("running", "me@h/5", None, 0)
    assert run.started_at == held.claimed_at
    opened = flow.fresh(execution)
    assert (opened.state, opened.started_at) == ("running", held.claimed_at)
    attempt = Attempt.objects.get()
    assert (attempt.pk, attempt.number, attempt.state, attempt.worker) == (held.token, 1, "running", "me@h/5")


# ── Heartbeat and outcome ──


def test_only_the_holder_renews_and_only_forward() -> None:
    run = factories.make_step_run()
    held = claim(run)
    assert held is not None
    later = held.claimed_at + timedelta(seconds=20)
    assert queue.heartbeat(run.pk, held.token, lease=30, now=later)
    assert StepRun.objects.get().lease_until == later + timedelta(seconds=30)
    assert not queue.heartbeat(run.pk, factories.uuid7(), lease=30)


def test_an_attempts_outcome_can_be_read_by_its_token_alone() -> None:
    execution = flow.begin({"a": flow.http()})
    held = flow.held(execution, "a")
    assert queue.outcome(held.id, held.token) is None
    assert flow.finish(held)
    assert queue.outcome(held.id, held.token) == "succeeded"
    assert queue.outcome(held.id, factories.uuid7()) is None


def test_progress_of_an_attempt_that_has_ended_is_not_kept() -> None:
    execution = flow.begin({"a": flow.http()})
    held = flow.held(execution, "a")
    step_notes.note_progress(held.token, {"done": 1})
    flow.finish(held)
    step_notes.note_progress(held.token, {"done": 2})
    assert Attempt.objects.get().progress == {"done": 1}


# ── Finish ──


def test_an_output_of_a_second_round_replaces_the_first() -> None:
    execution = flow.begin({"a": flow.http()})
    held = flow.held(execution, "a")
    factories.make_output(StepRun.objects.get(), "old")
    assert flow.finish(held, "new")
    assert StepOutput.objects.get().data == "new"


def test_a_redriven_letter_is_resolved_by_success_and_reopened_by_the_next_failure() -> None:
    for how, state in ((flow.succeed, DeadLetterState.RESOLVED), (flow.fail, DeadLetterState.OPEN)):
        execution = flow.begin({"a": flow.http(), "b": flow.http()})
        run = flow.step(execution, "a")
        letter = factories.make_dead_letter(run, state=DeadLetterState.REDRIVING)
        how(execution, "a")
        letter.refresh_from_db()
        assert letter.state == state
        assert DeadLetter.objects.filter(execution=execution).count() == 1


@pytest.mark.parametrize(("how", "state"), [("succeed", "resolved"), ("fail", "open"), ("cancel", "open")])
def test_a_letter_follows_the_end_of_the_execution_that_redrives_it(how: str, state: str) -> None:
    letter = factories.make_dead_letter(state=DeadLetterState.REDRIVING)
    execution = flow.begin({"a": flow.http()})
    Execution.objects.filter(pk=execution.pk).update(source_kind="redrive")
    DeadLetter.objects.filter(pk=letter.pk).update(redrive_execution=execution)
    if how == "cancel":
        queue.cancel(execution.pk, reason="x")
    else:
        getattr(flow, how)(execution, "a")
    letter.refresh_from_db()
    assert letter.state == state


def test_a_letter_redriven_into_an_execution_without_an_output_stays_open() -> None:
    letter = factories.make_dead_letter(state=DeadLetterState.REDRIVING)
    execution = flow.begin({"a": flow.http()}, output="${{ abs(steps.a.output) }}")
    Execution.objects.filter(pk=execution.pk).update(source_kind="redrive")
    DeadLetter.objects.filter(pk=letter.pk).update(redrive_execution=execution)
    flow.succeed(execution, "a", "text")
    letter.refresh_from_db()
    assert (letter.state, letter.decided_at) == ("open", None)
    ended = flow.fresh(execution)
    assert (ended.state, ended.failed_steps) == ("failed", 1)
    assert "output" in ended.state_reason
    assert DeadLetter.objects.get(execution=execution).reason == "output"


def test_an_execution_that_ends_without_a_run_began_when_it_ended() -> None:
    execution = flow.begin({"a": flow.http(when={"input": {"go": [True]}})})
    ended = flow.fresh(execution)
    assert ended.state == "succeeded"
    assert ended.started_at == ended.finished_at


def test_texts_that_are_too_long_are_cut() -> None:
    execution = flow.begin({"a": flow.http()})
    held = flow.held(execution, "a")
    plan = plan_by_id(held.version_id)
    ending = advance.ending_of(
        plan, plan.steps["a"], state=StepState.FAILED, reason="r" * 2_000, error_type="E" * 2_000, letter="failed",
        fingerprint="f",
    )  # fmt: skip
    assert advance.conclude(held, plan, ending) is not None
    run = StepRun.objects.get()
    assert len(run.state_reason) == 500
    assert len(DeadLetter.objects.get().error_type) == 300


# ── Cancel ──


def test_cancel_ends_whatever_is_open_and_tells_nobody_twice() -> None:
    execution = flow.begin({"a": flow.http(), "b": flow.http("a"), "nap": {"wait": 60}})
    held = flow.held(execution, "a")
    assert queue.cancel(execution.pk, reason="r" * 2_000)
    assert set(flow.states(execution).values()) == {"cancelled"}
    ended = flow.fresh(execution)
    assert (ended.state, ended.open_steps, len(ended.state_reason)) == ("cancelled", 0, 500)
    assert Attempt.objects.get().state == "cancelled"
    assert queue.outcome(held.id, held.token) == "cancelled"
    assert not queue.cancel(execution.pk, reason="again")


def test_cancel_leaves_the_attempts_of_earlier_rounds_as_they_were() -> None:
    run = factories.make_step_run(state=StepState.RETRYABLE)
    assert queue.cancel(run.execution_id, reason="x")
    assert Attempt.objects.get().state == "retryable"


# ── What the database itself refuses ──


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "running"},
        {"state": "queued", "lease_token": factories.uuid7()},
        {"state": "succeeded"},
        {"state": "waiting"},
        {"waiting_for": "needs"},
        {"priority": 10},
    ],
)
def test_the_database_holds_the_invariants_of_a_step_run(wrong: dict[str, Any]) -> None:
    run = factories.make_step_run()
    with pytest.raises(IntegrityError), transaction.atomic():
        StepRun.objects.filter(pk=run.pk).update(**wrong)


def test_an_output_that_cannot_be_evaluated_changes_nothing_that_did_not_succeed() -> None:
    execution = flow.begin({"a": flow.http()})
    graph_rows.fail_output(execution.pk, reason="x", fingerprint="f")
    assert flow.fresh(execution).state == "queued"
    assert not DeadLetter.objects.exists()
