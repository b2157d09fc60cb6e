"""What becomes of an execution whose definition cannot be compiled: it fails as a whole, with a dead letter, so that
nobody trips over it a second time."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from execution import engine, signals
from execution.fingerprints import fingerprint
from execution.finishing import letter_news
from execution.queue import CLOCK
from execution.states import ExecutionState
from scheduling_project.common.ids import uuid7
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

# Race: several workers find the same broken execution. Its row is locked first, as every end does, and only an open
# one is failed. What a claim has just committed is seen by the conflict of the INSERT (as in `queue.CANCEL`).
FAIL_WHOLE = f"""
WITH {CLOCK},
held AS MATERIALIZED (
    SELECT e.id FROM execution_execution e WHERE e.id = %(id)s::uuid FOR NO KEY UPDATE
), failed AS (
    UPDATE execution_execution e
    SET state = 'failed', state_reason = %(reason)s::text, finished_at = clock.now, open_steps = 0,
        started_at = coalesce(e.started_at, clock.now), failed_steps = e.failed_steps + 1
    FROM clock, held WHERE e.id = held.id AND e.finished_at IS NULL
    RETURNING e.id, e.workflow_id, e.news_topic, e.source_kind, e.source_id, e.finished_at
), stopped AS (
    UPDATE execution_steprun s
    SET state = 'cancelled', state_reason = %(reason)s::text, waiting_for = NULL, finished_at = clock.now,
        last_token = coalesce(s.lease_token, s.last_token), lease_token = NULL, lease_until = NULL, dispatched_at = NULL
    FROM clock, failed WHERE s.execution_id = failed.id AND s.finished_at IS NULL
    RETURNING s.id, s.last_token, s.attempt, s.worker
), closed AS (
    INSERT INTO execution_attempt AS a
        (id, step_run_id, number, worker, state, error_type, error, traceback, started_at, finished_at)
    SELECT last_token, stopped.id, attempt, worker, 'cancelled', '', '', '', clock.now, clock.now
    FROM stopped, clock WHERE last_token IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET state = 'cancelled', finished_at = excluded.finished_at WHERE a.state = 'running'
), told AS (
    INSERT INTO execution_news (topic, execution_id, subject, data, created_at)
    SELECT news_topic, id, source_id, jsonb_build_object('state', 'failed'), finished_at
    FROM failed WHERE news_topic <> ''
), redriven AS (
    UPDATE execution_deadletter d SET state = 'open' FROM failed
    WHERE d.state = 'redriving' AND d.step_run_id IS NOT NULL
      AND (d.execution_id = failed.id OR (failed.source_kind = 'redrive' AND d.redrive_execution_id = failed.id))
), lettered AS (
    INSERT INTO execution_deadletter (id, execution_id, step_run_id, workflow_id, step_name, reason, error_type, error,
        traceback, fingerprint, attempts, worker, state, note, redrives, decided_by, created_at)
    SELECT %(letter_id)s::uuid, id, NULL, workflow_id, '', 'unrunnable', %(error_type)s::text, %(reason)s::text, '',
        %(fingerprint)s::text, 0, '', 'open', '', 0, '', clock.now FROM failed, clock
    ON CONFLICT (execution_id, step_run_id) WHERE state IN ('open', 'redriving') DO UPDATE
    SET state = 'open', error = excluded.error
    RETURNING id, execution_id, workflow_id, step_name, reason, error_type, fingerprint
){letter_news("lettered")}
SELECT execution_id FROM lettered
"""


def fail(execution_id: UUID, error: Exception, *, now: datetime | None = None) -> bool:
    """Fail an execution that cannot go on because of its definition; False when it has ended."""
    name = type(error).__name__
    params = {
        "id": execution_id,
        "reason": str(error)[:500],
        "error_type": name,
        "letter_id": uuid7(),
        "fingerprint": fingerprint(name, str(error), ""),
        "now": now,
    }
    with engine.transaction():
        failed = bool(engine.fetch_all(FAIL_WHOLE, params))
        if failed:
            log.error("execution.unrunnable", execution_id=str(execution_id), error=str(error))
            signals.announce_freed()
            signals.announce_finished(execution_id, ExecutionState.FAILED.value)
    return failed
