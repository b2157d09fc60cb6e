"""The step task."""

from __future__ import annotations

import time

from execution.step_tasks import step_task
from tests.benchmarks.execution_app import stamp


@step_task(name="bench.stamp")
def step() -> None:
    """Note when it ran."""
    stamp.write()


@step_task(name="bench.sleep")
def sleep(seconds: float) -> None:
    """Take so long."""
    time.sleep(seconds)
