"""A step that calls a Celery task in this process, the way a worker would, but with our retries.

The task keeps its meaning: bound tasks get `self`, `self.request` tells the attempt (`retries`), and
`self.retry(countdown=…)` asks for another attempt at that time. The difference is where the retry lives: a row in
Postgres, never a message with an ETA in Redis.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

from celery.exceptions import Retry

from execution import step_tasks
from execution.graph import StepPlan
from execution.queue import Claim
from execution.retry import UNLIMITED
from execution.step_tasks import Task
from execution.steps.context import GiveUp


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
    from execution.steps import task_hooks  # which needs `requested`

    with requested(task, claim, argument):
        task_hooks.before(task, claim, argument)
        body = step_tasks.body_of(task)
        try:
            return body(**copy.deepcopy(argument))  # what the task does to its arguments must not reach the record
        except Retry as retry:
            raise _asked(retry, task) from retry


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


def _asked(retry: Retry, task: Task) -> RetryAsked:
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
