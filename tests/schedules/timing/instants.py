"""Shared by the tests of timetables: instants as people write them, and a check that all views of a timetable agree."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

from schedules.timing.spec_reading import LAST_INSTANT
from schedules.timing.timetables import Timetable
from schedules.timing.zones import zone_of

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (the local clock itself)
UTC_ZONE = zone_of("UTC")
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Asia/Kathmandu",
]


def at(text: str, zone: str = "UTC") -> int:
    """Epoch seconds of a local ISO time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def shown(instants: list[int], zone: str = "UTC") -> list[str]:
    return [datetime.fromtimestamp(instant, ZoneInfo(zone)).isoformat() for instant in instants]


def first(timetable: Timetable, after: int, number: int) -> list[int]:
    return list(islice(timetable.between(after, LAST_INSTANT), number))


def check_coherent(timetable: Timetable, after: int, until: int) -> None:
    """`next_after` is strictly later, and repeating it gives `between` and `count`."""
    repeated = []
    position: int | None = after
    while (position := timetable.next_after(position)) is not None and position <= until:  # type: ignore[arg-type]
        assert position > (repeated[-1] if repeated else after)
        repeated.append(position)
    assert list(timetable.between(after, until)) == repeated
    assert timetable.count(after, until) == len(repeated)
