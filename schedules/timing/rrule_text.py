"""Reading recurrence sets: DTSTART, RRULE, RDATE and EXDATE as RFC 5545 writes them, strictly.

Refused on purpose: EXRULE (deprecated by the RFC, and unbounded work), COUNT beyond MOST_COUNTED, and parts that the
RFC's table in section 3.3.10 does not allow together. BYSECOND ends at 59: there are no leap seconds here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from schedules.timing.local_times import AS_BEFORE, instants_of
from schedules.timing.spec_reading import EPOCH, LAST_INSTANT, suggest
from schedules.timing.zones import UnknownZone, Zone, zone_of

LONGEST_TEXT: Final = 10_000
MOST_RULES: Final = 16
MOST_DATES: Final = 1_000
MOST_COUNTED: Final = 100_000
LARGEST_INTERVAL: Final = 1_000_000

FREQUENCIES: Final = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
YEARLY, MONTHLY, WEEKLY, DAILY, HOURLY, MINUTELY, SECONDLY = range(7)
WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

_DATE: Final = re.compile(r"(\d{4})(\d{2})(\d{2})(?:T(\d{2})(\d{2})(\d{2})(Z?))?", re.ASCII)
_BYDAY: Final = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_RANGES: Final = {
    "BYMONTH": (1, 12, False),
    "BYMONTHDAY": (1, 31, True),
    "BYYEARDAY": (1, 366, True),
    "BYWEEKNO": (1, 53, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    "BYSECOND": (0, 59, False),
    "BYSETPOS": (1, 366, True),
}
_PARTS: Final = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_RANGES)
_LINES: Final = ("DTSTART", "RRULE", "RDATE", "EXDATE")


class RuleError(ValueError):
    """A recurrence set that cannot be accepted; the message says which part breaks which rule."""


class Rule(NamedTuple):
    """One RRULE. Local times are seconds since 1970-01-01 00:00 on the local clock; Monday is 0."""

    frequency: int
    start: int
    interval: int = 1
    times: int | None = None
    until: int | None = None
    week_start: int = 0
    months: tuple[int, ...] = ()
    month_days: tuple[int, ...] = ()
    year_days: tuple[int, ...] = ()
    week_numbers: tuple[int, ...] = ()
    weekdays: tuple[tuple[int, int], ...] = ()
    """(n, weekday) of BYDAY: the n-th such day, or every one for 0."""
    hours: tuple[int, ...] = ()
    minutes: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()


class RuleSet(NamedTuple):
    """A recurrence set: what the rules and dates name, without the exceptions; all on the local clock of `zone`."""

    zone: Zone
    rules: tuple[Rule, ...]
    dates: tuple[int, ...]
    exceptions: frozenset[int]


def canonical(text: str) -> str:
    """The text with continuation lines unfolded and empty lines and white space at the edges removed."""
    unfolded = re.sub(r"\r?\n[ \t]", "", text.replace("\\n", "\n"))
    return "\n".join(line.strip() for line in unfolded.splitlines() if line.strip())


def parse_rules(text: str, zone: Zone) -> RuleSet:
    """Read a recurrence set; `zone` is the zone of times that name none. Raises RuleError.

    Without a DTSTART the rules begin at midnight of 1970-01-01 (which sets the phase of INTERVAL), and COUNT is
    refused. A DTSTART with a TZID, or in UTC, moves the whole set to that zone.
    """
    if len(text) > LONGEST_TEXT:
        raise RuleError(f"a recurrence set has at most {LONGEST_TEXT} characters")
    lines = [_line(line) for line in canonical(text).splitlines()]
    starts = [line for line in lines if line.name == "DTSTART"]
    if len(starts) > 1:
        raise RuleError("DTSTART may stand only once")
    start = None
    timed = True
    if starts:
        zone = _zone(starts[0], zone)
        if starts[0].value.endswith("Z"):
            zone = zone_of("UTC")
        start = _local(starts[0].value, zone, zone, "DTSTART")
        timed = "T" in starts[0].value
    rules = tuple(_rule(line.value, start, zone) for line in lines if line.name == "RRULE")
    dates = {name: _dates([line for line in lines if line.name == name], zone, timed) for name in ("RDATE", "EXDATE")}
    if not rules and not dates["RDATE"]:
        raise RuleError("needs at least one RRULE or RDATE")
    if len(rules) > MOST_RULES:
        raise RuleError(f"at most {MOST_RULES} RRULE lines may stand together")
    return RuleSet(zone, rules, tuple(sorted(set(dates["RDATE"]))), frozenset(dates["EXDATE"]))


class _Line(NamedTuple):
    name: str
    parameters: dict[str, str]
    value: str


def _line(line: str) -> _Line:
    head, colon, value = line.partition(":")
    if not colon:
        head, value = "RRULE", line  # a bare FREQ=… is a rule
    name, *parameters = head.upper().split(";")
    if name == "EXRULE":
        raise RuleError("EXRULE is deprecated (RFC 5545); use EXDATE, or a calendar to exclude")
    if name not in _LINES:
        raise RuleError(f"{name[:40]!r} is not known{suggest(name, _LINES)}: only {', '.join(_LINES)}")
    pairs = {}
    for parameter, original in zip(parameters, head.split(";")[1:], strict=True):
        key = parameter.partition("=")[0]
        if key not in ("TZID", "VALUE") or name == "RRULE":
            raise RuleError(f"{name} does not take {key[:40]}")
        pairs[key] = original.partition("=")[2].strip('"')
    if pairs.get("VALUE", "DATE").upper() not in ("DATE", "DATE-TIME"):
        raise RuleError(f"{name} takes VALUE=DATE or VALUE=DATE-TIME")
    return _Line(name, pairs, value.strip().upper())


def _zone(line: _Line, default: Zone) -> Zone:
    if "TZID" not in line.parameters:
        return default
    if line.value.endswith("Z"):
        raise RuleError(f"{line.name} has both a TZID and a time in UTC")
    try:
        return zone_of(line.parameters["TZID"])
    except UnknownZone as error:
        raise RuleError(f"{line.name}: {error}") from None


def _dates(lines: list[_Line], zone: Zone, timed: bool) -> list[int]:
    found = []
    for line in lines:
        own = _zone(line, zone)
        for value in line.value.split(","):
            if timed and "T" not in value:
                raise RuleError(f"{line.name} {value[:40]!r} needs a time, as DTSTART has one")
            found.append(_local(value, own, zone, line.name))
    if len(found) > MOST_DATES:
        raise RuleError(f"RDATE and EXDATE take at most {MOST_DATES} dates each")
    return found


def _local(value: str, own: Zone, zone: Zone, name: str) -> int:
    """The local second in `zone` of a DATE or DATE-TIME that was written in zone `own`, or in UTC."""
    match = _DATE.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        moment = datetime(*(int(part or 0) for part in match.groups()[:6]), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        raise RuleError(f"{name} {value[:40]!r} is not a date such as 20260105T090000") from None
    local = (moment - EPOCH) // timedelta(seconds=1)
    if not 0 <= local <= LAST_INSTANT:
        raise RuleError(f"{name} must lie in the years 1970 to 2199")
    if match[7]:
        return local + zone.offset(local)
    if own is zone:
        return local
    instant = instants_of(own, local, gap=AS_BEFORE, overlap="first")[0]
    return instant + zone.offset(instant)


def _rule(text: str, start: int | None, zone: Zone) -> Rule:
    parts: dict[str, str] = {}
    for part in text.rstrip(";").split(";"):
        name, equals, value = part.partition("=")
        name = name.strip()
        if name not in _PARTS:
            raise RuleError(f"RRULE part {name[:40]!r} is not known{suggest(name, _PARTS)}")
        if not equals or not value.strip():
            raise RuleError(f"{name} needs a value")
        if name in parts:
            raise RuleError(f"{name} stands twice")
        parts[name] = value.strip()
    if parts.get("FREQ") not in FREQUENCIES:
        raise RuleError(f"RRULE needs a FREQ of {', '.join(FREQUENCIES)}")
    frequency = FREQUENCIES.index(parts["FREQ"])
    lists = {name: _numbers(name, parts[name]) if name in parts else () for name in _RANGES}
    week_start = parts.get("WKST", "MO")
    if week_start not in WEEKDAYS:
        raise RuleError(f"WKST is one of {', '.join(WEEKDAYS)}")
    rule = Rule(
        frequency=frequency,
        start=start or 0,
        interval=_whole("INTERVAL", parts.get("INTERVAL", "1"), LARGEST_INTERVAL),
        times=_whole("COUNT", parts["COUNT"], MOST_COUNTED) if "COUNT" in parts else None,
        until=_local(parts["UNTIL"], zone, zone, "UNTIL") if "UNTIL" in parts else None,
        week_start=WEEKDAYS.index(week_start),
        months=lists["BYMONTH"],
        month_days=lists["BYMONTHDAY"],
        year_days=lists["BYYEARDAY"],
        week_numbers=lists["BYWEEKNO"],
        weekdays=_weekdays(parts["BYDAY"]) if "BYDAY" in parts else (),
        hours=lists["BYHOUR"],
        minutes=lists["BYMINUTE"],
        seconds=lists["BYSECOND"],
        positions=lists["BYSETPOS"],
    )
    if rule.times is not None and start is None:
        raise RuleError("COUNT counts from DTSTART, which is missing")
    _check(rule)
    return rule


def _check(rule: Rule) -> None:
    """The combinations that RFC 5545 excludes in section 3.3.10."""
    frequency = FREQUENCIES[rule.frequency]
    if rule.times is not None and rule.until is not None:
        raise RuleError("COUNT and UNTIL exclude each other")
    if rule.week_numbers and rule.frequency != YEARLY:
        raise RuleError(f"BYWEEKNO goes with FREQ=YEARLY only, not {frequency}")
    if rule.year_days and rule.frequency in (MONTHLY, WEEKLY, DAILY):
        raise RuleError(f"BYYEARDAY does not go with FREQ={frequency}")
    if rule.month_days and rule.frequency == WEEKLY:
        raise RuleError("BYMONTHDAY does not go with FREQ=WEEKLY")
    if any(nth for nth, _ in rule.weekdays) and (rule.frequency > MONTHLY or rule.week_numbers):
        raise RuleError("a number before a weekday in BYDAY goes with FREQ=MONTHLY or YEARLY without BYWEEKNO only")
    by_parts = (rule.months, rule.month_days, rule.year_days, rule.week_numbers, rule.weekdays)
    if rule.positions and not any((*by_parts, rule.hours, rule.minutes, rule.seconds)):
        raise RuleError("BYSETPOS needs another BY… part to choose from")


def _numbers(name: str, text: str) -> tuple[int, ...]:
    low, high, negative = _RANGES[name]
    found = set()
    for item in text.split(","):
        number = int(item) if _NUMBER.fullmatch(item.strip()) else high + 1
        if not low <= (abs(number) if negative else number) <= high:
            or_back = f" or -{high} to -{low}" if negative else ""
            raise RuleError(f"{name} {item[:40]!r} is not a number from {low} to {high}{or_back}")
        found.add(number)
    return tuple(sorted(found))


def _weekdays(text: str) -> tuple[tuple[int, int], ...]:
    found = set()
    for item in text.split(","):
        match = _BYDAY.fullmatch(item.strip())
        nth = int(match[1]) if match and match[1] else 0
        if match is None or (match[1] and nth == 0) or abs(nth) > 53:
            raise RuleError(f"BYDAY {item[:40]!r} is not a weekday such as MO, 2TU or -1FR")
        found.add((nth, WEEKDAYS.index(match[2])))
    return tuple(sorted(found))


def _whole(name: str, text: str, highest: int) -> int:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= highest:
        raise RuleError(f"{name} is a whole number from 1 to {highest}")
    return int(text)
