"""Concurrency keys and pools: who may run now, and who is next when somebody is done.

A key bounds executions, a pool bounds attempts of steps. Places and units are counted in the row of the key or pool,
changed only under its lock (counting holders would overbook). Waiting work is a parked row: no slot, no worker, no
message. What gives a place back may do so in any statement, since a holder that has ended shows by itself
(`key_held`, `pool_held` on a row that no longer runs); `release` then passes places on at once, and the worker's
housekeeping calls it every second for what a crash left behind. Order of locking: execution, step runs, pool, key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.dispatch import receiver

from execution import advance, cancellation, dispatch, engine, graph_rows, queue
from execution.plans import plan_by_id
from execution.queue import CLOCK, Hint
from execution.signals import announce_freed, capacity_freed

BATCH = 200


@dataclass(frozen=True, slots=True)
class Wish:
    """A new execution that wants a place of a key."""

    execution_id: UUID
    key: str
    limit: int
    on_conflict: str


# Race: two first executions of a key. The insert makes the row, or waits for the other's and updates it; either way
# this transaction then holds the key's lock, and reads what is committed.
HOLD_KEY = """
INSERT INTO execution_concurrencykey (key, "limit", used, updated_at) VALUES (%(key)s::text, %(limit)s::int, 0, now())
ON CONFLICT (key) DO UPDATE SET "limit" = excluded."limit", updated_at = now()
RETURNING "limit", used
"""

GRANT_KEY = """
WITH granted AS (
    UPDATE execution_execution SET key_held = true
    WHERE id = %(id)s::uuid AND finished_at IS NULL AND NOT key_held RETURNING id
), counted AS (
    UPDATE execution_concurrencykey SET used = used + 1, updated_at = now()
    WHERE key = %(key)s::text AND EXISTS (SELECT 1 FROM granted)
)
SELECT id FROM granted
"""

# First steps go back to what they would have been without a key: waiting for a decision, with nothing open.
UNPARK_KEY = """
UPDATE execution_steprun SET waiting_for = 'needs', state_reason = ''
WHERE execution_id = %(id)s::uuid AND state = 'waiting' AND waiting_for = 'key'
"""

HOLDERS = """
SELECT id FROM execution_execution WHERE concurrency_key = %(key)s::text AND key_held AND finished_at IS NULL
ORDER BY id
"""

# Places of executions that have ended (or that a crash left counted) come back.
FREE_KEYS = """
WITH ended AS MATERIALIZED (
    SELECT id, concurrency_key FROM execution_execution
    WHERE key_held AND finished_at IS NOT NULL ORDER BY id LIMIT %(limit)s::int FOR NO KEY UPDATE SKIP LOCKED
), freed AS (
    UPDATE execution_execution e SET key_held = false FROM ended WHERE e.id = ended.id AND e.key_held
    RETURNING e.concurrency_key
), counted AS (
    UPDATE execution_concurrencykey k SET used = greatest(k.used - f.n, 0), updated_at = now()
    FROM (SELECT concurrency_key, count(*)::int AS n FROM freed GROUP BY concurrency_key) f
    WHERE k.key = f.concurrency_key
)
SELECT count(*) AS n FROM freed
"""

KEYS_TO_GRANT = f"""
WITH {CLOCK}
SELECT k.key FROM execution_concurrencykey k
WHERE k.used < k."limit" AND EXISTS (
    SELECT 1 FROM execution_execution e
    WHERE e.concurrency_key = k.key AND NOT e.key_held AND e.finished_at IS NULL AND e.concurrency_key <> ''
      AND EXISTS (SELECT 1 FROM execution_steprun s WHERE s.execution_id = e.id AND s.state = 'waiting'
                  AND s.waiting_for = 'key' AND s.available_at <= (SELECT now FROM clock)))
ORDER BY k.key LIMIT %(limit)s::int
"""

# The oldest of each priority, then the first of those: what has waited long counts as more urgent, by the rule of
# aging in `execution.queue_order`.
NEXT_FOR_KEY = f"""
WITH {CLOCK}
SELECT f.id, f.version_id FROM generate_series(0, 9) AS p(priority) CROSS JOIN LATERAL (
    SELECT e.id, e.version_id, e.created_at FROM execution_execution e
    WHERE e.concurrency_key = %(key)s::text AND e.concurrency_key <> '' AND NOT e.key_held AND e.finished_at IS NULL
      AND e.state <> 'paused' AND e.priority = p.priority
      AND EXISTS (SELECT 1 FROM execution_steprun s WHERE s.execution_id = e.id AND s.state = 'waiting'
                  AND s.waiting_for = 'key' AND s.available_at <= (SELECT now FROM clock))
    ORDER BY e.id LIMIT 1
) f, clock
ORDER BY CASE WHEN %(aging)s::float8 > 0
    THEN greatest(0, p.priority - floor(extract(epoch FROM clock.now - f.created_at) / %(aging)s::float8))
    ELSE p.priority END, f.id
LIMIT 1
"""

FREE_POOLS = """
WITH idle AS MATERIALIZED (
    SELECT id, pool, pool_held FROM execution_steprun
    WHERE pool_held > 0 AND state <> 'running' ORDER BY id LIMIT %(limit)s::int FOR NO KEY UPDATE SKIP LOCKED
), freed AS (
    UPDATE execution_steprun s SET pool_held = 0 FROM idle
    WHERE s.id = idle.id AND s.pool_held > 0 AND s.state <> 'running' RETURNING idle.pool, idle.pool_held
), counted AS (
    UPDATE execution_pool p SET used = greatest(p.used - f.units, 0), updated_at = now()
    FROM (SELECT pool, sum(pool_held)::int AS units FROM freed GROUP BY pool) f WHERE p.name = f.pool
)
SELECT count(*) AS n FROM freed
"""

# Race: a refusal that is just parking its row. It does so under the pool's lock, which this takes first, in a
# statement of its own: the next one sees what was parked. As many rows are queued as there are free units; the claim
# takes the units, so a row that came too late is parked again. What does not fit is passed over until it has aged;
# from then on what comes behind it waits until it fits.
HOLD_POOLS = """
SELECT name, slots, slots - used AS free FROM execution_pool
WHERE used < slots AND EXISTS (SELECT 1 FROM execution_steprun s
    WHERE s.pool = execution_pool.name AND s.state = 'waiting' AND s.waiting_for = 'pool')
ORDER BY name FOR NO KEY UPDATE
"""

UNPARK_POOL = f"""
WITH {CLOCK},
next AS MATERIALIZED (
    SELECT id FROM (
        SELECT s.id, sum(s.pool_units) OVER (ORDER BY s.priority, s.id) AS through
        FROM (SELECT id, priority, pool_units FROM execution_steprun
              WHERE pool = %(pool)s::text AND state = 'waiting' AND waiting_for = 'pool'
                AND (pool_units <= %(free)s::int OR (aged > 0 AND pool_units <= %(slots)s::int))
              ORDER BY priority, id LIMIT %(free)s::int) s
    ) ranked WHERE through <= %(free)s::int
)
UPDATE execution_steprun s
SET state = 'queued', waiting_for = NULL, state_reason = '', available_at = least(s.available_at, clock.now),
    dispatched_at = clock.now, dispatches = 1
FROM next, clock WHERE s.id = next.id AND s.state = 'waiting' AND s.waiting_for = 'pool'
RETURNING s.id, s.label, s.queue, s.priority, s.timeout, s.attempt
"""


def admit(wishes: Sequence[Wish], *, now: datetime | None, using: str | None) -> None:
    """Give new executions a place of their key, or let them wait, be skipped, or cancel the older: in the creating
    transaction. Keys are taken in order, so that two creators cannot wait for each other."""
    for wish in sorted(wishes, key=lambda wish: (wish.key, wish.execution_id)):
        held = engine.fetch_one(HOLD_KEY, {"key": wish.key, "limit": wish.limit}, using=using)
        assert held is not None
        if held.used >= held.limit and wish.on_conflict == "skip":
            queue.cancel(wish.execution_id, reason=f"skipped: {wish.key} was busy", now=now, using=using)
        elif held.used < held.limit:
            _grant(wish.execution_id, wish.key, now=now, using=using)
        elif wish.on_conflict == "cancel_older":
            for row in engine.fetch_all(HOLDERS, {"key": wish.key}, using=using):
                cancellation.cancel(
                    row.id, reason=f"cancelled by a newer execution of {wish.key}", now=now, using=using
                )
            announce_freed(using=using)


def _grant(execution_id: UUID, key: str, *, now: datetime | None, using: str | None) -> bool:
    if not engine.fetch_all(GRANT_KEY, {"id": execution_id, "key": key}, using=using):
        return False
    engine.fetch_all(UNPARK_KEY, {"id": execution_id}, using=using)
    held = graph_rows.hold(execution_id, using=using)
    assert held is not None
    advance.decide_ripe(execution_id, plan_by_id(held.version_id), now=now, using=using)
    return True


@receiver(capacity_freed)
def _pass_on(**_: object) -> None:
    release()


def release(*, now: datetime | None = None) -> int:
    """Take back the places of what has ended and give them to the next by priority and age.

    Safe to call anywhere, any number of times at once. Returns how many executions and steps may go on.
    """
    with engine.transaction():
        engine.fetch_all(FREE_KEYS, {"limit": BATCH})
    with engine.transaction():
        engine.fetch_all(FREE_POOLS, {"limit": BATCH})
    went_on = 0
    for row in engine.fetch_all(KEYS_TO_GRANT, {"limit": BATCH, "now": now}):
        while _grant_next(row.key, now=now):
            went_on += 1
    return went_on + len(_unpark_pools(now=now))


def _grant_next(key: str, *, now: datetime | None) -> bool:
    with engine.transaction():
        row = engine.fetch_one(
            'SELECT "limit", used FROM execution_concurrencykey WHERE key = %(key)s::text FOR NO KEY UPDATE',
            {"key": key},
        )
        if row is None or row.used >= row.limit:
            return False
        following = engine.fetch_one(NEXT_FOR_KEY, {"key": key, "now": now, "aging": settings.WORKFLOW_AGING_SECONDS})
        return following is not None and _grant(following.id, key, now=now, using=None)


def _unpark_pools(*, now: datetime | None) -> list[Hint]:
    with engine.transaction():
        hints = [
            Hint(*row)
            for pool in engine.fetch_all(HOLD_POOLS, {})
            for row in engine.fetch_all(
                UNPARK_POOL, {"pool": pool.name, "free": pool.free, "slots": pool.slots, "now": now}
            )
        ]
        dispatch.publish_on_commit(hints)
    return hints
