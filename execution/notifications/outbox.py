"""Messages as rows: what is to be told is added in the transaction in which it was found, and sent later, at least
once. What happens within a rule's window becomes one message."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from execution import engine
from execution.models import Notification, NotificationRule
from execution.notifications.kinds import Channel, NotificationState
from scheduling_project.common.ids import uuid7

#: So many events are kept in full in one message; the rest is counted.
MOST_EVENTS: Final = 20
#: A sender that has not said within so many seconds what became of a message is taken to be lost.
SENDING_SECONDS: Final = 60.0
#: Seconds until the next attempt, after each. Eight hours in all.
RETRY_SECONDS: Final = (5.0, 30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One thing that a message tells. `data` holds ids and figures, never inputs or outputs."""

    kind: str
    subject: str
    title: str
    at: datetime
    data: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "subject": self.subject, "title": self.title, "at": self.at.isoformat(), **self.data}


# Race: two workers find something for one rule at the same moment: the unique index lets one begin the group, the
# other adds to it. Race: a group that is being claimed: the claim closes it under its row's lock, and whoever waited
# for that finds no open group any more and begins the next.
ADD: Final = f"""
INSERT INTO execution_notification AS n
    (id, rule_id, channel, state, is_open, is_test, count, events, attempts, due_at, error, created_at)
VALUES (%(id)s::uuid, %(rule)s::uuid, %(channel)s::text, 'pending', %(window)s::float8 > 0, %(is_test)s::bool, 1,
    jsonb_build_array(%(event)s::jsonb), 0, %(now)s::timestamptz + make_interval(secs => %(window)s::float8), '',
    %(now)s::timestamptz)
ON CONFLICT (rule_id, channel) WHERE is_open DO UPDATE SET count = n.count + 1,
    events = CASE WHEN jsonb_array_length(n.events) < {MOST_EVENTS} THEN n.events || excluded.events ELSE n.events END
RETURNING id
"""


def add(
    rule: NotificationRule, told: Told, *, now: datetime, is_test: bool = False, using: str | None = None
) -> list[UUID]:
    """Put something into the outbox, for each channel of the rule. Returns the ids of the messages that tell it."""
    params = {
        "rule": rule.pk,
        "event": engine.dump_json(told.as_json()),
        "window": 0.0 if is_test else float(rule.window),
        "is_test": is_test,
        "now": now,
    }
    rows = []
    for channel in rule.channels:
        rows += engine.fetch_all(ADD, {**params, "id": uuid7(), "channel": channel.value}, using=using)
    return [row.id for row in rows]


# Race: several senders. Each claims rows that nobody else has, and a number of the attempt that fences its answer.
CLAIM: Final = """
UPDATE execution_notification SET is_open = false, attempts = attempts + 1,
    due_at = %(now)s::timestamptz + make_interval(secs => %(lease)s::float8)
WHERE id = ANY(ARRAY(
    SELECT id FROM execution_notification WHERE state = 'pending' AND due_at <= %(now)s::timestamptz
      AND (%(only)s::uuid IS NULL OR id = %(only)s::uuid)
    ORDER BY due_at LIMIT %(limit)s::int FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id
"""


def claim(*, limit: int, now: datetime, only: UUID | None = None, using: str | None = None) -> list[Notification]:
    """Take up to `limit` messages that are due; their groups take nothing more."""
    params = {"now": now, "lease": SENDING_SECONDS, "limit": limit, "only": only}
    ids = [row.id for row in engine.fetch_all(CLAIM, params, using=using)]
    rows = Notification.objects.using(using or engine.alias()).select_related("rule").filter(pk__in=ids)
    return list(rows.order_by("id"))


DUE: Final = """
SELECT EXISTS (SELECT 1 FROM execution_notification WHERE state = 'pending' AND due_at <= clock_timestamp()) AS due
"""


def is_due(*, using: str | None = None) -> bool:
    """Whether a message is to be sent now."""
    row = engine.fetch_one(DUE, {}, using=using)
    return bool(row is not None and row.due)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an attempt came to. An empty `error`: it arrived. `is_final`: trying again is of no use."""

    error: str = ""
    status: int | None = None
    is_final: bool = False


def conclude(message: Notification, answer: Answer, *, now: datetime, using: str | None = None) -> bool:
    """Keep what an attempt came to; False when another attempt has begun in the meantime."""
    values: dict[str, Any] = {"error": answer.error[:500], "status": answer.status}
    retries = 0 if message.is_test else len(RETRY_SECONDS)
    if not answer.error:
        values |= {"state": NotificationState.SENT, "finished_at": now}
    elif answer.is_final or message.attempts > retries:
        values |= {"state": NotificationState.FAILED, "finished_at": now}
    else:
        values["due_at"] = now + timedelta(seconds=RETRY_SECONDS[message.attempts - 1])
    mine = Notification.objects.using(using or engine.alias()).filter(
        pk=message.pk, attempts=message.attempts, state=NotificationState.PENDING
    )
    return bool(mine.update(**values))


def give_up(rule: NotificationRule, channel: Channel, *, reason: str, now: datetime, using: str | None = None) -> int:
    """End what still waits for a channel. Returns how many messages that were."""
    waiting = Notification.objects.using(using or engine.alias()).filter(
        rule=rule, channel=channel, state=NotificationState.PENDING
    )
    return waiting.update(state=NotificationState.FAILED, finished_at=now, is_open=False, error=reason[:500])
