"""The statements of child executions. The rules are those of `execution.queue`.

A child's id is the lease token of the attempt that started it: one attempt of a `workflow` step has at most one child,
and who knows the one knows the other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from execution import engine
from execution.queue import CLOCK

#: `source_kind` of a child; its `source_id` is the execution that called it.
SOURCE = "child"

# Race: the attempt that starts a child may be a zombie, or its execution was cancelled: the token fences it, and the
# child is created in the same transaction, so without this row there is no child.
PARK = """
UPDATE execution_steprun s
SET state = 'waiting', waiting_for = 'child', state_reason = '', last_token = s.lease_token, lease_token = NULL,
    lease_until = NULL, dispatched_at = NULL, dispatches = 0
WHERE s.id = %(id)s::uuid AND s.lease_token = %(token)s::uuid
RETURNING s.pool_held > 0 AS frees
"""

NAME_CHILD = """
UPDATE execution_attempt SET progress = jsonb_build_object('child', id) WHERE id = %(token)s::uuid
"""


def park(step_run_id: UUID, token: UUID, *, using: str | None = None) -> bool | None:
    """Let a running step run wait for the child that the open transaction creates, without lease and slot.

    Returns whether it gave back units of a pool; None when `token` does not hold it any more.
    """
    row = engine.fetch_one(PARK, {"id": step_run_id, "token": token}, using=using)
    if row is None:
        return None
    engine.fetch_all(NAME_CHILD, {"token": token}, using=using)
    return bool(row.frees)


LINE = """
WITH RECURSIVE line AS (
    SELECT e.id, e.workflow_id, e.source_kind, e.source_id, 0 AS depth
    FROM execution_execution e WHERE e.id = %(id)s::uuid
    UNION ALL
    SELECT p.id, p.workflow_id, p.source_kind, p.source_id, l.depth + 1
    FROM line l JOIN execution_execution p
      ON p.id = CASE WHEN l.source_kind = 'child' THEN l.source_id::uuid END
    WHERE l.depth < 100
)
SELECT line.workflow_id, w.name FROM line JOIN execution_workflow w ON w.id = line.workflow_id ORDER BY line.depth DESC
"""


def line(execution_id: UUID) -> list[Any]:
    """The workflows on the way from the first caller down to an execution (`workflow_id`, `name`)."""
    return engine.fetch_all(LINE, {"id": execution_id})


CALLER = """
SELECT s.execution_id FROM execution_attempt a JOIN execution_steprun s ON s.id = a.step_run_id
WHERE a.id = %(child)s::uuid
"""

WAITING = """
SELECT s.id, s.name, s.parent_id, s.failures, e.version_id, e.retry_policy AS source_retry,
       w.retry_policy AS workflow_retry
FROM execution_steprun s
JOIN execution_execution e ON e.id = s.execution_id
JOIN execution_workflow w ON w.id = e.workflow_id
WHERE s.last_token = %(child)s::uuid AND s.execution_id = %(execution_id)s::uuid
  AND s.state = 'waiting' AND s.waiting_for = 'child' AND s.lease_token IS NULL
FOR NO KEY UPDATE OF s
"""


def caller_of(child_id: UUID) -> UUID | None:
    """The execution whose attempt started this child; None when it is gone."""
    row = engine.fetch_one(CALLER, {"child": child_id})
    found: UUID | None = None if row is None else row.execution_id
    return found


def waiting_for(child_id: UUID, *, execution_id: UUID) -> Any | None:
    """The step run that waits for this child, locked; None when none does any more. The caller's row is held."""
    return engine.fetch_one(WAITING, {"child": child_id, "execution_id": execution_id})


CHILD = """
SELECT e.state, e.state_reason, w.name AS workflow_name, o.data AS output,
       coalesce(e.deadline_at <= e.finished_at, false) AS overdue,
       d.step_name, d.error_type, d.error
FROM execution_execution e
JOIN execution_workflow w ON w.id = e.workflow_id
LEFT JOIN execution_executionoutput o ON o.execution_id = e.id
LEFT JOIN LATERAL (
    SELECT l.step_name, l.error_type, l.error FROM execution_deadletter l
    WHERE l.execution_id = e.id AND l.state IN ('open', 'redriving') ORDER BY l.id LIMIT 1
) d ON true
WHERE e.id = %(child)s::uuid AND e.finished_at IS NOT NULL
"""


def child(child_id: UUID) -> Any | None:
    """What became of an ended child (`output` as JSON text, the first letter's error); None while it is open."""
    return engine.fetch_one(CHILD, {"child": child_id})


# Race: the caller is cancelled while its child's failure is decided: the state is named, and the row is locked.
AGAIN = f"""
WITH {CLOCK},
again AS (
    UPDATE execution_steprun s
    SET state = 'retryable', waiting_for = NULL, state_reason = %(reason)s::text, failures = s.failures + 1,
        available_at = greatest(coalesce(%(at)s::timestamptz, clock.now), clock.now),
        dispatched_at = NULL, dispatches = 0
    FROM clock
    WHERE s.id = %(id)s::uuid AND s.state = 'waiting' AND s.waiting_for = 'child' AND s.last_token = %(child)s::uuid
    RETURNING s.last_token
)
UPDATE execution_attempt a
SET state = 'retryable', finished_at = clock.now, error_type = %(error_type)s::text, error = %(error)s::text,
    decision = %(decision)s::jsonb
FROM again, clock WHERE a.id = again.last_token AND a.state = 'running'
"""


def again(
    step_run_id: UUID,
    *,
    child_id: UUID,
    at: datetime | None,
    reason: str,
    error_type: str,
    error: str,
    decision: dict[str, Any],
    now: datetime | None = None,
) -> None:
    """Let a step run whose child failed start another one from `at` on."""
    params = {
        "id": step_run_id,
        "child": child_id,
        "at": at,
        "reason": reason[:500],
        "error_type": error_type[:300],
        "error": error,
        "decision": engine.dump_json(decision),
        "now": now,
    }
    engine.fetch_all(AGAIN, params)


# Read in a statement of its own, after the one that cancelled the caller: that one has waited for every attempt that
# was just starting a child, and this one sees what they committed.
OPEN_CHILDREN = """
SELECT c.id FROM execution_steprun s JOIN execution_execution c ON c.id = s.last_token
WHERE s.execution_id = %(id)s::uuid AND s.kind = 'workflow' AND c.finished_at IS NULL
ORDER BY c.id LIMIT %(limit)s::int
"""

# An attempt that was cancelled (its execution, its fan-out or its step was ended) and whose child is still open.
ORPHANS = """
SELECT c.id FROM execution_execution c JOIN execution_attempt a ON a.id = c.id
WHERE c.source_kind = 'child' AND c.finished_at IS NULL AND a.state = 'cancelled'
ORDER BY c.id LIMIT %(limit)s::int
"""


def open_children(execution_id: UUID, *, limit: int, using: str | None = None) -> list[UUID]:
    """Children of an execution that have not ended."""
    return [row.id for row in engine.fetch_all(OPEN_CHILDREN, {"id": execution_id, "limit": limit}, using=using)]


def orphans(*, limit: int) -> list[UUID]:
    """Open children whose attempt was cancelled: nobody waits for them."""
    return [row.id for row in engine.fetch_all(ORPHANS, {"limit": limit})]
