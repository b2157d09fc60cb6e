"""Queues as operators see them: how much waits, how much is under way, who serves them, and the pause switch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import audit, creation, dispatch, engine, handoff
from execution.models import Execution, QueueSettings, Workflow
from execution.queue import Claim, claim
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

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
    draining_at: datetime | None = None
    drained_at: datetime | None = None
    age_limit: float | None = None
    workers: int = 0
    slots: int = 0
    levels: list[Level] = field(default_factory=list)

    def total(self, what: str) -> int:
        return sum(getattr(level, what) for level in self.levels)

    @property
    def status(self) -> str:
        """``active``, ``paused``, ``draining`` (paused, something still runs) or ``drained`` (nothing does)."""
        if self.paused_at is None:
            return "active"
        if self.draining_at is None:
            return "paused"
        return "draining" if self.total("running") else "drained"

    @property
    def oldest_at(self) -> datetime | None:
        return min((level.oldest_at for level in self.levels if level.oldest_at), default=None)


# What waits may be a hundred thousand rows: each level of each queue is found by a leap through the index (a recursive
# look for the next one) and its rows are counted in the index, without comparing them to each other as GROUP BY does.
# Each of the other branches reads one partial index, which stays small.
STATS = """
WITH RECURSIVE level AS (
    (SELECT queue, priority FROM execution_steprun WHERE state IN ('queued', 'retryable') AND dispatched_at IS NULL
     ORDER BY queue, priority LIMIT 1)
    UNION ALL
    SELECT next.queue, next.priority FROM level CROSS JOIN LATERAL (
        SELECT s.queue, s.priority FROM execution_steprun s
        WHERE s.state IN ('queued', 'retryable') AND s.dispatched_at IS NULL
          AND (s.queue, s.priority) > (level.queue, level.priority)
        ORDER BY s.queue, s.priority LIMIT 1
    ) next
)
SELECT queue, priority, sum(waiting)::bigint AS waiting, sum(in_flight)::bigint AS in_flight,
       sum(running)::bigint AS running, sum(later)::bigint AS later, min(oldest_at) AS oldest_at
FROM (
    SELECT l.queue, l.priority, due.waiting, 0 AS in_flight, 0 AS running, due_later.later,
           oldest.available_at AS oldest_at
    FROM level l
    CROSS JOIN LATERAL (
        SELECT count(*) AS waiting FROM execution_steprun s
        WHERE s.queue = l.queue AND s.priority = l.priority AND s.state IN ('queued', 'retryable')
          AND s.dispatched_at IS NULL AND s.available_at <= now()
    ) due
    CROSS JOIN LATERAL (
        SELECT count(*) AS later FROM execution_steprun s
        WHERE s.queue = l.queue AND s.priority = l.priority AND s.state IN ('queued', 'retryable')
          AND s.dispatched_at IS NULL AND s.available_at > now()
    ) due_later
    LEFT JOIN LATERAL (
        SELECT s.available_at FROM execution_steprun s
        WHERE s.queue = l.queue AND s.priority = l.priority AND s.state IN ('queued', 'retryable')
          AND s.dispatched_at IS NULL AND s.available_at <= now()
        ORDER BY s.available_at LIMIT 1
    ) oldest ON true
    WHERE %(queues)s::text[] IS NULL OR l.queue = ANY(%(queues)s::text[])
    UNION ALL
    SELECT queue, priority, 0, count(*), 0, 0, min(available_at)
    FROM execution_steprun WHERE state IN ('queued', 'retryable') AND dispatched_at IS NOT NULL
    GROUP BY queue, priority
    UNION ALL
    SELECT queue, priority, 0, 0, count(*), 0, NULL FROM execution_steprun WHERE state = 'running'
    GROUP BY queue, priority
) counted
WHERE %(queues)s::text[] IS NULL OR queue = ANY(%(queues)s::text[])
GROUP BY queue, priority ORDER BY queue, priority
"""

SETTINGS = """
SELECT name, paused_at, paused_by, pause_note, draining_at, drained_at, age_limit FROM execution_queuesettings
"""

SETTING_NAMES = ("paused_at", "paused_by", "pause_note", "draining_at", "drained_at", "age_limit")

SERVED = """
SELECT q.name, count(*) AS workers, coalesce(sum(p.slots), 0) AS slots
FROM execution_processreport p, jsonb_array_elements_text(p.queues) AS q(name)
WHERE p.kind = 'worker' AND p.stopped_at IS NULL AND p.seen_at > now() - make_interval(secs => %(alive)s::float8)
GROUP BY q.name
"""

# What has been sent, what is due, what is due later; each level by its own index, so that only as many rows are read
# as are asked for.
PEEK = """
SELECT next.id FROM generate_series(0, 9) AS p(priority) CROSS JOIN LATERAL (
    (SELECT s.id, s.available_at, 0 AS kind FROM execution_steprun s
     WHERE s.queue = %(queue)s::text AND s.priority = p.priority AND s.state IN ('queued', 'retryable')
       AND s.dispatched_at IS NOT NULL ORDER BY s.available_at, s.id LIMIT %(limit)s::int)
    UNION ALL
    (SELECT s.id, s.available_at, 1 FROM execution_steprun s
     WHERE s.queue = %(queue)s::text AND s.priority = p.priority AND s.state IN ('queued', 'retryable')
       AND s.dispatched_at IS NULL AND s.available_at <= now() ORDER BY s.available_at, s.id LIMIT %(limit)s::int)
    UNION ALL
    (SELECT s.id, s.available_at, 2 FROM execution_steprun s
     WHERE s.queue = %(queue)s::text AND s.priority = p.priority AND s.state IN ('queued', 'retryable')
       AND s.dispatched_at IS NULL AND s.available_at > now() ORDER BY s.available_at, s.id LIMIT %(limit)s::int)
) next
ORDER BY next.kind = 2, CASE WHEN next.kind < 2 THEN p.priority END, next.kind, next.available_at, next.id
LIMIT %(limit)s::int
"""

# Race: two operators pause at once: the second finds the row paused and changes nothing.
PAUSE = """
INSERT INTO execution_queuesettings (name, paused_at, paused_by, pause_note, draining_at)
VALUES (%(name)s::text, clock_timestamp(), %(actor)s::text, %(note)s::text,
    CASE WHEN %(drain)s::bool THEN clock_timestamp() END)
ON CONFLICT (name) DO UPDATE
SET paused_at = coalesce(execution_queuesettings.paused_at, excluded.paused_at), paused_by = excluded.paused_by,
    pause_note = excluded.pause_note, draining_at = excluded.draining_at, drained_at = NULL
WHERE execution_queuesettings.paused_at IS NULL OR (%(drain)s::bool AND execution_queuesettings.draining_at IS NULL)
RETURNING name
"""

# Race: a claim that read the queue before it was paused: it is running by now, or was refused.
MARK_DRAINED = """
UPDATE execution_queuesettings q SET drained_at = clock_timestamp()
WHERE q.draining_at < clock_timestamp() - interval '1 second' AND q.drained_at IS NULL AND q.paused_at IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM execution_steprun s WHERE s.state = 'running' AND s.queue = q.name)
RETURNING q.name
"""

# What was sent before the pause was refused by its claims; the marks are cleared so that it is sent again at once.
RESUME = """
UPDATE execution_queuesettings
SET paused_at = NULL, paused_by = '', pause_note = '', draining_at = NULL, drained_at = NULL
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
    for row in engine.fetch_all(STATS, {"queues": None if names is None else list(names)}, using=using):
        levels.setdefault(row.queue, []).append(Level(*row[1:]))
    return _states(dict.fromkeys([*settings.WORKFLOW_QUEUES, *levels]) if names is None else names, levels, using)


def _states(names: Iterable[str], levels: dict[str, list[Level]], using: str) -> list[QueueState]:
    decided = {row.name: row for row in engine.fetch_all(SETTINGS, {}, using=using)}
    served = {row.name: row for row in engine.fetch_all(SERVED, {"alive": ALIVE_SECONDS}, using=using)}
    found = []
    for name in names:
        chosen: dict[str, Any] = {}
        if name in decided:
            chosen = dict(zip(SETTING_NAMES, decided[name][1:], strict=True))
        if name in served:
            chosen |= {"workers": served[name].workers, "slots": int(served[name].slots)}
        found.append(QueueState(name, levels=levels.get(name, []), **chosen))
    return found


RUNNING = """
SELECT queue, priority, count(*) AS running FROM execution_steprun
WHERE state = 'running' AND queue = ANY(%(queues)s::text[]) GROUP BY queue, priority
"""


def service(names: Sequence[str], *, using: str = "default") -> dict[str, QueueState]:
    """Who serves these queues and what runs in them, without counting what waits: a few milliseconds at any size."""
    levels: dict[str, list[Level]] = {}
    for row in engine.fetch_all(RUNNING, {"queues": list(names)}, using=using):
        levels.setdefault(row.queue, []).append(Level(row.priority, 0, 0, row.running, 0, None))
    return {state.name: state for state in _states(names, levels, using)}


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
        params = {"name": name, "actor": actor[:200], "note": note[:500], "drain": False}
        if not engine.fetch_all(PAUSE, params, using=alias):
            raise Conflict(f"Queue {name} is paused already.")
        _audit(name, "pause", actor, note, alias)


def drain(name: str, *, actor: str, note: str = "", using: str | None = None) -> None:
    """Pause a queue in order to become empty: when the last step that runs in it has ended, that is reported
    (`QueueState.status` is ``drained``, an audit entry says when).

    Raises:
        NotFound: there is no such queue.
        Conflict: it is being drained already.
    """
    check_name(name)
    with engine.transaction(using=using) as alias:
        params = {"name": name, "actor": actor[:200], "note": note[:500], "drain": True}
        if not engine.fetch_all(PAUSE, params, using=alias):
            raise Conflict(f"Queue {name} is being drained already.")
        _audit(name, "drain", actor, note, alias)


def report_drained(*, using: str | None = None) -> list[str]:
    """Note which draining queues have become empty; each is reported once. Returns their names."""
    with engine.transaction(using=using) as alias:
        names = [row.name for row in engine.fetch_all(MARK_DRAINED, {}, using=alias)]
        for name in names:
            _audit(name, "drained", "system", "", alias)
            log.info("queue.drained", queue=name)
    return names


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


def set_age_limit(name: str, seconds: float | None, *, actor: str, using: str | None = None) -> None:
    """How old the oldest due item may become before other workers serve the queue too; None: they never do.

    Raises:
        NotFound: there is no such queue.
        InvalidInput: the number of seconds.
    """
    check_name(name)
    if seconds is not None and not 1 <= seconds <= 86_400:
        raise InvalidInput(fields={"age_limit": ["must be from 1 to 86400 seconds, or null"]})
    with engine.transaction(using=using) as alias:
        row, _ = QueueSettings.objects.using(alias).get_or_create(name=name)
        changes = audit.difference({"age_limit": row.age_limit}, {"age_limit": seconds})
        QueueSettings.objects.using(alias).filter(pk=name).update(age_limit=seconds, calm_since=None)
        _audit(name, "update", actor, "", alias, changes)


def size(name: str, *, using: str = "default") -> int:
    """How many step runs wait in a queue to be claimed: due, sent, or due later."""
    (state,) = stats([name], using=using)
    return state.total("waiting") + state.total("in_flight") + state.total("later")


def enqueue(workflow: Workflow, *, queue: str, **options: Any) -> Execution:
    """Start an execution whose steps wait in this queue; `options` are those of `creation.start`.

    Raises:
        NotFound: there is no such queue.
        Conflict, InvalidInput: as `creation.start`.
    """
    check_name(queue)
    return creation.start(workflow, queue=queue, **options)


def dequeue(name: str, *, worker: str, lease: float) -> Claim | None:
    """Claim what comes next in a queue for `lease` seconds, as a worker without Celery would; None when nothing does.

    Whoever claims must renew (`queue.heartbeat`) and end it (`advance.conclude`), or it is rescued.
    """
    for step_run_id in peek(name, limit=20, using=engine.alias()):
        claimed = claim(step_run_id, worker=worker, lease=lease)
        if claimed is not None:
            return claimed
    return None


def check_name(name: str) -> None:
    """
    Raises:
        NotFound: there is no such queue.
    """
    if name not in known():
        raise NotFound(f"There is no queue {name}; there are {', '.join(known())}.")


def _audit(
    name: str, verb: str, actor: str, note: str, using: str, changes: dict[str, dict[str, Any]] | None = None
) -> None:
    audit.record(
        actor=actor,
        action=f"queue.{verb}",
        subject_kind="queue",
        subject_id=name,
        subject_label=name,
        note=note,
        changes=changes,
        using=using,
    )
