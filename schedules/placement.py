"""Where the fires of a schedule may be moved to, and how a spec looks when they are. Pure.

What people allow stands in the schedule's metadata, under `placement`:

    {"placement": {"fixed": true}}                                    never propose to move it
    {"placement": {"max_shift": 1800}}                                by at most half an hour
    {"placement": {"window": {"from": "22:00", "to": "06:00"}}}       only within these hours, in the schedule's zone
    {"placement": {"after": ["nightly-load"]}}                        not before a fire of these schedules

A move is later by whole minutes and keeps what the timetable says about days: a cron expression moves within its
hour (or into the next ones of the same day where its hour is a single number), an interval moves its anchor. One-off,
RRULE and solar timetables say what they mean and are never moved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schedules.timing.spec_reading import write_instant
from schedules.timing.timetables import DAY
from scheduling_project.common.errors import InvalidInput

KEY: Final = "placement"
LONGEST_SHIFT: Final = DAY - 60
DEFAULT_SHIFT: Final = 59 * 60

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_LIST: Final = re.compile(r"\d{1,2}(,\d{1,2})*")
_STEP: Final = re.compile(r"(?:\*|0|0-59)/(\d{1,2})")


@dataclass(frozen=True, slots=True)
class Placement:
    """What may be moved. `window` are seconds of the local day (from, to); it may wrap around midnight."""

    fixed: bool = False
    max_shift: int = DEFAULT_SHIFT
    window: tuple[int, int] | None = None
    after: tuple[str, ...] = ()

    def allows(self, second_of_day: int) -> bool:
        """Whether a fire may lie at this second of the local day."""
        if self.window is None:
            return True
        begin, end = self.window
        return begin <= second_of_day <= end if begin <= end else second_of_day >= begin or second_of_day <= end


def placement_of(metadata: Mapping[str, Any]) -> Placement:
    """What a schedule's metadata say.

    Raises:
        InvalidInput: naming the member (`metadata.placement…`) and its rule.
    """
    given = metadata.get(KEY)
    if given is None:
        return Placement()
    problems: dict[str, list[str]] = {}
    if not isinstance(given, Mapping):
        raise InvalidInput(fields={f"metadata.{KEY}": ["must be an object with fixed, max_shift, window or after"]})
    for name in given.keys() - {"fixed", "max_shift", "window", "after"}:
        problems[f"metadata.{KEY}.{name}"] = ["is not one of fixed, max_shift, window, after"]
    fixed = given.get("fixed", False)
    if not isinstance(fixed, bool):
        problems[f"metadata.{KEY}.fixed"] = ["must be true or false"]
    shift = given.get("max_shift", DEFAULT_SHIFT)
    if isinstance(shift, bool) or not isinstance(shift, int) or not 0 <= shift <= LONGEST_SHIFT:
        problems[f"metadata.{KEY}.max_shift"] = [f"must be whole seconds from 0 to {LONGEST_SHIFT}"]
    after = given.get("after", [])
    if not isinstance(after, list) or not all(isinstance(name, str) for name in after):
        problems[f"metadata.{KEY}.after"] = ["must be a list of names of schedules"]
    window = _window(given.get("window"), problems)
    if problems:
        raise InvalidInput(fields=problems)
    return Placement(fixed, shift, window, tuple(after))


def _window(given: Any, problems: dict[str, list[str]]) -> tuple[int, int] | None:
    if given is None:
        return None
    ends = []
    for name in ("from", "to"):
        text = given.get(name) if isinstance(given, Mapping) else None
        match = _CLOCK.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            problems[f"metadata.{KEY}.window.{name}"] = ["must be a time of day such as 22:00"]
        else:
            ends.append(int(match[1]) * 3600 + int(match[2]) * 60)
    return (ends[0], ends[1]) if len(ends) == 2 else None


def moved(spec: Mapping[str, Any], minutes: int) -> dict[str, Any] | None:
    """The canonical spec with every fire `minutes` later, or None when that cannot be said.

    >>> moved({"timezone": "UTC", "timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}, 17)["timetables"]
    [{'kind': 'cron', 'expression': '17 2 * * *'}]
    """
    timetables = []
    for timetable in spec["timetables"]:
        later = _MOVES[timetable["kind"]](timetable, minutes) if timetable["kind"] in _MOVES else None
        if later is None:
            return None
        timetables.append(later)
    return {**spec, "timetables": timetables}


def _cron(timetable: Mapping[str, Any], minutes: int) -> dict[str, Any] | None:
    expression = moved_cron(timetable["expression"], minutes)
    return None if expression is None else {**timetable, "expression": expression}


def moved_cron(expression: str, minutes: int) -> str | None:
    """An expression that fires `minutes` later on the same days, or None when none does.

    >>> moved_cron("*/15 * * * *", 4), moved_cron("50 2 * * 1", 20), moved_cron("0 23 * * *", 60)
    ('4-59/15 * * * *', '10 3 * * 1', None)
    """
    fields = NICKNAMES.get(expression.strip().lower(), expression).split()
    if len(fields) not in (5, 6, 7):
        return None
    place = 0 if len(fields) == 5 else 1
    minute, hour = fields[place], fields[place + 1]
    if match := _STEP.fullmatch(minute):
        step = int(match[1])
        # Only where the step divides the hour do moved fires keep their distance.
        if not 0 < minutes < step <= 30 or 60 % step:
            return None if minutes else expression
        fields[place] = f"{minutes}-59/{step}"
    elif _LIST.fullmatch(minute):
        values = [int(value) + minutes for value in minute.split(",")]
        carried = {value // 60 for value in values}
        if carried != {0}:
            if len(carried) != 1 or not hour.isdecimal() or int(hour) + min(carried) > 23:
                return None
            fields[place + 1] = str(int(hour) + min(carried))
        fields[place] = ",".join(str(value % 60) for value in values)
    else:
        return None
    return " ".join(fields)


def _interval(timetable: Mapping[str, Any], minutes: int) -> dict[str, Any] | None:
    every = timetable["every"]
    if not isinstance(every, int):
        return None
    if minutes * 60 >= every:
        return None
    anchor = timetable.get("anchor")
    begin = 0 if anchor is None else _seconds(anchor)
    return {**timetable, "anchor": write_instant(begin + minutes * 60)}


def _seconds(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp())


_MOVES: Final = {"cron": _cron, "interval": _interval}
