"""How far a watcher has seen: the change sequence is Postgres's own, the transaction that last wrote a row (``xmin``).

Nothing is written for it. A cursor holds ``pg_snapshot_xmin``, below which no transaction was open any more, and
the moment at which the oldest of the open ones began. Whatever was not visible when the cursor was read has been
written by a transaction at or above that number, however late it commits; so the rows changed since are those whose
``xmin`` is not older. That cannot be indexed: the moment narrows the search, over the indexes that exist, to rows that
are open or have ended since. It is taken five minutes early, because some times are written as they were read shortly
before their transaction began.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from execution import engine

OVERLAP: Final = timedelta(minutes=5)
#: ``xmin`` holds the low 32 bits of a transaction's number: comparable over half their circle, with room to spare.
FARTHEST: Final = 1_000_000_000

_TEXT: Final = re.compile(r"(\d{1,19})-(\d{1,16})")

# Prepared transactions and other roles' sessions show no start; the overlap has to do for them.
_PRESENT: Final = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS below, pg_snapshot_xmax(pg_current_snapshot())::text AS next,
       least(clock_timestamp(), (
           SELECT min(a.xact_start) FROM pg_stat_activity a
           WHERE a.backend_xid IS NOT NULL AND a.datname = current_database()
       )) AS since
"""


class CursorLost(Exception):
    """What has changed since this cursor cannot be told any more, or never could: read everything anew."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Every transaction numbered lower than `below` was visible; none that was not began before `since`."""

    below: int
    since: datetime

    def __str__(self) -> str:
        return f"{self.below}-{int(self.since.timestamp() * 1_000_000)}"

    @property
    def floor(self) -> datetime:
        """Rows that ended earlier cannot have changed since."""
        return self.since - OVERLAP


def parse(text: object) -> Cursor:
    """The cursor that a client sends back.

    Raises:
        ValueError: it is none.
    """
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    try:
        if match is None:
            raise ValueError
        since = datetime.fromtimestamp(int(match[2]) / 1_000_000, UTC)
        _ = since - OVERLAP
    except (ValueError, OverflowError, OSError):
        raise ValueError("must be a cursor as a message of this server gave it") from None
    return Cursor(int(match[1]), since)


def present(*, using: str | None = None) -> Cursor:
    """The cursor of this moment. Read it first and the rows afterwards: what it misses, they or the next look show."""
    row = engine.fetch_one(_PRESENT, {}, using=using)
    assert row is not None
    return Cursor(int(row.below), row.since.astimezone(UTC))


def check(cursor: Cursor, *, now: Cursor) -> None:
    """Whether changes since `cursor` can be told.

    Raises:
        CursorLost: it is of another database, from before a restore, or a billion transactions old.
    """
    if not 0 <= now.below - cursor.below <= FARTHEST:
        raise CursorLost("the cursor is not of this database's recent past")
