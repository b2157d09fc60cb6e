"""Which row of django-celery-beat comes nearest to a schedule's spec. Pure.

Stock beat then sends `schedules.fire` for the schedule at the row's times. The row may wake more often than the
schedule fires (nothing is due then), and where no row is exact, the safety net of every second makes up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from celery.schedules import ParseException, crontab_parser

MINUTELY = ("*", "*", "*", "*", "*")
SOLAR_EVENTS = frozenset(
    {"dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon", "sunset"}
    | {"dusk_civil", "dusk_nautical", "dusk_astronomical"}
)


class Row(NamedTuple):
    """A timetable row: its kind (`crontab`, `interval`, `clocked`, `solar`) and its columns."""

    kind: str
    columns: tuple[tuple[str, Any], ...]


def nearest(spec: Mapping[str, Any]) -> Row:
    """The row for a canonical spec.

    >>> nearest({"timezone": "UTC", "timetables": [{"kind": "interval", "every": 300}]}).kind
    'crontab'
    """
    zone = spec["timezone"]
    timetables = spec["timetables"]
    moved = spec.get("jitter") or spec.get("blackouts") or (spec.get("calendars") or {}).get("shift")
    if len(timetables) != 1 or moved:
        return _crontab(MINUTELY, zone)
    (timetable,) = timetables
    match timetable["kind"]:
        case "cron":
            return _cron(timetable["expression"], zone)
        case "interval":
            return _interval(timetable, zone)
        case "once":
            return Row("clocked", (("clocked_time", datetime.fromisoformat(timetable["at"])),))
        case "solar" if timetable["event"] in SOLAR_EVENTS:
            place = (("latitude", timetable["latitude"]), ("longitude", timetable["longitude"]))
            return Row("solar", (("event", timetable["event"]), *place))
    return _crontab(MINUTELY, zone)


def _crontab(fields: tuple[str, str, str, str, str], zone: str) -> Row:
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    return Row("crontab", (*zip(names, fields, strict=True), ("timezone", zone)))


def _cron(expression: str, zone: str) -> Row:
    fields = expression.split()
    if len(fields) not in (5, 6, 7):  # a nickname
        return _crontab(_NICKNAMES.get(expression.lower(), MINUTELY), zone)
    minute, hour, day, month, weekday = fields if len(fields) == 5 else fields[1:6]
    if day not in ("*", "?") and weekday not in ("*", "?"):
        day = weekday = "*"  # cron means either, Celery's crontab means both
    wide = (
        _field(minute, 60, 0),
        _field(hour, 24, 0),
        _field(day, 31, 1),
        _field(month, 12, 1),
        _field(weekday, 7, 0),
    )
    return _crontab(wide, zone)


_NICKNAMES = {
    "@yearly": ("0", "0", "1", "1", "*"),
    "@annually": ("0", "0", "1", "1", "*"),
    "@monthly": ("0", "0", "1", "*", "*"),
    "@weekly": ("0", "0", "*", "*", "0"),
    "@daily": ("0", "0", "*", "*", "*"),
    "@midnight": ("0", "0", "*", "*", "*"),
    "@hourly": ("0", "*", "*", "*", "*"),
}


def _field(text: str, most: int, least: int) -> str:
    """The field if Celery's parser understands it alike, else `*`, which is never too narrow."""
    if not all(character.isalnum() or character in "*,-/" for character in text):
        return "*"
    try:
        crontab_parser(most, least).parse(text.lower())
    except (ParseException, ValueError, KeyError):
        return "*"
    return text.lower()


def _interval(timetable: Mapping[str, Any], zone: str) -> Row:
    every, anchor = timetable["every"], timetable.get("anchor")
    if isinstance(every, int):
        if anchor is None and every % 60 == 0 and 3600 % every == 0:
            return _crontab((_step(every // 60, 60), "*", "*", "*", "*"), "UTC")
        if anchor is None and every % 3600 == 0 and 86_400 % every == 0:
            return _crontab(("0", _step(every // 3600, 24), "*", "*", "*"), "UTC")
        return Row("interval", (("every", every), ("period", "seconds")))
    minute = hour = 0
    if anchor is not None:
        local = datetime.fromisoformat(anchor).astimezone(ZoneInfo(zone))
        minute, hour = local.minute, local.hour
    return _crontab((str(minute), str(hour), "*", "*", "*"), zone)


def _step(number: int, whole: int) -> str:
    return "*" if number == 1 else "0" if number == whole else f"*/{number}"
