"""Celery as it comes: its defaults, the same broker, the same body."""

from __future__ import annotations

import os

from celery import Celery

from tests.benchmarks.execution_app import stamp

app = Celery("bare", broker=os.environ.get("BARE_BROKER_URL"), set_as_current=False)
app.conf.task_ignore_result = True
app.conf.task_default_queue = "bare"


@app.task(name="bare.stamp")
def task() -> None:
    """Note when it ran."""
    stamp.write()
