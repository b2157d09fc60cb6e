from __future__ import annotations

from datetime import datetime

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from execution import priority
from execution.models import Workflow
from scheduling_project.common.ids import uuid7
from triggers.models.endpoint import WebhookEndpoint


class TriggerQuerySet(models.QuerySet["Trigger"]):
    def active(self, now: datetime) -> TriggerQuerySet:
        """Those that would take an event at `now`."""
        return self.filter(
            Q(start_at__isnull=True) | Q(start_at__lte=now), Q(end_at__isnull=True) | Q(end_at__gt=now), enabled=True
        )


class Trigger(models.Model):
    """A rule on events: which of them start which workflow, with what and how often."""

    # Identity
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True)
    description = models.TextField(blank=True)
    owner = models.CharField(max_length=200, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True)

    # Which events: of an endpoint, of some types (exact, or a prefix ending in *), or both; then the pattern
    endpoint = models.ForeignKey(
        WebhookEndpoint, null=True, blank=True, on_delete=models.PROTECT, related_name="triggers"
    )
    event_types = models.JSONField(default=list, blank=True)
    pattern = models.JSONField(default=dict, blank=True)
    authentication = models.JSONField(
        default=dict, blank=True, help_text="Which endpoints, keys, scopes and methods may activate it; empty: all."
    )

    # What starts
    workflow = models.ForeignKey(Workflow, on_delete=models.PROTECT, related_name="triggers")
    input = models.JSONField(null=True, blank=True, help_text="Template over the event; empty: the event's data.")
    priority = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=priority.VALIDATORS, help_text="Empty: the workflow's."
    )
    queue = models.CharField(max_length=100, blank=True)
    retry_policy = models.JSONField(null=True, blank=True)
    timeout = models.FloatField(null=True, blank=True, help_text="Seconds an execution may take.")
    concurrency_key = models.CharField(max_length=500, blank=True, help_text="Template over the event.")

    # How often
    throttle = models.JSONField(null=True, blank=True, help_text='{"limit": 10, "period": 60, "key": "…"}')
    debounce = models.JSONField(null=True, blank=True, help_text='{"period": 5, "timeout": 60, "key": "…"}')
    batch = models.JSONField(null=True, blank=True, help_text='{"size": 100, "timeout": 30, "key": "…"}')
    max_activations = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    start_at = models.DateTimeField(null=True, blank=True)
    end_at = models.DateTimeField(null=True, blank=True)

    # Live state
    enabled = models.BooleanField(default=True)
    pause_note = models.CharField(max_length=500, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    activation_count = models.PositiveIntegerField(default=0, editable=False, help_text="Counted against the maximum.")
    watches = models.BooleanField(
        default=False, editable=False, help_text="Wants news of executions; kept by the database."
    )

    # Timestamps
    revision = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = TriggerQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(endpoint__isnull=False) | ~Q(event_types=[]), name="trigger_names_endpoint_or_types"
            ),
            models.CheckConstraint(
                condition=Q(priority__isnull=True) | Q(priority__lte=9), name="trigger_priority_range"
            ),
            models.CheckConstraint(
                condition=Q(debounce__isnull=True) | Q(batch__isnull=True), name="trigger_debounces_or_batches"
            ),
            models.CheckConstraint(
                condition=Q(max_activations__isnull=True) | Q(activation_count__lte=F("max_activations")),
                name="trigger_never_beyond_its_maximum",
            ),
        ]
        indexes = [
            models.Index(fields=["workflow", "name"], name="trigger_by_workflow"),
            # Asked at every change of an execution's state, so it must stay tiny.
            models.Index(fields=["id"], condition=Q(watches=True), name="trigger_watching"),
        ]

    def __str__(self) -> str:
        return self.name
