"""What a schedule says about time, as JSON: reading it strictly, and its one canonical form.

    {"timezone": "Europe/Berlin",
     "timetables": [{"kind": "cron", "expression": "0 2 * * *"},
                    {"kind": "interval", "every": 300, "anchor": "2026-01-01T00:00:00Z"},
                    {"kind": "interval", "every": {"months": 1}, "anchor": "2026-01-31T09:00:00Z"},
                    {"kind": "once", "at": "2026-05-01T08:00:00Z"},
                    {"kind": "rrule", "rules": "DTSTART:20260105T090000\\nRRULE:FREQ=WEEKLY;BYDAY=MO,WE"},
                    {"kind": "solar", "event": "sunrise", "latitude": 52.5, "longitude": 13.4}],
     "gap": "skip", "overlap": "both", "start": "…Z", "end": "…Z", "jitter": 60,
     "calendars": {"exclude": ["holidays"], "only": [], "shift": "next", "data": {"holidays": {…}}},
     "blackouts": [{"from": "…Z", "until": "…Z", "action": "postpone"},
                   {"from": "fri 18:00", "until": "mon 06:00"}]}

In the canonical form members with their default are absent, the order is fixed, and instants are UTC texts with
whole seconds: two specs mean the same exactly when their canonical forms are equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from schedules.timing import cron
from schedules.timing.blackouts import normalise_blackouts
from schedules.timing.calendars import MOST_MEMBERS, check_names, names_in, normalise_definition, normalise_reference
from schedules.timing.cron.instants import GAPS, OVERLAPS
from schedules.timing.rrule_text import RuleError, parse_rules
from schedules.timing.rrule_text import canonical as canonical_rules
from schedules.timing.solar import EVENTS
from schedules.timing.spec_reading import LAST_INSTANT, Problems, Reader, write_instant
from schedules.timing.timetables import DAY
from schedules.timing.zones import UnknownZone, Zone, zone_of

MOST_TIMETABLES: Final = 50
LONGEST_JITTER: Final = 7 * DAY
KINDS: Final = ("cron", "interval", "once", "rrule", "solar")
SHIFTS: Final = ("next", "previous")
UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 0, "weeks": 0, "months": 0, "years": 0}
_LONGEST: Final = {"days": 36_525, "weeks": 5_217, "months": 1_200}
_DURATION: Final = re.compile(r"P(?:(\d{1,9})([YMWD])|T(\d{1,12})([HMS]))")
_DURATION_UNITS: Final = {"Y": "years", "M": "months", "W": "weeks", "D": "days"}
_TIME_UNITS: Final = {"H": "hours", "M": "minutes", "S": "seconds"}


def normalise(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical, JSON-ready form of a spec. Raises SpecError, which names every wrong member by its path.

    >>> normalise({"timetables": [{"kind": "interval", "every": "PT5M"}], "jitter": 0})
    {'timezone': 'UTC', 'timetables': [{'kind': 'interval', 'every': 300}]}
    """
    problems = Problems()
    reader = Reader(spec, "", problems)
    zone = _zone(reader)
    canonical: dict[str, Any] = {"timezone": zone.name, "timetables": _timetables(reader, zone)}
    _put(canonical, "gap", reader.choice("gap", GAPS, default=GAPS[0]), GAPS[0])
    _put(canonical, "overlap", reader.choice("overlap", OVERLAPS, default=OVERLAPS[0]), OVERLAPS[0])
    start, end = reader.instant("start", zone), reader.instant("end", zone)
    if start is not None and end is not None and end < start:
        reader.add("end", "must not lie before the start")
    _put(canonical, "start", None if start is None else write_instant(start), None)
    _put(canonical, "end", None if end is None else write_instant(end), None)
    _put(canonical, "jitter", reader.integer("jitter", low=0, high=LONGEST_JITTER, default=0), 0)
    calendars = _calendars(reader)
    if calendars:
        canonical["calendars"] = calendars
    blackouts = normalise_blackouts(reader, zone)
    if blackouts:
        canonical["blackouts"] = blackouts
    reader.finish()
    problems.raise_if_any()
    return canonical


def calendar_names(spec: Mapping[str, Any]) -> list[str]:
    """The names of calendars that a spec mentions itself; their definitions belong into `calendars.data`.

    For a spec that is not checked yet: what makes no sense is passed over.
    """
    calendars = spec.get("calendars")
    if not isinstance(calendars, Mapping):
        return []
    lists = [calendars.get(use) for use in ("exclude", "only")]
    return sorted({name for uses in lists if isinstance(uses, list | tuple) for use in uses for name in names_in(use)})


def _calendars(reader: Reader) -> dict[str, Any]:
    value = reader.take("calendars")
    if value is None:
        return {}
    member = Reader(value, "calendars", reader.problems)
    data_reader = Reader(member.take("data") or {}, "calendars.data", reader.problems)
    data = {
        name: normalise_definition(data_reader.take(name), problems=reader.problems, path=data_reader.at(name))
        for name in data_reader
    }
    canonical: dict[str, Any] = {}
    references = []
    for use in ("exclude", "only"):
        found = []
        for index, entry in enumerate(member.items(use, most=MOST_MEMBERS)):
            path = f"calendars.{use}.{index}"
            reference = normalise_reference(entry, problems=reader.problems, path=path)
            if reference and reference not in found:
                found.append(reference)
                references.append((path, reference))
        _put(canonical, use, found, [])
    shift = member.take("shift")
    if shift is not None:
        canonical["shift"] = member.choice("shift", SHIFTS, default=None)
        if not references:
            member.add("shift", "needs calendars to exclude, or to fire on only")
    member.finish()
    names = check_names(references, data, problems=reader.problems)
    _put(canonical, "data", {name: data[name] for name in names if name in data}, {})
    return canonical


def _put(canonical: dict[str, Any], name: str, value: Any, default: Any) -> None:
    if value != default:
        canonical[name] = value


def _zone(reader: Reader) -> Zone:
    name = reader.take("timezone")
    if name is not None:
        try:
            if not isinstance(name, str):
                raise UnknownZone("must be the name of a time zone, such as Europe/Berlin")
            return zone_of(name)
        except UnknownZone as error:
            reader.add("timezone", str(error))
    return zone_of("UTC")


def _timetables(reader: Reader, zone: Zone) -> list[dict[str, Any]]:
    entries = reader.items("timetables", most=MOST_TIMETABLES)
    if not entries and reader.at("timetables") not in reader.problems.fields:
        reader.add("timetables", "needs at least one timetable")
    canonical = []
    for index, entry in enumerate(entries):
        member = Reader(entry, f"timetables.{index}", reader.problems)
        kind = member.choice("kind", KINDS, default=None) if isinstance(entry, Mapping) else ""
        if kind in _READERS and member.at("kind") not in reader.problems.fields:
            read = {"kind": kind, **_READERS[kind](member, zone)}
            if read not in canonical:
                canonical.append(read)
            member.finish()
    return canonical


def _cron(reader: Reader, zone: Zone) -> dict[str, Any]:
    dialect = reader.choice("dialect", cron.DIALECTS, default="ocps")
    expression = reader.take("expression")
    if not isinstance(expression, str):
        reader.add("expression", "is required: a cron expression such as 0 2 * * *")
        return {}
    try:
        parsed = cron.parse(expression, dialect="vixie" if dialect == "vixie" else "ocps", seed="")
    except cron.CronError as error:
        reader.add("expression", str(error))
        return {}
    if parsed.is_reboot:
        reader.add("expression", "@reboot is not about time: nothing here ever reboots")
    # People get back what they wrote, except where the dialect had to be translated.
    return {"expression": str(parsed) if dialect == "vixie" else " ".join(expression.split())}


def _interval(reader: Reader, zone: Zone) -> dict[str, Any]:
    unit, number = _every(reader)
    canonical: dict[str, Any] = {"every": number if unit == "seconds" else {unit: number}}
    anchor = reader.instant("anchor", zone)
    if anchor is not None:
        _put(canonical, "anchor", write_instant(anchor), write_instant(0) if unit == "seconds" else None)
    return canonical


def _every(reader: Reader) -> tuple[str, int]:
    """(unit, number) of `every`: "seconds", "days", "weeks" or "months"."""
    value = reader.take("every")
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip().upper())):
        date_number, date_unit, time_number, time_unit = match.groups()
        if date_unit:
            value = {_DURATION_UNITS[date_unit]: int(date_number)}
        else:
            value = {_TIME_UNITS[time_unit]: int(time_number)}
    if isinstance(value, Mapping) and len(value) == 1:
        unit, number = next(iter(value.items()))
    else:
        unit, number = "seconds", value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if unit not in UNITS or not isinstance(number, int) or isinstance(number, bool):
        reader.add(
            "every",
            "must be whole seconds, a duration of one unit such as PT5M or P1M, or an object of one unit such as "
            '{"months": 1}, of ' + ", ".join(UNITS),
        )
        return "seconds", 1
    if unit == "years":
        unit, number = "months", number * 12
    if UNITS[unit]:
        unit, number = "seconds", number * UNITS[unit]
    if not 1 <= number <= _LONGEST.get(unit, LAST_INSTANT):
        reader.add("every", "must be at least one second and at most a hundred years")
        return unit, 1
    return unit, number


def _once(reader: Reader, zone: Zone) -> dict[str, Any]:
    at = reader.instant("at", zone, required=True)
    return {} if at is None else {"at": write_instant(at)}


def _rrule(reader: Reader, zone: Zone) -> dict[str, Any]:
    rules = reader.take("rules")
    if isinstance(rules, list | tuple) and all(isinstance(line, str) for line in rules):
        rules = "\n".join(rules)
    if not isinstance(rules, str):
        reader.add("rules", "is required: lines such as DTSTART:20260105T090000 and RRULE:FREQ=WEEKLY;BYDAY=MO")
        return {}
    try:
        parse_rules(rules, zone)
    except RuleError as error:
        reader.add("rules", str(error))
        return {}
    return {"rules": canonical_rules(rules)}


def _solar(reader: Reader, zone: Zone) -> dict[str, Any]:
    return {
        "event": reader.choice("event", EVENTS, default=None),
        "latitude": reader.number("latitude", low=-90, high=90),
        "longitude": reader.number("longitude", low=-180, high=180),
    }


_READERS: Final = {"cron": _cron, "interval": _interval, "once": _once, "rrule": _rrule, "solar": _solar}
