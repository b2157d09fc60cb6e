"""What a schedule did: its ledger and the executions triggered beside it, and figures over them."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, Min, Q, Sum

from execution import engine
from execution.models import Execution
from schedules import claims, switch
from schedules.models import Schedule, ScheduleFire
from schedules.states import FireOutcome, PauseKind
from scheduling_project.common.errors import InvalidInput

LATE_SECONDS: Final = 10

# Two index scans, each bounded by the page, merged: never a sort over the whole history.
HISTORY = """
SELECT * FROM (
    (SELECT f.id::text AS id, 'fire' AS kind, f.scheduled_for, f.until, f.count, f.due_at, f.outcome, f.reason, f.note,
            v.number AS version, f.execution_id, e.state AS execution_state, f.recorded_at
     FROM schedules_schedulefire f
     JOIN schedules_scheduleversion v ON v.id = f.version_id
     LEFT JOIN execution_execution e ON e.id = f.execution_id
     WHERE f.schedule_id = %(id)s::uuid AND f.scheduled_for < %(before)s::timestamptz
       AND (%(outcome)s::text IS NULL OR f.outcome = %(outcome)s::text)
     ORDER BY f.scheduled_for DESC LIMIT %(limit)s::int)
    UNION ALL
    (SELECT e.id::text, 'manual', e.created_at, NULL, 1, NULL, 'started', '', '', NULL, e.id, e.state, e.created_at
     FROM execution_execution e
     WHERE e.source_kind = %(kind)s::text AND e.source_id = %(source)s::text AND e.scheduled_for IS NULL
       AND e.created_at < %(before)s::timestamptz
       AND (%(outcome)s::text IS NULL OR %(outcome)s::text = 'started')
     ORDER BY e.id DESC LIMIT %(limit)s::int)
) entries
ORDER BY scheduled_for DESC LIMIT %(limit)s::int
"""
LATEST: Final = datetime.fromisoformat("9999-01-01T00:00:00+00:00")


def history(
    schedule_id: UUID, *, limit: int, before: datetime = LATEST, outcome: str | None = None, using: str = "default"
) -> list[dict[str, Any]]:
    """Entries before an instant, the latest first."""
    params = {
        "id": schedule_id,
        "source": str(schedule_id),
        "kind": claims.SOURCE_KIND,
        "before": before,
        "limit": limit,
        "outcome": outcome,
    }
    return [row._asdict() for row in engine.fetch_all(HISTORY, params, using=using)]


def cursor_of(instant: datetime) -> str:
    """Where the page after an entry begins, as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps(instant.isoformat()).encode()).decode()


def read_cursor(text: str) -> datetime:
    """
    Raises:
        InvalidInput: it is not one that `cursor_of` made.
    """
    try:
        instant = datetime.fromisoformat(json.loads(base64.urlsafe_b64decode(text.encode())))
        if instant.tzinfo is None:
            raise ValueError
    except (ValueError, TypeError, binascii.Error, OverflowError):
        raise InvalidInput(fields={"cursor": ["is not one that this list gave out"]}) from None
    return instant


def state_of(schedule: Schedule) -> str:
    """``active``, ``paused``, ``finished`` or ``error``."""
    if schedule.enabled:
        return "active"
    if schedule.pause_kind in {PauseKind.FINISHED, PauseKind.ERROR}:
        return str(schedule.pause_kind)
    return "paused"


def outcomes_since(since: datetime, *, schedule_id: UUID | None = None) -> dict[str, int]:
    """Instants by outcome, those in ranges included."""
    fires = ScheduleFire.objects.filter(scheduled_for__gte=since)
    if schedule_id is not None:
        fires = fires.filter(schedule_id=schedule_id)
    counted = dict(fires.order_by().values_list("outcome").annotate(instants=Sum("count")))
    return {outcome: int(counted.get(outcome, 0)) for outcome in FireOutcome.values}


def stats(now: datetime) -> dict[str, Any]:
    """How all schedules are doing."""
    counted = Schedule.objects.aggregate(
        total=Count("id"),
        active=Count("id", filter=Q(enabled=True)),
        finished=Count("id", filter=Q(enabled=False, pause_kind=PauseKind.FINISHED)),
        error=Count("id", filter=Q(enabled=False, pause_kind=PauseKind.ERROR)),
        overdue=Count("id", filter=Q(enabled=True, next_fire_at__lt=now - timedelta(seconds=LATE_SECONDS))),
        next_fire_at=Min("next_fire_at", filter=Q(enabled=True)),
    )
    since = now - timedelta(days=1)
    executions = dict(
        Execution.objects.filter(source_kind=claims.SOURCE_KIND, created_at__gte=since)
        .order_by()
        .values_list("state")
        .annotate(count=Count("id"))
    )
    by_state = {name: counted[name] for name in ("active", "finished", "error")}
    by_state["paused"] = counted["total"] - sum(by_state.values())
    return {
        "total": counted["total"],
        "by_state": by_state,
        "overdue": counted["overdue"],
        "next_fire_at": counted["next_fire_at"],
        "firing_stopped": switch.state().stopped_at is not None,
        "last_day": {"instants": outcomes_since(since), "executions": executions},
    }
