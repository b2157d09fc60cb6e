"""`/api/workflows`: what can be run, its versions, and the way to start it."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution import step_tasks, workflows
from execution.api.executions import start_response
from execution.api.fields import find_workflow
from execution.api.filters import WorkflowFilter
from execution.api.idempotent import idempotent
from execution.api.serializers import (
    ChangeSerializer,
    DraftSerializer,
    ExecutionSerializer,
    NoteSerializer,
    StartSerializer,
    StepTaskSerializer,
    WorkflowCreateSerializer,
    WorkflowSerializer,
    WorkflowSummarySerializer,
    WorkflowVersionSerializer,
)
from execution.definition_schema import DEFINITION_SCHEMA
from execution.models import Workflow, WorkflowVersion
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import InvalidInput, NotFound
from scheduling_project.common.pagination import WholeList
from scheduling_project.common.permissions import CHANGE, RUN
from scheduling_project.common.preconditions import REVISION

ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="Id or name of the workflow.")
VERSION = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
NUMBER = OpenApiParameter("number", VERSION, OpenApiParameter.PATH, description="Number of the version.")


class WorkflowViewSet(ResourceViewSet):
    """What can be run. A workflow is addressed by its id or its name."""

    action_verbs = {"start": RUN, "save_draft": CHANGE, "publish": CHANGE}
    tagged = REVISION
    queryset = Workflow.objects.select_related("published").defer("published__definition")
    orderings = {
        "list": {"name": "name", "created_at": "id", "updated_at": "updated_at"},
        "versions": {"number": "number"},
    }
    serializer_class = WorkflowSerializer
    filterset_class = WorkflowFilter
    lookup_url_kwarg = "id"
    lookup_value_regex = "[^/]+"

    def get_object(self) -> Workflow:
        found = find_workflow(self.kwargs["id"])
        if found is None:
            raise Http404
        self.check_object_permissions(self.request, found)
        return found

    @extend_schema(responses=WorkflowSummarySerializer(many=True))
    def list(self, request: Request) -> Response:
        """All workflows by name."""
        return self.page(self.filter_queryset(self.get_queryset()), WorkflowSummarySerializer, ordering="name")

    @extend_schema(request=WorkflowCreateSerializer, responses={201: WorkflowSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Create a workflow and publish its first version (or keep it as a draft)."""
        values = self.body(WorkflowCreateSerializer)
        values["definition"] = values.pop("shown_definition")
        workflow = workflows.create(values.pop("name"), values.pop("definition"), actor=self.actor, **values)
        return Response(self._shown(workflow), status=201, headers={"Location": f"/api/workflows/{workflow.pk}"})

    @extend_schema(parameters=[ID], responses=WorkflowSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One workflow with its published definition."""
        return Response(self._shown(self.get_object()))

    @extend_schema(parameters=[ID], responses=WorkflowSerializer)
    def update(self, request: Request, id: str, *, partial: bool = False) -> Response:
        """Change a workflow; another definition publishes a new version. `If-Match` guards against others' changes."""
        values = self.body(WorkflowSerializer, partial=partial)
        if "shown_definition" in values:
            values["definition"] = values.pop("shown_definition")
        workflow = workflows.update(self.get_object(), values, actor=self.actor)
        return Response(self._shown(workflow))

    @extend_schema(parameters=[ID], responses=WorkflowSerializer)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change some fields of a workflow; another definition publishes a new version."""
        return self.update(request, id, partial=True)

    @extend_schema(
        parameters=[
            ID,
            OpenApiParameter(
                "history", str, enum=["keep", "delete"], description="Also delete its finished executions."
            ),
        ],
        responses={204: None},
    )
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a workflow that nothing uses."""
        history = request.query_params.get("history", "keep")
        if history not in {"keep", "delete"}:
            raise InvalidInput(fields={"history": ["must be keep or delete"]})
        workflows.delete(self.get_object(), actor=self.actor, with_history=history == "delete")
        return Response(status=204)

    # ── Versions ──

    @extend_schema(parameters=[ID], responses=WorkflowVersionSerializer(many=True))
    @action(detail=True, filterset_class=None)
    def versions(self, request: Request, id: str) -> Response:
        """Its versions and drafts, the newest first."""
        queryset = WorkflowVersion.objects.filter(workflow=self.get_object())
        return self.page(queryset, WorkflowVersionSerializer, ordering="-number")

    @extend_schema(parameters=[ID], request=DraftSerializer, responses={201: WorkflowVersionSerializer})
    @versions.mapping.post
    @idempotent
    def save_draft(self, request: Request, id: str) -> Response:
        """Keep a definition as a version that nothing runs until it is published."""
        version = workflows.save_draft(self.get_object(), actor=self.actor, **self.body(DraftSerializer))
        return Response(WorkflowVersionSerializer(version).data, status=201)

    @extend_schema(parameters=[ID, NUMBER], responses=WorkflowVersionSerializer)
    @action(detail=True, url_path=r"versions/(?P<number>[0-9]{1,9})")
    def version(self, request: Request, id: str, number: str) -> Response:
        """One version."""
        return Response(WorkflowVersionSerializer(self._version(number)).data)

    @extend_schema(parameters=[ID, NUMBER], request=NoteSerializer, responses=WorkflowVersionSerializer)
    @action(detail=True, methods=["post"], url_path=r"versions/(?P<number>[0-9]{1,9})/publish")
    def publish(self, request: Request, id: str, number: str) -> Response:
        """Publish a draft, or go back to an earlier version."""
        version = workflows.publish_version(
            self.get_object(), int(number), actor=self.actor, note=self.body(NoteSerializer)["note"]
        )
        return Response(WorkflowVersionSerializer(version).data)

    @extend_schema(
        parameters=[
            ID,
            OpenApiParameter("before", VERSION, required=True, description="Number of the one version."),
            OpenApiParameter("after", VERSION, required=True, description="Number of the other."),
        ],
        responses=ChangeSerializer(many=True),
    )
    @action(detail=True, filterset_class=None, pagination_class=WholeList)
    def diff(self, request: Request, id: str) -> Response:
        """How two versions differ, member by member."""
        numbers = [request.query_params.get(name, "") for name in ("before", "after")]
        for name, number in zip(("before", "after"), numbers, strict=True):
            if not number.isdecimal() or len(number) > 9:
                raise InvalidInput(fields={name: ["must be the number of a version"]})
        before, after = (self._version(number) for number in numbers)
        changes = workflows.diff(before.definition, after.definition)
        return WholeList.response(ChangeSerializer(changes, many=True).data)

    # ── Start ──

    @extend_schema(parameters=[ID], request=StartSerializer, responses={201: ExecutionSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def start(self, request: Request, id: str) -> Response:
        """Start the published version."""
        return start_response(self, self.get_object(), self.body(StartSerializer))

    # ── What definitions are made of ──

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=False, url_path="definition-schema", filterset_class=None, pagination_class=None)
    def definition_schema(self, request: Request) -> Response:
        """The JSON Schema (2020-12) of a definition."""
        return Response(DEFINITION_SCHEMA)

    @extend_schema(responses=StepTaskSerializer(many=True))
    @action(detail=False, filterset_class=None, pagination_class=WholeList)
    def tasks(self, request: Request) -> Response:
        """The Celery tasks that may be steps here."""
        shown = [
            {
                "name": task.name,
                "signature": task.signature,
                "doc": task.doc,
                "retry_policy": None if task.policy is None else task.policy.as_json(),
            }
            for task in step_tasks.available()
        ]
        return WholeList.response(StepTaskSerializer(shown, many=True).data)

    def _version(self, number: str) -> WorkflowVersion:
        workflow = self.get_object()
        found = WorkflowVersion.objects.filter(workflow=workflow, number=int(number)).first()
        if found is None:
            raise NotFound(f"Workflow {workflow.name} has no version {number}.")
        return found

    def _shown(self, workflow: Workflow) -> Any:
        fresh = Workflow.objects.select_related("published").get(pk=workflow.pk)
        return WorkflowSerializer(fresh, context=self.get_serializer_context()).data
