"""From matching local times to instants: what happens to a job when the clocks change.

The rule is that of Vixie cron on Debian, which croner 11 follows as well:

- An *interval-like* job (wildcard minute or hour) follows real time: it fires whenever the wall clock shows a
  matching time, so nothing in a gap, and in an overlap in both passes.
- A *fixed-time* job keeps its appointment: local times lost in a gap fire together, once, at the gap's end
  (`gap="skip"`: not at all); local times that come twice fire at the first (`overlap="last"`: at the last,
  `"both"`: at both).

"First" is decided by a virtual clock that is never set back: it shows the furthest time that the local clock has
shown, and a fixed-time job fires when it moves past a matching time.

Instants are integer UTC seconds throughout.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, Literal

from schedules.timing.cron.search import LocalSearch
from schedules.timing.zones import FOREVER, Zone

Gap = Literal["fire_at_end", "skip"]
Overlap = Literal["first", "last", "both"]

GAPS: Final = ("fire_at_end", "skip")
OVERLAPS: Final = ("first", "last", "both")


def next_instant(search: LocalSearch, zone: Zone, after: int, *, fires_gaps: bool, overlap: str) -> int | None:
    """The first instant after `after`, or None when there is none to the end of 2199."""
    index = bisect_right(zone.starts, after, 1) - 1
    local = after + zone.offsets[index]
    if overlap == "last":
        # Times of the overlap ahead have not fired yet, not even those that the clock has shown once already.
        if index + 1 < len(zone.starts):
            local = min(local, zone.local_starts[index + 1] - 1)
        return _last_pass(search, zone, search.next(local), fires_gaps=fires_gaps)
    if overlap == "first" and index:
        local = max(local, zone.reached[index - 1] - 1)
    found = search.next(local)
    if found is not None and found < zone.local_ends[index]:
        return found - zone.offsets[index]
    if overlap == "both" and index + 1 < len(zone.starts) and zone.local_starts[index + 1] <= local:
        found = search.next(zone.local_starts[index + 1] - 1)  # the clock will show some past times again
    return _first_pass(search, zone, found, index + 1, fires_gaps=fires_gaps)


def previous_instant(search: LocalSearch, zone: Zone, before: int, *, fires_gaps: bool, overlap: str) -> int | None:
    """The last instant before `before`, or None when there is none since the start of 1970."""
    index = bisect_right(zone.starts, before - 1, 1) - 1
    found, searched = None, -FOREVER
    while True:
        low, high = _span(zone, index, overlap)
        limit = min(before + zone.offsets[index], high)
        if not (searched >= limit and (found is None or found < limit)):
            found, searched = search.previous(limit), limit
        if found is not None and found >= low:
            return found - zone.offsets[index]
        if not index:
            return None
        if found is None:
            if zone.local_ends[index - 1] <= searched:
                return None
        elif fires_gaps and zone.reached[index - 1] <= found:  # lost between the two windows
            return zone.starts[index]
        before = zone.starts[index]
        index -= 1


def instants_between(
    search: LocalSearch, zone: Zone, after: int, until: int, *, fires_gaps: bool, overlap: str
) -> Iterator[int]:
    """The instants in (`after`, `until`], lazily and in order."""
    index = bisect_right(zone.starts, after, 1) - 1
    last = bisect_right(zone.starts, until, 1) - 1
    while index <= last:
        offset = zone.offsets[index]
        low, high = _span(zone, index, overlap)
        start = zone.starts[index]
        if index and start > after and fires_gaps and _gap_matches(search, zone, index):
            yield start
            low += 1  # a match at the gap's end is this same instant
        low = max(after + offset, low - 1)
        for local in search.between(low, min(until + offset, high - 1)):
            yield local - offset
        index += 1
        if index <= last:
            # Straight to the window, or the gap before it, of the next match: rare jobs pass over many.
            found = search.next(min(zone.local_ends[index - 1], zone.local_starts[index]) - 1)
            if found is None:
                return
            index = bisect_right(zone.reached, found, index)


def _span(zone: Zone, index: int, overlap: str) -> tuple[int, int]:
    """The local seconds [low, high) of a window that count under the overlap policy."""
    low, high = zone.local_starts[index], zone.local_ends[index]
    if overlap == "first" and index:
        low = max(low, zone.reached[index - 1])
    elif overlap == "last" and index + 1 < len(zone.starts):
        high = min(high, zone.local_starts[index + 1])
    return low, high


def _gap_matches(search: LocalSearch, zone: Zone, index: int) -> bool:
    """Whether a matching time was lost in the gap before a window."""
    reached, start = zone.reached[index - 1], zone.local_starts[index]
    if reached >= start:
        return False
    found = search.next(reached - 1)
    return found is not None and found < start


def _first_pass(search: LocalSearch, zone: Zone, local: int | None, index: int, *, fires_gaps: bool) -> int | None:
    """The instant of a matching local second: its first pass in the windows from `index` on, or its gap's end."""
    while local is not None:
        index = bisect_right(zone.reached, local, index)
        start = zone.local_starts[index]
        if local >= start:
            return local - zone.offsets[index]
        if fires_gaps:
            return zone.starts[index]
        local = search.next(start - 1)
    return None


def _last_pass(search: LocalSearch, zone: Zone, local: int | None, *, fires_gaps: bool) -> int | None:
    """The instant of a matching local second: its last pass, or the end of the gap in which it is lost."""
    while local is not None:
        index = bisect_right(zone.local_starts, local) - 1
        if local < zone.local_ends[index]:
            return local - zone.offsets[index]
        if fires_gaps:
            return zone.starts[index + 1]
        local = search.next(zone.local_starts[index + 1] - 1)
    return None


__all__ = ["FOREVER", "GAPS", "OVERLAPS", "Gap", "Overlap", "instants_between", "next_instant", "previous_instant"]
