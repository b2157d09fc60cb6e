"""How the list of schedules is narrowed."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet

from execution.api.filters import by_label, by_workflow
from schedules.states import PauseKind
from scheduling_project.common.filters import StrictFilterSet, flag


def by_state(queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
    """Active, paused (by hand or after failures), finished or in error."""
    if value == "active":
        return queryset.filter(enabled=True)
    if value in {PauseKind.FINISHED, PauseKind.ERROR}:
        return queryset.filter(enabled=False, pause_kind=value)
    return queryset.filter(enabled=False).exclude(pause_kind__in=[PauseKind.FINISHED, PauseKind.ERROR])


class ScheduleFilter(StrictFilterSet):
    name = django_filters.CharFilter(max_length=200)
    search = django_filters.CharFilter(field_name="name", lookup_expr="icontains", max_length=200)
    workflow = django_filters.CharFilter(method=by_workflow, max_length=200, label="Id or name.")
    enabled = flag("enabled")
    state = django_filters.ChoiceFilter(
        method=by_state, choices=[(name, name) for name in ("active", "paused", "finished", "error")]
    )
    owner = django_filters.CharFilter(max_length=200)
    external_id = django_filters.CharFilter(max_length=200)
    label = django_filters.CharFilter(method=by_label, max_length=300, label="key:value")
    due_before = django_filters.IsoDateTimeFilter(field_name="next_fire_at", lookup_expr="lt")
