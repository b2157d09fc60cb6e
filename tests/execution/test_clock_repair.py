"""After the clock has jumped back nothing waits for an instant that was "now" while it was ahead."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from execution import clock_repair, engine, queue
from execution.clock_repair import Repaired
from execution.models import StepRun
from execution.states import AttemptState, StepState
from tests.execution import flow

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
LEASE = 30.0


def queued(now: datetime, **options: Any) -> StepRun:
    return flow.step(flow.begin({"a": flow.http()}, options={"now": now, **options}), "a")


def retried(now: datetime, *, delay: timedelta) -> StepRun:
    """A step run whose attempt ended at `now` and is to be repeated `delay` later."""
    execution = flow.begin({"a": flow.http()}, options={"now": now})
    held = flow.claim(execution, "a", now=now)
    assert held is not None
    assert queue.reschedule(
        held.id,
        token=held.token,
        state=StepState.RETRYABLE,
        attempt_state=AttemptState.RETRYABLE,
        at=now + delay,
        now=now,
    )
    return flow.step(execution, "a")


def repair(now: datetime) -> Repaired:
    return clock_repair.after_jump_back(lease=LEASE, now=now)


def test_what_was_queued_while_the_clock_was_ahead_is_due_at_once() -> None:
    now = engine.now()
    run = queued(now + HOUR)
    assert repair(now) == Repaired(leases=0, waits=1)
    run.refresh_from_db()
    assert (run.available_at, run.dispatched_at, run.dispatches) == (now, None, 0)
    assert repair(now) == Repaired(leases=0, waits=0)


def test_a_retry_waits_as_long_as_it_was_to_wait() -> None:
    now = engine.now()
    run = retried(now + HOUR, delay=timedelta(minutes=2))
    assert repair(now).waits == 1
    run.refresh_from_db()
    assert (run.state, run.available_at) == ("retryable", now + timedelta(minutes=2))


def test_a_mark_of_the_future_is_forgotten_and_sent_again() -> None:
    now = engine.now()
    run = queued(now - HOUR)
    StepRun.objects.filter(pk=run.pk).update(dispatched_at=now + HOUR, dispatches=3)
    assert repair(now).waits == 1
    run.refresh_from_db()
    assert (run.available_at, run.dispatched_at, run.dispatches) == (now - HOUR, None, 0)


def test_what_has_an_instant_of_its_own_keeps_it() -> None:
    now = engine.now()
    later = queued(now, start_at=now + HOUR)
    retry = retried(now - timedelta(minutes=1), delay=HOUR)
    nap = flow.step(flow.begin({"a": {"wait": 7_200}}), "a")
    before = list(StepRun.objects.order_by("pk").values_list("pk", "available_at", "state"))
    assert repair(now) == Repaired(leases=0, waits=0)
    assert list(StepRun.objects.order_by("pk").values_list("pk", "available_at", "state")) == before
    assert {later.state, retry.state, nap.state} == {"queued", "retryable", "waiting"}


def test_only_leases_that_last_too_long_are_cut() -> None:
    now = engine.now()
    execution = flow.begin({"a": flow.http(), "b": flow.http()}, options={"now": now})
    flow.claim(execution, "a", now=now)
    flow.claim(execution, "b", now=now + HOUR)
    assert repair(now).leases == 1
    until = now + timedelta(seconds=LEASE)
    assert set(StepRun.objects.values_list("lease_until", flat=True)) == {until}
