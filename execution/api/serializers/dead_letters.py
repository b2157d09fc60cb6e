"""The shapes of dead letters, their groups, and what can be decided about them."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from execution import dead_letters, letter_story
from execution.api.fields import WorkflowField
from execution.api.serializers.common import READ
from execution.api.serializers.executions import AttemptSerializer, ResumeFromFailureSerializer
from execution.api.serializers.operations import AuditEntrySerializer
from execution.models import Attempt, DeadLetter, RedriveJob
from execution.redrive_pace import stage_of
from execution.redrives import progress_of
from execution.states import DeadLetterState, RedriveItemState, RedriveJobState
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

SELECTORS: Final = frozenset({"ids", "fingerprint", "workflow", "step", "error_type", "before"})


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


class EditSerializer(StrictSerializer):
    """One value of an input that was edited."""

    path = serializers.CharField(**READ)
    kind = serializers.ChoiceField(choices=["added", "removed", "changed"], **READ)
    before = AnyField(allow_null=True, **READ)
    after = AnyField(allow_null=True, **READ)


class LetterEventSerializer(StrictSerializer):
    """Something that happened to a dead letter."""

    at = serializers.DateTimeField(**READ)
    kind = serializers.ChoiceField(choices=letter_story.KINDS, **READ)
    text = serializers.CharField(**READ)
    actor = serializers.CharField(help_text="Who did it; of an attempt its worker.", **READ)
    note = serializers.CharField(**READ)
    execution = serializers.UUIDField(allow_null=True, **READ)
    changes = EditSerializer(many=True, **READ)


class DeadLetterSerializer(DeadLetterSummarySerializer):
    """A dead letter with its whole story: input, traceback, attempts, and what people did."""

    traceback = serializers.CharField(**READ)
    step_input = AnyField(allow_null=True, **READ)
    input = ObjectField(source="execution.input", **READ)
    version = serializers.IntegerField(source="execution.version.number", **READ)
    history = serializers.SerializerMethodField()
    story = serializers.SerializerMethodField()
    timeline = serializers.SerializerMethodField(help_text="All of it in order, the earliest first.")

    @extend_schema_field(AttemptSerializer(many=True))
    def get_history(self, letter: DeadLetter) -> Any:
        if letter.step_run_id is None:
            return []
        attempts = Attempt.objects.filter(step_run=letter.step_run_id).select_related("step_run").order_by("number")
        return AttemptSerializer(attempts, many=True).data

    @extend_schema_field(AuditEntrySerializer(many=True))
    def get_story(self, letter: DeadLetter) -> Any:
        return AuditEntrySerializer(self.context.get("story", []), many=True).data

    @extend_schema_field(LetterEventSerializer(many=True))
    def get_timeline(self, letter: DeadLetter) -> Any:
        return LetterEventSerializer(letter_story.story_of(letter), many=True).data


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
        if not SELECTORS & values.keys():
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


# ── Redrive jobs ─────────────────────────────────────────────────────────────────────────────────────────────


class RedriveJobCreateSerializer(StrictSerializer):
    """Which open letters are to be redriven, how, and at what pace. Nothing at all is refused."""

    ids = serializers.ListField(child=serializers.UUIDField(), required=False, max_length=dead_letters.BULK_LIMIT)
    fingerprint = TextField(required=False, max_length=64)
    workflow = WorkflowField(required=False)
    step = TextField(required=False, max_length=100)
    error_type = TextField(required=False, max_length=300)
    before = InstantField(required=False)
    limit = WholeNumberField(required=False, allow_null=True, min_value=1, max_value=1_000_000)
    mode = serializers.ChoiceField(choices=dead_letters.MODES, default="resume")
    latest = FlagField(default=False, help_text="With restart: run the version that is published then.")
    input = ObjectField(required=False, allow_null=True, default=None, help_text="One input for all.")
    input_patch = ObjectField(
        required=False, allow_null=True, default=None, help_text="A merge patch (RFC 7396) of each one's own input."
    )
    rate_per_minute = NumberField(required=False, allow_null=True, min_value=0.001, max_value=60_000)
    canary = FlagField(default=True, help_text="One first, then ten, then all; stops when one of those fails.")
    max_failures = WholeNumberField(
        required=False, allow_null=True, default=1, min_value=1, max_value=1_000_000, help_text="Stops at so many."
    )
    note = TextField(required=False, allow_blank=True, max_length=500, default="")

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        if not SELECTORS & values.keys():
            raise serializers.ValidationError("name some letters: by ids, fingerprint, workflow, step or error_type")
        return values


class RedriveJobSerializer(StrictSerializer):
    """A redrive job and how far it is."""

    id = serializers.UUIDField(**READ)
    state = serializers.ChoiceField(choices=RedriveJobState.choices, **READ)
    state_reason = serializers.CharField(**READ)
    stage = serializers.SerializerMethodField(help_text="canary 1, canary 10 or all")
    selection = ObjectField(**READ)
    mode = serializers.ChoiceField(choices=dead_letters.MODES, **READ)
    latest = FlagField(**READ)
    input = ObjectField(allow_null=True, **READ)
    input_patch = ObjectField(allow_null=True, **READ)
    rate_per_minute = serializers.FloatField(allow_null=True, **READ)
    canary = FlagField(**READ)
    max_failures = serializers.IntegerField(allow_null=True, **READ)
    note = serializers.CharField(**READ)
    total = serializers.IntegerField(**READ)
    started = serializers.IntegerField(**READ)
    under_way = serializers.IntegerField(**READ)
    succeeded = serializers.IntegerField(**READ)
    failed = serializers.IntegerField(**READ)
    skipped = serializers.IntegerField(**READ)
    next_at = serializers.DateTimeField(**READ)
    created_by = serializers.CharField(**READ)
    created_at = serializers.DateTimeField(**READ)
    finished_at = serializers.DateTimeField(allow_null=True, **READ)

    def get_stage(self, job: RedriveJob) -> str:
        return stage_of(progress_of(job))


class RedriveItemSerializer(StrictSerializer):
    """One letter of a redrive job."""

    letter = serializers.UUIDField(source="letter_id", **READ)
    position = serializers.IntegerField(**READ)
    state = serializers.ChoiceField(choices=RedriveItemState.choices, **READ)
    reason = serializers.CharField(**READ)
    execution = serializers.UUIDField(source="execution_id", allow_null=True, **READ)
    started_at = serializers.DateTimeField(allow_null=True, **READ)
    finished_at = serializers.DateTimeField(allow_null=True, **READ)
