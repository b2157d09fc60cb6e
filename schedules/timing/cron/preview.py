"""What a cron schedule will do, for the people who write it: its next fires, and what may surprise them.

Pure: the caller passes `now` and shows the values, on a terminal or through the API.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple

from schedules.timing.cron.expression import Cron
from schedules.timing.cron.fields import ALL_HOURS, Fields
from schedules.timing.cron.instants import Gap, Overlap
from schedules.timing.cron.search import search_of
from schedules.timing.cron.text import starred, values_of
from schedules.timing.zones import Transition, Zone

YEAR: Final = timedelta(days=366)
_NAMED: Final = 3  # so many lost or repeated times are named one by one


class Fire(NamedTuple):
    """One fire: the UTC second, and what the clock did to it.

    `mark` is empty, `moved` (the local time does not exist, so it fires at the gap's end), or `first pass` or
    `second pass` of a local time that comes twice.
    """

    instant: int
    mark: str


class Warned(NamedTuple):
    """Something that may surprise: a stable `code`, a sentence, and for a clock change its UTC second."""

    code: str
    message: str
    at: int | None = None


def next_fires(
    cron: Cron, zone: Zone, *, after: int, count: int, gap: Gap = "fire_at_end", overlap: Overlap = "first"
) -> list[Fire]:
    """The next `count` fires after a UTC second; fewer when the schedule ends before."""
    fires: list[Fire] = []
    instant = cron.next_epoch(after, zone, gap=gap, overlap=overlap)
    while instant is not None and len(fires) < count:
        fires.append(Fire(instant, mark_of(cron, zone, instant)))
        instant = cron.next_epoch(instant, zone, gap=gap, overlap=overlap)
    return fires


def mark_of(cron: Cron, zone: Zone, instant: int) -> str:
    """What the clock did to a fire at this UTC second; see `Fire.mark`."""
    index = zone.window(instant)
    local = instant + zone.offsets[index]
    if index and local < zone.local_ends[index - 1]:
        return "second pass"
    if index + 1 < len(zone.starts) and local >= zone.local_starts[index + 1]:
        return "first pass"
    if cron.fields is not None and not cron.is_interval_like and instant == zone.starts[index]:
        search = search_of(cron.fields)
        if search.next(local - 1) != local:
            return "moved"
    return ""


def warnings_about(
    cron: Cron,
    zone: Zone,
    *,
    now: datetime,
    within: timedelta = YEAR,
    gap: Gap = "fire_at_end",
    overlap: Overlap = "first",
) -> list[Warned]:
    """What may surprise the author of this schedule; clock changes are looked up for `within` from `now`."""
    if cron.fields is None:
        return [Warned("reboot", "Fires when the system starts, never by the clock.")]
    if cron.is_never:
        return [Warned("never", "Never fires: no date from 1970 to 2199 matches.")]
    second = int(now.timestamp())
    if cron.next_epoch(second, zone, gap=gap, overlap=overlap) is None:
        return [Warned("ended", "Does not fire again: every matching date lies in the past.")]
    until = second + int(within.total_seconds())
    return [
        *_about_fields(cron.fields, str(cron)),
        *clock_changes(cron, zone, after=second, until=until, gap=gap, overlap=overlap),
    ]


def _about_fields(fields: Fields, text: str) -> Iterator[Warned]:
    """Surprises that lie in the expression itself."""
    if not (fields.dom_open or fields.dow_open or fields.both):
        weekday = text.split()[4 if len(text.split()) == 5 else 5]
        yield Warned(
            "either_day",
            "Day of month and day of week are both restricted: it fires when either matches. "
            f"Write +{weekday} to require both.",
        )
    per_minute = fields.seconds.bit_count()
    if per_minute > 1:
        per_day = per_minute * fields.minutes.bit_count() * fields.hours.bit_count()
        yield Warned("sub_minute", f"Fires {per_minute} times in each matching minute, {per_day:,} times a day.")
    for name, mask, size, star in (
        ("minute", fields.minutes, 60, fields.minute_star),
        ("hour", fields.hours, 24, fields.hour_star),
    ):
        step = starred(mask, 0, size - 1, star=star).removeprefix("*/")
        if star and step.isdigit() and 1 < int(step) < size and size % int(step):
            last = values_of(mask)[-1]
            yield Warned(
                "uneven_step",
                f"The {name} step of {step} starts over at 0: after {name} {last} it waits only {size - last}.",
            )
    days = values_of(fields.days)
    if days and days[0] > 28 and not (fields.last_days or fields.nearest or not fields.dow_open):
        yield Warned("short_month", f"Months without a day {days[0]} are passed over; L is the last day of any month.")


def clock_changes(
    cron: Cron,
    zone: Zone,
    *,
    after: int,
    until: int,
    gap: Gap = "fire_at_end",
    overlap: Overlap = "first",
) -> list[Warned]:
    """The clock changes in (`after`, `until`] that touch this schedule, and what it will do."""
    if cron.fields is None:
        return []
    if cron.is_interval_like and cron.fields.hours == ALL_HOURS:
        return []  # follows real time all day long: nothing to see
    found = []
    for change in zone.transitions(after, until):
        touched = _touched(cron.fields, change)
        if touched:
            code = "gap" if change.is_gap else "overlap"
            found.append(Warned(code, _what_happens(cron, change, touched, gap, overlap), change.at))
    return found


def _touched(fields: Fields, change: Transition) -> list[int]:
    """The matching local seconds that are missing or come twice, at most one more than are named."""
    first, end = change.missing_or_repeated
    return list(islice(search_of(fields).between(first - 1, end - 1), _NAMED + 1))


def _what_happens(cron: Cron, change: Transition, touched: list[int], gap: str, overlap: str) -> str:
    day = datetime.fromtimestamp(change.at + change.before, UTC).strftime("%Y-%m-%d")
    begins, ends = change.missing_or_repeated
    dated = begins // 86400 != (ends - 1) // 86400 or ends - begins >= 86400  # a jump over midnight, or over a day
    times = [_clock(local, dated) for local in touched[:_NAMED]]
    what = ", ".join(times) + (" and more" if len(touched) > _NAMED else "")
    first, end = _clock(begins, dated), _clock(ends, dated)
    many = len(touched) > 1
    if change.is_gap:
        told = f"{day}: the clock jumps from {first} to {end}; {what} {'do' if many else 'does'} not exist"
        if cron.is_interval_like or gap == "skip":
            return f"{told}: no fire."
        return f"{told}: fires {'once, ' if many else ''}at {end}."
    told = f"{day}: the clock goes back from {end} to {first}; {what} {'come' if many else 'comes'} twice"
    if cron.is_interval_like or overlap == "both":
        return f"{told}: fires in both passes."
    return f"{told}: fires in the {overlap} pass only."


def _clock(local: int, dated: bool) -> str:
    shown = datetime.fromtimestamp(local, UTC)
    time = shown.strftime("%H:%M:%S" if shown.second else "%H:%M")
    return f"{shown:%Y-%m-%d} {time}" if dated else time
