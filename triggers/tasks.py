"""The Celery doors of the triggers app: each calls one function. Messages may come twice."""

from __future__ import annotations

from celery import shared_task
from celery.exceptions import Ignore

from execution import engine
from scheduling_project.common.logs import get_logger
from triggers import maintenance

log = get_logger(__name__)


@shared_task(name="triggers.flush", ignore_result=True, acks_late=False)
def flush() -> None:
    """Start groups of events whose time has come, and turn news of executions into events: every second."""
    try:
        maintenance.tend()
    except engine.DatabaseAway as error:
        log.warning("triggers.task_dropped", task="triggers.flush", error=str(error).strip())
        engine.close()
        raise Ignore from None


@shared_task(name="triggers.prune", ignore_result=True, acks_late=False)
def prune() -> None:
    """Delete what is kept no longer: every hour."""
    done = maintenance.prune()
    log.info("triggers.pruned", events=done.events, refusals=done.refusals, secrets=done.secrets)
