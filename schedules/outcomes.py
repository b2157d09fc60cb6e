"""What the end of an execution means for its schedule: failures in a row are counted, buffered instants released."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from execution import engine, news
from execution.states import ExecutionState
from schedules import claims, firing, monitoring
from schedules.firing import NEWS_TOPIC, FireReport
from schedules.policies import BUFFERING, count_failures
from schedules.states import PauseKind
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: News taken in one transaction.
SLICE = 200
FAILED = {ExecutionState.FAILED.value: True, ExecutionState.SUCCEEDED.value: False}

# The schedule is locked; a pause by somebody else in the meantime (enabled is false) is left as it is.
COUNT = """
UPDATE schedules_schedule s SET consecutive_failures = new.consecutive,
    enabled = s.enabled AND NOT new.pause,
    next_fire_at = CASE WHEN new.pause AND s.enabled THEN NULL ELSE s.next_fire_at END,
    pause_kind = CASE WHEN new.pause AND s.enabled THEN %(kind)s ELSE s.pause_kind END,
    pause_note = CASE WHEN new.pause AND s.enabled THEN new.note ELSE s.pause_note END,
    paused_at = CASE WHEN new.pause AND s.enabled THEN %(now)s ELSE s.paused_at END
FROM unnest(%(id)s::uuid[], %(consecutive)s::int[], %(pause)s::bool[], %(note)s::text[])
    AS new (id, consecutive, pause, note)
WHERE s.id = new.id
"""


def take_news(*, limit: int = 2_000, now: datetime | None = None, using: str | None = None) -> FireReport:
    """Act on up to `limit` ended executions, then release what is still buffered behind nobody.

    The news are deleted in the transaction that acts on them: a crash gives them back.
    """
    alias = using or engine.alias()
    report = FireReport()
    for _ in range(0, limit, SLICE):
        if _take_slice(now, report, alias) < SLICE:
            break
    report.add(firing.release_buffered(now=now, using=alias))
    return report


def _take_slice(now: datetime | None, report: FireReport, using: str) -> int:
    with engine.transaction(using=using):
        told = news.claim(NEWS_TOPIC, limit=SLICE, using=using)
        if not told:
            return 0
        ended: dict[UUID, list[bool | None]] = {}
        for row in told:
            with suppress(ValueError):
                ended.setdefault(UUID(row.subject), []).append(FAILED.get(row.data.get("state")))
        instant = now or engine.now(using=using)
        rows = claims.lock(list(ended), using=using)
        _count(rows, ended, now=instant, using=using)
        buffering = [row for row in claims.lock(list(ended), using=using) if row.overlap_policy in BUFFERING]
        if buffering:
            report.add(firing.release(buffering, now=instant, using=using))
        return len(told)


def _count(rows: list[Any], ended: dict[UUID, list[bool | None]], *, now: datetime, using: str) -> None:
    counted = []
    for row in rows:
        failures = count_failures(row.consecutive_failures, ended[row.id], pause_after=row.pause_on_failure)
        note = f"{failures.consecutive} failures in a row" if failures.pause else ""
        counted.append((row.id, failures.consecutive, failures.pause, note))
        if failures.pause and row.enabled:
            log.warning("schedule.paused_on_failure", schedule_id=str(row.id), failures=failures.consecutive)
            firing.note_deed(row, "schedule.pause", note, using=using)
            monitoring.note_stopped([(row.id, row.name)], note, now=now, using=using)
    if counted:
        params = claims.columns(("id", "consecutive", "pause", "note"), counted)
        engine.fetch_all(COUNT, params | {"now": now, "kind": PauseKind.FAILURES.value}, using=using)
