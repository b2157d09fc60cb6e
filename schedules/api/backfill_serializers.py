"""The shapes of backfills."""

from __future__ import annotations

from rest_framework import serializers

from execution.api.fields import PriorityField
from execution.states import ExecutionState
from schedules.api.serializers import LARGEST, READ
from schedules.states import BackfillOrder, BackfillState
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import FlagField, InstantField, ObjectField, TextField, WholeNumberField


class BackfillRequestSerializer(StrictSerializer):
    """Which past instants are to run, and how fast."""

    since = InstantField(help_text="The first instant, included.")
    until = InstantField(help_text="The last instant, included; never beyond what the schedule has fired through.")
    gaps_only = FlagField(default=True, help_text="Only instants that did not start; false: all of them once more.")
    ignore_calendars = FlagField(default=False, help_text="Also instants that calendars or blackouts keep from firing.")
    order = serializers.ChoiceField(choices=BackfillOrder.choices, default=BackfillOrder.OLDEST)
    max_running = WholeNumberField(
        default=1, min_value=1, max_value=10_000, help_text="Executions of it that run at once."
    )
    per_minute = WholeNumberField(
        required=False, allow_null=True, default=None, min_value=1, max_value=LARGEST, help_text="Starts in a minute."
    )
    priority = PriorityField(required=False, help_text="The schedule's, lowered by 3, when left out.")
    input = ObjectField(required=False, allow_null=True, default=None, help_text="Instead of the schedule's.")
    note = TextField(required=False, allow_blank=True, max_length=500, default="")
    dry_run = FlagField(default=False, help_text="Only count and estimate: nothing starts.")


class ShareSerializer(StrictSerializer):
    """What a backfill takes of a queue's or pool's slots while it runs."""

    name = serializers.CharField(**READ)
    steps = serializers.ListField(child=serializers.CharField(), help_text="Steps that go there.", **READ)
    used = serializers.IntegerField(help_text="Slots that it takes at most.", **READ)
    slots = serializers.IntegerField(help_text="Slots that there are now.", **READ)
    share = serializers.FloatField(allow_null=True, help_text="0 to 1; null without slots.", **READ)


class BackfillPlanSerializer(StrictSerializer):
    """What a backfill would do and cost."""

    since = serializers.DateTimeField(**READ)
    until = serializers.DateTimeField(help_text="Bounded by what the schedule has fired through.", **READ)
    instants = serializers.IntegerField(help_text="Executions that it would start.", **READ)
    excluded = serializers.IntegerField(help_text="Instants left out by calendars and blackouts.", **READ)
    ran = serializers.IntegerField(help_text="Instants of the range that started before.", **READ)
    first = serializers.DateTimeField(allow_null=True, **READ)
    last = serializers.DateTimeField(allow_null=True, **READ)
    priority = serializers.IntegerField(**READ)
    max_running = serializers.IntegerField(**READ)
    per_minute = serializers.IntegerField(allow_null=True, **READ)
    seconds = serializers.FloatField(
        allow_null=True, help_text="How long it takes at least; null when nothing is known.", **READ
    )
    run_seconds = serializers.FloatField(
        allow_null=True, help_text="Median duration of the schedule's latest successful executions.", **READ
    )
    step_runs = serializers.IntegerField(help_text="Steps for workers, before retries and fan-out.", **READ)
    queues = ShareSerializer(many=True, **READ)
    pools = ShareSerializer(many=True, **READ)


class BackfillSerializer(StrictSerializer):
    """Past instants of a schedule that run after all."""

    id = serializers.UUIDField(**READ)
    schedule = serializers.UUIDField(source="schedule_id", **READ)
    schedule_name = serializers.CharField(source="schedule.name", **READ)
    state = serializers.ChoiceField(choices=BackfillState.choices, **READ)
    since = serializers.DateTimeField(**READ)
    until = serializers.DateTimeField(**READ)
    gaps_only = FlagField(**READ)
    ignore_calendars = FlagField(**READ)
    order = serializers.ChoiceField(choices=BackfillOrder.choices, **READ)
    max_running = serializers.IntegerField(**READ)
    per_minute = serializers.IntegerField(allow_null=True, **READ)
    priority = serializers.IntegerField(**READ)
    input = ObjectField(allow_null=True, **READ)
    note = serializers.CharField(**READ)
    total = serializers.IntegerField(help_text="Instants to start, as counted at the beginning.", **READ)
    started = serializers.IntegerField(**READ)
    passed = serializers.IntegerField(help_text="Instants that turned out to need nothing.", **READ)
    remaining = serializers.IntegerField(**READ)
    cursor = serializers.DateTimeField(allow_null=True, help_text="The instant that was looked at last.", **READ)
    error = serializers.CharField(help_text="Why it failed.", **READ)
    created_by = serializers.CharField(**READ)
    created_at = serializers.DateTimeField(**READ)
    finished_at = serializers.DateTimeField(allow_null=True, **READ)


class BackfillDetailSerializer(BackfillSerializer):
    """A backfill with what became of its executions."""

    executions = ObjectField(help_text="running, succeeded, failed, cancelled.", **READ)


class BackfillFireSerializer(StrictSerializer):
    """An instant that a backfill started."""

    scheduled_for = serializers.DateTimeField(**READ)
    started_at = serializers.DateTimeField(**READ)
    execution = serializers.UUIDField(source="execution_id", allow_null=True, **READ)
    execution_state = serializers.ChoiceField(
        source="execution.state", choices=ExecutionState.choices, allow_null=True, default=None, **READ
    )


class BackfillCancelSerializer(StrictSerializer):
    """How a backfill is to end."""

    stop_running = FlagField(default=False, help_text="Also cancel its executions that still run.")
    note = TextField(required=False, allow_blank=True, max_length=500, default="")
