"""Search on the local clock: the next or previous matching second, in integers, with no time zone.

"Local seconds" count from 1970-01-01 00:00 on a clock that is never set; `instants` lays them over the
windows of a zone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from schedules.timing.cron.calendar import LAST_DAY, MONTH_COUNT, MONTH_OF_DAY, MONTH_SHAPES, MONTH_STARTS
from schedules.timing.cron.fields import ALL_MONTHS, LAST_OCCURRENCE, LAST_WEEKDAY, Fields

DAY: Final = 86400
FIRST_SECOND: Final = 0
LAST_SECOND: Final = LAST_DAY * DAY + DAY - 1

_SAME_WEEKDAY: Final = 0b1_0000001_0000001_0000001_0000001  # days 1, 8, 15, 22, 29


class LocalSearch:
    """The matching seconds of one expression on a clock that is never set.

    `times` are the matching seconds of a day, in order; when several seconds of a minute match, `times` holds the
    matching minutes and `seconds` the seconds within each, otherwise `seconds` is empty.
    """

    __slots__ = ("_every_day", "_fields", "_masks", "_next_month", "_previous_month", "_single", "seconds", "times")

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.times, self.seconds = times_of_day(fields.hours, fields.minutes, fields.seconds)
        self._single = not self.seconds
        masks = [-1] * 28
        self._masks = masks
        self._every_day = fields.months == ALL_MONTHS and fields.years is None and fields.dom_open and fields.dow_open
        self._next_month, self._previous_month = _month_strides(fields.months)

    def next(self, local: int) -> int | None:
        """The first matching local second after `local`, or None when there is none to the end of 2199."""
        day, second = divmod(local, DAY)
        found = self.day_from(day)
        if found is None:
            return None
        if found == day:
            times = self.times
            index = bisect_right(times, second)
            if self._single:
                if index < len(times):
                    return day * DAY + times[index]
            else:
                seconds = self.seconds
                if index and second - times[index - 1] < seconds[-1]:
                    minute = times[index - 1]
                    return day * DAY + minute + seconds[bisect_right(seconds, second - minute)]
                if index < len(times):
                    return day * DAY + times[index] + seconds[0]
            found = self.day_from(day + 1)
            if found is None:
                return None
        return found * DAY + self.times[0] + (0 if self._single else self.seconds[0])

    def previous(self, local: int) -> int | None:
        """The last matching local second before `local`, or None when there is none since the start of 1970."""
        day, second = divmod(local, DAY)
        found = self.day_until(day)
        if found is None:
            return None
        if found == day:
            times = self.times
            if self._single:
                index = bisect_left(times, second)
                if index:
                    return day * DAY + times[index - 1]
            else:
                seconds = self.seconds
                index = bisect_right(times, second)
                if index:
                    minute = times[index - 1]
                    at = bisect_left(seconds, second - minute)
                    if at:
                        return day * DAY + minute + seconds[at - 1]
                    if index > 1:
                        return day * DAY + times[index - 2] + seconds[-1]
            found = self.day_until(day - 1)
            if found is None:
                return None
        return found * DAY + self.times[-1] + (0 if self._single else self.seconds[-1])

    def between(self, after: int, until: int) -> Iterator[int]:
        """The matching local seconds in (`after`, `until`], in order."""
        first, last = after + 1, min(until, LAST_SECOND)
        day = self.day_from(first // DAY)
        times, seconds = self.times, self.seconds
        while day is not None and (base := day * DAY) <= last:
            if seconds:
                for minute in times:
                    at = base + minute
                    if at + 59 < first:
                        continue
                    if at > last:
                        return
                    yield from [at + second for second in seconds if first <= at + second <= last]
            elif first <= base and base + DAY <= last:
                yield from [base + time for time in times]
            else:
                yield from [base + time for time in times if first <= base + time <= last]
            day = self.day_from(day + 1)

    def day_from(self, day: int) -> int | None:
        """The first matching day on or after `day` (days since 1970-01-01)."""
        if day < 0:
            day = 0
        elif day > LAST_DAY:
            return None
        if self._every_day:
            return day
        month = MONTH_OF_DAY[day]
        start = MONTH_STARTS[month]
        mask = self._mask(month) >> (day - start)
        if mask:
            return day + (mask & -mask).bit_length() - 1
        strides, masks = self._next_month, self._masks
        years = self._fields.years
        month += strides[month % 12]
        while month < MONTH_COUNT:
            if years is None or years >> (month // 12) & 1:
                mask = masks[MONTH_SHAPES[month]]
                if mask < 0:
                    mask = self._fill(MONTH_SHAPES[month])
                if mask:
                    return MONTH_STARTS[month] + (mask & -mask).bit_length() - 1
            month += strides[month % 12]
        return None

    def day_until(self, day: int) -> int | None:
        """The last matching day on or before `day` (days since 1970-01-01)."""
        if day > LAST_DAY:
            day = LAST_DAY
        elif day < 0:
            return None
        if self._every_day:
            return day
        month = MONTH_OF_DAY[day]
        start = MONTH_STARTS[month]
        mask = self._mask(month) & ((2 << (day - start)) - 1)
        strides = self._previous_month
        while not mask:
            month -= strides[month % 12]
            if month < 0:
                return None
            mask = self._mask(month)
        return MONTH_STARTS[month] + mask.bit_length() - 1

    def _mask(self, month: int) -> int:
        """The matching days of a month, bit 0 being the 1st."""
        fields = self._fields
        if not fields.months >> (month % 12 + 1) & 1:
            return 0
        if fields.years is not None and not fields.years >> (month // 12) & 1:
            return 0
        shape = MONTH_SHAPES[month]
        mask = self._masks[shape]
        return mask if mask >= 0 else self._fill(shape)

    def _fill(self, shape: int) -> int:
        mask = days_of_month(self._fields, length=28 + shape // 7, first_weekday=shape % 7)
        self._masks[shape] = mask
        return mask


@lru_cache(maxsize=4096)
def search_of(fields: Fields) -> LocalSearch:
    """The search for these fields; schedules with the same expression share one."""
    return LocalSearch(fields)


@lru_cache(maxsize=4096)
def times_of_day(hours: int, minutes: int, seconds: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The matching times of a day: (all of them, ()) or, if several seconds match, (minutes, seconds)."""
    within = _bits(seconds)
    base = within[0] if len(within) == 1 else 0
    minute_starts = [minute * 60 + base for minute in _bits(minutes)]
    times = tuple([hour * 3600 + start for hour in _bits(hours) for start in minute_starts])
    return times, within if len(within) > 1 else ()


@lru_cache(maxsize=4096)
def _month_strides(months: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """From each month of the year, how many months on (and back) the next allowed month lies."""
    allowed = [months >> (month + 1) & 1 for month in range(12)]
    forward = tuple(next(n for n in range(1, 13) if allowed[(month + n) % 12]) for month in range(12))
    back = tuple(next(n for n in range(1, 13) if allowed[(month - n) % 12]) for month in range(12))
    return forward, back


def _bits(mask: int) -> tuple[int, ...]:
    return tuple([bit for bit in range(mask.bit_length()) if mask >> bit & 1])


def days_of_month(fields: Fields, *, length: int, first_weekday: int) -> int:
    """The matching days of a month of this length that begins on this weekday (Sunday is 0); bit 0 is the 1st."""
    every = (1 << length) - 1
    by_date = fields.days >> 1 & every
    for back in range(31):
        if fields.last_days >> back & 1 and back < length:
            by_date |= 1 << (length - 1 - back)
    if fields.nearest:
        target = length if fields.nearest == LAST_WEEKDAY else fields.nearest
        if target <= length:
            by_date |= 1 << (nearest_weekday(target, length=length, first_weekday=first_weekday) - 1)
    by_weekday = 0
    for weekday in range(7):
        days = _SAME_WEEKDAY << ((weekday - first_weekday) % 7) & every
        if fields.weekdays >> weekday & 1:
            by_weekday |= days
        occurrences = fields.nth >> (weekday * 8)
        for nth in range(1, 6):
            if occurrences >> nth & 1:
                by_weekday |= days & 0x7F << (7 * (nth - 1))
        if occurrences >> LAST_OCCURRENCE & 1:
            by_weekday |= 1 << (days.bit_length() - 1)
    if fields.dom_open or fields.dow_open or fields.both:
        return by_date & by_weekday
    return by_date | by_weekday


def nearest_weekday(day: int, *, length: int, first_weekday: int) -> int:
    """The day of Monday to Friday closest to `day` within the same month (OCPS 1.3, section 4.3)."""
    weekday = (first_weekday + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day
