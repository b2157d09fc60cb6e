"""From a watermark to now: which instants of a schedule are due, how each ends, and where the watermark goes.

Pure: timings and numbers in, a `Batch` out. Instants are epoch seconds (UTC). The watermark stands on *nominal*
instants; with jitter an instant is taken when its due moment has come, in nominal order, so the watermark never
passes an instant that is still to be due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from schedules.policies import START, CatchUp, Decision, Due, cutoff, missed, starts_alone
from schedules.states import FireOutcome, FireReason
from schedules.timing.occurrences import Instant, Timing

#: How many excluded instants in a row are looked through for the next one that fires, before waking up in between.
LOOK_AHEAD = 2_000
#: The first step, in seconds, of the search for the latest instants before now; it doubles.
FIRST_STEP_BACK = 64


class Segment(NamedTuple):
    """A version in force: its instants up to `until` (nominal, included; None: to the end of time) count."""

    version_id: UUID
    timing: Timing
    until: int | None


class Entry(NamedTuple):
    """A ledger entry to be: one instant, or a run of `instants` from `first` to `last`."""

    version_id: UUID
    first: int
    last: int
    instants: int
    due: int
    outcome: str
    reason: str


@dataclass(slots=True)
class Batch:
    """What one visit of a schedule found.

    `entries` are in order; those with outcome `started` are only candidates: the overlap policy has the last word.
    `reached` is the new watermark, `wake` the next wake-up (None: never again), `more`: the work of this visit was
    bounded and further instants are due already.
    """

    entries: list[Entry]
    reached: int
    wake: int | None
    more: bool
    candidates: int


def collect(
    segments: Sequence[Segment],
    *,
    after: int,
    now: int,
    catch_up: CatchUp,
    cap: int,
    missed_through: int | None = None,
    missed_reason: str = FireReason.PAUSED,
) -> Batch:
    """Take the due instants after the watermark `after`, at most `cap` of them.

    Args:
        segments: the versions in force from the watermark on, oldest first; the last one has no end.
        missed_through: instants up to here are missed for `missed_reason` whatever the catch-up policy says
            (they fell into a pause whose end was told to skip them).
    """
    found, reached, pending, more = _read(segments, after, now, cap)
    entries: list[Entry] = []
    candidates = 0
    if len(found) == 1 and not more and missed_through is None and _starts(found[0][1], catch_up, now):
        version_id, instant = found[0]
        entries.append(Entry(version_id, instant.nominal, instant.nominal, 1, instant.due, *START))
        candidates = 1
    elif found:
        floor = after if missed_through is None else max(after, missed_through)
        latest = _latest(segments, found, floor, now, catch_up, more)
        cut = cutoff(catch_up, latest, now=now, truncated=more)
        for version_id, instant in found:
            if instant.skip:
                decision: Decision | None = Decision(FireOutcome.SKIPPED, instant.skip)
            elif missed_through is not None and instant.nominal <= missed_through:
                decision = Decision(FireOutcome.MISSED, missed_reason)
            else:
                decision = missed(cut, Due(instant.nominal, instant.due))
            if decision is None:
                candidates += 1
                entries.append(Entry(version_id, instant.nominal, instant.nominal, 1, instant.due, *START))
                continue
            last = entries[-1] if entries else None
            if last is not None and last[0] == version_id and last[5:7] == decision:
                entries[-1] = last._replace(last=instant.nominal, instants=last.instants + 1)
            else:
                entries.append(Entry(version_id, instant.nominal, instant.nominal, 1, instant.due, *decision))
    if more:
        return Batch(entries, reached, now, True, candidates)
    wake = pending.due if pending is not None and not pending.skip else next_wake(segments, reached)
    return Batch(entries, reached, wake, False, candidates)


def _starts(instant: Instant, catch_up: CatchUp, now: int) -> bool:
    return not instant.skip and starts_alone(catch_up, instant.due, now=now)


def next_wake(segments: Sequence[Segment], after: int) -> int | None:
    """When the schedule is to be looked at again: the next instant that fires, seen from the watermark `after`.

    Excluded instants are passed over, so that a run of them becomes one ledger entry when the next one fires.
    """
    looked = 0
    for segment in segments:
        position = after
        while True:
            instant = segment.timing.next_after(position)
            if instant is None or (segment.until is not None and instant.nominal > segment.until):
                break
            looked += 1
            if not instant.skip or looked >= LOOK_AHEAD:
                return instant.due
            position = instant.nominal
        if segment.until is not None:
            after = max(after, segment.until)
    return None


def _read(
    segments: Sequence[Segment], after: int, now: int, cap: int
) -> tuple[list[tuple[UUID, Instant]], int, Instant | None, bool]:
    """The due instants, the watermark behind them, the first one that is not due yet (if nominally past), and
    whether the cap cut them off."""
    found: list[tuple[UUID, Instant]] = []
    position = after
    for segment in segments:
        end = now if segment.until is None else min(now, segment.until)
        if end <= position:
            continue
        for instant in segment.timing.between(position, end):
            if instant.due > now:
                return found, position, instant, False
            if len(found) == cap:
                return found, position, None, True
            found.append((segment.version_id, instant))
            position = instant.nominal
        position = max(position, end)
    return found, position, None, False


def _latest(
    segments: Sequence[Segment],
    found: Sequence[tuple[UUID, Instant]],
    after: int,
    now: int,
    catch_up: CatchUp,
    more: bool,
) -> list[Due]:
    """The instants after `after` that may fire, ascending; of a long backlog the latest `limit` + 1 in the window."""
    if not more:
        return [Due(i.nominal, i.due) for _, i in found if not i.skip and i.nominal > after]
    # More is due than this visit takes. Search backwards from now in doubling steps, halving one that turns out
    # too long: the work depends on the number of instants wanted, not on the length of the backlog.
    want = catch_up.limit + 1
    earliest = max(after, now - catch_up.window - 1)
    too_late, too_early = now, None
    start = max(earliest, now - FIRST_STEP_BACK)
    while True:
        tail, complete = _read_tail(segments, start, now, want)
        if not complete and too_late - start > 1:
            too_early, start = start, (start + too_late) // 2
        elif len(tail) == want or start == earliest or (too_early is not None and start - too_early <= 1):
            return tail
        else:
            too_late = start
            start = max(earliest, now - 2 * (now - start)) if too_early is None else (too_early + start) // 2


def _read_tail(segments: Sequence[Segment], start: int, now: int, want: int) -> tuple[list[Due], bool]:
    """The last `want` instants after `start` that are due and may fire; False: there were too many to read."""
    tail: deque[Due] = deque(maxlen=want)
    budget = 4 * want + 1_000
    position = start
    for segment in segments:
        end = now if segment.until is None else min(now, segment.until)
        if end <= position:
            continue
        for instant in segment.timing.between(position, end):
            if not budget:
                return list(tail), False
            budget -= 1
            if not instant.skip and instant.due <= now:
                tail.append(Due(instant.nominal, instant.due))
        position = end
    return list(tail), True
