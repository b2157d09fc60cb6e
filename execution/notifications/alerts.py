"""Conditions that hold for a while: told when they begin, forgotten when they end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from execution import engine
from execution.models import NotificationRule
from execution.notifications import outbox
from execution.notifications.outbox import Told

# Race: two workers find the same condition. One makes the row and tells; the other finds it there.
RAISE: Final = """
INSERT INTO execution_notificationalert AS a (rule_id, subject, level, since)
VALUES (%(rule)s::uuid, %(subject)s::text, %(level)s::int, %(now)s::timestamptz)
ON CONFLICT (rule_id, subject) DO UPDATE SET level = excluded.level WHERE a.level < excluded.level
RETURNING id
"""
# Race: two successes after one failure: whoever deletes the row tells.
CLEAR: Final = """
DELETE FROM execution_notificationalert WHERE rule_id = %(rule)s::uuid AND subject = %(subject)s::text RETURNING since
"""
KEEP: Final = """
DELETE FROM execution_notificationalert WHERE rule_id = %(rule)s::uuid AND NOT subject = ANY(%(subjects)s::text[])
"""


def begin(rule: NotificationRule, subject: str, *, now: datetime, level: int = 1, using: str) -> bool:
    """Note that a condition holds. True when it is new, or has risen above its level."""
    params = {"rule": rule.pk, "subject": subject[:200], "level": level, "now": now}
    return bool(engine.fetch_all(RAISE, params, using=using))


def end(rule: NotificationRule, subject: str, *, using: str) -> datetime | None:
    """Note that a condition holds no longer. Since when it held; None when it did not."""
    row = engine.fetch_one(CLEAR, {"rule": rule.pk, "subject": subject[:200]}, using=using)
    return None if row is None else row.since


def settle(rule: NotificationRule, holding: Mapping[str, Told], *, now: datetime, using: str) -> int:
    """Tell of what holds now and did not hold before, and forget what holds no longer. Returns how many were told."""
    engine.fetch_all(KEEP, {"rule": rule.pk, "subjects": engine.array([s[:200] for s in holding])}, using=using)
    told = 0
    for subject, what in sorted(holding.items()):
        if begin(rule, subject, now=now, using=using):
            outbox.add(rule, what, now=now, using=using)
            told += 1
    return told
