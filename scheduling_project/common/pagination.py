"""Cursor pages. A module of its own: Django REST framework imports it while it imports its views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ValidationError
from django.db import DataError
from django.db.models import QuerySet
from rest_framework import exceptions
from rest_framework.pagination import BasePagination, CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from scheduling_project.common.errors import InvalidInput

if TYPE_CHECKING:
    from rest_framework.views import APIView

MAX_PAGE: Final = 500
ORDERING: Final = "ordering"
BY_AGE: Final[Mapping[str, str]] = {"created_at": "id"}


def orderings_of(view: Any) -> Mapping[str, str]:
    """By which members the present list can be ordered, and the column of each.

    A viewset names them per action in `orderings`; a list that it says nothing of is ordered by age. Keys are made in
    the order of time (UUIDv7, or counted), so its index gives both directions.
    """
    found: Mapping[str, str] = getattr(view, "orderings", {}).get(getattr(view, "action", None), BY_AGE)
    return found


def ordering_choices(view: Any) -> list[str]:
    """The values of ``ordering`` that the present list takes."""
    return [f"{sign}{name}" for name in orderings_of(view) for sign in ("", "-")]


class WholeList(BasePagination):
    """A list that is always whole, in the shape of a page."""

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return _page_schema(schema)

    @staticmethod
    def response(data: Any) -> Response:
        """The answer with all rows."""
        return Response({"results": data, "next": None, "previous": None})


def _page_schema(rows: dict[str, Any]) -> dict[str, Any]:
    link = {"type": ["string", "null"], "format": "uri"}
    return {
        "type": "object",
        "required": ["results", "next", "previous"],
        "properties": {"results": rows, "next": link, "previous": link},
    }


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
        """What the view says, or what the request asks for with ``ordering``; ties are broken by the key.

        Raises:
            InvalidInput: the list cannot be ordered so.
        """
        wanted = request.query_params.get(ORDERING)
        if wanted is None:
            ordering = getattr(view, "cursor_ordering", self.ordering)
            return (ordering,) if isinstance(ordering, str) else tuple(ordering)
        if wanted not in ordering_choices(view):
            raise InvalidInput(fields={ORDERING: [f"must be one of {', '.join(ordering_choices(view))}"]})
        sign, name = ("-", wanted[1:]) if wanted.startswith("-") else ("", wanted)
        column = orderings_of(view)[name]
        return (f"{sign}{column}",) if column in {"id", "pk"} else (f"{sign}{column}", f"{sign}pk")

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
        return _page_schema(schema)

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        for parameter in parameters:
            if parameter["name"] == self.page_size_query_param:
                parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": self.page_size}
        choices = ordering_choices(view)
        if choices:
            text = "By which member; with `-` the largest or latest first."
            schema = {"type": "string", "enum": choices}
            parameters.append(
                {"name": ORDERING, "in": "query", "required": False, "description": text, "schema": schema}
            )
        return parameters
