"""From local wall-clock seconds to instants, when clocks change. Integers throughout, like `schedules.timing.zones`."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from schedules.timing.zones import Zone

FIRE_AT_END: Final = "fire_at_end"
"""A local time that never comes stands for the end of the gap that swallowed it."""
SKIP: Final = "skip"
"""A local time that never comes stands for nothing."""
AS_BEFORE: Final = "as_before"
"""A local time that never comes is read with the offset before the gap (RFC 5545, section 3.3.5)."""


def instants_of(zone: Zone, local: int, *, gap: str, overlap: str) -> tuple[int, ...]:
    """The instants, in order, of the local second `local` (seconds since 1970-01-01 00:00 on the local clock).

    None or one; with `overlap="both"` two, for a time that comes twice.

    >>> from schedules.timing.zones import zone_of
    >>> instants_of(zone_of("Europe/Berlin"), 1_774_751_400, gap="fire_at_end", overlap="first")  # 02:30, lost
    (1774746000,)
    """
    index = bisect_right(zone.reached, local)
    if local < zone.local_starts[index]:
        if gap == FIRE_AT_END:
            return (zone.starts[index],)
        return (local - zone.offsets[index - 1],) if gap == AS_BEFORE else ()
    first = local - zone.offsets[index]
    if overlap == "first":
        return (first,)
    last = local - zone.offsets[bisect_right(zone.local_starts, local) - 1]
    if overlap == "last" or last == first:
        return (last,)
    return first, last


def local_day(zone: Zone, instant: int) -> int:
    """The local date of an instant, in days since 1970-01-01."""
    return (instant + zone.offset(instant)) // 86400


def start_of_day(zone: Zone, day: int) -> int:
    """The first instant of a local date (days since 1970-01-01); of a date that was skipped, the next one's."""
    return instants_of(zone, day * 86400, gap=FIRE_AT_END, overlap="first")[0]
