"""What a step says while it runs: its progress, and lines that are kept with its attempt."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from execution import engine

NOTE_PROGRESS = """
UPDATE execution_attempt SET progress = %(progress)s::jsonb WHERE id = %(token)s::uuid AND state = 'running'
"""


def note_progress(token: UUID, progress: dict[str, Any]) -> None:
    """Keep what a running attempt says of its progress; nothing happens when it has ended."""
    engine.fetch_all(NOTE_PROGRESS, {"token": token, "progress": engine.dump_json(progress)})


KEEP_LINE = """
INSERT INTO execution_steplog (attempt_id, level, message, created_at)
SELECT id, %(level)s::text, %(message)s::text, clock_timestamp() FROM execution_attempt WHERE id = %(token)s::uuid
"""


def keep_line(token: UUID, *, level: str, message: str) -> None:
    """Keep a line that an attempt wrote."""
    engine.fetch_all(KEEP_LINE, {"token": token, "level": level, "message": message})
