"""The one clock: Postgres's. Read once per operation, at the edge, and passed on as an argument."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connections


def now(*, using: str = "default") -> datetime:
    """The wall clock of the database server, aware, in UTC (not the start of the transaction)."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (instant,) = cursor.fetchone()
    return instant.astimezone(UTC)  # type: ignore[no-any-return]
