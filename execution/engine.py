"""The protocol's way to Postgres: its own connection, server-side bound and prepared statements, one clock.

Step code runs on Django's ``default`` connection. The engine's statements run on ``engine``: the same server
with short statement and lock timeouts, so that neither can hold up or break the other's transaction. What a
request does inside its own transaction (starting an execution, say) is told which alias to use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import DataError, InterfaceError, OperationalError, connections
from django.db import transaction as django_transaction
from psycopg import RawCursor
from psycopg.rows import namedtuple_row

Params = Mapping[str, Any]

#: The first CTE of the protocol's statements: Postgres's clock, read once, unless the caller binds another `now`.
CLOCK = "clock AS MATERIALIZED (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now)"

#: A connection keeps its cursor for the next statement: making one and learning the types of all columns anew takes
#: as long as the rest of what this side does for a statement.
_CURSOR = "_engine_cursor"
MOST_KEPT_ROWS = 1_000

#: What is raised when Postgres is away or a statement ran into the engine's timeouts.
DatabaseAway = (OperationalError, InterfaceError)


def alias() -> str:
    """The database alias of the engine's statements."""
    name: str = settings.WORKFLOW_ENGINE_DATABASE
    return name


def fetch_all(sql: str, params: Params, *, using: str | None = None) -> list[Any]:
    """Run one statement and return its rows as named tuples (none for a statement without rows).

    Statements are prepared by the driver, so the text must be a constant; values are bound on the server.
    ``jsonb`` columns come back as text (`load_json`).

    Raises:
        django.db.DatabaseError: and its subclasses, as the ORM would.
    """
    connection = connections[using or alias()]
    connection.ensure_connection()
    text, names = _native(sql)
    cursor: RawCursor[Any] | None = getattr(connection, _CURSOR, None)
    if cursor is None or cursor.connection is not connection.connection:
        cursor = RawCursor(connection.connection, row_factory=namedtuple_row)
    setattr(connection, _CURSOR, None)  # until it is known that it can be used again
    with connection.wrap_database_errors:
        cursor.execute(text, [params[name] for name in names], prepare=True)
        # Not `description`, which makes an object for every column.
        rows = cursor.fetchall() if cursor.rownumber is not None else []
    if len(rows) <= MOST_KEPT_ROWS:  # it keeps its last answer in memory
        setattr(connection, _CURSOR, cursor)
    return rows


_PLACES: Final = re.compile(r"%(?:\((\w+)\)s|%)")


@cache
def _native(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement with Postgres's own places (``$1``) and their names in order; kept, since the texts are constant.

    The driver does the same, but keeps it only for short statements with few parameters, and looks it up by all of
    the text.

    >>> _native("SELECT %(a)s::int, %(b)s::int, %(a)s::int %% 2")
    (b'SELECT $1::int, $2::int, $1::int % 2', ('a', 'b'))
    """
    names: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}" if found[1] else "%"

    text = _PLACES.sub(place, sql)
    return text.encode(), tuple(names)


class Sent:
    """A statement that has been sent to Postgres; what it returned is read with `rows`, when its pipeline has ended."""

    __slots__ = ("_connection", "_cursor")

    def __init__(self, connection: Any, cursor: RawCursor[Any]) -> None:
        self._connection = connection
        self._cursor = cursor

    def rows(self) -> list[Any]:
        """The rows, as `fetch_all` returns them. To be asked for once."""
        with self._connection.wrap_database_errors, self._cursor as cursor:
            return cursor.fetchall() if cursor.description is not None else []


def send(sql: str, params: Params, *, using: str | None = None) -> Sent:
    """Begin one statement, as `fetch_all` takes them; inside a `pipeline` without waiting for it."""
    connection = connections[using or alias()]
    connection.ensure_connection()
    text, names = _native(sql)
    with connection.wrap_database_errors:
        cursor = RawCursor(connection.connection, row_factory=namedtuple_row)
        return Sent(connection, cursor.execute(text, [params[name] for name in names], prepare=True))


@contextmanager
def pipeline(*, using: str | None = None) -> Iterator[None]:
    """What is sent within runs on the server while the next statement is still being made up here; one round trip.

    Only `send` belongs inside, and results are read outside. The end waits for everything that was sent.

    Raises:
        django.db.DatabaseError: the first statement that failed; those after it have not run.
    """
    connection = connections[using or alias()]
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield


def fetch_one(sql: str, params: Params, *, using: str | None = None) -> Any | None:
    """The first row of a statement, or None."""
    rows = fetch_all(sql, params, using=using)
    return rows[0] if rows else None


@contextmanager
def transaction(*, using: str | None = None) -> Iterator[str]:
    """A transaction (or savepoint) on the engine's connection; yields the alias."""
    name = using or alias()
    with django_transaction.atomic(using=name):
        yield name


def now(*, using: str | None = None) -> datetime:
    """Postgres's wall clock, aware, in UTC: the one clock of the protocol."""
    row: NamedTuple | None = fetch_one("SELECT clock_timestamp() AS instant", {}, using=using)
    assert row is not None
    instant: datetime = row[0]
    return instant.astimezone(UTC)


def is_refusal(error: BaseException) -> bool:
    """Whether Postgres is there and will never take this value (bad data, or SQLSTATE class 54, beyond its limits)."""
    return isinstance(error, DataError) or str(getattr(error.__cause__, "sqlstate", None)).startswith("54")


def close() -> None:
    """Drop this thread's engine connection; the next statement opens a new one."""
    connections[alias()].close()


def dump_json(value: Any) -> str:
    """JSON text for a ``jsonb`` parameter; compact, UTF-8, no NaN."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def load_json(text: str | None) -> Any:
    """The value of a ``jsonb`` column, None for NULL."""
    return None if text is None else json.loads(text)


def array(values: Sequence[Any]) -> str:
    """A list as the text of a Postgres array, for a parameter that its statement casts (``%(ids)s::uuid[]``).

    Several times faster than the driver's own dumping of lists, which for a thousand executions at once would cost
    as much as inserting them. Takes None, texts, numbers, booleans, UUIDs and aware datetimes.

    >>> array([1, None, True]), array(["a", "b,c"])
    ('{1,NULL,t}', '{"a","b,c"}')
    """
    kinds = set(map(type, values))
    if len(kinds) == 1:
        first = values[0]
        if first is values[-1] and values.count(first) == len(values):  # a column that is the same for all
            return "{" + ",".join([_ELEMENTS[type(first)](first)] * len(values)) + "}"
        if kinds == {str}:
            text = '","'.join(values)
            if "\\" not in text and text.count('"') == 2 * len(values) - 2:
                return f'{{"{text}"}}'
        write = _ELEMENTS[kinds.pop()]
        return "{" + ",".join([write(value) for value in values]) + "}"
    return "{" + ",".join([_ELEMENTS[type(value)](value) for value in values]) + "}"


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


class _Elements(dict[type, Callable[[Any], str]]):
    def __missing__(self, kind: type) -> Callable[[Any], str]:
        for known in (str, UUID, int, float, datetime):  # enum members and other subclasses
            if issubclass(kind, known):
                self[kind] = self[known]
                return self[kind]
        raise TypeError(f"{kind.__name__} cannot be an element of an array")


_ELEMENTS = _Elements(
    {
        type(None): lambda _: "NULL",
        str: lambda value: _quoted(str.__str__(value)),
        bool: lambda value: "t" if value else "f",
        int: int.__repr__,
        float: float.__repr__,
        UUID: lambda value: f"{value.int:032x}",
        datetime: lambda value: f'"{value.isoformat()}"',
    }
)
