"""`/api/dead-letters`: permanent failures that wait for a decision."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution import dead_letters
from execution.api.filters import DeadLetterFilter
from execution.api.idempotent import idempotent
from execution.api.redrive_jobs import selection_of
from execution.api.serializers import (
    BulkRedriveSerializer,
    BulkResultSerializer,
    DeadLetterSerializer,
    DeadLetterSummarySerializer,
    GroupSerializer,
    NoteSerializer,
    RedriveSerializer,
    SelectionSerializer,
)
from execution.dead_letters import BulkResult
from execution.models import AuditEntry, DeadLetter
from execution.states import DeadLetterState
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.pagination import WholeList
from scheduling_project.common.permissions import REDRIVE


class DeadLetterViewSet(ResourceViewSet):
    """Permanent failures that wait for a decision."""

    action_verbs = {"bulk_redrive": REDRIVE, "bulk_discard": REDRIVE}
    tagged = ("state", "redrives")
    held = False
    queryset = DeadLetter.objects.all()
    serializer_class = DeadLetterSerializer
    filterset_class = DeadLetterFilter
    lookup_url_kwarg = "id"

    def get_queryset(self) -> QuerySet[DeadLetter]:
        if self.action == "list":
            return DeadLetter.objects.select_related("workflow").defer("traceback", "step_input")
        return DeadLetter.objects.select_related("workflow", "execution__version")

    @extend_schema(responses=DeadLetterSummarySerializer(many=True))
    def list(self, request: Request) -> Response:
        """All dead letters, the newest first."""
        return self.page(self.filter_queryset(self.get_queryset()), DeadLetterSummarySerializer)

    @extend_schema(responses=DeadLetterSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One letter with its whole story."""
        return Response(self._shown(self.get_object()))

    @extend_schema(request=RedriveSerializer, responses=DeadLetterSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def redrive(self, request: Request, id: str) -> Response:
        """Try the work again: from the failed step (`resume`), or as a new execution (`restart`)."""
        letter = self.get_object()
        dead_letters.redrive(letter.pk, actor=self.actor, **self.body(RedriveSerializer))
        return self._answer(letter.pk)

    @extend_schema(request=NoteSerializer, responses=DeadLetterSerializer)
    @action(detail=True, methods=["post"])
    def discard(self, request: Request, id: str) -> Response:
        """Decide that nothing more is to be done about it."""
        letter = self.get_object()
        dead_letters.discard(letter.pk, actor=self.actor, **self.body(NoteSerializer))
        return self._answer(letter.pk)

    @extend_schema(
        parameters=[OpenApiParameter("state", str, enum=DeadLetterState.values, description="open when left out")],
        responses=GroupSerializer(many=True),
    )
    @action(detail=False, filterset_class=None, pagination_class=WholeList)
    def groups(self, request: Request) -> Response:
        """Letters of one state by fingerprint, the largest group first (at most 100)."""
        state = request.query_params.get("state", DeadLetterState.OPEN.value)
        if state not in DeadLetterState.values:
            raise InvalidInput(fields={"state": [f"must be one of {', '.join(DeadLetterState.values)}"]})
        found = dead_letters.groups(state=DeadLetterState(state))
        return WholeList.response(GroupSerializer(found, many=True).data)

    @extend_schema(request=BulkRedriveSerializer, responses=BulkResultSerializer)
    @action(detail=False, methods=["post"], url_path="bulk/redrive", filterset_class=None)
    @idempotent
    def bulk_redrive(self, request: Request) -> Response:
        """Redrive the oldest open letters of a selection; with `limit` 1 as a canary."""
        values = self.body(BulkRedriveSerializer)
        result = dead_letters.redrive_many(
            selection_of(values),
            actor=self.actor,
            mode=values["mode"],
            input=values["input"],
            limit=values["limit"],
            note=values["note"],
        )
        return Response(_bulk(result))

    @extend_schema(request=SelectionSerializer, responses=BulkResultSerializer)
    @action(detail=False, methods=["post"], url_path="bulk/discard", filterset_class=None)
    def bulk_discard(self, request: Request) -> Response:
        """Discard the oldest open letters of a selection."""
        values = self.body(SelectionSerializer)
        result = dead_letters.discard_many(
            selection_of(values), actor=self.actor, limit=values["limit"], note=values["note"]
        )
        return Response(_bulk(result))

    def _answer(self, letter_id: UUID) -> Response:
        return Response(self._shown(self.get_queryset().get(pk=letter_id)))

    def _shown(self, letter: DeadLetter) -> Any:
        story = AuditEntry.objects.filter(subject_kind="dead_letter", subject_id=str(letter.pk)).order_by("id")
        return DeadLetterSerializer(letter, context={**self.get_serializer_context(), "story": story}).data


def _bulk(result: BulkResult) -> Any:
    refused = [{"id": letter_id, "reason": reason} for letter_id, reason in result.refused.items()]
    return BulkResultSerializer({"done": result.done, "refused": refused, "left": result.left}).data
