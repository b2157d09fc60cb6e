"""What a schedule's policies say about instants that are due: pure decisions, values in, decision out.

Instants are epoch seconds (UTC). The words are Temporal's (`service/worker/scheduler/buffer.go` there has the same
decisions in another shape); nothing is taken from its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schedules.states import CatchUpPolicy, FireOutcome, FireReason, OverlapPolicy


class Decision(NamedTuple):
    """How one due instant ends in the ledger."""

    outcome: str
    reason: str = ""


START = Decision(FireOutcome.STARTED)
BUFFER = Decision(FireOutcome.BUFFERED)
SKIP_OVERLAP = Decision(FireOutcome.SKIPPED, FireReason.OVERLAP)
SKIP_BUFFER_FULL = Decision(FireOutcome.SKIPPED, FireReason.BUFFER_FULL)
SKIP_MAXIMUM = Decision(FireOutcome.SKIPPED, FireReason.MAX_EXECUTIONS)
OUTSIDE_WINDOW = Decision(FireOutcome.MISSED, FireReason.OUTSIDE_WINDOW)

#: Policies under which at most one execution runs and later instants wait in the ledger.
BUFFERING = frozenset({OverlapPolicy.BUFFER_ONE, OverlapPolicy.BUFFER_ALL})


class Due(NamedTuple):
    """A due instant: the nominal one, and the moment it is due (nominal plus jitter)."""

    nominal: int
    due: int


class CatchUp(NamedTuple):
    """The catch-up policy. `window` and `grace` are seconds; `limit` is a number of instants.

    An instant is late (a misfire) when it is taken more than `grace` seconds after it was due. The policy is about
    late instants only: `latest` starts the last of them, unless newer ones are on time. Window and limit hold always.
    """

    policy: str
    window: int
    limit: int
    grace: int


class Cutoff(NamedTuple):
    """Instants before `start_from` (nominal) are missed, for `reason`; those due before `window_from` as too old."""

    window_from: int
    start_from: int
    reason: str


def cutoff(catch_up: CatchUp, latest: Sequence[Due], *, now: int, truncated: bool = False) -> Cutoff:
    """Which of the pending instants still start.

    Args:
        latest: the latest pending instants, ascending: all, or (`truncated`) the last `limit` + 1 inside the window.
        truncated: more pending instants than `latest` shows exist before them.

    >>> cutoff(CatchUp("latest", 86400, 100, 5), [Due(0, 0), Due(60, 60)], now=3600)
    Cutoff(window_from=-82800, start_from=60, reason='catch_up_latest')
    """
    window_from = now - catch_up.window
    inside = [instant for instant in latest if instant.due >= window_from]
    fresh_from = now - catch_up.grace
    fresh = [instant for instant in inside if instant.due >= fresh_from]
    late = len(fresh) < len(inside) or truncated
    reason = FireReason.CATCH_UP_LIMIT
    kept = inside
    if late and catch_up.policy == CatchUpPolicy.LATEST:
        kept, reason = fresh or inside[-1:], FireReason.CATCH_UP_LATEST
    elif late and catch_up.policy == CatchUpPolicy.NONE:
        kept, reason = fresh, FireReason.CATCH_UP_NONE
    if len(kept) > catch_up.limit:
        kept, reason = kept[-catch_up.limit :], FireReason.CATCH_UP_LIMIT
    return Cutoff(window_from, kept[0].nominal if kept else now + 1, reason)


def starts_alone(catch_up: CatchUp, due: int, *, now: int) -> bool:
    """Whether an instant due at `due`, the only one pending, starts: what `cutoff` and `missed` say of it, sooner.

    >>> starts_alone(CatchUp("none", 86400, 100, 5), 0, now=5), starts_alone(CatchUp("none", 86400, 100, 5), 0, now=6)
    (True, False)
    """
    if due < now - catch_up.window or catch_up.limit < 1:
        return False
    return catch_up.policy != CatchUpPolicy.NONE or due >= now - catch_up.grace


def missed(cut: Cutoff, instant: Due) -> Decision | None:
    """The decision for an instant that the cutoff leaves behind; None when it may start."""
    if instant.due < cut.window_from:
        return OUTSIDE_WINDOW
    if instant.nominal < cut.start_from:
        return Decision(FireOutcome.MISSED, cut.reason)
    return None


@dataclass(frozen=True, slots=True)
class Overlap:
    """What is to be done about instants that may start.

    `release` buffered instants (the oldest) start first; then the candidates end as `decisions` say, in order.
    `expire` further buffered instants can never start. `stop_others`: running executions are to be ended first.
    """

    release: int
    decisions: tuple[Decision, ...]
    stop_others: bool = False
    expire: int = 0


NOTHING = Overlap(0, ())
ONE_START = Overlap(0, (START,))


def overlap(policy: str, *, running: int, buffered: int, candidates: int, allowance: int | None = None) -> Overlap:
    """Apply the overlap policy, then the maximum number of executions.

    Args:
        running: open executions of the schedule.
        buffered: instants that wait in the ledger.
        candidates: due instants, in order.
        allowance: executions that may still be started; None: any number.

    >>> overlap("buffer_one", running=1, buffered=0, candidates=3).decisions[1]
    Decision(outcome='skipped', reason='buffer_full')
    """
    if candidates == 1 and allowance is None and policy == OverlapPolicy.ALLOW_ALL and not buffered:
        return ONE_START  # by far the most frequent
    release, decisions, stop_others = _by_policy(policy, running, buffered, candidates)
    if allowance is None:
        return Overlap(release, tuple(decisions), stop_others)
    released = min(release, allowance)
    left = allowance - released
    # What stays buffered has a claim on the allowance before any new instant: it is older.
    expire = 0
    waiting = buffered - released
    if waiting > left:
        expire, waiting = waiting - left, left
    left -= waiting
    limited: list[Decision] = []
    for decision in decisions:
        if decision.outcome in (FireOutcome.STARTED, FireOutcome.BUFFERED):
            if left <= 0:
                decision = SKIP_MAXIMUM
            left -= 1
        limited.append(decision)
    return Overlap(released, tuple(limited), stop_others and START in limited, expire)


def _by_policy(policy: str, running: int, buffered: int, candidates: int) -> tuple[int, list[Decision], bool]:
    if policy in BUFFERING:
        release = 1 if buffered and not running else 0
        decisions = []
        busy, waiting = running + release, buffered - release
        for _ in range(candidates):
            if not busy and not waiting:
                decisions.append(START)
                busy = 1
            elif policy == OverlapPolicy.BUFFER_ALL or not waiting:
                decisions.append(BUFFER)
                waiting += 1
            else:
                decisions.append(SKIP_BUFFER_FULL)
        return release, decisions, False
    # The policy was another one when these were buffered: they go first.
    if policy == OverlapPolicy.ALLOW_ALL:
        return buffered, [START] * candidates, False
    release = 1 if buffered and not running else 0
    if policy == OverlapPolicy.SKIP:
        free = not running and not buffered
        decisions = [START if free and place == 0 else SKIP_OVERLAP for place in range(candidates)]
        return release, decisions, False
    # Of several instants at once only the last would survive its successor: start only that one.
    decisions = [SKIP_OVERLAP] * (candidates - 1) + [START] * min(candidates, 1)
    return 0 if candidates else release, decisions, bool(candidates and running)


class Failures(NamedTuple):
    """Failures in a row after some executions ended, and whether the schedule is to be paused."""

    consecutive: int
    pause: bool


def count_failures(consecutive: int, ended: Sequence[bool | None], *, pause_after: int | None) -> Failures:
    """Count on from `consecutive` over executions in the order they ended (True failed, False succeeded, None neither).

    >>> count_failures(1, [True, True], pause_after=3)
    Failures(consecutive=3, pause=True)
    """
    pause = False
    for failed in ended:
        if failed is not None:
            consecutive = consecutive + 1 if failed else 0
        pause = pause or (pause_after is not None and consecutive >= pause_after and failed is True)
    return Failures(consecutive, pause)
