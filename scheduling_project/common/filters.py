"""Filters of lists that refuse what they cannot read, also an empty value."""

from __future__ import annotations

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema_field


class StrictFilterSet(FilterSet):  # type: ignore[misc]
    """A filter set for which ``?execution=`` is a mistake and not the same as no filter."""

    def is_valid(self) -> bool:
        valid: bool = super().is_valid()
        for name, chosen in self.filters.items():
            if self.data.get(name) == "" and type(chosen) is not django_filters.CharFilter:
                self.form.add_error(name, "must not be empty")
                valid = False
        return valid


def flag(field: str) -> django_filters.ChoiceFilter:
    """A filter by ``true`` or ``false``, and nothing else."""
    chosen = django_filters.ChoiceFilter(
        choices=[("true", "true"), ("false", "false")],
        method=lambda queryset, name, value: queryset.filter(**{field: value == "true"}),
    )
    return extend_schema_field({"type": "boolean"})(chosen)
