"""Serializer fields that take what their name says and nothing like it: no "yes" for true, no 5 for "5"."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from scheduling_project.common import json_values


class TextField(serializers.CharField):
    """A string."""

    default_error_messages = {"not_text": "must be a text"}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("not_text")
        return str(super().to_internal_value(data))


class WholeNumberField(serializers.IntegerField):
    """An integer, not a string or a float of one."""

    default_error_messages = {"not_whole": "must be a whole number"}

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("not_whole")
        return int(data)


class NumberField(serializers.FloatField):
    """A number, not a string of one."""

    default_error_messages = {"not_number": "must be a number"}

    def to_internal_value(self, data: Any) -> float:
        if not isinstance(data, int | float) or isinstance(data, bool):
            self.fail("not_number")
        try:
            return float(data)
        except OverflowError:
            self.fail("not_number")


class FlagField(serializers.BooleanField):
    """true or false."""

    default_error_messages = {"not_flag": "must be true or false"}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("not_flag")
        return data


class InstantField(serializers.DateTimeField):
    """An instant in RFC 3339 with its offset; written in UTC."""

    default_error_messages = {
        "not_instant": "must be an instant with its offset, such as 2026-03-01T09:00:00Z",
        "out_of_range": "must lie between the years 1970 and 9999",
    }

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, str) or len(data) > 40 or "T" not in data.upper():
            self.fail("not_instant")
        try:
            instant = datetime.fromisoformat(data)
        except ValueError:
            self.fail("not_instant")
        if instant.tzinfo is None:
            self.fail("not_instant")
        if not 1970 < instant.year < 9999:
            self.fail("out_of_range")
        return instant


# Named, since "anything or null" as two alternatives would refuse null, which fits both.
@extend_schema_field({"type": ["object", "array", "string", "number", "boolean"]})
class AnyField(serializers.JSONField):
    """Any JSON value."""

    default_error_messages = {"too_deep": f"is nested deeper than {json_values.MAX_DEPTH}"}

    def to_internal_value(self, data: Any) -> Any:
        if json_values.too_deep(data):
            self.fail("too_deep")
        return data


@extend_schema_field({"type": "object", "additionalProperties": {}})
class ObjectField(AnyField):
    """A JSON object."""

    default_error_messages = {"not_object": "must be an object"}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("not_object")
        return dict(super().to_internal_value(data))
