"""A cron expression in plain English.

Written here because the usual describers mislead: `*/40` is not "every 40 minutes" (it is minutes 0 and 40), two
restricted day fields mean *or*, and `W`, `#`, `L` and `+` go unmentioned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from schedules.timing.cron.calendar import FIRST_YEAR
from schedules.timing.cron.fields import (
    ALL_HOURS,
    ALL_MINUTES,
    ALL_MONTHS,
    ALL_SECONDS,
    LAST_OCCURRENCE,
    LAST_WEEKDAY,
    Fields,
)
from schedules.timing.cron.text import progression, runs, values_of

_MONTHS: Final = (
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_OCCURRENCES: Final = ("", "first", "second", "third", "fourth", "fifth", "last")
_CLOCK_TIMES: Final = 6  # up to so many times of day are named one by one


def describe(fields: Fields | None) -> str:
    """One sentence without a full stop: "At 02:30, Monday to Friday, in January". None is `@reboot`."""
    if fields is None:
        return "When the system starts"
    parts = [_time(fields), _day(fields), _month(fields), _year(fields)]
    return ", ".join(part for part in parts if part)


def _time(fields: Fields) -> str:
    hours, minutes, seconds = values_of(fields.hours), values_of(fields.minutes), values_of(fields.seconds)
    times = len(hours) * len(minutes) * len(seconds)
    if times <= _CLOCK_TIMES:
        shown = [
            f"{hour:02d}:{minute:02d}" + (f":{second:02d}" if seconds != [0] else "")
            for hour in hours
            for minute in minutes
            for second in seconds
        ]
        return f"At {_listed(shown)}"
    return _capital(_seconds(fields, seconds) + _minutes(fields, minutes, seconds) + _hours(fields, hours, minutes))


def _seconds(fields: Fields, seconds: list[int]) -> str:
    """What comes before the minutes; nothing for a job on the minute."""
    if seconds == [0]:
        return ""
    if fields.seconds == ALL_SECONDS:
        if fields.minutes == ALL_MINUTES:
            return "every second"
        text = "every second"
    elif step := _regular(seconds, 60):
        text = f"every {step} seconds" + (f" from second {seconds[0]}" if seconds[0] else "")
    else:
        text = f"at second{'s' * (len(seconds) > 1)} {_ranged(seconds, str)}"
    return text if fields.minutes == ALL_MINUTES else f"{text} of "


def _minutes(fields: Fields, minutes: list[int], seconds: list[int]) -> str:
    if fields.minutes == ALL_MINUTES:
        if seconds == [0]:
            return "every minute"
        return "" if fields.seconds == ALL_SECONDS or _regular(seconds, 60) else " of every minute"
    if step := _regular(minutes, 60):
        return f"every {step} minutes" + (f" from minute {minutes[0]}" if minutes[0] else "")
    if minutes == [0] and fields.hours == ALL_HOURS and seconds == [0]:
        return "every hour, on the hour"
    article = "at " if seconds == [0] else ""
    return f"{article}minute{'s' * (len(minutes) > 1)} {_ranged(minutes, str)}"


def _hours(fields: Fields, hours: list[int], minutes: list[int]) -> str:
    every_minute = fields.minutes == ALL_MINUTES or bool(_regular(minutes, 60))
    if fields.hours == ALL_HOURS:
        return "" if every_minute or (minutes == [0] and fields.seconds == 1) else " of every hour"
    if every_minute:
        spans = [f"from {first:02d}:00 to {last:02d}:59" for first, last in runs(hours)]
        if len(spans) <= 3:
            return f" {_listed(spans)}"
    if step := _regular(hours, 24):
        return f" of every {_ordinal(step)} hour" + (f" from {hours[0]:02d}:00" if hours[0] else "")
    return f" of hour{'s' * (len(hours) > 1)} {_ranged(hours, str)}"


def _day(fields: Fields) -> str:
    by_date = "" if fields.dom_open else _dates(fields)
    by_weekday = "" if fields.dow_open else _weekdays(fields)
    if not (by_date and by_weekday):
        return by_date or (f"on {by_weekday}" if fields.nth else by_weekday)
    return f"{by_date} if that is {by_weekday}" if fields.both else f"{by_date} or on {by_weekday}"


def _dates(fields: Fields) -> str:
    days = values_of(fields.days)
    items = [f"the {_ranged(days, _ordinal)}"] if days else []
    for back in values_of(fields.last_days):
        items.append(
            ("the last day", "the day before the last")[back] if back < 2 else f"the day {back} days before the last"
        )
    if fields.nearest:
        nearest = fields.nearest
        items.append("the last weekday" if nearest == LAST_WEEKDAY else f"the weekday nearest the {_ordinal(nearest)}")
    return f"on {_listed(items)} of the month"


def _weekdays(fields: Fields) -> str:
    items = []
    days = values_of(fields.weekdays)
    if days:
        # A week is read from Monday, so that Saturday and Sunday stand together.
        items.append(_ranged(sorted((day - 1) % 7 for day in days), lambda day: _WEEKDAYS[(day + 1) % 7]))
    for bit in values_of(fields.nth):
        weekday, occurrence = divmod(bit, 8)
        word = _OCCURRENCES[LAST_OCCURRENCE if occurrence == LAST_OCCURRENCE else occurrence]
        items.append(f"the {word} {_WEEKDAYS[weekday]}")
    return _listed(items) + (" of the month" if fields.nth else "")


def _month(fields: Fields) -> str:
    return "" if fields.months == ALL_MONTHS else f"in {_ranged(values_of(fields.months), _MONTHS.__getitem__)}"


def _year(fields: Fields) -> str:
    if fields.years is None:
        return ""
    years = [FIRST_YEAR + year for year in values_of(fields.years)]
    step = progression(years)
    if step > 1 and len(years) > _CLOCK_TIMES:
        return f"every {_ordinal(step)} year from {years[0]} to {years[-1]}"
    return f"in {_ranged(years, str)}"


def _regular(values: Sequence[int], cycle: int) -> int:
    """The step of values that come at even intervals all the way round the minute, hour or day, or 0."""
    if len(values) < 2:
        return 0
    step = values[1] - values[0]
    even = step * len(values) == cycle and all(b - a == step for a, b in pairwise(values))
    return step if even and step > 1 else 0


def _ranged(values: Sequence[int], show: Callable[[int], str]) -> str:
    """Values as a list in words, runs of three and more as "a to b"."""
    items: list[str] = []
    for first, last in runs(values):
        if last > first + 1:
            items.append(f"{show(first)} to {show(last)}")
        else:
            items += [show(value) for value in range(first, last + 1)]
    return _listed(items)


def _listed(items: Sequence[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
