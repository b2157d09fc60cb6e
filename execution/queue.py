"""Every statement that moves a step run from one state to another. The statements of the graph, of the
hand-over to the broker and of what people decide stand beside it, under the same rules: `graph_rows`, `handoff`,
`concurrency`, `interventions`.

One conditional UPDATE per transition: it names the state (or the lease token) that it leaves, and zero rows mean
that somebody else was first, which is never an error. Order of locking everywhere: execution, then step runs by
id. All statements run on the engine's connection; `now` is Postgres's clock unless a caller injects one.

The statements use data-modifying CTEs, so a transition and all that follows from it (attempt, output,
successors, dead letter, the execution's end, news) are one statement and one round trip. Counters are decremented
(`needs_open - 1`) and never counted: a waiting UPDATE re-reads the row it waited for, a subquery would not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from execution import engine, finishing
from execution.finishing import Part
from execution.states import AttemptState, StepState
from scheduling_project.common.ids import uuid7

CLOCK = engine.CLOCK


@dataclass(frozen=True, slots=True)
class Claim:
    """A step run that this worker holds until `lease_until`; `token` fences every write."""

    id: UUID
    token: UUID
    execution_id: UUID
    version_id: UUID
    workflow_name: str
    name: str
    label: str
    parent_id: UUID | None
    item_index: int | None
    item: Any
    attempt: int
    failures: int
    timeout: float | None
    queue: str
    priority: int
    input: Any
    source_retry: Any
    workflow_retry: Any
    source_kind: str
    source_id: str
    scheduled_for: datetime | None
    claimed_at: datetime
    lease_until: datetime
    redrives: bool = True  # a dead letter may wait for what becomes of it
    tells: bool = True  # somebody waits durably for the execution's end

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt; handed to the step so that its effects can be made once."""
        key = f"{self.execution_id}:{self.name}"
        return key if self.item_index is None else f"{key}:{self.item_index}"


# Race: two hints for one step run (re-sent, doubled, or after a rescue). The UPDATE names the states it leaves,
# so the second waits for the first's row lock, re-reads "running" and changes nothing. The first claim of an
# execution also opens it; it locks the execution before the step run, as cancel does. A hint whose priority is no
# longer the row's is stale: a newer one has been published.
_DUE = f"""
WITH {CLOCK},
target AS MATERIALIZED (
    SELECT s.execution_id FROM execution_steprun s WHERE s.id = %(id)s::uuid
), opening AS MATERIALIZED (
    SELECT e.id FROM execution_execution e
    WHERE e.id = (SELECT execution_id FROM target) AND e.state IN ('scheduled', 'queued')
    FOR NO KEY UPDATE
), due AS MATERIALIZED (
    SELECT s.id, s.pool, s.pool_units, s.priority FROM execution_steprun s
    JOIN execution_execution e ON e.id = s.execution_id
    WHERE s.id = %(id)s::uuid AND (SELECT count(*) FROM opening) >= 0
      AND s.state IN ('queued', 'retryable') AND s.available_at <= (SELECT now FROM clock)
      AND (%(priority)s::int IS NULL OR s.priority = %(priority)s::int)
      AND e.state IN ('scheduled', 'queued', 'running')
      AND NOT EXISTS (SELECT 1 FROM execution_queuesettings q WHERE q.name = s.queue AND q.paused_at IS NOT NULL)
    FOR NO KEY UPDATE OF s
)"""

# What needs no pool is admitted at once; for the rest the statement with the pool's part follows, so that the usual
# claim does not open tables that it will not touch.
_WITHOUT_POOL = """, admitted AS MATERIALIZED (
    SELECT due.id, 0 AS units FROM due WHERE due.pool = ''
)"""

# Race: the last units of a pool. They are counted and taken under the pool row's lock; a refusal parks the step run
# under the same lock, so that whoever gives units back afterwards finds it. What has aged while it waited is not
# overtaken: a step that needs many units would else starve behind those that need few.
_WITH_POOL = """, slots AS MATERIALIZED (
    SELECT p.name, p.slots, p.slots - p.used AS free
    FROM execution_pool p JOIN due ON p.name = due.pool FOR NO KEY UPDATE OF p
), admitted AS MATERIALIZED (
    SELECT due.id, CASE WHEN slots.name IS NULL THEN 0 ELSE due.pool_units END AS units
    FROM due LEFT JOIN slots ON slots.name = due.pool
    WHERE slots.name IS NULL OR (slots.free >= due.pool_units AND NOT EXISTS (
        SELECT 1 FROM execution_steprun w
        WHERE w.pool = due.pool AND w.state = 'waiting' AND w.waiting_for = 'pool' AND w.aged > 0
          AND w.pool_units <= slots.slots AND (w.priority, w.id) < (due.priority, due.id)))
), taken AS (
    UPDATE execution_pool p SET used = p.used + a.units FROM due, admitted a
    WHERE p.name = due.pool AND a.id = due.id AND a.units > 0
), parked AS (
    UPDATE execution_steprun s
    SET state = 'waiting', waiting_for = 'pool', dispatched_at = NULL, dispatches = 0,
        state_reason = 'pool ' || due.pool || ' is full'
    FROM due WHERE s.id = due.id AND NOT EXISTS (SELECT 1 FROM admitted)
)"""

_CLAIMED = """, claimed AS (
    UPDATE execution_steprun s
    SET state = 'running', state_reason = '', attempt = s.attempt + 1, lease_token = %(token)s::uuid,
        lease_until = clock.now + make_interval(secs => %(lease)s::float8), dispatched_at = NULL, dispatches = 0,
        timeout_at = NULL, worker = %(worker)s::text, started_at = coalesce(s.started_at, clock.now),
        pool_held = a.units
    FROM clock, admitted a WHERE s.id = a.id
    RETURNING s.*, clock.now AS claimed_at
), attempted AS (
    INSERT INTO execution_attempt (id, step_run_id, number, worker, state, error_type, error, traceback, started_at)
    SELECT c.lease_token, c.id, c.attempt, c.worker, 'running', '', '', '', c.claimed_at FROM claimed c
), opened AS (
    UPDATE execution_execution e SET state = 'running', started_at = coalesce(e.started_at, c.claimed_at)
    FROM claimed c, opening o WHERE e.id = o.id AND c.execution_id = e.id
)
SELECT due.id, c.lease_token AS token, c.execution_id, e.version_id, w.name AS workflow_name, c.name, c.label,
       c.parent_id, c.item_index, c.item, c.attempt, c.failures, c.timeout, c.queue, c.priority, e.input,
       e.retry_policy AS source_retry, w.retry_policy AS workflow_retry, e.source_kind, e.source_id,
       e.scheduled_for, c.claimed_at, c.lease_until,
       e.source_kind = 'redrive' OR EXISTS (
           SELECT 1 FROM execution_deadletter d
           WHERE d.execution_id = c.execution_id AND d.step_run_id = c.id AND d.state IN ('open', 'redriving')
       ) AS redrives, e.news_topic <> '' AS tells
FROM due
LEFT JOIN claimed c ON c.id = due.id
LEFT JOIN execution_execution e ON e.id = c.execution_id
LEFT JOIN execution_workflow w ON w.id = e.workflow_id
"""

CLAIM = _DUE + _WITHOUT_POOL + _CLAIMED
CLAIM_WITH_POOL = _DUE + _WITH_POOL + _CLAIMED


def claim(
    step_run_id: UUID, *, worker: str, lease: float, priority: int | None = None, now: datetime | None = None
) -> Claim | None:
    """Take a due step run for `lease` seconds; None when it is not (or no longer) to be had."""
    params = {"id": step_run_id, "token": uuid7(), "worker": worker, "lease": lease, "priority": priority, "now": now}
    row = engine.fetch_one(CLAIM, params)
    if row is not None and row.token is None:
        row = engine.fetch_one(CLAIM_WITH_POOL, params)
    if row is None or row.token is None:
        return None
    values = row._asdict()
    for name in ("item", "input", "source_retry", "workflow_retry"):
        values[name] = engine.load_json(values[name])
    return Claim(**values)


# Race: a rescuer takes the row back while its worker still lives. Only the holder of the token may renew, and the
# rescuer clears the token, so a worker that was away too long learns here that it no longer holds the step.
HEARTBEAT = f"""
WITH {CLOCK}
UPDATE execution_steprun s SET lease_until = clock.now + make_interval(secs => %(lease)s::float8)
FROM clock WHERE s.id = %(id)s::uuid AND s.lease_token = %(token)s::uuid
RETURNING s.lease_until
"""


def heartbeat(step_run_id: UUID, token: UUID, *, lease: float, now: datetime | None = None) -> bool:
    """Renew a lease; False when it is lost (rescued, cancelled, skipped or finished by hand)."""
    return bool(engine.fetch_all(HEARTBEAT, {"id": step_run_id, "token": token, "lease": lease, "now": now}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a step run ends, and what follows from it in the graph.

    `plain` successors are queued at once when their last need is met; the other `successors` only have their
    counter lowered and are then decided by `execution.advance` in the same transaction. `doomed` steps can never
    run any more. `letter` says why there is a dead letter, empty for none.
    """

    state: StepState
    attempt_state: AttemptState
    reason: str = ""
    output: Any = None
    has_output: bool = False
    successors: Sequence[str] = ()
    plain: Sequence[str] = ()
    doomed: Sequence[str] = ()
    failed: bool = False
    charged: bool = False
    worker_died: bool = False
    letter: str = ""
    error_type: str = ""
    error: str = ""
    traceback: str = ""
    fingerprint: str = ""
    decision: dict[str, Any] | None = None
    step_input: Any = None


@dataclass(frozen=True, slots=True)
class Hint:
    """What a message needs to know of a queued step run."""

    id: UUID
    label: str
    queue: str
    priority: int
    timeout: float | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What a finishing statement did to the step run of this `name`.

    `ripe`: successors whose needs are met and that wait for a decision. `frees`: it gave up units of a pool or a
    place of a concurrency key, which `execution.concurrency` now gives to the next.
    """

    name: str
    ready: list[Hint]
    ripe: list[str]
    parent_id: UUID | None
    parent_items_open: int | None
    parent_items_failed: int | None
    next_item: Hint | None
    execution_state: str | None
    frees: bool


HELD = "s.lease_token = %(token)s::uuid"
HELD_AND_EXPIRED = f"{HELD} AND s.lease_until < clock.now"
HELD_BY_NOBODY = "s.state = ANY(%(leaving)s::text[]) AND s.lease_token IS NULL"


def parts_of(ending: Ending, *, is_item: bool | None = None, redrives: bool = True, tells: bool = True) -> Part:
    """What this ending can touch, of what is known about its step run and its execution.

    Args:
        is_item: of a fan-out; None when the caller does not know.
        redrives: a dead letter may wait for what becomes of it.
        tells: somebody may wait durably for the execution's end.
    """
    touched = {
        Part.STEP: is_item is not True,
        Part.ITEM: is_item is not False,
        Part.OUTPUT: ending.has_output,
        Part.SUCCESSORS: bool(ending.successors),
        Part.DOOMED: bool(ending.doomed),
        Part.LETTER: ending.letter != "",
        Part.REDRIVE: redrives,
        Part.NEWS: tells,
    }
    return reduce(or_, (part for part, is_touched in touched.items() if is_touched))


def ending_params(ending: Ending) -> dict[str, Any]:
    """The members of an ending as the finishing statements bind them."""
    return {
        "state": ending.state.value,
        "attempt_state": ending.attempt_state.value,
        "reason": ending.reason[:500],
        "output": engine.dump_json(ending.output) if ending.has_output else None,
        "has_output": ending.has_output,
        "successors": list(ending.successors),
        "plain": list(ending.plain),
        "doomed": list(ending.doomed),
        "failed": ending.failed,
        "charged": ending.charged,
        "worker_died": ending.worker_died,
        "letter": ending.letter,
        "letter_id": uuid7(),
        "error_type": ending.error_type[:300],
        "error": ending.error,
        "traceback": ending.traceback,
        "fingerprint": ending.fingerprint,
        "decision": None if ending.decision is None else engine.dump_json(ending.decision),
        "step_input": None if ending.step_input is None else engine.dump_json(ending.step_input),
    }


def finished_of(row: Any | None) -> Finished | None:
    """What a finishing statement returned; None for no row."""
    if row is None:
        return None
    return Finished(
        name=row.name,
        ready=[_hint(values) for values in row.ready or ()],
        ripe=row.ripe or [],
        parent_id=row.parent_id,
        parent_items_open=row.parent_items_open,
        parent_items_failed=row.parent_items_failed,
        next_item=None if row.next_item is None else _hint(row.next_item),
        execution_state=row.execution_state,
        frees=bool(row.frees),
    )


def _hint(values: Sequence[Any]) -> Hint:
    step_run_id, label, queue, priority, timeout, attempt = values
    return Hint(UUID(str(step_run_id)), label, queue, priority, timeout, attempt)


def finish(
    step_run_id: UUID,
    *,
    execution_id: UUID,
    token: UUID,
    ending: Ending,
    parts: Part | None = None,
    expired: bool = False,
    spares_last: bool = False,
    now: datetime | None = None,
) -> Finished | None:
    """End a running step run that `token` holds; None when it is not held any more.

    Args:
        parts: what it can touch (`parts_of`); None when nothing but the ending is known.
        expired: only if its lease has also run out (the rescuer's guard).
        spares_last: only if it is an item and other items of its fan-out are still open: None for the last one.
    """
    guard = HELD_AND_EXPIRED if expired else HELD
    sql = finishing.statement(guard, parts_of(ending) if parts is None else parts, spares_last=spares_last)
    params = ending_params(ending) | {"id": step_run_id, "execution_id": execution_id, "token": token, "now": now}
    return finished_of(engine.fetch_one(sql, params))


def settle(
    step_run_id: UUID,
    *,
    execution_id: UUID,
    leaving: Sequence[StepState],
    ending: Ending,
    now: datetime | None = None,
    using: str | None = None,
) -> Finished | None:
    """End a step run that nobody runs (skipped by `when`, timer due, approved, child ended, by hand)."""
    params = ending_params(ending) | {
        "id": step_run_id,
        "execution_id": execution_id,
        "leaving": [state.value for state in leaving],
        "now": now,
    }
    return finished_of(engine.fetch_one(finishing.statement(HELD_BY_NOBODY, parts_of(ending)), params, using=using))


# Race: the attempt that asks for a retry may be a zombie: the token fences it like any other end. Nothing else of
# the execution changes, so no other lock is taken.
RESCHEDULE = f"""
WITH {CLOCK},
fenced AS (
    UPDATE execution_steprun s
    SET state = %(state)s::text, state_reason = %(reason)s::text, lease_token = NULL, lease_until = NULL,
        last_token = s.lease_token, available_at = greatest(coalesce(%(at)s::timestamptz, clock.now), clock.now),
        failures = s.failures + %(charged)s::int, worker_deaths = s.worker_deaths + %(worker_died)s::int,
        dispatched_at = NULL, dispatches = 0
    FROM clock
    WHERE s.id = %(id)s::uuid AND s.lease_token = %(token)s::uuid
      AND (NOT %(expired)s::bool OR s.lease_until < clock.now)
    RETURNING s.id, s.last_token
), closed AS (
    UPDATE execution_attempt a
    SET state = %(attempt_state)s::text, finished_at = clock.now, error_type = %(error_type)s::text,
        error = %(error)s::text, traceback = %(traceback)s::text, decision = %(decision)s::jsonb
    FROM fenced, clock WHERE a.id = fenced.last_token AND a.state = 'running'
)
SELECT id FROM fenced
"""


def reschedule(
    step_run_id: UUID,
    *,
    token: UUID,
    state: StepState,
    attempt_state: AttemptState,
    at: datetime | None,
    reason: str = "",
    charged: bool = False,
    worker_died: bool = False,
    expired: bool = False,
    error_type: str = "",
    error: str = "",
    traceback: str = "",
    decision: dict[str, Any] | None = None,
    now: datetime | None = None,
) -> bool:
    """Give a running step run back, to be claimed again from `at` on: retry, snooze, release, rescue.

    Returns False when `token` does not hold it any more.
    """
    return bool(
        engine.fetch_all(
            RESCHEDULE,
            {
                "id": step_run_id,
                "token": token,
                "state": state.value,
                "attempt_state": attempt_state.value,
                "at": at,
                "reason": reason[:500],
                "charged": charged,
                "worker_died": worker_died,
                "expired": expired,
                "error_type": error_type[:300],
                "error": error,
                "traceback": traceback,
                "decision": None if decision is None else engine.dump_json(decision),
                "now": now,
            },
        )
    )


#: What is decided about an attempt that ends without a grace.
TERMINATE = "terminate"

# Race: cancel against finish. Cancel takes the execution's lock first, as every finish does; whichever comes second
# finds either no token or a terminal execution.
# Race: cancel against claim. A claim that committed while this waited for its row has left an attempt that a plain
# UPDATE would not see (it is younger than the statement's snapshot); the conflict of an INSERT does see it.
CANCEL = f"""
WITH {CLOCK},
held AS MATERIALIZED (
    SELECT e.id FROM execution_execution e WHERE e.id = %(id)s::uuid FOR NO KEY UPDATE
), cancelled AS (
    UPDATE execution_execution e
    SET state = 'cancelled', state_reason = %(reason)s::text, finished_at = clock.now, open_steps = 0
    FROM clock, held WHERE e.id = held.id AND e.finished_at IS NULL
    RETURNING e.id, e.news_topic, e.source_kind, e.source_id, e.finished_at
), stopped AS (
    UPDATE execution_steprun s
    SET state = 'cancelled', state_reason = %(reason)s::text, waiting_for = NULL, finished_at = clock.now,
        last_token = coalesce(s.lease_token, s.last_token), lease_token = NULL, lease_until = NULL, dispatched_at = NULL
    FROM clock, cancelled WHERE s.execution_id = cancelled.id AND s.finished_at IS NULL
    RETURNING s.id, s.last_token, s.attempt, s.worker
), closed AS (
    INSERT INTO execution_attempt AS a
        (id, step_run_id, number, worker, state, error_type, error, traceback, started_at, finished_at, decision)
    SELECT last_token, stopped.id, attempt, worker, 'cancelled', '', '', '', clock.now, clock.now, %(decision)s::jsonb
    FROM stopped, clock WHERE last_token IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET state = 'cancelled', finished_at = excluded.finished_at,
        decision = coalesce(excluded.decision, a.decision)
    WHERE a.state = 'running'
), told AS (
    INSERT INTO execution_news (topic, execution_id, subject, data, created_at)
    SELECT news_topic, id, source_id, jsonb_build_object('state', 'cancelled'), finished_at
    FROM cancelled WHERE news_topic <> ''
), redriven AS (
    UPDATE execution_deadletter d SET state = 'open' FROM cancelled
    WHERE d.state = 'redriving'
      AND (d.execution_id = cancelled.id
           OR (cancelled.source_kind = 'redrive' AND d.redrive_execution_id = cancelled.id))
)
SELECT id FROM cancelled
"""


def cancel(
    execution_id: UUID,
    *,
    reason: str,
    at_once: bool = False,
    now: datetime | None = None,
    using: str | None = None,
) -> bool:
    """Cancel an open execution and every open step run of it; False when it has already ended.

    Args:
        at_once: a step that runs gets no grace: its process ends as soon as it learns of this (`is_terminated`).
    """
    decision = engine.dump_json({"decision": TERMINATE, "reason": reason[:500]}) if at_once else None
    params = {"id": execution_id, "reason": reason[:500], "now": now, "decision": decision}
    return bool(engine.fetch_all(CANCEL, params, using=using))


IS_TERMINATED = """
SELECT a.id FROM execution_attempt a WHERE a.id = %(token)s::uuid AND a.decision ->> 'decision' = %(decision)s::text
"""


def is_terminated(token: UUID) -> bool:
    """Whether the attempt that held this token was ended without a grace."""
    return engine.fetch_one(IS_TERMINATED, {"token": token, "decision": TERMINATE}) is not None


# The last word on an ambiguous COMMIT: the connection broke while the answer was on its way.
OUTCOME = """
SELECT s.state FROM execution_steprun s WHERE s.id = %(id)s::uuid AND s.last_token = %(token)s::uuid
  AND s.lease_token IS NULL
"""


def outcome(step_run_id: UUID, token: UUID) -> str | None:
    """The state in which the attempt with this token left its step run; None while it still holds it (or another)."""
    row = engine.fetch_one(OUTCOME, {"id": step_run_id, "token": token})
    return None if row is None else row.state
