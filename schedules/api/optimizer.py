"""`/api/optimizer`: what executions cost, what the coming days look like, and what would make them better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution import analysis
from execution.api.idempotent import idempotent
from schedules import load_model, optimization, optimizer
from schedules.api.serializers import READ
from schedules.load_model import Assumptions
from schedules.models import OptimizationChange, OptimizationReport
from scheduling_project.common.api import ResourceViewSet, StrictSerializer
from scheduling_project.common.errors import InvalidInput, NotFound
from scheduling_project.common.fields import NumberField, ObjectField, TextField, WholeNumberField
from scheduling_project.common.permissions import ADD, CHANGE, VIEW

LONGEST_LIST = 2_000


class OptimizationChangeSerializer(StrictSerializer):
    """One proposal, and what became of it. Without `changes` it is advice that only people can follow."""

    id = serializers.UUIDField(**READ)
    kind = serializers.CharField(**READ)
    subject_kind = serializers.CharField(**READ)
    subject = serializers.CharField(**READ)
    label = serializers.CharField(**READ)  # type: ignore[assignment]  # a field named like an option of fields
    reason = serializers.CharField(**READ)
    changes = ObjectField(**READ)
    before = ObjectField(**READ)
    effect = ObjectField(**READ)
    state = serializers.CharField(**READ)
    decided_by = serializers.CharField(**READ)
    decided_at = serializers.DateTimeField(allow_null=True, **READ)


class OptimizationSummarySerializer(StrictSerializer):
    """A report of the optimiser in a list. Ask for it with `POST`; `before` and `after` are simulated figures."""

    id = serializers.UUIDField(**READ)
    days = WholeNumberField(
        required=False, default=optimization.DAYS, min_value=1, max_value=load_model.MOST_DAYS, help_text="Look ahead."
    )
    tolerated = NumberField(
        required=False,
        default=optimizer.TOLERATED,
        min_value=0,
        max_value=86_400,
        write_only=True,
        help_text="Seconds that 95 of 100 runs may wait before something is proposed.",
    )
    note = TextField(required=False, allow_blank=True, max_length=500, default="")
    schedules = serializers.IntegerField(**READ)
    before = ObjectField(**READ)
    after = ObjectField(**READ)
    created_by = serializers.CharField(**READ)
    created_at = serializers.DateTimeField(**READ)


class OptimizationReportSerializer(OptimizationSummarySerializer):
    """A whole report: the curve over time, what was measured, and every proposal."""

    curve = serializers.ListField(child=ObjectField(), **READ)
    patterns = ObjectField(**READ)
    changes = OptimizationChangeSerializer(many=True, **READ)


class ChosenChangesSerializer(StrictSerializer):
    """Which proposals; all of them when left out."""

    changes = serializers.ListField(child=serializers.UUIDField(), required=False, max_length=LONGEST_LIST)
    note = TextField(required=False, allow_blank=True, max_length=500, default="")


class DecidedSerializer(StrictSerializer):
    """The proposals that were applied or reverted."""

    changes = OptimizationChangeSerializer(many=True, **READ)


class WhatIfSerializer(StrictSerializer):
    """What is assumed. Nothing of it is saved."""

    days = WholeNumberField(required=False, default=optimization.DAYS, min_value=1, max_value=load_model.MOST_DAYS)
    duration_factor = NumberField(required=False, default=1.0, min_value=0.001, max_value=1000)
    slots = ObjectField(required=False, help_text="Queue to slots: replaces all workers that serve the queue.")
    lose_hosts = serializers.ListField(child=TextField(max_length=200), required=False, max_length=1000)
    pools = ObjectField(required=False, help_text="Pool to slots.")
    add = serializers.ListField(
        child=ObjectField(),
        required=False,
        max_length=1000,
        help_text="Schedules to add: spec (or cron_expression, timezone), workflow or seconds, count, queue, priority.",
    )


class WhatIfResultSerializer(StrictSerializer):
    """Figures as things are, and as they would be."""

    before = ObjectField(**READ)
    after = ObjectField(**READ)
    curve = serializers.ListField(child=ObjectField(), **READ)


DAYS = OpenApiParameter(
    "days", {"type": "integer", "minimum": 1, "maximum": 366, "default": analysis.DAYS}, description="Look back."
)


class OptimizerViewSet(ResourceViewSet):
    """Reports: what waits, why, and what would help."""

    action_verbs = {"apply": CHANGE, "revert": CHANGE, "what_if": VIEW, "create": ADD}
    tagged = ("changes",)
    queryset = OptimizationReport.objects.all()
    serializer_class = OptimizationSummarySerializer
    filter_backends = []
    lookup_url_kwarg = "id"

    @extend_schema(responses=OptimizationSummarySerializer(many=True))
    def list(self, request: Request) -> Response:
        """All reports, the newest first."""
        return self.page(self.get_queryset().defer("curve", "patterns"), OptimizationSummarySerializer)

    @extend_schema(request=OptimizationSummarySerializer, responses={201: OptimizationReportSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Measure, simulate the coming days and propose. Changes nothing."""
        made = optimization.report(actor=self.actor, **self.body(OptimizationSummarySerializer))
        shown = OptimizationReportSerializer(made).data
        return Response(shown, status=201, headers={"Location": f"/api/optimizer/{made.pk}"})

    @extend_schema(responses=OptimizationReportSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One report with its proposals."""
        return Response(OptimizationReportSerializer(optimization.get(_id(id))).data)

    @extend_schema(request=ChosenChangesSerializer, responses=DecidedSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def apply(self, request: Request, id: str) -> Response:
        """Make proposed changes: all that are named (or all that can be made), or none of them."""
        return self._decide(optimization.apply(_id(id), actor=self.actor, **self.body(ChosenChangesSerializer)))

    @extend_schema(request=ChosenChangesSerializer, responses=DecidedSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def revert(self, request: Request, id: str) -> Response:
        """Put back what was applied: all that is named (or all), or none of it."""
        return self._decide(optimization.revert(_id(id), actor=self.actor, **self.body(ChosenChangesSerializer)))

    @extend_schema(request=WhatIfSerializer, responses=WhatIfResultSerializer)
    @action(detail=False, methods=["post"], url_path="what-if")
    def what_if(self, request: Request) -> Response:
        """The same simulation with other assumptions: more schedules, fewer hosts, longer runs. Saves nothing."""
        body = self.body(WhatIfSerializer)
        days = body.pop("days")
        body = {name: tuple(value) if isinstance(value, list) else value for name, value in body.items()}
        found = optimization.what_if(Assumptions(**body), days=days)
        shown = {"before": found.before, "after": found.after, "curve": found.curve}
        return Response(WhatIfResultSerializer(shown).data)

    @extend_schema(parameters=[DAYS], responses=OpenApiTypes.OBJECT)
    @action(detail=False)
    def patterns(self, request: Request) -> Response:
        """Durations, failures, retries, waiting and cost per workflow and step, and what is not as it used to be."""
        text = request.query_params.get("days", str(analysis.DAYS))
        if not text.isascii() or not text.isdecimal() or len(text) > 3:
            raise InvalidInput(fields={"days": ["must be a whole number from 1 to 366"]})
        return Response(analysis.analyze_execution_patterns(days=int(text)).as_dict())

    def tag_subject(self) -> Any:
        return OptimizationReportSerializer(optimization.get(_id(self.kwargs["id"]))).data

    def _decide(self, rows: Sequence[OptimizationChange]) -> Response:
        return Response(DecidedSerializer({"changes": rows}).data)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"There is no optimisation report {text[:50]}.") from None
