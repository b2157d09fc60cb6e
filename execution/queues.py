"""Queues as operators see them: how much waits, how much is under way, who serves them, and the pause switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import audit, dispatch, engine, handoff
from execution.models import QueueSettings
from scheduling_project.common.errors import Conflict, NotFound

#: A process that reported less than so many seconds ago is alive.
ALIVE_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Level:
    """One priority of a queue. `waiting`: due in Postgres; `in_flight`: sent, not claimed; `later`: not due yet."""

    priority: int
    waiting: int
    in_flight: int
    running: int
    later: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue. Totals are sums over its levels."""

    name: str
    paused_at: datetime | None = None
    paused_by: str = ""
    pause_note: str = ""
    workers: int = 0
    slots: int = 0
    levels: list[Level] = field(default_factory=list)

    def total(self, what: str) -> int:
        return sum(getattr(level, what) for level in self.levels)

    @property
    def oldest_at(self) -> datetime | None:
        return min((level.oldest_at for level in self.levels if level.oldest_at), default=None)


STATS = """
SELECT s.queue, s.priority,
       count(*) FILTER (WHERE s.state <> 'running' AND s.dispatched_at IS NULL AND s.available_at <= now()) AS waiting,
       count(*) FILTER (WHERE s.dispatched_at IS NOT NULL) AS in_flight,
       count(*) FILTER (WHERE s.state = 'running') AS running,
       count(*) FILTER (WHERE s.state <> 'running' AND s.dispatched_at IS NULL AND s.available_at > now()) AS later,
       min(s.available_at) FILTER (WHERE s.state <> 'running' AND s.available_at <= now()) AS oldest_at
FROM (
    SELECT queue, priority, state, available_at, dispatched_at FROM execution_steprun
    WHERE state IN ('queued', 'retryable') AND dispatched_at IS NULL
    UNION ALL
    SELECT queue, priority, state, available_at, dispatched_at FROM execution_steprun
    WHERE state IN ('queued', 'retryable') AND dispatched_at IS NOT NULL
    UNION ALL
    SELECT queue, priority, state, available_at, dispatched_at FROM execution_steprun WHERE state = 'running'
) s
GROUP BY s.queue, s.priority ORDER BY s.queue, s.priority
"""

SETTINGS = "SELECT name, paused_at, paused_by, pause_note FROM execution_queuesettings"

SERVED = """
SELECT q.name, count(*) AS workers, coalesce(sum(p.slots), 0) AS slots
FROM execution_processreport p, jsonb_array_elements_text(p.queues) AS q(name)
WHERE p.kind = 'worker' AND p.stopped_at IS NULL AND p.seen_at > now() - make_interval(secs => %(alive)s::float8)
GROUP BY q.name
"""

PEEK = """
SELECT s.id FROM execution_steprun s
WHERE s.queue = %(queue)s::text AND s.state IN ('queued', 'retryable')
ORDER BY s.dispatched_at IS NULL, s.priority, s.available_at LIMIT %(limit)s::int
"""

# Race: two operators pause at once: the second finds the row paused and changes nothing.
PAUSE = """
INSERT INTO execution_queuesettings (name, paused_at, paused_by, pause_note)
VALUES (%(name)s::text, clock_timestamp(), %(actor)s::text, %(note)s::text)
ON CONFLICT (name) DO UPDATE
SET paused_at = excluded.paused_at, paused_by = excluded.paused_by, pause_note = excluded.pause_note
WHERE execution_queuesettings.paused_at IS NULL
RETURNING name
"""

# What was sent before the pause was refused by its claims; the marks are cleared so that it is sent again at once.
RESUME = """
UPDATE execution_queuesettings SET paused_at = NULL, paused_by = '', pause_note = ''
WHERE name = %(name)s::text AND paused_at IS NOT NULL
RETURNING name
"""

UNMARK_QUEUE = """
UPDATE execution_steprun SET dispatched_at = NULL, dispatches = 0
WHERE queue = %(name)s::text AND state IN ('queued', 'retryable') AND dispatched_at IS NOT NULL
RETURNING id
"""


def known() -> list[str]:
    """The queues of this deployment (``WORKFLOW_QUEUES``), then those that only have settings in the database."""
    stored = QueueSettings.objects.order_by("name").values_list("name", flat=True)
    return list(dict.fromkeys([*settings.WORKFLOW_QUEUES, *stored]))


def stats(names: Sequence[str] | None = None, *, using: str = "default") -> list[QueueState]:
    """Every queue of the deployment (or `names`), also those that are only found in rows."""
    levels: dict[str, list[Level]] = {}
    for row in engine.fetch_all(STATS, {}, using=using):
        levels.setdefault(row.queue, []).append(Level(*row[1:]))
    decided = {row.name: row for row in engine.fetch_all(SETTINGS, {}, using=using)}
    served = {row.name: row for row in engine.fetch_all(SERVED, {"alive": ALIVE_SECONDS}, using=using)}
    found = []
    for name in dict.fromkeys([*settings.WORKFLOW_QUEUES, *levels]) if names is None else names:
        chosen: dict[str, Any] = {}
        if name in decided:
            chosen = dict(zip(("paused_at", "paused_by", "pause_note"), decided[name][1:], strict=True))
        if name in served:
            chosen |= {"workers": served[name].workers, "slots": int(served[name].slots)}
        found.append(QueueState(name, levels=levels.get(name, []), **chosen))
    return found


def peek(name: str, *, limit: int = 20, using: str = "default") -> list[UUID]:
    """The step runs that come next, in the order in which they will be claimed, those already sent first."""
    check_name(name)
    return [row.id for row in engine.fetch_all(PEEK, {"queue": name, "limit": limit}, using=using)]


def pause(name: str, *, actor: str, note: str = "", using: str | None = None) -> None:
    """Let no worker claim from a queue until `resume`. What runs is left to end.

    Raises:
        NotFound: there is no such queue.
        Conflict: it is paused already.
    """
    check_name(name)
    with engine.transaction(using=using) as alias:
        params = {"name": name, "actor": actor[:200], "note": note[:500]}
        if not engine.fetch_all(PAUSE, params, using=alias):
            raise Conflict(f"Queue {name} is paused already.")
        _audit(name, "pause", actor, note, alias)


def resume(name: str, *, actor: str, using: str | None = None) -> None:
    """Let workers claim from a queue again, at once.

    Raises:
        NotFound: there is no such queue.
        Conflict: it is not paused.
    """
    check_name(name)
    with engine.transaction(using=using) as alias:
        if not engine.fetch_all(RESUME, {"name": name}, using=alias):
            raise Conflict(f"Queue {name} is not paused.")
        engine.fetch_all(UNMARK_QUEUE, {"name": name}, using=alias)
        hints = handoff.mark_due(queues=[name], bound=settings.WORKFLOW_IN_FLIGHT_PER_LEVEL, using=alias)
        dispatch.publish_on_commit(hints, using=alias)
        _audit(name, "resume", actor, "", alias)


def check_name(name: str) -> None:
    """
    Raises:
        NotFound: there is no such queue.
    """
    if name not in known():
        raise NotFound(f"There is no queue {name}; there are {', '.join(known())}.")


def _audit(name: str, verb: str, actor: str, note: str, using: str) -> None:
    audit.record(
        actor=actor,
        action=f"queue.{verb}",
        subject_kind="queue",
        subject_id=name,
        subject_label=name,
        note=note,
        using=using,
    )
