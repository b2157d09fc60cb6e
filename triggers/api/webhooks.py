"""`/api/webhooks`: endpoints, their secrets and what was delivered to them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution.api.idempotent import idempotent
from execution.api.serializers import NoteSerializer
from scheduling_project.common import clock
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.permissions import CHANGE, MANAGE, RUN
from scheduling_project.common.preconditions import REVISION
from triggers import endpoints, inspection, lifecycle, self_delivery
from triggers.api.filters import DeliveryFilter, WebhookFilter
from triggers.api.serializers import (
    CreatedWebhookSerializer,
    DeliverySerializer,
    RotateSerializer,
    TestDeliverySerializer,
    TestedDeliverySerializer,
    WebhookCreateSerializer,
    WebhookSerializer,
    WebhookStatsSerializer,
)
from triggers.api.windows import WINDOW, window_of
from triggers.auth.rest import address_of
from triggers.models import Delivery, WebhookEndpoint

ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="Id or slug of the endpoint.")
SECRET = OpenApiParameter("secret", OpenApiTypes.UUID, OpenApiParameter.PATH, description="Id of the secret.")
_OF_TRIGGER = ("events", "filters", "input", "retry_policy")


class WebhookViewSet(ResourceViewSet):
    """Addresses where senders deliver events. An endpoint is addressed by its id or its slug."""

    action_verbs = {"test": RUN, "retire": CHANGE, "rotate": MANAGE, "end_secret": MANAGE}
    tagged = REVISION
    queryset = WebhookEndpoint.objects.prefetch_related("secrets")
    orderings = {
        "list": {"slug": "slug", "created_at": "id"},
        "deliveries": {"received_at": "id"},
    }
    serializer_class = WebhookSerializer
    filterset_class = WebhookFilter
    lookup_url_kwarg = "id"
    lookup_value_regex = "[^/]+"

    def get_object(self) -> WebhookEndpoint:
        known: QuerySet[WebhookEndpoint] = self.get_queryset()
        text = self.kwargs["id"].replace("\0", "")
        try:
            found = known.filter(pk=UUID(text)).first()
        except ValueError:
            found = None
        found = found or known.filter(slug=text).first()
        if found is None:
            raise Http404
        self.check_object_permissions(self.request, found)
        return found

    @extend_schema(responses=WebhookSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All endpoints by slug."""
        return self.page(self.filter_queryset(self.get_queryset()), WebhookSerializer, ordering="slug")

    @extend_schema(request=WebhookCreateSerializer, responses={201: CreatedWebhookSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Create an endpoint with its secret; with `workflow` also a trigger on its events."""
        values = self.body(WebhookCreateSerializer)
        slug, secret, workflow = values.pop("slug"), values.pop("secret", None), values.pop("workflow", None)
        of_trigger = {name: values.pop(name) for name in _OF_TRIGGER if name in values}
        if workflow is None:
            made = endpoints.create(slug, actor=self.actor, secret=secret, **values)
            return self._created(made.endpoint, made.secret, None)
        both = lifecycle.subscribe(
            slug, workflow=workflow, actor=self.actor, secret=secret, endpoint_values=values, **of_trigger
        )
        return self._created(both.endpoint, both.secret, str(both.trigger.pk))

    def _created(self, endpoint: WebhookEndpoint, secret: str, trigger: str | None) -> Response:
        location = {"Location": f"/api/webhooks/{endpoint.pk}"}
        shown = {**self._shown(endpoint), "secret": secret, "trigger": trigger}
        return Response(shown, status=201, headers=location)

    @extend_schema(parameters=[ID], responses=WebhookSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One endpoint."""
        return Response(self._shown(self.get_object()))

    @extend_schema(parameters=[ID], responses=WebhookSerializer)
    def update(self, request: Request, id: str, *, partial: bool = False) -> Response:
        """Change an endpoint. `If-Match` guards against others' changes."""
        values = self.body(WebhookSerializer, partial=partial)
        endpoint = endpoints.update(self.get_object(), values, actor=self.actor)
        return Response(self._shown(endpoint))

    @extend_schema(parameters=[ID], responses=WebhookSerializer)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change some fields of an endpoint."""
        return self.update(request, id, partial=True)

    @extend_schema(parameters=[ID], responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete an endpoint that has neither events nor triggers."""
        endpoints.delete(self.get_object(), actor=self.actor)
        return Response(status=204)

    @extend_schema(parameters=[ID], request=NoteSerializer, responses=WebhookSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Answer 503, so that senders deliver later."""
        note = self.body(NoteSerializer)["note"]
        return Response(self._shown(endpoints.pause(self.get_object(), actor=self.actor, note=note)))

    @extend_schema(parameters=[ID], request=None, responses=WebhookSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Take deliveries again."""
        return Response(self._shown(endpoints.resume(self.get_object(), actor=self.actor)))

    @extend_schema(parameters=[ID], request=NoteSerializer, responses=WebhookSerializer)
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, id: str) -> Response:
        """Answer 410 for good."""
        note = self.body(NoteSerializer)["note"]
        return Response(self._shown(endpoints.retire(self.get_object(), actor=self.actor, note=note)))

    @extend_schema(parameters=[ID], request=RotateSerializer, responses=CreatedWebhookSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def rotate(self, request: Request, id: str) -> Response:
        """A new secret; the present ones stay valid for `overlap` seconds."""
        made = endpoints.rotate(self.get_object(), actor=self.actor, **self.body(RotateSerializer))
        return Response({**self._shown(made.endpoint), "secret": made.secret, "trigger": None})

    @extend_schema(parameters=[ID, SECRET], responses={204: None})
    @action(detail=True, methods=["delete"], url_path=r"secrets/(?P<secret>[0-9a-fA-F-]{36})")
    def end_secret(self, request: Request, id: str, secret: str) -> Response:
        """End one secret before its overlap has passed."""
        try:
            secret_id = UUID(secret)
        except ValueError:
            raise Http404 from None
        endpoints.end_secret(self.get_object(), secret_id, actor=self.actor)
        return Response(status=204)

    @extend_schema(parameters=[ID], request=TestDeliverySerializer, responses=TestedDeliverySerializer)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, id: str) -> Response:
        """Deliver to it as its sender would: signed by the server, through the same door. It really happens."""
        values = self.body(TestDeliverySerializer)
        sent = self_delivery.send(
            self.get_object(),
            values["body"],
            headers=values["headers"],
            delivery_id=values["delivery_id"],
            address=address_of(request.META),
        )
        headers = _hidden(sent.headers)
        shown = {"status": sent.reply.status, "body": sent.reply.body, "headers": headers}
        return Response(TestedDeliverySerializer(shown).data)

    @extend_schema(parameters=[ID], responses=DeliverySerializer(many=True))
    @action(detail=True, filterset_class=DeliveryFilter)
    def deliveries(self, request: Request, id: str) -> Response:
        """What was delivered, the newest first, with each trigger's verdict."""
        queryset = Delivery.objects.filter(endpoint=self.get_object())
        return self.page(self.filter_queryset(queryset), DeliverySerializer)

    @extend_schema(parameters=[ID, WINDOW], responses=WebhookStatsSerializer)
    @action(detail=True)
    def stats(self, request: Request, id: str) -> Response:
        """What came within the last hours, by outcome."""
        stats = inspection.endpoint_stats_of(self.get_object(), now=clock.now(), window=window_of(request))
        return Response(WebhookStatsSerializer(stats).data)

    def _shown(self, endpoint: WebhookEndpoint) -> dict[str, Any]:
        fresh = WebhookEndpoint.objects.prefetch_related("secrets").get(pk=endpoint.pk)
        return dict(WebhookSerializer(fresh, context=self.get_serializer_context()).data)


def _hidden(headers: dict[str, str]) -> dict[str, str]:
    """The headers of a test, without those that are a secret as they stand."""
    secret = {"authorization", "x-api-key", "x-gitlab-token"}
    return {name: "[secret]" if name in secret else value for name, value in headers.items()}
