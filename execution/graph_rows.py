"""The statements by which an execution advances through its graph, and those that find what is due in it.

The rules are those of `execution.queue`: whoever decides about several step runs holds the execution's row first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from execution import engine
from execution.finishing import letter_news
from execution.items import ItemError
from execution.queue import CLOCK, Hint
from scheduling_project.common.ids import uuid7

# Everything that decides about several step runs of an execution holds its row first.
HOLD = """
SELECT e.id, e.version_id, e.state, e.input, e.priority, e.queue, e.source_kind, e.source_id, e.scheduled_for,
       e.created_at, e.failed_steps, w.name AS workflow_name
FROM execution_execution e JOIN execution_workflow w ON w.id = e.workflow_id
WHERE e.id = %(id)s::uuid FOR NO KEY UPDATE OF e
"""


def hold(execution_id: UUID, *, using: str | None = None) -> Any | None:
    """Lock an execution in the open transaction and return its row (`input` as JSON text)."""
    return engine.fetch_one(HOLD, {"id": execution_id}, using=using)


RIPE = """
SELECT id, name FROM execution_steprun
WHERE execution_id = %(id)s::uuid AND state = 'waiting' AND waiting_for = 'needs' AND needs_open = 0 ORDER BY id
"""


def ripe(execution_id: UUID, *, using: str | None = None) -> list[Any]:
    """Step runs whose needs are met and about which nothing has been decided yet."""
    return engine.fetch_all(RIPE, {"id": execution_id}, using=using)


STEP_RESULTS = """
SELECT s.name, s.state, o.data FROM execution_steprun s LEFT JOIN execution_stepoutput o ON o.step_run_id = s.id
WHERE s.execution_id = %(id)s::uuid AND s.parent_id IS NULL AND s.finished_at IS NOT NULL
  AND (%(names)s::text[] IS NULL OR s.name = ANY(%(names)s::text[]))
"""


def step_results(
    execution_id: UUID, *, names: Sequence[str] | None, using: str | None = None
) -> dict[str, dict[str, Any]]:
    """State and output of the ended steps, by name: all of them, or `names` only."""
    params = {"id": execution_id, "names": None if names is None else list(names)}
    return {
        row.name: {"state": row.state, "output": engine.load_json(row.data)}
        for row in engine.fetch_all(STEP_RESULTS, params, using=using)
    }


# Race: the sweep and a finishing worker decide about the same ripe step run: both hold the execution, and the
# second finds it no longer waiting for its needs.
DECIDE = f"""
WITH {CLOCK}
UPDATE execution_steprun s
SET state = CASE WHEN %(waiting_for)s::text IS NULL THEN 'queued' ELSE 'waiting' END,
    waiting_for = %(waiting_for)s::text,
    available_at = clock.now + make_interval(secs => %(delay)s::float8),
    dispatched_at = CASE WHEN %(waiting_for)s::text IS NULL THEN clock.now END,
    dispatches = CASE WHEN %(waiting_for)s::text IS NULL THEN 1 ELSE 0 END,
    items_open = %(items)s::int, state_reason = ''
FROM clock WHERE s.id = %(id)s::uuid AND s.state = 'waiting' AND s.waiting_for = 'needs'
RETURNING s.id, s.label, s.queue, s.priority, s.timeout, s.attempt
"""


def decide(
    step_run_id: UUID,
    *,
    waiting_for: str | None,
    delay: float = 0.0,
    items: int = 0,
    now: datetime | None = None,
    using: str | None = None,
) -> Hint | None:
    """Let a ripe step run go on: queued (`waiting_for` None), or waiting for a timer, approval or child.

    Args:
        delay: seconds until a timer is due or an approval expires.
        items: how many fan-out items it waits for.
    """
    params = {"id": step_run_id, "waiting_for": waiting_for, "delay": delay, "items": items, "now": now}
    row = engine.fetch_one(DECIDE, params, using=using)
    return None if row is None else Hint(*row)


# The first `parallel` items are queued and marked as handed over, up to the in-flight bound; the others are queued
# for the sweep, or wait for a place among the parallel ones.
FAN_OUT = f"""
WITH {CLOCK}
INSERT INTO execution_steprun (id, execution_id, parent_id, name, item_index, item, kind, label, queue, priority,
    timeout, state, waiting_for, needs_open, available_at, dispatched_at, dispatches, state_reason, items_open,
    items_failed, attempt, failures, worker_deaths, worker, pool, pool_units, created_at)
SELECT i.id, p.execution_id, p.id, p.name, i.position - 1, i.item::jsonb, p.kind, p.label, p.queue, p.priority,
    p.timeout, CASE WHEN i.position <= %(parallel)s::int THEN 'queued' ELSE 'waiting' END,
    CASE WHEN i.position <= %(parallel)s::int THEN NULL ELSE 'needs' END,
    CASE WHEN i.position <= %(parallel)s::int THEN 0 ELSE 1 END, clock.now,
    CASE WHEN i.position <= least(%(parallel)s::int, %(bound)s::int) THEN clock.now END,
    CASE WHEN i.position <= least(%(parallel)s::int, %(bound)s::int) THEN 1 ELSE 0 END, '', 0, 0, 0, 0, 0, '',
    p.pool, p.pool_units, clock.now
FROM unnest(%(ids)s::uuid[], %(items)s::text[]) WITH ORDINALITY AS i(id, item, position), execution_steprun p, clock
WHERE p.id = %(parent)s::uuid
RETURNING id, label, queue, priority, timeout, attempt, dispatched_at IS NOT NULL AS dispatched
"""


def fan_out(
    parent_id: UUID,
    *,
    items: Sequence[Any],
    parallel: int | None,
    bound: int,
    now: datetime | None = None,
    using: str | None = None,
) -> list[Hint]:
    """Create the items of a fan-out; returns hints for those to publish after the commit."""
    params = {
        "parent": parent_id,
        "ids": [uuid7() for _ in items],
        "items": [engine.dump_json(item) for item in items],
        "parallel": len(items) if parallel is None else parallel,
        "bound": bound,
        "now": now,
    }
    return [Hint(*row[:6]) for row in engine.fetch_all(FAN_OUT, params, using=using) if row.dispatched]


# Race: an item is claimed or ends while the others are stopped. The execution's row is held, so no other end counts the
# parent's items meanwhile; a claim that was first leaves a row that runs, which the UPDATE re-reads and spares.
STOP_ITEMS = f"""
WITH {CLOCK},
stopped AS (
    UPDATE execution_steprun s
    SET state = 'skipped', state_reason = %(reason)s::text, waiting_for = NULL, finished_at = clock.now,
        dispatched_at = NULL
    FROM clock WHERE s.parent_id = %(parent)s::uuid
      AND (s.state IN ('queued', 'retryable') OR (s.state = 'waiting' AND s.waiting_for <> 'child'))
    RETURNING s.id
)
UPDATE execution_steprun p SET items_open = p.items_open - (SELECT count(*) FROM stopped)::int
WHERE p.id = %(parent)s::uuid
RETURNING p.items_open
"""


def stop_items(parent_id: UUID, *, reason: str, now: datetime | None = None, using: str | None = None) -> int:
    """Skip the items of a fan-out that are not under way; returns how many are. The execution's row is held."""
    row = engine.fetch_one(STOP_ITEMS, {"parent": parent_id, "reason": reason[:500], "now": now}, using=using)
    assert row is not None
    open_items: int = row.items_open
    return open_items


ITEM_COUNT = """
SELECT i.item_index + 1 AS total FROM execution_steprun p
JOIN execution_steprun i ON i.execution_id = p.execution_id AND i.name = p.name AND i.item_index IS NOT NULL
WHERE p.id = %(parent)s::uuid ORDER BY i.item_index DESC LIMIT 1
"""


def item_count(parent_id: UUID, *, using: str | None = None) -> int:
    """How many items a fan-out has, without counting them: its last one's place tells."""
    row = engine.fetch_one(ITEM_COUNT, {"parent": parent_id}, using=using)
    total: int = 0 if row is None else row.total
    return total


ITEM_ERRORS = """
SELECT s.item_index, coalesce(a.error_type, '') AS error_type, coalesce(nullif(a.error, ''), s.state_reason) AS error
FROM execution_steprun s LEFT JOIN execution_attempt a ON a.id = s.last_token
WHERE s.parent_id = %(parent)s::uuid AND s.state = 'failed' ORDER BY s.item_index LIMIT %(limit)s::int
"""


def item_errors(parent_id: UUID, *, limit: int, using: str | None = None) -> list[ItemError]:
    """Why the first failed items of a fan-out failed, in order."""
    rows = engine.fetch_all(ITEM_ERRORS, {"parent": parent_id, "limit": limit}, using=using)
    return [ItemError(*row) for row in rows]


ITEM_RESULTS = """
SELECT s.state, o.data FROM execution_steprun s LEFT JOIN execution_stepoutput o ON o.step_run_id = s.id
WHERE s.parent_id = %(parent)s::uuid ORDER BY s.item_index
"""


def item_results(parent_id: UUID, *, using: str | None = None) -> list[tuple[str, str | None]]:
    """State and output (JSON text) of every item of a fan-out, in order."""
    return [(row.state, row.data) for row in engine.fetch_all(ITEM_RESULTS, {"parent": parent_id}, using=using)]


KEEP_OUTPUT = """
INSERT INTO execution_executionoutput (execution_id, data) VALUES (%(id)s::uuid, %(data)s::jsonb)
ON CONFLICT (execution_id) DO UPDATE SET data = excluded.data
"""


def keep_execution_output(execution_id: UUID, output: Any, *, using: str | None = None) -> None:
    """Store what an execution returns."""
    engine.fetch_all(KEEP_OUTPUT, {"id": execution_id, "data": engine.dump_json(output)}, using=using)


# The execution's own last step: its steps succeeded, but what it was to return could not be made of them. What the
# finishing statement of the same transaction said of its success is corrected before anybody can read it.
FAIL_OUTPUT = f"""
WITH {CLOCK},
failed AS (
    UPDATE execution_execution SET state = 'failed', failed_steps = failed_steps + 1, state_reason = %(reason)s::text
    WHERE id = %(id)s::uuid AND state = 'succeeded' RETURNING id, workflow_id, source_kind, news_topic
), told AS (
    UPDATE execution_news n SET data = jsonb_build_object('state', 'failed') FROM failed
    WHERE n.execution_id = failed.id AND n.topic = failed.news_topic
), redriven AS (
    UPDATE execution_deadletter d SET state = 'open', decided_at = NULL FROM failed
    WHERE failed.source_kind = 'redrive' AND d.redrive_execution_id = failed.id AND d.state = 'resolved'
), lettered AS (
    INSERT INTO execution_deadletter (id, execution_id, step_run_id, workflow_id, step_name, reason, error_type, error,
        traceback, fingerprint, attempts, worker, state, note, redrives, decided_by, created_at)
    SELECT %(letter_id)s::uuid, id, NULL, workflow_id, '', 'output', 'ExpressionError', %(reason)s::text, '',
        %(fingerprint)s::text, 0, '', 'open', '', 0, '', clock.now FROM failed, clock
    ON CONFLICT (execution_id, step_run_id) WHERE state IN ('open', 'redriving') DO UPDATE
    SET state = 'open', error = excluded.error
    RETURNING id, execution_id, workflow_id, step_name, reason, error_type, fingerprint
){letter_news("lettered")}
SELECT id FROM lettered
"""


def fail_output(
    execution_id: UUID, *, reason: str, fingerprint: str, now: datetime | None = None, using: str | None = None
) -> None:
    """Turn an execution whose output cannot be evaluated into a failed one with a dead letter, before the commit."""
    params = {
        "id": execution_id,
        "reason": reason[:500],
        "letter_id": uuid7(),
        "fingerprint": fingerprint,
        "now": now,
    }
    engine.fetch_all(FAIL_OUTPUT, params, using=using)


DUE_TIMERS = f"""
WITH {CLOCK}
SELECT s.id, s.execution_id, s.name, s.waiting_for, e.version_id
FROM execution_steprun s JOIN execution_execution e ON e.id = s.execution_id
WHERE s.state = 'waiting' AND s.waiting_for IN ('timer', 'approval') AND s.available_at <= (SELECT now FROM clock)
  AND e.state <> 'paused'
ORDER BY s.available_at LIMIT %(limit)s::int
"""


def due_timers(*, limit: int, now: datetime | None = None) -> list[Any]:
    """Step runs whose durable sleep is over or whose approval has expired."""
    return engine.fetch_all(DUE_TIMERS, {"limit": limit, "now": now})


# A worker that died between a finish and the decision cannot leave anything here (one transaction), but a bug or a
# hand-made UPDATE could: the sweep decides it and says so.
FORGOTTEN = f"""
WITH {CLOCK}
SELECT DISTINCT s.execution_id, e.version_id
FROM execution_steprun s JOIN execution_execution e ON e.id = s.execution_id
WHERE s.state = 'waiting' AND s.waiting_for = 'needs' AND s.needs_open = 0
  AND e.finished_at IS NULL AND s.available_at < (SELECT now FROM clock) - interval '30 seconds'
LIMIT %(limit)s::int
"""


def forgotten(*, limit: int, now: datetime | None = None) -> list[Any]:
    """Executions with a step run whose needs were met a while ago and about which nobody decided."""
    return engine.fetch_all(FORGOTTEN, {"limit": limit, "now": now})


OVERDUE = f"""
WITH {CLOCK}
SELECT id FROM execution_execution
WHERE finished_at IS NULL AND deadline_at IS NOT NULL AND deadline_at < (SELECT now FROM clock)
ORDER BY deadline_at LIMIT %(limit)s::int
"""


def overdue(*, limit: int, now: datetime | None = None) -> list[UUID]:
    """Open executions past their deadline."""
    return [row.id for row in engine.fetch_all(OVERDUE, {"limit": limit, "now": now})]


TELL = f"""
WITH {CLOCK}
INSERT INTO execution_news (topic, execution_id, subject, data, created_at)
SELECT %(topic)s::text, %(id)s::uuid, '', %(data)s::jsonb, clock.now FROM clock
"""


def tell(topic: str, *, execution_id: UUID, data: Any, now: datetime | None = None, using: str | None = None) -> None:
    """Leave durable news in the open transaction (`execution.news` takes them)."""
    params = {"topic": topic, "id": execution_id, "data": engine.dump_json(data), "now": now}
    engine.fetch_all(TELL, params, using=using)
