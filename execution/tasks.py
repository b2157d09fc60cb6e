"""The Celery doors of the engine: each fetches by id and calls one function."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from billiard.process import current_process
from celery import Task, shared_task
from celery.exceptions import Ignore, Retry

from execution import engine, handoff, pressure, retention, runner
from execution.runner import Outcome, Report
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

_door: Any = shared_task  # its stubs do not know `Request`


class StepFailed(Exception):
    """A step failed for good. Raised after its outcome is committed, so that Celery's events show FAILURE."""


@_door(  # type: ignore[untyped-decorator]
    bind=True,
    name="execution.run_step",
    acks_late=False,
    ignore_result=True,
    max_retries=0,
    Request="execution.worker:StepRequest",
)
def run_step(self: Task[Any, Any], step_run_id: str, priority: int | None = None) -> None:
    """Run one step run, if it is still to be had. Celery then shows what became of it: SUCCESS, RETRY or FAILURE."""
    if pressure.is_refused(priority):
        _give_back(step_run_id)
        raise Ignore
    try:
        report = runner.run(
            UUID(step_run_id), worker=process_name(self), priority=priority, may_exit=is_prefork_child()
        )
    except engine.DatabaseAway as error:
        log.warning("step.hint_dropped", step_run_id=step_run_id, error=str(error))
        engine.close()
        raise Ignore from None
    _tell_celery(report)


def _give_back(step_run_id: str) -> None:
    """The worker takes no such work now: the hint was on its way when that changed. The sweep sends another."""
    try:
        handoff.unmark([UUID(step_run_id)])
    except engine.DatabaseAway as error:
        log.warning("step.hint_dropped", step_run_id=step_run_id, error=str(error))
        engine.close()


@shared_task(name="execution.prune", ignore_result=True, acks_late=False)
def prune() -> None:
    """Delete what is kept no longer: every hour."""
    retention.prune()


def _tell_celery(report: Report) -> None:
    match report.outcome:
        case Outcome.NOT_OURS | Outcome.LOST | Outcome.CANCELLED:
            raise Ignore
        case Outcome.RETRY | Outcome.SNOOZED:
            raise Retry(message=report.message, exc=_shown(report), when=report.at)
        case Outcome.FAILED:
            raise _shown(report) from None


def _shown(report: Report) -> StepFailed:
    """An exception that can be pickled, whatever the step raised."""
    return StepFailed(report.error[:2_000])


def process_name(task: Task[Any, Any]) -> str:
    """Node name and process id: what attempts record as their worker."""
    return f"{task.request.hostname or 'local'}/{os.getpid()}"


def is_prefork_child() -> bool:
    """Whether this process is a pool child that runs one step at a time, so that it may end itself."""
    return current_process().name.startswith("ForkPoolWorker")
