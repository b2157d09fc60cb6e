"""The steps that run after the main ones: `on_success` or `on_failure`, then `finally`.

They belong to the same execution. When the main steps have ended, the transaction that says so opens the execution
again for the next section before anybody can see it ended; so there is no moment at which a crash could lose the
section. How the main steps ended is kept (`outcome`). A section's step that fails for good, unhandled, fails the
execution, whatever the outcome was; otherwise the execution ends as its outcome says.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from execution import engine
from execution.graph import FINALLY, ON_FAILURE, ON_SUCCESS, Plan, StepPlan
from execution.queue import CLOCK
from execution.states import ExecutionState, StepState
from scheduling_project.common.ids import uuid7

_HANDLERS: Final = {ExecutionState.SUCCEEDED: ON_SUCCESS, ExecutionState.FAILED: ON_FAILURE}


def next_section(sections: Sequence[str], *, after: str, ended: ExecutionState) -> str:
    """The section that follows `after` (empty: the main steps), which ended so; empty for none. Pure.

    >>> next_section(["on_failure", "finally"], after="", ended=ExecutionState.FAILED)
    'on_failure'
    >>> next_section(["on_failure", "finally"], after="on_failure", ended=ExecutionState.CANCELLED)
    'finally'
    """
    if after == FINALLY:
        return ""
    following = [_HANDLERS[ended], FINALLY] if not after and ended in _HANDLERS else [FINALLY]
    return next((name for name in following if name in sections), "")


PRESENT = """
SELECT e.section, e.outcome, e.started_at IS NOT NULL AS begun, e.version_id
FROM execution_execution e WHERE e.id = %(id)s::uuid
"""


def present(execution_id: UUID, *, using: str | None = None) -> Any:
    """Which section of a held execution runs (`section`, `outcome`, `begun`, `version_id`)."""
    return engine.fetch_one(PRESENT, {"id": execution_id}, using=using)


# The execution's row is held by whoever ended it in this transaction. What the same transaction said of its end (news,
# letters that its end decided) is taken back. A cancelled or overdue execution gets time of its own to clean up, and
# a new count of failures: from now on they are those of the cleaning.
OPEN = f"""
WITH {CLOCK},
opened AS (
    UPDATE execution_execution e
    SET state = 'running', finished_at = NULL, section = %(section)s::text, open_steps = %(steps)s::int,
        outcome = CASE WHEN e.section = '' OR e.state = 'cancelled' THEN e.state ELSE e.outcome END,
        failed_steps = CASE WHEN e.state = 'cancelled' THEN 0 ELSE e.failed_steps END,
        deadline_at = CASE WHEN e.state = 'cancelled'
            THEN clock.now + make_interval(secs => %(cleanup)s::float8) ELSE e.deadline_at END
    FROM clock WHERE e.id = %(id)s::uuid AND e.finished_at IS NOT NULL
    RETURNING e.id, e.news_topic, e.source_kind, e.outcome
), untold AS (
    DELETE FROM execution_news n USING opened WHERE n.execution_id = opened.id AND n.topic = opened.news_topic
), redriven AS (
    UPDATE execution_deadletter d SET state = 'redriving', decided_at = NULL FROM opened
    WHERE opened.source_kind = 'redrive' AND opened.outcome <> 'cancelled'
      AND d.redrive_execution_id = opened.id AND d.state IN ('open', 'resolved')
), tried AS (
    UPDATE execution_deadletter d SET state = 'redriving' FROM opened
    WHERE d.execution_id = opened.id AND d.state = 'open' AND d.step_run_id IS NOT NULL
      AND d.step_name = ANY(%(names)s::text[])
)
SELECT id FROM opened
"""

# A section that runs again (its execution was resumed) keeps its step runs, with the attempts of the first time.
INSERT_STEPS = f"""
WITH {CLOCK}
INSERT INTO execution_steprun AS s (id, execution_id, name, kind, label, queue, priority, timeout, state, waiting_for,
    needs_open, available_at, dispatches, state_reason, items_open, items_failed, attempt, failures, worker_deaths,
    worker, pool, pool_units, created_at)
SELECT n.id, e.id, n.name, n.kind, w.name || '.' || n.name,
    coalesce(nullif(n.queue, ''), nullif(e.queue, ''), nullif(%(queue)s::text, ''), w.queue),
    coalesce(n.priority, e.priority), n.timeout, 'waiting', 'needs', n.needs_open, clock.now, 0, '', 0, 0, 0, 0, 0, '',
    n.pool, n.pool_units, clock.now
FROM unnest(%(ids)s::uuid[], %(names)s::text[], %(kinds)s::text[], %(queues)s::text[], %(priorities)s::int[],
    %(timeouts)s::float8[], %(needs)s::int[], %(pools)s::text[], %(units)s::int[])
    AS n (id, name, kind, queue, priority, timeout, needs_open, pool, pool_units),
    clock, execution_execution e JOIN execution_workflow w ON w.id = e.workflow_id
WHERE e.id = %(id)s::uuid
ON CONFLICT (execution_id, name, item_index) DO UPDATE
SET state = 'waiting', waiting_for = 'needs', needs_open = excluded.needs_open, available_at = excluded.available_at,
    finished_at = NULL, state_reason = '', failures = 0, worker_deaths = 0, items_open = 0, items_failed = 0,
    dispatched_at = NULL, dispatches = 0, timeout_at = NULL
"""


def open_next(
    execution_id: UUID,
    plan: Plan,
    *,
    after: str,
    ended: ExecutionState,
    now: datetime | None = None,
    using: str | None = None,
) -> bool:
    """Open an execution that the open transaction has just ended for its next section; False when there is none.

    Its steps then wait to be decided about (`advance.decide_ripe`).
    """
    section = next_section(list(plan.sections), after=after, ended=ended)
    if not section:
        return False
    steps = [plan.steps[name] for name in plan.sections[section]]
    names = [step.name for step in steps]
    params = {
        "id": execution_id,
        "section": section,
        "steps": len(steps),
        "names": names,
        "cleanup": settings.WORKFLOW_CLEANUP_SECONDS,
        "now": now,
    }
    if not engine.fetch_all(OPEN, params, using=using):
        return False
    _forget_items(execution_id, names, using)
    engine.fetch_all(INSERT_STEPS, _columns(steps) | {"id": execution_id, "queue": plan.queue, "now": now}, using=using)
    return True


def _columns(steps: Sequence[StepPlan]) -> dict[str, Any]:
    return {
        "ids": [uuid7() for _ in steps],
        "names": [step.name for step in steps],
        "kinds": [step.kind for step in steps],
        "queues": [step.queue for step in steps],
        "priorities": [step.priority for step in steps],
        "timeouts": [step.timeout for step in steps],
        "needs": [len(step.needs) for step in steps],
        "pools": [step.pool for step in steps],
        "units": [step.pool_units for step in steps],
    }


def _forget_items(execution_id: UUID, names: Sequence[str], using: str | None) -> None:
    """The items of a fan-out that is laid out anew make room."""
    from execution.models import StepRun

    items = StepRun.objects.using(using or engine.alias()).filter(execution=execution_id, name__in=names)
    items.filter(parent__isnull=False).delete()


# What has cleaned up after a cancellation ends as cancelled, not as succeeded.
KEEP_CANCELLED = """
WITH cancelled AS (
    UPDATE execution_execution SET state = 'cancelled'
    WHERE id = %(id)s::uuid AND state = 'succeeded' AND outcome = 'cancelled' RETURNING id, news_topic, source_kind
), told AS (
    UPDATE execution_news n SET data = jsonb_build_object('state', 'cancelled') FROM cancelled
    WHERE n.execution_id = cancelled.id AND n.topic = cancelled.news_topic
), redriven AS (
    UPDATE execution_deadletter d SET state = 'open', decided_at = NULL FROM cancelled
    WHERE cancelled.source_kind = 'redrive' AND d.redrive_execution_id = cancelled.id AND d.state = 'resolved'
)
SELECT id FROM cancelled
"""


def keep_cancelled(execution_id: UUID, *, using: str | None = None) -> bool:
    """Let an execution whose outcome is cancelled end so, before the commit; False when it failed or was not."""
    return bool(engine.fetch_all(KEEP_CANCELLED, {"id": execution_id}, using=using))


FACTS = """
SELECT e.outcome, e.state_reason, f.name, f.error_type, f.error
FROM execution_execution e
LEFT JOIN LATERAL (
    SELECT s.name, coalesce(a.error_type, '') AS error_type, coalesce(nullif(a.error, ''), s.state_reason) AS error
    FROM execution_steprun s LEFT JOIN execution_attempt a ON a.id = s.last_token
    WHERE s.execution_id = e.id AND s.parent_id IS NULL AND s.state = 'failed' AND s.name = ANY(%(names)s::text[])
    ORDER BY s.finished_at, s.id LIMIT 1
) f ON e.outcome = 'failed'
WHERE e.id = %(id)s::uuid
"""


def facts(execution_id: UUID, plan: Plan, *, using: str | None = None) -> dict[str, Any]:
    """What the expressions of a section see of the main steps: ``outcome`` and ``error`` (null after success)."""
    names = [step.name for step in plan.main if not step.continue_on_error]
    row = engine.fetch_one(FACTS, {"id": execution_id, "names": names}, using=using)
    if row is None or row.outcome in {None, StepState.SUCCEEDED.value}:
        return {"outcome": None if row is None else row.outcome, "error": None}
    error = {"step": row.name, "type": row.error_type or "", "message": row.error or row.state_reason}
    return {"outcome": row.outcome, "error": error}
