"""What must go on without anybody asking: groups whose time has come, news, and what is kept no longer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings

from execution import engine
from triggers import activation, chaining

SLICE: Final = 500


@dataclass(frozen=True, slots=True)
class Tended:
    """What one turn did."""

    groups: int = 0
    news: int = 0


def tend(*, now: datetime | None = None, using: str | None = None) -> Tended:
    """Start what waited long enough (debounce, batch) and turn news into events. Safe to run anywhere, at any time."""
    alias = using or engine.alias()
    groups = 0
    while True:
        closed = activation.flush(now=now or engine.now(using=alias), limit=50, using=alias)
        groups += closed
        if closed < 50:
            break
    return Tended(groups, chaining.consume(limit=200, using=alias))


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, in rows."""

    events: int = 0
    refusals: int = 0
    secrets: int = 0
    throttles: int = 0
    groups: int = 0


# In slices, so that no transaction is long. An event that still waits in a group, or whose activation waits for a
# person, is kept.
_EVENTS: Final = """
WITH old AS MATERIALIZED (
    SELECT e.id FROM triggers_event e
    WHERE e.received_at < %(before)s::timestamptz AND NOT EXISTS (
        SELECT 1 FROM triggers_activation a WHERE a.event_id = e.id AND a.state IN ('waiting', 'failed'))
    ORDER BY e.received_at LIMIT %(limit)s
), replays AS (
    UPDATE triggers_event SET replay_of_id = NULL
    WHERE replay_of_id IN (SELECT id FROM old) AND id NOT IN (SELECT id FROM old)
), activations AS (
    DELETE FROM triggers_activation WHERE event_id IN (SELECT id FROM old)
), deliveries AS (
    DELETE FROM triggers_delivery WHERE event_id IN (SELECT id FROM old)
)
DELETE FROM triggers_event WHERE id IN (SELECT id FROM old) RETURNING id
"""
_REFUSALS: Final = """
DELETE FROM triggers_delivery WHERE id IN (
    SELECT id FROM triggers_delivery WHERE event_id IS NULL AND received_at < %(before)s::timestamptz LIMIT %(limit)s)
RETURNING id
"""
_SECRETS: Final = "DELETE FROM triggers_endpointsecret WHERE expires_at < %(now)s::timestamptz RETURNING id"
_THROTTLES: Final = """
DELETE FROM triggers_throttle WHERE arrival_at < %(now)s::timestamptz - interval '1 day' RETURNING id
"""
_GROUPS: Final = """
DELETE FROM triggers_pendinggroup WHERE id IN (
    SELECT g.id FROM triggers_pendinggroup g WHERE g.closed_at < %(before)s::timestamptz
      AND NOT EXISTS (SELECT 1 FROM triggers_activation a WHERE a.group_id = g.id) LIMIT %(limit)s)
RETURNING id
"""


def prune(*, now: datetime | None = None, using: str = "default") -> Pruned:
    """Delete events older than ``WORKFLOW_EVENTS_KEPT_DAYS`` with their log, expired secrets and idle throttles."""
    instant = now or engine.now(using=using)
    params = {
        "now": instant,
        "before": instant - timedelta(days=settings.WORKFLOW_EVENTS_KEPT_DAYS),
        "limit": SLICE,
    }
    return Pruned(
        events=_in_slices(_EVENTS, params, using),
        refusals=_in_slices(_REFUSALS, params, using),
        secrets=len(engine.fetch_all(_SECRETS, params, using=using)),
        throttles=len(engine.fetch_all(_THROTTLES, params, using=using)),
        groups=_in_slices(_GROUPS, params, using),
    )


_COUNT: Final = """
SELECT
  (SELECT count(*) FROM triggers_event e
   WHERE e.received_at < %(before)s::timestamptz AND NOT EXISTS (
       SELECT 1 FROM triggers_activation a WHERE a.event_id = e.id AND a.state IN ('waiting', 'failed'))) AS events,
  (SELECT count(*) FROM triggers_delivery
   WHERE event_id IS NULL AND received_at < %(before)s::timestamptz) AS refusals,
  (SELECT count(*) FROM triggers_endpointsecret WHERE expires_at < %(now)s::timestamptz) AS secrets,
  (SELECT count(*) FROM triggers_throttle WHERE arrival_at < %(now)s::timestamptz - interval '1 day') AS throttles,
  (SELECT count(*) FROM triggers_pendinggroup g
   WHERE g.closed_at < %(before)s::timestamptz
     AND NOT EXISTS (SELECT 1 FROM triggers_activation a WHERE a.group_id = g.id)) AS groups
"""


def count(*, now: datetime | None = None, using: str = "default") -> Pruned:
    """What `prune` would delete now, without deleting it."""
    instant = now or engine.now(using=using)
    before = instant - timedelta(days=settings.WORKFLOW_EVENTS_KEPT_DAYS)
    (row,) = engine.fetch_all(_COUNT, {"now": instant, "before": before}, using=using)
    return Pruned(**row._asdict())


def _in_slices(sql: str, params: dict[str, object], using: str) -> int:
    total = 0
    while True:
        deleted = len(engine.fetch_all(sql, params, using=using))
        total += deleted
        if deleted < SLICE:
            return total
