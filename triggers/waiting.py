"""Whether `maintenance.tend` has anything to do: a beat asks every second, so it is one statement and loads little."""

from __future__ import annotations

from execution import engine

WAITING = """
SELECT EXISTS (SELECT 1 FROM triggers_pendinggroup g
        WHERE g.closed_at IS NULL AND g.due_at <= (SELECT clock_timestamp()))
    OR EXISTS (SELECT 1 FROM execution_news n WHERE n.topic IN ('execution', 'emit')) AS waiting
"""


def is_anything_waiting(using: str) -> bool:
    """Whether a group's time has come, or news wait to become events."""
    row = engine.fetch_one(WAITING, {}, using=using)
    return bool(row is not None and row.waiting)
