"""The shapes of queues, processes and the audit trail."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from execution import queue_order
from execution.api.serializers.common import READ, NoteSerializer
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import FlagField, NumberField, ObjectField

#: How a worker or a beat stands.
STATUSES = ["active", "paused", "draining", "drained", "stopped", "lost"]


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
    status = serializers.ChoiceField(choices=["active", "paused", "draining", "drained"], **READ)
    paused = serializers.SerializerMethodField()
    paused_at = serializers.DateTimeField(allow_null=True, **READ)
    paused_by = serializers.CharField(**READ)
    pause_note = serializers.CharField(**READ)
    draining_at = serializers.DateTimeField(allow_null=True, **READ)
    drained_at = serializers.DateTimeField(allow_null=True, **READ)
    age_limit = serializers.FloatField(allow_null=True, **READ)
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


class QueueUpdateSerializer(StrictSerializer):
    """What can be set for a queue."""

    age_limit = NumberField(
        required=False, allow_null=True, min_value=1, max_value=86_400, help_text="Seconds; null: none."
    )


class DemandSerializer(StrictSerializer):
    """How many slots a queue needs. Rates are per second, durations and ages in seconds."""

    queue = serializers.CharField(**READ)
    arrival_rate = serializers.FloatField(**READ)
    duration_p95 = serializers.FloatField(**READ)
    backlog = serializers.IntegerField(**READ)
    running = serializers.IntegerField(**READ)
    oldest_age = serializers.FloatField(**READ)
    age_limit = serializers.FloatField(allow_null=True, **READ)
    slots = serializers.IntegerField(**READ)
    workers = serializers.IntegerField(**READ)
    desired_slots = serializers.IntegerField(**READ)
    desired_workers = serializers.IntegerField(**READ)


class ReorderSerializer(StrictSerializer):
    """Where something that waits is to stand."""

    item = serializers.UUIDField(help_text="A step run, or an execution (its next step run in this queue).")
    place = serializers.ChoiceField(choices=queue_order.PLACES)
    other = serializers.UUIDField(required=False, allow_null=True, default=None, help_text="For before and after.")


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
    status = serializers.ChoiceField(choices=STATUSES, **READ)
    own_queues = serializers.ListField(child=serializers.CharField(), **READ)
    extra_queues = serializers.ListField(child=serializers.CharField(), **READ)
    pressure = serializers.CharField(help_text="`high`: takes only urgent work; `full`: takes none.", **READ)
    resources = ObjectField(help_text="What it and its host use, as last measured.", **READ)
    wanted_by = serializers.CharField(**READ)
    wanted_note = serializers.CharField(**READ)
    wanted_at = serializers.DateTimeField(allow_null=True, **READ)
    drained_at = serializers.DateTimeField(allow_null=True, **READ)
    started_at = serializers.DateTimeField(**READ)
    seen_at = serializers.DateTimeField(**READ)
    stopped_at = serializers.DateTimeField(allow_null=True, **READ)
    lost_at = serializers.DateTimeField(allow_null=True, **READ)


class WorkerDrainSerializer(NoteSerializer):
    """How one worker is to be drained."""

    ends = FlagField(default=False, help_text="It ends itself once it runs nothing any more.")
