"""Events once more: a new event that names its original, new activations, new executions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from uuid import UUID

from django.db.models import QuerySet

from execution import audit, engine
from scheduling_project.common.errors import Conflict
from triggers import catalog, ingest
from triggers.activation import arrival_of
from triggers.arrivals import Arrival, Sender
from triggers.catalog import Endpoint
from triggers.event_rows import Receipt
from triggers.models import Event, Trigger

MAX_RANGE: Final = 1_000


def replay(event: Event, *, actor: str, trigger_ids: Iterable[UUID] | None = None, using: str = "default") -> Receipt:
    """Let the triggers of today (or these of them) have a stored event again.

    Whoever replays vouches for the sender: triggers' `authentication` is not asked.
    """
    only = None if trigger_ids is None else frozenset(trigger_ids)
    with engine.transaction(using=using):
        receipt = _replay(event, actor=actor, only=only, using=using)
        audit.record(
            actor=actor,
            action="event.replay",
            subject_kind="event",
            subject_id=event.pk,
            subject_label=event.type,
            changes={"event": {"before": str(event.pk), "after": str(receipt.event_id)}},
            using=using,
        )
    return receipt


def deliver_to(trigger: Trigger, arrival: Arrival, *, actor: str, using: str = "default") -> Receipt:
    """Store an event of an operator's making and let one trigger have it, as if its endpoint had received it."""
    endpoint = None
    if trigger.endpoint_id is not None:
        found = catalog.current(using=using).endpoints.values()
        endpoint = next((one for one in found if one.id == trigger.endpoint_id), None)
    receipt = ingest.ingest(
        arrival,
        sender=Sender(actor, trusted=True),
        endpoint=endpoint,
        only=frozenset({trigger.pk}),
        using=using,
    )
    assert receipt is not None
    return receipt


def replay_many(
    events: QuerySet[Event], *, actor: str, trigger_ids: Iterable[UUID] | None = None, using: str = "default"
) -> list[Receipt]:
    """Replay a selection, oldest first, each in its own transaction.

    Raises:
        Conflict: there are more than `MAX_RANGE`.
    """
    chosen = list(events.using(using).order_by("pk")[: MAX_RANGE + 1])
    if len(chosen) > MAX_RANGE:
        raise Conflict(f"More than {MAX_RANGE} events fit; narrow the range.")
    only = None if trigger_ids is None else frozenset(trigger_ids)
    receipts = [_replay(event, actor=actor, only=only, using=using) for event in chosen]
    audit.record(
        actor=actor,
        action="event.replay_range",
        subject_kind="event",
        subject_id="range",
        note=f"{len(receipts)} events",
        using=using,
    )
    return receipts


def endpoint_of(event: Event, *, using: str = "default") -> Endpoint | None:
    """The endpoint that an event came to, as the catalog has it."""
    if event.endpoint_id is None:
        return None
    found = catalog.current(using=using).endpoints.values()
    return next((endpoint for endpoint in found if endpoint.id == event.endpoint_id), None)


def _replay(event: Event, *, actor: str, only: frozenset[UUID] | None, using: str) -> Receipt:
    arrival = replace(arrival_of(event), replay_of=event.pk, depth=0, cause=None)
    receipt = ingest.ingest(
        arrival,
        sender=Sender(actor, trusted=True),
        endpoint=endpoint_of(event, using=using),
        only=only,
        using=using,
    )
    assert receipt is not None
    return receipt
