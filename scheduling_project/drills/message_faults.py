"""What a broker may do to messages: deliver them twice."""

from __future__ import annotations

import json
import time

import redis
from django.conf import settings

from execution.broker import key_of
from execution.priority import LEVELS
from scheduling_project.drills.load import start_backlog
from scheduling_project.drills.system import System

PAUSE = 0.02  # seconds between two looks into the queues


def messages_doubled(system: System) -> None:
    """Every message that waits in a queue is there twice, with a backlog of 200."""
    start_backlog(system.path, seconds=0.2)
    until = time.monotonic() + system.seconds(20, 5)
    doubled = double_until(until)
    system.figures["messages_doubled"] = doubled
    if doubled < 20:
        system.problems.append(f"only {doubled} messages could be doubled: the drill proves nothing")


def double_until(deadline: float) -> int:
    """Push a copy of each waiting message, once each, until `deadline` on the monotonic clock. Returns how many.

    A copy has the delivery tag of the first, as one has that a broker delivers again.
    """
    broker = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    keys = [key_of(queue, level) for queue in settings.WORKFLOW_QUEUES for level in LEVELS]
    seen: set[str] = set()
    while time.monotonic() < deadline:
        for key in keys:
            waiting: list[str] = broker.lrange(key, 0, -1)  # type: ignore[assignment]
            fresh = {json.loads(message)["properties"]["delivery_tag"]: message for message in waiting}
            for tag in fresh.keys() - seen:
                broker.linsert(key, "BEFORE", fresh[tag], fresh[tag])  # side by side: while one runs, the other comes
            seen |= fresh.keys()
        time.sleep(PAUSE)
    return len(seen)
