"""How fast a redrive job goes: a table of cases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from execution.redrive_pace import LOOK_AGAIN, MOST_UNDER_WAY, Next, Progress, decide, stage_of

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


def progress(**fields: Any) -> Progress:
    values: dict[str, Any] = {
        "total": 100, "started": 0, "settled": 0, "failed": 0, "canary": True, "rate_per_minute": None,
        "max_failures": None, "next_at": NOW,
    }  # fmt: skip
    return Progress(**values | fields)


@pytest.mark.parametrize(
    ("fields", "expected", "stage"),
    [
        ({}, Next.START, "canary 1"),
        ({"started": 1}, Next.WAIT, "canary 1"),
        ({"started": 1, "settled": 1}, Next.START, "canary 10"),
        ({"started": 10, "settled": 1}, Next.START, "canary 10"),
        ({"started": 11, "settled": 10}, Next.WAIT, "canary 10"),
        ({"started": 11, "settled": 11}, Next.START, "all"),
        ({"started": 50, "settled": 11}, Next.START, "all"),
        ({"started": 100, "settled": 99}, Next.WAIT, "all"),
        ({"started": 100, "settled": 100}, Next.DONE, "all"),
        ({"total": 1, "started": 1, "settled": 1}, Next.DONE, "canary 10"),
        ({"started": 1, "settled": 1, "failed": 1}, Next.STOP, "canary 10"),
        ({"started": 11, "settled": 5, "failed": 1}, Next.STOP, "canary 10"),
        ({"started": 40, "settled": 40, "failed": 1}, Next.START, "all"),
        ({"started": 40, "settled": 40, "failed": 3, "max_failures": 3}, Next.STOP, "all"),
        ({"canary": False, "started": 1}, Next.START, "all"),
        ({"canary": False, "started": 1, "settled": 1, "failed": 1}, Next.START, "all"),
        ({"total": 5_000, "canary": False, "started": MOST_UNDER_WAY}, Next.WAIT, "all"),
    ],
)
def test_the_next_move(fields: dict[str, Any], expected: Next, stage: str) -> None:
    found = progress(**fields)
    assert (decide(found, now=NOW).next, stage_of(found)) == (expected, stage)


def test_a_job_that_waits_for_outcomes_looks_again() -> None:
    assert decide(progress(started=1), now=NOW).next_at == NOW + timedelta(seconds=LOOK_AGAIN)


def test_a_rate_spaces_the_letters_evenly_and_does_not_catch_up_in_a_burst() -> None:
    first = decide(progress(canary=False, rate_per_minute=30), now=NOW)
    assert (first.next, first.next_at) == (Next.START, NOW + timedelta(seconds=2))
    early = decide(progress(canary=False, rate_per_minute=30, next_at=first.next_at), now=NOW)
    assert (early.next, early.next_at, early.reason) == (Next.WAIT, first.next_at, "its rate is 30 a minute")
    late = decide(progress(canary=False, rate_per_minute=30, next_at=NOW - timedelta(seconds=0.4)), now=NOW)
    assert late.next_at == NOW + timedelta(seconds=1.6)
    overslept = decide(progress(canary=False, rate_per_minute=30, next_at=NOW - timedelta(hours=1)), now=NOW)
    assert overslept.next_at == NOW + timedelta(seconds=1)


def test_a_stop_says_why() -> None:
    canary = decide(progress(started=1, settled=1, failed=1), now=NOW)
    assert canary.reason == "1 failed again or refused among the first 1 (canary)"
    later = decide(progress(started=50, settled=50, failed=4, max_failures=3), now=NOW)
    assert later.reason == "4 failed again or refused; the job stops at 3"
