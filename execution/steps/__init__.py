"""The kinds of step that a worker performs, one file each. `KINDS` is the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from execution.graph import StepPlan
from execution.queue import Claim
from execution.steps import http, task


def _call_workflow(claim: Claim, step: StepPlan, argument: Any) -> Any:
    from execution.steps import workflow  # needs the models, which whoever imports a step's context may not have yet

    return workflow.perform(claim, step, argument)


#: Per kind: ``perform(claim, step, argument) -> output``; `argument` is the rendered part of the definition.
KINDS: dict[str, Callable[[Claim, StepPlan, Any], Any]] = {
    "task": task.perform,
    "http": http.perform,
    "workflow": _call_workflow,
}
