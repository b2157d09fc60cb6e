"""`/api/backfills` and `POST /api/schedules/{id}/backfill`: past instants that run after all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution.api.idempotent import idempotent
from schedules import backfill, lifecycle
from schedules.api.backfill_serializers import (
    BackfillCancelSerializer,
    BackfillDetailSerializer,
    BackfillFireSerializer,
    BackfillPlanSerializer,
    BackfillRequestSerializer,
    BackfillSerializer,
)
from schedules.models import Backfill
from schedules.states import BackfillState
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import NotFound
from scheduling_project.common.filters import StrictFilterSet


class BackfillFilter(StrictFilterSet):
    schedule = django_filters.UUIDFilter(field_name="schedule_id")
    state = django_filters.ChoiceFilter(choices=BackfillState.choices)


class BackfillActions(ResourceViewSet):
    """The backfills of one schedule."""

    @extend_schema(
        request=BackfillRequestSerializer, responses={200: BackfillPlanSerializer, 201: BackfillDetailSerializer}
    )
    @action(detail=True, methods=["post"], filterset_class=None)
    @idempotent
    def backfill(self, request: Request, id: str) -> Response:
        """Run past instants after all; with `dry_run`, tell how many those are and what they cost (200)."""
        given = self.body(BackfillRequestSerializer)
        schedule_id = lifecycle.get(_id(id, "schedule")).pk
        if given.pop("dry_run"):
            given.pop("note")
            return Response(BackfillPlanSerializer(backfill.plan(schedule_id, **given)).data)
        made = backfill.create(schedule_id, actor=self.actor, **given)
        return Response(_shown(made), status=201, headers={"Location": f"/api/backfills/{made.pk}"})

    @extend_schema(responses=BackfillSerializer(many=True))
    @action(detail=True, filterset_class=None)
    def backfills(self, request: Request, id: str) -> Response:
        """Its backfills, the newest first."""
        schedule_id = lifecycle.get(_id(id, "schedule")).pk
        return self.page(Backfill.objects.filter(schedule=schedule_id).select_related("schedule"), BackfillSerializer)


class BackfillViewSet(ResourceViewSet):
    """Past instants of schedules that run after all."""

    tagged = ("state",)
    queryset = Backfill.objects.select_related("schedule")
    orderings = {"fires": {"scheduled_for": "scheduled_for"}}
    serializer_class = BackfillSerializer
    filterset_class = BackfillFilter
    lookup_url_kwarg = "id"

    @extend_schema(responses=BackfillSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All backfills, the newest first."""
        return self.page(self.filter_queryset(self.get_queryset()), BackfillSerializer)

    @extend_schema(responses=BackfillDetailSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One backfill, and how far it is."""
        return Response(_shown(backfill.get(_id(id, "backfill"))))

    @extend_schema(request=BackfillCancelSerializer, responses=BackfillDetailSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def cancel(self, request: Request, id: str) -> Response:
        """Start nothing more of it."""
        given = self.body(BackfillCancelSerializer)
        return Response(_shown(backfill.cancel(_id(id, "backfill"), actor=self.actor, **given)))

    @extend_schema(responses=BackfillFireSerializer(many=True))
    @action(detail=True, filterset_class=None)
    def fires(self, request: Request, id: str) -> Response:
        """The instants that it started, the latest first."""
        fires = backfill.get(_id(id, "backfill")).fires.select_related("execution")
        return self.page(fires, BackfillFireSerializer, ordering="-scheduled_for")


def _shown(found: Backfill) -> Any:
    found.executions = asdict(backfill.progress(found.pk))  # type: ignore[attr-defined]
    return BackfillDetailSerializer(found).data


def _id(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"There is no {what} {text[:50]}.") from None
