"""A step that calls a Celery task in this process, the way a worker would, but with our retries.

The task keeps its meaning: bound tasks get `self`, `self.request` tells the attempt (`retries`), and
`self.retry(countdown=…)` asks for another attempt at that time. The difference is where the retry lives: a row in
Postgres, never a message with an ETA in Redis.
"""

from __future__ import annotations

import copy
from typing import Any

from celery.exceptions import Retry

from execution import step_tasks
from execution.graph import StepPlan
from execution.queue import Claim
from execution.steps import task_hooks
from execution.steps.context import GiveUp
from execution.steps.task_request import asked, requested


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
    with requested(task, claim, argument):
        task_hooks.before(task, claim, argument)
        body = step_tasks.body_of(task)
        try:
            return body(**copy.deepcopy(argument))  # what the task does to its arguments must not reach the record
        except Retry as retry:
            raise asked(retry, task) from retry
