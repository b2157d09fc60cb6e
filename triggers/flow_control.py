"""Throttle, activation limit, debounce and batch: all in Postgres, so that they hold in every process and restart.

Each is one statement on one row, and that row's lock is what makes it exact. Triggers are taken in the order of
their ids, so that two events which touch the same ones cannot block each other.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from execution import engine
from scheduling_project.common.ids import uuid7
from triggers.flow_specs import Batch, Debounce, Throttling
from triggers.states import GroupKind

# Race: two events at once. GCRA in one conditional upsert: the second waits for the first's row lock and then sees
# the arrival time that it left. No row comes back when the rate is used up, and nothing is changed.
_THROTTLE = """
INSERT INTO triggers_throttle (trigger_id, key, arrival_at)
VALUES (%(trigger)s::uuid, %(key)s::text, %(now)s::timestamptz + %(each)s::interval)
ON CONFLICT (trigger_id, key) DO UPDATE
SET arrival_at = GREATEST(triggers_throttle.arrival_at, %(now)s::timestamptz) + %(each)s::interval
WHERE triggers_throttle.arrival_at <= %(now)s::timestamptz + %(slack)s::interval
RETURNING arrival_at
"""


def take(trigger_id: UUID, key: str, spec: Throttling, *, now: datetime, using: str) -> bool:
    """Take one of the `limit` places in `period`; False when they are used up.

    Places come back evenly (Generic Cell Rate Algorithm, ITU-T I.371): after a burst of `limit`, one each
    ``period / limit`` seconds.
    """
    each = timedelta(seconds=spec.period / spec.limit)
    params = {
        "trigger": trigger_id,
        "key": key,
        "now": now,
        "each": each,
        "slack": timedelta(seconds=spec.period) - each,
    }
    return engine.fetch_one(_THROTTLE, params, using=using) is not None


# Race: the last place, asked for twice. The condition is evaluated again under the row's lock.
_COUNT = """
UPDATE triggers_trigger SET activation_count = activation_count + 1
WHERE id = %(trigger)s::uuid AND (max_activations IS NULL OR activation_count < max_activations)
RETURNING activation_count
"""


def count(trigger_id: UUID, *, using: str) -> bool:
    """Count one activation against the trigger's maximum; False when it is reached."""
    return engine.fetch_one(_COUNT, {"trigger": trigger_id}, using=using) is not None


class Group(NamedTuple):
    """A group of waiting events, its row locked by this transaction."""

    id: UUID
    size: int
    due_at: datetime


# Race: an event and the flush of the group that it would join. Whoever locks the row first wins: a flush closes the
# group, which takes it out of the partial index, and the insert then opens a new one.
_JOIN = """
INSERT INTO triggers_pendinggroup (id, trigger_id, kind, key, size, due_at, deadline_at, created_at)
VALUES (%(id)s::uuid, %(trigger)s::uuid, %(kind)s::text, %(key)s::text, 1, %(due)s::timestamptz,
    %(deadline)s::timestamptz, %(now)s::timestamptz)
ON CONFLICT (trigger_id, key) WHERE closed_at IS NULL DO UPDATE
SET size = triggers_pendinggroup.size + 1,
    due_at = CASE WHEN %(extends)s::bool
        THEN LEAST(GREATEST(triggers_pendinggroup.due_at, excluded.due_at), triggers_pendinggroup.deadline_at)
        ELSE triggers_pendinggroup.due_at END
RETURNING id, size, due_at
"""


def join(trigger_id: UUID, key: str, spec: Debounce | Batch, *, now: datetime, using: str) -> Group:
    """Let an event wait in the open group of its key, or in a new one."""
    debounce = isinstance(spec, Debounce)
    wait = spec.period if isinstance(spec, Debounce) else spec.timeout
    params = {
        "id": uuid7(),
        "trigger": trigger_id,
        "kind": (GroupKind.DEBOUNCE if debounce else GroupKind.BATCH).value,
        "key": key,
        "due": now + timedelta(seconds=wait),
        "deadline": now + timedelta(seconds=spec.timeout),
        "now": now,
        "extends": debounce,
    }
    row = engine.fetch_one(_JOIN, params, using=using)
    assert row is not None
    return Group(row.id, row.size, row.due_at)


class DueGroup(NamedTuple):
    id: UUID
    trigger_id: UUID
    kind: str


# Race: several flushes. Each closes the groups that it has locked, in the transaction that makes their executions.
_CLOSE_DUE = """
WITH due AS MATERIALIZED (
    SELECT id FROM triggers_pendinggroup WHERE closed_at IS NULL AND due_at <= %(now)s::timestamptz
    ORDER BY due_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE triggers_pendinggroup g SET closed_at = %(now)s::timestamptz FROM due WHERE g.id = due.id
RETURNING g.id, g.trigger_id, g.kind
"""


def close_due(*, now: datetime, limit: int, using: str) -> list[DueGroup]:
    """Close up to `limit` groups whose time has come; theirs is to be started in this transaction."""
    rows = engine.fetch_all(_CLOSE_DUE, {"now": now, "limit": limit}, using=using)
    return sorted(DueGroup(*row) for row in rows)


_CLOSE = """
UPDATE triggers_pendinggroup SET closed_at = %(now)s::timestamptz
WHERE id = %(id)s::uuid AND closed_at IS NULL RETURNING id, trigger_id, kind
"""


def close(group_id: UUID, *, now: datetime, using: str) -> DueGroup | None:
    """Close one group before its time; None when it is closed already."""
    row = engine.fetch_one(_CLOSE, {"id": group_id, "now": now}, using=using)
    return None if row is None else DueGroup(*row)
