"""`/api/executions`: what runs and ran, and what people can do to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution import lifecycle, starting, step_tasks
from execution.api.filters import ExecutionFilter, LineFilter, StepRunFilter
from execution.api.idempotent import idempotent
from execution.api.serializers import (
    AttemptSerializer,
    ExecutionCreateSerializer,
    ExecutionSerializer,
    ExecutionSummarySerializer,
    LineSerializer,
    NoteSerializer,
    PrioritySerializer,
    ReasonSerializer,
    RerunSerializer,
    ResumeFromFailureSerializer,
    StepRunDetailSerializer,
    StepRunSerializer,
    SucceedStepSerializer,
    WhySerializer,
)
from execution.models import Attempt, Execution, StepLog, StepRun, Workflow
from execution.plans import plan_of
from execution.retry import effective_policy
from execution.why import why
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import NotFound
from scheduling_project.common.permissions import INTERVENE, PRIORITIZE, REDRIVE, RUN

STEP = OpenApiParameter("step", OpenApiTypes.UUID, OpenApiParameter.PATH, description="Id of the step run.")


def listed() -> QuerySet[Execution]:
    """Executions with what a list shows of them, and nothing heavy."""
    return Execution.objects.select_related("workflow", "version").defer(
        "input", "retry_policy", "version__definition", "workflow__labels", "workflow__description"
    )


class ExecutionViewSet(ResourceViewSet):
    """What runs and ran."""

    action_verbs = {
        "create": RUN,
        "rerun": RUN,
        "resume_from_failure": REDRIVE,
        "priority": PRIORITIZE,
        "skip_step": INTERVENE,
        "succeed_step": INTERVENE,
    }
    tagged = ("state", "priority")
    held = False
    queryset = Execution.objects.all()
    serializer_class = ExecutionSerializer
    filterset_class = ExecutionFilter
    lookup_url_kwarg = "id"

    def get_queryset(self) -> QuerySet[Execution]:
        return listed() if self.action == "list" else Execution.objects.select_related("workflow", "version", "output")

    @extend_schema(responses=ExecutionSummarySerializer(many=True))
    def list(self, request: Request) -> Response:
        """All executions, the newest first."""
        return self.page(self.filter_queryset(self.get_queryset()), ExecutionSummarySerializer)

    @extend_schema(request=ExecutionCreateSerializer, responses={201: ExecutionSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Start a workflow's published version."""
        values = self.body(ExecutionCreateSerializer)
        return start_response(self, values.pop("workflow"), values)

    @extend_schema(responses=ExecutionSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One execution with its steps, their attempts and outputs, and the retry policies in force."""
        return Response(shown(self.get_object(), self.get_serializer_context()))

    # ── Verbs ──

    @extend_schema(request=ReasonSerializer, responses=ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, id: str) -> Response:
        """End it and everything open in it."""
        execution = self.get_object()
        lifecycle.cancel(execution.pk, actor=self.actor, reason=self.body(ReasonSerializer)["reason"])
        return self._answer(execution.pk)

    @extend_schema(request=NoteSerializer, responses=ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Start no further step of it; what runs is left to end."""
        execution = self.get_object()
        lifecycle.pause(execution.pk, actor=self.actor, note=self.body(NoteSerializer)["note"])
        return self._answer(execution.pk)

    @extend_schema(request=None, responses=ExecutionSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Go on with a paused execution."""
        execution = self.get_object()
        lifecycle.resume(execution.pk, actor=self.actor)
        return self._answer(execution.pk)

    @extend_schema(request=RerunSerializer, responses={201: ExecutionSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def rerun(self, request: Request, id: str) -> Response:
        """Start a new execution like this one, with the same or another input."""
        started = lifecycle.rerun(self.get_object().pk, actor=self.actor, **self.body(RerunSerializer))
        return self._answer(started.pk, status=201)

    @extend_schema(request=ResumeFromFailureSerializer, responses=ExecutionSerializer)
    @action(detail=True, methods=["post"], url_path="resume-from-failure")
    def resume_from_failure(self, request: Request, id: str) -> Response:
        """Run its failed steps again, keeping the outputs of the finished ones."""
        execution = self.get_object()
        lifecycle.resume_from_failure(execution.pk, actor=self.actor, **self.body(ResumeFromFailureSerializer))
        return self._answer(execution.pk)

    @extend_schema(request=PrioritySerializer, responses=ExecutionSerializer)
    @action(detail=True, methods=["patch", "post", "put"])
    def priority(self, request: Request, id: str) -> Response:
        """Give it another priority, at once, also where messages are on their way."""
        execution = self.get_object()
        lifecycle.set_priority(execution.pk, self.body(PrioritySerializer)["priority"], actor=self.actor)
        return self._answer(execution.pk)

    @extend_schema(responses=WhySerializer)
    @action(detail=True, filterset_class=None)
    def why(self, request: Request, id: str) -> Response:
        """Why it does not go on: the exact blocker of every open step."""
        return Response(WhySerializer(why(self.get_object())).data)

    # ── Steps ──

    @extend_schema(responses=StepRunSerializer(many=True))
    @action(detail=True, filterset_class=StepRunFilter)
    def steps(self, request: Request, id: str) -> Response:
        """Its step runs, also the items of fan-outs, oldest first."""
        queryset = StepRun.objects.filter(execution=self._existing())
        return self.page(self.filter_queryset(queryset), StepRunSerializer, ordering="id")

    @extend_schema(responses=AttemptSerializer(many=True))
    @action(detail=True, filterset_class=None)
    def attempts(self, request: Request, id: str) -> Response:
        """All attempts of all its steps, oldest first."""
        queryset = Attempt.objects.filter(step_run__execution=self._existing()).select_related("step_run")
        return self.page(queryset, AttemptSerializer, ordering="id")

    @extend_schema(responses=LineSerializer(many=True))
    @action(detail=True, filterset_class=LineFilter)
    def logs(self, request: Request, id: str) -> Response:
        """The lines that its steps wrote, oldest first."""
        queryset = StepLog.objects.filter(attempt__step_run__execution=self._existing())
        queryset = self.filter_queryset(queryset.select_related("attempt__step_run"))
        return self.page(queryset, LineSerializer, ordering="id")

    @extend_schema(parameters=[STEP], responses=StepRunDetailSerializer)
    @action(detail=True, url_path=r"steps/(?P<step>[0-9a-fA-F-]{32,36})", filterset_class=None)
    def step(self, request: Request, id: str, step: str) -> Response:
        """One step run with its attempts, output and policy."""
        return self._step_answer(step)

    @extend_schema(parameters=[STEP], request=NoteSerializer, responses=StepRunDetailSerializer)
    @action(detail=True, methods=["post"], url_path=r"steps/(?P<step>[0-9a-fA-F-]{32,36})/skip")
    def skip_step(self, request: Request, id: str, step: str) -> Response:
        """End an open step as skipped."""
        lifecycle.skip_step(self._step(step).pk, actor=self.actor, **self.body(NoteSerializer))
        return self._step_answer(step)

    @extend_schema(parameters=[STEP], request=SucceedStepSerializer, responses=StepRunDetailSerializer)
    @action(detail=True, methods=["post"], url_path=r"steps/(?P<step>[0-9a-fA-F-]{32,36})/succeed")
    def succeed_step(self, request: Request, id: str, step: str) -> Response:
        """End an open step as succeeded, with an output given by hand."""
        lifecycle.succeed_step(self._step(step).pk, actor=self.actor, **self.body(SucceedStepSerializer))
        return self._step_answer(step)

    @extend_schema(parameters=[STEP], request=NoteSerializer, responses=StepRunDetailSerializer)
    @action(detail=True, methods=["post"], url_path=r"steps/(?P<step>[0-9a-fA-F-]{32,36})/approve")
    def approve(self, request: Request, id: str, step: str) -> Response:
        """Let a step that waits for approval succeed."""
        lifecycle.approve(self._step(step).pk, actor=self.actor, **self.body(NoteSerializer))
        return self._step_answer(step)

    @extend_schema(parameters=[STEP], request=NoteSerializer, responses=StepRunDetailSerializer)
    @action(detail=True, methods=["post"], url_path=r"steps/(?P<step>[0-9a-fA-F-]{32,36})/reject")
    def reject(self, request: Request, id: str, step: str) -> Response:
        """Let a step that waits for approval fail."""
        lifecycle.reject(self._step(step).pk, actor=self.actor, **self.body(NoteSerializer))
        return self._step_answer(step)

    # ── Parts ──

    def tag_subject(self) -> Execution | StepRun:
        return self._step(self.kwargs["step"]) if "step" in self.kwargs else self.get_object()

    def tag_names(self) -> Sequence[str]:
        return ("state", "waiting_for") if "step" in self.kwargs else self.tagged

    def _existing(self) -> UUID:
        """The execution's id, looked up without the list's filters (which are those of its steps here)."""
        try:
            execution_id = UUID(self.kwargs["id"])
        except ValueError:
            raise NotFound("There is no such execution.") from None
        if not Execution.objects.filter(pk=execution_id).exists():
            raise NotFound("There is no such execution.")
        return execution_id

    def _step(self, step: str) -> StepRun:
        try:
            found = StepRun.objects.filter(execution=self._existing(), pk=UUID(step)).first()
        except ValueError:
            found = None
        if found is None:
            raise NotFound("The execution has no such step run.")
        return found

    def _step_answer(self, step: str) -> Response:
        run = self._step(step)
        detailed = StepRun.objects.select_related("output").prefetch_related("attempts").get(pk=run.pk)
        execution = Execution.objects.select_related("workflow", "version").get(pk=run.execution_id)
        context = {**self.get_serializer_context(), "policies": policies(execution)}
        return Response(StepRunDetailSerializer(detailed, context=context).data)

    def _answer(self, execution_id: UUID, *, status: int = 200) -> Response:
        headers = {"Location": f"/api/executions/{execution_id}"} if status == 201 else None
        return Response(shown(_load(execution_id), self.get_serializer_context()), status=status, headers=headers)


def start_response(view: ResourceViewSet, workflow: Workflow, values: dict[str, Any]) -> Response:
    """Start an execution: 201, or 200 with the earlier one of the same ``idempotency_key``.

    Raises:
        Conflict, InvalidInput: as `starting.start_once`.
    """
    execution, is_new = starting.start_once(workflow, values, actor=view.actor)
    found = _load(execution.pk)
    headers = {"Location": f"/api/executions/{found.pk}"}
    return Response(shown(found, view.get_serializer_context()), status=201 if is_new else 200, headers=headers)


def _load(execution_id: UUID) -> Execution:
    return Execution.objects.select_related("workflow", "version", "output").get(pk=execution_id)


def shown(execution: Execution, context: Mapping[str, Any]) -> Any:
    """An execution in full, in five queries whatever its size."""
    steps = (
        StepRun.objects.filter(execution=execution, parent=None)
        .select_related("output")
        .prefetch_related("attempts")
        .order_by("id")
    )
    context = {**context, "steps": steps, "policies": policies(execution)}
    return ExecutionSerializer(execution, context=context).data


def policies(execution: Execution) -> dict[str, dict[str, Any]]:
    """Per step the retry policy in force and its origin."""
    plan = plan_of(execution.version)
    found = {}
    for step in plan.steps.values():
        task = step_tasks.find(step.target) if step.kind == "task" else None
        found[step.name] = effective_policy(
            step=step.retry,
            source=execution.retry_policy,
            workflow=plan.retry if plan.retry is not None else execution.workflow.retry_policy,
            task=None if task is None else step_tasks.policy_of(task),
        ).as_json()
    return found
