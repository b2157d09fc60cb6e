from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from execution.models import Execution
from scheduling_project.common.ids import uuid7
from triggers.models.event import Event
from triggers.models.trigger import Trigger
from triggers.states import ActivationState, GroupKind


class PendingGroup(models.Model):
    """Events that wait together for one execution: until nothing came for a while (debounce), or for more (batch).

    At most one group per trigger and key is open. A debounce group never waits beyond `deadline_at`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trigger = models.ForeignKey(Trigger, on_delete=models.CASCADE, related_name="groups")
    kind = models.CharField(max_length=10, choices=GroupKind)
    key = models.CharField(max_length=255, blank=True)
    size = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()
    deadline_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now())
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["trigger", "key"], condition=Q(closed_at__isnull=True), name="pending_group_open"
            ),
        ]
        indexes = [models.Index(fields=["due_at"], condition=Q(closed_at__isnull=True), name="pending_group_due")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.trigger_id} {self.key}"


class Throttle(models.Model):
    """How far a throttled trigger has used up its rate: GCRA's theoretical arrival time, per key."""

    trigger = models.ForeignKey(Trigger, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255, blank=True)
    arrival_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["trigger", "key"], name="throttle_once")]

    def __str__(self) -> str:
        return f"{self.trigger_id} {self.key}"


class Activation(models.Model):
    """One event for one trigger that it matched, and what came of it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trigger = models.ForeignKey(Trigger, on_delete=models.CASCADE, related_name="activations")
    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="activations")
    execution = models.ForeignKey(
        Execution, null=True, blank=True, on_delete=models.SET_NULL, related_name="activations"
    )
    group = models.ForeignKey(
        PendingGroup, null=True, blank=True, on_delete=models.SET_NULL, related_name="activations"
    )
    state = models.CharField(max_length=10, choices=ActivationState)
    reason = models.CharField(max_length=1000, blank=True, help_text="Why there is no execution.")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["event", "trigger"], name="activation_once"),
        ]
        indexes = [
            models.Index(fields=["trigger", "-id"], name="activation_by_trigger"),
            models.Index(fields=["-id"], condition=Q(state=ActivationState.FAILED.value), name="activation_failed"),
        ]

    def __str__(self) -> str:
        return f"{self.state} {self.id}"
