"""The PeriodicTasks of a database: this one's, or that of another deployment by its URL.

Whatever columns the tables have are read, so that tables of older versions of django-celery-beat can be read too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final

import dj_database_url
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

from schedules.importing.celery_beat import Periodic
from scheduling_project.common.errors import InvalidInput

ALIAS: Final = "import_beat"
PREFIX: Final = "django_celery_beat_"
#: Kind of timetable → its table, less the prefix.
TABLES: Final = {
    "crontab": "crontabschedule",
    "interval": "intervalschedule",
    "solar": "solarschedule",
    "clocked": "clockedschedule",
}


@contextmanager
def opened(url: str | None) -> Iterator[BaseDatabaseWrapper]:
    """The connection to read from, closed afterwards unless it is this deployment's own.

    Raises:
        InvalidInput: the URL is none, or nothing answers there.
    """
    if url is None:
        yield connections["default"]
        return
    try:
        configured = connections.configure_settings(
            {"default": connections.settings["default"], ALIAS: dict(dj_database_url.parse(url))}
        )[ALIAS]
        connection: BaseDatabaseWrapper = load_backend(configured["ENGINE"]).DatabaseWrapper(configured, ALIAS)
    except Exception as error:  # noqa: BLE001 - the parser and Django's backends each raise their own kinds
        raise InvalidInput(fields={"database_url": [f"cannot be used: {type(error).__name__}"]}) from None
    try:
        connection.ensure_connection()
        yield connection
    except DatabaseError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidInput(fields={"database_url": [f"the database refuses: {first}"]}) from None
    finally:
        connection.close()


def read(connection: BaseDatabaseWrapper) -> list[Periodic]:
    """All PeriodicTasks, in the order of their ids, without those that mirror our own schedules.

    Raises:
        InvalidInput: the database has no such tables.
    """
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor))
    if f"{PREFIX}periodictask" not in tables:
        raise InvalidInput(fields={"database_url": ["the database has no tables of django-celery-beat"]})
    timetables = {
        kind: {row["id"]: row for row in _rows(connection, f"{PREFIX}{table}")}
        for kind, table in TABLES.items()
        if f"{PREFIX}{table}" in tables
    }
    known = {each.name for each in fields(Periodic)}
    found = []
    for row in _rows(connection, f"{PREFIX}periodictask"):
        values = {name: value for name, value in row.items() if name in known and value is not None}
        for kind, rows in timetables.items():
            if (key := row.get(f"{kind}_id")) is not None:
                values[kind] = rows.get(key)
        found.append(Periodic(**values))
    return found


def _rows(connection: BaseDatabaseWrapper, table: str) -> list[dict[str, Any]]:
    """All rows of a table as the database keeps them; instants aware, truths as such."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)} ORDER BY id")
        rows = cursor.fetchall()
        names = [column[0] for column in cursor.description]
    return [{name: _value(name, value) for name, value in zip(names, row, strict=True)} for row in rows]


_TRUTHS: Final = frozenset({"enabled", "one_off"})
_INSTANTS: Final = frozenset({"expires", "start_time", "last_run_at", "clocked_time"})


def _value(name: str, value: Any) -> Any:
    """SQLite keeps truths as numbers and instants as texts, in UTC."""
    if value is None:
        return None
    if name in _TRUTHS:
        return bool(value)
    if name in _INSTANTS:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else value
        return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
    return value
