"""The shapes of executions, step runs, attempts and what can be done to them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from execution.api.fields import PriorityField, QueueField, RetryPolicyField, WorkflowField
from execution.api.serializers.common import READ, NoteSerializer
from execution.models import Execution, StepRun
from execution.states import AttemptState, ExecutionState, StepState, WaitingFor
from execution.steps.context import LOG_LEVELS
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import AnyField, FlagField, InstantField, NumberField, ObjectField, TextField


class StartSerializer(StrictSerializer):
    """How an execution is to be started."""

    input = ObjectField(default=dict, help_text="Checked against the workflow's input schema.")
    priority = PriorityField(required=False)
    queue = QueueField(required=False, allow_blank=True)
    retry_policy = RetryPolicyField(required=False, allow_null=True)
    timeout = NumberField(
        required=False,
        allow_null=True,
        min_value=0.001,
        max_value=31_536_000,
        help_text="Seconds that the whole execution may take.",
    )
    deadline = InstantField(
        required=False,
        allow_null=True,
        help_text="It is cancelled then if it has not ended; a timeout that ends earlier counts all the same.",
    )
    concurrency_key = TextField(required=False, allow_blank=True, max_length=255)
    start_at = InstantField(required=False, allow_null=True, help_text="Not before; at once when left out.")
    idempotency_key = TextField(
        required=False, allow_null=True, max_length=255, help_text="The same key always gives the same execution."
    )


class ExecutionCreateSerializer(StartSerializer):
    """A workflow and how it is to be started."""

    workflow = WorkflowField()


class SourceSerializer(StrictSerializer):
    """Why an execution exists."""

    kind = serializers.CharField(source="source_kind", **READ)
    id = serializers.CharField(source="source_id", **READ)
    label = serializers.CharField(source="source_label", **READ)  # type: ignore[assignment]
    scheduled_for = serializers.DateTimeField(allow_null=True, **READ)


class ExecutionSummarySerializer(StrictSerializer):
    """An execution in a list."""

    id = serializers.UUIDField(**READ)
    workflow = serializers.UUIDField(source="workflow_id", **READ)
    workflow_name = serializers.CharField(source="workflow.name", **READ)
    version = serializers.IntegerField(source="version.number", **READ)
    state = serializers.ChoiceField(choices=ExecutionState.choices, **READ)
    state_reason = serializers.CharField(**READ)
    source = SourceSerializer(source="*", **READ)  # type: ignore[assignment]
    idempotency_key = serializers.CharField(allow_null=True, **READ)
    priority = serializers.IntegerField(**READ)
    queue = serializers.CharField(**READ)
    outcome = serializers.ChoiceField(
        choices=ExecutionState.choices,
        allow_null=True,
        help_text="How its main steps ended, where on_success, on_failure or finally steps follow.",
        **READ,
    )
    section = serializers.CharField(help_text="Whose steps run or ran last; empty for the main ones.", **READ)
    open_steps = serializers.IntegerField(**READ)
    failed_steps = serializers.IntegerField(**READ)
    created_at = serializers.DateTimeField(**READ)
    started_at = serializers.DateTimeField(allow_null=True, **READ)
    finished_at = serializers.DateTimeField(allow_null=True, **READ)
    duration = serializers.SerializerMethodField(help_text="Seconds from start to end; null while it is open.")

    @extend_schema_field({"type": ["number", "null"]})
    def get_duration(self, execution: Execution) -> float | None:
        if execution.started_at is None or execution.finished_at is None:
            return None
        return round((execution.finished_at - execution.started_at).total_seconds(), 3)


class AttemptSerializer(StrictSerializer):
    """One attempt of a step run, with what was decided after it."""

    id = serializers.UUIDField(**READ)
    step_run = serializers.UUIDField(source="step_run_id", **READ)
    step = serializers.CharField(source="step_run.name", **READ)
    number = serializers.IntegerField(**READ)
    state = serializers.ChoiceField(choices=AttemptState.choices, **READ)
    worker = serializers.CharField(**READ)
    error_type = serializers.CharField(**READ)
    error = serializers.CharField(**READ)
    traceback = serializers.CharField(**READ)
    decision = ObjectField(allow_null=True, **READ)
    progress = ObjectField(allow_null=True, **READ)
    started_at = serializers.DateTimeField(**READ)
    finished_at = serializers.DateTimeField(allow_null=True, **READ)


class LineSerializer(StrictSerializer):
    """A line that an attempt wrote."""

    id = serializers.IntegerField(**READ)
    step_run = serializers.UUIDField(source="attempt.step_run_id", **READ)
    step = serializers.CharField(source="attempt.step_run.name", **READ)
    attempt = serializers.IntegerField(source="attempt.number", **READ)
    level = serializers.ChoiceField(choices=LOG_LEVELS, **READ)
    message = serializers.CharField(**READ)
    created_at = serializers.DateTimeField(**READ)


class StepRunSerializer(StrictSerializer):
    """A step of an execution (or one item of its fan-out)."""

    id = serializers.UUIDField(**READ)
    name = serializers.CharField(**READ)
    kind = serializers.CharField(**READ)
    parent = serializers.UUIDField(source="parent_id", allow_null=True, **READ)  # type: ignore[assignment]
    item_index = serializers.IntegerField(allow_null=True, **READ)
    item = AnyField(allow_null=True, **READ)
    state = serializers.ChoiceField(choices=StepState.choices, **READ)
    waiting_for = serializers.ChoiceField(choices=WaitingFor.choices, allow_null=True, **READ)
    state_reason = serializers.CharField(**READ)
    queue = serializers.CharField(**READ)
    priority = serializers.IntegerField(**READ)
    timeout = serializers.FloatField(allow_null=True, **READ)
    attempt = serializers.IntegerField(help_text="Number of the latest attempt.", **READ)
    failures = serializers.IntegerField(help_text="Attempts charged against the retry policy.", **READ)
    worker_deaths = serializers.IntegerField(**READ)
    needs_open = serializers.IntegerField(**READ)
    items_open = serializers.IntegerField(**READ)
    items_failed = serializers.IntegerField(**READ)
    worker = serializers.CharField(**READ)
    idempotency_key = serializers.CharField(**READ)
    available_at = serializers.DateTimeField(help_text="Not claimed before; the next try of a retryable one.", **READ)
    created_at = serializers.DateTimeField(**READ)
    started_at = serializers.DateTimeField(allow_null=True, **READ)
    finished_at = serializers.DateTimeField(allow_null=True, **READ)


class StepRunDetailSerializer(StepRunSerializer):
    """A step with its output, its attempts and the retry policy in force."""

    child = serializers.SerializerMethodField(help_text="The latest execution that a step of kind workflow started.")
    output = serializers.SerializerMethodField()
    retry_policy = serializers.SerializerMethodField(help_text="In force, and where it comes from (`origin`).")
    attempts = AttemptSerializer(many=True, **READ)

    @extend_schema_field({"type": ["string", "null"], "format": "uuid"})
    def get_child(self, run: StepRun) -> str | None:
        kept = [attempt.progress for attempt in run.attempts.all() if attempt.progress is not None]
        found = [progress["child"] for progress in kept if "child" in progress]
        return found[-1] if found and run.kind == "workflow" else None

    @extend_schema_field({})
    def get_output(self, run: StepRun) -> Any:
        kept = getattr(run, "output", None)
        return None if kept is None else kept.data

    @extend_schema_field({"type": ["object", "null"], "additionalProperties": {}})
    def get_retry_policy(self, run: StepRun) -> dict[str, Any] | None:
        policies: dict[str, dict[str, Any]] = self.context.get("policies", {})
        return policies.get(run.name)


class ExecutionSerializer(ExecutionSummarySerializer):
    """An execution with its steps (the items of a fan-out are at `steps`)."""

    input = ObjectField(**READ)
    output = serializers.SerializerMethodField()
    retry_policy = ObjectField(allow_null=True, **READ)
    concurrency_key = serializers.CharField(**READ)
    deadline_at = serializers.DateTimeField(allow_null=True, **READ)
    steps = serializers.SerializerMethodField()

    @extend_schema_field({})
    def get_output(self, execution: Execution) -> Any:
        kept = getattr(execution, "output", None)
        return None if kept is None else kept.data

    @extend_schema_field(StepRunDetailSerializer(many=True))
    def get_steps(self, execution: Execution) -> Any:
        return StepRunDetailSerializer(self.context.get("steps", []), many=True, context=self.context).data


class PrioritySerializer(StrictSerializer):
    """Another priority."""

    priority = PriorityField()


class RerunSerializer(StrictSerializer):
    """How an execution is to be run again."""

    input = ObjectField(required=False, allow_null=True, default=None, help_text="The earlier one's when left out.")
    latest = FlagField(default=False, help_text="Run the version that is published now, not the earlier one's.")
    priority = PriorityField(required=False)


class ResumeFromFailureSerializer(StrictSerializer):
    """How an execution is to go on from its failed steps."""

    input = ObjectField(required=False, allow_null=True, default=None, help_text="Another input from here on.")
    note = TextField(required=False, allow_blank=True, max_length=500, default="")


class SucceedStepSerializer(NoteSerializer):
    """What a step is to have returned."""

    output = AnyField(required=False, allow_null=True, default=None)


class BlockerSerializer(StrictSerializer):
    """What one open step waits for."""

    step = serializers.CharField(**READ)
    step_run = serializers.UUIDField(allow_null=True, **READ)
    code = serializers.CharField(**READ)
    message = serializers.CharField(**READ)
    until = serializers.DateTimeField(allow_null=True, **READ)


class WhySerializer(StrictSerializer):
    """Why an execution does not go on."""

    state = serializers.ChoiceField(choices=ExecutionState.choices, **READ)
    summary = serializers.CharField(**READ)
    estimated_start = serializers.DateTimeField(allow_null=True, **READ)
    deadline_at = serializers.DateTimeField(allow_null=True, help_text="It is cancelled then.", **READ)
    blockers = BlockerSerializer(many=True, **READ)
