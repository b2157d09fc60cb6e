"""`/api/queues`, `/api/processes` and `/api/audit`: what operators look at and switch."""

from __future__ import annotations

from datetime import datetime, timedelta

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution import demand, queue_order, queues, workers
from execution.api.filters import AuditFilter
from execution.api.serializers import (
    AuditEntrySerializer,
    DemandSerializer,
    NoteSerializer,
    ProcessSerializer,
    QueueSerializer,
    QueueUpdateSerializer,
    ReorderSerializer,
    StepRunSerializer,
    WorkerDrainSerializer,
)
from execution.models import AuditEntry, ProcessReport, StepRun
from execution.queues import QueueState
from scheduling_project.common import clock
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.pagination import WholeList
from scheduling_project.common.permissions import PAUSE

NAME = OpenApiParameter("id", str, OpenApiParameter.PATH, description="Name of the queue.")
MOST_PEEKED = 500
LIMIT = OpenApiParameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": MOST_PEEKED, "default": 20}, description="How many."
)


class QueueViewSet(ResourceViewSet):
    """Lanes for kinds of work. A queue is addressed by its name."""

    subject = "execution.queuesettings"
    action_verbs = {"drain": PAUSE, "reorder": "execution.prioritize_execution"}
    tagged = ("paused_at", "draining_at", "age_limit")
    held = False
    serializer_class = QueueSerializer
    pagination_class = WholeList
    filter_backends = []
    lookup_url_kwarg = "id"

    @extend_schema(responses=QueueSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All queues with what waits, is in flight and runs, by priority."""
        return WholeList.response(QueueSerializer(queues.stats(), many=True).data)

    @extend_schema(parameters=[NAME], responses=QueueSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One queue."""
        return self._answer(id)

    @extend_schema(parameters=[NAME], request=QueueUpdateSerializer, responses=QueueSerializer)
    def partial_update(self, request: Request, id: str) -> Response:
        """Set its age limit: when its oldest due item is older, workers with free slots serve it too."""
        body = self.body(QueueUpdateSerializer)
        queues.check_name(id)
        if "age_limit" in body:
            queues.set_age_limit(id, body["age_limit"], actor=self.actor)
        return self._answer(id)

    @extend_schema(responses=DemandSerializer(many=True))
    @action(detail=False)
    def demand(self, request: Request) -> Response:
        """How many slots and workers each queue needs, for autoscalers: from what arrived in the last 15 minutes."""
        return WholeList.response(DemandSerializer(demand.demand(now=clock.now()), many=True).data)

    @extend_schema(parameters=[NAME], request=NoteSerializer, responses=QueueSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Let no worker claim from it; what runs is left to end."""
        queues.pause(id, actor=self.actor, note=self.body(NoteSerializer)["note"])
        return self._answer(id)

    @extend_schema(parameters=[NAME], request=None, responses=QueueSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Let workers claim from it again."""
        queues.resume(id, actor=self.actor)
        return self._answer(id)

    @extend_schema(parameters=[NAME], request=NoteSerializer, responses=QueueSerializer)
    @action(detail=True, methods=["post"])
    def drain(self, request: Request, id: str) -> Response:
        """Pause it in order to become empty; `status` is `drained` when nothing of it runs any more."""
        queues.drain(id, actor=self.actor, note=self.body(NoteSerializer)["note"])
        return self._answer(id)

    @extend_schema(parameters=[NAME], request=ReorderSerializer, responses=QueueSerializer)
    @action(detail=True, methods=["post"])
    def reorder(self, request: Request, id: str) -> Response:
        """Put something that waits first, last, or right before or after another; it takes over its priority."""
        queue_order.reorder(id, **self.body(ReorderSerializer), actor=self.actor)
        return self._answer(id)

    @extend_schema(
        parameters=[NAME, LIMIT],
        responses=StepRunSerializer(many=True),
    )
    @action(detail=True)
    def peek(self, request: Request, id: str) -> Response:
        """The step runs that come next, in the order in which they will be claimed."""
        limit = request.query_params.get("limit", "20")
        if not limit.isdecimal() or len(limit) > 3 or not 1 <= int(limit) <= MOST_PEEKED:
            raise InvalidInput(fields={"limit": [f"must be a whole number from 1 to {MOST_PEEKED}"]})
        ids = queues.peek(id, limit=int(limit))
        runs = StepRun.objects.in_bulk(ids)
        shown = StepRunSerializer([runs[run_id] for run_id in ids if run_id in runs], many=True).data
        return WholeList.response(shown)

    def tag_subject(self) -> QueueState:
        queues.check_name(self.kwargs["id"])
        (state,) = queues.stats([self.kwargs["id"]])
        return state

    def _answer(self, name: str) -> Response:
        queues.check_name(name)
        (state,) = queues.stats([name])
        return Response(QueueSerializer(state).data)


PROCESS = OpenApiParameter("id", str, OpenApiParameter.PATH, description="Name of the worker, such as `w1@host`.")


class ProcessViewSet(ResourceViewSet):
    """Workers and beats that reported in the last day. A worker is addressed by its name."""

    subject = "execution.processreport"
    action_verbs = {"drain": PAUSE}
    tagged = ("wanted_at", "stopped_at", "lost_at")
    held = False
    serializer_class = ProcessSerializer
    pagination_class = WholeList
    filter_backends = []
    lookup_url_kwarg = "id"

    @extend_schema(responses=ProcessSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Workers and beats, the living first."""
        now = clock.now()
        reports = list(ProcessReport.objects.filter(seen_at__gt=now - timedelta(days=1)).order_by("kind", "name"))
        shown = [_judged(report, now) for report in reports]
        shown.sort(key=lambda report: not report.alive)  # type: ignore[attr-defined]
        return WholeList.response(ProcessSerializer(shown, many=True).data)

    @extend_schema(parameters=[PROCESS], responses=ProcessSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One worker."""
        return self._answer(id)

    @extend_schema(parameters=[PROCESS], request=NoteSerializer, responses=ProcessSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Let this worker take nothing new; what it runs is left to end. It learns of it with its next report."""
        workers.pause(id, actor=self.actor, note=self.body(NoteSerializer)["note"])
        return self._answer(id)

    @extend_schema(parameters=[PROCESS], request=WorkerDrainSerializer, responses=ProcessSerializer)
    @action(detail=True, methods=["post"])
    def drain(self, request: Request, id: str) -> Response:
        """Let it take nothing new; `status` is `drained` when it runs nothing any more, and it may then end itself."""
        workers.drain(id, actor=self.actor, **self.body(WorkerDrainSerializer))
        return self._answer(id)

    @extend_schema(parameters=[PROCESS], request=None, responses=ProcessSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Let it take work again."""
        workers.resume(id, actor=self.actor)
        return self._answer(id)

    def tag_subject(self) -> ProcessReport:
        return workers.get(self.kwargs["id"])

    def _answer(self, name: str) -> Response:
        return Response(ProcessSerializer(_judged(workers.get(name), clock.now())).data)


def _judged(report: ProcessReport, now: datetime) -> ProcessReport:
    """The report with what its age says of the process."""
    report.alive = workers.is_alive(report, now)  # type: ignore[attr-defined]
    report.status = workers.status_of(report, now)  # type: ignore[attr-defined]
    return report


class AuditViewSet(ResourceViewSet):
    """Who did what to what."""

    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    filterset_class = AuditFilter

    @extend_schema(responses=AuditEntrySerializer(many=True))
    def list(self, request: Request) -> Response:
        """The audit trail, the newest first."""
        return self.page(self.filter_queryset(self.get_queryset()), AuditEntrySerializer)
