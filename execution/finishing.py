"""The statement that ends a step run, put together from what its end can touch.

One statement ends a step run and writes all that follows. Postgres opens every table that a statement may change,
with all its indexes, whether it changes anything or not: the form that names everything costs three times what the
usual end of a step needs. So a statement leaves out what the end at hand cannot touch, `Part` by `Part`. A part
named without need changes nothing; callers name all that are in doubt.
"""

from __future__ import annotations

import enum
from functools import cache

from execution.engine import CLOCK


class Part(enum.Flag):
    """What the end of a step run can touch beside the step run itself and its attempt."""

    STEP = enum.auto()  # it is no item: its execution counts it
    ITEM = enum.auto()  # it is an item of a fan-out: its parent counts it, and the next item may begin
    OUTPUT = enum.auto()  # it has an output
    SUCCESSORS = enum.auto()  # steps need it
    DOOMED = enum.auto()  # steps can never run any more
    LETTER = enum.auto()  # a dead letter arrives
    REDRIVE = enum.auto()  # a dead letter waits for what becomes of this step run or of its execution
    NEWS = enum.auto()  # somebody waits durably for the execution's end


EVERYTHING = ~Part(0)

#: Topic of the news of a new dead letter.
LETTER_TOPIC = "dead_letter"


def letter_news(letters: str) -> str:
    """A part of a statement that leaves news of the new letter among the rows that `letters` returns.

    A letter that was there before and is open again keeps its own id, which tells them apart.
    """
    return f""", letter_news AS (
    INSERT INTO execution_news (topic, execution_id, subject, data, created_at)
    SELECT '{LETTER_TOPIC}', l.execution_id, l.id::text, jsonb_build_object('fingerprint', l.fingerprint,
        'workflow_id', l.workflow_id, 'step', l.step_name, 'reason', l.reason, 'error_type', l.error_type), clock.now
    FROM {letters} l, clock WHERE l.id = %(letter_id)s::uuid
)"""


_HELD = """
held AS MATERIALIZED (
    SELECT e.id, e.workflow_id FROM execution_execution e WHERE e.id = %(execution_id)s::uuid FOR NO KEY UPDATE
)"""

# Race: the last two items of a fan-out end at once, each believing that the other will be the last. The count is read
# under the parent's lock (and re-read by whoever waited for it), after the execution's, as in every order of locking.
_COUNTED = """, counted AS MATERIALIZED (
    SELECT p.items_open FROM held, execution_steprun p
    WHERE p.id = (SELECT i.parent_id FROM execution_steprun i WHERE i.id = %(id)s::uuid)
    FOR NO KEY UPDATE OF p
)"""

# Race: the same step finished twice (zombie and rescuer's successor, finish and cancel): the guard names the token
# (or the waiting state), and the execution's row is locked before, so whoever comes second re-reads a changed row.
_FENCED = """, fenced AS (
    UPDATE execution_steprun s
    SET state = %(state)s::text, state_reason = %(reason)s::text, waiting_for = NULL, lease_token = NULL,
        lease_until = NULL, last_token = coalesce(s.lease_token, s.last_token), finished_at = clock.now,
        dispatched_at = NULL, failures = s.failures + %(charged)s::int,
        worker_deaths = s.worker_deaths + %(worker_died)s::int
    FROM clock, held
    WHERE s.id = %(id)s::uuid AND s.execution_id = held.id AND {guard}
    RETURNING s.id, s.execution_id, s.parent_id, s.name, s.attempt, s.worker, s.last_token, s.pool_held,
        held.workflow_id
), closed AS (
    UPDATE execution_attempt a
    SET state = %(attempt_state)s::text, finished_at = clock.now, error_type = %(error_type)s::text,
        error = %(error)s::text, traceback = %(traceback)s::text, decision = %(decision)s::jsonb
    FROM fenced, clock WHERE a.id = fenced.last_token AND a.state = 'running'
)"""

_KEPT = """, kept AS (
    INSERT INTO execution_stepoutput (step_run_id, data)
    SELECT id, %(output)s::jsonb FROM fenced WHERE %(has_output)s::bool
    ON CONFLICT (step_run_id) DO UPDATE SET data = excluded.data
)"""

# Race: two siblings that finish at once: both lower the successor's counter, one after the other, and the one that
# sees it reach zero queues it. The execution's end works by the same counter.
_FREED = """, freed AS (
    UPDATE execution_steprun s
    SET needs_open = s.needs_open - 1,
        state = CASE WHEN s.needs_open = 1 AND s.name = ANY(%(plain)s::text[]) THEN 'queued' ELSE s.state END,
        waiting_for = CASE WHEN s.needs_open = 1 AND s.name = ANY(%(plain)s::text[]) THEN NULL ELSE s.waiting_for END,
        dispatched_at = CASE WHEN s.needs_open = 1 AND s.name = ANY(%(plain)s::text[]) THEN clock.now END,
        dispatches = CASE WHEN s.needs_open = 1 AND s.name = ANY(%(plain)s::text[]) THEN 1 ELSE 0 END,
        available_at = CASE WHEN s.needs_open = 1 THEN clock.now ELSE s.available_at END
    FROM fenced, clock
    WHERE fenced.parent_id IS NULL AND s.execution_id = fenced.execution_id AND s.parent_id IS NULL
      AND s.name = ANY(%(successors)s::text[]) AND s.state = 'waiting' AND s.waiting_for = 'needs'
    RETURNING s.id, s.name, s.state, s.needs_open, s.label, s.queue, s.priority, s.timeout, s.attempt
)"""

_SKIPPED = """, skipped AS (
    UPDATE execution_steprun s
    SET state = 'skipped', waiting_for = NULL, finished_at = clock.now, state_reason = 'needs ' || fenced.name
    FROM fenced, clock
    WHERE fenced.parent_id IS NULL AND s.execution_id = fenced.execution_id AND s.parent_id IS NULL
      AND s.name = ANY(%(doomed)s::text[]) AND s.state = 'waiting'
    RETURNING s.id
)"""

# The dead letter is part of the statement: no crash can come between a failure and its letter. A letter that is
# being redriven is reopened by the next failure and resolved by success.
_LETTERED = """, lettered AS (
    INSERT INTO execution_deadletter (id, execution_id, step_run_id, workflow_id, step_name, reason, error_type, error,
        traceback, fingerprint, step_input, attempts, worker, state, note, redrives, decided_by, created_at)
    SELECT %(letter_id)s::uuid, execution_id, id, workflow_id, name, %(letter)s::text, %(error_type)s::text,
        %(error)s::text, %(traceback)s::text, %(fingerprint)s::text, %(step_input)s::jsonb, attempt, worker, 'open',
        '', 0, '', clock.now
    FROM fenced, clock WHERE %(letter)s::text <> ''
    ON CONFLICT (execution_id, step_run_id) WHERE state IN ('open', 'redriving') DO UPDATE
    SET state = 'open', reason = excluded.reason, error_type = excluded.error_type, error = excluded.error,
        traceback = excluded.traceback, fingerprint = excluded.fingerprint, step_input = excluded.step_input,
        attempts = excluded.attempts, worker = excluded.worker
    RETURNING id, execution_id, workflow_id, step_name, reason, error_type, fingerprint
)""" + letter_news("lettered")

_RESOLVED = """, resolved AS (
    UPDATE execution_deadletter d SET state = 'resolved', decided_at = clock.now
    FROM fenced, clock
    WHERE %(letter)s::text = '' AND d.execution_id = fenced.execution_id AND d.step_run_id = fenced.id
      AND d.state = 'redriving'
)"""

# Race: two items of a bounded fan-out that end at once: each frees a waiting one. Locking it re-reads it, so the
# second passes over what the first has just freed (a plain subquery would find it again and free nothing).
_ITEM = """, parent AS (
    UPDATE execution_steprun p
    SET items_open = p.items_open - 1, items_failed = p.items_failed + %(failed)s::int
    FROM fenced WHERE p.id = fenced.parent_id
    RETURNING p.id, p.items_open, p.items_failed
), next AS MATERIALIZED (
    SELECT i.id FROM execution_steprun i, fenced
    WHERE i.parent_id = fenced.parent_id AND i.state = 'waiting' AND i.waiting_for = 'needs'
    ORDER BY i.item_index LIMIT 1 FOR NO KEY UPDATE OF i
), item AS (
    UPDATE execution_steprun s
    SET state = 'queued', waiting_for = NULL, needs_open = 0, available_at = clock.now, dispatched_at = clock.now,
        dispatches = 1
    FROM clock, next WHERE s.id = next.id
    RETURNING s.id, s.label, s.queue, s.priority, s.timeout, s.attempt
)"""

_ENDED = """, ended AS (
    UPDATE execution_execution e
    SET open_steps = e.open_steps - 1{skipped},
        failed_steps = e.failed_steps + %(failed)s::int,
        state = CASE WHEN e.open_steps - 1{skipped} > 0 THEN e.state
                     WHEN e.failed_steps + %(failed)s::int > 0 THEN 'failed' ELSE 'succeeded' END,
        started_at = CASE WHEN e.started_at IS NULL AND e.open_steps - 1{skipped} <= 0
                          THEN clock.now ELSE e.started_at END,
        finished_at = CASE WHEN e.open_steps - 1{skipped} > 0 THEN NULL ELSE clock.now END
    FROM fenced, clock WHERE e.id = fenced.execution_id AND fenced.parent_id IS NULL
    RETURNING e.id, e.state, e.finished_at, e.news_topic, e.source_kind, e.source_id, e.key_held
)"""

_TOLD = """, told AS (
    INSERT INTO execution_news (topic, execution_id, subject, data, created_at)
    SELECT news_topic, id, source_id, jsonb_build_object('state', state), finished_at
    FROM ended WHERE finished_at IS NOT NULL AND news_topic <> ''
)"""

_REDRIVEN = """, redriven AS (
    UPDATE execution_deadletter d
    SET state = CASE WHEN ended.state = 'succeeded' THEN 'resolved' ELSE 'open' END,
        decided_at = CASE WHEN ended.state = 'succeeded' THEN ended.finished_at END
    FROM ended WHERE ended.finished_at IS NOT NULL AND ended.source_kind = 'redrive'
      AND d.redrive_execution_id = ended.id AND d.state = 'redriving'
)"""

_HINT = "json_build_array(id, label, queue, priority, timeout, attempt)"


@cache
def statement(guard: str, parts: Part = EVERYTHING, *, spares_last: bool = False) -> str:
    """The finishing statement of `parts`, for the step runs (``s``) that `guard` lets through.

    Args:
        spares_last: it ends no item that is the last open one of its fan-out.

    Its row, if it ended one: name, parent_id, parent_items_open, parent_items_failed, ready, ripe, next_item,
    execution_state, frees.
    """
    step, item = Part.STEP in parts, Part.ITEM in parts
    freed = step and Part.SUCCESSORS in parts
    skipped = step and Part.DOOMED in parts
    redrive = Part.REDRIVE in parts
    ctes = [
        _HELD,
        _COUNTED if spares_last else "",
        _FENCED.replace("{guard}", f"{guard} AND (SELECT items_open FROM counted) > 1" if spares_last else guard),
        _KEPT if Part.OUTPUT in parts else "",
        _FREED if freed else "",
        _SKIPPED if skipped else "",
        _LETTERED if Part.LETTER in parts else "",
        _RESOLVED if redrive else "",
        _ITEM if item else "",
        _ENDED.replace("{skipped}", " - (SELECT count(*) FROM skipped)::int" if skipped else "") if step else "",
        _TOLD if step and Part.NEWS in parts else "",
        _REDRIVEN if step and redrive else "",
    ]
    columns = {
        "name": "fenced.name",
        "parent_id": "fenced.parent_id",
        "parent_items_open": "(SELECT items_open FROM parent)" if item else "NULL::int",
        "parent_items_failed": "(SELECT items_failed FROM parent)" if item else "NULL::int",
        "ready": f"(SELECT json_agg({_HINT}) FROM freed WHERE state = 'queued')" if freed else "NULL::json",
        "ripe": "(SELECT array_agg(name) FROM freed WHERE state = 'waiting' AND needs_open = 0)"
        if freed
        else "NULL::text[]",
        "next_item": f"(SELECT {_HINT} FROM item)" if item else "NULL::json",
        "execution_state": "(SELECT state FROM ended WHERE finished_at IS NOT NULL)" if step else "NULL::text",
        "frees": "fenced.pool_held > 0"
        + (" OR EXISTS (SELECT 1 FROM ended WHERE key_held AND finished_at IS NOT NULL)" if step else ""),
    }
    selected = ",\n       ".join(f"{text} AS {name}" for name, text in columns.items())
    return f"WITH {CLOCK},{''.join(ctes).rstrip()}\nSELECT {selected}\nFROM fenced\n"
