"""Pools and concurrency keys as operators see and change them: how full, held by whom, awaited by whom.

How units are taken and passed on is in `execution.concurrency` and in the claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError

from execution import audit, engine
from execution.models import ConcurrencyKey, Pool
from execution.models.workflow import NAME
from execution.signals import announce_freed
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound

MOST_SLOTS: Final = 1_000_000
MOST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who holds a part of a pool or key, or waits for it. `step_run` is None for users of a key."""

    execution: UUID
    workflow: str
    step_run: UUID | None
    label: str
    units: int
    priority: int
    since: datetime | None


POOL_HOLDERS = """
SELECT s.execution_id, w.name, s.id, s.label, s.pool_held, s.priority, a.started_at
FROM execution_steprun s JOIN execution_execution e ON e.id = s.execution_id
JOIN execution_workflow w ON w.id = e.workflow_id LEFT JOIN execution_attempt a ON a.id = s.lease_token
WHERE s.pool = %(name)s::text AND s.pool_held > 0 ORDER BY s.id LIMIT %(limit)s::int
"""
POOL_WAITERS = """
SELECT s.execution_id, w.name, s.id, s.label, s.pool_units, s.priority, s.available_at
FROM execution_steprun s JOIN execution_execution e ON e.id = s.execution_id
JOIN execution_workflow w ON w.id = e.workflow_id
WHERE s.pool = %(name)s::text AND s.state = 'waiting' AND s.waiting_for = 'pool'
ORDER BY s.priority, s.id LIMIT %(limit)s::int
"""
POOL_WAITING = """
SELECT pool AS name, count(*) AS n FROM execution_steprun
WHERE state = 'waiting' AND waiting_for = 'pool' AND (%(name)s::text IS NULL OR pool = %(name)s::text) GROUP BY pool
"""
KEY_HOLDERS = """
SELECT e.id, w.name, NULL::uuid AS step_run, w.name AS label, 1 AS units, e.priority, e.started_at
FROM execution_execution e JOIN execution_workflow w ON w.id = e.workflow_id
WHERE e.concurrency_key = %(name)s::text AND e.key_held ORDER BY e.id LIMIT %(limit)s::int
"""
KEY_WAITERS = """
SELECT e.id, w.name, NULL::uuid AS step_run, w.name AS label, 1 AS units, e.priority, e.created_at
FROM execution_execution e JOIN execution_workflow w ON w.id = e.workflow_id
WHERE e.concurrency_key = %(name)s::text AND e.concurrency_key <> '' AND NOT e.key_held AND e.finished_at IS NULL
ORDER BY e.priority, e.id LIMIT %(limit)s::int
"""

# Race: a claim takes units while the pool is made smaller or deleted: both take its row's lock. A pool may be smaller
# than what is in use; nothing more is admitted until enough has come back.
CHANGE = """
UPDATE execution_pool p SET slots = coalesce(%(slots)s::int, p.slots),
    description = coalesce(%(description)s::text, p.description), updated_at = now()
WHERE p.name = %(name)s::text RETURNING p.name
"""
DELETE = """
DELETE FROM execution_pool p WHERE p.name = %(name)s::text AND p.used = 0 AND NOT EXISTS (
    SELECT 1 FROM execution_steprun s WHERE s.pool = p.name AND s.state = 'waiting' AND s.waiting_for = 'pool')
RETURNING p.name
"""


def create(name: str, *, slots: int, description: str = "", actor: str, using: str = "default") -> Pool:
    """Make a pool. Steps that name it and were unbounded so far are bounded from their next attempt on.

    Raises:
        InvalidInput: the name or the number of slots.
        Conflict: there is one of this name.
    """
    try:
        NAME(name)
    except ValidationError as error:
        raise InvalidInput(fields={"name": list(error.messages)}) from None
    _check_slots(slots)
    try:
        with engine.transaction(using=using) as alias:
            pool = Pool.objects.using(alias).create(name=name, slots=slots, description=description)
            _audit(pool.name, "create", actor, {"slots": {"before": None, "after": slots}}, alias)
    except IntegrityError:
        raise Conflict(f"There is a pool {name} already.", fields={"name": ["is taken"]}) from None
    return pool


def update(
    name: str, *, slots: int | None = None, description: str | None = None, actor: str, using: str = "default"
) -> Pool:
    """Change a pool; what waits goes on at once where it became larger.

    Raises:
        NotFound: there is no such pool.
        InvalidInput: the number of slots.
    """
    if slots is not None:
        _check_slots(slots)
    with engine.transaction(using=using) as alias:
        before = get(name, using=alias)
        engine.fetch_all(CHANGE, {"name": name, "slots": slots, "description": description}, using=alias)
        after = get(name, using=alias)
        kept = ("slots", "description")
        changes = audit.difference({c: getattr(before, c) for c in kept}, {c: getattr(after, c) for c in kept})
        _audit(name, "update", actor, changes, alias)
        announce_freed(using=alias)
    return after


def delete(name: str, *, actor: str, using: str = "default") -> None:
    """Delete a pool that nobody holds or waits for. Steps that name it are unbounded from then on.

    Raises:
        NotFound: there is no such pool.
        Conflict: it is in use.
    """
    with engine.transaction(using=using) as alias:
        pool = get(name, using=alias)
        if not engine.fetch_all(DELETE, {"name": name}, using=alias):
            raise Conflict(f"Pool {name} is in use: {pool.used} of {pool.slots} slots are taken, or steps wait for it.")
        _audit(name, "delete", actor, {"slots": {"before": pool.slots, "after": None}}, alias)


def get(name: str, *, using: str = "default") -> Pool:
    """
    Raises:
        NotFound: there is no such pool.
    """
    pool = Pool.objects.using(using).filter(pk=name).first()
    if pool is None:
        raise NotFound(f"There is no pool {name}.")
    return pool


def get_key(key: str, *, using: str = "default") -> ConcurrencyKey:
    """
    Raises:
        NotFound: nobody holds or awaits this key, and nobody did so lately.
    """
    found = ConcurrencyKey.objects.using(using).filter(pk=key).first()
    if found is None:
        raise NotFound(f"There is no concurrency key {key}.")
    return found


def waiting(name: str | None = None, *, using: str = "default") -> dict[str, int]:
    """How many step runs wait for each pool (or for `name`)."""
    return {row.name: row.n for row in engine.fetch_all(POOL_WAITING, {"name": name}, using=using)}


def holders(name: str, *, limit: int = MOST_SHOWN, using: str = "default") -> list[User]:
    """Who holds units of a pool, the oldest first."""
    return _users(POOL_HOLDERS, name, limit, using)


def waiters(name: str, *, limit: int = MOST_SHOWN, using: str = "default") -> list[User]:
    """Who waits for units of a pool, in the order in which they will get them."""
    return _users(POOL_WAITERS, name, limit, using)


def key_holders(key: str, *, limit: int = MOST_SHOWN, using: str = "default") -> list[User]:
    """Which executions have a place of a concurrency key."""
    return _users(KEY_HOLDERS, key, limit, using)


def key_waiters(key: str, *, limit: int = MOST_SHOWN, using: str = "default") -> list[User]:
    """Which executions wait for a place of a concurrency key, the next one first (before aging)."""
    return _users(KEY_WAITERS, key, limit, using)


def _users(sql: str, name: str, limit: int, using: str) -> list[User]:
    return [User(*row) for row in engine.fetch_all(sql, {"name": name, "limit": limit}, using=using)]


def _check_slots(slots: int) -> None:
    if not 0 <= slots <= MOST_SLOTS:
        raise InvalidInput(fields={"slots": [f"must be a whole number from 0 to {MOST_SLOTS}"]})


def _audit(name: str, verb: str, actor: str, changes: dict[str, Any], using: str) -> None:
    audit.record(
        actor=actor,
        action=f"pool.{verb}",
        subject_kind="pool",
        subject_id=name,
        subject_label=name,
        changes=changes,
        using=using,
    )
