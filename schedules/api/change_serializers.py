"""The shapes of what changes schedules: conflicts, previews of changes, many at once, and schedules as documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from execution.api.fields import WorkflowField
from schedules.states import ConflictCode, ConflictSeverity, OnConflict, OnResume
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import AnyField, FlagField, InstantField, ObjectField, TextField

READ: Final[dict[str, Any]] = {"read_only": True}
_POLICY: Final = {"type": "string", "enum": OnConflict.values}


@extend_schema_field(
    {
        "oneOf": [
            _POLICY,
            {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": False,
                "properties": dict.fromkeys((*ConflictCode.values, "default"), _POLICY),
            },
        ]
    }
)
class OnConflictField(AnyField):
    """What is done about conflicts: one word for all of them, or one per kind. `schedules.values` judges it."""


# ── Conflicts ────────────────────────────────────────────────────────────────────────────────────────────────


class NamedScheduleSerializer(StrictSerializer):
    """A schedule by id and name."""

    id = serializers.UUIDField(**READ)
    name = serializers.CharField(**READ)


class ConflictSerializer(StrictSerializer):
    """Something that is wrong with a schedule, or between several."""

    code = serializers.ChoiceField(choices=ConflictCode.choices, **READ)
    severity = serializers.ChoiceField(choices=ConflictSeverity.choices, **READ)
    message = serializers.CharField(help_text="In plain English.", **READ)
    schedule = NamedScheduleSerializer(allow_null=True, help_text="Whose it is; null where several share it.", **READ)
    schedules = NamedScheduleSerializer(many=True, help_text="The others, at most twenty.", **READ)
    instants = serializers.ListField(child=serializers.DateTimeField(), help_text="The first ones.", **READ)
    figures = ObjectField(help_text="What it was decided by.", **READ)


class ConflictsSerializer(StrictSerializer):
    """What was found, and how far it was looked for."""

    until = serializers.DateTimeField(**READ)
    considered = serializers.IntegerField(help_text="How many schedules it was compared with.", **READ)
    truncated = FlagField(help_text="A bound was reached: there may be more.", **READ)
    failed = serializers.IntegerField(help_text="How many schedules could not be computed.", **READ)
    conflicts = ConflictSerializer(many=True, **READ)

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.DateTimeField(**READ), **super().get_fields()}


class ConflictQuerySerializer(StrictSerializer):
    """How far ahead conflicts are looked for, and which are shown."""

    hours = serializers.IntegerField(required=False, min_value=1, max_value=744, help_text="24 if left out.")
    code = serializers.ChoiceField(choices=ConflictCode.choices, required=False)
    severity = serializers.ChoiceField(choices=ConflictSeverity.choices, required=False)


# ── Changes before they are made ─────────────────────────────────────────────────────────────────────────────


class PreviewChangeSerializer(StrictSerializer):
    """A change that is not made: `changes` are the fields of a PATCH, the others are those of pause and resume."""

    action = serializers.ChoiceField(choices=["update", "pause", "resume", "delete"], default="update")
    changes = ObjectField(required=False, default=dict, help_text="For update: as in PATCH.")
    until = InstantField(required=False, allow_null=True, default=None, help_text="For pause.")
    missed = serializers.ChoiceField(choices=OnResume.choices, default=OnResume.SKIP, help_text="For resume.")


class MovedFireSerializer(StrictSerializer):
    """A fire that comes at another time."""

    to = serializers.DateTimeField(**READ)

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.DateTimeField(**READ), **super().get_fields()}


class ChangedFiresSerializer(StrictSerializer):
    """What a change does to the fires of the next 30 days. Lists name at most 1,000; the counts are complete."""

    until = serializers.DateTimeField(help_text="How far both were compared.", **READ)
    added = serializers.ListField(child=serializers.DateTimeField(), **READ)
    removed = serializers.ListField(child=serializers.DateTimeField(), **READ)
    moved = MovedFireSerializer(many=True, **READ)
    added_count = serializers.IntegerField(**READ)
    removed_count = serializers.IntegerField(**READ)
    moved_count = serializers.IntegerField(**READ)
    kept_count = serializers.IntegerField(**READ)
    truncated = FlagField(help_text="There were too many to compare all of them.", **READ)

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.DateTimeField(**READ), **super().get_fields()}


class ChangePreviewSerializer(StrictSerializer):
    """What a change would do. Nothing was changed."""

    action = serializers.CharField(**READ)
    changes = ObjectField(help_text="Per field its values before and after.", **READ)
    fires = ChangedFiresSerializer(**READ)
    warnings = ConflictSerializer(many=True, help_text="Conflicts that it would have then.", **READ)


# ── Many at once ─────────────────────────────────────────────────────────────────────────────────────────────


class ScheduleBulkSerializer(StrictSerializer):
    """Which schedules, and what is to be done with them: with all of them, or with none."""

    action = serializers.ChoiceField(choices=["pause", "resume", "delete", "update"])
    ids = serializers.ListField(child=serializers.UUIDField(), required=False, max_length=10_000)
    label = TextField(required=False, max_length=300, help_text="key:value")  # type: ignore[assignment]
    workflow = WorkflowField(required=False)
    owner = TextField(required=False, max_length=200)
    search = TextField(required=False, max_length=200, help_text="A part of the name.")
    changes = ObjectField(required=False, help_text="For update: as in PATCH; a timing as a whole.")
    missed = serializers.ChoiceField(choices=OnResume.choices, default=OnResume.SKIP, help_text="For resume.")
    note = TextField(required=False, allow_blank=True, max_length=500, default="")
    dry_run = FlagField(required=False, default=False, help_text="Only list what it would touch.")

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        if not {"ids", "label", "workflow", "owner", "search"} & values.keys():
            raise serializers.ValidationError("name some schedules: by ids, label, workflow, owner or search")
        if (values["action"] == "update") != bool(values.get("changes")):
            raise serializers.ValidationError({"changes": ["are what update needs, and nothing else takes"]})
        return values


class RefusedScheduleSerializer(NamedScheduleSerializer):
    """A schedule that does not allow it."""

    reason = serializers.CharField(**READ)


class ScheduleBulkResultSerializer(StrictSerializer):
    """What became of many schedules, or would become of them."""

    action = serializers.CharField(**READ)
    dry_run = FlagField(**READ)
    changed = NamedScheduleSerializer(many=True, **READ)
    unchanged = NamedScheduleSerializer(many=True, help_text="They are like that already.", **READ)
    refused = RefusedScheduleSerializer(many=True, help_text="Only in a dry run: else nothing is done.", **READ)
    done = serializers.ListField(child=serializers.UUIDField(), help_text="The ids of the changed ones.", **READ)


# ── As code ──────────────────────────────────────────────────────────────────────────────────────────────────


class ScheduleDocumentsSerializer(StrictSerializer):
    """Schedules as documents: name, workflow (by name), spec, and what differs from its default."""

    schedules = serializers.ListField(child=ObjectField(), **READ)


class ApplySerializer(StrictSerializer):
    """Documents that schedules are to be made like."""

    schedules = serializers.ListField(child=AnyField(), max_length=10_000)
    dry_run = FlagField(required=False, default=False)
    prune = FlagField(required=False, default=False, help_text="Delete applied schedules that no document names.")


class ChangedScheduleSerializer(StrictSerializer):
    """How a schedule differs."""

    name = serializers.CharField(**READ)
    changes = ObjectField(help_text="Per field its values before and after.", **READ)


class AppliedSerializer(StrictSerializer):
    """What was done, or would be done, by name."""

    dry_run = FlagField(**READ)
    created = serializers.ListField(child=serializers.CharField(), **READ)
    updated = ChangedScheduleSerializer(many=True, **READ)
    unchanged = serializers.ListField(child=serializers.CharField(), **READ)
    pruned = serializers.ListField(child=serializers.CharField(), **READ)


def named(rows: Any) -> list[Mapping[str, Any]]:
    """(id, name) and perhaps a reason, as objects."""
    return [dict(zip(("id", "name", "reason"), row, strict=False)) for row in rows]
