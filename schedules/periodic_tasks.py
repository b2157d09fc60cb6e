"""The PeriodicTask of each schedule, and our housekeeping as PeriodicTasks.

The mirror rows show every schedule in django-celery-beat's tables, and let a stock `DatabaseScheduler` fire them. The
schedule is the truth. Rows are written in bulk and without signals, in the transaction of the deed; stock beats are
told once per deed, after its commit (the one "changed" row would otherwise make all edits queue up behind each other).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Model
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)

from schedules.mirror import Row, nearest
from schedules.models import Schedule

FIRE = "schedules.fire"
FIRE_DUE = "schedules.fire_due"
REFRESH = "schedules.refresh_periodic_tasks"
AUDIT = "schedules.audit"
PRUNE = "schedules.prune"
BACKFILL = "schedules.backfill"

#: Tasks that only a stock scheduler needs to send: `WorkflowScheduler` does their work itself.
SAFETY_NETS = (FIRE_DUE, BACKFILL)
#: Our housekeeping: task name → seconds between runs. The setting ``HOUSEKEEPING_TASKS`` adds those of other apps.
HOUSEKEEPING: Mapping[str, int] = {FIRE_DUE: 1, REFRESH: 300, AUDIT: 3600, PRUNE: 3600, BACKFILL: 5}
CHUNK = 1_000

TIMETABLES: Mapping[str, type[Model]] = {
    "crontab": CrontabSchedule,
    "interval": IntervalSchedule,
    "clocked": ClockedSchedule,
    "solar": SolarSchedule,
}
COPIED = ("name", "enabled", "kwargs", "queue", "priority", "start_time", "description", "one_off")

# Past runs as the ledger's sums in the schedule tell them. Never signals: nobody's heap needs to be rebuilt for it.
REFRESH_SQL = """
UPDATE django_celery_beat_periodictask p
SET last_run_at = s.last_fire_at, total_run_count = s.started_count, enabled = s.enabled
FROM schedules_schedule s
WHERE s.periodic_task_id = p.id AND (p.enabled <> s.enabled OR p.total_run_count <> s.started_count
    OR (s.last_fire_at IS NOT NULL AND p.last_run_at IS DISTINCT FROM s.last_fire_at))
"""
LINK_SQL = """
UPDATE schedules_schedule s SET periodic_task_id = new.task_id
FROM unnest(%s::uuid[], %s::int[]) AS new (id, task_id) WHERE s.id = new.id
"""


@dataclass(slots=True)
class Reconciled:
    """What a reconciliation changed, in rows."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    housekeeping: int = 0

    @property
    def total(self) -> int:
        return self.created + self.updated + self.deleted + self.housekeeping


def enabled() -> bool:
    """Whether schedules are mirrored at all (``SCHEDULE_PERIODIC_TASK_MIRROR``)."""
    return bool(settings.SCHEDULE_PERIODIC_TASK_MIRROR)


def keep(schedules: Sequence[Schedule], *, using: str = "default") -> tuple[int, int]:
    """Create or correct the rows of these schedules, whose `version` must be loaded, inside the caller's transaction.

    Returns how many rows were created and corrected.
    """
    if not enabled() or not schedules:
        return 0, 0
    wanted = {schedule.pk: nearest(schedule.version.spec) for schedule in schedules if schedule.version}
    timetables = _timetables(set(wanted.values()), using)
    tasks = PeriodicTask.objects.using(using)
    existing = tasks.in_bulk([s.periodic_task_id for s in schedules if s.periodic_task_id is not None])
    fresh: list[tuple[Schedule, PeriodicTask]] = []
    changed: list[PeriodicTask] = []
    for schedule in schedules:
        if schedule.pk not in wanted:
            continue
        row = wanted[schedule.pk]
        columns = _columns(schedule, row) | {f"{kind}_id": None for kind in TIMETABLES}
        columns[f"{row.kind}_id"] = timetables[row]
        task = existing.get(schedule.periodic_task_id) if schedule.periodic_task_id is not None else None
        if task is None:
            fresh.append((schedule, PeriodicTask(task=FIRE, **columns)))
        elif any(getattr(task, name) != value for name, value in columns.items()):
            for name, value in columns.items():
                setattr(task, name, value)
            changed.append(task)
    if fresh:
        tasks.bulk_create([task for _, task in fresh])
        with connections[using].cursor() as cursor:
            cursor.execute(LINK_SQL, [[s.pk for s, _ in fresh], [t.pk for _, t in fresh]])
        for schedule, task in fresh:
            schedule.periodic_task_id = task.pk
    if changed:
        tasks.bulk_update(changed, [*COPIED, *TIMETABLES])
    if fresh or changed:
        announce(using)
    return len(fresh), len(changed)


def drop(task_ids: Iterable[int], *, using: str = "default") -> int:
    """Delete mirror rows inside the caller's transaction, without signals."""
    ids = list(task_ids)
    if not ids:
        return 0
    deleted = PeriodicTask.objects.using(using).filter(pk__in=ids, task=FIRE)._raw_delete(using)
    announce(using)
    return int(deleted or 0)


def announce(using: str = "default") -> None:
    """Tell stock beats, once the open transaction has committed, that PeriodicTasks have changed."""
    transaction.on_commit(PeriodicTasks.update_changed, using=using)


def refresh(*, using: str = "default") -> int:
    """Copy last run, number of runs and enabled from the schedules to their rows. Returns how many rows changed."""
    with connections[using].cursor() as cursor:
        cursor.execute(REFRESH_SQL)
        return int(cursor.rowcount)


def reconcile(*, using: str = "default") -> Reconciled:
    """Make all rows what they should be: create missing ones, correct others, delete what belongs to no schedule."""
    done = Reconciled(housekeeping=keep_housekeeping(using=using))
    schedules = Schedule.objects.using(using)
    if not enabled():
        schedules.filter(periodic_task__isnull=False).update(periodic_task=None)
    # Strays first: a row that lost its schedule still has the name that the new one needs.
    strays = PeriodicTask.objects.using(using).filter(task=FIRE, workflow_schedule__isnull=True)
    with transaction.atomic(using=using):
        done.deleted = drop(strays.values_list("pk", flat=True), using=using)
    if enabled():
        every = schedules.select_related("version").order_by("pk").iterator(chunk_size=CHUNK)
        while chunk := list(islice(every, CHUNK)):
            with transaction.atomic(using=using):
                created, updated = keep(chunk, using=using)
            done.created += created
            done.updated += updated
    return done


def keep_housekeeping(*, using: str = "default") -> int:
    """Create the PeriodicTasks of our housekeeping, and set their interval. Returns how many were wrong or missing.

    One that somebody has disabled stays so.
    """
    wanted = {**HOUSEKEEPING, **getattr(settings, "HOUSEKEEPING_TASKS", {})}
    tasks = PeriodicTask.objects.using(using)
    changed = 0
    with transaction.atomic(using=using):
        rows = {seconds: Row("interval", (("every", seconds), ("period", "seconds"))) for seconds in wanted.values()}
        timetables = _timetables(set(rows.values()), using)
        existing = {task.name: task for task in tasks.filter(name__in=wanted)}
        for name, seconds in wanted.items():
            timetable = timetables[rows[seconds]]
            task = existing.get(name)
            if task is None:
                # A message that nobody took before the next one is due is worth nothing.
                tasks.bulk_create(
                    [
                        PeriodicTask(
                            name=name,
                            task=name,
                            interval_id=timetable,
                            expire_seconds=max(seconds, 10),
                            description="Housekeeping of the scheduling system.",
                        )
                    ],
                    ignore_conflicts=True,
                )
                changed += 1
            elif task.interval_id != timetable or task.task != name:
                tasks.filter(pk=task.pk).update(interval_id=timetable, task=name)
                changed += 1
        if changed:
            announce(using)
    return changed


def label(schedule: Schedule) -> str:
    """The unique name of a schedule's row: people see the schedule's name, its id keeps it apart from others'."""
    return f"{schedule.name[:180]} [{schedule.pk.hex[-12:]}]"


def _columns(schedule: Schedule, row: Row) -> dict[str, Any]:
    start = schedule.version.spec.get("start") if schedule.version else None
    return {
        "name": label(schedule),
        "enabled": schedule.enabled,
        "kwargs": json.dumps({"schedule_id": str(schedule.pk)}),
        "queue": schedule.queue or None,
        "priority": schedule.priority,
        "start_time": None if start is None else datetime.fromisoformat(start),
        "description": schedule.description,
        "one_off": row.kind == "clocked",
    }


def _timetables(rows: set[Row], using: str) -> dict[Row, int]:
    """The ids of timetable rows, found or created. Two may be created at once; either will do."""
    found: dict[Row, int] = {}
    for row in rows:
        manager = TIMETABLES[row.kind]._default_manager.using(using)
        columns = dict(row.columns)
        pk = manager.filter(**columns).order_by("pk").values_list("pk", flat=True).first()
        if pk is None:
            (made,) = manager.bulk_create([TIMETABLES[row.kind](**columns)])  # bulk: no signals
            pk = made.pk
        found[row] = pk
    return found
