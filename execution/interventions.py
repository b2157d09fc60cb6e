"""The statements behind what people decide about executions. The rules are those of `execution.queue`: one
conditional UPDATE per transition, the execution's row locked before its step runs, zero rows for "too late"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import engine, finishing
from execution.queue import CLOCK, Ending, Finished, Hint, ending_params, finished_of
from execution.resumption import Resumption, StepFact
from execution.states import DeadLetterState, StepState

# Race: pause against claim. A claim reads the execution's state without its lock; what it took before stays
# running and is left to end. What ends while the execution is paused frees its successors, whose hints are refused.
PAUSE = """
UPDATE execution_execution SET state = 'paused', state_reason = %(reason)s::text
WHERE id = %(id)s::uuid AND state IN ('scheduled', 'queued', 'running')
RETURNING id
"""

# Race: resume against a sweep that still sees "paused": its hints are the ones it does not send. Those of the
# execution that are due are marked and published here; the rest is the sweep's again. What had not begun goes back to
# where it was: scheduled while none of its steps is due.
RESUME = f"""
WITH {CLOCK},
resumed AS (
    UPDATE execution_execution e
    SET state_reason = '', state = CASE WHEN e.started_at IS NOT NULL THEN 'running'
        WHEN EXISTS (SELECT 1 FROM execution_steprun s WHERE s.execution_id = e.id AND s.available_at <= clock.now)
        THEN 'queued' ELSE 'scheduled' END
    FROM clock WHERE e.id = %(id)s::uuid AND e.state = 'paused'
    RETURNING e.id
), chosen AS MATERIALIZED (
    SELECT s.id FROM execution_steprun s JOIN resumed ON resumed.id = s.execution_id
    WHERE s.state IN ('queued', 'retryable') AND s.available_at <= (SELECT now FROM clock)
      AND NOT EXISTS (SELECT 1 FROM execution_queuesettings q WHERE q.name = s.queue AND q.paused_at IS NOT NULL)
    ORDER BY s.priority, s.available_at LIMIT %(bound)s::int
), marked AS (
    UPDATE execution_steprun s
    SET dispatched_at = CASE WHEN chosen.id IS NOT NULL THEN clock.now END,
        dispatches = CASE WHEN chosen.id IS NOT NULL THEN 1 ELSE 0 END
    FROM clock, resumed, execution_steprun t LEFT JOIN chosen ON chosen.id = t.id
    WHERE s.id = t.id AND t.execution_id = resumed.id AND s.state IN ('queued', 'retryable')
    RETURNING s.id, s.label, s.queue, s.priority, s.timeout, s.attempt, s.dispatched_at
)
SELECT (SELECT count(*) FROM resumed) AS resumed,
       (SELECT json_agg(json_build_array(id, label, queue, priority, timeout, attempt)) FROM marked
        WHERE dispatched_at IS NOT NULL) AS hints
"""

# Race: a hint of the old priority is on its way, or has just been claimed. The claim names the priority it was sent
# with, so an old hint finds nothing; a running step keeps its lease and has the new priority when it is retried.
SET_PRIORITY = f"""
WITH {CLOCK},
held AS MATERIALIZED (
    SELECT e.id, e.priority, e.state FROM execution_execution e
    WHERE e.id = %(id)s::uuid AND e.finished_at IS NULL FOR NO KEY UPDATE
), chosen AS MATERIALIZED (
    SELECT s.id FROM execution_steprun s JOIN held ON held.id = s.execution_id AND held.state <> 'paused'
    WHERE s.state IN ('queued', 'retryable') AND s.available_at <= (SELECT now FROM clock)
      AND NOT EXISTS (SELECT 1 FROM execution_queuesettings q WHERE q.name = s.queue AND q.paused_at IS NOT NULL)
    ORDER BY s.available_at LIMIT %(bound)s::int
), moved AS (
    UPDATE execution_steprun s
    SET priority = %(priority)s::int, aged = 0,
        dispatched_at = CASE WHEN chosen.id IS NOT NULL AND s.state <> 'running' THEN clock.now END,
        dispatches = CASE WHEN chosen.id IS NOT NULL AND s.state <> 'running' THEN 1 ELSE 0 END
    FROM clock, held, execution_steprun t LEFT JOIN chosen ON chosen.id = t.id
    WHERE s.id = t.id AND t.execution_id = held.id AND s.finished_at IS NULL
    RETURNING s.id, s.label, s.queue, s.priority, s.timeout, s.attempt, s.dispatched_at
), ranked AS (
    UPDATE execution_execution e SET priority = %(priority)s::int FROM held WHERE e.id = held.id
)
SELECT (SELECT priority FROM held) AS before,
       (SELECT json_agg(json_build_array(id, label, queue, priority, timeout, attempt)) FROM moved
        WHERE dispatched_at IS NOT NULL) AS hints
WHERE EXISTS (SELECT 1 FROM held)
"""

# Race: a person ends a step by hand while its worker finishes it: the execution's lock orders them. The token is
# cleared, so the worker's next heartbeat or commit is refused.
FINISH_BY_HAND = finishing.statement("s.state = ANY(%(leaving)s::text[])")

# Items of a fan-out that is ended by hand end with it.
CANCEL_ITEMS = f"""
WITH {CLOCK},
stopped AS (
    UPDATE execution_steprun s
    SET state = 'cancelled', state_reason = %(reason)s::text, waiting_for = NULL, finished_at = clock.now,
        last_token = coalesce(s.lease_token, s.last_token), lease_token = NULL, lease_until = NULL, dispatched_at = NULL
    FROM clock WHERE s.parent_id = %(id)s::uuid AND s.finished_at IS NULL
    RETURNING s.id, s.last_token
), closed AS (
    UPDATE execution_attempt a SET state = 'cancelled', finished_at = clock.now
    FROM stopped, clock WHERE a.id = stopped.last_token AND a.state = 'running'
)
SELECT id FROM stopped
"""

STEP_FACTS = """
SELECT id, name, state, state_reason AS reason, parent_id AS item_of
FROM execution_steprun WHERE execution_id = %(id)s::uuid ORDER BY id FOR NO KEY UPDATE
"""

# The execution's row is held and its state was read under that lock. A deadline that has passed begins anew: the
# time that the execution was allowed counts from now on. News of its end that nobody has taken are no longer true.
REOPEN = f"""
WITH {CLOCK},
untold AS (
    DELETE FROM execution_news n USING execution_execution e
    WHERE e.id = %(id)s::uuid AND n.execution_id = e.id AND n.topic = e.news_topic
)
UPDATE execution_execution e
SET state = CASE WHEN e.state = 'failed' THEN 'running' ELSE e.state END, state_reason = '', finished_at = NULL,
    open_steps = e.open_steps + %(steps)s::int,
    failed_steps = CASE WHEN %(restarts)s::bool THEN 0 ELSE greatest(0, e.failed_steps - %(failures)s::int) END,
    input = coalesce(%(input)s::jsonb, e.input),
    section = CASE WHEN %(restarts)s::bool THEN '' ELSE e.section END,
    outcome = CASE WHEN %(restarts)s::bool THEN NULL ELSE e.outcome END,
    deadline_at = CASE WHEN e.deadline_at < clock.now
        THEN clock.now + (e.deadline_at - coalesce(e.started_at, e.created_at)) ELSE e.deadline_at END
FROM clock WHERE e.id = %(id)s::uuid AND e.state IN ('failed', 'running', 'paused')
RETURNING e.id
"""

# As many are handed over as may be in flight; the sweep hands over the others as these are claimed.
REQUEUE = f"""
WITH {CLOCK}
UPDATE execution_steprun s
SET state = 'queued', state_reason = '', waiting_for = NULL, finished_at = NULL, failures = 0, worker_deaths = 0,
    timeout_at = NULL, available_at = clock.now,
    dispatched_at = CASE WHEN again.place <= %(bound)s::int THEN clock.now END,
    dispatches = (again.place <= %(bound)s::int)::int
FROM clock, unnest(%(ids)s::uuid[]) WITH ORDINALITY AS again (id, place)
WHERE s.id = again.id AND s.state IN ('failed', 'skipped')
RETURNING s.id, s.label, s.queue, s.priority, s.timeout, s.attempt, s.dispatched_at IS NOT NULL AS dispatched
"""

REWAIT = f"""
WITH {CLOCK}
UPDATE execution_steprun s
SET state = 'waiting', state_reason = '', waiting_for = %(waiting_for)s::text, finished_at = NULL, failures = 0,
    worker_deaths = 0, timeout_at = NULL, available_at = clock.now, dispatched_at = NULL, dispatches = 0,
    needs_open = CASE WHEN %(waiting_for)s::text = 'needs' THEN again.open ELSE s.needs_open END,
    items_open = CASE WHEN %(waiting_for)s::text = 'child' THEN again.open ELSE s.items_open END, items_failed = 0
FROM clock, unnest(%(ids)s::uuid[], %(open)s::int[]) AS again (id, open)
WHERE s.id = again.id AND s.state IN ('failed', 'skipped')
RETURNING s.id
"""

REDRIVE_LETTERS = """
UPDATE execution_deadletter SET state = 'redriving', redrives = redrives + 1, decided_by = %(actor)s::text
WHERE execution_id = %(id)s::uuid AND state = 'open' AND step_run_id IS NOT NULL
  AND NOT step_name = ANY(%(but)s::text[])
RETURNING id
"""

# Race: two people decide about one letter. Its state is named, so the second changes nothing.
MOVE_LETTER = f"""
WITH {CLOCK}
UPDATE execution_deadletter d
SET state = %(to)s::text, decided_by = %(actor)s::text, note = %(note)s::text,
    decided_at = CASE WHEN %(to)s::text = 'discarded' THEN clock.now END,
    redrives = d.redrives + (%(to)s::text = 'redriving')::int,
    redrive_execution_id = coalesce(%(execution_id)s::uuid, d.redrive_execution_id)
FROM clock WHERE d.id = %(id)s::uuid AND d.state = ANY(%(leaving)s::text[])
RETURNING d.id
"""


def pause(execution_id: UUID, *, reason: str, using: str | None = None) -> bool:
    """Stop handing out the execution's steps; False when it is paused already or has ended."""
    return bool(engine.fetch_all(PAUSE, {"id": execution_id, "reason": reason[:500]}, using=using))


def resume(
    execution_id: UUID, *, bound: int, now: datetime | None = None, using: str | None = None
) -> list[Hint] | None:
    """Go on with a paused execution: the hints to publish, None when it is not paused."""
    row = engine.fetch_one(RESUME, {"id": execution_id, "bound": bound, "now": now}, using=using)
    return _hints(row.hints) if row is not None and row.resumed else None


def set_priority(
    execution_id: UUID, *, priority: int, bound: int, now: datetime | None = None, using: str | None = None
) -> tuple[int, list[Hint]] | None:
    """Give all open steps another priority: the one before and the hints to publish, None when it has ended."""
    params = {"id": execution_id, "priority": priority, "bound": bound, "now": now}
    row = engine.fetch_one(SET_PRIORITY, params, using=using)
    return None if row is None else (row.before, _hints(row.hints))


def finish_by_hand(
    step_run_id: UUID,
    *,
    execution_id: UUID,
    leaving: Sequence[StepState],
    ending: Ending,
    now: datetime | None = None,
    using: str | None = None,
) -> Finished | None:
    """End an open step run whoever holds it; None when it is in none of the states `leaving`."""
    params = ending_params(ending) | {
        "id": step_run_id,
        "execution_id": execution_id,
        "leaving": [state.value for state in leaving],
        "now": now,
    }
    return finished_of(engine.fetch_one(FINISH_BY_HAND, params, using=using))


def cancel_items(parent_id: UUID, *, reason: str, now: datetime | None = None, using: str | None = None) -> int:
    """Cancel the open items of a fan-out; returns how many."""
    return len(engine.fetch_all(CANCEL_ITEMS, {"id": parent_id, "reason": reason[:500], "now": now}, using=using))


def step_facts(execution_id: UUID, *, using: str | None = None) -> list[StepFact]:
    """All step runs of an execution, locked. The execution's row is held."""
    rows = engine.fetch_all(STEP_FACTS, {"id": execution_id}, using=using)
    return [StepFact(row.id, row.name, row.state, row.reason, row.item_of) for row in rows]


def reopen(
    execution_id: UUID,
    again: Resumption,
    *,
    actor: str,
    input: Mapping[str, Any] | None = None,
    now: datetime | None = None,
    using: str | None = None,
) -> list[Hint] | None:
    """Open an execution again and put its step runs back; its open letters become redriving.

    The execution's row is held. Returns the hints to publish, None when it is cancelled or has succeeded.
    """
    params = {
        "id": execution_id,
        "steps": again.steps,
        "failures": again.failures,
        "restarts": again.restarts is not None,
        "input": None if input is None else engine.dump_json(input),
        "now": now,
    }
    if not engine.fetch_all(REOPEN, params, using=using):
        return None
    requeued = {"ids": list(again.queued), "bound": settings.WORKFLOW_IN_FLIGHT_PER_LEVEL, "now": now}
    rows = engine.fetch_all(REQUEUE, requeued, using=using)
    held_items = dict.fromkeys(again.held_items, 1)  # each is freed by the end of one before it
    for waiting_for, open_counts in (("needs", {**again.waiting, **held_items}), ("child", again.fan_outs)):
        if open_counts:
            ids, counts = list(open_counts.keys()), list(open_counts.values())
            engine.fetch_all(REWAIT, {"waiting_for": waiting_for, "ids": ids, "open": counts, "now": now}, using=using)
    but = list(again.restarts or ())  # these follow when their section does
    engine.fetch_all(REDRIVE_LETTERS, {"id": execution_id, "actor": actor, "but": but}, using=using)
    return [Hint(*row[:6]) for row in rows if row.dispatched]


def move_letter(
    letter_id: UUID,
    *,
    leaving: Sequence[DeadLetterState],
    to: DeadLetterState,
    actor: str,
    note: str = "",
    execution_id: UUID | None = None,
    now: datetime | None = None,
    using: str | None = None,
) -> bool:
    """Decide about a letter; False when it is in none of the states `leaving`."""
    params = {
        "id": letter_id,
        "leaving": [state.value for state in leaving],
        "to": to.value,
        "actor": actor[:200],
        "note": note[:500],
        "execution_id": execution_id,
        "now": now,
    }
    return bool(engine.fetch_all(MOVE_LETTER, params, using=using))


def _hints(values: Sequence[Sequence[Any]] | None) -> list[Hint]:
    return [Hint(UUID(str(value[0])), *value[1:]) for value in values or ()]
