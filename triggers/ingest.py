"""The one way in for events: stored once, matched, and what they start committed together.

One transaction, and nearly always one statement: the event (`ON CONFLICT DO NOTHING`), its activations, their
executions, a line in the delivery log. A 2xx answer, or the return of `publish_event`, stands for exactly that; a
repeat finds the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import connections

from execution import creation, engine
from execution.failures import storable
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.ids import uuid7
from scheduling_project.common.json_values import MAX_DEPTH, too_deep
from triggers import activation, catalog, event_rows
from triggers.activation import Outcome
from triggers.arrivals import MAX_TEXT, Arrival, Sender, dedup_key
from triggers.catalog import Endpoint, Snapshot
from triggers.event_rows import Receipt
from triggers.matching import Rule
from triggers.models import Activation
from triggers.payloads import is_type

MAX_MISSES_SHOWN: Final = 10
#: Postgres keeps the plan of a prepared statement from its sixth execution.
REHEARSALS: Final = 6


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
    within = engine.transaction(using=using) if connections[using].in_atomic_block else nullcontext()
    with within:
        intake = _intake(arrival, sender, endpoint, only, now or engine.now(using=using), using)
        if not wanted_only and not intake.window:
            receipt = _at_once(intake)
            if receipt is not None:
                return receipt
        return _step_by_step(intake, wanted_only=wanted_only)


@dataclass(frozen=True, slots=True)
class _Intake:
    """An event, and what is asked of it. `params` are its columns; `window`: seconds after which its key is free."""

    arrival: Arrival
    sender: Sender
    endpoint_id: UUID | None
    window: int | None
    only: frozenset[UUID] | None
    now: datetime
    using: str
    event_id: UUID
    document: dict[str, Any]
    params: dict[str, Any]

    def matched(self, snapshot: Snapshot) -> list[Rule]:
        found = snapshot.index.match(self.document, self.endpoint_id)
        return found if self.only is None else [rule for rule in found if rule.id in self.only]

    def due(self, found: Sequence[Rule]) -> list[Rule]:
        return [rule for rule in found if rule.value.why_not_due(self.now) is None]

    def decide(self, due: Sequence[Rule]) -> activation.Decided:
        return activation.decide(
            due, arrival=self.arrival, document=self.document, sender=self.sender, now=self.now, using=self.using
        )

    def noted(self, snapshot: Snapshot, found: Sequence[Rule], outcomes: Sequence[Outcome]) -> dict[str, Any]:
        verdicts = verdicts_of(snapshot, self.document, self.endpoint_id, found, outcomes, self.now)
        return event_rows.delivery(self.event_id, self.params, self.sender, verdicts=verdicts)

    def receipt(self, outcomes: Sequence[Outcome]) -> Receipt:
        return Receipt(self.event_id, [(outcome.id, outcome.execution_id) for outcome in outcomes])


def _intake(
    arrival: Arrival,
    sender: Sender,
    endpoint: Endpoint | None,
    only: frozenset[UUID] | None,
    now: datetime,
    using: str,
) -> _Intake:
    event_id = uuid7()
    slug = "" if endpoint is None else endpoint.slug
    endpoint_id = None if endpoint is None else endpoint.id
    return _Intake(
        arrival,
        sender,
        endpoint_id,
        None if endpoint is None or arrival.dedup_key is None else endpoint.dedup_window,
        only,
        now,
        using,
        event_id,
        arrival.document(id=event_id, endpoint=slug, received_at=now),
        event_rows.columns(arrival, event_id, endpoint_id, sender, now),
    )


def _at_once(intake: _Intake) -> Receipt | None:
    """All of it in one statement: matched with what is in memory, stored if that is still what is in force.

    None, and nothing is stored, if a trigger counts or waits, an execution needs more than rows, or the catalog has
    changed.
    """
    using = intake.using
    snapshot = catalog.current(using=using)
    found = intake.matched(snapshot)
    due = intake.due(found)
    if not all(rule.value.is_plain for rule in due):
        return None
    decided = intake.decide(due)
    starts = creation.plain(decided.starts, now=intake.now)
    if starts is None:
        return None
    params = intake.params | starts.params | event_rows.activations(intake.event_id, decided.outcomes, intake.now)
    params |= intake.noted(snapshot, found, decided.outcomes)
    rows = engine.fetch_all(event_rows.INSERT_ALL, params | {"version": snapshot.version}, using=using)
    if rows[0].id is not None:
        starts.created([row[2:] for row in rows if row.dispatched], using=using)
        return intake.receipt(decided.outcomes)
    if rows[0].version != snapshot.version:
        return None
    return event_rows.repeat(intake.params, intake.sender, using=using)


def rehearse(*, using: str) -> None:
    """Have this thread's connection opened, and the statement of an intake planned: nothing is stored.

    The first delivery of a connection would otherwise wait for that; a burst of first ones, for each other.

    Raises:
        django.db.DatabaseError: Postgres is away.
    """
    arrival = internal("rehearsal", None, source="/internal")
    intake = _intake(arrival, Sender("system"), None, None, catalog.moment(using=using), using)
    starts = creation.plain([], now=intake.now)
    assert starts is not None, "nothing needs more than rows"
    params = intake.params | starts.params | event_rows.activations(intake.event_id, [], intake.now)
    params |= event_rows.delivery(intake.event_id, intake.params, intake.sender)
    for _ in range(REHEARSALS):
        # The catalog never has a version that is made up here, so that the statement stores nothing.
        engine.fetch_all(event_rows.INSERT_ALL, params | {"version": uuid4()}, using=using)


def _step_by_step(intake: _Intake, *, wanted_only: bool) -> Receipt | None:
    """The event first, then what its triggers count, start or let wait, in one transaction."""
    using = intake.using
    with engine.transaction(using=using):
        if wanted_only:
            snapshot = catalog.current(using=using, max_age=0)
            if not snapshot.index.match(intake.document, intake.endpoint_id):
                return None
        if intake.window:
            engine.fetch_all(event_rows.GIVE_KEY_BACK, intake.params | {"window": intake.window}, using=using)
        row = engine.fetch_one(event_rows.INSERT_EVENT, intake.params, using=using)
        if row is None:
            receipt = event_rows.repeat(intake.params, intake.sender, using=using)
            assert receipt is not None, "the event that the insert ran into has been committed"
            return receipt
        snapshot = catalog.at_version(row.version, using=using)
        found = intake.matched(snapshot)
        decided = intake.decide(intake.due(found))
        outcomes = decided.outcomes
        creation.start_many(decided.starts, now=intake.now, using=using)
        made = event_rows.activations(intake.event_id, outcomes, intake.now)
        if decided.full:  # batches that this event completes: what becomes of it is known only when they are started
            engine.fetch_all(event_rows.INSERT_ACTIVATIONS, made, using=using)
            activation.start_full(decided, now=intake.now, using=using)
        params = made | intake.noted(snapshot, found, outcomes)
        engine.fetch_all(
            event_rows.INSERT_DELIVERY if decided.full else event_rows.INSERT_BOTH,
            params | {"event": intake.event_id, "now": intake.now},
            using=using,
        )
    return intake.receipt(outcomes)


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
