"""`/api/dead-letters/redrive-jobs`: many dead letters tried again at a measured pace."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution import redrives
from execution.api.filters import StateFilter
from execution.api.idempotent import idempotent
from execution.api.serializers import (
    NoteSerializer,
    RedriveItemSerializer,
    RedriveJobCreateSerializer,
    RedriveJobSerializer,
)
from execution.api.serializers.dead_letters import SELECTORS
from execution.dead_letters import Selection
from execution.models import RedriveItem, RedriveJob
from execution.states import RedriveItemState, RedriveJobState
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import NotFound
from scheduling_project.common.filters import StrictFilterSet
from scheduling_project.common.permissions import REDRIVE


class RedriveJobFilter(StrictFilterSet):
    state = StateFilter(choices=RedriveJobState.choices)


class RedriveItemFilter(StrictFilterSet):
    state = StateFilter(choices=RedriveItemState.choices)


class RedriveJobViewSet(ResourceViewSet):
    """Many dead letters tried again at a measured pace."""

    tagged = ("state",)
    queryset = RedriveJob.objects.all()
    orderings = {"items": {"position": "position"}}
    serializer_class = RedriveJobSerializer
    filterset_class = RedriveJobFilter
    subject = "execution.deadletter"
    action_verbs = {"create": REDRIVE, "cancel": REDRIVE}
    lookup_url_kwarg = "id"

    @extend_schema(responses=RedriveJobSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All redrive jobs, the newest first."""
        return self.page(self.filter_queryset(self.get_queryset()), RedriveJobSerializer)

    @extend_schema(request=RedriveJobCreateSerializer, responses={201: RedriveJobSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Begin a job: its letters are fixed now, workers take them up at the pace that is asked for."""
        values = self.body(RedriveJobCreateSerializer)
        selection = selection_of(values)
        options = {name: value for name, value in values.items() if name not in SELECTORS}
        job = redrives.create(selection, actor=self.actor, using="default", **options)
        headers = {"Location": f"/api/dead-letters/redrive-jobs/{job.pk}"}
        return Response(RedriveJobSerializer(job).data, status=201, headers=headers)

    @extend_schema(responses=RedriveJobSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One job and how far it is."""
        return Response(RedriveJobSerializer(self.get_object()).data)

    @extend_schema(request=NoteSerializer, responses=RedriveJobSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, id: str) -> Response:
        """Take up no further letter; those under way go on."""
        job = self.get_object()
        redrives.cancel(job.pk, actor=self.actor, using="default", **self.body(NoteSerializer))
        job.refresh_from_db()
        return Response(RedriveJobSerializer(job).data)

    @extend_schema(responses=RedriveItemSerializer(many=True))
    @action(detail=True, filterset_class=RedriveItemFilter)
    def items(self, request: Request, id: str) -> Response:
        """Its letters in order, and what became of each."""
        items = RedriveItem.objects.filter(job=self._existing())
        return self.page(self.filter_queryset(items), RedriveItemSerializer, ordering="position")

    def _existing(self) -> UUID:
        """The job's id, looked up without the list's filters (which are those of its letters here)."""
        try:
            job_id = UUID(self.kwargs["id"])
        except ValueError:
            raise NotFound("There is no such redrive job.") from None
        if not RedriveJob.objects.filter(pk=job_id).exists():
            raise NotFound("There is no such redrive job.")
        return job_id


def selection_of(values: dict[str, Any]) -> Selection:
    """The letters that a request names."""
    chosen: dict[str, Any] = {
        name: values[name] for name in ("ids", "fingerprint", "step", "error_type", "before") if name in values
    }
    if "workflow" in values:
        chosen["workflow_id"] = values["workflow"].pk
    return Selection(**chosen)
