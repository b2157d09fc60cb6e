"""Moving instants off excluded days: to the next, or the previous, day on which the schedule may fire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from schedules.timing.calendars import DayRule
from schedules.timing.cron.instants import Gap, Overlap
from schedules.timing.local_times import instants_of, local_day, start_of_day
from schedules.timing.timetables import DAY, Timetable
from schedules.timing.zones import Zone

FURTHEST: Final = 366
"""Days; an instant with no allowed day within so many stays where it is (and is then skipped)."""


class Shifted(Timetable):
    """A timetable whose instants on excluded days are moved, at the same local time, to an allowed day.

    Instants that meet are one: the fires of Saturday, Sunday and Monday at nine become Monday's at nine.
    """

    def __init__(
        self, inner: Timetable, rule: DayRule, zone: Zone, *, direction: str, gap: Gap, overlap: Overlap
    ) -> None:
        """`direction` is "next" or "previous"."""
        self.inner = inner
        self.rule = rule
        self.zone = zone
        self._step = 1 if direction == "next" else -1
        self._gap = gap
        self._overlap = overlap

    def next_after(self, after: int) -> int | None:
        return next(self._from(after), None)

    def between(self, after: int, until: int) -> Iterator[int]:
        for instant in self._from(after):
            if instant > until:
                return
            yield instant

    def describe(self) -> str:
        which = "next" if self._step > 0 else "previous"
        return f"{self.inner.describe()}, moved to the {which} business day"

    def _from(self, after: int) -> Iterator[int]:
        """The instants later than `after`: those that land on one day are gathered, then put in order."""
        after = max(after, -1)
        position = start_of_day(self.zone, self._first_source(local_day(self.zone, after))) - 1
        gathered: set[int] = set()
        current: int | None = None
        while (instant := self.inner.next_after(position)) is not None:
            position = instant
            day = local_day(self.zone, instant)
            target = self._target(day)
            if target != current:
                yield from sorted(found for found in gathered if found > after)
                gathered.clear()
                current = target
            if target == day:
                gathered.add(instant)
            else:
                local = target * DAY + (instant + self.zone.offset(instant)) % DAY
                gathered.update(instants_of(self.zone, local, gap=self._gap, overlap=self._overlap))
        yield from sorted(found for found in gathered if found > after)

    def _first_source(self, day: int) -> int:
        """The first local day whose instants can land on `day` or later."""
        if self._step < 0:
            return day
        first = day
        while day - first < FURTHEST and not self.rule.allows(first - 1):
            first -= 1
        return first

    def _target(self, day: int) -> int:
        for distance in range(FURTHEST + 1):
            if self.rule.allows(day + distance * self._step):
                return day + distance * self._step
        return day
