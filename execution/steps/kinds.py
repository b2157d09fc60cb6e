"""Who performs a step, by its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from execution.graph import StepPlan
from execution.queue import Claim
from execution.steps import http, task, workflow

#: Per kind: ``perform(claim, step, argument) -> output``; `argument` is the rendered part of the definition.
KINDS: Final[dict[str, Callable[[Claim, StepPlan, Any], Any]]] = {
    "task": task.perform,
    "http": http.perform,
    "workflow": workflow.perform,
}
