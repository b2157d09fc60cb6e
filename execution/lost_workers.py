"""Every statement about step runs whose worker is gone: its lease ran out, its process died, or it was shut down.

They follow the rules of `execution.queue`: one conditional UPDATE per transition, and zero rows mean that somebody
else was first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from execution import engine
from execution.queue import CLOCK
from execution.states import AttemptState


@dataclass(frozen=True, slots=True)
class Expired:
    """A running step run whose lease ran out: its worker is lost, frozen, or was stopped by a hard time limit."""

    id: UUID
    execution_id: UUID
    version_id: UUID
    token: UUID
    name: str
    label: str
    parent_id: UUID | None
    attempt: int
    failures: int
    worker_deaths: int
    worker: str
    timed_out: bool
    timeout: float | None
    source_retry: Any
    workflow_retry: Any


EXPIRED = f"""
WITH {CLOCK}
SELECT s.id, s.execution_id, e.version_id, s.lease_token AS token, s.name, s.label, s.parent_id, s.attempt,
       s.failures, s.worker_deaths, s.worker, s.timeout_at IS NOT NULL AS timed_out, s.timeout,
       e.retry_policy AS source_retry, w.retry_policy AS workflow_retry
FROM execution_steprun s
JOIN execution_execution e ON e.id = s.execution_id
JOIN execution_workflow w ON w.id = e.workflow_id
WHERE s.state = 'running' AND s.lease_until < (SELECT now FROM clock)
  AND (s.timeout_at IS NOT NULL
       OR pg_postmaster_start_time() < (SELECT now FROM clock) - make_interval(secs => %(lease)s::float8))
ORDER BY s.lease_until LIMIT %(limit)s::int
"""


def expired(*, lease: float, limit: int = 100, now: datetime | None = None) -> list[Expired]:
    """Running step runs with an expired lease, oldest first. Each is then taken back under its own guard.

    Args:
        lease: seconds that Postgres must have been up, so that every living worker could renew.
    """
    found = []
    for row in engine.fetch_all(EXPIRED, {"lease": lease, "limit": limit, "now": now}):
        values = row._asdict()
        for name in ("source_retry", "workflow_retry"):
            values[name] = engine.load_json(values[name])
        found.append(Expired(**values))
    return found


# Race: several rescuers find the same lease, or its worker comes back at this very moment: the UPDATE repeats the
# expiry and the token, so one of them wins and the others change nothing.
MARK_GONE = f"""
WITH {CLOCK}
UPDATE execution_steprun s
SET lease_until = clock.now - interval '1 microsecond', timeout_at = CASE WHEN %(timed_out)s::bool THEN clock.now END
FROM clock WHERE s.id = %(id)s::uuid AND s.state = 'running' AND s.attempt = %(attempt)s
  AND starts_with(s.worker, %(worker)s::text || '/')
RETURNING s.id
"""


def mark_gone(step_run_id: UUID, *, attempt: int, worker: str, timed_out: bool, now: datetime | None = None) -> bool:
    """End the lease of an attempt whose process a worker knows to be gone, so that nobody waits for it to run out.

    Args:
        worker: node name of the worker that had the process.
        timed_out: a hard time limit ended it, which is not a worker's death.
    """
    params = {"id": step_run_id, "attempt": attempt, "worker": worker, "timed_out": timed_out, "now": now}
    return bool(engine.fetch_all(MARK_GONE, params))


# Race: a deploy's new worker claims what the old one releases while it is still dying: only rows that this worker
# still holds are given back. The attempt is not charged.
RELEASE_WORKER = f"""
WITH {CLOCK},
freed AS (
    UPDATE execution_steprun s
    SET state = 'queued', lease_token = NULL, lease_until = NULL, last_token = s.lease_token, available_at = clock.now,
        dispatched_at = NULL, dispatches = 0, state_reason = %(reason)s::text
    FROM clock WHERE s.state = 'running' AND starts_with(s.worker, %(worker)s::text || '/')
    RETURNING s.id, s.last_token
), closed AS (
    UPDATE execution_attempt a SET state = %(attempt_state)s::text, finished_at = clock.now, error = %(reason)s::text
    FROM freed, clock WHERE a.id = freed.last_token AND a.state = 'running'
)
SELECT id FROM freed
"""


def release_worker(worker: str, *, reason: str, now: datetime | None = None) -> int:
    """Give back, uncharged, whatever processes of this worker still hold. Returns how many step runs that were.

    Args:
        worker: the worker's node name; its processes are called ``<node name>/<pid>``.
    """
    params = {
        "worker": worker,
        "reason": reason,
        "attempt_state": AttemptState.RELEASED.value,
        "now": now,
    }
    return len(engine.fetch_all(RELEASE_WORKER, params))
