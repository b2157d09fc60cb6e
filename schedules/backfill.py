"""Run past instants after all: what did not start (the gaps), or everything once more.

A backfill is a row with a cursor; `advance` takes it one step further, as far as its rate, its bound of running
executions and one transaction allow. It holds the schedule's lock, so that an instant is either the firing's or the
backfill's, and it stays behind the watermark. A gap's ledger entry becomes started; a range gives up the instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from execution import audit, cancellation, creation, definitions, engine
from execution import priority as priorities
from execution.creation import Source, Start
from execution.models import Execution
from schedules import claims, lifecycle, occurrences, versions
from schedules.due import Segment
from schedules.models import Backfill, BackfillFire, Schedule, ScheduleFire, ScheduleVersion
from schedules.states import BackfillOrder, BackfillState, FireOutcome
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from scheduling_project.common.ids import uuid7
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

SOURCE_KIND = "backfill"
#: Instants that one step looks at, and that a backfill may have in all.
STEP = 200
MOST = 100_000
#: A backfill's priority by default: so much lower than the schedule's.
LOWER = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a backfill would do. `seconds`: how long it takes at least, by its rate and the usual duration of a run."""

    instants: int
    seconds: float | None
    average_run_seconds: float | None


def plan(
    schedule_id: UUID,
    *,
    since: datetime,
    until: datetime,
    gaps_only: bool = True,
    max_running: int = 1,
    per_minute: int | None = None,
    using: str = "default",
) -> Estimate:
    """Count what a backfill would start, and estimate how long it takes.

    Raises:
        NotFound, InvalidInput: as for `create`.
    """
    schedule = lifecycle.get(schedule_id, using=using)
    since, until = _range(schedule, since, until, max_running, per_minute)
    instants = _count(schedule, since, until, gaps_only, using)
    runs = (
        Execution.objects.using(using)
        .filter(source_kind=claims.SOURCE_KIND, source_id=str(schedule.pk), finished_at__isnull=False)
        .exclude(started_at=None)
        .order_by("-id")
        .values_list("started_at", "finished_at")[:50]
    )
    lengths = [(end - start).total_seconds() for start, end in runs if start and end]
    average = sum(lengths) / len(lengths) if lengths else None
    bounds = [instants * average / max_running] if average is not None else []
    bounds += [instants * 60 / per_minute] if per_minute else []
    return Estimate(instants, max(bounds) if bounds else None, average)


def create(
    schedule_id: UUID,
    *,
    since: datetime,
    until: datetime,
    actor: str,
    gaps_only: bool = True,
    order: str = BackfillOrder.OLDEST,
    priority: Any = None,
    max_running: int = 1,
    per_minute: int | None = None,
    input: Mapping[str, Any] | None = None,
    note: str = "",
    using: str = "default",
) -> Backfill:
    """Begin a backfill of the instants from `since` to `until`, both included.

    Raises:
        NotFound.
        InvalidInput: with a rule per field; also for ranges that hold more than `MOST` instants, or none.
        Conflict: the workflow has no published version.
    """
    schedule = lifecycle.get(schedule_id, using=using)
    if order not in BackfillOrder.values:
        raise InvalidInput(fields={"order": [f"must be one of {', '.join(BackfillOrder.values)}"]})
    try:
        level = min(schedule.priority + LOWER, priorities.LOWEST) if priority is None else priorities.parse(priority)
    except ValueError as error:
        raise InvalidInput(fields={"priority": [str(error)]}) from None
    since, until = _range(schedule, since, until, max_running, per_minute)
    if schedule.workflow.published is None:
        raise Conflict("The workflow has no published version.")
    if input is not None:
        definitions.validate_input(schedule.workflow.published, input)
    with transaction.atomic(using=using):
        backfill = Backfill.objects.using(using).create(
            schedule=schedule,
            since=since,
            until=until,
            gaps_only=gaps_only,
            order=order,
            input=None if input is None else dict(input),
            note=note[:500],
            priority=level,
            max_running=max_running,
            per_minute=per_minute,
            total=_count(schedule, since, until, gaps_only, using),
            created_by=actor[:200],
        )
        if not backfill.total:
            raise InvalidInput(fields={"since": ["no instant of this range needs to run"]})
        _audit(backfill, schedule, "backfill", actor, note, using)
    return backfill


def cancel(
    backfill_id: UUID, *, actor: str, stop_running: bool = False, note: str = "", using: str = "default"
) -> Backfill:
    """Start nothing more; with `stop_running`, executions that it started and that still run are cancelled too.

    Raises:
        NotFound.
        Conflict: it is over already.
    """
    with transaction.atomic(using=using):
        backfill = _get(backfill_id, using)
        now = clock.now(using=using)
        cancelled = (
            Backfill.objects.using(using)
            .filter(pk=backfill_id, state=BackfillState.RUNNING)
            .update(state=BackfillState.CANCELLED, finished_at=now)
        )
        if not cancelled:
            raise Conflict(f"The backfill is {backfill.state} already.")
        if stop_running:
            for execution_id in _running(backfill_id, using):
                cancellation.cancel(execution_id, reason=f"backfill cancelled by {actor}", using=using)
        _audit(backfill, backfill.schedule, "backfill_cancel", actor, note, using)
    return _get(backfill_id, using)


def advance_all(*, now: datetime | None = None, using: str | None = None) -> int:
    """Take every running backfill one step further. Returns how many executions were started."""
    alias = using or engine.alias()
    running = Backfill.objects.using(alias).filter(state=BackfillState.RUNNING).order_by("pk")
    return sum(advance(pk, now=now, using=alias) for pk in list(running.values_list("pk", flat=True)))


def advance(backfill_id: UUID, *, now: datetime | None = None, using: str | None = None) -> int:
    """One step of one backfill. Safe to run anywhere, any number of times at once. Returns the executions started.

    Order of locks: the schedule (so that no edit, deletion or visit of it runs beside this), then the backfill.
    """
    alias = using or engine.alias()
    with transaction.atomic(using=alias):
        found = Backfill.objects.using(alias).filter(pk=backfill_id).values_list("schedule_id", flat=True).first()
        if found is None or engine.fetch_one(claims.STOPPED, {}, using=alias):
            return 0
        claims.lock([found], using=alias)
        backfill = (
            Backfill.objects.using(alias)
            .select_for_update(no_key=True, of=("self",), skip_locked=True)
            .select_related("schedule", "schedule__workflow")
            .filter(pk=backfill_id, state=BackfillState.RUNNING)
            .first()
        )
        if backfill is None:
            return 0
        instant = now or engine.now(using=alias)
        room = _room(backfill, instant, alias)
        if room <= 0:
            return 0
        return _step(backfill, room, instant, alias)


def _step(backfill: Backfill, room: int, now: datetime, using: str) -> int:
    schedule = backfill.schedule
    segments = _segments(schedule, using)
    found = _next(backfill, segments)
    entries = _covering(schedule.pk, backfill, using) if found else []
    workflow = versions.published([schedule.workflow_id], using=using).get(schedule.workflow_id)
    starts: list[Start] = []
    fires: list[BackfillFire] = []
    passed = 0
    for nominal, version_id in found:
        if len(starts) >= room or workflow is None:
            break
        backfill.cursor = _moment(nominal)
        entry = next((e for e in entries if _first(e) <= nominal <= _last(e)), None)
        has_run = entry is not None and entry.outcome in (FireOutcome.STARTED, FireOutcome.BUFFERED)
        if has_run and backfill.gaps_only:
            passed += 1
            continue
        execution_id = uuid7()
        starts.append(
            Start(
                id=execution_id,
                version=workflow,
                source=Source(SOURCE_KIND, str(backfill.pk), schedule.name),
                input=schedule.input if backfill.input is None else backfill.input,
                scheduled_for=_moment(nominal),
                priority=backfill.priority,
                queue=schedule.queue,
                retry_policy=schedule.retry_policy,
                timeout=schedule.timeout,
                concurrency_key=schedule.concurrency_key,
            )
        )
        fires.append(BackfillFire(backfill=backfill, scheduled_for=_moment(nominal), execution_id=execution_id))
        if not has_run:
            _fill(schedule, entry, nominal, version_id, execution_id, segments, entries, using)
    BackfillFire.objects.using(using).bulk_create(fires)
    creation.start_many(starts, now=now, using=using)
    backfill.started += len(starts)
    backfill.passed += passed
    if not found:
        backfill.state, backfill.finished_at = BackfillState.FINISHED, now
        log.info("backfill.finished", backfill_id=str(backfill.pk), started=backfill.started)
    backfill.save(using=using, update_fields=["cursor", "started", "passed", "state", "finished_at"])
    return len(starts)


def _fill(
    schedule: Schedule,
    entry: ScheduleFire | None,
    nominal: int,
    version_id: UUID,
    execution_id: UUID,
    segments: Sequence[Segment],
    entries: list[ScheduleFire],
    using: str,
) -> None:
    """Make the ledger say that an instant started: its entry changes, its range gives it up, or a row is added."""
    if entry is not None and entry.until is None:
        ScheduleFire.objects.using(using).filter(
            pk=entry.pk, outcome__in=[FireOutcome.MISSED, FireOutcome.SKIPPED]
        ).update(outcome=FireOutcome.STARTED, reason="", note="backfill", execution_id=execution_id)
        entry.outcome = FireOutcome.STARTED
        return
    if entry is not None:
        entries.remove(entry)
        before = _piece(entry, _first(entry) - 1, nominal - 1, segments)
        after = _piece(entry, nominal, _last(entry), segments)
        ScheduleFire.objects.using(using).filter(pk=entry.pk).delete()
        for piece in (before, after):
            if piece is not None:
                piece.save(using=using, force_insert=True)
                entries.append(piece)
    started = ScheduleFire(
        schedule=schedule,
        version_id=version_id,
        scheduled_for=_moment(nominal),
        due_at=_moment(nominal),
        outcome=FireOutcome.STARTED,
        note="backfill",
        execution_id=execution_id,
    )
    started.save(using=using, force_insert=True)
    entries.append(started)


def _piece(entry: ScheduleFire, after: int, until: int, segments: Sequence[Segment]) -> ScheduleFire | None:
    """The part of a range in (`after`, `until`], None when it holds no instant."""
    count = first = last = 0
    for segment, start, stop in _spans(segments, after, until):
        inside = segment.timing.count(start, stop)
        if not inside:
            continue
        head = segment.timing.next_after(start)
        assert head is not None
        first = first or head.nominal
        last = _latest(segment, start, stop)
        count += inside
    if not count:
        return None
    return ScheduleFire(
        schedule_id=entry.schedule_id,
        version_id=entry.version_id,
        scheduled_for=_moment(first),
        until=_moment(last) if count > 1 else None,
        count=count,
        due_at=_moment(first),
        outcome=entry.outcome,
        reason=entry.reason,
        note=entry.note,
        recorded_at=entry.recorded_at,
    )


def _latest(segment: Segment, after: int, until: int) -> int:
    """The last instant in (`after`, `until`], which holds one: looked for backwards in doubling steps."""
    step = 64
    while True:
        start = max(after, until - step)
        latest = None
        for instant in segment.timing.between(start, until):
            latest = instant.nominal
        if latest is not None:
            return latest
        step *= 2


def _next(backfill: Backfill, segments: Sequence[Segment]) -> list[tuple[int, UUID]]:
    """The next instants to look at, in the backfill's order: (nominal, version)."""
    after, until = int(backfill.since.timestamp()) - 1, int(backfill.until.timestamp())
    cursor = None if backfill.cursor is None else int(backfill.cursor.timestamp())
    found: list[tuple[int, UUID]] = []
    if backfill.order == BackfillOrder.OLDEST:
        for nominal, version_id in _nominals(segments, after if cursor is None else cursor, until):
            found.append((nominal, version_id))
            if len(found) == STEP:
                break
        return found
    until = until if cursor is None else cursor - 1
    step = 64
    while True:
        start = max(after, until - step)
        found = list(_nominals(segments, start, until))
        if len(found) >= STEP or start == after:
            return found[::-1][:STEP]
        step *= 2


def _room(backfill: Backfill, now: datetime, using: str) -> int:
    """Executions that may be started now."""
    room = min(backfill.max_running - len(_running(backfill.pk, using)), STEP)
    if backfill.per_minute is not None:
        recent = backfill.fires.using(using).filter(started_at__gt=now - timedelta(minutes=1)).count()
        room = min(room, backfill.per_minute - recent)
    return room


def _running(backfill_id: UUID, using: str) -> list[UUID]:
    open_ones = Execution.objects.using(using).filter(
        source_kind=SOURCE_KIND, source_id=str(backfill_id), finished_at__isnull=True
    )
    return list(open_ones.values_list("pk", flat=True))


def _covering(schedule_id: UUID, backfill: Backfill, using: str) -> list[ScheduleFire]:
    """The ledger entries that touch the backfill's range."""
    fires = ScheduleFire.objects.using(using).filter(schedule_id=schedule_id, scheduled_for__lte=backfill.until)
    return list(fires.filter(Q(until__gte=backfill.since) | Q(until=None, scheduled_for__gte=backfill.since)))


def _count(schedule: Schedule, since: datetime, until: datetime, gaps_only: bool, using: str) -> int:
    after, end = int(since.timestamp()) - 1, int(until.timestamp())
    total = sum(s.timing.count(start, stop) for s, start, stop in _spans(_segments(schedule, using), after, end))
    if total > MOST:
        raise InvalidInput(fields={"until": [f"the range holds {total} instants; at most {MOST} go into one backfill"]})
    if gaps_only:
        ran = ScheduleFire.objects.using(using).filter(
            schedule=schedule,
            scheduled_for__gte=since,
            scheduled_for__lte=until,
            outcome__in=[FireOutcome.STARTED, FireOutcome.BUFFERED],
        )
        total -= ran.count()
    return max(total, 0)


def _range(
    schedule: Schedule, since: datetime, until: datetime, max_running: int, per_minute: int | None
) -> tuple[datetime, datetime]:
    problems: dict[str, list[str]] = {}
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
    return since, min(until, schedule.fired_through)


def _segments(schedule: Schedule, using: str) -> list[Segment]:
    """All versions; the first one also speaks for the time before the schedule was made."""
    rows = list(ScheduleVersion.objects.using(using).filter(schedule=schedule).order_by("number"))
    ends: list[int | None] = [int(version.effective_from.timestamp()) for version in rows[1:]]
    return [
        Segment(v.pk, occurrences.compile(v.spec, seed=str(schedule.pk)), until)
        for v, until in zip(rows, [*ends, None], strict=True)
    ]


def _spans(segments: Sequence[Segment], after: int, until: int) -> Iterator[tuple[Segment, int, int]]:
    position = after
    for segment in segments:
        stop = until if segment.until is None else min(until, segment.until)
        if position < stop:
            yield segment, position, stop
            position = stop


def _nominals(segments: Sequence[Segment], after: int, until: int) -> Iterator[tuple[int, UUID]]:
    for segment, start, stop in _spans(segments, after, until):
        for instant in segment.timing.between(start, stop):
            yield instant.nominal, segment.version_id


def _get(backfill_id: UUID, using: str) -> Backfill:
    found = Backfill.objects.using(using).select_related("schedule").filter(pk=backfill_id).first()
    if found is None:
        raise NotFound(f"There is no backfill {backfill_id}.")
    return found


def _first(entry: ScheduleFire) -> int:
    return int(entry.scheduled_for.timestamp())


def _last(entry: ScheduleFire) -> int:
    return int((entry.until or entry.scheduled_for).timestamp())


def _moment(instant: int) -> datetime:
    return datetime.fromtimestamp(instant, UTC)


def _audit(backfill: Backfill, schedule: Schedule, verb: str, actor: str, note: str, using: str) -> None:
    audit.record(
        actor=actor,
        action=f"schedule.{verb}",
        subject_kind="schedule",
        subject_id=schedule.pk,
        subject_label=schedule.name,
        changes={
            "backfill": {"before": None, "after": str(backfill.pk)},
            "since": {"before": None, "after": backfill.since.isoformat()},
            "until": {"before": None, "after": backfill.until.isoformat()},
            "instants": {"before": None, "after": backfill.total},
        },
        note=note,
        using=using,
    )
