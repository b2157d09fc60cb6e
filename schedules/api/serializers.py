"""The shapes of schedules, their ledger, status and previews."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rest_framework import serializers

from execution.api.fields import PriorityField, QueueField, RetryPolicyField, WorkflowField
from execution.states import ExecutionState
from schedules.api import timing_fields
from schedules.api.change_serializers import ConflictSerializer, OnConflictField
from schedules.models import Schedule
from schedules.states import CatchUpPolicy, FireOutcome, FireReason, OnResume, OverlapPolicy, PauseKind
from schedules.timing import occurrences
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import (
    FlagField,
    InstantField,
    NumberField,
    ObjectField,
    TextField,
    WholeNumberField,
)

READ: Final[dict[str, Any]] = {"read_only": True}
INSTANT_TEXT: Final = "ISO 8601; without an offset it is local in `timezone`."
LARGEST: Final = 2**31 - 1


class TimingSerializer(StrictSerializer):
    """When: one of `cron_expression`, `interval`, `timetables` and `spec`, and what holds for all of them."""

    cron_expression = TextField(
        required=False, allow_null=True, max_length=1_000, help_text="5 to 7 fields (OCPS 1.4) or a nickname."
    )
    interval = WholeNumberField(
        required=False, allow_null=True, min_value=1, max_value=LARGEST, help_text="Seconds, anchored at 1970."
    )
    timezone = TextField(required=False, max_length=100, help_text="IANA name, such as Europe/Berlin; UTC if left out.")
    timetables = serializers.ListField(
        child=ObjectField(), required=False, allow_null=True, help_text="cron, interval, once, rrule and solar, merged."
    )
    start_date = TextField(required=False, allow_null=True, max_length=40, help_text=INSTANT_TEXT)
    end_date = TextField(required=False, allow_null=True, max_length=40, help_text=INSTANT_TEXT)
    dst_gap = serializers.ChoiceField(choices=["fire_at_end", "skip"], required=False)
    dst_overlap = serializers.ChoiceField(choices=["first", "last", "both"], required=False)
    jitter = WholeNumberField(required=False, min_value=0, max_value=604_800, help_text="Seconds at most.")
    calendars = ObjectField(required=False, allow_null=True, help_text="Calendars that exclude, allow only, or shift.")
    blackouts = serializers.ListField(child=ObjectField(), required=False, allow_null=True)
    spec = ObjectField(required=False, allow_null=True, help_text="All of this as one document, in its canonical form.")

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        twice = timing_fields.contradictions(values)
        if twice:
            raise serializers.ValidationError(twice)
        return values


class PauseStateSerializer(StrictSerializer):
    """Why a schedule does not fire."""

    kind = serializers.ChoiceField(source="pause_kind", choices=[("", "Not paused"), *PauseKind.choices], **READ)
    note = serializers.CharField(source="pause_note", **READ)
    since = serializers.DateTimeField(source="paused_at", allow_null=True, **READ)
    until = serializers.DateTimeField(source="paused_until", allow_null=True, **READ)
    on_resume = serializers.ChoiceField(choices=OnResume.choices, **READ)


class ScheduleSerializer(TimingSerializer):
    """A schedule: what runs, when, and by which rules."""

    id = serializers.UUIDField(**READ)
    name = TextField(max_length=200)
    workflow = WorkflowField()
    workflow_name = serializers.CharField(source="workflow.name", **READ)
    enabled = FlagField(required=False)
    description = TextField(required=False, allow_blank=True, max_length=10_000)
    owner = TextField(required=False, allow_blank=True, max_length=200)
    labels = ObjectField(required=False, help_text="Names and texts.")
    metadata = ObjectField(required=False, help_text="Anything; kept and given back.")
    external_id = TextField(required=False, allow_null=True, max_length=200, help_text="Its name in another system.")
    input = ObjectField(required=False, help_text="Every execution's input.")
    priority = PriorityField(required=False)
    queue = QueueField(required=False, allow_blank=True, allow_null=True)
    retry_policy = RetryPolicyField(required=False, allow_null=True)
    timeout = NumberField(required=False, allow_null=True, max_value=31_536_000, help_text="Seconds per execution.")
    concurrency_key = TextField(required=False, allow_blank=True, max_length=255)
    overlap_policy = serializers.ChoiceField(choices=OverlapPolicy.choices, required=False)
    catch_up = serializers.ChoiceField(choices=CatchUpPolicy.choices, required=False)
    catch_up_window = WholeNumberField(
        required=False, allow_null=True, min_value=0, max_value=LARGEST, help_text="Seconds; null: the default."
    )
    max_executions = WholeNumberField(required=False, allow_null=True, min_value=1, max_value=LARGEST)
    pause_on_failure = WholeNumberField(
        required=False, allow_null=True, min_value=1, max_value=LARGEST, help_text="Failures in a row."
    )
    on_conflict = OnConflictField(
        required=False, help_text="ignore, warn or reject conflicts: in one word, or per kind and default."
    )
    note = TextField(write_only=True, required=False, allow_blank=True, max_length=500)

    timing = serializers.SerializerMethodField(help_text="When it fires, in words.")
    pause = PauseStateSerializer(source="*", **READ)
    next_fire_at = serializers.DateTimeField(allow_null=True, **READ)
    last_fire_at = serializers.DateTimeField(allow_null=True, **READ)
    fired_through = serializers.DateTimeField(help_text="Every instant up to here is in the ledger.", **READ)
    started_count = serializers.IntegerField(**READ)
    consecutive_failures = serializers.IntegerField(**READ)
    version = serializers.SerializerMethodField()
    revision = serializers.IntegerField(**READ)
    created_at = serializers.DateTimeField(**READ)
    updated_at = serializers.DateTimeField(**READ)

    def to_representation(self, instance: Schedule) -> dict[str, Any]:
        spec = instance.version.spec if instance.version else {}
        for name, value in timing_fields.flat_of(spec).items():
            setattr(instance, name, value)
        instance.spec = spec  # type: ignore[attr-defined]
        return dict(super().to_representation(instance))

    def get_timing(self, schedule: Schedule) -> str:
        if schedule.version is None:
            return ""
        return occurrences.compile(schedule.version.spec, seed=str(schedule.pk)).describe()

    def get_version(self, schedule: Schedule) -> int:
        return schedule.version.number if schedule.version else 0


class PauseSerializer(StrictSerializer):
    """How a schedule is to be paused."""

    note = TextField(required=False, allow_blank=True, max_length=500, default="")
    until = InstantField(required=False, allow_null=True, default=None, help_text="When it goes on by itself.")
    on_resume = serializers.ChoiceField(
        choices=OnResume.choices, default=OnResume.SKIP, help_text="What then happens with what it covered."
    )


class ResumeSerializer(StrictSerializer):
    """How a schedule is to go on."""

    missed = serializers.ChoiceField(
        choices=OnResume.choices, default=OnResume.SKIP, help_text="What happens with the instants it was paused for."
    )
    note = TextField(required=False, allow_blank=True, max_length=500, default="")


class TriggerSerializer(StrictSerializer):
    """One execution beside the timetable."""

    input = ObjectField(required=False, allow_null=True, default=None, help_text="The schedule's when left out.")
    priority = PriorityField(required=False)
    idempotency_key = TextField(required=False, allow_null=True, max_length=255, default=None)
    note = TextField(required=False, allow_blank=True, max_length=500, default="")


class HistorySerializer(StrictSerializer):
    """One entry of the ledger, or an execution that somebody triggered beside the timetable (`kind`: manual)."""

    id = serializers.CharField(**READ)
    kind = serializers.ChoiceField(choices=["fire", "manual"], **READ)
    scheduled_for = serializers.DateTimeField(help_text="The instant, or when it was triggered.", **READ)
    until = serializers.DateTimeField(allow_null=True, help_text="Last instant of a run of them.", **READ)
    count = serializers.IntegerField(help_text="How many instants it stands for.", **READ)
    due_at = serializers.DateTimeField(allow_null=True, help_text="With its jitter.", **READ)
    outcome = serializers.ChoiceField(choices=FireOutcome.choices, **READ)
    reason = serializers.ChoiceField(choices=FireReason.choices, **READ)
    note = serializers.CharField(**READ)
    version = serializers.IntegerField(allow_null=True, **READ)
    execution = serializers.UUIDField(source="execution_id", allow_null=True, **READ)
    execution_state = serializers.ChoiceField(choices=ExecutionState.choices, allow_null=True, **READ)
    started_at = serializers.DateTimeField(allow_null=True, help_text="Of the execution.", **READ)
    finished_at = serializers.DateTimeField(allow_null=True, help_text="Of the execution.", **READ)
    recorded_at = serializers.DateTimeField(**READ)


class HistoryQuerySerializer(StrictSerializer):
    """Which entries of a history are wanted."""

    outcome = serializers.ChoiceField(choices=FireOutcome.choices, required=False)
    reason = serializers.ChoiceField(choices=FireReason.choices, required=False)
    execution_state = serializers.ChoiceField(choices=ExecutionState.choices, required=False)
    since = InstantField(required=False, help_text="From this instant on.")
    until = InstantField(required=False, help_text="Up to this instant.")
    cursor = TextField(required=False, max_length=200, help_text="Where to go on; part of `next`.")


def history_query(given: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a history without those of its page."""
    return {name: text for name, text in given.items() if name not in {"limit", "page_size"}}


class PreviewRequestSerializer(TimingSerializer):
    """When, and how many fires are to be shown."""

    count = WholeNumberField(default=10, min_value=1, max_value=500)
    after = InstantField(required=False, help_text="From here on; from now on when left out.")


class PreviewFireSerializer(StrictSerializer):
    """One fire to come."""

    local = serializers.CharField(**READ)
    utc = serializers.DateTimeField(**READ)
    due = serializers.DateTimeField(help_text="With its jitter.", **READ)
    change = serializers.CharField(help_text="What a change of clocks did to it.", **READ)


class PreviewSerializer(StrictSerializer):
    """What a schedule will do."""

    description = serializers.CharField(**READ)
    timezone = serializers.CharField(**READ)
    tzdata = serializers.CharField(**READ)
    spec = ObjectField(**READ)
    next = PreviewFireSerializer(many=True, **READ)
    skipped = serializers.ListField(child=ObjectField(), **READ)
    warnings = serializers.ListField(child=ObjectField(), **READ)


class StatusSerializer(StrictSerializer):
    """How a schedule is doing."""

    id = serializers.UUIDField(**READ)
    name = serializers.CharField(**READ)
    state = serializers.ChoiceField(choices=["active", "paused", "finished", "error", "stopped"], **READ)
    enabled = FlagField(**READ)
    pause = PauseStateSerializer(allow_null=True, **READ)
    next_fire_at = serializers.DateTimeField(allow_null=True, **READ)
    next_fires = PreviewFireSerializer(many=True, **READ)
    overdue_seconds = serializers.FloatField(help_text="How long the next fire has been due.", **READ)
    last_fire_at = serializers.DateTimeField(allow_null=True, help_text="The latest instant that started.", **READ)
    last_fire = HistorySerializer(allow_null=True, **READ)
    last_execution = ObjectField(allow_null=True, **READ)
    last_outcome = serializers.ChoiceField(
        choices=ExecutionState.choices, allow_null=True, help_text="Of its latest execution that has ended.", **READ
    )
    open_executions = serializers.IntegerField(**READ)
    running = serializers.ListField(
        child=serializers.UUIDField(), help_text="Executions that have not ended, the oldest ten.", **READ
    )
    buffered = serializers.IntegerField(help_text="Instants that wait for the previous run to end.", **READ)
    backfills = serializers.ListField(child=serializers.UUIDField(), help_text="Those that run.", **READ)
    started_count = serializers.IntegerField(**READ)
    remaining = serializers.IntegerField(allow_null=True, help_text="Until max_executions.", **READ)
    consecutive_failures = serializers.IntegerField(**READ)
    last_day = ObjectField(help_text="Instants of the last 24 hours by outcome.", **READ)
    lateness = ObjectField(help_text="Seconds from due to taken in the last 24 hours: p50, p95, max.", **READ)
    periodic_task = ObjectField(allow_null=True, **READ)


class StatsSerializer(StrictSerializer):
    """How all schedules are doing."""

    total = serializers.IntegerField(**READ)
    by_state = ObjectField(**READ)
    overdue = serializers.IntegerField(help_text="Due for more than 10 seconds.", **READ)
    next_fire_at = serializers.DateTimeField(allow_null=True, **READ)
    firing_stopped = FlagField(**READ)
    last_day = ObjectField(help_text="Instants recorded and executions started in the last 24 hours.", **READ)
    executions = ObjectField(
        help_text="Of all sources: open ones by state; last_hour, last_day: ended by state, success_rate, per_minute.",
        **READ,
    )
    lateness = ObjectField(help_text="Seconds from due to taken: last_hour, last_day: p50, p95, max.", **READ)
    queues = serializers.ListField(child=ObjectField(), help_text="Depths, workers and slots.", **READ)
    backfills = serializers.IntegerField(help_text="Those that run.", **READ)
    ledger = ObjectField(allow_null=True, help_text="The latest audit of the ledger, null before the first.", **READ)


class ScheduleVersionSerializer(StrictSerializer):
    """What a schedule said about time from an instant on."""

    id = serializers.UUIDField(**READ)
    number = serializers.IntegerField(**READ)
    effective_from = serializers.DateTimeField(**READ)
    spec = ObjectField(**READ)
    tzdata = serializers.CharField(**READ)
    created_by = serializers.CharField(**READ)
    created_at = serializers.DateTimeField(**READ)


class ForecastQuerySerializer(StrictSerializer):
    """The range of a forecast, and its buckets."""

    to = InstantField(required=False, help_text="The end (excluded), at most 400 days later; a day if left out.")
    bucket = TextField(
        default="hour", max_length=10, help_text="minute, hour, day, or a number of minutes; at most 5,000 buckets."
    )
    timezone = TextField(default="UTC", max_length=100, help_text="Where days begin.")
    paused = serializers.ChoiceField(
        choices=["true", "false"], default="false", help_text="Count paused ones as if they were active."
    )

    def get_fields(self) -> dict[str, Any]:
        begin = InstantField(required=False, help_text="The beginning (included); now if left out.")
        return {"from": begin, **super().get_fields()}


class ForecastBucketSerializer(StrictSerializer):
    """One bucket of a forecast."""

    start = serializers.DateTimeField(**READ)
    end = serializers.DateTimeField(help_text="Excluded.", **READ)
    count = serializers.IntegerField(**READ)


class ForecastPeakSerializer(StrictSerializer):
    """An instant at which many fire."""

    at = serializers.DateTimeField(**READ)
    count = serializers.IntegerField(**READ)


class ForecastWorkflowSerializer(StrictSerializer):
    """A workflow's share of a forecast."""

    workflow = serializers.UUIDField(**READ)
    workflow_name = serializers.CharField(**READ)
    count = serializers.IntegerField(**READ)


class ForecastQueueSerializer(StrictSerializer):
    """A queue's share of a forecast."""

    queue = serializers.CharField(**READ)
    count = serializers.IntegerField(**READ)


class ForecastScheduleSerializer(StrictSerializer):
    """A schedule's share of a forecast."""

    schedule = serializers.UUIDField(**READ)
    name = serializers.CharField(**READ)
    count = serializers.IntegerField(**READ)


class ForecastSerializer(StrictSerializer):
    """What the schedules have coming."""

    to = serializers.DateTimeField(**READ)
    bucket = serializers.CharField(**READ)
    timezone = serializers.CharField(**READ)
    schedules = serializers.IntegerField(help_text="How many were counted.", **READ)
    failed = serializers.IntegerField(help_text="How many could not be computed.", **READ)
    total = serializers.IntegerField(**READ)
    buckets = ForecastBucketSerializer(many=True, help_text="All of them, in order.", **READ)
    busiest = ForecastBucketSerializer(many=True, help_text="The fullest ten.", **READ)
    peaks = ForecastPeakSerializer(many=True, help_text="The fullest instants of the fullest bucket.", **READ)
    by_workflow = ForecastWorkflowSerializer(many=True, **READ)
    by_queue = ForecastQueueSerializer(many=True, **READ)
    by_schedule = ForecastScheduleSerializer(many=True, help_text="The ten with the most.", **READ)

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.DateTimeField(**READ), **super().get_fields()}


class CalendarSerializer(StrictSerializer):
    """A named set of days, shared by schedules."""

    id = serializers.IntegerField(**READ)
    name = TextField(max_length=200)
    description = TextField(required=False, allow_blank=True, max_length=500)
    definition = ObjectField(help_text="Kind and data: holidays, dates, weekly, union, intersection …")
    kind = serializers.CharField(**READ)
    revision = serializers.IntegerField(**READ)
    created_at = serializers.DateTimeField(**READ)
    updated_at = serializers.DateTimeField(**READ)


class CalendarAppliedSerializer(StrictSerializer):
    """Which schedules took a calendar's present definition."""

    updated = serializers.ListField(child=serializers.UUIDField(), **READ)
    refused = serializers.ListField(child=ObjectField(), **READ)


class SwitchSerializer(StrictSerializer):
    """The switch that stops and starts all firing. What is due meanwhile is kept as a debt."""

    stopped = FlagField()
    note = TextField(required=False, allow_blank=True, max_length=500, default="")
    stopped_at = serializers.DateTimeField(allow_null=True, **READ)
    stopped_by = serializers.CharField(**READ)


class SavedScheduleSerializer(ScheduleSerializer):
    """A schedule that has just been saved, with the conflicts that are worth a word."""

    warnings = ConflictSerializer(many=True, **READ)


class CloneSerializer(StrictSerializer):
    """The name of the new schedule, and in what else it differs."""

    name = TextField(max_length=200)
    changes = ObjectField(required=False, default=dict, help_text="As in PATCH.")
