"""Rate limits: when an attempt may begin, and what waits holds nothing."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from execution import concurrency, definitions, engine, handoff, rate_keys, runner
from execution.models import Attempt, Pool, RateKey, StepRun
from execution.queue import Claim
from execution.rate_keys import Rate, RateDeferred, admission
from execution.runner import Outcome
from execution.steps.kinds import KINDS
from tests.execution.flow import begin, claim, held, http, step

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
RATE = Rate(limit=6, per=60)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("rate", "tat", "next_wake", "promised", "begin", "wake", "new_tat", "new_wake"),
    [
        (RATE, -100, -100, False, 0, None, 10, -100),  # idle
        (RATE, 10, -100, False, None, 10, 10, 20),  # the last began just now
        (RATE, 10, 30, False, None, 30, 10, 40),  # behind two that wait
        (RATE, 0, 30, False, None, 30, 0, 40),  # a newcomer does not push in
        (RATE, 0, 30, True, 0, None, 10, 30),  # whose instant has come
        (RATE, 10, 30, True, None, 30, 10, 40),  # whose instant somebody took: to the end of the line
        (RATE, 0.03, -100, False, 0.03, None, 10.03, -100),  # worth a short sleep
        (Rate(6, 60, burst=3), 10, -100, False, 0, None, 20, -100),  # the second of a burst
        (Rate(6, 60, burst=3), 30, -100, False, None, 10, 30, 20),  # the burst is used up
    ],
)
def test_when_an_attempt_may_begin(
    rate: Rate, tat: float, next_wake: float, promised: bool, begin: Any, wake: Any, new_tat: float, new_wake: float
) -> None:
    found = admission(rate, tat=at(tat), next_wake_at=at(next_wake), promised=promised, now=NOW)
    expected = tuple(None if value is None else at(value) for value in (begin, wake, new_tat, new_wake))
    assert (found.begin_at, found.wake_at, found.tat, found.next_wake_at) == expected


def test_no_window_of_time_sees_more_than_the_limit() -> None:
    """Sixty attempts at once, played through: each wakes at its instant and begins, evenly."""
    tat = next_wake = NOW
    waiting, begun = [(NOW, False)] * 60, []
    while waiting:
        now, promised = waiting.pop(0)
        found = admission(RATE, tat=tat, next_wake_at=next_wake, promised=promised, now=now)
        tat, next_wake = found.tat, found.next_wake_at
        if found.begin_at is not None:
            begun.append(found.begin_at)
        else:
            assert found.wake_at is not None
            waiting = sorted([*waiting, (found.wake_at, True)])
    assert begun == [at(10 * n) for n in range(60)]


# ── With rows ──

RATED = {"a": http(rate={"key": "api-${{ input.customer }}", "limit": 1, "per": "1h"}, pool={"name": "db"})}


def admit(claimed: Claim, rate: Rate = RATE, key: str = "k") -> None:
    rate_keys.admit(claimed, key, rate)


@pytest.mark.django_db(transaction=True)
def test_what_must_wait_is_put_back_as_if_it_had_not_been_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "http", lambda *_: {"ok": True})
    Pool.objects.create(name="db", slots=1)
    first, second, other = (begin(RATED, input={"customer": name}) for name in ("x", "x", "y"))
    assert runner.run(step(first, "a").pk, worker="w@h/1").outcome is Outcome.SUCCEEDED
    report = runner.run(step(second, "a").pk, worker="w@h/1")
    waiting = step(second, "a")
    assert (report.outcome, report.at) == (Outcome.SNOOZED, waiting.available_at)
    assert (waiting.state, waiting.attempt, waiting.dispatched_at, waiting.worker) == ("queued", 0, None, "")
    assert waiting.state_reason == "rate limit api-x: 1 per 3600 s"
    assert not Attempt.objects.filter(step_run=waiting).exists()
    concurrency.release()
    assert Pool.objects.get().used == 0
    assert runner.run(step(other, "a").pk, worker="w@h/1").outcome is Outcome.SUCCEEDED
    assert set(RateKey.objects.values_list("key", flat=True)) == {"api-x", "api-y"}
    assert claim(second, "a") is None  # not before its instant
    RateKey.objects.update(tat=engine.now())
    StepRun.objects.filter(pk=waiting.pk).update(available_at=engine.now())
    assert runner.run(waiting.pk, worker="w@h/1").outcome is Outcome.SUCCEEDED
    waiting.refresh_from_db()
    assert (waiting.rate_slot_at, waiting.attempt) == (None, 1)


@pytest.mark.django_db(transaction=True)
def test_a_short_wait_is_slept_and_a_lost_lease_is_left_alone() -> None:
    one, two = (held(begin({"a": http()}), "a") for _ in range(2))
    fast = Rate(limit=100, per=1)
    admit(one, fast)
    started = RateKey.objects.get().tat
    admit(two, fast)
    assert RateKey.objects.get().tat - started >= fast.interval
    assert engine.now() >= started
    lost = held(begin({"a": http()}), "a")
    StepRun.objects.filter(pk=lost.id).update(state="queued", lease_token=None, lease_until=None)
    before = RateKey.objects.get().tat
    admit(lost, fast)
    assert RateKey.objects.get().tat == before


@pytest.mark.django_db(transaction=True)
def test_a_worker_knows_when_the_next_one_is_due() -> None:
    assert handoff.next_due(queues=["default"], within=60) is None
    for _ in range(2):
        claimed = held(begin({"a": http()}), "a")
        with contextlib.suppress(RateDeferred):
            admit(claimed)
    due_in = handoff.next_due(queues=["default"], within=60)
    assert due_in is not None
    assert 0 < due_in <= 10
    assert handoff.next_due(queues=["default"], within=0.001) is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("rate", "path"),
    [
        ({"key": "k", "limit": 1}, "steps.a.rate"),
        ({"key": "k", "limit": 0, "per": 1}, "steps.a.rate.limit"),
        ({"key": "k", "limit": 1, "per": 0}, "steps.a.rate.per"),
        ({"key": "k", "limit": 1, "per": "0s"}, "steps.a.rate.per"),
        ({"key": "${{ steps.zzz.output }}", "limit": 1, "per": 1}, "steps.a.rate.key"),
    ],
)
def test_a_bad_rate_names_its_place(rate: dict[str, Any], path: str) -> None:
    found = definitions.problems_of({"steps": {"a": http(rate=rate)}})
    assert any(name.startswith(path) for name in found), found
    assert "steps.w.rate" in definitions.problems_of(
        {"steps": {"w": {"wait": 1, "rate": {"key": "k", "limit": 1, "per": 1}}}}
    )
