"""Durable news: rows that a finishing transaction leaves for whoever asked to be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from execution import engine

#: What others may start something on, such as ``schedule.fire_missed``: rows with `type`, `source`, `subject`, `data`.
EVENT: Final = "event"
#: Who may want such news: functions of (types, database alias) that return those of the types that they want. Apps
#: that consume them register here; what nobody wants is never stored.
SUBSCRIBERS: Final[list[Callable[[Sequence[str], str], set[str]]]] = []

LEAVE: Final = """
INSERT INTO execution_news (topic, execution_id, subject, data, created_at)
SELECT %(topic)s::text, NULL, subject, data::jsonb, clock_timestamp()
FROM unnest(%(subjects)s::text[], %(data)s::text[]) AS new (subject, data)
"""


def wanted(types: Sequence[str], *, using: str | None = None) -> set[str]:
    """Which of these types of events somebody wants now."""
    alias = using or engine.alias()
    return set().union(*(subscriber(types, alias) for subscriber in SUBSCRIBERS))


def leave(type: str, told: Sequence[tuple[str, str, dict[str, Any]]], *, using: str | None = None) -> None:
    """Leave news of one type, each with its source, subject and data, in the open transaction; ask `wanted` first."""
    if told:
        rows = [
            engine.dump_json({"type": type, "source": source, "subject": subject, "data": data})
            for source, subject, data in told
        ]
        params = {
            "topic": EVENT,
            "subjects": engine.array([subject[:100] for _, subject, _ in told]),
            "data": engine.array(rows),
        }
        engine.fetch_all(LEAVE, params, using=using)


# Race: several consumers. Each deletes the rows that it has locked, in the transaction that acts on them: a crash
# gives them back.
CLAIM = """
DELETE FROM execution_news WHERE id = ANY(ARRAY(
    SELECT id FROM execution_news WHERE topic = %(topic)s ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
RETURNING id, execution_id, subject, data
"""


def claim(topic: str, *, limit: int = 100, using: str | None = None) -> list[Any]:
    """Take up to `limit` news of a topic, oldest first; they are gone when the open transaction commits.

    Rows have `id`, `execution_id`, `subject` and `data` (a dict).
    """
    rows = engine.fetch_all(CLAIM, {"topic": topic, "limit": limit}, using=using)
    return sorted((row._replace(data=engine.load_json(row.data)) for row in rows), key=lambda row: row.id)
