"""Timetables: rules that name instants. Interval, one-off and cron stand here; `rrules` and `solar` beside.

Every timetable answers in integer epoch seconds, between 1970 and the end of 2199, in bounded time: a rule that
can never match says so (None) instead of searching for ever. They hold no clock and no state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from heapq import merge
from typing import Final

from schedules.timing.cron import Cron, Gap, Overlap
from schedules.timing.cron.calendar import MONTH_COUNT, MONTH_OF_DAY, MONTH_STARTS
from schedules.timing.local_times import instants_of
from schedules.timing.spec_reading import LAST_INSTANT, write_instant
from schedules.timing.zones import Zone

DAY: Final = 86400
LAST_LOCAL_DAY: Final = LAST_INSTANT // DAY


class Timetable(ABC):
    """A rule that names instants."""

    @abstractmethod
    def next_after(self, after: int) -> int | None:
        """The first instant strictly later than `after` (epoch seconds), or None for never."""

    @abstractmethod
    def describe(self) -> str:
        """In plain English, without the time zone."""

    def between(self, after: int, until: int) -> Iterator[int]:
        """The instants in (`after`, `until`], lazily and in order, none twice."""
        instant = self.next_after(after)
        while instant is not None and instant <= until:
            yield instant
            instant = self.next_after(instant)

    def count(self, after: int, until: int) -> int:
        """How many instants lie in (`after`, `until`]."""
        return sum(1 for _ in self.between(after, until))


class Interval(Timetable):
    """Every `every` seconds of real time, counted from `anchor` in both directions, so that nothing drifts."""

    def __init__(self, every: int, anchor: int = 0) -> None:
        """`every` and `anchor` in seconds; the anchor only sets the phase, it is not a beginning."""
        self.every = every
        self.phase = anchor % every

    def next_after(self, after: int) -> int | None:
        after = max(after, -1)
        found = after + 1 + (self.phase - after - 1) % self.every
        return found if found <= LAST_INSTANT else None

    def between(self, after: int, until: int) -> Iterator[int]:
        first = self.next_after(after)
        return iter(()) if first is None else iter(range(first, min(until, LAST_INSTANT) + 1, self.every))

    def count(self, after: int, until: int) -> int:
        first, last = max(after, -1), min(until, LAST_INSTANT)
        return max((last - self.phase) // self.every - (first - self.phase) // self.every, 0)

    def describe(self) -> str:
        for unit, seconds in (("hour", 3600), ("minute", 60)):
            if self.every % seconds == 0:
                return _every(self.every // seconds, unit)
        return _every(self.every, "second")


class CalendarInterval(Timetable):
    """Every so many days, weeks or months on the local calendar, at the anchor's local time.

    Each instant is computed from the anchor, never from the one before: 31 January plus one month is the last of
    February, plus two is 31 March. What happens to a local time that a change of clocks swallows or repeats is
    for `gap` and `overlap` to say, as for a cron job at a fixed time.
    """

    is_interval_like: Final = False

    def __init__(self, unit: str, every: int, anchor: int, zone: Zone, *, gap: Gap, overlap: Overlap) -> None:
        """`unit` is "days", "weeks" or "months"; `anchor` is in seconds on the local clock of `zone`."""
        self.unit = unit
        self.every = every
        self.zone = zone
        self.lost: str = gap
        self.overlap = overlap
        self._anchor_day, self._time = divmod(anchor, DAY)
        self._step = every * 7 if unit == "weeks" else every
        if unit == "months":
            self._anchor_month = MONTH_OF_DAY[self._anchor_day]
            self._day_of_month = self._anchor_day - MONTH_STARTS[self._anchor_month]

    def next_after(self, after: int) -> int | None:
        return next(self._from(after), None)

    def between(self, after: int, until: int) -> Iterator[int]:
        for instant in self._from(after):
            if instant > until:
                return
            yield instant

    def _from(self, after: int) -> Iterator[int]:
        """The instants later than `after`."""
        after = max(after, -1)
        # No change of clocks moves a local time by more than a day (the date line), so two days back is enough.
        earliest = (after + self.zone.offset(after)) // DAY - 2
        for day in self._days(max(earliest, -1)):
            for instant in instants_of(self.zone, day * DAY + self._time, gap=self.lost, overlap=self.overlap):
                if after < instant <= LAST_INSTANT:
                    yield instant
                    after = instant

    def locals_between(self, low: int, high: int) -> Iterator[int]:
        """The local seconds in [`low`, `high`) that it names."""
        for day in self._days(low // DAY):
            local = day * DAY + self._time
            if local >= high:
                return
            if local >= low:
                yield local

    def _days(self, earliest: int) -> Iterator[int]:
        """The local days from `earliest` on (days since 1970-01-01)."""
        if self.unit != "months":
            yield from range(earliest + (self._anchor_day - earliest) % self._step, LAST_LOCAL_DAY + 2, self._step)
            return
        month = MONTH_OF_DAY[min(max(earliest, 0), LAST_LOCAL_DAY)]
        for index in range(month + (self._anchor_month - month) % self._step, MONTH_COUNT, self._step):
            day = MONTH_STARTS[index] + self._day_of_month
            end = MONTH_STARTS[index + 1] if index + 1 < MONTH_COUNT else LAST_LOCAL_DAY + 1
            yield min(day, end - 1)

    def describe(self) -> str:
        unit, every = self.unit[:-1], self.every
        if unit == "month" and every % 12 == 0:
            unit, every = "year", every // 12
        hour, rest = divmod(self._time, 3600)
        text = f"{_every(every, unit)} at {hour:02d}:{rest // 60:02d}"
        return text + (f":{rest % 60:02d}" if rest % 60 else "")


class Once(Timetable):
    """One instant."""

    def __init__(self, at: int) -> None:
        self.at = at

    def next_after(self, after: int) -> int | None:
        return self.at if self.at > after else None

    def describe(self) -> str:
        return f"Once at {write_instant(self.at)}"


class CronTimetable(Timetable):
    """A cron expression on the local clock of a zone."""

    def __init__(self, cron: Cron, zone: Zone, *, gap: Gap = "fire_at_end", overlap: Overlap = "first") -> None:
        self.cron = cron
        self.zone = zone
        self.gap = gap
        self.overlap = overlap

    def next_after(self, after: int) -> int | None:
        return self.cron.next_epoch(after, self.zone, gap=self.gap, overlap=self.overlap)

    def between(self, after: int, until: int) -> Iterator[int]:
        return self.cron.between_epoch(after, until, self.zone, gap=self.gap, overlap=self.overlap)

    def describe(self) -> str:
        return self.cron.describe()


def _every(number: int, unit: str) -> str:
    return f"Every {unit}" if number == 1 else f"Every {number} {unit}s"


class Merged(Timetable):
    """Several timetables as one; an instant that several of them name comes once."""

    def __init__(self, timetables: tuple[Timetable, ...]) -> None:
        self.timetables = timetables

    def next_after(self, after: int) -> int | None:
        found = [instant for timetable in self.timetables if (instant := timetable.next_after(after)) is not None]
        return min(found, default=None)

    def between(self, after: int, until: int) -> Iterator[int]:
        previous = None
        for instant in merge(*(timetable.between(after, until) for timetable in self.timetables)):
            if instant != previous:
                yield instant
                previous = instant

    def describe(self) -> str:
        return "; and ".join(timetable.describe() for timetable in self.timetables)
