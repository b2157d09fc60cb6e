"""Serializer fields of the engine's own values."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from execution import definitions, priority
from execution.models import Workflow
from execution.retry import FAILURES_SCHEMA, POLICY_SCHEMA
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.fields import ObjectField, TextField

_POLICY = {**POLICY_SCHEMA, "properties": dict(POLICY_SCHEMA["properties"])}
_POLICY["properties"] |= {"retry_on": FAILURES_SCHEMA, "give_up_on": FAILURES_SCHEMA}


@extend_schema_field(
    {
        "oneOf": [
            {"type": "integer", "minimum": priority.HIGHEST, "maximum": priority.LOWEST},
            {"type": "string", "enum": list(priority.NAMES)},
        ],
        "description": "0 (first) to 9, or a name; always answered as a number.",
    }
)
class PriorityField(serializers.Field[Any, Any, Any, Any]):
    """A priority as a number 0 to 9 or by name; shown as a number."""

    def to_internal_value(self, data: Any) -> int:
        try:
            return priority.parse(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None

    def to_representation(self, value: int) -> int:
        return value


@extend_schema_field(_POLICY)
class RetryPolicyField(ObjectField):
    """A retry policy of the one schema."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        policy = super().to_internal_value(data)
        try:
            definitions.check_retry_policy(policy, at="")
        except InvalidInput as error:
            raise serializers.ValidationError(
                {path or "non_field_errors": list(rules) for path, rules in error.fields.items()}
            ) from None
        return policy


class QueueField(TextField):
    """The name of a queue that this deployment has."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=100, **options)

    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if name and name not in settings.WORKFLOW_QUEUES:
            raise serializers.ValidationError(
                f"there is no queue {name}; there are {', '.join(settings.WORKFLOW_QUEUES)}"
            )
        return name


@extend_schema_field({"type": "string", "minLength": 1, "maxLength": 200, "description": "Id or name of a workflow."})
class WorkflowField(serializers.Field[Any, Any, Any, Any]):
    """A workflow by id or name; becomes the `Workflow` with its published version. Shown as its id."""

    default_error_messages = {
        "not_text": "must be the id or name of a workflow",
        "unknown": "there is no workflow {value}",
    }

    def to_internal_value(self, data: Any) -> Workflow:
        if not isinstance(data, str) or not 1 <= len(data) <= 200:
            self.fail("not_text")
        found = find_workflow(data)
        if found is None:
            self.fail("unknown", value=data)
        return found

    def to_representation(self, value: Workflow) -> str:
        return str(value.pk)


def find_workflow(text: str) -> Workflow | None:
    """The workflow of this id or name, with its published version; None where there is none."""
    if "\0" in text:
        return None
    workflows = Workflow.objects.select_related("published")
    try:
        by_id = workflows.filter(pk=serializers.UUIDField().to_internal_value(text)).first()
    except serializers.ValidationError:
        by_id = None
    return by_id or workflows.filter(name=text).first()
