"""What a schedule did: its ledger joined with its executions, and those that were triggered beside it."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from execution import engine
from schedules import claims
from scheduling_project.common.errors import InvalidInput

# Two index scans, each bounded by the page, merged: never a sort over the whole history. A run of instants begins
# before `until` and ends after `since` to be in a range.
HISTORY = """
SELECT * FROM (
    (SELECT f.id::text AS id, 'fire' AS kind, f.scheduled_for, f.until, f.count, f.due_at, f.outcome, f.reason, f.note,
            v.number AS version, f.execution_id, e.state AS execution_state, e.started_at, e.finished_at, f.recorded_at
     FROM schedules_schedulefire f
     JOIN schedules_scheduleversion v ON v.id = f.version_id
     LEFT JOIN execution_execution e ON e.id = f.execution_id
     WHERE f.schedule_id = %(id)s::uuid AND f.scheduled_for < %(before)s::timestamptz
       AND (%(outcome)s::text IS NULL OR f.outcome = %(outcome)s::text)
       AND (%(reason)s::text IS NULL OR f.reason = %(reason)s::text)
       AND (%(state)s::text IS NULL OR e.state = %(state)s::text)
       AND (%(since)s::timestamptz IS NULL OR coalesce(f.until, f.scheduled_for) >= %(since)s::timestamptz)
       AND (%(until)s::timestamptz IS NULL OR f.scheduled_for <= %(until)s::timestamptz)
     ORDER BY f.scheduled_for DESC LIMIT %(limit)s::int)
    UNION ALL
    (SELECT e.id::text, 'manual', e.created_at, NULL, 1, NULL, 'started', '', '', NULL, e.id, e.state, e.started_at,
            e.finished_at, e.created_at
     FROM execution_execution e
     WHERE e.source_kind = %(kind)s::text AND e.source_id = %(source)s::text AND e.scheduled_for IS NULL
       AND e.created_at < %(before)s::timestamptz
       AND (%(outcome)s::text IS NULL OR %(outcome)s::text = 'started') AND %(reason)s::text IS NULL
       AND (%(state)s::text IS NULL OR e.state = %(state)s::text)
       AND (%(since)s::timestamptz IS NULL OR e.created_at >= %(since)s::timestamptz)
       AND (%(until)s::timestamptz IS NULL OR e.created_at <= %(until)s::timestamptz)
     ORDER BY e.id DESC LIMIT %(limit)s::int)
) entries
ORDER BY scheduled_for DESC LIMIT %(limit)s::int
"""
LATEST: Final = datetime.fromisoformat("9999-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Which entries of a history are wanted; None: any.

    `state` is the execution's; `since` and `until` (both included) are about the instants.
    """

    outcome: str | None = None
    reason: str | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def history(
    schedule_id: UUID,
    *,
    limit: int,
    before: datetime = LATEST,
    narrowed: Narrowed | None = None,
    using: str = "default",
) -> list[dict[str, Any]]:
    """Entries before an instant, the latest first."""
    narrowed = narrowed or Narrowed()
    params = {
        "id": schedule_id,
        "source": str(schedule_id),
        "kind": claims.SOURCE_KIND,
        "before": before,
        "limit": limit,
        **asdict(narrowed),
    }
    return [row._asdict() for row in engine.fetch_all(HISTORY, params, using=using)]


def cursor_of(instant: datetime) -> str:
    """Where the page after an entry begins, as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps(instant.isoformat()).encode()).decode()


def read_cursor(text: str) -> datetime:
    """
    Raises:
        InvalidInput: it is not one that `cursor_of` made.
    """
    try:
        instant = datetime.fromisoformat(json.loads(base64.urlsafe_b64decode(text.encode())))
        if instant.tzinfo is None:
            raise ValueError
    except (ValueError, TypeError, binascii.Error, OverflowError):
        raise InvalidInput(fields={"cursor": ["is not one that this list gave out"]}) from None
    return instant
