"""What fires when, for people: hours and days with how much they hold, the hot ones marked, and lists of fires.

A day's load is judged by its fullest moment, not by its sum: a hundred schedules spread over an hour harm nobody,
a hundred in one minute make each other wait. So each hour carries both: how many fires it has, and how many the
fullest minute in it has (of many schedules: the fullest quarter of an hour).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from math import ceil
from statistics import median
from typing import Final, NamedTuple

from django.db.models import QuerySet

from schedules.forecast import Forecast, forecast, limited, parts
from schedules.forecast import Range as Span
from schedules.models import Schedule
from schedules.timing.local_times import start_of_day
from schedules.timing.zones import Zone, zone_of
from scheduling_project.common import clock

LEVELS: Final = 5
#: Beyond so many schedules the fullest quarter of an hour is looked for in place of the fullest minute.
MANY: Final = 2_000
MOST_DAYS: Final = 42
MOST_BUCKETS: Final = MOST_DAYS * 1_440 + 10
#: Days that are looked at minute by minute.
FINE_DAYS: Final = 8
#: An hour is hot when its fullest moment has so many fires, and so many times those of a usual hour.
HOT: Final = 3
HOT_TIMES: Final = 1.5
MOST_HOT: Final = 12
LISTED: Final = 300


@dataclass(frozen=True, slots=True)
class Cell:
    """An hour of a day: its fires, and those of its fullest moment. `level`: 0 (nothing) to LEVELS (the fullest)."""

    day: date
    hour: int
    start: datetime
    total: int
    peak: int
    level: int = 0
    is_hot: bool = False


@dataclass(slots=True)
class Agenda:
    """Hours by day, from the first day on. `moment` is the width in which the fullest moment is looked for."""

    zone: Zone
    days: dict[date, dict[int, Cell]]
    moment: timedelta
    schedules: int
    failed: int
    hot: list[Cell] = field(default_factory=list)

    def total_of(self, day: date) -> int:
        return sum(cell.total for cell in self.days.get(day, {}).values())

    def peak_of(self, day: date) -> int:
        return max((cell.peak for cell in self.days.get(day, {}).values()), default=0)

    @property
    def total(self) -> int:
        return sum(self.total_of(day) for day in self.days)


class Listing(NamedTuple):
    """Fires of a range in order, (instant, schedule's id, its name), and how many there are in all."""

    fires: list[tuple[datetime, str, str]]
    total: int


def agenda(
    first: date,
    days: int,
    *,
    timezone: str = "UTC",
    queryset: QuerySet[Schedule] | None = None,
    now: datetime | None = None,
    using: str = "default",
) -> Agenda:
    """What fires on `days` days from `first` on in `timezone`; what is before `now` is left out.

    Raises:
        UnknownZone: `timezone` is none.
        ValueError: more than MOST_DAYS days, or none.
    """
    if not 1 <= days <= MOST_DAYS:
        raise ValueError(f"days must be 1 to {MOST_DAYS}")
    now = now or clock.now(using=using)
    start, end = max(midnight(first, timezone), now), midnight(first + timedelta(days=days), timezone)
    chosen = Schedule.objects.using(using).all() if queryset is None else queryset
    is_fine = days <= FINE_DAYS and chosen.order_by()[: MANY + 1].count() <= MANY
    moment = timedelta(minutes=1 if is_fine else 15)
    wanted = [first + timedelta(days=day) for day in range(days)]
    if start >= end:
        return Agenda(zone_of(timezone), {day: {} for day in wanted}, moment, 0, 0)
    bucket = str(int(moment.total_seconds() // 60))
    seen = forecast(
        start, end, bucket=bucket, timezone=timezone, queryset=chosen, most=MOST_BUCKETS, now=now, using=using
    )
    marked = mark(_cells(seen))
    found = Agenda(seen.zone, {day: {} for day in wanted}, moment, seen.schedules, seen.failed)
    for cell in marked:
        found.days.setdefault(cell.day, {})[cell.hour] = cell
    found.hot = sorted((cell for cell in marked if cell.is_hot), key=lambda cell: (-cell.peak, cell.start))
    return found


def midnight(day: date, timezone: str) -> datetime:
    """The first instant of a day in a zone (not always 00:00: some clocks jump at midnight).

    Raises:
        UnknownZone.
    """
    return datetime.fromtimestamp(start_of_day(zone_of(timezone), (day - date(1970, 1, 1)).days), UTC)


def _cells(seen: Forecast) -> list[Cell]:
    """The hours of a forecast in narrow buckets."""
    held: defaultdict[tuple[date, int], list[int]] = defaultdict(list)
    starts: dict[tuple[date, int], int] = {}
    for edge, count in zip(seen.range.edges, seen.counts, strict=False):
        local = datetime.fromtimestamp(edge, seen.zone.tzinfo)
        key = (local.date(), local.hour)
        starts.setdefault(key, edge)
        held[key].append(count)
    return [
        Cell(day, hour, datetime.fromtimestamp(starts[day, hour], UTC), sum(counts), max(counts))
        for (day, hour), counts in held.items()
    ]


def mark(cells: Iterable[Cell]) -> list[Cell]:
    """Cells with their level and whether they are hot. Pure.

    >>> hour = lambda at, peak: Cell(date(2026, 1, 1), at, datetime(2026, 1, 1, at, tzinfo=UTC), peak, peak)
    >>> [(cell.level, cell.is_hot) for cell in mark([hour(0, 1), hour(1, 2), hour(2, 10), hour(3, 0)])]
    [(1, False), (1, False), (5, True), (0, False)]
    """
    known = list(cells)
    fullest = max((cell.peak for cell in known), default=0)
    usual = median([cell.peak for cell in known if cell.peak] or [0])
    limit = max(HOT, HOT_TIMES * usual)
    over = sorted((cell for cell in known if cell.peak >= limit), key=lambda cell: (-cell.peak, cell.start))
    hot = {(cell.day, cell.hour) for cell in over[:MOST_HOT]}
    return [
        Cell(
            cell.day,
            cell.hour,
            cell.start,
            cell.total,
            cell.peak,
            level=ceil(LEVELS * cell.peak / fullest) if fullest else 0,
            is_hot=(cell.day, cell.hour) in hot,
        )
        for cell in known
    ]


def listing(
    start: datetime,
    end: datetime,
    *,
    timezone: str = "UTC",
    queryset: QuerySet[Schedule] | None = None,
    most: int = LISTED,
    now: datetime | None = None,
    using: str = "default",
) -> Listing:
    """The first `most` fires in [`start`, `end`), at most a day, and how many there are in all.

    Raises:
        InvalidInput: naming `from`, `to` or `timezone`.
    """
    now = now or clock.now(using=using)
    chosen = Schedule.objects.using(using).all() if queryset is None else queryset.using(using)
    seen = forecast(start, end, bucket="day", timezone=timezone, queryset=chosen, now=now, using=using)
    low, high = int(start.timestamp()), int(end.timestamp())
    within = Span(low, high, [low, high])
    scratch = Forecast(within, seen.zone, [0])
    kept: list[tuple[int, str, str]] = []  # negated instants: the latest of those kept is the one that gives way
    for part in parts(chosen, scratch, {}, include_paused=False, now=now, using=using):
        fires = (
            part.timing.fires(max(part.fires_from, low) - 1, high - 1)
            if part.remaining is None
            else limited(part, within)[0]
        )
        for instant in islice(fires, most):
            entry = (-instant, part.name, str(part.id))
            if len(kept) < most:
                heapq.heappush(kept, entry)
            elif entry > kept[0]:
                heapq.heapreplace(kept, entry)
            else:
                break
    ordered = sorted((-instant, name, key) for instant, name, key in kept)
    return Listing([(datetime.fromtimestamp(at, UTC), key, name) for at, name, key in ordered], seen.total)


def weeks(first: date) -> list[Sequence[date]]:
    """The weeks, Monday to Sunday, that a month's days lie in. Pure.

    >>> [str(week[0]) for week in weeks(date(2026, 2, 1))]
    ['2026-01-26', '2026-02-02', '2026-02-09', '2026-02-16', '2026-02-23']
    """
    begin = first - timedelta(days=first.weekday())
    found: list[Sequence[date]] = []
    while begin <= last_of_month(first):
        found.append([begin + timedelta(days=day) for day in range(7)])
        begin += timedelta(days=7)
    return found


def last_of_month(first: date) -> date:
    """The last day of the month that `first` begins."""
    following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
    return following - timedelta(days=1)
