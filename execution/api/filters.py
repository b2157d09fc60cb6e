"""How lists are narrowed: by state (several, comma-separated), workflow (id or name), source and time."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet

from execution.states import DeadLetterState, ExecutionState, StepState
from execution.steps.context import LOG_LEVELS
from scheduling_project.common.filters import StrictFilterSet


class StateFilter(django_filters.BaseInFilter, django_filters.ChoiceFilter):  # type: ignore[misc]
    """One state or several: ``state=failed,cancelled``."""


def by_workflow(queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
    """Rows of the workflow with this id or name; none for an unknown one."""
    try:
        return queryset.filter(workflow_id=UUID(value))
    except ValueError:
        return queryset.filter(workflow__name=value)


def by_label(queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
    """Rows whose labels hold ``key:value`` (or the key, with any value)."""
    key, _, wanted = value.partition(":")
    return queryset.filter(labels__contains={key: wanted}) if wanted else queryset.filter(labels__has_key=key)


class WorkflowFilter(StrictFilterSet):
    name = django_filters.CharFilter()
    search = django_filters.CharFilter(field_name="name", lookup_expr="icontains", max_length=200)
    label = django_filters.CharFilter(method=by_label, max_length=300, label="key:value")
    queue = django_filters.CharFilter()


class ExecutionFilter(StrictFilterSet):
    state = StateFilter(choices=ExecutionState.choices)
    workflow = django_filters.CharFilter(method=by_workflow, max_length=200, label="Id or name.")
    source_kind = django_filters.CharFilter(max_length=40)
    source_id = django_filters.CharFilter(max_length=100)
    idempotency_key = django_filters.CharFilter(max_length=255)
    created_after = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_before = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")
    scheduled_after = django_filters.IsoDateTimeFilter(field_name="scheduled_for", lookup_expr="gte")
    scheduled_before = django_filters.IsoDateTimeFilter(field_name="scheduled_for", lookup_expr="lt")


class StepRunFilter(StrictFilterSet):
    state = StateFilter(choices=StepState.choices)
    name = django_filters.CharFilter(max_length=100)
    parent = django_filters.UUIDFilter(field_name="parent_id")


class LineFilter(StrictFilterSet):
    step = django_filters.CharFilter(field_name="attempt__step_run__name", max_length=100)
    step_run = django_filters.UUIDFilter(field_name="attempt__step_run_id")
    level = django_filters.ChoiceFilter(choices=[(level, level) for level in LOG_LEVELS])


class DeadLetterFilter(StrictFilterSet):
    state = StateFilter(choices=DeadLetterState.choices)
    workflow = django_filters.CharFilter(method=by_workflow, max_length=200, label="Id or name.")
    execution = django_filters.UUIDFilter(field_name="execution_id")
    fingerprint = django_filters.CharFilter(max_length=64)
    step = django_filters.CharFilter(field_name="step_name", max_length=100)
    error_type = django_filters.CharFilter(max_length=300)
    created_after = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_before = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")


class AuditFilter(StrictFilterSet):
    actor = django_filters.CharFilter(max_length=200)
    action = django_filters.CharFilter(max_length=60)
    subject_kind = django_filters.CharFilter(max_length=40)
    subject_id = django_filters.CharFilter(max_length=100)
    search = django_filters.CharFilter(field_name="subject_label", lookup_expr="icontains", max_length=200)
    created_after = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_before = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")
