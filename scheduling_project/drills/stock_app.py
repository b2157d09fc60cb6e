"""Celery as it comes, with its defaults, for `stock`: the same work without this project."""

from __future__ import annotations

import os
import time

from celery import Celery

app = Celery("stock", broker=os.environ.get("REDIS_URL"), set_as_current=False)
app.conf.update(task_ignore_result=True, timezone="UTC")


@app.task(name="stock.effect")
def effect(path: str, key: str = "", seconds: float = 0.0) -> None:
    """Work for some seconds, then append a line to a file outside the system."""
    time.sleep(seconds)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{key} {time.time()}\n".encode())
    finally:
        os.close(descriptor)
