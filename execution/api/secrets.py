"""`/api/secrets`: names of the secrets that steps may refer to. Values go in and never come out."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from execution import secret_store
from execution.api.serializers.common import READ
from execution.models import Secret
from execution.redaction import SHORTEST
from scheduling_project.common.api import ResourceViewSet, StrictSerializer
from scheduling_project.common.fields import TextField
from scheduling_project.common.permissions import MANAGE

NAME = OpenApiParameter("name", str, OpenApiParameter.PATH, description="Name of the secret.")


class StepSecretSerializer(StrictSerializer):
    """A secret: its name, never its value."""

    name = serializers.CharField(**READ)
    value = TextField(write_only=True, min_length=SHORTEST, max_length=secret_store.LONGEST)
    note = TextField(required=False, allow_blank=True, max_length=500, default="")
    created_at = serializers.DateTimeField(**READ)
    updated_at = serializers.DateTimeField(**READ)
    updated_by = serializers.CharField(**READ)


class SecretViewSet(ResourceViewSet):
    """Secrets by name. Only who handles keys (the role admin) sees even the names."""

    action_verbs = dict.fromkeys(("list", "retrieve", "update", "destroy"), MANAGE)
    tagged = ("updated_at",)
    queryset = Secret.objects.all()
    orderings = {"list": {"name": "name", "updated_at": "updated_at"}}
    serializer_class = StepSecretSerializer
    lookup_field = "name"
    lookup_value_regex = "[^/]+"

    @extend_schema(responses=StepSecretSerializer(many=True))
    def list(self, request: Request) -> Response:
        """The names of all secrets."""
        return self.page(self.get_queryset(), StepSecretSerializer, ordering="name")

    @extend_schema(parameters=[NAME], responses=StepSecretSerializer)
    def retrieve(self, request: Request, name: str) -> Response:
        """What is known of a secret, without its value."""
        return Response(StepSecretSerializer(self.get_object()).data)

    @extend_schema(parameters=[NAME], responses=StepSecretSerializer)
    def update(self, request: Request, name: str) -> Response:
        """Keep a secret under this name, or give it another value."""
        values = self.body(StepSecretSerializer)
        secret = secret_store.set_secret(name, values["value"], actor=self.actor, note=values["note"])
        return Response(StepSecretSerializer(secret).data)

    @extend_schema(parameters=[NAME], responses={204: None})
    def destroy(self, request: Request, name: str) -> Response:
        """Forget a secret."""
        secret_store.delete_secret(name.replace("\0", ""), actor=self.actor)
        return Response(status=204)
