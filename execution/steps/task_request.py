"""The request that a task sees while it is a step, and what its `self.retry()` means there.

Celery's own `retry` would send a message with an ETA. Here it only says when and how often: the row decides.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

from celery.exceptions import Retry

from execution.queue import Claim
from execution.retry import UNLIMITED
from execution.step_tasks import Task


class RetryAsked(Exception):
    """The task's own `self.retry()`: in how many seconds, why, and how often at most.

    `max_attempts` was given with the call; `task_attempts` is the task's own limit, where no policy is stated.
    """

    def __init__(
        self,
        *,
        delay: float,
        cause: BaseException | None = None,
        max_attempts: int | None = None,
        task_attempts: int | None = None,
    ) -> None:
        self.delay = delay
        self.cause = cause
        self.max_attempts = max_attempts
        self.task_attempts = task_attempts
        super().__init__(str(cause) if cause is not None else f"retry asked for in {delay:g} s")


@contextlib.contextmanager
def requested(task: Task, claim: Claim, argument: dict[str, Any]) -> Iterator[None]:
    """The request that the task sees; `retry` is ours while it runs."""
    if "_celery_retry" not in task.__dict__:
        task.__dict__.update(_celery_retry=task.retry, retry=_StepRetry(task))
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

    def __init__(self, task: Task) -> None:
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
            return cast(Retry, original(args, kwargs, exc, throw, eta, countdown, max_retries, **options))
        asked = _Asked(exc if exc is not None else sys.exc_info()[1], eta or countdown, max_retries)
        if throw:
            raise asked
        return asked


class _Asked(Retry):
    """A retry that a task asked for, with what Celery's own exception has no room for."""

    def __init__(self, cause: BaseException | None, when: Any, max_retries: int | None) -> None:
        super().__init__(when=when)
        self.cause = cause
        self.max_retries = max_retries


def asked(retry: Retry, task: Task) -> RetryAsked:
    """What a `Retry` means: ours from `self.retry()`, or one that the task made itself."""
    when: Any = task.default_retry_delay if retry.when is None else retry.when
    if isinstance(when, datetime):
        aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        when = (aware - datetime.now(UTC)).total_seconds()
    cause, given = (retry.cause, retry.max_retries) if isinstance(retry, _Asked) else (retry.exc, None)
    return RetryAsked(
        delay=float(when),
        cause=cause,
        max_attempts=None if given is None else _attempts(given),
        task_attempts=_attempts(task.max_retries),
    )


def _attempts(retries: int | None) -> int:
    return UNLIMITED if retries is None else retries + 1
