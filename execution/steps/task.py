"""A step that calls a Celery task in this process, the way a worker would, but with our retries.

The task keeps its meaning: bound tasks get `self`, `self.request` tells the attempt (`retries`), and
`self.retry(countdown=…)` asks for another attempt at that time. The difference is where the retry lives: a row in
Postgres, never a message with an ETA in Redis.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import celery
from celery.exceptions import Retry

from execution import step_tasks
from execution.graph import StepPlan
from execution.queue import Claim
from execution.steps.context import GiveUp


class RetryAsked(Exception):
    """The task's own `self.retry()`: when, and how often at most."""

    def __init__(self, *, delay: float, cause: BaseException | None, max_attempts: int | None) -> None:
        self.delay = delay
        self.cause = cause
        self.max_attempts = max_attempts
        super().__init__(str(cause) if cause is not None else f"retry asked for in {delay:g} s")


def perform(claim: Claim, step: StepPlan, argument: Any) -> Any:
    """Call the task with `argument` as its keyword arguments and return its result.

    Raises:
        GiveUp: the task is unknown here, not allowed, or cannot take these arguments.
        RetryAsked: the task called `self.retry()`.
        BaseException: whatever the task raised.
    """
    task = step_tasks.find(step.target)
    if task is None:
        raise GiveUp(f"{step.target} is not a task that this worker may run as a step")
    mismatch = step_tasks.check_arguments(task, argument)
    if mismatch:
        raise GiveUp(f"{step.target} cannot be called like this: {mismatch}")
    with _request(task, claim, argument):
        body = step_tasks.body_of(task)
        try:
            return body(**argument)
        except Retry as retry:
            raise _asked(retry, task) from retry


@contextlib.contextmanager
def _request(task: celery.Task, claim: Claim, argument: dict[str, Any]) -> Iterator[None]:
    """The request that the task sees; `retry` is ours while it runs."""
    task.__dict__.setdefault("_celery_retry", task.retry)
    task.retry = _StepRetry(task)
    task.push_request(
        id=claim.idempotency_key,
        args=[],
        kwargs=argument,
        retries=claim.failures,
        called_directly=False,
        is_eager=False,
        hostname=None,
        delivery_info={"exchange": "", "routing_key": claim.queue, "priority": claim.priority},
        headers={"execution_id": str(claim.execution_id), "step": claim.name},
        workflow_step=True,
    )
    try:
        yield
    finally:
        task.pop_request()


class _StepRetry:
    """Stands in for ``Task.retry``: inside a step it only computes when, outside it is Celery's own."""

    def __init__(self, task: celery.Task) -> None:
        self.task = task

    def __call__(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        if not getattr(self.task.request, "workflow_step", False):
            original = self.task.__dict__["_celery_retry"]
            retry: Retry = original(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
            return retry
        asked = Retry(exc=exc, when=eta if eta is not None else countdown)
        asked.max_retries = max_retries
        if throw:
            raise asked
        return asked


def _asked(retry: Retry, task: celery.Task) -> RetryAsked:
    when = retry.when
    if when is None:
        when = task.default_retry_delay
    if isinstance(when, datetime):
        aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        when = max(0.0, (aware - datetime.now(UTC)).total_seconds())
    limit = getattr(retry, "max_retries", None)
    if limit is None:
        limit = task.max_retries
    cause = retry.exc if isinstance(retry.exc, BaseException) else None
    return RetryAsked(delay=float(when), cause=cause, max_attempts=None if limit is None else limit + 1)
