"""What Celery tells about a worker, passed on to `execution.worker`.

Every process connects these; only a worker loads what stands behind them.
"""

from __future__ import annotations

import os
from typing import Any

from celery.signals import worker_process_init, worker_ready, worker_shutdown, worker_shutting_down


@worker_ready.connect
def begin(sender: Any, **_: Any) -> None:
    """The worker consumes, for the first time or again after a reconnect."""
    from execution import worker

    worker.start_housekeeping(sender)


@worker_process_init.connect
def give_way(**_: Any) -> None:
    """A process of the pool has begun: where processor time is short, who waits for an answer goes before its steps."""
    from django.conf import settings

    os.nice(settings.WORKFLOW_STEP_NICENESS)


@worker_shutting_down.connect
def limit(sender: Any, how: str, **_: Any) -> None:
    """A shutdown has begun (`how`: Warm or Cold)."""
    from execution import worker

    worker.limit_the_shutdown(sender, how)


@worker_shutdown.connect
def end(sender: Any, **_: Any) -> None:
    """The pool has stopped."""
    from execution import worker

    worker.give_back(sender)
