"""The shapes of workflows, their versions and the tasks that may be steps."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from execution.api.fields import PriorityField, QueueField, RetryPolicyField
from execution.api.serializers.common import READ
from execution.models import Workflow
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import AnyField, FlagField, ObjectField, TextField


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
