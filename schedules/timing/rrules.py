"""Recurrence sets of RFC 5545 as timetables.

The day parts of a rule (BYMONTH, BYWEEKNO, BYYEARDAY, BYMONTHDAY, BYDAY) are one bitmask per year, the phase of
INTERVAL is arithmetic on the period's number, the time parts are sorted tuples. So any instant is found directly,
without walking from DTSTART, and a rule that never matches is known to be so after two hundred masks; a general
iterator (dateutil's, with which the tests agree) may search for ever there.

When clocks change, a local time that is lost is read with the offset before the gap (section 3.3.5: 02:30 becomes
03:30) unless the schedule skips it; one that comes twice is the first, or as the schedule says. Rules of hours and
less follow real time, like interval-like cron jobs: nothing in the gap, both passes of an overlap.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import lru_cache
from heapq import merge
from itertools import groupby, islice
from math import gcd
from typing import Final

from schedules.timing.cron.calendar import FIRST_YEAR, LAST_YEAR, MONTH_OF_DAY, MONTH_STARTS
from schedules.timing.cron.instants import Gap, Overlap
from schedules.timing.local_times import AS_BEFORE, SKIP
from schedules.timing.rrule_describe import describe_rule
from schedules.timing.rrule_text import HOURLY, MONTHLY, WEEKLY, YEARLY, Rule, RuleSet
from schedules.timing.timetables import DAY, LAST_LOCAL_DAY, Merged, Timetable
from schedules.timing.zones import Zone

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_UNITS: Final = {4: 3600, 5: 60, 6: 1}
"""Seconds of the slots that the rules of hours, minutes and seconds step through."""


class LocalDates:
    """RDATE: a list of local seconds."""

    is_interval_like = False

    def __init__(self, dates: tuple[int, ...]) -> None:
        self._dates = dates

    def next(self, local: int) -> int | None:
        """The first date after the local second `local`."""
        index = bisect_right(self._dates, local)
        return self._dates[index] if index < len(self._dates) else None

    def between(self, after: int, until: int) -> Iterator[int]:
        """The dates in (`after`, `until`]."""
        return iter(self._dates[bisect_right(self._dates, after) : bisect_right(self._dates, until)])

    def describe(self) -> str:
        return "On one date" if len(self._dates) == 1 else f"On {len(self._dates)} dates"


class LocalRule:
    """One rule on the local clock: local seconds in, local seconds out."""

    def __init__(self, rule: Rule) -> None:
        self._written = rule
        self.rule = rule = _explicit(rule)
        self._start_day = rule.start // DAY
        self._masks: dict[int, int] = {}
        self._unit = _UNITS.get(rule.frequency, DAY)
        within = [
            hour * 3600 + minute * 60 + second
            for hour in (rule.hours if self._unit == DAY else (0,))
            for minute in (rule.minutes if self._unit >= 3600 else (0,))
            for second in (rule.seconds if self._unit >= 60 else (0,))
        ]
        self._picks_days = bool(rule.positions) and rule.frequency <= WEEKLY
        if rule.positions and not self._picks_days:
            within = _at_positions(within, rule.positions)
        self._within = tuple(within)
        self._slots = _slots(rule, self._unit) if self._unit < DAY else (0,)
        self._by_residue: dict[int, Sequence[int]] = {}
        self._never = not self._within or not self._slots
        self.until = LAST_LOCAL_DAY * DAY + DAY - 1 if rule.until is None else rule.until
        if rule.times is not None:
            self.until = max(islice(self._from(rule.start - 1), rule.times), default=-1)

    @property
    def is_interval_like(self) -> bool:
        """Steps in hours or less: the rule follows real time when clocks change."""
        return self._unit < DAY

    def describe(self) -> str:
        return describe_rule(self._written, self.rule)

    def next(self, local: int) -> int | None:
        """The first local second after `local` that the rule names, or None."""
        found = next(self._from(max(local, self.rule.start - 1)), None)
        return found if found is not None and found <= self.until else None

    def between(self, after: int, until: int) -> Iterator[int]:
        """The local seconds in (`after`, `until`] that the rule names, in order."""
        until = min(until, self.until)
        for local in self._from(max(after, self.rule.start - 1)):
            if local > until:
                return
            yield local

    def _from(self, after: int) -> Iterator[int]:
        """Everything after `after`, without regard to DTSTART, UNTIL and COUNT."""
        if self._never:
            return
        if self._picks_days:
            yield from self._picked(after)
            return
        unit, within = self._unit, self._within
        for day in self._days(after // DAY):
            base, slots = day * DAY, self._slots_of(day)
            index = 0
            if base <= after:
                slot, rest = divmod(after - base, unit)
                index = bisect_left(slots, slot)
                if index < len(slots) and slots[index] == slot:
                    start = base + slot * unit
                    yield from [start + time for time in within[bisect_right(within, rest) :]]
                    index += 1
            for at in range(index, len(slots)):
                start = base + slots[at] * unit
                for time in within:
                    yield start + time

    def _picked(self, after: int) -> Iterator[int]:
        """BYSETPOS in years, months and weeks: positions among all times of the period."""
        positions, within = self.rule.positions, self._within
        for _, days in groupby(self._days(self._period_start(after // DAY)), key=self._period):
            members = list(days)
            size = len(members) * len(within)
            for index in sorted({_index(position, size) for position in positions} - {None}):  # type: ignore[type-var]
                day, time = divmod(index, len(within))  # type: ignore[operator]
                local = members[day] * DAY + within[time]
                if local > after:
                    yield local

    def _days(self, earliest: int) -> Iterator[int]:
        """The days from `earliest` on that the day parts and the phase of INTERVAL allow."""
        interval, phased = self.rule.interval, self.rule.interval > 1 and self._unit == DAY
        first_period = self._period(self._start_day)
        earliest = max(earliest, 0)
        if earliest > LAST_LOCAL_DAY:
            return
        yearly = phased and self.rule.frequency == YEARLY
        for year in range(FIRST_YEAR + MONTH_OF_DAY[earliest] // 12, LAST_YEAR + 1):
            if yearly and (year - first_period) % interval:
                continue
            base = _year_start(year)
            mask = self._mask(year)
            if earliest > base:
                mask = mask >> (earliest - base) << (earliest - base)
            while mask:
                lowest = mask & -mask
                mask ^= lowest
                day = base + lowest.bit_length() - 1
                if not phased or (self._period(day) - first_period) % interval == 0:
                    yield day

    def _period(self, day: int) -> int:
        """The number of the year, month, week or day in which a day lies."""
        frequency = self.rule.frequency
        if frequency == YEARLY:
            return FIRST_YEAR + MONTH_OF_DAY[min(day, LAST_LOCAL_DAY)] // 12
        if frequency == MONTHLY:
            return MONTH_OF_DAY[min(day, LAST_LOCAL_DAY)]
        if frequency == WEEKLY:
            return (day + 3 - self.rule.week_start) // 7
        return day

    def _period_start(self, day: int) -> int:
        day = min(max(day, 0), LAST_LOCAL_DAY)
        period = self._period(day)
        if self.rule.frequency == YEARLY:
            return _year_start(period)
        return MONTH_STARTS[period] if self.rule.frequency == MONTHLY else period * 7 - 3 + self.rule.week_start

    def _slots_of(self, day: int) -> Sequence[int]:
        """The slots of a day (its hours, minutes or seconds) that the rule names."""
        interval = self.rule.interval
        if self._unit == DAY or interval == 1:
            return self._slots
        number = DAY // self._unit
        residue = (self.rule.start // self._unit - day * number) % interval
        slots = self._by_residue.get(residue)
        if slots is None:
            strided = range(residue, number, interval)
            if len(self._slots) == number:
                slots = strided
            elif len(strided) < len(self._slots):
                slots = [slot for slot in strided if _contains(self._slots, slot)]
            else:
                slots = [slot for slot in self._slots if slot % interval == residue]
            if len(self._by_residue) >= 64:
                self._by_residue.clear()
            self._by_residue[residue] = slots
        return slots

    def _mask(self, year: int) -> int:
        mask = self._masks.get(year)
        if mask is None:
            mask = self._masks[year] = _days_of_year(self.rule, year)
        return mask


def _explicit(rule: Rule) -> Rule:
    """The rule with the parts that it takes from DTSTART spelled out."""
    day, time = divmod(rule.start, DAY)
    month = MONTH_OF_DAY[day]
    if not (rule.week_numbers or rule.year_days or rule.month_days or rule.weekdays):
        if rule.frequency == YEARLY and not rule.months:
            rule = rule._replace(months=(month % 12 + 1,))
        if rule.frequency <= MONTHLY:
            rule = rule._replace(month_days=(day - MONTH_STARTS[month] + 1,))
        elif rule.frequency == WEEKLY:
            rule = rule._replace(weekdays=((0, (day + 3) % 7),))
    return rule._replace(
        hours=rule.hours or ((time // 3600,) if rule.frequency < HOURLY else tuple(range(24))),
        minutes=rule.minutes or ((time // 60 % 60,) if rule.frequency <= HOURLY else tuple(range(60))),
        seconds=rule.seconds or ((time % 60,) if rule.frequency < 6 else tuple(range(60))),
    )


def _slots(rule: Rule, unit: int) -> Sequence[int]:
    """The hours, minutes or seconds of a day that the time parts and, on some day, the phase of INTERVAL allow."""
    number = DAY // unit
    slots: Sequence[int] = [
        slot
        for hour in rule.hours
        for minute in (rule.minutes if unit < 3600 else (0,))
        for second in (rule.seconds if unit < 60 else (0,))
        for slot in ((hour * 3600 + minute * 60 + second) // unit,)
    ]
    if len(slots) == number:
        return range(number)
    common = gcd(rule.interval, number)
    phase = rule.start // unit % common
    return tuple([slot for slot in slots if slot % common == phase])


def _contains(ordered: Sequence[int], value: int) -> bool:
    index = bisect_left(ordered, value)
    return index < len(ordered) and ordered[index] == value


def _index(position: int, size: int) -> int | None:
    """The index from 0 that a BYSETPOS from 1 or -1 means in a set of `size`, or None when there is none."""
    index = position - 1 if position > 0 else size + position
    return index if 0 <= index < size else None


def _at_positions(times: list[int], positions: tuple[int, ...]) -> list[int]:
    indices = {_index(position, len(times)) for position in positions} - {None}
    return sorted(times[index] for index in indices if index is not None)


class Recurrence(Timetable):
    """One rule, or a list of dates, on the local clock of a zone."""

    def __init__(
        self, rule: LocalRule | LocalDates, zone: Zone, *, exceptions: frozenset[int], gap: Gap, overlap: Overlap
    ) -> None:
        """`exceptions` are the local seconds of EXDATE."""
        self.rule = rule
        self.zone = zone
        self._exceptions = exceptions
        self.is_interval_like = rule.is_interval_like
        self.lost = AS_BEFORE if gap == "fire_at_end" and not rule.is_interval_like else SKIP
        self.overlap = "both" if rule.is_interval_like else overlap

    def next_after(self, after: int) -> int | None:
        return next(self._from(after), None)

    def between(self, after: int, until: int) -> Iterator[int]:
        for instant in self._from(after):
            if instant > until:
                return
            yield instant

    def _from(self, after: int) -> Iterator[int]:
        """The instants later than `after`, window by window of constant offset."""
        zone = self.zone
        after = max(after, -1)
        index = zone.window(after)
        while index < len(zone.starts):
            offset = zone.offsets[index]
            low, high = zone.local_starts[index], zone.local_ends[index]
            lost: Iterator[int] = iter(())
            if index:
                if self.overlap == "first":
                    low = max(low, zone.reached[index - 1])
                if self.lost == AS_BEFORE and zone.reached[index - 1] < low:
                    # Lost local times, read with the offset before the gap: they fall into this window.
                    before = zone.offsets[index - 1]
                    first = max(zone.reached[index - 1], after + before + 1)
                    lost = (local - before for local in self.locals_between(first, low))
            if self.overlap == "last" and index + 1 < len(zone.starts):
                high = min(high, zone.local_starts[index + 1])
            own = (local - offset for local in self.locals_between(max(low, after + offset + 1), high))
            for instant in merge(lost, own):
                if instant > after:
                    yield instant
                    after = instant
            # Straight to the window, or the gap before it, of the next match: rare rules pass over many.
            index += 1
            if index < len(zone.starts):
                found = self.rule.next(min(zone.local_ends[index - 1], zone.local_starts[index]) - 1)
                if found is None:
                    return
                index = max(index, bisect_right(zone.reached, found, index))

    def locals_between(self, low: int, high: int) -> Iterator[int]:
        """What the rule names in [`low`, `high`) on the local clock, without the exceptions."""
        for local in self.rule.between(low - 1, high - 1):
            if local not in self._exceptions:
                yield local

    def describe(self) -> str:
        return self.rule.describe()


class RecurrenceSet(Merged):
    """All rules and dates of a set."""

    def __init__(self, rules: RuleSet, *, gap: Gap, overlap: Overlap) -> None:
        members: list[LocalRule | LocalDates] = [LocalRule(rule) for rule in rules.rules]
        if rules.dates:
            members.append(LocalDates(rules.dates))
        super().__init__(
            tuple(
                Recurrence(member, rules.zone, exceptions=rules.exceptions, gap=gap, overlap=overlap)
                for member in members
            )
        )
        self._excepted = len(rules.exceptions)

    def describe(self) -> str:
        text = super().describe()
        return f"{text}, except at {self._excepted} times" if self._excepted else text


# The days of a year as bits, bit 0 being 1 January


def _year_start(year: int) -> int:
    """The first day of a year, in days since 1970-01-01."""
    return date(year, 1, 1).toordinal() - _EPOCH_ORDINAL


def _days_of_year(rule: Rule, year: int) -> int:
    """The days of a year that all day parts of a rule allow."""
    start = _year_start(year)
    length = _year_start(year + 1) - start
    first_weekday = (start + 3) % 7
    mask = (1 << length) - 1
    months = _months(length)
    if rule.months:
        mask &= _union(months[month - 1] for month in rule.months)
    if rule.week_numbers:
        mask &= _weeks(rule, year)
    if rule.year_days:
        mask &= _counted(rule.year_days, 0, length)
    if rule.month_days:
        mask &= _union(_counted(rule.month_days, *_span(month)) for month in months)
    if rule.weekdays:
        by_month = rule.frequency == MONTHLY or bool(rule.months)
        spans = [_span(month) for month in months] if by_month else [(0, length)]
        mask &= _union(_nth_weekday(nth, weekday, first_weekday, spans, length) for nth, weekday in rule.weekdays)
    return mask


def _union(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total


@lru_cache(maxsize=2)
def _months(length: int) -> tuple[int, ...]:
    masks, at = [], 0
    for days in (31, length - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31):
        masks.append(((1 << days) - 1) << at)
        at += days
    return tuple(masks)


def _span(mask: int) -> tuple[int, int]:
    """(first bit, number of bits) of a run of bits."""
    first = (mask & -mask).bit_length() - 1
    return first, mask.bit_length() - first


def _counted(numbers: tuple[int, ...], first: int, length: int) -> int:
    """The bits that numbers from 1, or from -1 backwards, mean in a span."""
    mask = 0
    for number in numbers:
        index = _index(number, length)
        if index is not None:
            mask |= 1 << (first + index)
    return mask


def _nth_weekday(nth: int, weekday: int, first_weekday: int, spans: list[tuple[int, int]], length: int) -> int:
    """Every `weekday` of the year (nth 0), or the n-th of each span."""
    every = _union([1 << day for day in range((weekday - first_weekday) % 7, length, 7)])
    if not nth:
        return every
    mask = 0
    for first, days in spans:
        start = first + (weekday - first_weekday - first) % 7
        members = range(start, first + days, 7)
        index = _index(nth, len(members))
        if index is not None:
            mask |= 1 << members[index]
    return mask


def _weeks(rule: Rule, year: int) -> int:
    """The days of the year that lie in the weeks of BYWEEKNO, some of which may begin or end in its neighbours."""
    start = _year_start(year)
    mask = 0
    for owner in (year - 1, year, year + 1):
        first = _first_week(owner, rule.week_start)
        weeks = (_first_week(owner + 1, rule.week_start) - first) // 7
        for number in rule.week_numbers:
            index = _index(number, weeks)
            if index is not None and (at := first + 7 * index - start + 7) >= 0:
                mask |= 0b1111111 << at
    return mask >> 7


def _first_week(year: int, week_start: int) -> int:
    """The day on which the first week of a year begins: the first that has at least four days in it."""
    start = _year_start(year)
    into_week = (start + 3 - week_start) % 7
    return start - into_week if into_week <= 3 else start + 7 - into_week
