"""How many instants all schedules have in a range of time, per bucket: what is coming, and when it comes at once.

It counts nominal instants of the schedules as they stand now, less what calendars and blackouts exclude. It does not
foresee what overlap policies will skip, nor jitter. Schedules are read in chunks, and the counts of those that share
a timing are made once, so neither memory nor time follows the number of schedules alone.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice, pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet

from schedules import versions
from schedules.models import Schedule
from schedules.states import PauseKind
from schedules.timing.local_times import local_day, start_of_day
from schedules.timing.occurrences import Timing
from schedules.timing.spec_reading import LAST_INSTANT
from schedules.timing.timetables import Interval
from schedules.timing.zones import UnknownZone, Zone, zone_of
from scheduling_project.common import clock
from scheduling_project.common.errors import InvalidInput

DAY: Final = 86_400
MOST_BUCKETS: Final = 5_000
LONGEST_SPAN: Final = 400 * DAY
#: Instants looked at one by one in a forecast: some ten seconds of work.
MOST_INSTANTS: Final = 60_000_000
#: Buckets, schedules and workflows that are named as the busiest.
BUSIEST: Final = 10
MOST_WORKFLOWS: Final = 200
CHUNK: Final = 500
#: Distinct timings whose counts are kept during one forecast.
KEPT: Final = 256
WIDTHS: Final = {"minute": 60, "hour": 3600}


@dataclass(frozen=True, slots=True)
class Range:
    """Buckets of [start, end), epoch seconds. `edges` are where buckets begin, then `end`."""

    start: int
    end: int
    edges: Sequence[int]

    def __len__(self) -> int:
        return len(self.edges) - 1


class Part(NamedTuple):
    """A schedule's share: `fires_from` on (epoch seconds), at most `remaining` instants after `counted_from`."""

    id: UUID
    name: str
    workflow_id: UUID
    queue: str
    timing: Timing
    fires_from: int
    counted_from: int
    remaining: int | None


@dataclass(slots=True)
class Forecast:
    """What is coming. `busiest` are (bucket's index, count); `peaks` (instant, count) in the busiest bucket."""

    range: Range
    zone: Zone
    counts: list[int]
    schedules: int = 0
    failed: int = 0
    by_workflow: Counter[tuple[UUID, str]] = field(default_factory=Counter)
    by_queue: Counter[str] = field(default_factory=Counter)
    top_schedules: list[tuple[int, str, str]] = field(default_factory=list)
    peaks: list[tuple[int, int]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def busiest(self) -> list[tuple[int, int]]:
        """The buckets with the most instants, the fullest first and of equals the earliest."""
        full = [(index, count) for index, count in enumerate(self.counts) if count]
        return heapq.nsmallest(BUSIEST, full, key=lambda each: (-each[1], each[0]))

    def as_dict(self) -> dict[str, Any]:
        """In the shape of the API; instants are aware UTC datetimes."""
        edges = [_instant(edge) for edge in self.range.edges]

        def bucket(index: int, count: int) -> dict[str, Any]:
            return {"start": edges[index], "end": edges[index + 1], "count": count}

        return {
            "from": edges[0],
            "to": edges[-1],
            "timezone": self.zone.name,
            "schedules": self.schedules,
            "failed": self.failed,
            "total": self.total,
            "buckets": [bucket(index, count) for index, count in enumerate(self.counts)],
            "busiest": [bucket(index, count) for index, count in self.busiest],
            "peaks": [{"at": _instant(at), "count": count} for at, count in self.peaks],
            "by_workflow": [
                {"workflow": key, "workflow_name": name, "count": count}
                for (key, name), count in self.by_workflow.most_common(MOST_WORKFLOWS)
            ],
            "by_queue": [{"queue": name, "count": count} for name, count in self.by_queue.most_common()],
            "by_schedule": [
                {"schedule": key, "name": name, "count": count} for count, name, key in sorted(self.top_schedules)[::-1]
            ],
        }


def buckets(start: int, end: int, bucket: str, zone: Zone, *, most: int = MOST_BUCKETS) -> Range:
    """The buckets of [`start`, `end`), epoch seconds.

    Args:
        bucket: `minute`, `hour`, `day`, or a number of minutes. Days begin at midnight in `zone`, the others at
            multiples of their width on its clock; the first and the last may be cut short.

    Raises:
        InvalidInput: naming `from`, `to` or `bucket`.
    """
    if not 0 <= start <= LAST_INSTANT:
        raise InvalidInput(fields={"from": ["must lie between 1970 and 2199"]})
    if end <= start:
        raise InvalidInput(fields={"to": ["must lie after from"]})
    if end - start > LONGEST_SPAN:
        raise InvalidInput(fields={"to": [f"must lie at most {LONGEST_SPAN // DAY} days after from"]})
    if bucket == "day":
        first, last = local_day(zone, start) + 1, local_day(zone, end - 1)
        inner = sorted({start_of_day(zone, day) for day in range(first, last + 1)})
        return Range(start, end, [start, *(edge for edge in inner if start < edge < end), end])
    width = WIDTHS.get(bucket, 0)
    if not width and bucket.isascii() and bucket.isdecimal() and 1 <= len(bucket) <= 5:
        width = int(bucket) * 60
    if not 60 <= width <= DAY:
        raise InvalidInput(fields={"bucket": ["must be minute, hour, day, or a number of minutes from 1 to 1440"]})
    shifted = start + zone.offset(start)
    first = start + width - shifted % width
    if (end - first) // width + 2 > most:
        raise InvalidInput(fields={"bucket": [f"makes more than {most} buckets: choose wider ones"]})
    return Range(start, end, [start, *range(first, end, width), end])


def count(timing: Timing, within: Range, *, after: int) -> tuple[list[int], int]:
    """Per bucket how many instants later than `after` fire, and how many were looked at one by one. Pure."""
    begin = max(after, within.start - 1)
    if _is_interval(timing):
        edges = [max(edge - 1, begin) for edge in within.edges]
        return [timing.count(low, high) for low, high in pairwise(edges)], len(edges)
    return count_instants(timing.fires(begin, within.end - 1), within)


def count_instants(instants: Iterator[int], within: Range) -> tuple[list[int], int]:
    """Per bucket how many of these ascending instants, all within the range, lie in it; and how many there are."""
    counts, edges = [0] * len(within), within.edges
    index, edge, seen, total = 0, edges[1], 0, 0
    for instant in instants:
        if instant >= edge:
            counts[index] += seen
            total += seen
            seen = 0
            index = bisect_right(edges, instant) - 1
            edge = edges[index + 1]
        seen += 1
    counts[index] += seen
    return counts, total + seen


def forecast(
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    bucket: str = "hour",
    timezone: str = "UTC",
    queryset: QuerySet[Schedule] | None = None,
    include_paused: bool = False,
    most: int = MOST_BUCKETS,
    now: datetime | None = None,
    using: str = "default",
) -> Forecast:
    """What the schedules of `queryset` (all of them when left out) have in [`start`, `end`).

    Args:
        start: now when left out. Instants before now are counted as the schedules stand now.
        end: a day after the start when left out.
        timezone: where days begin.
        include_paused: count what is paused as if it were not. Otherwise it counts from the end of its pause on,
            if that is known. What has ended or cannot be computed never counts.
        most: how many buckets there may be; their number times that of the timings is the time it takes.

    Raises:
        InvalidInput: naming `from`, `to`, `bucket` or `timezone`.
    """
    now = now or clock.now(using=using)
    try:
        zone = zone_of(timezone)
    except UnknownZone as error:
        raise InvalidInput(fields={"timezone": [str(error)]}) from None
    first = int((start or now).timestamp())
    last = first + DAY if end is None else int(end.timestamp())
    within = buckets(first, last, bucket, zone, most=most)
    found = Forecast(within, zone, [0] * len(within))
    chosen = Schedule.objects.using(using).all() if queryset is None else queryset.using(using)
    kept: versions.Recent[tuple[int, int], tuple[Timing, list[int]]] = versions.Recent(KEPT)
    looked_at = 0
    names: dict[UUID, str] = {}
    for part in parts(chosen, found, names, include_paused=include_paused, now=now, using=using):
        found.schedules += 1
        key = (id(part.timing), max(part.fires_from - 1, within.start - 1))
        if part.remaining is not None:
            instants, before = limited(part, within)
            counts, cost = count_instants(instants, within) if before <= MOST_INSTANTS else ([], 0)
            cost += before
        elif (known := kept.get(key)) is not None:
            counts, cost = known[1], len(within)
        else:
            counts, cost = count(part.timing, within, after=part.fires_from - 1)
            kept.put(key, (part.timing, counts))  # the timing is kept too, so that its id stays its own
        looked_at += cost
        if looked_at > MOST_INSTANTS:
            raise InvalidInput(fields={"to": ["makes too many instants to count: choose a shorter range"]})
        _add(found, part, names, counts)
    if found.busiest:
        found.peaks = _peaks(chosen, found, include_paused=include_paused, now=now, using=using)
    return found


def _add(found: Forecast, part: Part, names: dict[UUID, str], counts: Sequence[int]) -> None:
    share = sum(counts)
    if not share:
        return
    found.counts = [a + b for a, b in zip(found.counts, counts, strict=True)]
    found.by_workflow[part.workflow_id, names[part.workflow_id]] += share
    found.by_queue[part.queue] += share
    entry = (share, part.name, str(part.id))
    if len(found.top_schedules) < BUSIEST:
        heapq.heappush(found.top_schedules, entry)
    else:
        heapq.heappushpop(found.top_schedules, entry)


def _peaks(
    chosen: QuerySet[Schedule], found: Forecast, *, include_paused: bool, now: datetime, using: str
) -> list[tuple[int, int]]:
    """The fullest instants of the fullest bucket: at most a day of them is ever held."""
    index = found.busiest[0][0]
    low, high = found.range.edges[index], found.range.edges[index + 1]
    within = Range(low, high, [low, high])
    together: Counter[int] = Counter()
    shared: Counter[tuple[int, int]] = Counter()
    timings: dict[int, Timing] = {}
    scratch = Forecast(within, found.zone, [0])
    for part in parts(chosen, scratch, {}, include_paused=include_paused, now=now, using=using):
        if part.remaining is not None:
            together.update(limited(part, within)[0])
            continue
        timings[id(part.timing)] = part.timing
        shared[id(part.timing), max(part.fires_from, low)] += 1
        if len(shared) >= CHUNK:
            _spread(together, shared, timings, high)
    _spread(together, shared, timings, high)
    return heapq.nsmallest(BUSIEST, together.items(), key=lambda each: (-each[1], each[0]))


def _spread(together: Counter[int], shared: Counter[tuple[int, int]], timings: dict[int, Timing], high: int) -> None:
    """Add the instants of timings, each as often as it is shared, and forget these."""
    for (key, begin), times in shared.items():
        for instant in timings[key].fires(begin - 1, high - 1):
            together[instant] += times
    shared.clear()
    timings.clear()


def limited(part: Part, within: Range) -> tuple[Iterator[int], int]:
    """The instants in the range of a schedule that may start only so many more executions.

    Those up to now are not counted against them; those between now and the range are. Also returns how many of
    these had to be looked at.
    """
    begin = max(part.counted_from, part.fires_from)
    past = part.timing.fires(max(within.start, part.fires_from) - 1, min(part.counted_from, within.end) - 1)
    left, cost = part.remaining or 0, 0
    if left and begin < within.start:
        if _is_interval(part.timing):
            used = part.timing.count(begin - 1, within.start - 1)
        else:
            before = part.timing.fires(begin - 1, within.start - 1)
            used = cost = sum(1 for _ in islice(before, min(left, MOST_INSTANTS + 1)))
        left = max(0, left - used)
    ahead = part.timing.fires(max(begin, within.start) - 1, within.end - 1)
    return chain(past, islice(ahead, left)), cost


def _is_interval(timing: Timing) -> bool:
    """Whether its instants can be counted without looking at them."""
    return timing.days is None and timing.blackouts is None and isinstance(timing.base, Interval)


_FIELDS: Final = (
    "pk",
    "name",
    "workflow_id",
    "workflow__name",
    "queue",
    "version_id",
    "enabled",
    "paused_until",
    "max_executions",
    "started_count",
    "fired_through",
)


class _Row(NamedTuple):
    """What `versions.segments` reads of a schedule; a watermark at the end of time asks for the present version."""

    id: UUID
    version_id: UUID | None
    fired_through: int


def parts(
    chosen: QuerySet[Schedule],
    found: Forecast,
    names: dict[UUID, str],
    *,
    include_paused: bool,
    now: datetime,
    using: str,
) -> Iterator[Part]:
    """Each schedule that counts, in chunks of rows; `names` gets the names of the workflows met."""
    ended = Q(pause_kind__in=[PauseKind.FINISHED, PauseKind.ERROR])
    wanted = chosen.exclude(Q(enabled=False) & ended)
    if not include_paused:
        wanted = wanted.filter(Q(enabled=True) | Q(paused_until__lt=_instant(found.range.end)))
    wanted = wanted.order_by("pk").select_related(None)
    after: UUID | None = None
    while True:
        rows = list((wanted if after is None else wanted.filter(pk__gt=after)).values(*_FIELDS)[:CHUNK])
        keyed = [_Row(row["pk"], row["version_id"], LAST_INSTANT + DAY) for row in rows]
        failures: list[UUID] = []
        compiled = versions.segments(keyed, using=using, failed=lambda row, error: failures.append(row.id))  # noqa: B023
        segments = {key.id: chain for key, chain in compiled}
        found.failed += len(failures)
        for row in rows:
            if row["pk"] not in segments:
                continue
            names[row["workflow_id"]] = row["workflow__name"]
            most = row["max_executions"]
            waits = not row["enabled"] and not include_paused
            yield Part(
                id=row["pk"],
                name=row["name"],
                workflow_id=row["workflow_id"],
                queue=row["queue"] or settings.CELERY_TASK_DEFAULT_QUEUE,
                timing=segments[row["pk"]][-1].timing,
                fires_from=int(row["paused_until"].timestamp()) if waits else 0,
                counted_from=int(max(now, row["fired_through"]).timestamp()) + 1,
                remaining=None if most is None else max(0, most - row["started_count"]),
            )
        if len(rows) < CHUNK:
            return
        after = rows[-1]["pk"]


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
