"""Load balancing between queues: workers with free slots are lent to a queue whose oldest item is too old.

`decide` is pure. `balance_execution_load` reads, decides and writes, one worker of all at a time: a lent queue stands
in the borrower's row (`ProcessReport.extra_queues`), and it serves it from its next report on. It is given back when
the queue has been calm for long enough (below half of its limit, for `CALM_SECONDS`), or when a queue of the
borrower's own is late: a borrowed slot never makes its lender late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.conf import settings

from execution import audit, engine
from execution.queue import CLOCK
from execution.queues import ALIVE_SECONDS
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

CYCLE_SECONDS: Final = 5.0
CALM_SECONDS: Final = 60.0
#: A queue is calm whose oldest due item is younger than this part of its limit.
CALM_SHARE: Final = 0.5
#: How many waiting items are counted; more lend no more workers in one cycle.
MOST_COUNTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """A queue with an age limit: age in seconds of its oldest due item, how many wait, since when it has been calm."""

    name: str
    limit: float
    age: float
    waiting: int
    calm_since: datetime | None = None

    @property
    def is_late(self) -> bool:
        return self.waiting > 0 and self.age > self.limit

    @property
    def is_calm(self) -> bool:
        return self.waiting == 0 or self.age < self.limit * CALM_SHARE


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """A living worker that takes work."""

    name: str
    own: tuple[str, ...]
    extra: tuple[str, ...]
    slots: int
    busy: int

    @property
    def free(self) -> int:
        return max(0, self.slots - self.busy)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which workers are lent to which queues from now on (only those that change), and since when queues are calm."""

    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    calm_since: Mapping[str, datetime | None] = field(default_factory=dict)


def decide(queues: Sequence[QueueLoad], workers: Sequence[WorkerLoad], now: datetime) -> Decision:
    """Who serves what beside its own queues.

    A late queue gets the workers with the most free slots that do not serve it, until as many slots are lent as items
    wait. The queue that is latest, measured by its limit, chooses first; each worker is lent once a cycle.
    """
    calm = {queue.name: (queue.calm_since or now) if queue.is_calm else None for queue in queues}
    late = {queue.name for queue in queues if queue.is_late}
    known = {queue.name for queue in queues}
    extra: dict[str, tuple[str, ...]] = {}
    for worker in workers:
        needed_at_home = bool(late & set(worker.own))
        kept = tuple(
            name for name in worker.extra if name in known and not needed_at_home and not _is_over(calm[name], now)
        )
        if kept != worker.extra:
            extra[worker.name] = kept
    for queue in sorted((queue for queue in queues if queue.is_late), key=lambda queue: -queue.age / queue.limit):
        missing = queue.waiting
        for worker in sorted(workers, key=lambda worker: (-worker.free, worker.name)):
            serves = (*worker.own, *extra.get(worker.name, worker.extra))
            if missing <= 0 or not worker.free:
                break
            if worker.name in extra or queue.name in serves or late & set(worker.own):
                continue
            extra[worker.name] = (*worker.extra, queue.name)
            missing -= worker.free
    changed = {queue.name: calm[queue.name] for queue in queues if calm[queue.name] != queue.calm_since}
    return Decision(extra, changed)


def _is_over(calm_since: datetime | None, now: datetime) -> bool:
    return calm_since is not None and (now - calm_since).total_seconds() >= CALM_SECONDS


# Race: the housekeeping of every worker wants to balance: the row lock lets one in, the others find it not due.
TURN = f"""
WITH {CLOCK}
INSERT INTO execution_turn AS t (name, next_at)
SELECT %(name)s::text, clock.now + make_interval(secs => %(seconds)s::float8) FROM clock
ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at
WHERE t.next_at <= (SELECT now FROM clock) OR %(force)s::bool
RETURNING (SELECT now FROM clock) AS now
"""

# The oldest of each level by index; of what waits as many rows are counted as matter.
QUEUES = """
SELECT q.name, q.age_limit, q.calm_since,
    coalesce(extract(epoch FROM %(now)s::timestamptz - due.oldest), 0)::float8 AS age, counted.n AS waiting
FROM execution_queuesettings q
CROSS JOIN LATERAL (
    SELECT min(front.available_at) AS oldest FROM generate_series(0, 9) AS p(priority) CROSS JOIN LATERAL (
        (SELECT s.available_at FROM execution_steprun s
         WHERE s.queue = q.name AND s.priority = p.priority AND s.state IN ('queued', 'retryable')
           AND s.dispatched_at IS NULL AND s.available_at <= %(now)s::timestamptz ORDER BY s.available_at LIMIT 1)
        UNION ALL
        (SELECT s.available_at FROM execution_steprun s
         WHERE s.queue = q.name AND s.priority = p.priority AND s.state IN ('queued', 'retryable')
           AND s.dispatched_at IS NOT NULL ORDER BY s.available_at LIMIT 1)
    ) front
) due
CROSS JOIN LATERAL (
    SELECT count(*) AS n FROM (
        SELECT 1 FROM execution_steprun s WHERE s.queue = q.name AND s.state IN ('queued', 'retryable')
          AND s.available_at <= %(now)s::timestamptz LIMIT %(most)s::int) waiting
) counted
WHERE q.age_limit IS NOT NULL AND q.paused_at IS NULL ORDER BY q.name
"""

WORKERS = """
SELECT name, own_queues, extra_queues, slots, busy FROM execution_processreport
WHERE kind = 'worker' AND stopped_at IS NULL AND wanted = '' AND pressure = ''
  AND seen_at > clock_timestamp() - make_interval(secs => %(alive)s::float8) ORDER BY name
"""

# Race: an operator pauses the worker at this moment: a wish takes everything lent away, and is named here.
LEND = """
UPDATE execution_processreport SET extra_queues = %(extra)s::jsonb
WHERE name = %(name)s::text AND wanted = '' RETURNING name
"""
# A queue that no longer has a limit, or was paused, is lent to nobody.
CALM = "UPDATE execution_queuesettings SET calm_since = %(calm)s::timestamptz WHERE name = %(name)s::text"


def balance_execution_load(*, now: datetime | None = None, force: bool = False, using: str | None = None) -> Decision:
    """Lend workers to late queues and give them back from calm ones, if it is time for that again.

    Safe to call anywhere, any number of times at once. Returns what changed (nothing when it is not yet time).

    Args:
        force: also when another worker has just done so.
    """
    with engine.transaction(using=using) as alias:
        params = {"name": "balance", "seconds": CYCLE_SECONDS, "force": force, "now": now}
        turn = engine.fetch_one(TURN, params, using=alias)
        if turn is None:
            return Decision()
        instant = turn.now
        rows = engine.fetch_all(QUEUES, {"now": instant, "most": MOST_COUNTED}, using=alias)
        queues = [QueueLoad(row.name, row.age_limit, max(0.0, row.age), row.waiting, row.calm_since) for row in rows]
        workers = [
            WorkerLoad(
                row.name,
                tuple(engine.load_json(row.own_queues)),
                tuple(engine.load_json(row.extra_queues)),
                row.slots,
                row.busy,
            )
            for row in engine.fetch_all(WORKERS, {"alive": ALIVE_SECONDS}, using=alias)
        ]
        decided = decide([queue for queue in queues if queue.name in settings.WORKFLOW_QUEUES], workers, instant)
        for name, calm in decided.calm_since.items():
            engine.fetch_all(CALM, {"name": name, "calm": calm}, using=alias)
        before = {worker.name: worker.extra for worker in workers}
        for name, extra in decided.extra.items():
            if engine.fetch_all(LEND, {"name": name, "extra": engine.dump_json(list(extra))}, using=alias):
                _note(name, before[name], extra, alias)
    return decided


def _note(worker: str, before: Sequence[str], after: Sequence[str], using: str) -> None:
    log.info("worker.lent", worker=worker, queues=list(after))
    audit.record(
        actor="system",
        action="worker.balance",
        subject_kind="worker",
        subject_id=worker,
        subject_label=worker,
        changes={"extra_queues": {"before": list(before), "after": list(after)}},
        using=using,
    )
