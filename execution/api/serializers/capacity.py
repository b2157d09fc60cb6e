"""The shapes of pools and concurrency keys, and of who uses them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from execution.api.serializers.common import READ
from execution.models import Pool
from execution.pools import MOST_SLOTS
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import TextField, WholeNumberField


class UserSerializer(StrictSerializer):
    """Somebody who holds a part of it, or waits for it."""

    execution = serializers.UUIDField(**READ)
    workflow = serializers.CharField(**READ)
    step_run = serializers.UUIDField(allow_null=True, **READ)
    label = serializers.CharField(**READ)  # type: ignore[assignment]
    units = serializers.IntegerField(**READ)
    priority = serializers.IntegerField(**READ)
    since = serializers.DateTimeField(allow_null=True, **READ)


class _UsedSerializer(StrictSerializer):
    holders = serializers.SerializerMethodField()
    waiters = serializers.SerializerMethodField(help_text="In the order in which they will get it.")

    @extend_schema_field(UserSerializer(many=True))
    def get_holders(self, subject: Any) -> Any:
        return UserSerializer(self.context.get("holders", []), many=True).data

    @extend_schema_field(UserSerializer(many=True))
    def get_waiters(self, subject: Any) -> Any:
        return UserSerializer(self.context.get("waiters", []), many=True).data


class PoolSerializer(StrictSerializer):
    """A pool and how full it is."""

    id = serializers.CharField(source="name", **READ)
    name = serializers.CharField(**READ)
    description = serializers.CharField(**READ)
    slots = serializers.IntegerField(**READ)
    used = serializers.IntegerField(**READ)
    free = serializers.IntegerField(**READ)
    waiting = serializers.SerializerMethodField(help_text="Step runs that wait for it.")
    updated_at = serializers.DateTimeField(**READ)

    def get_waiting(self, pool: Pool) -> int:
        counts: dict[str, int] = self.context.get("waiting", {})
        return counts.get(pool.name, 0)


class PoolDetailSerializer(PoolSerializer, _UsedSerializer):
    """A pool with those who use it."""


class PoolCreateSerializer(StrictSerializer):
    """A new pool."""

    name = TextField(max_length=100)
    slots = WholeNumberField(min_value=0, max_value=MOST_SLOTS)
    description = TextField(required=False, allow_blank=True, max_length=500, default="")


class PoolUpdateSerializer(StrictSerializer):
    """What is to change of a pool."""

    slots = WholeNumberField(required=False, min_value=0, max_value=MOST_SLOTS)
    description = TextField(required=False, allow_blank=True, max_length=500)


class ConcurrencyKeySerializer(StrictSerializer):
    """A concurrency key and how full it is."""

    id = serializers.CharField(source="key", **READ)
    key = serializers.CharField(**READ)
    limit = serializers.IntegerField(**READ)
    used = serializers.IntegerField(**READ)
    updated_at = serializers.DateTimeField(**READ)


class ConcurrencyKeyDetailSerializer(ConcurrencyKeySerializer, _UsedSerializer):
    """A concurrency key with those who use it."""
