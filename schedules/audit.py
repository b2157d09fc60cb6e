"""The ledger auditor: derive the instants of a past window anew from the versions, and compare them with the ledger.

Every instant up to the watermark must be covered by exactly one entry. A row deleted by hand, one too many, or a
range that does not count what it covers is a finding; each is written to the audit trail once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings

from execution import audit as trail
from execution import engine
from execution.models import AuditEntry
from schedules import monitoring
from schedules.due import Segment
from schedules.models import LedgerAudit, Schedule, ScheduleFire, ScheduleVersion
from schedules.timing import occurrences
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

ACTION = "schedule.audit"
ACTOR = "system"
#: The newest instants are left to those who are just writing them.
SETTLED_SECONDS = 60
#: How far back the hourly audit looks.
WINDOW = timedelta(hours=25)
#: Differences listed per schedule; more of them are only counted.
LISTED = 100
#: Differences after which a schedule is not compared any further.
ENOUGH = 10_000
CHUNK = 200
#: How near to the end of retention the audit looks no more: pruning may be under way.
PRUNING = timedelta(hours=1)
#: Ledger entries deleted in one transaction.
PRUNE_BATCH = 2_000


class Covered(NamedTuple):
    """A ledger entry in epoch seconds: one instant, or so many of them from `first` to `last`."""

    first: int
    last: int
    instants: int


@dataclass(slots=True)
class Finding:
    """What is wrong with the ledger of one schedule; instants in epoch seconds, the first `LISTED` of each kind."""

    schedule_id: UUID
    name: str
    missing: list[int] = field(default_factory=list)
    unexpected: list[int] = field(default_factory=list)
    miscounted: list[tuple[int, int, int]] = field(default_factory=list)
    differences: int = 0

    def as_changes(self) -> dict[str, Any]:
        """JSON-ready: instants as UTC texts; of a miscounted range its start, what it says and what is expected."""
        return {
            "missing": [_text(i) for i in self.missing],
            "unexpected": [_text(i) for i in self.unexpected],
            "miscounted": [
                {"scheduled_for": _text(first), "count": count, "expected": expected}
                for first, count, expected in self.miscounted
            ],
            "differences": self.differences,
        }

    def note(self, kind: list[Any], what: Any) -> None:
        self.differences += 1
        if len(kind) < LISTED:
            kind.append(what)


@dataclass(frozen=True, slots=True)
class Audited:
    """The result of one audit. `unreadable`: schedules whose timing could not be computed."""

    since: datetime
    until: datetime
    schedules: int
    findings: list[Finding]
    unreadable: int = 0

    @property
    def differences(self) -> int:
        return sum(finding.differences for finding in self.findings)


def compare(finding: Finding, segments: Sequence[Segment], entries: Sequence[Covered], after: int, until: int) -> None:
    """Note in `finding` where the entries and the instants in (`after`, `until`] differ. Pure.

    Args:
        entries: those that cover anything in the window, by their first instant.
    """
    singles = {entry.first for entry in entries if entry.last == entry.first and after < entry.first <= until}
    ranges = [entry for entry in entries if entry.last > entry.first]
    position = after
    for covered in [*ranges, None]:
        end = until if covered is None else min(covered.first - 1, until)
        for nominal in _nominals(segments, position, end):
            if nominal in singles:
                singles.discard(nominal)
            else:
                finding.note(finding.missing, nominal)
                if finding.differences >= ENOUGH:
                    return
        if covered is None:
            break
        if position < covered.first and covered.last <= until:
            expected = sum(
                segment.timing.count(max(covered.first - 1, start), min(covered.last, stop))
                for segment, start, stop in _spans(segments, covered.first - 1, covered.last)
            )
            if expected != covered.instants:
                finding.note(finding.miscounted, (covered.first, covered.instants, expected))
        if covered.first <= position and position > after:  # it begins inside the one before
            finding.note(finding.unexpected, covered.first)
        position = max(position, covered.last)
    for nominal in sorted(singles):
        finding.note(finding.unexpected, nominal)


def audit(
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    schedule_ids: Iterable[UUID] | None = None,
    using: str = "default",
) -> Audited:
    """Compare the ledger of a past window with the instants derived anew. Reads only.

    A schedule that differs is looked at once more: it may have been deleted, or its ledger pruned, in between.

    Args:
        since: the last `WINDOW` when left out; never before what retention has kept.
        until: the watermark of each schedule, and a minute ago, bound it.
    """
    now = engine.now(using=using)
    until = min(until or now, now - timedelta(seconds=SETTLED_SECONDS))
    kept = timedelta(days=settings.SCHEDULE_LEDGER_DAYS) - PRUNING
    since = max(since or now - WINDOW, now - kept)
    schedules = Schedule.objects.using(using).order_by("pk")
    if schedule_ids is not None:
        schedules = schedules.filter(pk__in=list(schedule_ids))
    else:
        schedules = schedules.filter(fired_through__gt=since)
    findings: list[Finding] = []
    seen = unreadable = 0
    rows = list(schedules.values_list("pk", "name", "fired_through"))
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        seen += len(chunk)
        found, broken = _audit_chunk(chunk, since, until, using)
        unreadable += broken
        if found:
            again = {finding.schedule_id for finding in found}
            present = list(schedules.filter(pk__in=again).values_list("pk", "name", "fired_through"))
            findings += _audit_chunk(present, since, until, using)[0]
    return Audited(since, until, seen, findings, unreadable)


def run(*, using: str = "default") -> Audited:
    """Audit the recent past, write each finding to the audit trail unless it stands there, and keep the figures.

    The figures (`LedgerAudit`) are what the statistics and the API show; an error is logged per finding.
    """
    began = time.monotonic()
    done = audit(using=using)
    for finding in done.findings:
        changes = finding.as_changes()
        known = AuditEntry.objects.using(using).filter(
            action=ACTION, subject_id=str(finding.schedule_id), changes=changes
        )
        if known.exists():
            continue
        log.error("ledger.difference", schedule_id=str(finding.schedule_id), differences=finding.differences)
        trail.record(
            actor=ACTOR,
            action=ACTION,
            subject_kind="schedule",
            subject_id=finding.schedule_id,
            subject_label=finding.name,
            changes=changes,
            note=f"{finding.differences} differences between the ledger and the timing",
            using=using,
        )
        monitoring.note_difference(finding.schedule_id, finding.name, finding.differences, using=using)
    kept = LedgerAudit.objects.using(using).create(
        since=done.since,
        until=done.until,
        schedules=done.schedules,
        findings=len(done.findings),
        differences=done.differences,
        unreadable=done.unreadable,
        seconds=round(time.monotonic() - began, 3),
    )
    log.info("ledger.audited", schedules=done.schedules, differences=done.differences, seconds=kept.seconds)
    return done


def latest(*, using: str = "default") -> LedgerAudit | None:
    """The figures of the latest audit, None when there was none yet."""
    return LedgerAudit.objects.using(using).order_by("-id").first()


def prune(*, batch: int = PRUNE_BATCH, using: str = "default") -> int:
    """Delete ledger entries that retention no longer keeps, in batches of their own transactions. Returns how many.

    A buffered entry stays, and so does the latest entry of each schedule, which a run of instants may go on from.
    The figures of audits go with the entries that they were about.
    """
    oldest = engine.now(using=using) - timedelta(days=settings.SCHEDULE_LEDGER_DAYS)
    LedgerAudit.objects.using(using).filter(finished_at__lt=oldest).delete()
    pruned = 0
    while True:
        rows = engine.fetch_all(PRUNE, {"oldest": oldest, "limit": batch}, using=using)
        pruned += len(rows)
        if len(rows) < batch:
            return pruned


PRUNE = """
DELETE FROM schedules_schedulefire WHERE id = ANY(ARRAY(
    SELECT f.id FROM schedules_schedulefire f
    WHERE f.recorded_at < %(oldest)s AND f.outcome <> 'buffered' AND EXISTS (
        SELECT 1 FROM schedules_schedulefire later
        WHERE later.schedule_id = f.schedule_id AND later.scheduled_for > f.scheduled_for)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING id
"""


def prunable(*, using: str = "default") -> int:
    """How many ledger entries `prune` would delete now."""
    oldest = engine.now(using=using) - timedelta(days=settings.SCHEDULE_LEDGER_DAYS)
    (row,) = engine.fetch_all(PRUNABLE, {"oldest": oldest}, using=using)
    return int(row.entries)


PRUNABLE = """
SELECT count(*) AS entries FROM schedules_schedulefire f
WHERE f.recorded_at < %(oldest)s::timestamptz AND f.outcome <> 'buffered' AND EXISTS (
    SELECT 1 FROM schedules_schedulefire later
    WHERE later.schedule_id = f.schedule_id AND later.scheduled_for > f.scheduled_for)
"""


def _audit_chunk(
    rows: Sequence[tuple[UUID, str, datetime]], since: datetime, until: datetime, using: str
) -> tuple[list[Finding], int]:
    """What is wrong with these schedules, and how many of them cannot be computed."""
    found: list[Finding] = []
    unreadable = 0
    ids = [pk for pk, _, _ in rows]
    chains: dict[UUID, list[ScheduleVersion]] = {}
    for version in ScheduleVersion.objects.using(using).filter(schedule_id__in=ids).order_by("schedule_id", "number"):
        chains.setdefault(version.schedule_id, []).append(version)
    entries: dict[UUID, list[Covered]] = {}
    fires = ScheduleFire.objects.using(using).filter(schedule_id__in=ids, scheduled_for__lte=until)
    for fire in (
        fires.exclude(until__isnull=True, scheduled_for__lte=since).exclude(until__lte=since).order_by("scheduled_for")
    ):
        first = int(fire.scheduled_for.timestamp())
        last = first if fire.until is None else int(fire.until.timestamp())
        entries.setdefault(fire.schedule_id, []).append(Covered(first, last, fire.count))
    for pk, name, fired_through in rows:
        versions = chains.get(pk)
        if not versions:
            continue
        finding = Finding(pk, name)
        begin = int(max(since, versions[0].effective_from).timestamp())
        end = int(min(until, fired_through).timestamp())
        try:
            compare(finding, _segments(versions), entries.get(pk, []), begin, end)
        except Exception as error:  # noqa: BLE001 - one broken spec must not hide what is wrong elsewhere
            log.warning("ledger.audit_failed", schedule_id=str(pk), error=repr(error))
            unreadable += 1
            continue
        if finding.differences:
            found.append(finding)
    return found, unreadable


def _segments(versions: Sequence[ScheduleVersion]) -> list[Segment]:
    ends: list[int | None] = [int(version.effective_from.timestamp()) for version in versions[1:]]
    return [
        Segment(v.pk, occurrences.compile(v.spec, seed=str(v.schedule_id)), until)
        for v, until in zip(versions, [*ends, None], strict=True)
    ]


def _spans(segments: Sequence[Segment], after: int, until: int) -> Iterator[tuple[Segment, int, int]]:
    """Each version with the part of (`after`, `until`] in which it was in force."""
    position: int | None = None
    for segment in segments:
        start = after if position is None else max(after, position)
        stop = until if segment.until is None else min(until, segment.until)
        if start < stop:
            yield segment, start, stop
        if segment.until is not None:
            position = segment.until


def _nominals(segments: Sequence[Segment], after: int, until: int) -> Iterator[int]:
    for segment, start, stop in _spans(segments, after, until):
        for instant in segment.timing.between(start, stop):
            yield instant.nominal


def _text(instant: int) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
