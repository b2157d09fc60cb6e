"""What a deed would do to a schedule: it is done, looked at, and rolled back. So it refuses what the deed refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from execution import audit
from schedules import changes, conflict_facts, lifecycle, values
from schedules.changes import Changes, Side
from schedules.models import Schedule
from schedules.states import PauseKind
from scheduling_project.common import clock


@dataclass(slots=True)
class ChangePreview:
    """Per field its values before and after, the fires of the coming weeks, and the conflicts there would be."""

    now: datetime
    differences: dict[str, Any]
    fires: Changes
    warnings: list[dict[str, Any]]


class _RollBack(Exception):
    """Ends the transaction in which the deed was only tried."""


def preview(
    schedule_id: UUID, deed: Callable[[], object], *, now: datetime | None = None, using: str = "default"
) -> ChangePreview:
    """Try a deed on a schedule; nothing remains of it.

    Raises:
        NotFound: there is no such schedule.
        DomainError: whatever the deed raises.
    """
    found: ChangePreview | None = None
    try:
        with transaction.atomic(using=using):
            instant = now or clock.now(using=using)
            before = lifecycle.get(schedule_id, using=using)
            said, side = _state(before), _side(before, instant)
            deed()
            after = Schedule.objects.using(using).select_related("workflow", "version").filter(pk=schedule_id).first()
            found = ChangePreview(
                now=instant,
                differences=audit.difference(said, {} if after is None else _state(after)),
                fires=changes.compare(
                    side,
                    None if after is None else _side(after, instant),
                    seed=str(schedule_id),
                    now=int(instant.timestamp()),
                ),
                warnings=[] if after is None else conflict_facts.warnings_of(after, using=using),
            )
            raise _RollBack
    except _RollBack:
        assert found is not None
        return found


def _state(schedule: Schedule) -> dict[str, Any]:
    paused_until = schedule.paused_until.isoformat() if schedule.paused_until else None
    return {**values.snapshot(schedule), "pause_kind": schedule.pause_kind, "paused_until": paused_until}


def _side(schedule: Schedule, now: datetime) -> Side | None:
    """What it fires from now on; None: nothing."""
    if schedule.version is None or (not schedule.enabled and schedule.paused_until is None):
        return None
    if not schedule.enabled and schedule.pause_kind in {PauseKind.FINISHED, PauseKind.ERROR}:
        return None
    begins = int(max(now, schedule.paused_until or now).timestamp()) if not schedule.enabled else 0
    most = schedule.max_executions
    return Side(schedule.version.spec, begins, None if most is None else max(0, most - schedule.started_count))
