"""What every endpoint shares: serializers that know their fields, entity tags, optional slashes, the actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.viewsets import GenericViewSet

from scheduling_project.common import queries
from scheduling_project.common.preconditions import Preconditions


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer that refuses members it does not know. Read-only ones may be sent back and are ignored."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise serializers.ValidationError({"non_field_errors": ["must be an object"]})
        unknown = {str(name): ["is not a known field"] for name in data if name not in self.fields}
        try:
            values: dict[str, Any] = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if unknown and isinstance(error.detail, dict):
                raise serializers.ValidationError({**error.detail, **unknown}) from None
            raise
        if unknown:
            raise serializers.ValidationError(unknown)
        return values


class OptionalSlashRouter(SimpleRouter):
    """Every route with and without its last slash; ids may hold dots (names do)."""

    def __init__(self) -> None:
        super().__init__(trailing_slash=False)
        self.trailing_slash = "/?"

    def get_lookup_regex(self, viewset: Any, lookup_prefix: str = "") -> str:
        if not hasattr(viewset, "lookup_value_regex"):
            viewset.lookup_value_regex = "[^/]+"
        return str(super().get_lookup_regex(viewset, lookup_prefix))


def actor_of(request: Request) -> str:
    """Who does it, for the audit trail: what the credential says of itself, or the user's name."""
    named = getattr(request.auth, "actor", None)
    return str(named) if named else str(request.user.get_username())


class ResourceViewSet(Preconditions, GenericViewSet[Any]):
    """A resource: reads by queryset, verbs by domain functions.

    `action_verbs` names what each action needs that `permissions.USUAL` does not know; `subject` (``app.model``) what
    the resource is about where no queryset says it.
    """

    action_verbs: ClassVar[Mapping[str, str]] = {}
    #: Per action that lists: the members that it can be ordered by, and the column of each (`common.pagination`).
    orderings: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    subject: ClassVar[str] = ""
    serializer_class: Any = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        queries.check(request, self)
        self.guard(request)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Answers are for whoever asked: no cache may keep them. They tell what is left of the rate."""
        self.tag_answer(response)
        if response.status_code == 200 and queries.FIELDS in request.query_params and request.method in {"GET", "HEAD"}:
            response.data = queries.sparse(response.data, queries.wanted_fields(request) or frozenset())
        response.headers.setdefault("Cache-Control", "no-store")
        for name, value in getattr(request, "rate_headers", {}).items():
            response.headers.setdefault(name, value)
        return super().finalize_response(request, response, *args, **kwargs)

    @property
    def actor(self) -> str:
        """Who asks, for the audit trail."""
        return actor_of(self.request)

    def body(self, serializer: type[serializers.Serializer[Any]], *, partial: bool = False) -> dict[str, Any]:
        """The request's body in the shape of `serializer`.

        Raises:
            ValidationError: naming each field that is wrong.
        """
        checked = serializer(data=self.request.data, partial=partial, context=self.get_serializer_context())
        checked.is_valid(raise_exception=True)
        return dict(checked.validated_data)

    def page(
        self,
        queryset: QuerySet[Any],
        serializer: type[serializers.Serializer[Any]],
        *,
        ordering: str | Sequence[str] = "-id",
    ) -> Response:
        """One page of a queryset."""
        self.cursor_ordering = ordering
        rows = self.paginate_queryset(queryset)
        return self.get_paginated_response(serializer(rows, many=True, context=self.get_serializer_context()).data)
