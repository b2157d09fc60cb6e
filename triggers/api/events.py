"""`/api/events`: the inbox; `/api/event-types`: what is known of their types."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution.api.idempotent import idempotent
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.parsers import StrictJSONParser
from scheduling_project.common.permissions import PUBLISH
from triggers import cloudevents, event_types, ingest, inspection, lifecycle, replay
from triggers.api.filters import EventFilter, by_type
from triggers.api.serializers import (
    EventSerializer,
    EventSummarySerializer,
    EventTypeSerializer,
    PublishSerializer,
    ReceiptSerializer,
    ReplayedSerializer,
    ReplayRangeSerializer,
    ReplaySerializer,
    VerdictSerializer,
)
from triggers.arrivals import Sender
from triggers.catalog import Key
from triggers.models import Event, EventType


class CloudEventParser(StrictJSONParser):
    """A CloudEvent in JSON format."""

    media_type = cloudevents.STRUCTURED


class EventViewSet(ResourceViewSet):
    """The inbox: everything that arrived, unchanged."""

    action_verbs = {"create": PUBLISH, "replay": PUBLISH, "replay_range": PUBLISH}
    queryset = Event.objects.all()
    orderings = {"list": {"received_at": "id"}}
    serializer_class = EventSerializer
    filterset_class = EventFilter
    parser_classes = [StrictJSONParser, CloudEventParser]
    lookup_url_kwarg = "id"
    lookup_value_converter = "uuid"
    lookup_value_regex = "[0-9a-fA-F-]{36}"

    def get_queryset(self) -> Any:
        events = Event.objects.defer("raw")
        if self.action == "list":
            return events.defer("raw", "data", "headers")
        return events.prefetch_related("activations__trigger", "activations__event")

    @extend_schema(responses=EventSummarySerializer(many=True))
    def list(self, request: Request) -> Response:
        """All events, the newest first."""
        return self.page(self.filter_queryset(self.get_queryset()), EventSummarySerializer)

    @extend_schema(request=PublishSerializer, responses={200: ReceiptSerializer, 202: ReceiptSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Publish an event, in this shape or as a CloudEvent of version 1.0 in JSON format."""
        values = self._cloud_event() if "specversion" in _members(request.data) else self.body(PublishSerializer)
        event_types.check(values["type"], values["data"])
        arrival = ingest.internal(**values)
        receipt = ingest.ingest(arrival, sender=sender_of(request, self.actor))
        assert receipt is not None
        shown = ReceiptSerializer(receipt).data
        return Response(shown, status=200 if receipt.duplicate else 202)

    def _cloud_event(self) -> dict[str, Any]:
        event = cloudevents.structured(self.request.data)
        if event.binary is not None:
            raise InvalidInput(fields={"data_base64": ["is not taken here; send data"]})
        names = ("type", "source", "subject", "id", "time", "data", "extensions")
        return {name: getattr(event, name) for name in names}

    def retrieve(self, request: Request, id: str) -> Response:
        """One event with what triggers made of it."""
        return Response(EventSerializer(self.get_object()).data)

    @extend_schema(request=ReplaySerializer, responses={202: ReceiptSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def replay(self, request: Request, id: str) -> Response:
        """Let the triggers of today have it again: a new event, new executions."""
        chosen = self.body(ReplaySerializer)["triggers"]
        receipt = replay.replay(self.get_object(), actor=self.actor, trigger_ids=chosen)
        return Response(ReceiptSerializer(receipt).data, status=202)

    @extend_schema(
        operation_id="events_replay_range", request=ReplayRangeSerializer, responses={202: ReplayedSerializer}
    )
    @action(detail=False, methods=["post"], url_path="replay", filterset_class=None, pagination_class=None)
    @idempotent
    def replay_range(self, request: Request) -> Response:
        """Replay all events of a range of time, oldest first."""
        values = self.body(ReplayRangeSerializer)
        events = Event.objects.filter(
            received_at__gte=values["after"], received_at__lt=values["before"], replay_of__isnull=True
        )
        if values.get("type"):
            events = by_type(events, "type", values["type"])
        endpoint = lifecycle.find_endpoint(values["endpoint"])
        if endpoint is not None:
            events = events.filter(endpoint=endpoint)
        receipts = replay.replay_many(events, actor=self.actor, trigger_ids=values["triggers"])
        return Response(ReplayedSerializer({"replayed": len(receipts), "results": receipts}).data, status=202)

    @extend_schema(responses=VerdictSerializer(many=True))
    @action(detail=True, filterset_class=None, pagination_class=None)
    def verdicts(self, request: Request, id: str) -> Response:
        """What the triggers of today say to it."""
        return Response(VerdictSerializer(inspection.verdicts_now(self.get_object()), many=True).data)


class EventTypeViewSet(ResourceViewSet):
    """Types of events that somebody has described. A type is addressed by its name."""

    tagged = ("updated_at",)
    queryset = EventType.objects.all()
    orderings = {"list": {"name": "name", "created_at": "id", "updated_at": "updated_at"}}
    serializer_class = EventTypeSerializer
    lookup_field = "name"
    lookup_value_regex = "[^/]+"

    @extend_schema(responses=EventTypeSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All described types by name."""
        return self.page(self.get_queryset(), EventTypeSerializer, ordering="name")

    @extend_schema(responses={201: EventTypeSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Describe a type."""
        made = event_types.register(actor=self.actor, **self.body(EventTypeSerializer))
        return Response(EventTypeSerializer(made).data, status=201)

    def retrieve(self, request: Request, name: str) -> Response:
        """One type."""
        return Response(EventTypeSerializer(self.get_object()).data)

    def partial_update(self, request: Request, name: str) -> Response:
        """Change some of what is said of a type."""
        values = self.body(EventTypeSerializer, partial=True)
        return Response(EventTypeSerializer(event_types.change(self.get_object(), values, actor=self.actor)).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, name: str) -> Response:
        """Forget what was said of a type; its events stay."""
        event_types.forget(self.get_object(), actor=self.actor)
        return Response(status=204)


def sender_of(request: Request, actor: str) -> Sender:
    """Who publishes, as triggers' `authentication` asks for it."""
    if isinstance(request.auth, Key):
        return Sender(actor, "api_key", request.auth.prefix, request.auth.scopes)
    return Sender(actor, "user")


def _members(data: Any) -> Any:
    return data if isinstance(data, dict) else ()
