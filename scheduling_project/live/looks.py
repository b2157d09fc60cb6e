"""One look into the database for all who watch in this process: what is asked, and what was found."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import close_old_connections, reset_queries

from execution import engine
from scheduling_project.live import cursors
from scheduling_project.live.cursors import Cursor, CursorLost
from scheduling_project.live.kinds import KINDS, Filters, Kind, Row
from scheduling_project.live.messages import Subscribe

#: Rows that a subscription can catch up on; beyond them reading the lists anew is cheaper.
MOST_CAUGHT_UP: Final = 2_000
#: Rows that one look at all changes takes.
MOST_SCANNED: Final = 20_000

Words = Mapping[str, Collection[str] | None]


@dataclass(frozen=True, slots=True)
class Question:
    """`words`: announced ids by kind; `scan`: kinds whose changes since `cursor` are wanted, with the filters that
    all who follow them share; `fresh`: subscriptions that begin now."""

    followed: Collection[str]
    words: Words
    scan: Mapping[str, Filters]
    cursor: Cursor | None
    fresh: Sequence[Subscribe] = ()


@dataclass(slots=True)
class Answer:
    """`cursor` was read before everything else. `caught_up` has per fresh subscription its rows; None: too many
    changes, or a cursor that is lost. Kinds in `overflowed` had too many changes."""

    cursor: Cursor
    caught_up: list[list[Row] | None] = field(default_factory=list)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    overflowed: set[str] = field(default_factory=set)
    seconds: float = 0.0


def look(question: Question) -> Answer:
    """Answer it with the rows as they are now, in the order in which watchers are to be told.

    Raises:
        django.db.OperationalError, django.db.InterfaceError: Postgres is away, or a statement took too long.
    """
    began = time.monotonic()
    answer = Answer(cursors.present())
    for wish in question.fresh:
        answer.caught_up.append(_caught_up(wish, answer.cursor))
    for name in question.followed:
        kind = KINDS[name]
        rows = _announced(kind, question.words)
        if name in question.scan and question.cursor is not None:
            changed = kind.changed(question.cursor, limit=MOST_SCANNED + 1, filters=question.scan[name])
            if len(changed) > MOST_SCANNED:
                answer.overflowed.add(name)
                continue
            rows += changed
        answer.rows[name] = rows
    answer.seconds = time.monotonic() - began
    return answer


def _announced(kind: Kind, words: Words) -> list[Row]:
    known = {name: ids for name, ids in words.items() if ids}
    return kind.announced(known) if known else []


def _caught_up(wish: Subscribe, now: Cursor) -> list[Row] | None:
    since = wish.since
    if since is None:
        return [row for row in wish.kind.present() if row.matches(wish.filters, wish.kind.shown_as)]
    try:
        cursors.check(since, now=now)
    except CursorLost:
        return None
    rows = wish.kind.changed(since, limit=MOST_CAUGHT_UP + 1, filters=wish.filters)
    return rows if len(rows) <= MOST_CAUGHT_UP else None


def shared_filters(wishes: Collection[Subscribe]) -> dict[str, list[str]]:
    """What every one of these subscriptions asks for: the names that all filter by, with all their values."""
    first, *others = wishes
    names = set(first.filters).intersection(*(wish.filters for wish in others))
    return {name: sorted({value for wish in wishes for value in wish.filters[name]}) for name in sorted(names)}


class Seen:
    """Which version of a row watchers have been told of, as long as a look at the changes could find it again."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, str]] = {}

    def fresh(self, kind: str, rows: Sequence[Row]) -> list[Row]:
        """Those of the rows that are news, each once, the last of several; from now on they are none."""
        known = self._versions.setdefault(kind, {})
        news: dict[str, Row] = {}
        for row in rows:
            version = row.version or row.text
            if known.get(row.id) != version:
                known[row.id] = version
                news.pop(row.id, None)
                news[row.id] = row
        return list(news.values())

    def forget(self, cursor: Cursor) -> None:
        """Drop what no look from `cursor` on can find (transaction numbers compared over 32 bits)."""
        low = cursor.below % 2**32
        for known in self._versions.values():
            old = [id for id, version in known.items() if version.isdecimal() and not _at_or_after(int(version), low)]
            for id in old:
                del known[id]


def _at_or_after(xid: int, low: int) -> bool:
    """
    >>> _at_or_after(5, 4294967290), _at_or_after(4294967290, 5)
    (True, False)
    """
    return (xid - low) % 2**32 < 2**31


def call(question: Question) -> Answer:
    """`look` for a thread whose connection may have been lost: the next call opens another."""
    try:
        return look(question)
    except engine.DatabaseAway:
        engine.close()
        raise


def whole(function: Any, *args: Any) -> Any:
    """Call something that reads with the default connection, under Django's rules for long-lived threads."""
    reset_queries()
    close_old_connections()
    try:
        return function(*args)
    finally:
        close_old_connections()
