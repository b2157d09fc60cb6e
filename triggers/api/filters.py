"""How lists are narrowed."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet

from execution.api.filters import by_label, by_workflow
from scheduling_project.common.filters import StrictFilterSet, flag
from triggers.states import ActivationState, DeliveryOutcome, EndpointState


class _ChoicesFilter(django_filters.BaseInFilter, django_filters.ChoiceFilter):  # type: ignore[misc]
    """One or several, separated by commas."""


def by_endpoint(queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
    """Rows of the endpoint with this id or slug."""
    try:
        return queryset.filter(endpoint_id=UUID(value))
    except ValueError:
        return queryset.filter(endpoint__slug=value)


def by_type(queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
    """Events of a type, or of all that begin so where it ends in ``*``."""
    return queryset.filter(type__startswith=value[:-1]) if value.endswith("*") else queryset.filter(type=value)


class TriggerFilter(StrictFilterSet):
    name = django_filters.CharFilter(max_length=200)
    search = django_filters.CharFilter(field_name="name", lookup_expr="icontains", max_length=200)
    label = django_filters.CharFilter(method=by_label, max_length=300, label="key:value")
    workflow = django_filters.CharFilter(method=by_workflow, max_length=200, label="Id or name.")
    endpoint = django_filters.CharFilter(method=by_endpoint, max_length=100, label="Id or slug.")
    enabled = flag("enabled")


class WebhookFilter(StrictFilterSet):
    slug = django_filters.CharFilter(max_length=100)
    search = django_filters.CharFilter(field_name="slug", lookup_expr="icontains", max_length=200)
    state = _ChoicesFilter(choices=EndpointState.choices)
    scheme = django_filters.CharFilter(max_length=20)
    label = django_filters.CharFilter(method=by_label, max_length=300, label="key:value")


class DeliveryFilter(StrictFilterSet):
    outcome = _ChoicesFilter(choices=DeliveryOutcome.choices)
    event = django_filters.UUIDFilter(field_name="event_id")
    received_after = django_filters.IsoDateTimeFilter(field_name="received_at", lookup_expr="gte")
    received_before = django_filters.IsoDateTimeFilter(field_name="received_at", lookup_expr="lt")


class EventFilter(StrictFilterSet):
    type = django_filters.CharFilter(method=by_type, max_length=200, label="Exact, or a prefix that ends in *.")
    source = django_filters.CharFilter(max_length=500)
    subject = django_filters.CharFilter(max_length=500)
    endpoint = django_filters.CharFilter(method=by_endpoint, max_length=100, label="Id or slug.")
    delivery_id = django_filters.CharFilter(max_length=256)
    replay_of = django_filters.UUIDFilter(field_name="replay_of_id")
    received_after = django_filters.IsoDateTimeFilter(field_name="received_at", lookup_expr="gte")
    received_before = django_filters.IsoDateTimeFilter(field_name="received_at", lookup_expr="lt")


class ActivationFilter(StrictFilterSet):
    state = _ChoicesFilter(choices=ActivationState.choices)
    trigger = django_filters.UUIDFilter(field_name="trigger_id")
    event = django_filters.UUIDFilter(field_name="event_id")
    execution = django_filters.UUIDFilter(field_name="execution_id")
