from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from scheduling_project.common.ids import uuid7
from triggers.models.endpoint import WebhookEndpoint
from triggers.models.event import Event
from triggers.states import DeliveryOutcome


class Delivery(models.Model):
    """One arrival at a door, and what became of it. Refusals are sampled, so that an attack cannot fill the disk."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    endpoint = models.ForeignKey(
        WebhookEndpoint, null=True, blank=True, on_delete=models.CASCADE, related_name="deliveries"
    )
    event = models.ForeignKey(Event, null=True, blank=True, on_delete=models.CASCADE, related_name="deliveries")
    outcome = models.CharField(max_length=20, choices=DeliveryOutcome)
    status = models.PositiveSmallIntegerField(help_text="HTTP status of the answer.")
    reason = models.CharField(max_length=500, blank=True)
    delivery_id = models.CharField(max_length=256, blank=True)
    sender = models.CharField(max_length=200, blank=True, help_text="Address or actor.")
    size = models.PositiveIntegerField(default=0, help_text="Bytes of the body.")
    verdicts = models.JSONField(default=list, help_text="What the triggers said; for misses the first field.")
    duration_ms = models.FloatField(null=True, blank=True)
    arrivals = models.PositiveIntegerField(
        default=1, db_default=1, help_text="How many it stands for: itself, and those before it that were left out."
    )
    received_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=["endpoint", "-id"], name="delivery_by_endpoint"),
            models.Index(fields=["event"], name="delivery_by_event"),
            models.Index(fields=["received_at"], name="delivery_received"),
        ]

    def __str__(self) -> str:
        return f"{self.outcome} {self.id}"

    @property
    def said(self) -> str:
        """The verdicts in one line: for a miss the first field that failed."""
        parts = []
        for verdict in self.verdicts:
            outcome = verdict.get("state") if verdict.get("matched") else verdict.get("reason", "no match")
            parts.append(f"{verdict.get('name', '?')}: {outcome}")
        return " · ".join(parts[:10])
