"""Blackout windows: times in which a schedule must not fire.

    {"kind": "once", "from": "2026-12-24T12:00:00Z", "until": "2026-12-27T00:00:00Z", "action": "postpone"}
    {"kind": "weekly", "days": ["fri"], "from": "18:00", "length": 216000}

A window includes its beginning, not its end. `skip` drops what falls into it; `postpone` lets the last fire of the
window run at its end and drops the earlier ones. Weekly windows are read on the schedule's local clock.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from schedules.timing.calendars import WEEKDAYS, read_weekdays
from schedules.timing.local_times import FIRE_AT_END, instants_of
from schedules.timing.spec_reading import Reader, read_instant, write_instant
from schedules.timing.timetables import DAY
from schedules.timing.zones import Zone

ACTIONS: Final = ("skip", "postpone")
MOST_WINDOWS: Final = 100
WEEK: Final = 7 * DAY
_MONDAY: Final = 4 * DAY  # 1970-01-05
_MOST_STEPS: Final = 1_000
_CLOCK: Final = re.compile(r"(?:([A-Za-z]{3,9})\s+)?(\d{1,2}):(\d{2})", re.ASCII)


class Hit(NamedTuple):
    """An instant lies in a blackout.

    `end` is when all windows around it are over; None when one of them drops it, or when they never end.
    """

    end: int | None


class Once(NamedTuple):
    """One window, in epoch seconds [start, end)."""

    start: int
    end: int
    action: str

    def end_after(self, instant: int) -> int | None:
        """The end of the window in which an instant lies, or None when it lies in none."""
        return self.end if self.start <= instant < self.end else None

    def began(self, instant: int) -> int | None:
        """The beginning of the window in which an instant lies, or None."""
        return self.start if self.start <= instant < self.end else None


class Weekly(NamedTuple):
    """A window of each week on the local clock: it begins `start` seconds after Monday 00:00."""

    start: int
    length: int
    action: str
    zone: Zone

    def end_after(self, instant: int) -> int | None:
        into = self._into(instant)
        if into >= self.length:
            return None
        local = instant + self.zone.offset(instant) - into + self.length
        ends = instants_of(self.zone, local, gap=FIRE_AT_END, overlap="both")
        return next((end for end in ends if end > instant), instant + 1)

    def began(self, instant: int) -> int | None:
        into = self._into(instant)
        if into >= self.length:
            return None
        # On the local clock; a change of clocks within the window may put this earlier than it was, never later.
        return instant - into - DAY

    def next_start(self, after: int) -> int:
        """The first beginning of the window strictly after an instant."""
        local = after + self.zone.offset(after) - self._into(after)
        return next(
            start
            for week in range(3)  # a change of clocks may put this week's beginning behind, and swallow the next
            for start in instants_of(self.zone, local + week * WEEK, gap=FIRE_AT_END, overlap="both")
            if start > after
        )

    def _into(self, instant: int) -> int:
        """Seconds on the local clock since the window last began."""
        return (instant + self.zone.offset(instant) - _MONDAY - self.start) % WEEK


class Blackouts:
    """All windows of a schedule."""

    def __init__(self, windows: Sequence[Once | Weekly]) -> None:
        self._weekly = [window for window in windows if isinstance(window, Weekly)]
        self._once = sorted(window for window in windows if isinstance(window, Once))
        self._starts = [window.start for window in self._once]
        #: The weekly windows leave no gap: nothing ever fires.
        self.never_ends = _covers_the_week(self._weekly)

    def at(self, instant: int) -> Hit | None:
        """What the windows say about an instant; None when it lies in none."""
        found = self._around(instant)
        if not found:
            return None
        if self.never_ends or any(action == "skip" for _, action in found):
            return Hit(None)
        end = instant
        while found:
            end = max(until for until, _ in found)
            found = self._around(end)
        return Hit(end)

    def next_start(self, after: int) -> int | None:
        """The first beginning of a window strictly after an instant."""
        index = bisect_right(self._starts, after)
        starts = [window.next_start(after) for window in self._weekly]
        return min((*starts, *self._starts[index : index + 1]), default=None)

    def skips_until(self, instant: int) -> int:
        """The end of the windows that drop an instant: none before it may fire."""
        return max((end for end, action in self._around(instant) if action == "skip"), default=instant + 1)

    def began(self, instant: int) -> int | None:
        """The beginning of the windows, one after the other, in which an instant lies; None when in none."""
        earliest = None
        for _ in range(_MOST_STEPS):
            windows: list[Once | Weekly] = [*self._weekly, *self._once]
            starts = [start for window in windows if (start := window.began(instant)) is not None]
            if not starts or instant < 0:
                break
            earliest = min(starts)
            instant = earliest - 1
        return earliest

    def _around(self, instant: int) -> list[tuple[int, str]]:
        """(end, action) of the windows in which an instant lies."""
        candidates: list[Once | Weekly] = [*self._weekly, *self._once[: bisect_right(self._starts, instant)]]
        return [(end, window.action) for window in candidates if (end := window.end_after(instant)) is not None]


def _covers_the_week(windows: Sequence[Weekly]) -> bool:
    """Whether weekly windows leave no gap between them."""
    spans = sorted((window.start, window.start + window.length) for window in windows)
    reached = max((end - WEEK for _, end in spans), default=0)
    for start, end in spans:
        if start > max(reached, 0):
            return False
        reached = max(reached, end)
    return reached >= WEEK


def normalise_blackouts(reader: Reader, zone: Zone) -> list[dict[str, Any]]:
    """The canonical windows of a spec's `blackouts`."""
    canonical = []
    for index, entry in enumerate(reader.items("blackouts", most=MOST_WINDOWS)):
        member = Reader(entry, f"blackouts.{index}", reader.problems)
        if not isinstance(entry, Mapping):
            continue
        written = str(entry.get("from", ""))
        kind = member.choice("kind", ("once", "weekly"), default="weekly" if _CLOCK.fullmatch(written) else "once")
        action = member.choice("action", ACTIONS, default=ACTIONS[0])
        window = _weekly(member) if kind == "weekly" else _once(member, zone)
        member.finish()
        canonical.append({"kind": kind, **window, "action": action})
    return canonical


def _once(reader: Reader, zone: Zone) -> dict[str, Any]:
    start = reader.instant("from", zone, required=True)
    end = reader.instant("until", zone, required=True)
    if start is None or end is None:
        return {}
    if end <= start:
        reader.add("until", "must lie after the beginning")
    return {"from": write_instant(start), "until": write_instant(end)}


def _weekly(reader: Reader) -> dict[str, Any]:
    """`from` and `until` as "fri 18:00" and "mon 06:00", or as times of day with `days`; or `from` with `length`."""
    start = _clock(reader, "from")
    if start is None:
        for name in ("until", "days", "length"):
            reader.take(name)  # what they mean depends on the beginning
        return {}
    day, time = start
    days = [WEEKDAYS[day]] if day is not None else read_weekdays(reader, "days")
    if reader.take("length") is not None:
        length = reader.integer("length", low=60, high=WEEK - 60, default=60)
    else:
        end = _clock(reader, "until")
        if end is None:
            return {}
        if end[0] is None:
            length = (end[1] - time) % DAY or DAY
        elif day is None:
            reader.add("until", "must be a time of day, as the beginning is")
            return {}
        else:
            length = ((end[0] - day) * DAY + end[1] - time) % WEEK
            if not length:
                reader.add("until", "must not be the beginning itself")
    return {"days": days, "from": f"{time // 3600:02d}:{time // 60 % 60:02d}", "length": length}


def _clock(reader: Reader, name: str) -> tuple[int | None, int] | None:
    """(weekday or None, second of the day) of a text such as "fri 18:00" or "18:00"; 24:00 is the day's end."""
    value = reader.take(name)
    match = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    weekday = (match[1] or "").lower()[:3] if match else ""
    second = int(match[2]) * 3600 + int(match[3]) * 60 if match else -1
    if match is None or (weekday and weekday not in WEEKDAYS) or int(match[3]) > 59 or second > DAY:
        reader.add(name, "must be a local time such as 18:00, or a weekday and time such as fri 18:00")
        return None
    day = WEEKDAYS.index(weekday) if weekday else None
    if second == DAY:
        return (None if day is None else (day + 1) % 7), 0
    return day, second


def compile_blackouts(windows: Sequence[Mapping[str, Any]], zone: Zone) -> Blackouts | None:
    """The windows of a canonical spec; None when there are none."""
    found: list[Once | Weekly] = []
    for window in windows:
        if window["kind"] == "once":
            found.append(
                Once(read_instant(window["from"], zone), read_instant(window["until"], zone), window["action"])
            )
            continue
        hour, minute = window["from"].split(":")
        for day in window["days"]:
            start = WEEKDAYS.index(day) * DAY + int(hour) * 3600 + int(minute) * 60
            found.append(Weekly(start, window["length"], window["action"], zone))
    return Blackouts(found) if found else None
