"""The rows of an event on its way in: the statements that write them, and their parameters.

Usually everything that an event comes to is one statement and one round trip (`INSERT_ALL`, `NOTE_REPEAT`); where its
triggers count or wait, several in one transaction (`triggers.ingest` decides).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from execution import creation_rows, engine
from scheduling_project.common.ids import uuid7
from triggers.activation import Outcome
from triggers.arrivals import Arrival, Sender
from triggers.states import DeliveryOutcome


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an event came to. A repeat (`duplicate`) has the ids of the first time."""

    event_id: UUID
    activations: Sequence[tuple[UUID, UUID | None]] = field(default_factory=tuple)
    duplicate: bool = False

    @property
    def activation_ids(self) -> list[UUID]:
        return [activation_id for activation_id, _ in self.activations]

    @property
    def execution_ids(self) -> list[UUID]:
        """Each once: the events of a batch share theirs."""
        return list(dict.fromkeys(execution_id for _, execution_id in self.activations if execution_id is not None))

    def as_json(self) -> dict[str, Any]:
        return {
            "event_id": str(self.event_id),
            "activation_ids": [str(one) for one in self.activation_ids],
            "execution_ids": [str(one) for one in self.execution_ids],
            "duplicate": self.duplicate,
        }


# Race: the same delivery many times at once. The unique index makes the others wait for the first's commit and then
# insert nothing; they read its ids. The version of the catalog is read in the same snapshot, so that the event is
# matched against the triggers in force now, whatever this process has in memory.
_NEW_EVENT = """
INSERT INTO triggers_event (id, endpoint_id, type, source, subject, time, data, extensions, content_type, raw, headers,
    delivery_id, dedup_key, replay_of_id, producer, cause, depth, received_at)
SELECT %(id)s::uuid, %(endpoint)s::uuid, %(type)s::text, %(source)s::text, %(subject)s::text, %(time)s::timestamptz,
    %(data)s::jsonb, %(extensions)s::jsonb, %(content_type)s::text, %(raw)s::bytea, %(headers)s::jsonb,
    %(delivery_id)s::text, %(dedup_key)s::text, %(replay_of)s::uuid, %(producer)s::text, %(cause)s::uuid,
    %(depth)s::int, %(now)s::timestamptz{only_if}
ON CONFLICT (endpoint_id, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING
RETURNING id"""
_VERSION = "(SELECT version FROM triggers_catalog WHERE id = 1)"
INSERT_EVENT = f"{_NEW_EVENT.format(only_if='')}, {_VERSION} AS version"

# Race: two repeats after the window. The second waits for the first, finds the key gone, and its insert then meets
# the first's new event.
GIVE_KEY_BACK = """
UPDATE triggers_event SET dedup_key = NULL
WHERE endpoint_id IS NOT DISTINCT FROM %(endpoint)s::uuid AND dedup_key = %(dedup_key)s::text
  AND received_at < %(now)s::timestamptz - make_interval(secs => %(window)s::float8)
"""
INSERT_ACTIVATIONS = """
INSERT INTO triggers_activation (id, trigger_id, event_id, execution_id, group_id, state, reason, created_at,
    updated_at)
SELECT id, trigger_id, %(event)s::uuid, execution_id, group_id, state, reason, %(now)s::timestamptz,
    %(now)s::timestamptz
FROM unnest(%(ids)s::uuid[], %(triggers)s::uuid[], %(executions)s::uuid[], %(groups)s::uuid[], %(states)s::text[],
    %(reasons)s::text[]) AS new (id, trigger_id, execution_id, group_id, state, reason)
"""

# One line of the delivery log that says what each trigger made of the event.
_NEW_DELIVERY = """
INSERT INTO triggers_delivery (id, endpoint_id, event_id, outcome, status, reason, delivery_id, sender, size, verdicts,
    duration_ms, received_at)
SELECT %(delivery)s::uuid, %(endpoint)s::uuid, {event}, %(outcome)s::text, %(status)s::int, '',
    %(delivery_id)s::text, %(sender)s::text, %(size)s::int, %(verdicts)s::jsonb,
    greatest(0, extract(epoch FROM clock_timestamp() - %(now)s::timestamptz) * 1000), %(now)s::timestamptz
"""
INSERT_DELIVERY = _NEW_DELIVERY.format(event="%(event)s::uuid")
INSERT_BOTH = f"WITH activations AS ({INSERT_ACTIVATIONS}) {INSERT_DELIVERY}"

# Everything that an event comes to, where nothing else is to be asked or done for it: the event, if the catalog is
# still that of the caller; its executions, activations and line of the log, if the event is there by this statement.
# One row at least; one for each lane and level of which step runs were marked.
_IF_STORED = "WHERE EXISTS (SELECT 1 FROM event)"
INSERT_ALL = f"""
WITH event AS ({_NEW_EVENT.format(only_if=f" WHERE {_VERSION} IS NOT DISTINCT FROM %(version)s::uuid")}),
{creation_rows.ctes_after("event")},
activations AS ({INSERT_ACTIVATIONS}{_IF_STORED}),
noted AS ({INSERT_DELIVERY}{_IF_STORED})
SELECT (SELECT id FROM event) AS id, {_VERSION} AS version, queue, priority, dispatched
FROM (SELECT) always LEFT JOIN ({creation_rows.MARKED}) marked ON true
"""

_EARLIER = """
SELECT e.id AS event_id, a.id AS activation_id, a.execution_id
FROM triggers_event e LEFT JOIN triggers_activation a ON a.event_id = e.id
WHERE e.endpoint_id IS NOT DISTINCT FROM %(endpoint)s::uuid AND e.dedup_key = %(dedup_key)s::text
"""
# A repeat: the ids of the first time, and a line of the log.
NOTE_REPEAT = f"""
WITH earlier AS MATERIALIZED ({_EARLIER}),
noted AS ({_NEW_DELIVERY.format(event="event_id")} FROM (SELECT DISTINCT event_id FROM earlier) first)
SELECT event_id, activation_id, execution_id FROM earlier ORDER BY activation_id
"""


def repeat(params: dict[str, Any], sender: Sender, *, using: str) -> Receipt | None:
    """Note a repeat of an event whose key is taken; None if the key has been given back by now."""
    rows = engine.fetch_all(NOTE_REPEAT, params | delivery(None, params, sender, duplicate=True), using=using)
    if not rows:
        return None
    found = [(row.activation_id, row.execution_id) for row in rows if row.activation_id is not None]
    return Receipt(rows[0].event_id, found, duplicate=True)


def columns(
    arrival: Arrival, event_id: UUID, endpoint_id: UUID | None, sender: Sender, now: datetime
) -> dict[str, Any]:
    """The parameters of the event itself."""
    return {
        "id": event_id,
        "endpoint": endpoint_id,
        "type": arrival.type,
        "source": arrival.source,
        "subject": arrival.subject,
        "time": arrival.time or now,
        "data": None if arrival.data is None else engine.dump_json(arrival.data),
        "extensions": engine.dump_json(dict(arrival.extensions)),
        "content_type": arrival.content_type,
        "raw": arrival.raw,
        "headers": engine.dump_json(dict(arrival.headers)),
        "delivery_id": arrival.delivery_id,
        "dedup_key": arrival.dedup_key,
        "replay_of": arrival.replay_of,
        "producer": sender.name[:200],
        "cause": arrival.cause,
        "depth": arrival.depth,
        "now": now,
    }


def activations(event_id: UUID, outcomes: Sequence[Outcome], now: datetime) -> dict[str, Any]:
    """The parameters of what its triggers made of it."""
    return {
        "event": event_id,
        "now": now,
        "ids": engine.array([one.id for one in outcomes]),
        "triggers": engine.array([one.trigger_id for one in outcomes]),
        "executions": engine.array([one.execution_id for one in outcomes]),
        "groups": engine.array([one.group_id for one in outcomes]),
        "states": engine.array([one.state.value for one in outcomes]),
        "reasons": engine.array([one.reason for one in outcomes]),
    }


def delivery(
    event_id: UUID | None,
    event: Mapping[str, Any],
    sender: Sender,
    *,
    verdicts: Sequence[Mapping[str, Any]] = (),
    duplicate: bool = False,
) -> dict[str, Any]:
    """The parameters of its line of the delivery log; `event` are those of the event."""
    outcome = DeliveryOutcome.DUPLICATE if duplicate else DeliveryOutcome.ACCEPTED
    return {
        "delivery": uuid7(),
        "endpoint": event["endpoint"],
        "event": event_id,
        "outcome": outcome.value,
        "status": 200 if duplicate else 202,
        "delivery_id": event["delivery_id"],
        "sender": sender.name[:200],
        "size": len(event["raw"]),
        "verdicts": engine.dump_json(list(verdicts)),
        "now": event["now"],
    }
