"""`/api/api-keys`: credentials for machines."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.permissions import MANAGE
from triggers.api.serializers import ApiKeySerializer, CreatedApiKeySerializer
from triggers.auth import keys
from triggers.models import ApiKey


class ApiKeyViewSet(ResourceViewSet):
    """API keys. Only who handles keys (the role admin) sees them, then everybody's."""

    action_verbs = dict.fromkeys(("list", "retrieve", "create", "destroy"), MANAGE)
    tagged = ("revoked_at", "expires_at")
    queryset = ApiKey.objects.all()
    orderings = {"list": {"created_at": "id", "name": "name"}}
    serializer_class = ApiKeySerializer
    lookup_url_kwarg = "id"
    lookup_value_converter = "uuid"
    lookup_value_regex = "[0-9a-fA-F-]{36}"

    def get_queryset(self) -> Any:
        return ApiKey.objects.select_related("user")

    @extend_schema(responses=ApiKeySerializer(many=True))
    def list(self, request: Request) -> Response:
        """All keys, the newest first."""
        return self.page(self.get_queryset(), ApiKeySerializer)

    @extend_schema(responses={201: CreatedApiKeySerializer})
    def create(self, request: Request) -> Response:
        """A new key for oneself. Its text is in this answer and nowhere else, so a repeat makes another."""
        values = self.body(ApiKeySerializer)
        key, text = keys.create(values.pop("name"), user=request.user, actor=self.actor, **values)  # type: ignore[arg-type]
        shown = {**ApiKeySerializer(key).data, "key": text}
        return Response(shown, status=201, headers={"Location": f"/api/api-keys/{key.pk}"})

    def retrieve(self, request: Request, id: str) -> Response:
        """One key, without its text."""
        return Response(ApiKeySerializer(self.get_object()).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Revoke a key; it stays in the list."""
        keys.revoke(self.get_object(), actor=self.actor)
        return Response(status=204)
