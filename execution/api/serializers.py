"""The shapes of workflows, executions, step runs, attempts, dead letters and queues."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from execution import dead_letters
from execution.api.fields import PriorityField, QueueField, RetryPolicyField, WorkflowField
from execution.models import Attempt, DeadLetter, Execution, StepRun, Workflow
from execution.states import AttemptState, DeadLetterState, ExecutionState, StepState, WaitingFor
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import (
    AnyField,
    FlagField,
    InstantField,
    NumberField,
    ObjectField,
    TextField,
    WholeNumberField,
)

READ: dict[str, Any] = {"read_only": True}


# ── Workflows ────────────────────────────────────────────────────────────────────────────────────────────────


class WorkflowVersionSerializer(StrictSerializer):
    """One version of a workflow."""

    id = serializers.UUIDField(**READ)
    number = serializers.IntegerField(**READ)
    definition = ObjectField(**READ)
    note = serializers.CharField(**READ)
    published_at = serializers.DateTimeField(allow_null=True, **READ)
    created_at = serializers.DateTimeField(**READ)
    created_by = serializers.CharField(**READ)


class WorkflowSummarySerializer(StrictSerializer):
    """A workflow in a list: everything but its definition."""

    id = serializers.UUIDField(**READ)
    name = TextField(max_length=200)
    description = TextField(required=False, allow_blank=True, max_length=20_000)
    labels = ObjectField(required=False)
    priority = PriorityField(required=False)
    queue = QueueField(required=False)
    retry_policy = RetryPolicyField(required=False, allow_null=True)
    version = serializers.IntegerField(source="published.number", allow_null=True, default=None, **READ)
    published_at = serializers.DateTimeField(source="published.published_at", allow_null=True, default=None, **READ)
    revision = serializers.IntegerField(**READ)
    created_at = serializers.DateTimeField(**READ)
    updated_at = serializers.DateTimeField(**READ)


class WorkflowSerializer(WorkflowSummarySerializer):
    """A workflow with the definition that new executions run (of a draft: its latest one)."""

    definition = ObjectField(source="shown_definition")
    note = TextField(write_only=True, required=False, allow_blank=True, max_length=500)

    def to_representation(self, instance: Workflow) -> dict[str, Any]:
        latest = instance.published or instance.versions.order_by("-number").first()
        instance.shown_definition = latest.definition if latest else {}  # type: ignore[attr-defined]
        return dict(super().to_representation(instance))


class WorkflowCreateSerializer(WorkflowSerializer):
    """A new workflow. With ``draft`` nothing can be started before a version is published."""

    draft = FlagField(write_only=True, default=False)


class DraftSerializer(StrictSerializer):
    """A version to be."""

    definition = ObjectField()
    note = TextField(required=False, allow_blank=True, max_length=500, default="")


class NoteSerializer(StrictSerializer):
    """Why, for the audit trail."""

    note = TextField(required=False, allow_blank=True, max_length=500, default="")


class ChangeSerializer(StrictSerializer):
    """One difference between two definitions."""

    path = serializers.CharField(**READ)
    kind = serializers.ChoiceField(choices=["added", "removed", "changed"], **READ)
    before = AnyField(allow_null=True, **READ)
    after = AnyField(allow_null=True, **READ)


class StepTaskSerializer(StrictSerializer):
    """A Celery task that may be a step."""

    name = serializers.CharField(**READ)
    signature = serializers.CharField(**READ)
    doc = serializers.CharField(**READ)
    retry_policy = ObjectField(allow_null=True, **READ)


# ── Executions ───────────────────────────────────────────────────────────────────────────────────────────────


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

    output = serializers.SerializerMethodField()
    retry_policy = serializers.SerializerMethodField(help_text="In force, and where it comes from (`origin`).")
    attempts = AttemptSerializer(many=True, **READ)

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


class ReasonSerializer(StrictSerializer):
    """Why, for those who look later."""

    reason = TextField(required=False, allow_blank=True, max_length=400, default="")


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
    blockers = BlockerSerializer(many=True, **READ)


# ── Dead letters ─────────────────────────────────────────────────────────────────────────────────────────────


class DeadLetterSummarySerializer(StrictSerializer):
    """A dead letter in a list."""

    id = serializers.UUIDField(**READ)
    execution = serializers.UUIDField(source="execution_id", **READ)
    step_run = serializers.UUIDField(source="step_run_id", allow_null=True, **READ)
    workflow = serializers.UUIDField(source="workflow_id", **READ)
    workflow_name = serializers.CharField(source="workflow.name", **READ)
    step = serializers.CharField(source="step_name", **READ)
    state = serializers.ChoiceField(choices=DeadLetterState.choices, **READ)
    reason = serializers.CharField(**READ)
    error_type = serializers.CharField(**READ)
    error = serializers.CharField(**READ)
    fingerprint = serializers.CharField(**READ)
    attempts = serializers.IntegerField(**READ)
    worker = serializers.CharField(**READ)
    note = serializers.CharField(**READ)
    redrives = serializers.IntegerField(**READ)
    redrive_execution = serializers.UUIDField(source="redrive_execution_id", allow_null=True, **READ)
    created_at = serializers.DateTimeField(**READ)
    decided_at = serializers.DateTimeField(allow_null=True, **READ)
    decided_by = serializers.CharField(**READ)


class AuditEntrySerializer(StrictSerializer):
    """Who did what to what."""

    id = serializers.IntegerField(**READ)
    actor = serializers.CharField(**READ)
    action = serializers.CharField(**READ)
    subject_kind = serializers.CharField(**READ)
    subject_id = serializers.CharField(**READ)
    subject_label = serializers.CharField(**READ)
    note = serializers.CharField(**READ)
    changes = ObjectField(**READ)
    created_at = serializers.DateTimeField(**READ)


class DeadLetterSerializer(DeadLetterSummarySerializer):
    """A dead letter with its whole story: input, traceback, attempts, and what people did."""

    traceback = serializers.CharField(**READ)
    step_input = AnyField(allow_null=True, **READ)
    input = ObjectField(source="execution.input", **READ)
    version = serializers.IntegerField(source="execution.version.number", **READ)
    history = serializers.SerializerMethodField()
    story = serializers.SerializerMethodField()

    @extend_schema_field(AttemptSerializer(many=True))
    def get_history(self, letter: DeadLetter) -> Any:
        if letter.step_run_id is None:
            return []
        attempts = Attempt.objects.filter(step_run=letter.step_run_id).select_related("step_run").order_by("number")
        return AttemptSerializer(attempts, many=True).data

    @extend_schema_field(AuditEntrySerializer(many=True))
    def get_story(self, letter: DeadLetter) -> Any:
        return AuditEntrySerializer(self.context.get("story", []), many=True).data


class RedriveSerializer(ResumeFromFailureSerializer):
    """How the work behind a letter is to be tried again."""

    mode = serializers.ChoiceField(
        choices=dead_letters.MODES, default="resume", help_text="From the failed step, or from the start."
    )
    latest = FlagField(default=False, help_text="With restart: run the version that is published now.")


class SelectionSerializer(StrictSerializer):
    """Which open letters: those that satisfy all that is given. Nothing at all is refused."""

    ids = serializers.ListField(child=serializers.UUIDField(), required=False, max_length=dead_letters.BULK_LIMIT)
    fingerprint = TextField(required=False, max_length=64)
    workflow = WorkflowField(required=False)
    step = TextField(required=False, max_length=100)
    error_type = TextField(required=False, max_length=300)
    before = InstantField(required=False)
    limit = WholeNumberField(default=100, min_value=1, max_value=dead_letters.BULK_LIMIT)
    note = TextField(required=False, allow_blank=True, max_length=500, default="")

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        if not {"ids", "fingerprint", "workflow", "step", "error_type", "before"} & values.keys():
            raise serializers.ValidationError("name some letters: by ids, fingerprint, workflow, step or error_type")
        return values


class BulkRedriveSerializer(SelectionSerializer):
    """Which letters are to be redriven, and how."""

    mode = serializers.ChoiceField(choices=dead_letters.MODES, default="resume")
    input = ObjectField(required=False, allow_null=True, default=None)


class RefusedSerializer(StrictSerializer):
    """A letter that could not be decided, and why."""

    id = serializers.UUIDField(**READ)
    reason = serializers.CharField(**READ)


class BulkResultSerializer(StrictSerializer):
    """What became of many letters; `left` are open ones of the selection beyond the limit."""

    done = serializers.ListField(child=serializers.UUIDField(), **READ)
    refused = RefusedSerializer(many=True, **READ)
    left = serializers.IntegerField(**READ)


class GroupSerializer(StrictSerializer):
    """Letters that share a fingerprint."""

    fingerprint = serializers.CharField(**READ)
    count = serializers.IntegerField(**READ)
    first_at = serializers.DateTimeField(**READ)
    last_at = serializers.DateTimeField(**READ)
    example = serializers.UUIDField(source="example_id", **READ)
    workflow = serializers.UUIDField(source="workflow_id", **READ)
    workflow_name = serializers.CharField(**READ)
    step = serializers.CharField(source="step_name", **READ)
    error_type = serializers.CharField(**READ)
    error = serializers.CharField(**READ)


# ── Queues and processes ─────────────────────────────────────────────────────────────────────────────────────


class LevelSerializer(StrictSerializer):
    """One priority of a queue."""

    priority = serializers.IntegerField(**READ)
    waiting = serializers.IntegerField(**READ)
    in_flight = serializers.IntegerField(**READ)
    running = serializers.IntegerField(**READ)
    later = serializers.IntegerField(**READ)
    oldest_at = serializers.DateTimeField(allow_null=True, **READ)


class QueueSerializer(StrictSerializer):
    """A queue: waiting in Postgres, in flight in Redis, running with workers, due later."""

    id = serializers.CharField(source="name", **READ)
    name = serializers.CharField(**READ)
    paused = serializers.SerializerMethodField()
    paused_at = serializers.DateTimeField(allow_null=True, **READ)
    paused_by = serializers.CharField(**READ)
    pause_note = serializers.CharField(**READ)
    workers = serializers.IntegerField(**READ)
    slots = serializers.IntegerField(**READ)
    waiting = serializers.SerializerMethodField()
    in_flight = serializers.SerializerMethodField()
    running = serializers.SerializerMethodField()
    later = serializers.SerializerMethodField()
    oldest_at = serializers.DateTimeField(allow_null=True, **READ)
    levels = LevelSerializer(many=True, **READ)

    def get_paused(self, state: Any) -> bool:
        return state.paused_at is not None

    def get_waiting(self, state: Any) -> int:
        return int(state.total("waiting"))

    def get_in_flight(self, state: Any) -> int:
        return int(state.total("in_flight"))

    def get_running(self, state: Any) -> int:
        return int(state.total("running"))

    def get_later(self, state: Any) -> int:
        return int(state.total("later"))


class ProcessSerializer(StrictSerializer):
    """The last sign of life of a worker or a beat."""

    name = serializers.CharField(**READ)
    kind = serializers.CharField(**READ)
    host = serializers.CharField(**READ)
    pid = serializers.IntegerField(**READ)
    queues = serializers.ListField(child=serializers.CharField(), **READ)
    slots = serializers.IntegerField(**READ)
    busy = serializers.IntegerField(**READ)
    versions = ObjectField(**READ)
    alive = FlagField(**READ)
    started_at = serializers.DateTimeField(**READ)
    seen_at = serializers.DateTimeField(**READ)
    stopped_at = serializers.DateTimeField(allow_null=True, **READ)
