"""What keeps the promises when something was lost: rescue, timers, deadlines, forgotten decisions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from celery.exceptions import Ignore

from execution import cancellation, engine, lost_workers, maintenance, queue, runner
from execution.failures import failure_of
from execution.models import Attempt, DeadLetter, Execution, StepRun
from execution.plans import plan_by_id
from execution.signals import execution_finished
from tests.execution import flow

pytestmark = pytest.mark.django_db


def later(**delay: float) -> datetime:
    return engine.now() + timedelta(**delay)


def running(**step: Any) -> Execution:
    execution = flow.begin({"a": flow.http(**step)})
    flow.held(execution, "a")
    return execution


def stopped_by_its_limit(execution: Execution) -> None:
    """What a worker notes when its hard time limit ends a process."""
    run = flow.step(execution, "a")
    assert lost_workers.mark_gone(run.pk, attempt=run.attempt, worker="w@h", timed_out=True)


# ── Rescue ──


def test_a_living_lease_is_left_alone() -> None:
    execution = running()
    assert maintenance.rescue() == maintenance.Rescued()
    assert flow.step(execution, "a").state == "running"


def test_a_lost_worker_costs_the_step_no_attempt_of_its_policy() -> None:
    execution = running(retry={"max_attempts": 1})
    assert maintenance.rescue(now=later(minutes=1)) == maintenance.Rescued(queued=1)
    run = flow.step(execution, "a")
    assert (run.state, run.failures, run.worker_deaths, run.attempt) == ("queued", 0, 1, 1)
    attempt = Attempt.objects.get()
    assert (attempt.state, attempt.error_type) == ("lost", "WorkerLost")
    assert "w@h/1 was lost during attempt 1" in attempt.error


def test_a_policy_may_give_up_on_the_first_lost_worker() -> None:
    execution = running(retry={"max_attempts": 9, "give_up_on": ["worker_death"]})
    assert maintenance.rescue(now=later(minutes=1)) == maintenance.Rescued(failed=1)
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.error_type) == ("quarantined", "WorkerLost")
    assert "give_up_on" in letter.error
    assert flow.fresh(execution).state == "failed"


def test_a_policy_that_names_worker_deaths_charges_them_and_the_quarantine_does_not_hold(settings: Any) -> None:
    settings.WORKFLOW_MAX_WORKER_DEATHS = 2
    retry = {"max_attempts": 4, "backoff": 30, "factor": 1, "jitter": False, "retry_on": ["worker_death"]}
    execution = running(retry=retry)
    now = later(minutes=1)
    for deaths in (1, 2, 3):
        assert maintenance.rescue(now=now) == maintenance.Rescued(queued=1)
        run = flow.step(execution, "a")
        assert (run.state, run.failures, run.worker_deaths) == ("retryable", deaths, deaths)
        assert run.available_at == now + timedelta(seconds=30)
        assert flow.claim(execution, "a", now=now) is None
        now += timedelta(minutes=1)
        assert flow.claim(execution, "a", now=now) is not None
        now += timedelta(minutes=1)
    assert maintenance.rescue(now=now) == maintenance.Rescued(failed=1)
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.attempts) == ("quarantined", 4)
    assert letter.error == "worker w@h/1 was lost during attempt 4; attempt 4 of 4 was the last"
    decisions = Attempt.objects.order_by("number").values_list("state", "decision__decision")
    assert list(decisions) == [("lost", "retry")] * 3 + [("failed", "fail")]


def test_a_list_of_other_failures_says_nothing_of_worker_deaths() -> None:
    execution = running(retry={"max_attempts": 1, "retry_on": ["5xx"]})
    assert maintenance.rescue(now=later(minutes=1)) == maintenance.Rescued(queued=1)
    run = flow.step(execution, "a")
    assert (run.state, run.failures, run.worker_deaths) == ("queued", 0, 1)
    assert Attempt.objects.get().decision["policy"]["on_worker_death"] == "run_again"


def test_nobody_is_rescued_before_postgres_was_up_for_a_lease(settings: Any) -> None:
    running()
    settings.WORKFLOW_LEASE_SECONDS = 10**9
    assert maintenance.rescue(now=later(minutes=1)) == maintenance.Rescued()
    assert lost_workers.expired(lease=10**9, now=later(minutes=1)) == []


def test_a_time_limit_is_a_failure_of_the_step_and_needs_no_such_wait(settings: Any) -> None:
    execution = running(timeout=5, retry={"max_attempts": 2, "retry_on": ["timeout"], "backoff": 0})
    stopped_by_its_limit(execution)
    settings.WORKFLOW_LEASE_SECONDS = 10**9
    assert maintenance.rescue() == maintenance.Rescued(queued=1)
    run = flow.step(execution, "a")
    assert (run.state, run.failures, run.worker_deaths) == ("retryable", 1, 0)
    attempt = Attempt.objects.get()
    assert (attempt.state, attempt.error_type) == ("retryable", "TimeLimitExceeded")
    assert "longer than its 5 s" in attempt.error

    flow.held(execution, "a")
    stopped_by_its_limit(execution)
    assert maintenance.rescue() == maintenance.Rescued(failed=1)
    assert DeadLetter.objects.get().reason == "timed_out"
    assert flow.fresh(execution).state == "failed"


def test_a_time_limit_of_a_step_without_one_comes_from_the_worker() -> None:
    execution = running()
    stopped_by_its_limit(execution)
    assert maintenance.rescue() == maintenance.Rescued(failed=1)
    assert Attempt.objects.get().error


@pytest.mark.parametrize(
    ("attempt", "worker"), [(2, "w@h"), (1, "w@other"), (1, "w"), (1, "w@h/1")], ids=["old", "other", "prefix", "child"]
)
def test_only_the_worker_that_had_the_attempt_can_say_that_it_is_gone(attempt: int, worker: str) -> None:
    run = flow.step(running(), "a")
    assert not lost_workers.mark_gone(run.pk, attempt=attempt, worker=worker, timed_out=False)


def test_whoever_comes_second_rescues_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for timed_out, deaths in ((False, 3), (False, 1), (True, 3)):
        execution = running(retry={"max_attempts": 2, "retry_on": ["timeout"]})
        if timed_out:
            stopped_by_its_limit(execution)
        late = later(minutes=1)
        rows = lost_workers.expired(lease=0, now=late)
        assert queue.cancel(execution.pk, reason="first")
        with monkeypatch.context() as patch:
            patch.setattr("django.conf.settings.WORKFLOW_MAX_WORKER_DEATHS", deaths)
            patch.setattr(lost_workers, "expired", lambda rows=rows, **_: rows)
            assert maintenance.rescue(now=late) == maintenance.Rescued()
    assert not DeadLetter.objects.exists()


def test_a_lost_item_of_a_fan_out_is_given_back_and_fails_its_parent_in_the_end() -> None:
    execution = flow.begin({"each": flow.http(for_each=[1, 2], retry={"give_up_on": ["worker_death"]})})
    flow.succeed(execution, "each", index=0)
    flow.held(execution, "each", 1)
    assert maintenance.rescue(now=later(minutes=1)) == maintenance.Rescued(failed=1)
    assert flow.states(execution) == {"each": "failed"}
    assert flow.fresh(execution).state == "failed"
    assert DeadLetter.objects.count() == 1


def test_a_stopping_worker_gives_back_what_its_processes_hold_uncharged() -> None:
    execution = flow.begin({"a": flow.http(), "b": flow.http()})
    mine = flow.held(execution, "a")
    other = queue.claim(flow.step(execution, "b").pk, worker="w@h2/1", lease=30)
    assert other is not None
    assert lost_workers.release_worker("w@h", reason="deploy") == 1
    run = flow.step(execution, "a")
    assert (run.state, run.failures, run.worker_deaths) == ("queued", 0, 0)
    assert Attempt.objects.get(pk=mine.token).state == "released"
    assert not flow.finish(mine)
    assert flow.finish(other)


# ── Timers ──


def test_a_timer_rings_when_it_is_due_and_once() -> None:
    execution = flow.begin({"nap": {"wait": 60}, "after": flow.http("nap")})
    assert maintenance.ring_timers(now=later(seconds=50)) == 0
    assert maintenance.ring_timers(now=later(seconds=70)) == 1
    assert maintenance.ring_timers(now=later(seconds=80)) == 0
    assert flow.states(execution) == {"nap": "succeeded", "after": "queued"}


@pytest.mark.parametrize(("handled", "state", "letters"), [(False, "failed", 1), (True, "succeeded", 0)])
def test_an_approval_that_nobody_gave_expires(handled: bool, state: str, letters: int) -> None:
    more = {"on_error": "continue"} if handled else {}
    execution = flow.begin({"ask": {"approval": {"expires": "1h"}, **more}})
    assert maintenance.ring_timers(now=later(minutes=59)) == 0
    assert maintenance.ring_timers(now=later(minutes=61)) == 1
    assert flow.fresh(execution).state == state
    assert DeadLetter.objects.filter(reason="expired").count() == letters


def test_a_paused_execution_sleeps_on() -> None:
    execution = flow.begin({"nap": {"wait": 60}})
    Execution.objects.update(state="paused")
    assert maintenance.ring_timers(now=later(minutes=5)) == 0
    assert flow.states(execution) == {"nap": "waiting"}


@pytest.mark.parametrize("wait", ["${{ input.t }}"])
@pytest.mark.parametrize("t", [1e300, -1, "x", None, [1]])
def test_a_sleep_of_no_sensible_length_fails_its_step_and_not_its_neighbour(wait: str, t: Any) -> None:
    execution = flow.begin({"a": flow.http(), "nap": {"wait": wait, "needs": ["a"]}}, input={"t": t})
    assert flow.succeed(execution, "a")
    assert flow.states(execution) == {"a": "succeeded", "nap": "failed"}
    assert DeadLetter.objects.get().reason == "unprepared"


# ── Deadlines ──


def test_an_execution_past_its_deadline_is_cancelled_and_announced() -> None:
    execution = flow.begin({"a": flow.http()}, timeout=60)
    assert flow.held(execution, "a")
    announced: list[Any] = []
    listener = lambda execution_id, state, **_: announced.append((execution_id, state))  # noqa: E731
    execution_finished.connect(listener)
    try:
        assert maintenance.cancel_overdue(now=later(seconds=50)) == 0
        assert maintenance.cancel_overdue(now=later(seconds=70)) == 1
        assert maintenance.cancel_overdue(now=later(seconds=90)) == 0
    finally:
        execution_finished.disconnect(listener)
    ended = flow.fresh(execution)
    assert (ended.state, ended.state_reason) == ("cancelled", "its deadline has passed")
    assert flow.step(execution, "a").state == "cancelled"


def test_an_execution_that_ended_before_its_deadline_is_left_alone() -> None:
    execution = flow.begin({"a": flow.http()})
    flow.succeed(execution, "a")
    ended = flow.fresh(execution)
    with engine.transaction():
        assert cancellation.cancel(execution.pk, reason="too late") is False
    assert (flow.fresh(execution).state, flow.fresh(execution).finished_at) == ("succeeded", ended.finished_at)


# ── Decisions that were forgotten ──


def test_a_step_about_which_nobody_decided_is_decided() -> None:
    execution = flow.begin({"a": flow.http(), "b": flow.http("a", when={"input": {"go": [True]}})})
    StepRun.objects.filter(name="b").update(needs_open=0)
    assert maintenance.decide_forgotten() == 0
    assert maintenance.decide_forgotten(now=later(minutes=1)) == 1
    assert flow.states(execution)["b"] == "skipped"
    assert maintenance.decide_forgotten(now=later(minutes=1)) == 0


# ── Long and wide graphs ──


def test_a_long_chain_of_skipped_steps_is_decided_without_end_of_the_stack() -> None:
    never = {"input": {"go": [True]}}
    steps = {"s0": flow.http(when=never)}
    steps |= {f"s{n}": flow.http(f"s{n - 1}", when=never) for n in range(1, 400)}
    execution = flow.begin(steps)
    assert flow.fresh(execution).state == "succeeded"
    assert set(flow.states(execution).values()) == {"skipped"}


def test_an_ignored_item_is_no_failure_of_its_fan_out() -> None:
    execution = flow.begin({"each": flow.http(for_each=[1, 2])})
    flow.succeed(execution, "each", index=0)
    held = flow.held(execution, "each", 1)
    plan = plan_by_id(held.version_id)
    performed = runner._Performed(error=Ignore("nothing to do"))
    assert performed.error is not None
    runner.apply_decision(held, plan, plan.steps["each"], performed, failure_of(performed.error))
    assert flow.fresh(execution).state == "succeeded"
    output = flow.step(execution, "each").output.data
    assert (output["count"], output["succeeded"], output["failed"]) == (2, 1, 0)
    assert not DeadLetter.objects.exists()
