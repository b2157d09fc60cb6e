"""What a recurrence rule says, in plain English."""

from __future__ import annotations

import calendar
from itertools import product
from typing import Final

from schedules.timing.rrule_text import DAILY, HOURLY, Rule
from schedules.timing.spec_reading import write_instant

_UNITS: Final = ("year", "month", "week", "day", "hour", "minute", "second")
_MOST_TIMES: Final = 6


def describe_rule(written: Rule, rule: Rule) -> str:
    """`written` is the rule as it stands, `rule` the same with the parts of its DTSTART spelled out.

    "Every 2 weeks on Monday and Wednesday at 09:00, 10 times"
    """
    unit = _UNITS[rule.frequency]
    text = f"Every {unit}" if rule.interval == 1 else f"Every {rule.interval} {unit}s"
    if rule.weekdays:
        text += " on " + _list([_weekday(nth, day) for nth, day in sorted(rule.weekdays, key=lambda pair: pair[::-1])])
    if rule.month_days:
        text += (" that is day " if rule.weekdays else " on day ") + _list([_ordinal(n) for n in rule.month_days])
    if rule.year_days:
        text += " on day " + _list([_ordinal(n) for n in rule.year_days]) + " of the year"
    if rule.week_numbers:
        text += " in week " + _list([_ordinal(n) for n in rule.week_numbers])
    if rule.months:
        text += " in " + _list([calendar.month_name[month] for month in rule.months])
    text += _times(written, rule)
    if rule.positions:
        text += ", only the " + _list([_nth(n) for n in rule.positions]) + f" of each {unit}"
    if rule.times is not None:
        text += f", {rule.times} times" if rule.times > 1 else ", once"
    if rule.until is not None:
        text += f", until {write_instant(rule.until)[:-1].replace('T', ' ')}"
    return text


def _times(written: Rule, rule: Rule) -> str:
    number = len(rule.hours) * len(rule.minutes) * len(rule.seconds)
    if rule.frequency <= DAILY and number <= _MOST_TIMES:
        times = product(rule.hours, rule.minutes, rule.seconds)
        return " at " + _list([f"{h:02d}:{m:02d}" + (f":{s:02d}" if s else "") for h, m, s in times])
    parts = []
    if written.seconds and any(written.seconds):
        parts.append("second " + _list([str(second) for second in written.seconds]))
    if written.minutes or rule.frequency == HOURLY:
        parts.append("minute " + _list([str(minute) for minute in rule.minutes]))
    if written.hours:
        parts.append("hour " + _list([str(hour) for hour in written.hours]))
    return " at " + " of ".join(parts) if parts else ""


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _weekday(nth: int, day: int) -> str:
    name = calendar.day_name[day]
    return f"the {_nth(nth)} {name}" if nth else name


def _nth(number: int) -> str:
    if number == -1:
        return "last"
    if number < 0:
        return f"{_nth(-number)} to last"
    suffix = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _ordinal(number: int) -> str:
    return str(number) if number > 0 else _nth(number)
