"""The one way in for events: stored once, matched, and what they start committed together.

One transaction: the event (`ON CONFLICT DO NOTHING`), its activations, their executions, a line in the delivery
log. A 2xx answer, or the return of `publish_event`, stands for exactly that; a repeat finds the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from execution import creation, engine
from execution.failures import storable
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.ids import uuid7
from scheduling_project.common.json_values import MAX_DEPTH, too_deep
from triggers import activation, catalog
from triggers.activation import Outcome
from triggers.arrivals import MAX_TEXT, Arrival, Sender, dedup_key
from triggers.catalog import Endpoint, Snapshot
from triggers.matching import Rule
from triggers.models import Activation
from triggers.payloads import is_type
from triggers.states import DeliveryOutcome

MAX_MISSES_SHOWN: Final = 10


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
_INSERT_EVENT = """
INSERT INTO triggers_event (id, endpoint_id, type, source, subject, time, data, extensions, content_type, raw, headers,
    delivery_id, dedup_key, replay_of_id, producer, cause, depth, received_at)
VALUES (%(id)s::uuid, %(endpoint)s::uuid, %(type)s::text, %(source)s::text, %(subject)s::text, %(time)s::timestamptz,
    %(data)s::jsonb, %(extensions)s::jsonb, %(content_type)s::text, %(raw)s::bytea, %(headers)s::jsonb,
    %(delivery_id)s::text, %(dedup_key)s::text, %(replay_of)s::uuid, %(producer)s::text, %(cause)s::uuid,
    %(depth)s::int, %(now)s::timestamptz)
ON CONFLICT (endpoint_id, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING
RETURNING id, (SELECT version FROM triggers_catalog WHERE id = 1) AS version
"""

# Race: two repeats after the window. The second waits for the first, finds the key gone, and its insert then meets
# the first's new event.
_GIVE_KEY_BACK = """
UPDATE triggers_event SET dedup_key = NULL
WHERE endpoint_id IS NOT DISTINCT FROM %(endpoint)s::uuid AND dedup_key = %(dedup_key)s::text
  AND received_at < %(now)s::timestamptz - make_interval(secs => %(window)s::float8)
"""
_EARLIER = """
SELECT e.id AS event_id, a.id AS activation_id, a.execution_id
FROM triggers_event e LEFT JOIN triggers_activation a ON a.event_id = e.id
WHERE e.endpoint_id IS NOT DISTINCT FROM %(endpoint)s::uuid AND e.dedup_key = %(dedup_key)s::text
ORDER BY a.id
"""
_INSERT_ACTIVATIONS = """
INSERT INTO triggers_activation (id, trigger_id, event_id, execution_id, group_id, state, reason, created_at,
    updated_at)
SELECT id, trigger_id, %(event)s::uuid, execution_id, group_id, state, reason, %(now)s::timestamptz,
    %(now)s::timestamptz
FROM unnest(%(ids)s::uuid[], %(triggers)s::uuid[], %(executions)s::uuid[], %(groups)s::uuid[], %(states)s::text[],
    %(reasons)s::text[]) AS new (id, trigger_id, execution_id, group_id, state, reason)
"""
# One line of the delivery log that says what each trigger made of the event.
_INSERT_DELIVERY = """
INSERT INTO triggers_delivery (id, endpoint_id, event_id, outcome, status, reason, delivery_id, sender, size, verdicts,
    duration_ms, received_at)
VALUES (%(id)s::uuid, %(endpoint)s::uuid, %(event)s::uuid, %(outcome)s::text, %(status)s::int, '',
    %(delivery_id)s::text, %(sender)s::text, %(size)s::int, %(verdicts)s::jsonb,
    greatest(0, extract(epoch FROM clock_timestamp() - %(now)s::timestamptz) * 1000), %(now)s::timestamptz)
"""
_INSERT_BOTH = f"WITH activations AS ({_INSERT_ACTIVATIONS}) {_INSERT_DELIVERY}"


def ingest(
    arrival: Arrival,
    *,
    sender: Sender,
    endpoint: Endpoint | None = None,
    only: frozenset[UUID] | None = None,
    wanted_only: bool = False,
    now: datetime | None = None,
    using: str = "default",
) -> Receipt | None:
    """Store an event and start what it activates, in a transaction or within the open one.

    Args:
        endpoint: the webhook endpoint that it came to, None for internal events.
        only: let these triggers have it alone (replay).
        wanted_only: store nothing when no trigger wants it; the answer is then None.
    """
    with engine.transaction(using=using):
        instant = now or engine.now(using=using)
        event_id = uuid7()
        slug = "" if endpoint is None else endpoint.slug
        endpoint_id = None if endpoint is None else endpoint.id
        document = arrival.document(id=event_id, endpoint=slug, received_at=instant)
        if wanted_only:
            snapshot = catalog.current(using=using, max_age=0)
            if not snapshot.index.match(document, endpoint_id):
                return None
        params = _columns(arrival, event_id, endpoint_id, sender, instant)
        if endpoint is not None and endpoint.dedup_window is not None and arrival.dedup_key is not None:
            engine.fetch_all(_GIVE_KEY_BACK, params | {"window": endpoint.dedup_window}, using=using)
        row = engine.fetch_one(_INSERT_EVENT, params, using=using)
        if row is None:
            receipt = _earlier(params, using)
            engine.fetch_all(_INSERT_DELIVERY, _delivery(receipt.event_id, params, sender, duplicate=True), using=using)
            return receipt
        snapshot = catalog.at_version(row.version, using=using)
        found = snapshot.index.match(document, endpoint_id)
        if only is not None:
            found = [rule for rule in found if rule.id in only]
        due = [rule for rule in found if rule.value.why_not_due(instant) is None]
        decided = activation.decide(
            due, event_id=event_id, arrival=arrival, document=document, sender=sender, now=instant, using=using
        )
        outcomes = decided.outcomes
        creation.start_many(decided.starts, now=instant, using=using)
        made = _activations(event_id, outcomes, instant)
        if decided.full:  # batches that this event completes: what becomes of it is known only when they are started
            engine.fetch_all(_INSERT_ACTIVATIONS, made, using=using)
            activation.start_full(decided, now=instant, using=using)
        verdicts = verdicts_of(snapshot, document, endpoint_id, found, outcomes, instant)
        noted = _delivery(event_id, params, sender, verdicts=verdicts)
        engine.fetch_all(_INSERT_DELIVERY if decided.full else _INSERT_BOTH, made | noted, using=using)
    return Receipt(event_id, [(outcome.id, outcome.execution_id) for outcome in outcomes])


def publish_event(
    type: str,
    data: Any = None,
    *,
    source: str = "/internal",
    subject: str = "",
    id: str | None = None,
    time: datetime | None = None,
    extensions: Mapping[str, Any] | None = None,
    sender: Sender | None = None,
    using: str = "default",
) -> Receipt:
    """Publish an event from Python: all or nothing with the caller's transaction, if one is open on `using`.

    >>> publish_event("order.paid", {"order": 7}, source="/shop")  # doctest: +SKIP

    Args:
        id: with one, source and id name the event: a repeat starts nothing and answers with the first's ids.
        time: aware; now when left out.

    Raises:
        InvalidInput: naming what cannot be kept.
    """
    arrival = internal(type, data, source=source, subject=subject, id=id, time=time, extensions=extensions)
    receipt = ingest(arrival, sender=sender or Sender("system"), using=using)
    assert receipt is not None
    return receipt


def internal(
    type: str,
    data: Any,
    *,
    source: str,
    subject: str = "",
    id: str | None = None,
    time: datetime | None = None,
    extensions: Mapping[str, Any] | None = None,
    cause: UUID | None = None,
    depth: int = 0,
) -> Arrival:
    """An event from inside, checked.

    Raises:
        InvalidInput: naming what cannot be kept.
    """
    problems: dict[str, list[str]] = {}
    if not is_type(type):
        problems["type"] = ["must be a printable text of 1 to 200 characters"]
    for name, text in (("source", source), ("subject", subject), ("id", id or "")):
        if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isprintable():
            problems[name] = [f"must be a printable text of at most {MAX_TEXT} characters"]
    if time is not None and time.tzinfo is None:
        problems["time"] = ["must have a zone"]
    if too_deep(data):
        problems["data"] = [f"is nested deeper than {MAX_DEPTH}"]
    raw = b""
    if not problems:
        try:
            raw = engine.dump_json(data).encode()
        except (TypeError, ValueError) as error:
            problems["data"] = [f"must be JSON that can be kept: {error}"[:200]]
    if b"\\u0000" in raw:
        problems["data"] = ["holds U+0000, which cannot be kept"]
    if problems:
        raise InvalidInput(fields=problems)
    return Arrival(
        type=type,
        source=source,
        subject=subject,
        time=time,
        data=data,
        extensions=extensions or {},
        content_type="application/json",
        raw=raw,
        delivery_id=(id or "")[:256],
        dedup_key=None if id is None else dedup_key("event", source, id),
        cause=cause,
        depth=depth,
    )


def earlier_outcomes(event_id: UUID, *, using: str = "default") -> list[tuple[UUID, UUID | None]]:
    """The activations of a stored event with their executions, as they are now."""
    rows = Activation.objects.using(using).filter(event_id=event_id).order_by("pk")
    return list(rows.values_list("pk", "execution_id"))


def verdicts_of(
    snapshot: Snapshot,
    document: dict[str, Any],
    endpoint_id: UUID | None,
    matched: Sequence[Rule],
    outcomes: Sequence[Outcome],
    now: datetime,
) -> list[dict[str, Any]]:
    """What each trigger said; of those that did not match, some, each with the first field that failed.

    A trigger whose pattern matched, but before its start or after its end, says that.
    """
    verdicts = [outcome.as_verdict() for outcome in outcomes]
    idle = [(rule, reason) for rule in matched if (reason := rule.value.why_not_due(now)) is not None]
    misses = snapshot.index.misses(document, endpoint_id, matched=matched, limit=MAX_MISSES_SHOWN)
    verdicts.extend(_miss(rule, reason) for rule, reason in [*idle[:MAX_MISSES_SHOWN], *misses])
    return verdicts


def _miss(rule: Rule, reason: str) -> dict[str, Any]:
    return {
        "trigger": str(rule.id),
        "name": rule.value.name,
        "matched": False,
        "reason": storable(reason)[:MAX_TEXT],
    }


def _earlier(params: Mapping[str, Any], using: str) -> Receipt:
    rows = engine.fetch_all(_EARLIER, params, using=using)
    assert rows, "the event that the insert ran into has been committed"
    found = [(row.activation_id, row.execution_id) for row in rows if row.activation_id is not None]
    return Receipt(rows[0].event_id, found, duplicate=True)


def _columns(
    arrival: Arrival, event_id: UUID, endpoint_id: UUID | None, sender: Sender, now: datetime
) -> dict[str, Any]:
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


def _activations(event_id: UUID, outcomes: Sequence[Outcome], now: datetime) -> dict[str, Any]:
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


def _delivery(
    event_id: UUID,
    event: Mapping[str, Any],
    sender: Sender,
    *,
    verdicts: Sequence[Mapping[str, Any]] = (),
    duplicate: bool = False,
) -> dict[str, Any]:
    outcome = DeliveryOutcome.DUPLICATE if duplicate else DeliveryOutcome.ACCEPTED
    return {
        "id": uuid7(),
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
