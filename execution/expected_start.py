"""When something that waits may begin, from how fast it went lately. Estimates: bounded reads, no promise.

Each function answers None where nothing has happened lately that one could judge by.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from execution import engine

#: What counts as lately, in seconds.
LATELY: Final = 600
#: Ended executions of a workflow that tell how long it takes.
SAMPLE: Final = 20

# The latest attempts of all queues: a bounded number of rows, whatever the load.
_LATEST: Final = """
    SELECT step_run_id, started_at, finished_at FROM execution_attempt WHERE id > %(since)s::uuid
    ORDER BY id DESC LIMIT 1000
"""
QUEUE_PACE: Final = f"""
SELECT count(*) AS begun, extract(epoch FROM %(now)s::timestamptz - min(latest.started_at))::float8 AS seconds
FROM ({_LATEST}) latest
JOIN execution_steprun s ON s.id = latest.step_run_id WHERE s.queue = %(name)s::text
"""
POOL_PACE: Final = f"""
SELECT p.slots, extract(epoch FROM avg(latest.finished_at - latest.started_at))::float8 AS seconds,
       (SELECT coalesce(sum(w.pool_units), 0) FROM (
            SELECT w.pool_units FROM execution_steprun w
            WHERE w.pool = p.name AND w.state = 'waiting' AND w.waiting_for = 'pool'
              AND (w.priority, w.id) < (%(priority)s::int, %(id)s::uuid) LIMIT 10000) w)::int AS ahead
FROM execution_pool p
LEFT JOIN ({_LATEST}) latest ON latest.finished_at IS NOT NULL
    AND EXISTS (SELECT 1 FROM execution_steprun s WHERE s.id = latest.step_run_id AND s.pool = p.name)
WHERE p.name = %(name)s::text GROUP BY p.name, p.slots
"""
KEY_PACE: Final = """
SELECT extract(epoch FROM avg(ended.finished_at - ended.started_at))::float8 AS seconds,
       (SELECT min(h.started_at) FROM execution_execution h
        WHERE h.concurrency_key = %(name)s::text AND h.key_held) AS oldest,
       (SELECT count(*) FROM execution_execution h
        WHERE h.concurrency_key = %(name)s::text AND h.key_held)::int AS holders,
       (SELECT count(*) FROM (
            SELECT 1 FROM execution_execution w
            WHERE w.concurrency_key = %(name)s::text AND NOT w.key_held AND w.finished_at IS NULL
              AND (w.priority, w.id) < (%(priority)s::int, %(id)s::uuid) LIMIT 10000) w)::int AS ahead
FROM (SELECT e.started_at, e.finished_at FROM execution_execution e
      WHERE e.workflow_id = %(workflow)s::uuid AND e.finished_at IS NOT NULL AND e.started_at IS NOT NULL
      ORDER BY e.id DESC LIMIT %(sample)s::int) ended
"""


def in_queue(name: str, *, ahead: int, now: datetime) -> datetime | None:
    """When the next of a queue begins after `ahead` others have."""
    row = engine.fetch_all(QUEUE_PACE, {"name": name, "since": _since(now), "now": now}, using="default")[0]
    return now + timedelta(seconds=ahead * max(row.seconds, 0.001) / row.begun) if row.begun else None


def of_pool(name: str, *, step_run: UUID, priority: int, units: int, now: datetime) -> datetime | None:
    """When so many units of a pool are free for a step run: those who came before get theirs first."""
    params = {"name": name, "since": _since(now), "priority": priority, "id": step_run}
    row = engine.fetch_one(POOL_PACE, params, using="default")
    if row is None or row.seconds is None or not row.slots:
        return None
    return now + timedelta(seconds=(row.ahead + units) * row.seconds / row.slots)


def of_key(name: str, *, execution: UUID, workflow: UUID, priority: int, now: datetime) -> datetime | None:
    """When a concurrency key has a place for an execution, if its holders take as long as its workflow lately did."""
    params = {"name": name, "id": execution, "workflow": workflow, "priority": priority, "sample": SAMPLE}
    row = engine.fetch_one(KEY_PACE, params, using="default")
    if row is None or row.seconds is None or not row.holders:
        return None
    takes = timedelta(seconds=row.seconds)
    first: datetime = max(now, (row.oldest or now) + takes)
    return first + int(row.ahead // row.holders) * takes


def _since(now: datetime) -> UUID:
    """The least UUIDv7 of what happened lately."""
    return UUID(int=int((now - timedelta(seconds=LATELY)).timestamp() * 1000) << 80)
