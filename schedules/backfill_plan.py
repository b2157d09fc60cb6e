"""What a backfill is asked to do, checked; which instants that is; what it would cost.

Instants are epoch seconds. A backfill takes each instant from the version that was in force then, and leaves out what
that version's calendars and blackouts keep from firing, unless it is told to ignore them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from statistics import median
from typing import Any
from uuid import UUID

from execution import definitions, plans, queues
from execution import priority as priorities
from execution.graph import WORKER_KINDS, Plan
from execution.models import Execution, Pool
from execution.states import ExecutionState
from schedules import claims
from schedules.due import Segment
from schedules.models import Schedule, ScheduleFire, ScheduleVersion
from schedules.states import BackfillOrder, FireOutcome
from schedules.timing import occurrences
from scheduling_project.common.errors import Conflict, InvalidInput

#: Instants that a backfill may have in all.
MOST = 100_000
#: A backfill's priority by default: so much lower than the schedule's.
LOWER = 3
#: Outcomes of an instant that is no gap.
RAN = (FireOutcome.STARTED.value, FireOutcome.BUFFERED.value)
#: Latest executions whose durations tell how long one usually takes.
SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """A backfill as asked for, checked. `until` lies at or before the watermark of the schedule."""

    schedule: Schedule
    since: datetime
    until: datetime
    gaps_only: bool = True
    ignore_calendars: bool = False
    order: str = BackfillOrder.OLDEST.value
    priority: int = priorities.LOWEST
    max_running: int = 1
    per_minute: int | None = None
    input: Mapping[str, Any] | None = None

    @property
    def span(self) -> tuple[int, int]:
        """(after, until]: the range as instants."""
        return math.ceil(self.since.timestamp()) - 1, math.floor(self.until.timestamp())


@dataclass(frozen=True, slots=True)
class Counted:
    """Instants of a range. `wanted` are to start; `excluded` by calendars or blackouts; `ran` started before."""

    wanted: int
    excluded: int
    ran: int
    first: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class Share:
    """What a backfill takes of a queue's or pool's slots while it runs. `slots`: how many there are at present.

    `share` is None where there are no slots (no living worker serves the queue, say).
    """

    name: str
    steps: tuple[str, ...]
    used: int
    slots: int

    @property
    def share(self) -> float | None:
        return min(1.0, round(self.used / self.slots, 3)) if self.slots else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a backfill would do and cost.

    `run_seconds` is the median duration of the latest successful executions of the schedule, None without any;
    `seconds` how long the backfill takes at least, by that, its bound and its rate. `step_runs` counts the steps that
    workers perform, before retries and fan-out.
    """

    since: datetime
    until: datetime
    instants: int
    excluded: int
    ran: int
    first: datetime | None
    last: datetime | None
    priority: int
    max_running: int
    per_minute: int | None
    seconds: float | None
    run_seconds: float | None
    step_runs: int
    queues: list[Share] = field(default_factory=list)
    pools: list[Share] = field(default_factory=list)


def check(
    schedule: Schedule,
    *,
    since: datetime,
    until: datetime,
    gaps_only: bool = True,
    ignore_calendars: bool = False,
    order: str = BackfillOrder.OLDEST,
    priority: Any = None,
    max_running: int = 1,
    per_minute: int | None = None,
    input: Mapping[str, Any] | None = None,
) -> Wanted:
    """What is asked for, if it can be done.

    Raises:
        InvalidInput: with a rule per field.
        Conflict: the workflow has no published version.
    """
    problems: dict[str, list[str]] = {}
    level = priorities.LOWEST
    if order not in BackfillOrder.values:
        problems["order"] = [f"must be one of {', '.join(BackfillOrder.values)}"]
    try:
        level = min(schedule.priority + LOWER, level) if priority is None else priorities.parse(priority)
    except ValueError as error:
        problems["priority"] = [str(error)]
    if until < since:
        problems["until"] = ["must not lie before the start of the range"]
    elif since > schedule.fired_through:
        problems["since"] = ["lies in the future of the schedule: those instants fire by themselves"]
    if max_running < 1:
        problems["max_running"] = ["must be at least 1"]
    if per_minute is not None and per_minute < 1:
        problems["per_minute"] = ["must be at least 1"]
    if problems:
        raise InvalidInput(fields=problems)
    if schedule.workflow.published is None:
        raise Conflict("The workflow has no published version.")
    if input is not None:
        definitions.validate_input(schedule.workflow.published, input)
    end = min(until, schedule.fired_through)
    return Wanted(schedule, since, end, gaps_only, ignore_calendars, str(order), level, max_running, per_minute, input)


def segments_of(schedule: Schedule, *, using: str) -> list[Segment]:
    """All versions; the first one also speaks for the time before the schedule was made.

    Raises:
        ValueError, KeyError, TypeError: a version cannot be computed (changed by hand, or by another release).
    """
    rows = list(ScheduleVersion.objects.using(using).filter(schedule=schedule).order_by("number"))
    ends: list[int | None] = [int(version.effective_from.timestamp()) for version in rows[1:]]
    return [
        Segment(v.pk, occurrences.compile(v.spec, seed=str(schedule.pk)), until)
        for v, until in zip(rows, [*ends, None], strict=True)
    ]


def spans(segments: Sequence[Segment], after: int, until: int) -> Iterator[tuple[Segment, int, int]]:
    """Each version with the part of (`after`, `until`] for which it speaks."""
    position = after
    for segment in segments:
        stop = until if segment.until is None else min(until, segment.until)
        if position < stop:
            yield segment, position, stop
            position = stop


def instants(
    segments: Sequence[Segment], after: int, until: int, *, ignore_calendars: bool
) -> Iterator[tuple[int, UUID]]:
    """The instants in (`after`, `until`] that a backfill is about, in order, with their version."""
    for segment, start, stop in spans(segments, after, until):
        if ignore_calendars:
            for instant in segment.timing.between(start, stop):
                yield instant.nominal, segment.version_id
        else:
            for nominal in segment.timing.fires(start, stop):
                yield nominal, segment.version_id


def count(wanted: Wanted, *, using: str) -> Counted:
    """Count the instants that the backfill is to start.

    Raises:
        InvalidInput: there are more than `MOST`.
    """
    after, until = wanted.span
    segments = segments_of(wanted.schedule, using=using)
    every = sum(segment.timing.count(start, stop) for segment, start, stop in spans(segments, after, until))
    excluding = not wanted.ignore_calendars and any(
        s.timing.days is not None or s.timing.blackouts is not None for s in segments
    )
    if every > MOST and not excluding:
        raise _too_many(f"{every:,}")
    found = instants(segments, after, until, ignore_calendars=wanted.ignore_calendars)
    eligible = [nominal for nominal, _ in islice(found, MOST + 1)]
    if len(eligible) > MOST:
        raise _too_many(f"more than {MOST:,}")
    ran = _ran(wanted, using)
    chosen = [nominal for nominal in eligible if nominal not in ran] if wanted.gaps_only else eligible
    return Counted(
        wanted=len(chosen),
        excluded=every - len(eligible),
        ran=sum(nominal in ran for nominal in eligible),
        first=chosen[0] if chosen else None,
        last=chosen[-1] if chosen else None,
    )


def estimate(wanted: Wanted, *, using: str = "default") -> Estimate:
    """What the backfill would do and cost. Reads only.

    Raises:
        InvalidInput: the range holds too many instants.
    """
    counted = count(wanted, using=using)
    usual = _usual_seconds(wanted.schedule, using)
    published = wanted.schedule.workflow.published
    assert published is not None  # `check` has seen to it
    plan = plans.plan_of(published)
    at_once = min(wanted.max_running, counted.wanted)
    bounds = [math.ceil(counted.wanted / wanted.max_running) * usual] if usual is not None else []
    if wanted.per_minute is not None:
        bounds.append((math.ceil(counted.wanted / wanted.per_minute) - 1) * 60.0 if counted.wanted else 0.0)
    return Estimate(
        since=wanted.since,
        until=wanted.until,
        instants=counted.wanted,
        excluded=counted.excluded,
        ran=counted.ran,
        first=None if counted.first is None else moment(counted.first),
        last=None if counted.last is None else moment(counted.last),
        priority=wanted.priority,
        max_running=wanted.max_running,
        per_minute=wanted.per_minute,
        seconds=max(bounds) if bounds else None,
        run_seconds=usual,
        step_runs=counted.wanted * sum(step.kind in WORKER_KINDS for step in plan.steps.values()),
        queues=_queue_shares(plan, wanted.schedule, at_once, using),
        pools=_pool_shares(plan, at_once, using),
    )


def moment(instant: int) -> datetime:
    """An instant as an aware datetime in UTC."""
    return datetime.fromtimestamp(instant, UTC)


def _too_many(number: str) -> InvalidInput:
    return InvalidInput(fields={"until": [f"the range holds {number} instants; at most {MOST:,} go into one backfill"]})


def _ran(wanted: Wanted, using: str) -> set[int]:
    """The instants of the range that started, or that wait in the ledger to start."""
    fires = ScheduleFire.objects.using(using).filter(
        schedule=wanted.schedule,
        scheduled_for__gte=wanted.since,
        scheduled_for__lte=wanted.until,
        outcome__in=RAN,
    )
    return {int(instant.timestamp()) for instant in fires.values_list("scheduled_for", flat=True)}


def _usual_seconds(schedule: Schedule, using: str) -> float | None:
    runs = (
        Execution.objects.using(using)
        .filter(source_kind=claims.SOURCE_KIND, source_id=str(schedule.pk), state=ExecutionState.SUCCEEDED)
        .exclude(started_at=None)
        .order_by("-id")
        .values_list("started_at", "finished_at")[:SAMPLE]
    )
    lengths = [(end - start).total_seconds() for start, end in runs if start and end]
    return round(median(lengths), 3) if lengths else None


def _queue_shares(plan: Plan, schedule: Schedule, at_once: int, using: str) -> list[Share]:
    """One slot per execution that runs, in the queues that its steps go to (as `execution.creation` chooses them)."""
    steps: dict[str, list[str]] = {}
    for step in plan.steps.values():
        if step.kind in WORKER_KINDS:
            name = step.queue or schedule.queue or plan.queue or schedule.workflow.queue
            steps.setdefault(name, []).append(step.name)
    states = {state.name: state for state in queues.stats(sorted(steps), using=using)} if steps else {}
    return [Share(name, tuple(names), at_once, states[name].slots) for name, names in sorted(steps.items())]


def _pool_shares(plan: Plan, at_once: int, using: str) -> list[Share]:
    steps: dict[str, list[str]] = {}
    units: dict[str, int] = {}
    for step in plan.steps.values():
        if step.pool:
            steps.setdefault(step.pool, []).append(step.name)
            units[step.pool] = max(units.get(step.pool, 0), step.pool_units)
    slots = dict(Pool.objects.using(using).filter(name__in=steps).values_list("name", "slots"))
    return [
        Share(name, tuple(names), at_once * units[name], slots.get(name, 0)) for name, names in sorted(steps.items())
    ]
