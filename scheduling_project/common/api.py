"""What every endpoint shares: a strict parser, cursor pages, serializers that know their fields, optional slashes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import IO, Any, ClassVar, Final

from django.core.exceptions import ValidationError
from django.db import DataError
from django.db.models import Model, QuerySet
from rest_framework import exceptions, serializers
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView

from scheduling_project.common import json_values
from scheduling_project.common.errors import InvalidInput, StaleVersion

MAX_PAGE: Final = 500
_ETAG: Final = re.compile(r'(?:W/)?"([0-9]{1,10})"')


class StrictJSONParser(BaseParser):
    """JSON that can be kept (`json_values.parse`); anything else is answered with 400, naming what is wrong."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        content = stream.read()
        if not content.strip():
            return {}
        try:
            return json_values.parse(content)
        except json_values.JSONProblem as error:
            if error.path:
                raise InvalidInput("The body cannot be kept.", fields={error.path: [error.rule]}) from None
            raise exceptions.ParseError(f"The body {error.rule}.") from None


class NewestFirstPagination(CursorPagination):
    """Pages that stay right while rows come in: ``{"results": […], "next": url or null, "previous": …}``.

    A view orders by its ``cursor_ordering`` (newest first where it has none). ``limit`` (also ``page_size``) asks
    for a page of up to 500.
    """

    page_size = 50
    max_page_size = MAX_PAGE
    page_size_query_param = "limit"
    ordering = "-id"
    cursor_query_description = "Where to go on; part of `next` and `previous`."
    page_size_query_description = f"How many at most, 1 to {MAX_PAGE}; 50 when left out."

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: APIView) -> tuple[str, ...]:
        ordering = getattr(view, "cursor_ordering", self.ordering)
        return (ordering,) if isinstance(ordering, str) else tuple(ordering)

    def get_page_size(self, request: Request) -> int:
        text = request.query_params.get("limit", request.query_params.get("page_size", str(self.page_size)))
        if not text.isdecimal() or len(text) > 6 or not 1 <= int(text) <= MAX_PAGE:
            raise InvalidInput(fields={"limit": [f"must be a whole number from 1 to {MAX_PAGE}"]})
        return int(text)

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any] | None:
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValidationError, ValueError, DataError, exceptions.NotFound):
            # A cursor that was cut, forged or made for another list.
            raise InvalidInput(fields={"cursor": ["is not one that this list gave out"]}) from None

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"results": data, "next": self.get_next_link(), "previous": self.get_previous_link()})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["results", "next", "previous"],
            "properties": {"results": schema, "next": link, "previous": link},
        }


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


class RevisionMixin:
    """ETag on what a detail route answers, If-Match on what it is asked to change. The revision is the tag."""

    revision_field: ClassVar[str] = "revision"

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        data = getattr(response, "data", None)
        if response.status_code < 300 and isinstance(data, Mapping) and self.revision_field in data:
            response["ETag"] = f'"{data[self.revision_field]}"'
        final: Response = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        return final


def expected_revision(request: Request) -> int | None:
    """The revision that ``If-Match`` demands, None without the header or for ``*``.

    Raises:
        StaleVersion: the header names something that cannot be a revision of ours.
    """
    header = request.headers.get("If-Match", "").strip()
    if header in {"", "*"}:
        return None
    match = _ETAG.fullmatch(header)
    if match is None:
        raise StaleVersion("If-Match does not hold the ETag of this resource.")
    return int(match.group(1))


def check_revision(request: Request, instance: Model, *, field: str = "revision") -> None:
    """Refuse when ``If-Match`` names another revision than `instance` has.

    Raises:
        StaleVersion: it does.
    """
    expected = expected_revision(request)
    if expected is not None and expected != getattr(instance, field):
        raise StaleVersion(revision=getattr(instance, field))


def actor_of(request: Request) -> str:
    """Who does it, for the audit trail: what the credential says of itself, or the user's name."""
    named = getattr(request.auth, "actor", None)
    return str(named) if named else str(request.user.get_username())
