"""How a due schedule becomes executions.

`fire_due` is safe to run anywhere, any number of times at once. One visit is one transaction: lock due schedules,
write the ledger, create executions for exactly the ledger rows that are new, move watermarks and wake-ups. A crash
between any two statements leaves either all of it or nothing. Messages go out after the commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError

from execution import audit, cancellation, creation, engine, live
from execution.creation import Source, Start
from schedules import claims, monitoring, policies, versions
from schedules.claims import SOURCE_KIND, Advance, LedgerRow
from schedules.firing_visit import Look, Visit
from schedules.policies import BUFFERING, Decision
from schedules.states import FireOutcome, FireReason, OverlapPolicy, PauseKind
from scheduling_project.common.ids import uuid7, uuid7s
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: Schedules in one transaction: enough to spread the cost of its statements, few enough that a beat's two visits in
#: flight share what is due at one instant, and hold their locks briefly.
SLICE = 500
#: Due instants of one schedule, and of all, that one transaction takes. The rest is due at once again.
INSTANTS_PER_SCHEDULE = 10_000
INSTANTS_PER_SLICE = 20_000
#: Topic of the news that an execution of a schedule has ended, asked for where the schedule's policy depends on it.
NEWS_TOPIC = "schedule.finished"
ACTOR = "system"


@dataclass(slots=True)
class FireReport:
    """What a call did. Numbers of instants, but for `schedules` (visited) and `slices` (transactions).

    `more`: the call ended at its limit and further schedules are due.
    """

    schedules: int = 0
    slices: int = 0
    started: int = 0
    buffered: int = 0
    skipped: int = 0
    missed: int = 0
    quarantined: int = 0
    more: bool = False
    execution_ids: list[UUID] = field(default_factory=list, repr=False)

    def add(self, other: FireReport) -> None:
        """Count `other` in."""
        for name in (f.name for f in fields(self) if f.name not in ("more", "execution_ids")):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.execution_ids += other.execution_ids

    def count(self, outcome: str, instants: int) -> None:
        setattr(self, outcome, getattr(self, outcome) + instants)


def fire_due(
    now: datetime | None = None,
    *,
    limit: int = 10_000,
    schedule_ids: Sequence[UUID] | None = None,
    using: str | None = None,
    on_full: Callable[[], object] | None = None,
) -> FireReport:
    """Fire what is due, up to `limit` schedules, in transactions of bounded size.

    Args:
        now: the moment to fire up to; Postgres's clock when left out.
        schedule_ids: only these schedules.
        using: database alias; the engine's when left out.
        on_full: called as soon as a transaction has as many schedules as it may have, so that more may be due, which
            somebody else can begin with.

    Raises:
        django.db.OperationalError: Postgres is away or a statement ran into its timeouts. What was committed
            before stays; nothing is lost, as the watermarks keep the debt.
    """
    alias = using or engine.alias()
    report = FireReport()
    while report.schedules < limit:
        size = min(SLICE, limit - report.schedules)
        done = _claim_and_fire(now, size, schedule_ids, alias, on_full=on_full)
        report.add(done)
        if done.schedules < size and not done.more:
            return report
    report.more = True
    return report


def release_buffered(*, limit: int = SLICE, now: datetime | None = None, using: str | None = None) -> FireReport:
    """Start buffered instants whose predecessor has ended, up to `limit` schedules."""
    alias = using or engine.alias()
    with engine.transaction(using=alias):
        instant, rows = claims.claim_buffered(now=now, limit=limit, using=alias)
        return release(rows, now=instant, using=alias)


def release(rows: Sequence[Any], *, now: datetime, using: str) -> FireReport:
    """Start what these locked schedules have buffered, as far as their overlap policy allows; nothing else fires."""
    if not rows or engine.fetch_one(claims.STOPPED, {}, using=using):
        return FireReport()
    return _fire(rows, now=now, using=using, collect=False)


def settle(schedule_id: UUID, *, now: datetime, using: str) -> FireReport:
    """Fire one schedule up to `now` inside the caller's transaction, waiting for its lock.

    An edit does this with the old spec before it writes the new one. At most `INSTANTS_PER_SCHEDULE` instants are
    taken; what is left keeps the old version and is fired by the next visits. While all firing is stopped it all is.
    """
    if engine.fetch_one(claims.STOPPED, {}, using=using):
        return FireReport()
    return _fire(claims.lock([schedule_id], using=using), now=now, using=using)


def _claim_and_fire(
    now: datetime | None,
    limit: int,
    ids: Sequence[UUID] | None,
    using: str,
    *,
    trusting: bool = True,
    on_full: Callable[[], object] | None = None,
) -> FireReport:
    """One visit. It trusts the ledger to have none of the instants yet, which saves a wait; if it has, once more."""
    rows: list[Any] = []
    try:
        with engine.transaction(using=using):
            now, rows = claims.claim_due(now=now, limit=limit, ids=ids, using=using)
            if on_full is not None and len(rows) == limit:
                on_full()
            return _fire(rows, now=now, using=using, trusting=trusting) if rows else FireReport()
    except (OperationalError, InterfaceError):
        raise
    except _Known:
        log.warning("firing.instants_known", schedules=len(rows))
        return _claim_and_fire(now, limit, [row.id for row in rows], using, trusting=False)
    except Exception as error:
        if not rows:
            raise
        log.warning("firing.slice_failed", error=repr(error), schedules=len(rows))
    return _fire_apart([row.id for row in rows], now, using)


def _fire_apart(ids: Sequence[UUID], now: datetime | None, using: str) -> FireReport:
    """Fire schedules one by one, after something in their common transaction raised: whoever raises again, alone, is
    quarantined, and stops nobody else."""
    report = FireReport()
    for schedule_id in ids:
        try:
            with engine.transaction(using=using):
                moment, claimed = claims.claim_due(now=now, limit=1, ids=[schedule_id], using=using)
                if claimed:
                    report.add(_fire(claimed, now=moment, using=using))
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # noqa: BLE001 - quarantine is for whatever one schedule can raise
            with engine.transaction(using=using):
                moment, claimed = claims.claim_due(now=now, limit=1, ids=[schedule_id], using=using)
                if claimed:
                    _quarantine([(claimed[0], error)], now=moment, using=using)
                    report.add(FireReport(schedules=1, slices=1, quarantined=1))
    return report


class _Known(Exception):
    """The ledger has instants already that a trusting visit took for new."""


def _fire(
    rows: Sequence[Any], *, now: datetime, using: str, collect: bool = True, trusting: bool = False
) -> FireReport:
    """One visit of locked schedules, inside the transaction that locked them.

    Raises:
        _Known: it was trusting, and wrongly so; the transaction is to be rolled back.
    """
    live.announce(live.SCHEDULES, [row.id for row in rows], using=using)
    report = FireReport(slices=1)
    failures: list[tuple[Any, Exception]] = []
    segments = versions.segments(rows, using=using, failed=lambda row, error: failures.append((row, error)))
    visits: list[Visit] = []
    seconds = int(now.timestamp())
    budget = INSTANTS_PER_SLICE
    look = Look(seconds, collect)
    for row, chain in segments:
        if budget <= 0:
            report.more = True
            break
        try:
            visit = look.at(row, chain, min(budget, INSTANTS_PER_SCHEDULE))
        except Exception as error:  # noqa: BLE001 - a timing that raises is quarantined
            failures.append((row, error))
            continue
        for entry in visit.batch.entries:
            budget -= entry.instants
        report.more = report.more or visit.batch.more
        visits.append(visit)
    _decide(visits, using=using)
    _write(visits, report, now=now, using=using, trusting=trusting)
    if failures:
        _quarantine(failures, now=now, using=using)
    report.schedules = len(visits) + len(failures)
    report.quarantined = len(failures)
    return report


def _decide(visits: Sequence[Visit], *, using: str) -> None:
    """Apply overlap policies and maxima. What runs and waits is read only for schedules whose policy asks."""
    asking = [v for v in visits if not (v.row.overlap_policy == OverlapPolicy.ALLOW_ALL and v.batch.candidates)]
    ids = [v.row.id for v in asking if v.batch.candidates or _may_release(v.row)]
    running = claims.open_executions(ids, using=using) if ids else {}
    waiting = claims.buffered(ids, using=using) if ids else {}
    for visit in asking:
        visit.running = running.get(visit.row.id, [])
        visit.buffered = waiting.get(visit.row.id, [])
    for visit in visits:
        row = visit.row
        visit.plan = policies.overlap(
            row.overlap_policy,
            running=len(visit.running),
            buffered=len(visit.buffered),
            candidates=visit.batch.candidates,
            allowance=None if row.max_executions is None else max(row.max_executions - row.started_count, 0),
        )


def _may_release(row: Any) -> bool:
    """Whether instants may wait: by its policy, or as an earlier policy left them (a visit without due instants)."""
    return bool(row.enabled or row.pause_kind == PauseKind.FINISHED)


def _write(visits: Sequence[Visit], report: FireReport, *, now: datetime, using: str, trusting: bool) -> None:
    """Ledger, executions, watermarks, in this order. A trusting visit sends them all before it reads any answer."""
    workflow_ids = {v.row.workflow_id for v in visits if v.plan.release or v.batch.candidates}
    workflows = versions.published(workflow_ids, using=using) if workflow_ids else {}
    rows, owners = _entries(visits, workflows, report, using=using)
    record: claims.Record | None = None
    move: claims.Move | None = None
    settled: list[tuple[int, str, str, UUID | None]] = []
    news = [True] * len(rows)
    with engine.pipeline(using=using) if trusting else nullcontext():
        if rows:
            record = claims.Record(rows, using=using)
            if not trusting:
                news = record.new()
        starts: list[Start] = []
        read = _Reader()
        for row, visit, is_new in zip(rows, owners, news, strict=True):
            if is_new and row.execution_id is not None:
                starts.append(_start(visit, workflows, row.execution_id, row.first, read))
        settled = _settle_buffered(visits, workflows, starts, report, read)
        created = creation.send_many(starts, now=now, using=using)
        if visits:
            move = claims.Move([_advance(visit) for visit in visits], now=now, using=using)
    if trusting and record is not None and not all(record.new()):
        raise _Known
    if move is not None:
        move.check()
    counts: Counter[str] = Counter()
    for row, is_new in zip(rows, news, strict=True):
        if is_new:
            counts[row.outcome] += row.instants
    for outcome, instants in counts.items():
        report.count(outcome, instants)
    report.execution_ids += [start.id for start in starts]
    monitoring.note(zip(rows, (visit.row for visit in owners), news, strict=True), now=now, using=using)
    claims.settle_buffered(settled, using=using)
    for visit in visits:
        if visit.plan.stop_others:
            _stop_others(visit, now=now, using=using)
    if created is not None:
        created.finish()
    for visit in visits:
        if visit.resumed:
            note_deed(visit.row, "schedule.resume", "The pause ended as planned.", using=using)


def _entries(
    visits: Sequence[Visit], workflows: Any, report: FireReport, *, using: str
) -> tuple[list[LedgerRow], list[Visit]]:
    """The ledger entries to be made, each with its visit. Runs that go on from an earlier entry are written here."""
    rows: list[LedgerRow] = []
    owners: list[Visit] = []
    runs: list[tuple[LedgerRow, Visit]] = []
    ids = iter(uuid7s(sum(visit.batch.candidates for visit in visits)))
    for visit in visits:
        for place, row in enumerate(_ledger_rows(visit, workflows, ids)):
            # Only the first entry of a visit can go on from the last one of the visit before.
            if place == 0 and _is_run(row):
                runs.append((row, visit))
            else:
                rows.append(row)
                owners.append(visit)
    if runs:
        extended = claims.extend([row for row, _ in runs], using=using)
        for row, visit in runs:
            if row.schedule_id in extended:
                report.count(row.outcome, row.instants)
            else:
                rows.append(row)
                owners.append(visit)
    return rows, owners


def _is_run(row: LedgerRow) -> bool:
    """Whether an entry is of the kind that continues over visits: missed, paused, excluded."""
    return row.outcome == FireOutcome.MISSED or row.reason == FireReason.BLACKOUT


def _ledger_rows(visit: Visit, workflows: Any, ids: Iterator[UUID]) -> list[LedgerRow]:
    rows = []
    decisions = iter(visit.plan.decisions)
    for entry in visit.batch.entries:
        decision, note, execution_id = Decision(entry.outcome, entry.reason), "", None
        if entry.outcome == FireOutcome.STARTED:
            decision = next(decisions)
            if decision.outcome == FireOutcome.STARTED:
                if visit.row.workflow_id in workflows:
                    execution_id = next(ids)
                else:
                    decision = Decision(FireOutcome.SKIPPED, FireReason.ERROR)
                    note = "The workflow has no published version."
        rows.append(
            LedgerRow(
                visit.row.id,
                entry.version_id,
                entry.first,
                entry.last,
                entry.instants,
                entry.due,
                decision.outcome,
                decision.reason,
                note,
                execution_id,
            )
        )
    return rows


class _Reader:
    """What many schedules of one visit have in common, read once."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._moments: dict[int, datetime] = {}

    def json(self, text: str | None) -> Any:
        """The value of a JSON text; one object for equal texts, which is not to be changed."""
        if text is None:
            return None
        if text not in self._values:
            self._values[text] = engine.load_json(text)
        return self._values[text]

    def moment(self, instant: int) -> datetime:
        """The aware datetime of epoch seconds."""
        if instant not in self._moments:
            self._moments[instant] = datetime.fromtimestamp(instant, UTC)
        return self._moments[instant]


def _start(visit: Visit, workflows: Any, execution_id: UUID, instant: int, read: _Reader) -> Start:
    row = visit.row
    if not visit.started:
        visit.source = Source(SOURCE_KIND, str(row.id), row.name)
        visit.input, visit.retry_policy = read.json(row.input), read.json(row.retry_policy)
    visit.started += 1
    visit.last_fire = instant if visit.last_fire is None else max(visit.last_fire, instant)
    return Start(
        id=execution_id,
        version=workflows[row.workflow_id],
        source=visit.source,
        input=visit.input,
        scheduled_for=read.moment(instant),
        priority=row.priority,
        queue=row.queue,
        retry_policy=visit.retry_policy,
        timeout=row.timeout,
        concurrency_key=row.concurrency_key,
        news_topic=news_topic(row),
    )


def news_topic(schedule: Any) -> str:
    """The topic under which the end of this schedule's executions is news; empty where no policy depends on it."""
    return NEWS_TOPIC if schedule.pause_on_failure is not None or schedule.overlap_policy in BUFFERING else ""


def _settle_buffered(
    visits: Sequence[Visit], workflows: Any, starts: list[Start], report: FireReport, read: _Reader
) -> list[tuple[int, str, str, UUID | None]]:
    settled: list[tuple[int, str, str, UUID | None]] = []
    for visit in visits:
        for entry in visit.buffered[: visit.plan.release]:
            if visit.row.workflow_id in workflows:
                execution_id = uuid7()
                starts.append(_start(visit, workflows, execution_id, entry.scheduled_for, read))
                settled.append((entry.id, FireOutcome.STARTED, "", execution_id))
                report.count(FireOutcome.STARTED, 1)
            else:
                settled.append((entry.id, FireOutcome.SKIPPED, FireReason.ERROR, None))
                report.count(FireOutcome.SKIPPED, 1)
        if visit.plan.expire:
            for entry in visit.buffered[-visit.plan.expire :]:
                settled.append((entry.id, FireOutcome.SKIPPED, FireReason.MAX_EXECUTIONS, None))
                report.count(FireOutcome.SKIPPED, 1)
    return settled


def _stop_others(visit: Visit, *, now: datetime, using: str) -> None:
    """End what still runs of a schedule, for its successor: told and with a grace, or (terminate) at once."""
    at_once = visit.row.overlap_policy == OverlapPolicy.TERMINATE_OTHER
    reason = f"{'terminated' if at_once else 'cancelled'}: the next instant of its schedule is due"
    for execution_id in visit.running:
        cancellation.cancel(execution_id, reason=reason, at_once=at_once, now=now, using=using)


def _advance(visit: Visit) -> Advance:
    row, batch = visit.row, visit.batch
    spent = row.max_executions is not None and row.started_count + visit.started >= row.max_executions
    over = (row.enabled or visit.resumed) and (
        spent or (batch.wake is None and (visit.started > 0 or batch.candidates > 0))
    )
    enabled = (row.enabled or visit.resumed) and not over
    return Advance(
        id=row.id,
        was=row.fired_through,
        reached=batch.reached,
        wake=None if over else batch.wake,
        started=visit.started,
        last_fire=visit.last_fire,
        missed_through=visit.missed_through,
        enabled=enabled,
        finished=over,
    )


def _quarantine(failures: Sequence[tuple[Any, Exception]], *, now: datetime, using: str) -> None:
    """Take schedules that raise out of firing, with an audit entry and an error in the log."""
    notes = [(row.id, f"{type(error).__name__}: {error}"[:500]) for row, error in failures]
    claims.quarantine(notes, now=now, using=using)
    for (row, error), (_, note) in zip(failures, notes, strict=True):
        log.error("schedule.quarantined", schedule_id=str(row.id), name=row.name, error=note, exc_info=error)
        note_deed(row, "schedule.quarantine", note, using=using)
        monitoring.note_stopped([(row.id, row.name)], note, now=now, using=using)


def note_deed(row: Any, action: str, note: str, *, using: str) -> None:
    """An audit entry for what firing itself did to a schedule."""
    audit.record(
        actor=ACTOR,
        action=action,
        subject_kind="schedule",
        subject_id=row.id,
        subject_label=row.name,
        note=note,
        using=using,
    )
