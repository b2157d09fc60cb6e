"""The kinds of step that a worker performs, one file each. `KINDS` is the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from execution.graph import StepPlan
from execution.queue import Claim
from execution.steps import http, task

#: Per kind: ``perform(claim, step, argument) -> output``; `argument` is the rendered part of the definition.
KINDS: dict[str, Callable[[Claim, StepPlan, Any], Any]] = {"task": task.perform, "http": http.perform}
