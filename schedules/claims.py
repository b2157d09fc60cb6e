"""All SQL of firing, each statement with the race it closes.

Everything that changes a schedule's watermark, wake-up or ledger holds that schedule's row lock, taken here:
``FOR NO KEY UPDATE``, because the plain ``FOR UPDATE`` would block inserts that refer to the schedule. Order of
locks: schedules, then executions. Instants travel as epoch seconds; ``to_timestamp`` makes them timestamps.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from execution import engine

#: `Source.kind` of executions that a schedule started.
SOURCE_KIND = "schedule"

COLUMNS = """s.id, s.name, s.workflow_id, s.version_id, s.input, s.priority, s.queue, s.retry_policy, s.timeout,
    s.concurrency_key, s.overlap_policy, s.catch_up, s.catch_up_window, s.max_executions, s.pause_on_failure,
    s.enabled, s.pause_kind, s.on_resume, s.started_count, s.consecutive_failures,
    extract(epoch FROM s.next_fire_at)::float8 AS wake,
    floor(extract(epoch FROM s.fired_through))::bigint AS fired_through,
    floor(extract(epoch FROM s.missed_through))::bigint AS missed_through,
    floor(extract(epoch FROM s.paused_until))::bigint AS paused_until"""

RUNNING = "NOT EXISTS (SELECT 1 FROM schedules_firingswitch WHERE stopped_at IS NOT NULL)"

STOPPED = "SELECT stopped_at, stopped_by, note FROM schedules_firingswitch WHERE stopped_at IS NOT NULL"

# A beat that is frozen in the middle of a visit must not hold its schedules for long: the server ends its
# transaction. `quiet` tells the NOTIFY trigger that nothing here can be news to a beat.
# The moment is Postgres's clock, read once, unless one is bound.
LIMITS = """WITH limits AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now,
        set_config('idle_in_transaction_session_timeout', '5s', true), set_config('schedules.quiet', 'on', true))"""

MOMENT = "extract(epoch FROM limits.now)::float8 AS moment"

# Race: any number of beats, workers and commands see the same schedule due. The row lock gives it to one; the others
# pass over it (SKIP LOCKED) and, when they come back, the wake-up has moved. The columns come from the locking
# subquery itself: a join outside could still read the row as it was before the lock was granted.
CLAIM_DUE = f"""
{LIMITS}, due AS MATERIALIZED (
    SELECT {COLUMNS} FROM schedules_schedule s
    WHERE s.next_fire_at <= (SELECT now FROM limits) AND {RUNNING}
    ORDER BY s.next_fire_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
) SELECT {MOMENT}, due.* FROM limits LEFT JOIN due ON true
"""

CLAIM_DUE_OF = f"""
{LIMITS}, due AS MATERIALIZED (
    SELECT {COLUMNS} FROM schedules_schedule s
    WHERE s.next_fire_at <= (SELECT now FROM limits) AND s.id = ANY(%(ids)s::uuid[]) AND {RUNNING}
    ORDER BY s.next_fire_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
) SELECT {MOMENT}, due.* FROM limits LEFT JOIN due ON true
"""

# Race: a run ends while its successor is being buffered, so that the news of its end finds nothing to release. Every
# sweep therefore looks for buffered instants itself.
CLAIM_BUFFERED = f"""
{LIMITS}, waiting AS MATERIALIZED (
    SELECT DISTINCT f.schedule_id FROM schedules_schedulefire f WHERE f.outcome = 'buffered'
), due AS MATERIALIZED (
    SELECT {COLUMNS} FROM schedules_schedule s
    WHERE s.id IN (SELECT schedule_id FROM waiting) AND (s.enabled OR s.pause_kind = 'finished') AND {RUNNING}
      AND (s.overlap_policy = 'allow_all' OR NOT EXISTS (
        SELECT 1 FROM execution_execution e
        WHERE e.source_kind = 'schedule' AND e.source_id = s.id::text AND e.finished_at IS NULL))
    LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
) SELECT {MOMENT}, due.* FROM limits LEFT JOIN due ON true
"""

# Race: an edit, pause or resume against firing. It waits for the visit in progress; later visits wait for it.
LOCK = f"SELECT {COLUMNS} FROM schedules_schedule s WHERE s.id = ANY(%(ids)s::uuid[]) ORDER BY s.id FOR NO KEY UPDATE"

# Race: a backfill's step against a visit or an edit. It waits for nobody: the beat that takes it has others to fire.
LOCK_FREE = "SELECT s.id FROM schedules_schedule s WHERE s.id = %(id)s FOR NO KEY UPDATE SKIP LOCKED"

VERSIONS = """
SELECT v.id, v.schedule_id, v.number, v.spec, floor(extract(epoch FROM v.effective_from))::bigint AS effective_from
FROM schedules_scheduleversion v WHERE v.id = ANY(%(ids)s::uuid[])
"""

# The versions that were in force from the watermark on: the latest one begun by then, and its successors.
OWED_VERSIONS = """
SELECT v.id, v.schedule_id, v.number, v.spec, floor(extract(epoch FROM v.effective_from))::bigint AS effective_from
FROM schedules_schedule s JOIN schedules_scheduleversion v ON v.schedule_id = s.id
WHERE s.id = ANY(%(ids)s::uuid[]) AND v.number >= COALESCE((
    SELECT max(w.number) FROM schedules_scheduleversion w
    WHERE w.schedule_id = s.id AND w.effective_from <= s.fired_through), 1)
ORDER BY v.schedule_id, v.number
"""

WORKFLOWS = "SELECT id, published_id, revision FROM execution_workflow WHERE id = ANY(%(ids)s::uuid[])"

OPEN_EXECUTIONS = """
SELECT e.source_id::uuid AS schedule_id, e.id FROM execution_execution e
WHERE e.source_kind = 'schedule' AND e.source_id = ANY(%(ids)s::text[]) AND e.finished_at IS NULL
ORDER BY e.id
"""

BUFFERED = """
SELECT f.id, f.schedule_id, f.version_id, extract(epoch FROM f.scheduled_for)::bigint AS scheduled_for
FROM schedules_schedulefire f WHERE f.outcome = 'buffered' AND f.schedule_id = ANY(%(ids)s::uuid[])
ORDER BY f.schedule_id, f.scheduled_for
"""

# Race: none while the schedule is locked. The unique (schedule, instant) is the last line of defence (a watermark set
# back by hand, a restored table): only the rows returned were not in the ledger before, and only they get executions.
# The execution is named before it exists; its foreign key is checked at COMMIT.
INSERT_LEDGER = """
WITH made AS (INSERT INTO schedules_schedulefire
    (schedule_id, version_id, scheduled_for, until, count, due_at, outcome, reason, note, execution_id)
SELECT schedule_id, version_id, to_timestamp(first), CASE WHEN instants > 1 THEN to_timestamp(last) END, instants,
    to_timestamp(due), outcome, reason, note, execution_id
FROM unnest(%(schedule_id)s::uuid[], %(version_id)s::uuid[], %(first)s::bigint[], %(last)s::bigint[],
    %(instants)s::bigint[], %(due)s::bigint[], %(outcome)s::text[], %(reason)s::text[], %(note)s::text[],
    %(execution_id)s::uuid[])
    AS new (schedule_id, version_id, first, last, instants, due, outcome, reason, note, execution_id)
ON CONFLICT (schedule_id, scheduled_for) DO NOTHING
RETURNING schedule_id, scheduled_for
) SELECT count(*) AS rows, CASE WHEN count(*) < %(expected)s::int
        THEN array_agg(ROW(schedule_id, extract(epoch FROM scheduled_for)::bigint)::text) END AS new FROM made
"""

# A run of missed or excluded instants that was cut by the bound of one visit goes on in the same entry.
EXTEND_LEDGER = """
UPDATE schedules_schedulefire f SET until = to_timestamp(run.last), count = f.count + run.instants
FROM unnest(%(schedule_id)s::uuid[], %(version_id)s::uuid[], %(first)s::bigint[], %(last)s::bigint[],
    %(instants)s::bigint[], %(outcome)s::text[], %(reason)s::text[])
    AS run (schedule_id, version_id, first, last, instants, outcome, reason)
WHERE f.id = (
    SELECT g.id FROM schedules_schedulefire g
    WHERE g.schedule_id = run.schedule_id ORDER BY g.scheduled_for DESC LIMIT 1)
  AND f.version_id = run.version_id AND f.outcome = run.outcome AND f.reason = run.reason AND f.note = ''
  AND COALESCE(f.until, f.scheduled_for) < to_timestamp(run.first)
RETURNING f.schedule_id
"""

# Race: none while the schedule is locked; the state left is named all the same.
SETTLE_BUFFERED = """
UPDATE schedules_schedulefire f SET outcome = new.outcome, reason = new.reason, execution_id = new.execution_id
FROM unnest(%(id)s::bigint[], %(outcome)s::text[], %(reason)s::text[], %(execution_id)s::uuid[])
    AS new (id, outcome, reason, execution_id)
WHERE f.id = new.id AND f.outcome = 'buffered'
"""

# Race: a watermark moved by somebody who did not take the lock (SQL by hand). Then the row is left alone, the
# caller sees a row missing and rolls its whole visit back.
ADVANCE = """
WITH moved AS (UPDATE schedules_schedule s SET
    fired_through = CASE WHEN new.reached > new.was THEN to_timestamp(new.reached) ELSE s.fired_through END,
    next_fire_at = to_timestamp(new.wake),
    started_count = s.started_count + new.started,
    last_fire_at = COALESCE(to_timestamp(new.last_fire), s.last_fire_at),
    missed_through = CASE WHEN new.missed_through > new.reached THEN to_timestamp(new.missed_through) END,
    enabled = new.enabled,
    pause_kind = CASE WHEN new.enabled THEN '' WHEN new.finished THEN 'finished' ELSE s.pause_kind END,
    pause_note = CASE WHEN new.enabled OR new.finished THEN '' ELSE s.pause_note END,
    paused_at = CASE WHEN new.enabled THEN NULL WHEN new.finished THEN %(now)s ELSE s.paused_at END,
    paused_until = CASE WHEN new.enabled OR new.finished THEN NULL ELSE s.paused_until END
FROM unnest(%(id)s::uuid[], %(was)s::bigint[], %(reached)s::bigint[], %(wake)s::float8[], %(started)s::int[],
    %(last_fire)s::bigint[], %(missed_through)s::bigint[], %(enabled)s::bool[], %(finished)s::bool[])
    AS new (id, was, reached, wake, started, last_fire, missed_through, enabled, finished)
WHERE s.id = new.id AND floor(extract(epoch FROM s.fired_through)) = new.was
RETURNING s.id
)
SELECT count(*) AS rows FROM moved
"""

QUARANTINE = """
UPDATE schedules_schedule s SET enabled = false, pause_kind = 'error', pause_note = left(new.note, 500),
    paused_at = %(now)s, paused_until = NULL, next_fire_at = NULL
FROM unnest(%(id)s::uuid[], %(note)s::text[]) AS new (id, note)
WHERE s.id = new.id
"""

# How long until something is due, by Postgres's clock; the sleeper then counts on its monotonic clock.
WAIT = f"""
SELECT extract(epoch FROM (
    SELECT s.next_fire_at FROM schedules_schedule s WHERE s.next_fire_at IS NOT NULL AND {RUNNING}
    ORDER BY s.next_fire_at LIMIT 1) - clock_timestamp())::float8 AS seconds
"""

# The same, with whether ended executions or buffered instants wait for a look: one round trip for an idle beat.
WAITING = f"""
SELECT extract(epoch FROM (
    SELECT s.next_fire_at FROM schedules_schedule s WHERE s.next_fire_at IS NOT NULL AND {RUNNING}
    ORDER BY s.next_fire_at LIMIT 1) - clock_timestamp())::float8 AS seconds,
    EXISTS (SELECT 1 FROM execution_news n WHERE n.topic = %(topic)s) AS news,
    EXISTS (SELECT 1 FROM schedules_schedulefire f WHERE f.outcome = 'buffered') AS buffered,
    EXISTS (SELECT 1 FROM schedules_backfill b WHERE b.state = 'running') AS backfills
"""


class Waiting(NamedTuple):
    """What waits: seconds to the next due schedule (None: never), news, buffered instants, running backfills."""

    seconds: float | None
    news: bool
    buffered: bool
    backfills: bool


class LedgerRow(NamedTuple):
    """One row of `INSERT_LEDGER`; instants in epoch seconds."""

    schedule_id: UUID
    version_id: UUID
    first: int
    last: int
    instants: int
    due: int
    outcome: str
    reason: str
    note: str = ""
    execution_id: UUID | None = None


class Advance(NamedTuple):
    """One row of `ADVANCE`: where a schedule stands after a visit; instants in epoch seconds."""

    id: UUID
    was: int
    reached: int
    wake: float | None
    started: int = 0
    last_fire: int | None = None
    missed_through: int | None = None
    enabled: bool = True
    finished: bool = False


class WatermarkMoved(RuntimeError):
    """A schedule's watermark changed while its row was locked; the visit is rolled back."""


def columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Rows turned into the arrays that ``unnest`` takes."""
    return dict(zip(names, map(engine.array, zip(*rows, strict=True)), strict=True))


class Claimed(NamedTuple):
    """Locked schedules, and the moment at which they were due."""

    now: datetime
    rows: list[Any]


def claim_due(*, now: datetime | None, limit: int, ids: Sequence[UUID] | None, using: str) -> Claimed:
    """Lock up to `limit` due schedules, those of `ids` when given; the earliest wake-ups first.

    Args:
        now: the moment; Postgres's clock when left out.
    """
    params: dict[str, Any] = {"now": now, "limit": limit}
    if ids is None:
        return _claim(CLAIM_DUE, params, using)
    return _claim(CLAIM_DUE_OF, params | {"ids": list(ids)}, using)


def claim_buffered(*, now: datetime | None, limit: int, using: str) -> Claimed:
    """Lock up to `limit` schedules with buffered instants that nothing of theirs holds up any longer."""
    return _claim(CLAIM_BUFFERED, {"now": now, "limit": limit}, using)


def _claim(sql: str, params: dict[str, Any], using: str) -> Claimed:
    with engine.pipeline(using=using):  # BEGIN goes along
        sent = engine.send(sql, params, using=using)
    rows = sent.rows()
    now = params["now"] or datetime.fromtimestamp(rows[0].moment, UTC)
    return Claimed(now, [] if rows[0].id is None else rows)


def lock(ids: Sequence[UUID], *, using: str) -> list[Any]:
    """Lock these schedules, waiting for whoever has them."""
    return engine.fetch_all(LOCK, {"ids": list(ids)}, using=using)


def lock_free(schedule_id: UUID, *, using: str) -> bool:
    """Lock a schedule if nobody has it; False when somebody has, or when there is none."""
    return engine.fetch_one(LOCK_FREE, {"id": schedule_id}, using=using) is not None


def open_executions(ids: Sequence[UUID], *, using: str) -> dict[UUID, list[UUID]]:
    """The executions that these schedules started and that have not ended."""
    found: dict[UUID, list[UUID]] = {}
    for row in engine.fetch_all(OPEN_EXECUTIONS, {"ids": [str(i) for i in ids]}, using=using):
        found.setdefault(row.schedule_id, []).append(row.id)
    return found


def buffered(ids: Sequence[UUID], *, using: str) -> dict[UUID, list[Any]]:
    """The buffered instants of these schedules, oldest first."""
    found: dict[UUID, list[Any]] = {}
    for row in engine.fetch_all(BUFFERED, {"ids": list(ids)}, using=using):
        found.setdefault(row.schedule_id, []).append(row)
    return found


class Record:
    """Ledger entries whose insertion has been sent."""

    def __init__(self, rows: Sequence[LedgerRow], *, using: str) -> None:
        self._rows = rows
        self._sent = engine.send(INSERT_LEDGER, columns(LedgerRow._fields, rows) | {"expected": len(rows)}, using=using)

    def new(self) -> list[bool]:
        """Of each entry, whether its (schedule, first instant) was not there before."""
        (made,) = self._sent.rows()
        if made.rows == len(self._rows):
            return [True] * len(self._rows)
        new = set(made.new or ())
        return [f"({row.schedule_id},{row.first})" in new for row in self._rows]


def extend(rows: Sequence[LedgerRow], *, using: str) -> set[UUID]:
    """Let the schedules' latest entries go on with these runs, at most one per schedule, where they have the same fate.

    Returns the schedules whose entry was extended.
    """
    if not rows:
        return set()
    names = ("schedule_id", "version_id", "first", "last", "instants", "outcome", "reason")
    params = columns(names, [tuple(getattr(row, name) for name in names) for row in rows])
    return {row.schedule_id for row in engine.fetch_all(EXTEND_LEDGER, params, using=using)}


def settle_buffered(rows: Sequence[tuple[int, str, str, UUID | None]], *, using: str) -> None:
    """Turn buffered entries into (outcome, reason, execution)."""
    if rows:
        engine.fetch_all(SETTLE_BUFFERED, columns(("id", "outcome", "reason", "execution_id"), rows), using=using)


class Move:
    """Watermarks and wake-ups whose move has been sent."""

    def __init__(self, rows: Sequence[Advance], *, now: datetime, using: str) -> None:
        self._expected = len(rows)
        self._sent = engine.send(ADVANCE, columns(Advance._fields, rows) | {"now": now}, using=using)

    def check(self) -> None:
        """
        Raises:
            WatermarkMoved: a schedule is no longer where the visit found it.
        """
        (moved,) = self._sent.rows()
        if moved.rows != self._expected:
            raise WatermarkMoved


def quarantine(notes: Sequence[tuple[UUID, str]], *, now: datetime, using: str) -> None:
    """Take schedules out of firing, with the reason."""
    if notes:
        engine.fetch_all(QUARANTINE, columns(("id", "note"), notes) | {"now": now}, using=using)


def seconds_to_next(*, using: str | None = None) -> float | None:
    """Seconds until the next schedule is due, negative when one is overdue; None when none will ever be."""
    row = engine.fetch_one(WAIT, {}, using=using)
    seconds: float | None = row.seconds if row is not None else None
    return seconds


def waiting(*, topic: str, using: str | None = None) -> Waiting:
    """What waits to be done by a beat."""
    row = engine.fetch_one(WAITING, {"topic": topic}, using=using)
    assert row is not None
    return Waiting(row.seconds, row.news, row.buffered, row.backfills)
