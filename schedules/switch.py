"""Stop and start all firing. The switch is a row, so it outlives every process; watermarks keep the debt meanwhile."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from execution import audit
from schedules.models import FiringSwitch
from scheduling_project.common import clock


def state(*, using: str = "default") -> FiringSwitch:
    """The switch as it stands; never stopped when nobody ever touched it."""
    return FiringSwitch.objects.using(using).first() or FiringSwitch()


def stop(*, actor: str, note: str = "", now: datetime | None = None, using: str = "default") -> FiringSwitch:
    """Stop all firing until `start`. A visit in progress still commits; stopping again only changes the note."""
    with transaction.atomic(using=using):
        before = _held(using)
        stopped_at = before.stopped_at or now or clock.now(using=using)
        FiringSwitch.objects.using(using).update(stopped_at=stopped_at, stopped_by=actor[:200], note=note[:500])
        _audit("stop", actor, note, before.stopped_at, stopped_at, using)
    return state(using=using)


def start(*, actor: str, note: str = "", using: str = "default") -> FiringSwitch:
    """Let everything fire again; what became due meanwhile is settled by each schedule's catch-up policy."""
    with transaction.atomic(using=using):
        before = _held(using)
        if before.stopped_at is not None:
            FiringSwitch.objects.using(using).update(stopped_at=None, stopped_by="", note="")
            _audit("start", actor, note, before.stopped_at, None, using)
    return state(using=using)


def _held(using: str) -> FiringSwitch:
    """The row, made if there is none (two at once: one makes it), and locked."""
    switches = FiringSwitch.objects.using(using)
    switches.bulk_create([FiringSwitch()], ignore_conflicts=True)
    return switches.select_for_update().get()


def _audit(verb: str, actor: str, note: str, before: datetime | None, after: datetime | None, using: str) -> None:
    audit.record(
        actor=actor,
        action=f"firing.{verb}",
        subject_kind="firing",
        subject_id="all",
        subject_label="All firing",
        changes={
            "stopped_at": {
                "before": before.isoformat() if before else None,
                "after": after.isoformat() if after else None,
            }
        },
        note=note,
        using=using,
    )
