"""Durable news: rows that a finishing transaction leaves for whoever asked to be told."""

from __future__ import annotations

from typing import Any

from execution import engine

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
