"""The statements that mark step runs as handed over to the broker, and that notice when it lost its messages.

The rules are those of `execution.queue`. A mark is committed before its message is sent; both may be lost or come
twice, and nothing but time is lost with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from execution import engine
from execution.queue import CLOCK, Hint

# The sweep. Due and never handed over: by lane and level, oldest first, as many as the level's window has room for.
# Races between sweeps: SKIP LOCKED gives each its own rows; the window may then be overshot by one batch, never lost.
MARK_DUE = f"""
WITH {CLOCK},
level AS MATERIALIZED (
    SELECT q.name AS queue, p.priority,
           %(bound)s::int - (
               SELECT count(*) FROM (
                   SELECT 1 FROM execution_steprun f
                   WHERE f.queue = q.name AND f.priority = p.priority AND f.state IN ('queued', 'retryable')
                     AND f.dispatched_at IS NOT NULL LIMIT %(bound)s::int
               ) in_flight
           ) AS room
    FROM unnest(%(queues)s::text[]) AS q(name), generate_series(0, 9) AS p(priority)
    WHERE NOT EXISTS (SELECT 1 FROM execution_queuesettings s WHERE s.name = q.name AND s.paused_at IS NOT NULL)
      AND EXISTS (
          SELECT 1 FROM execution_steprun w
          WHERE w.queue = q.name AND w.priority = p.priority AND w.state IN ('queued', 'retryable')
            AND w.dispatched_at IS NULL AND w.available_at <= (SELECT now FROM clock)
      )
), due AS MATERIALIZED (
    SELECT s.id FROM level
    CROSS JOIN LATERAL (
        SELECT w.id FROM execution_steprun w
        JOIN execution_execution e ON e.id = w.execution_id AND e.state <> 'paused'
        WHERE w.queue = level.queue AND w.priority = level.priority AND w.state IN ('queued', 'retryable')
          AND w.dispatched_at IS NULL AND w.available_at <= (SELECT now FROM clock)
        ORDER BY w.available_at, w.id LIMIT greatest(level.room, 0)
        FOR NO KEY UPDATE OF w SKIP LOCKED
    ) s
), marked AS (
    UPDATE execution_steprun s SET dispatched_at = clock.now, dispatches = 1
    FROM due, clock WHERE s.id = due.id AND s.state IN ('queued', 'retryable') AND s.dispatched_at IS NULL
    RETURNING s.id, s.label, s.queue, s.priority, s.timeout, s.attempt, s.available_at
)
SELECT id, label, queue, priority, timeout, attempt FROM marked ORDER BY queue, priority, available_at, id
"""

# Handed over and still unclaimed after 30 s · 2^n (two minutes at most): the message may be lost, send another.
MARK_STALE = f"""
WITH {CLOCK},
stale AS MATERIALIZED (
    SELECT s.id FROM execution_steprun s
    JOIN execution_execution e ON e.id = s.execution_id AND e.state <> 'paused'
    WHERE s.queue = ANY(%(queues)s::text[]) AND s.state IN ('queued', 'retryable')
      AND s.dispatched_at < (SELECT now FROM clock)
          - make_interval(secs => %(patience)s::float8 * least(2 ^ greatest(s.dispatches - 1, 0), 4))
      AND NOT EXISTS (SELECT 1 FROM execution_queuesettings q WHERE q.name = s.queue AND q.paused_at IS NOT NULL)
    ORDER BY s.dispatched_at LIMIT %(limit)s::int
    FOR NO KEY UPDATE OF s SKIP LOCKED
)
UPDATE execution_steprun s SET dispatched_at = clock.now, dispatches = least(s.dispatches + 1, 30)
FROM stale, clock WHERE s.id = stale.id
RETURNING s.id, s.label, s.queue, s.priority, s.timeout, s.attempt
"""


def mark_due(*, queues: Sequence[str], bound: int, now: datetime | None = None, using: str | None = None) -> list[Hint]:
    """Mark due step runs as handed over, `bound` in flight per queue and priority level; publish after commit."""
    params = {"queues": list(queues), "bound": bound, "now": now}
    return [Hint(*row) for row in engine.fetch_all(MARK_DUE, params, using=using)]


def mark_stale(*, queues: Sequence[str], patience: float, limit: int, now: datetime | None = None) -> list[Hint]:
    """Mark again what was handed over `patience` · 2^n seconds ago and never claimed."""
    params = {"queues": list(queues), "patience": patience, "limit": limit, "now": now}
    return [Hint(*row) for row in engine.fetch_all(MARK_STALE, params)]


NEXT_DUE = """
SELECT extract(epoch FROM min(next.available_at) - clock_timestamp())::float8 AS seconds
FROM unnest(%(queues)s::text[]) AS q(name), generate_series(0, 9) AS p(priority), LATERAL (
    SELECT s.available_at FROM execution_steprun s
    WHERE s.queue = q.name AND s.priority = p.priority AND s.state IN ('queued', 'retryable')
      AND s.dispatched_at IS NULL AND s.available_at > now()
      AND s.available_at < now() + make_interval(secs => %(within)s::float8)
    ORDER BY s.available_at LIMIT 1
) next
WHERE NOT EXISTS (SELECT 1 FROM execution_queuesettings o WHERE o.name = q.name AND o.paused_at IS NOT NULL)
"""


def next_due(*, queues: Sequence[str], within: float) -> float | None:
    """Seconds until something becomes due that was not sent (a retry, a rate limit's instant), if `within` so many."""
    row = engine.fetch_one(NEXT_DUE, {"queues": list(queues), "within": within})
    return None if row is None or row.seconds is None else max(0.0, row.seconds)


UNMARK_ALL = """
UPDATE execution_steprun SET dispatched_at = NULL, dispatches = 0
WHERE state IN ('queued', 'retryable') AND dispatched_at IS NOT NULL
RETURNING id
"""


def unmark_all() -> int:
    """Forget every hand-over: the broker has lost its messages. Returns how many there were."""
    return len(engine.fetch_all(UNMARK_ALL, {}))


# Race: the hint was claimed before its sender learned that the broker failed: only unclaimed rows are unmarked.
UNMARK = """
UPDATE execution_steprun SET dispatched_at = NULL, dispatches = 0
WHERE id = ANY(%(ids)s::uuid[]) AND state IN ('queued', 'retryable') AND dispatched_at IS NOT NULL
"""


def unmark(step_run_ids: Sequence[UUID]) -> None:
    """Take back the hand-over of step runs whose hints could not be sent."""
    engine.fetch_all(UNMARK, {"ids": list(step_run_ids)})


# ── The broker's epoch ──


@dataclass(frozen=True, slots=True)
class Epoch:
    """One life of the broker: its id, and how many sweeps have seen it."""

    epoch: UUID
    counter: int


def broker_epoch() -> Epoch | None:
    """The life of the broker that was last seen."""
    row = engine.fetch_one("SELECT epoch, counter FROM execution_brokerepoch WHERE broker = 'default'", {})
    return None if row is None else Epoch(row.epoch, row.counter)


# Race: sweeps finish in another order than they asked Redis: the counter only ever grows.
REMEMBER_EPOCH = """
INSERT INTO execution_brokerepoch (broker, epoch, counter, resets, changed_at)
VALUES ('default', %(epoch)s::uuid, %(counter)s::bigint, 0, clock_timestamp())
ON CONFLICT (broker) DO UPDATE SET counter = greatest(execution_brokerepoch.counter, excluded.counter)
WHERE execution_brokerepoch.epoch = excluded.epoch
"""


def remember_epoch(epoch: UUID, counter: int) -> None:
    """Keep the counter of the broker's known life, or its first one."""
    engine.fetch_all(REMEMBER_EPOCH, {"epoch": epoch, "counter": counter})


# Race: every sweep notices a flushed broker at once. Compare-and-set lets one of them forget the hand-overs, so
# that what is published meanwhile is not forgotten again.
CHANGE_EPOCH = """
UPDATE execution_brokerepoch
SET epoch = %(epoch)s::uuid, counter = %(counter)s::bigint, resets = resets + 1, changed_at = clock_timestamp()
WHERE broker = 'default' AND epoch = %(old_epoch)s::uuid AND counter >= %(old_counter)s::bigint
  AND NOT (epoch = %(epoch)s::uuid AND counter < %(counter)s::bigint)
RETURNING broker
"""


def change_epoch(*, expected: Epoch, epoch: UUID, counter: int) -> bool:
    """Remember another life of the broker; False when somebody else already has."""
    params = {"epoch": epoch, "counter": counter, "old_epoch": expected.epoch, "old_counter": expected.counter}
    return bool(engine.fetch_all(CHANGE_EPOCH, params))
