"""Run past instants after all: what did not start (the gaps), or everything once more.

A backfill is a row with a cursor; `advance` takes it one step further, as far as its rate, its bound of running
executions and one transaction allow. It holds the schedule's lock, so that an instant is either the firing's or the
backfill's, and it stays behind the watermark.

How it bears on the schedule's policies: like an execution triggered by hand it runs while the schedule is paused,
counts against no maximum, and is no predecessor to the overlap policy; `max_running` is the bound among its own
executions, and the schedule's concurrency key holds for them too. Calendars and blackouts of the version that was in
force leave instants out, unless told otherwise. While all firing is stopped, backfills wait.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, F, QuerySet

from execution import audit, cancellation, creation, engine
from execution.creation import Source, Start
from execution.models import Execution
from execution.states import EXECUTION_TERMINAL, ExecutionState
from schedules import backfill_plan, claims, lifecycle, versions
from schedules.backfill_ledger import Entries
from schedules.backfill_plan import Estimate, instants, moment
from schedules.due import Segment
from schedules.models import Backfill, BackfillFire
from schedules.states import BackfillOrder, BackfillState
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from scheduling_project.common.ids import uuid7
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

SOURCE_KIND = "backfill"
#: Instants that one step looks at.
STEP = 200
#: Seconds that one call of `advance_all` may take before it leaves the rest to the next one.
BUDGET_SECONDS = 0.1
#: The first step back, in seconds, of a backfill that goes backwards; it doubles.
FIRST_STEP_BACK = 64


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is. `running`: its executions that have not ended."""

    running: int
    succeeded: int
    failed: int
    cancelled: int


def plan(schedule_id: UUID, *, using: str = "default", **given: Any) -> Estimate:
    """Count what a backfill would start, and estimate what it costs. Changes nothing.

    Args:
        given: as for `create`.

    Raises:
        NotFound, InvalidInput, Conflict: as for `create`.
    """
    schedule = lifecycle.get(schedule_id, using=using)
    return backfill_plan.estimate(backfill_plan.check(schedule, **given), using=using)


def create(schedule_id: UUID, *, actor: str, note: str = "", using: str = "default", **given: Any) -> Backfill:
    """Begin a backfill of the instants from `since` to `until`, both included.

    Args:
        given: `since`, `until`; and, if not by default, `gaps_only`, `ignore_calendars`, `order`, `priority`,
            `max_running`, `per_minute`, `input` (see `backfill_plan.check`).

    Raises:
        NotFound.
        InvalidInput: with a rule per field; also for ranges that hold too many instants, or none.
        Conflict: the workflow has no published version.
    """
    schedule = lifecycle.get(schedule_id, using=using)
    wanted = backfill_plan.check(schedule, **given)
    counted = backfill_plan.count(wanted, using=using)
    if not counted.wanted:
        raise InvalidInput(fields={"since": ["no instant of this range needs to run"]})
    with transaction.atomic(using=using):
        backfill = Backfill.objects.using(using).create(
            schedule=schedule,
            since=wanted.since,
            until=wanted.until,
            gaps_only=wanted.gaps_only,
            ignore_calendars=wanted.ignore_calendars,
            order=wanted.order,
            input=None if wanted.input is None else dict(wanted.input),
            note=note[:500],
            priority=wanted.priority,
            max_running=wanted.max_running,
            per_minute=wanted.per_minute,
            total=counted.wanted,
            created_by=actor[:200],
        )
        _audit(backfill, "backfill", actor, note, using)
    return get(backfill.pk, using=using)


def cancel(
    backfill_id: UUID, *, actor: str, stop_running: bool = False, note: str = "", using: str = "default"
) -> Backfill:
    """Start nothing more; with `stop_running`, executions that it started and that still run are cancelled too.

    Waits for a step in progress, so nothing starts after it returns.

    Raises:
        NotFound.
        Conflict: it is over already.
    """
    with transaction.atomic(using=using):
        backfill = get(backfill_id, using=using)
        now = clock.now(using=using)
        cancelled = (
            Backfill.objects.using(using)
            .filter(pk=backfill_id, state=BackfillState.RUNNING)
            .update(state=BackfillState.CANCELLED, finished_at=now)
        )
        if not cancelled:
            raise Conflict(f"The backfill is {get(backfill_id, using=using).state} already.")
        if stop_running:
            for execution_id in list(_open(backfill_id, using).values_list("pk", flat=True)):
                cancellation.cancel(execution_id, reason=f"backfill cancelled by {actor}", using=using)
        _audit(backfill, "backfill_cancel", actor, note, using)
    return get(backfill_id, using=using)


def get(backfill_id: UUID, *, using: str = "default") -> Backfill:
    """A backfill with its schedule loaded.

    Raises:
        NotFound.
    """
    found = Backfill.objects.using(using).select_related("schedule").filter(pk=backfill_id).first()
    if found is None:
        raise NotFound(f"There is no backfill {backfill_id}.")
    return found


def progress(backfill_id: UUID, *, using: str = "default") -> Progress:
    """What became of the executions that it started."""
    started = Execution.objects.using(using).filter(source_kind=SOURCE_KIND, source_id=str(backfill_id))
    found = dict(started.order_by().values_list("state").annotate(count=Count("id")))
    return Progress(
        running=sum(count for state, count in found.items() if state not in EXECUTION_TERMINAL),
        succeeded=found.get(ExecutionState.SUCCEEDED, 0),
        failed=found.get(ExecutionState.FAILED, 0),
        cancelled=found.get(ExecutionState.CANCELLED, 0),
    )


def advance_all(*, now: datetime | None = None, using: str | None = None, budget: float = BUDGET_SECONDS) -> int:
    """Take running backfills one step further, those that waited longest first. Returns how many executions started.

    One whose timing cannot be computed fails, alone; the firing loop and the other backfills go on.

    Args:
        budget: seconds after which the rest is left to the next call.

    Raises:
        django.db.OperationalError: Postgres is away.
    """
    alias = using or engine.alias()
    until = time.monotonic() + budget
    running = Backfill.objects.using(alias).filter(state=BackfillState.RUNNING)
    started = 0
    for pk in list(running.order_by(F("looked_at").asc(nulls_first=True), "pk").values_list("pk", flat=True)[:STEP]):
        try:
            started += advance(pk, now=now, using=alias)
        except engine.DatabaseAway:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one schedule's timing can raise must stop nobody else
            _fail(pk, error, now=now, using=alias)
        if time.monotonic() > until:
            break
    return started


def advance(backfill_id: UUID, *, now: datetime | None = None, using: str | None = None) -> int:
    """One step of one backfill. Safe to run anywhere, any number of times at once. Returns the executions started.

    Order of locks: the schedule (so that no edit, deletion or visit of it runs beside this), then the backfill.
    Whoever has either makes this step a later one.
    """
    alias = using or engine.alias()
    with engine.transaction(using=alias):
        found = Backfill.objects.using(alias).filter(pk=backfill_id).values_list("schedule_id", flat=True).first()
        if found is None or engine.fetch_one(claims.STOPPED, {}, using=alias):
            return 0
        if not claims.lock_free(found, using=alias):
            return 0
        backfill = (
            Backfill.objects.using(alias)
            .select_for_update(no_key=True, of=("self",), skip_locked=True)
            .select_related("schedule")
            .filter(pk=backfill_id, state=BackfillState.RUNNING)
            .first()
        )
        if backfill is None:
            return 0
        instant = now or engine.now(using=alias)
        backfill.looked_at = instant
        started = _step(backfill, _room(backfill, instant, alias), instant, alias)
        backfill.save(
            using=alias,
            update_fields=["cursor", "started", "passed", "state", "finished_at", "looked_at"],
        )
        return started


def _step(backfill: Backfill, room: int, now: datetime, using: str) -> int:
    """Start the next instants, as many as there is room for."""
    schedule = backfill.schedule
    workflow = versions.published([schedule.workflow_id], using=using).get(schedule.workflow_id)
    if room <= 0 or workflow is None:
        return 0
    segments = backfill_plan.segments_of(schedule, using=using)
    found = _next(backfill, segments)
    if not found:
        backfill.state, backfill.finished_at = BackfillState.FINISHED, now
        log.info("backfill.finished", backfill_id=str(backfill.pk), started=backfill.started)
        return 0
    nominals = [nominal for nominal, _ in found]
    entries = Entries(schedule, segments, min(nominals), max(nominals), using=using)
    starts: list[Start] = []
    fires: list[BackfillFire] = []
    for nominal, version_id in found:
        if len(starts) >= room:
            break
        backfill.cursor = moment(nominal)
        if backfill.gaps_only and entries.has_run(nominal):
            backfill.passed += 1
            continue
        execution_id = uuid7()
        starts.append(
            Start(
                id=execution_id,
                version=workflow,
                source=Source(SOURCE_KIND, str(backfill.pk), schedule.name),
                input=schedule.input if backfill.input is None else backfill.input,
                scheduled_for=moment(nominal),
                priority=backfill.priority,
                queue=schedule.queue,
                retry_policy=schedule.retry_policy,
                timeout=schedule.timeout,
                concurrency_key=schedule.concurrency_key,
            )
        )
        fires.append(
            BackfillFire(backfill=backfill, scheduled_for=moment(nominal), execution_id=execution_id, started_at=now)
        )
        entries.start(nominal, version_id, execution_id)
    BackfillFire.objects.using(using).bulk_create(fires)
    creation.start_many(starts, now=now, using=using)
    backfill.started += len(starts)
    return len(starts)


def _next(backfill: Backfill, segments: Sequence[Segment]) -> list[tuple[int, UUID]]:
    """The next instants to look at, in the backfill's order: (nominal, version)."""
    wanted = backfill_plan.Wanted(backfill.schedule, backfill.since, backfill.until)
    after, until = wanted.span
    cursor = None if backfill.cursor is None else int(backfill.cursor.timestamp())
    ignore = backfill.ignore_calendars
    if backfill.order == BackfillOrder.OLDEST:
        start = after if cursor is None else cursor
        return list(islice(instants(segments, start, until, ignore_calendars=ignore), STEP))
    until = until if cursor is None else cursor - 1
    step = FIRST_STEP_BACK
    while True:
        start = max(after, until - step)
        found = list(instants(segments, start, until, ignore_calendars=ignore))
        if len(found) >= STEP or start == after:
            return found[::-1][:STEP]
        step *= 2


def _room(backfill: Backfill, now: datetime, using: str) -> int:
    """Executions that may be started now."""
    room = min(backfill.max_running - _open(backfill.pk, using).count(), STEP)
    if room > 0 and backfill.per_minute is not None:
        recent = backfill.fires.using(using).filter(started_at__gt=now - timedelta(minutes=1)).count()
        room = min(room, backfill.per_minute - recent)
    return room


def _open(backfill_id: UUID, using: str) -> QuerySet[Execution]:
    """Its executions that have not ended."""
    return Execution.objects.using(using).filter(
        source_kind=SOURCE_KIND, source_id=str(backfill_id), finished_at__isnull=True
    )


def _fail(backfill_id: UUID, error: Exception, *, now: datetime | None, using: str) -> None:
    note = f"{type(error).__name__}: {error}"[:500]
    with engine.transaction(using=using):
        failed = (
            Backfill.objects.using(using)
            .filter(pk=backfill_id, state=BackfillState.RUNNING)
            .update(state=BackfillState.FAILED, finished_at=now or engine.now(using=using), error=note)
        )
        if failed:
            log.error("backfill.failed", backfill_id=str(backfill_id), error=note, exc_info=error)
            _audit(get(backfill_id, using=using), "backfill_fail", "system", note, using)


def _audit(backfill: Backfill, verb: str, actor: str, note: str, using: str) -> None:
    audit.record(
        actor=actor,
        action=f"schedule.{verb}",
        subject_kind="schedule",
        subject_id=backfill.schedule_id,
        subject_label=backfill.schedule.name,
        changes={
            "backfill": {"before": None, "after": str(backfill.pk)},
            "since": {"before": None, "after": backfill.since.isoformat()},
            "until": {"before": None, "after": backfill.until.isoformat()},
            "instants": {"before": None, "after": backfill.total},
        },
        note=note,
        using=using,
    )
