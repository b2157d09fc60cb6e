"""Events, what triggers made of them, and what came to the door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from execution import audit
from execution.admin import shown
from execution.admin.base import Confirmation, Done, ReadOnlyAdmin, Verb, WithNote
from execution.expressions import ExpressionError
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict
from triggers import activation as activations
from triggers import replay
from triggers.admin.parts import activations_table, deliveries_table, json_block
from triggers.models import Activation, Delivery, Event
from triggers.states import ActivationState

MOST_RAW: Final = 20_000


def _replay(event: Event, values: Mapping[str, Any], actor: str) -> Done:
    receipt = replay.replay(event, actor=actor)
    message = f"Replayed as a new event; {len(receipt.execution_ids)} execution(s) started."
    return Done(message, shown.address(Event, receipt.event_id))


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    verbs = (
        Verb[Event](
            name="replay",
            label="Replay",
            icon="replay",
            permission="triggers.publish_event",
            perform=_replay,
            form=Confirmation,
            many=True,
            explanation="The triggers of today get it again, as a new event: new executions start.",
        ),
    )
    list_display = ("shown_type", "source", "subject", "shown_endpoint", "producer", "received")
    search_fields = ("type", "subject", "delivery_id")
    ordering = ("-pk",)
    empty_text = "No event yet."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        found: QuerySet[Event] = super().get_queryset(request)
        return found.select_related("endpoint").defer("raw", "data")

    @admin.display(description="Event")
    def shown_type(self, event: Event) -> SafeString:
        return format_html('<a class="sp-link sp-strong" href="{}">{}</a>', shown.page_of(event), event.type)

    @admin.display(description="Endpoint")
    def shown_endpoint(self, event: Event) -> SafeString:
        return shown.link(event.endpoint)

    @admin.display(description="Received")
    def received(self, event: Event) -> SafeString:
        return shown.instant(event.received_at, relative=True)

    def detail(self, request: HttpRequest, event: Event) -> dict[str, Any]:
        made = Activation.objects.filter(event=event).select_related("trigger", "event", "execution").order_by("pk")
        deliveries = Delivery.objects.filter(event=event).select_related("event").order_by("-pk")[:20]
        raw = bytes(event.raw)[:MOST_RAW].decode("utf-8", "replace")
        return {
            "facts": [
                ("Type", event.type),
                ("Source", event.source),
                ("Subject", event.subject or shown.NOTHING),
                ("Time", shown.instant(event.time)),
                ("Received", shown.instant(event.received_at)),
                ("Endpoint", shown.link(event.endpoint)),
                ("Producer", event.producer),
                ("Delivery id", event.delivery_id or shown.NOTHING),
                ("Replay of", shown.link(event.replay_of)),
                ("Caused by execution", event.cause or shown.NOTHING),
                ("Depth", event.depth),
                ("Data", json_block(event.data)),
                ("Extensions", json_block(event.extensions)),
                ("Headers", json_block(event.headers)),
                ("Body", format_html('<pre class="sp-code">{}</pre>', raw) if raw else shown.NOTHING),
            ],
            "tables": [
                ("Activations", activations_table(list(made))),
                ("Deliveries", deliveries_table(list(deliveries))),
            ],
        }


def _retry(activation: Activation, values: Mapping[str, Any], actor: str) -> Done:
    try:
        done = activations.retry(activation.pk, now=clock.now())
    except ExpressionError as error:
        raise Conflict(f"It fails again: {error}") from None
    _audit(done, "retry", actor)
    return Done("Started.")


def _discard(activation: Activation, values: Mapping[str, Any], actor: str) -> Done:
    done = activations.discard(activation.pk, note=values["note"], now=clock.now())
    _audit(done, "discard", actor, values["note"])
    return Done("Discarded.")


def _audit(activation: Activation, verb: str, actor: str, note: str = "") -> None:
    audit.record(
        actor=actor,
        action=f"activation.{verb}",
        subject_kind="activation",
        subject_id=activation.pk,
        subject_label=activation.trigger.name,
        note=note,
    )


def _has_failed(activation: Activation) -> bool:
    return activation.state == ActivationState.FAILED


@admin.register(Activation)
class ActivationAdmin(ReadOnlyAdmin):
    verbs = (
        Verb[Activation](
            name="retry",
            label="Try again",
            permission="triggers.redrive_activation",
            perform=_retry,
            primary=True,
            many=True,
            explanation="With the trigger and the workflow as they are now.",
            available=_has_failed,
        ),
        Verb[Activation](
            name="discard",
            label="Discard",
            icon="delete",
            permission="triggers.redrive_activation",
            perform=_discard,
            form=WithNote,
            many=True,
            danger=True,
            available=_has_failed,
        ),
    )
    chips_field = "state"
    list_display = ("shown_id", "shown_trigger", "shown_event", "shown_state", "shown_execution", "reason", "created")
    ordering = ("-pk",)
    list_filter = ()
    empty_text = "No event has matched a trigger yet."

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "state__exact" or bool(super().lookup_allowed(lookup, value, request))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Activation]:
        found: QuerySet[Activation] = super().get_queryset(request)
        return found.select_related("trigger", "event", "execution").defer("event__raw", "event__data")

    @admin.display(description="Activation")
    def shown_id(self, activation: Activation) -> SafeString:
        return shown.link(activation, shown.short_id(activation.pk))

    @admin.display(description="Trigger")
    def shown_trigger(self, activation: Activation) -> SafeString:
        return shown.link(activation.trigger, activation.trigger.name)

    @admin.display(description="Event")
    def shown_event(self, activation: Activation) -> SafeString:
        return shown.link(activation.event, activation.event.type)

    @admin.display(description="State")
    def shown_state(self, activation: Activation) -> SafeString:
        return shown.badge(activation.state, activation.get_state_display())

    @admin.display(description="Execution")
    def shown_execution(self, activation: Activation) -> SafeString:
        return shown.link(activation.execution, shown.short_id(activation.execution_id))

    @admin.display(description="When")
    def created(self, activation: Activation) -> SafeString:
        return shown.instant(activation.created_at, relative=True)

    def detail(self, request: HttpRequest, activation: Activation) -> dict[str, Any]:
        return {
            "facts": [
                ("State", self.shown_state(activation)),
                ("Reason", activation.reason or shown.NOTHING),
                ("Trigger", self.shown_trigger(activation)),
                ("Event", self.shown_event(activation)),
                ("Execution", self.shown_execution(activation)),
                ("Created", shown.instant(activation.created_at)),
                ("Changed", shown.instant(activation.updated_at)),
            ]
        }


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """What came to the doors. Refusals are a sample."""

    chips_field = "outcome"
    list_display = ("received", "shown_endpoint", "shown_outcome", "status", "sender", "shown_event", "triggers_said")
    ordering = ("-pk",)
    empty_text = "Nothing was delivered yet."

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "outcome__exact" or bool(super().lookup_allowed(lookup, value, request))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        found: QuerySet[Delivery] = super().get_queryset(request)
        return found.select_related("endpoint", "event").defer("event__raw", "event__data")

    @admin.display(description="Received")
    def received(self, delivery: Delivery) -> SafeString:
        text = shown.instant(delivery.received_at, relative=True)
        return format_html('<a class="sp-link" href="{}">{}</a>', shown.page_of(delivery), text)

    @admin.display(description="Endpoint")
    def shown_endpoint(self, delivery: Delivery) -> SafeString:
        return shown.link(delivery.endpoint)

    @admin.display(description="Outcome")
    def shown_outcome(self, delivery: Delivery) -> SafeString:
        return shown.badge(delivery.outcome, delivery.get_outcome_display(), title=delivery.reason)

    @admin.display(description="Event")
    def shown_event(self, delivery: Delivery) -> SafeString:
        return shown.link(delivery.event, delivery.event.type if delivery.event else "")

    @admin.display(description="Triggers said")
    def triggers_said(self, delivery: Delivery) -> str:
        return (delivery.said or delivery.reason)[:200]

    def detail(self, request: HttpRequest, delivery: Delivery) -> dict[str, Any]:
        return {
            "facts": [
                ("Outcome", self.shown_outcome(delivery)),
                ("Status", delivery.status),
                ("Reason", delivery.reason or shown.NOTHING),
                ("Endpoint", self.shown_endpoint(delivery)),
                ("Event", self.shown_event(delivery)),
                ("From", delivery.sender),
                ("Size", f"{delivery.size:,} bytes"),
                ("Took", "–" if delivery.duration_ms is None else f"{delivery.duration_ms:.1f} ms"),
                ("Received", shown.instant(delivery.received_at)),
                ("Triggers said", json_block(delivery.verdicts)),
            ]
        }
