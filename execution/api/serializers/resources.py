"""The shapes of hosts, workers, pools and what they use."""

from __future__ import annotations

from rest_framework import serializers

from execution.api.serializers.common import READ
from execution.api.serializers.operations import STATUSES
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import FlagField, ObjectField


class HostSerializer(StrictSerializer):
    """A host (or container) with living workers, as its last report measured it."""

    name = serializers.CharField(**READ)
    workers = serializers.IntegerField(**READ)
    slots = serializers.IntegerField(**READ)
    busy = serializers.IntegerField(**READ)
    pressure = serializers.CharField(**READ)
    cpu_percent = serializers.FloatField(allow_null=True, help_text="Of all cores.", **READ)
    cores = serializers.FloatField(allow_null=True, **READ)
    memory_total = serializers.IntegerField(allow_null=True, **READ)
    memory_used = serializers.IntegerField(allow_null=True, **READ)
    memory_available = serializers.IntegerField(allow_null=True, **READ)
    memory_percent = serializers.FloatField(allow_null=True, **READ)
    load = serializers.ListField(
        child=serializers.FloatField(), allow_null=True, help_text="Of the last 1, 5 and 15 minutes.", **READ
    )
    in_container = FlagField(allow_null=True, help_text="Control groups allow less than the machine has.", **READ)


class RunningStepSerializer(StrictSerializer):
    """A step that a worker runs now."""

    step_run = serializers.UUIDField(**READ)
    execution = serializers.UUIDField(**READ)
    label = serializers.CharField(**READ)  # type: ignore[assignment]  # a field named like an option of fields
    queue = serializers.CharField(**READ)
    priority = serializers.IntegerField(**READ)
    since = serializers.DateTimeField(allow_null=True, **READ)


class WorkerSerializer(StrictSerializer):
    """A worker: how it stands, what it uses, what it runs."""

    name = serializers.CharField(**READ)
    host = serializers.CharField(**READ)
    pid = serializers.IntegerField(**READ)
    status = serializers.ChoiceField(choices=STATUSES, **READ)
    pressure = serializers.CharField(**READ)
    queues = serializers.ListField(child=serializers.CharField(), **READ)
    own_queues = serializers.ListField(child=serializers.CharField(), **READ)
    extra_queues = serializers.ListField(child=serializers.CharField(), **READ)
    slots = serializers.IntegerField(**READ)
    busy = serializers.IntegerField(**READ)
    cpu_percent = serializers.FloatField(allow_null=True, help_text="Of one core.", **READ)
    memory_bytes = serializers.IntegerField(allow_null=True, **READ)
    processes = serializers.IntegerField(allow_null=True, **READ)
    versions = ObjectField(**READ)
    started_at = serializers.DateTimeField(**READ)
    seen_at = serializers.DateTimeField(**READ)
    steps = RunningStepSerializer(many=True, **READ)


class PoolUseSerializer(StrictSerializer):
    """How full a pool is."""

    name = serializers.CharField(**READ)
    slots = serializers.IntegerField(**READ)
    used = serializers.IntegerField(**READ)
    free = serializers.IntegerField(**READ)


class AllocationSerializer(StrictSerializer):
    """Units of a pool in somebody's hand: a running step's, or a lease's of somebody outside of workflows."""

    kind = serializers.ChoiceField(choices=["step", "lease"], **READ)
    pool = serializers.CharField(**READ)
    units = serializers.IntegerField(**READ)
    holder = serializers.CharField(**READ)
    step_run = serializers.UUIDField(allow_null=True, **READ)
    execution = serializers.UUIDField(allow_null=True, **READ)
    worker = serializers.CharField(**READ)
    since = serializers.DateTimeField(allow_null=True, **READ)
    expires_at = serializers.DateTimeField(allow_null=True, **READ)


class UsagePointSerializer(StrictSerializer):
    """One worker over one stretch of time: means of shares, peaks of sizes."""

    at = serializers.DateTimeField(**READ)
    name = serializers.CharField(**READ)
    host = serializers.CharField(**READ)
    cpu_percent = serializers.FloatField(**READ)
    memory_bytes = serializers.IntegerField(**READ)
    slots = serializers.IntegerField(**READ)
    busy = serializers.FloatField(**READ)
    host_cpu_percent = serializers.FloatField(**READ)
    host_memory_used = serializers.IntegerField(**READ)
    host_memory_total = serializers.IntegerField(**READ)
    host_load = serializers.FloatField(**READ)


class ResourcesSerializer(StrictSerializer):
    """What there is and who uses it."""

    at = serializers.DateTimeField(**READ)
    hosts = HostSerializer(many=True, **READ)
    workers = WorkerSerializer(many=True, **READ)
    pools = PoolUseSerializer(many=True, **READ)
    allocations = AllocationSerializer(many=True, **READ)
    history = UsagePointSerializer(many=True, **READ)
