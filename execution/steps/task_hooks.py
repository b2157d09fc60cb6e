"""The hooks that a Celery task may override, called around its body as Celery's own worker calls them.

`before_start`, the body, then `on_success`, `on_failure` or `on_retry` (as the step's policy decides), then
`after_return`. They see the step's request. An error in a hook is recorded and changes nothing. A body that asked to
be ignored, rejected or snoozed gets no later hook, as in Celery.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery
from billiard.einfo import ExceptionInfo

from execution import step_tasks
from execution.failures import shown
from execution.queue import Claim
from execution.retry import Decision
from execution.step_tasks import Task
from execution.steps.context import current
from execution.steps.task_request import requested
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

AFTER = ("on_success", "on_failure", "on_retry", "after_return")


def before(task: Task, claim: Claim, argument: dict[str, Any]) -> None:
    """Call `before_start`, inside the task's request."""
    _call(task, claim, "before_start", claim.idempotency_key, [], argument)


def after(
    target: str,
    claim: Claim,
    argument: dict[str, Any] | None,
    *,
    output: Any,
    error: BaseException | None,
    decision: Callable[[BaseException], Decision],
) -> None:
    """Call what follows the body.

    Args:
        decision: what will follow an error; asked only when somebody listens.
    """
    task = step_tasks.find(target)
    if task is None or argument is None or not any(_is_overridden(task, name) for name in AFTER):
        return
    with requested(task, claim, argument):
        key = claim.idempotency_key
        if error is None:
            _call(task, claim, "on_success", output, key, [], argument)
            _call(task, claim, "after_return", "SUCCESS", output, key, [], argument, None)
            return
        follows = decision(error)
        if follows not in {Decision.RETRY, Decision.FAIL}:
            return
        cause = shown(error)
        info = ExceptionInfo((type(cause), cause, cause.__traceback__))
        hook, status = ("on_retry", "RETRY") if follows is Decision.RETRY else ("on_failure", "FAILURE")
        _call(task, claim, hook, cause, key, [], argument, info)
        _call(task, claim, "after_return", status, cause, key, [], argument, info)


def _is_overridden(task: Task, name: str) -> bool:
    return getattr(type(task), name) is not getattr(celery.Task, name)


def _call(task: Task, claim: Claim, name: str, *arguments: Any) -> None:
    if not _is_overridden(task, name):
        return
    try:
        getattr(task, name)(*arguments)
    except Exception as error:  # noqa: BLE001 - other people's code, which must not change what became of the step
        log.warning(
            "step.hook_failed", step_run_id=str(claim.id), label=claim.label, hook=name, error=type(error).__name__
        )
        context = current()
        if context is not None:
            context.log(f"{name} raised {type(error).__name__}: {error}", level="warning")
