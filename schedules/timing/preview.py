"""What a schedule will do, before it exists: description, next fires in local time and UTC, and warnings.

    >>> preview(spec_of("0 2 * * *", timezone="Europe/Berlin"), now=1_774_738_800, count=1).as_dict()["next"]
    [{'local': '2026-03-29T03:00:00+02:00', 'utc': '2026-03-29T01:00:00Z', 'change': 'moved'}]

(02:00 does not exist that night.) Pure: the caller passes `now`; the same answer serves the API, the admin and
commands. Bounded: at most MOST_FIRES fires are named, and rules that exclude everything answer without searching on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from schedules.timing import occurrences
from schedules.timing.cron.preview import Warned, mark_of
from schedules.timing.occurrences import Instant, SpecError, Timing
from schedules.timing.rrules import Recurrence
from schedules.timing.spec_reading import write_instant
from schedules.timing.timetables import CalendarInterval, CronTimetable, Merged, Timetable
from schedules.timing.warnings import warnings_about
from schedules.timing.zones import TZDATA_VERSION, Zone

MOST_FIRES: Final = 1_000
MOST_SKIPPED: Final = 20
_LOOKED_THROUGH: Final = 5_000
_HORIZON: Final = 1 << 40


class Fire(NamedTuple):
    """One fire: its instant, and what the clock did to it.

    `change` is empty, `moved` (the local time does not exist), or `first pass` or `second pass` of a local time
    that comes twice.
    """

    instant: Instant
    change: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a spec says. `skipped` are instants before the last fire that calendars or blackouts keep from firing."""

    timing: Timing
    spec: dict[str, Any]
    description: str
    fires: list[Fire]
    skipped: list[tuple[Instant, str]]
    warnings: list[Warned]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; local times have their offset, `due` is there only when it differs."""
        zone = self.timing.zone
        return {
            "description": self.description,
            "timezone": zone.name,
            "tzdata": TZDATA_VERSION,
            "spec": self.spec,
            "next": [_shown(fire, zone) for fire in self.fires],
            "skipped": [
                {"local": _local(instant.nominal, zone), "utc": write_instant(instant.nominal), "reason": reason}
                for instant, reason in self.skipped
            ],
            "warnings": [
                {
                    "code": warning.code,
                    "message": warning.message,
                    **({} if warning.at is None else {"at": write_instant(warning.at)}),
                }
                for warning in self.warnings
            ],
        }


def spec_of(expression: str, *, timezone: str = "UTC", dialect: str = "ocps") -> dict[str, Any]:
    """The spec of a cron expression alone, not yet checked."""
    timetable = {"kind": "cron", "expression": expression, "dialect": dialect}
    return {"timezone": timezone, "timetables": [timetable]}


def preview(spec: Mapping[str, Any], *, now: int, count: int = 10, seed: str = "") -> Preview:
    """What a spec says from `now` (epoch seconds) on, with the next `count` fires (at most MOST_FIRES).

    `seed` is the schedule's identity, from which jitter and `H` take their values. Raises SpecError.
    """
    canonical = occurrences.normalise(spec)
    timing = occurrences.compile(canonical, seed=seed)
    fires: list[Fire] = []
    position = now
    while len(fires) < min(count, MOST_FIRES) and (instant := timing.next_fire(position)) is not None:
        fires.append(Fire(instant, change_at(timing, instant.nominal)))
        position = instant.nominal
    return Preview(
        timing=timing,
        spec=canonical,
        description=timing.describe(),
        fires=fires,
        skipped=_skipped(timing, now, position if fires else _HORIZON),
        warnings=warnings_about(timing, now),
    )


def change_at(timing: Timing, nominal: int) -> str:
    """What a change of clocks did to an instant; see `Fire.change`."""
    for timetable in timing.timetables:
        for member in timetable.timetables if isinstance(timetable, Merged) else (timetable,):
            mark = _mark(member, nominal)
            if mark:
                return mark
    return ""


def _mark(timetable: Timetable, instant: int) -> str:
    if timetable.next_after(instant - 1) != instant:
        return ""
    if isinstance(timetable, CronTimetable):
        return mark_of(timetable.cron, timetable.zone, instant)
    if not isinstance(timetable, CalendarInterval | Recurrence):
        return ""
    zone = timetable.zone
    index = zone.window(instant)
    local = instant + zone.offsets[index]
    if index and local < zone.local_ends[index - 1]:
        return "second pass"
    if index + 1 < len(zone.starts) and local >= zone.local_starts[index + 1]:
        return "first pass"
    return "" if next(timetable.locals_between(local, local + 1), None) is not None else "moved"


def _skipped(timing: Timing, now: int, until: int) -> list[tuple[Instant, str]]:
    if timing.days is None and timing.blackouts is None:
        return []
    looked = islice(timing.between(now, until), _LOOKED_THROUGH)
    skipped = islice((instant for instant in looked if instant.skip), MOST_SKIPPED)
    return [(instant, timing.why_skipped(instant.nominal)) for instant in skipped]


def _shown(fire: Fire, zone: Zone) -> dict[str, Any]:
    nominal, due, _ = fire.instant
    shown = {"local": _local(nominal, zone), "utc": write_instant(nominal)}
    if due != nominal:
        shown["due"] = write_instant(due)
    if fire.change:
        shown["change"] = fire.change
    return shown


def _local(instant: int, zone: Zone) -> str:
    return datetime.fromtimestamp(instant, zone.tzinfo).isoformat()


__all__ = ["MOST_FIRES", "Fire", "Preview", "SpecError", "change_at", "preview", "spec_of"]
