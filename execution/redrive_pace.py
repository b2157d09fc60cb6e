"""How fast a redrive job goes: its canary, its rate, and when it stops. Pure: values in, a decision out.

The canary is one letter, then ten, then all; each stage begins when every letter of the one before has its outcome.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

#: How many letters each stage of a canary takes; after the last one, all the others.
CANARY_STAGES: Final = (1, 10)
#: A job never has more letters under way than this; the queues and the others' work stay usable.
MOST_UNDER_WAY: Final = 1_000
#: Seconds until a job that waits for outcomes looks again.
LOOK_AGAIN: Final = 0.5


class Next(enum.StrEnum):
    """What a running job does now."""

    START = "start"
    WAIT = "wait"
    DONE = "done"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is. `started` letters have been taken up; `settled` of them have their outcome, `failed` a bad
    one. `next_at` is when its rate lets it take up another."""

    total: int
    started: int
    settled: int
    failed: int
    canary: bool
    rate_per_minute: float | None
    max_failures: int | None
    next_at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """What to do, why, and when to look again."""

    next: Next
    reason: str
    next_at: datetime


def decide(progress: Progress, *, now: datetime) -> Move:
    """The next move of a running job."""
    look_again = now + timedelta(seconds=LOOK_AGAIN)
    told = f"{progress.failed} failed again or refused"
    if progress.canary and progress.failed and progress.settled <= canary_ends()[-1]:
        return Move(Next.STOP, f"{told} among the first {progress.started} (canary)", now)
    if progress.max_failures is not None and progress.failed >= progress.max_failures:
        return Move(Next.STOP, f"{told}; the job stops at {progress.max_failures}", now)
    under_way = progress.started - progress.settled
    if progress.started >= progress.total:
        if progress.settled >= progress.total:
            return Move(Next.DONE, "", now)
        return Move(Next.WAIT, "its last letters are being tried", look_again)
    if under_way >= MOST_UNDER_WAY:
        return Move(Next.WAIT, f"{under_way} letters are being tried", look_again)
    if progress.canary and under_way and progress.started in canary_ends():
        return Move(Next.WAIT, f"the canary of {progress.started} has not ended", look_again)
    if progress.rate_per_minute is None:
        return Move(Next.START, "", now)
    if progress.next_at > now:
        return Move(Next.WAIT, f"its rate is {progress.rate_per_minute:g} a minute", progress.next_at)
    # Counted from the instant that was due, so that the rate is kept although nobody looks at exactly that instant;
    # what was missed beyond half an interval is not made up for in a burst.
    interval = timedelta(seconds=60 / progress.rate_per_minute)
    return Move(Next.START, "", max(progress.next_at, now - interval / 2) + interval)


def canary_ends() -> tuple[int, ...]:
    """The numbers of letters after which a canary waits for outcomes.

    >>> canary_ends()
    (1, 11)
    """
    ends, count = [], 0
    for stage in CANARY_STAGES:
        count += stage
        ends.append(count)
    return tuple(ends)


def stage_of(progress: Progress) -> str:
    """The stage, for people: ``canary 1``, ``canary 10`` or ``all``."""
    if progress.canary:
        for stage, end in zip(CANARY_STAGES, canary_ends(), strict=True):
            if progress.started < end or (progress.started == end and progress.settled < end):
                return f"canary {stage}"
    return "all"
