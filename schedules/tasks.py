"""The Celery doors of the schedules app: each calls one function. Messages carry ids only and may come twice."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from celery.exceptions import Ignore

from execution import engine
from schedules import audit, backfill, firing, outcomes, periodic_tasks
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)


def _away(task: str, error: Exception) -> Ignore:
    """Postgres is away: drop the message. The next one, or the next beat, finds the same work."""
    log.warning("schedules.task_dropped", task=task, error=str(error).strip())
    engine.close()
    return Ignore()


@shared_task(name=periodic_tasks.FIRE, ignore_result=True, acks_late=False)
def fire(schedule_id: str) -> None:
    """Fire one schedule, if it is due. Sent by the stock scheduler for the mirror row of the schedule."""
    try:
        firing.fire_due(schedule_ids=[UUID(schedule_id)])
    except engine.DatabaseAway as error:
        raise _away(periodic_tasks.FIRE, error) from None


@shared_task(name=periodic_tasks.FIRE_DUE, ignore_result=True, acks_late=False)
def fire_due() -> None:
    """Fire whatever is due and act on ended executions: the safety net under the stock scheduler, every second."""
    try:
        firing.fire_due()
        outcomes.take_news()
    except engine.DatabaseAway as error:
        raise _away(periodic_tasks.FIRE_DUE, error) from None


@shared_task(name=periodic_tasks.REFRESH, ignore_result=True, acks_late=False)
def refresh_periodic_tasks() -> None:
    """Bring what the mirror rows say about past runs up to date with the schedules."""
    periodic_tasks.refresh()


@shared_task(name=periodic_tasks.AUDIT, ignore_result=True, acks_late=False)
def audit_ledger() -> None:
    """Compare the ledger of the recent past with the instants derived anew."""
    audit.run()


@shared_task(name=periodic_tasks.PRUNE, ignore_result=True, acks_late=False)
def prune() -> None:
    """Delete what retention no longer keeps."""
    pruned = audit.prune()
    log.info("ledger.pruned", entries=pruned)


@shared_task(name=periodic_tasks.BACKFILL, ignore_result=True, acks_late=False)
def advance_backfills() -> None:
    """Take every running backfill one step further."""
    try:
        backfill.advance_all()
    except engine.DatabaseAway as error:
        raise _away(periodic_tasks.BACKFILL, error) from None
