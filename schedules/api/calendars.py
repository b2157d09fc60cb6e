"""`/api/calendars`: named sets of days that schedules share."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution.api.filters import AuditFilter
from execution.api.idempotent import idempotent
from execution.api.serializers import AuditEntrySerializer
from execution.models import AuditEntry
from schedules import shared_calendars
from schedules.api.serializers import CalendarAppliedSerializer, CalendarSerializer, ScheduleSerializer
from schedules.models import Calendar
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import NotFound
from scheduling_project.common.filters import StrictFilterSet
from scheduling_project.common.permissions import CHANGE
from scheduling_project.common.preconditions import REVISION


class CalendarFilter(StrictFilterSet):
    name = django_filters.CharFilter(max_length=200)
    search = django_filters.CharFilter(field_name="name", lookup_expr="icontains", max_length=200)
    kind = django_filters.CharFilter(method="by_kind", max_length=20)

    def by_kind(self, queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        """Holidays, dates, weekly, union …"""
        return queryset.filter(definition__kind=value)


class CalendarViewSet(ResourceViewSet):
    """Named sets of days. A schedule keeps the definition it was made with until it takes the present one."""

    action_verbs = {"apply": CHANGE}
    tagged = REVISION
    queryset = Calendar.objects.all()
    orderings = {"list": {"name": "name", "created_at": "id"}}
    serializer_class = CalendarSerializer
    filterset_class = CalendarFilter
    lookup_url_kwarg = "id"

    @extend_schema(responses=CalendarSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All calendars, the newest first."""
        return self.page(self.filter_queryset(self.get_queryset()), CalendarSerializer)

    @extend_schema(request=CalendarSerializer, responses={201: CalendarSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Make a calendar."""
        made = shared_calendars.create(actor=self.actor, **self.body(CalendarSerializer))
        return self._answer(made.pk, status=201)

    @extend_schema(responses=CalendarSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One calendar."""
        return self._answer(_id(id))

    @extend_schema(request=CalendarSerializer, responses=CalendarSerializer)
    def update(self, request: Request, id: str) -> Response:
        """Replace a calendar. Schedules keep the definition they were made with until it is applied."""
        return self._change(id, {"description": "", **self.body(CalendarSerializer)})

    @extend_schema(request=CalendarSerializer, responses=CalendarSerializer)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change some fields."""
        return self._change(id, self.body(CalendarSerializer, partial=True))

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a calendar that nothing uses."""
        shared_calendars.delete(_id(id), actor=self.actor)
        return Response(status=204)

    @extend_schema(request=None, responses=CalendarAppliedSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def apply(self, request: Request, id: str) -> Response:
        """Bring the present definition into all schedules that use it; what was due before fires as it was."""
        updated, refused = shared_calendars.apply(_id(id), actor=self.actor)
        return Response(CalendarAppliedSerializer({"updated": updated, "refused": refused}).data)

    @extend_schema(responses=ScheduleSerializer(many=True))
    @action(detail=True, filterset_class=None)
    def schedules(self, request: Request, id: str) -> Response:
        """The schedules that use it, the newest first."""
        calendar = shared_calendars.get(_id(id))
        users = shared_calendars.users_of(calendar.name).select_related("workflow", "version")
        return self.page(users, ScheduleSerializer)

    @extend_schema(responses=AuditEntrySerializer(many=True))
    @action(detail=True, filterset_class=AuditFilter)
    def audit(self, request: Request, id: str) -> Response:
        """Who did what to it; also after it was deleted."""
        queryset = AuditEntry.objects.filter(subject_kind="calendar", subject_id=str(_id(id)))
        return self.page(self.filter_queryset(queryset), AuditEntrySerializer)

    def tag_subject(self) -> Calendar:
        return shared_calendars.get(_id(self.kwargs["id"]))

    def _change(self, id: str, changes: dict[str, Any]) -> Response:
        shared_calendars.update(_id(id), changes, actor=self.actor)
        return self._answer(_id(id))

    def _answer(self, calendar_id: int, *, status: int = 200) -> Response:
        shown = CalendarSerializer(shared_calendars.get(calendar_id)).data
        headers = {"Location": f"/api/calendars/{calendar_id}"} if status == 201 else None
        return Response(shown, status=status, headers=headers)


def _id(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise NotFound(f"There is no calendar {text[:50]}.")
    return int(text)
