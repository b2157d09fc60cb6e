"""Figures: how one schedule is doing, and how all of them are.

Every figure is bounded: by an index, by the ledger's latest `SAMPLE` starts, or by one hour and one day of executions.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, Min, Q, Sum

from execution import engine, queues
from execution.models import Execution
from execution.states import EXECUTION_TERMINAL, ExecutionState
from schedules import audit, claims, history, switch
from schedules.models import Backfill, Schedule, ScheduleFire
from schedules.states import BackfillState, FireOutcome, PauseKind
from schedules.timing.preview import preview

#: A schedule that has been due for so many seconds is overdue.
LATE_SECONDS: Final = 10
#: Latest starts in the ledger over which lateness is told.
SAMPLE: Final = 100_000
#: Fires to come, and executions that run, as a status lists them.
NEXT: Final = 5
LISTED: Final = 10
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

# How late instants were taken: recorded minus due, in seconds, over the latest starts. What a backfill started is no
# measure of it. Ids ascend with time, so the latest are found at the end of the primary key.
LATENESS = """
SELECT percentile_disc(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY late)
           FILTER (WHERE recorded_at >= %(hour)s::timestamptz) AS last_hour,
       percentile_disc(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY late) AS last_day
FROM (
    SELECT greatest(extract(epoch FROM f.recorded_at - f.due_at), 0)::float8 AS late, f.recorded_at, f.outcome, f.note
    FROM schedules_schedulefire f ORDER BY f.id DESC LIMIT %(sample)s::int
) latest
WHERE outcome = 'started' AND note = '' AND recorded_at >= %(day)s::timestamptz
"""

LATENESS_OF = """
SELECT percentile_disc(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY late) AS last_day
FROM (
    SELECT greatest(extract(epoch FROM f.recorded_at - f.due_at), 0)::float8 AS late
    FROM schedules_schedulefire f
    WHERE f.schedule_id = %(id)s::uuid AND f.scheduled_for >= %(day)s::timestamptz
      AND f.outcome = 'started' AND f.note = ''
    ORDER BY f.scheduled_for DESC LIMIT %(sample)s::int
) latest
"""

ENDED = """
SELECT e.state, count(*) FILTER (WHERE e.finished_at >= %(hour)s::timestamptz) AS last_hour, count(*) AS last_day
FROM execution_execution e WHERE e.finished_at >= %(day)s::timestamptz GROUP BY e.state
"""

# One index look-up per state, never a count of the history: what is open is few.
OPEN = """
SELECT e.state, count(*) AS count FROM execution_execution e
WHERE e.state = ANY(%(states)s::text[]) GROUP BY e.state
"""
OPEN_STATES: Final = tuple(state for state in ExecutionState.values if state not in EXECUTION_TERMINAL)


def state_of(schedule: Schedule) -> str:
    """``active``, ``paused``, ``finished`` or ``error``."""
    if schedule.enabled:
        return "active"
    if schedule.pause_kind in {PauseKind.FINISHED, PauseKind.ERROR}:
        return str(schedule.pause_kind)
    return "paused"


def outcomes_of(schedule_id: UUID, since: datetime) -> dict[str, int]:
    """A schedule's instants since then by outcome, those in ranges included."""
    return _by_outcome(Q(schedule_id=schedule_id, scheduled_for__gte=since))


def status(schedule: Schedule, now: datetime) -> dict[str, Any]:
    """How a schedule is doing. Its workflow, version and periodic task should be loaded."""
    is_stopped = switch.state().stopped_at is not None
    executions = Execution.objects.filter(source_kind=claims.SOURCE_KIND, source_id=str(schedule.pk))
    running = executions.filter(finished_at__isnull=True)
    latest = executions.order_by("-id").values("id", "state", "created_at", "finished_at").first()
    ended = executions.filter(finished_at__isnull=False).order_by("-id").values_list("state", flat=True).first()
    last_fires = history.history(schedule.pk, limit=1)
    overdue = (now - schedule.next_fire_at).total_seconds() if schedule.enabled and schedule.next_fire_at else 0.0
    most = schedule.max_executions
    task = schedule.periodic_task
    day = {"id": schedule.pk, "day": now - DAY, "sample": SAMPLE}
    late = engine.fetch_one(LATENESS_OF, day, using="default")
    return {
        "id": schedule.pk,
        "name": schedule.name,
        "state": "stopped" if is_stopped and schedule.enabled else state_of(schedule),
        "enabled": schedule.enabled,
        "pause": None if schedule.enabled else schedule,
        "next_fire_at": schedule.next_fire_at if schedule.enabled else None,
        "next_fires": _next_fires(schedule, now),
        "overdue_seconds": max(0.0, round(overdue, 3)),
        "last_fire_at": schedule.last_fire_at,
        "last_fire": last_fires[0] if last_fires else None,
        "last_execution": latest and {**latest, "id": str(latest["id"])},
        "last_outcome": ended,
        "open_executions": running.count(),
        "running": [str(pk) for pk in running.order_by("id").values_list("pk", flat=True)[:LISTED]],
        "buffered": ScheduleFire.objects.filter(schedule=schedule, outcome=FireOutcome.BUFFERED).count(),
        "backfills": [
            str(pk)
            for pk in Backfill.objects.filter(schedule=schedule, state=BackfillState.RUNNING)
            .order_by("pk")
            .values_list("pk", flat=True)[:LISTED]
        ],
        "started_count": schedule.started_count,
        "remaining": None if most is None else max(0, most - schedule.started_count),
        "consecutive_failures": schedule.consecutive_failures,
        "last_day": outcomes_of(schedule.pk, now - DAY),
        "lateness": _lateness(late.last_day if late else None),
        "periodic_task": task
        and {"id": task.pk, "name": task.name, "enabled": task.enabled, "total_run_count": task.total_run_count},
    }


def stats(now: datetime) -> dict[str, Any]:
    """How all schedules are doing, and what they have to do with: executions, queues, the ledger's last audit."""
    counted = Schedule.objects.aggregate(
        total=Count("id"),
        active=Count("id", filter=Q(enabled=True)),
        finished=Count("id", filter=Q(enabled=False, pause_kind=PauseKind.FINISHED)),
        error=Count("id", filter=Q(enabled=False, pause_kind=PauseKind.ERROR)),
        overdue=Count("id", filter=Q(enabled=True, next_fire_at__lt=now - timedelta(seconds=LATE_SECONDS))),
        next_fire_at=Min("next_fire_at", filter=Q(enabled=True)),
    )
    by_state = {name: counted[name] for name in ("active", "finished", "error")}
    by_state["paused"] = counted["total"] - sum(by_state.values())
    own = (
        Execution.objects.filter(source_kind=claims.SOURCE_KIND, created_at__gte=now - DAY)
        .order_by()
        .values_list("state")
        .annotate(count=Count("id"))
    )
    window = {"hour": now - HOUR, "day": now - DAY}
    late = engine.fetch_one(LATENESS, window | {"sample": SAMPLE}, using="default")
    latest = audit.latest()
    return {
        "total": counted["total"],
        "by_state": by_state,
        "overdue": counted["overdue"],
        "next_fire_at": counted["next_fire_at"],
        "firing_stopped": switch.state().stopped_at is not None,
        "last_day": {"instants": _by_outcome(Q(recorded_at__gte=now - DAY)), "executions": dict(own)},
        "executions": _executions(window),
        "lateness": {
            "last_hour": _lateness(late.last_hour if late else None),
            "last_day": _lateness(late.last_day if late else None),
        },
        "queues": [
            {
                "queue": queue.name,
                **{what: queue.total(what) for what in ("waiting", "in_flight", "running", "later")},
                "workers": queue.workers,
                "slots": queue.slots,
                "paused": queue.paused_at is not None,
            }
            for queue in queues.stats()
        ],
        "backfills": Backfill.objects.filter(state=BackfillState.RUNNING).count(),
        "ledger": latest
        and {
            "audited_at": latest.finished_at.isoformat(),
            "schedules": latest.schedules,
            "findings": latest.findings,
            "differences": latest.differences,
        },
    }


def _executions(window: dict[str, datetime]) -> dict[str, Any]:
    """Executions of all sources: the open ones by state, what ended in an hour and a day, and how it went."""
    states = {"states": engine.array(list(OPEN_STATES))}
    found = {row.state: row.count for row in engine.fetch_all(OPEN, states, using="default")}
    ended = engine.fetch_all(ENDED, window, using="default")
    return {
        "by_state": {state: found.get(state, 0) for state in OPEN_STATES},
        "last_hour": _ended({row.state: row.last_hour for row in ended}, minutes=60),
        "last_day": _ended({row.state: row.last_day for row in ended}, minutes=1440),
    }


def _ended(by_state: dict[str, int], *, minutes: int) -> dict[str, Any]:
    """What ended, the share of success among what succeeded or failed, and executions per minute."""
    counts = {state: by_state.get(state, 0) for state in ExecutionState.values if state in EXECUTION_TERMINAL}
    decided = counts[ExecutionState.SUCCEEDED] + counts[ExecutionState.FAILED]
    return {
        **counts,
        "success_rate": round(counts[ExecutionState.SUCCEEDED] / decided, 4) if decided else None,
        "per_minute": round(sum(counts.values()) / minutes, 3),
    }


def _lateness(points: list[float] | None) -> dict[str, float | None]:
    """Seconds from due to taken."""
    p50, p95, most = (None, None, None) if points is None else (round(point, 3) for point in points)
    return {"p50": p50, "p95": p95, "max": most}


def _by_outcome(chosen: Q) -> dict[str, int]:
    fires = ScheduleFire.objects.filter(chosen).order_by().values_list("outcome")
    counted = dict(fires.annotate(instants=Sum("count")))
    return {outcome: int(counted.get(outcome, 0)) for outcome in FireOutcome.values}


def _next_fires(schedule: Schedule, now: datetime) -> list[dict[str, Any]]:
    if not schedule.enabled or schedule.version is None:
        return []
    after = max(int(now.timestamp()), int(schedule.fired_through.timestamp()))
    found = preview(schedule.version.spec, now=after, count=NEXT, seed=str(schedule.pk)).as_dict()["next"]
    return [{"due": fire["utc"], "change": "", **fire} for fire in found]
