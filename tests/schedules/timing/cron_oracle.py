"""A slow, obvious statement of when a schedule fires, to hold the engine against.

It asks `zoneinfo` for the wall clock of every single minute and keeps Vixie's virtual clock beside it: nothing is
shared with the engine but the parsed masks.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from schedules.timing.cron.fields import LAST_OCCURRENCE, LAST_WEEKDAY, Fields

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (the local clock itself)


def wall(instant: int, zone: ZoneInfo) -> datetime:
    """What the wall clock shows at a UTC second."""
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None)


def day_matches(fields: Fields, day: date) -> bool:
    """The day rules of the specification, one question at a time."""
    if not 1970 <= day.year <= 2199:
        return False
    if fields.years is not None and not fields.years >> (day.year - 1970) & 1:
        return False
    if not fields.months >> day.month & 1:
        return False
    last = (date(day.year + day.month // 12, day.month % 12 + 1, 1) - timedelta(days=1)).day
    by_date = bool(fields.days >> day.day & 1) or bool(fields.last_days >> (last - day.day) & 1)
    if fields.nearest:
        target = last if fields.nearest == LAST_WEEKDAY else fields.nearest
        if target <= last:
            weekdays = [d for d in range(1, last + 1) if date(day.year, day.month, d).isoweekday() < 6]
            closest = min(abs(d - target) for d in weekdays)
            candidates = [d for d in weekdays if abs(d - target) == closest]
            by_date = by_date or day.day == candidates[0]
    weekday = day.isoweekday() % 7
    nth = fields.nth >> (weekday * 8)
    by_weekday = (
        bool(fields.weekdays >> weekday & 1)
        or bool(nth >> ((day.day - 1) // 7 + 1) & 1)
        or (bool(nth >> LAST_OCCURRENCE & 1) and day.day + 7 > last)
    )
    if fields.dom_open or fields.dow_open or fields.both:
        return by_date and by_weekday
    return by_date or by_weekday


def clock_matches(fields: Fields, local: datetime) -> bool:
    """Whether the wall clock shows a matching time."""
    return bool(
        fields.hours >> local.hour & 1
        and fields.minutes >> local.minute & 1
        and fields.seconds >> local.second & 1
        and day_matches(fields, local.date())
    )


def fires(
    fields: Fields,
    zone: ZoneInfo,
    after: int,
    until: int,
    *,
    gap: str = "fire_at_end",
    overlap: str = "first",
    step: int = 60,
) -> list[int]:
    """The instants in (`after`, `until`], by looking at every `step` seconds; both must be multiples of it."""
    interval_like = fields.minute_star or fields.hour_star
    margin = 26 * 3600
    instants = range(after - margin, until + margin + 1, step)
    shown = [wall(instant, zone) for instant in instants]
    found = []
    virtual = shown[0]  # the furthest that the clock has shown
    for index, (instant, local) in enumerate(zip(instants, shown, strict=True)):
        lost = False
        if not interval_like and gap == "fire_at_end":
            missing = virtual + timedelta(seconds=step)
            while missing < local and not lost:
                lost = clock_matches(fields, missing)
                missing += timedelta(seconds=step)
        hit = clock_matches(fields, local)
        if hit and not interval_like and overlap == "first" and index:
            hit = local > virtual
        if hit and not interval_like and overlap == "last":
            hit = local not in shown[index + 1 : index + 1 + 90000 // step]
        if (hit or lost) and after < instant <= until:
            found.append(instant)
        virtual = max(virtual, local)
    return found


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """A UTC time as epoch seconds."""
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
