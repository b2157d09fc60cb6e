from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from scheduling_project.common.ids import uuid7
from triggers.models.endpoint import WebhookEndpoint


class Event(models.Model):
    """Something that happened, as it arrived. Never changed; deleted by pruning only.

    The attributes are those of CloudEvents 1.0. `dedup_key` is given back (NULL) once the window of its endpoint
    has passed, so that the same key may come again.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    endpoint = models.ForeignKey(
        WebhookEndpoint, null=True, blank=True, on_delete=models.PROTECT, related_name="events"
    )
    type = models.CharField(max_length=200)
    source = models.CharField(max_length=500, blank=True)
    subject = models.CharField(max_length=500, blank=True)
    time = models.DateTimeField(help_text="When it happened, by the sender's word; else when it arrived.")

    data = models.JSONField(null=True, blank=True)
    extensions = models.JSONField(default=dict, blank=True)
    content_type = models.CharField(max_length=200, blank=True)
    raw = models.BinaryField(default=b"", help_text="The body, byte for byte.")
    headers = models.JSONField(default=dict, blank=True, help_text="Without credentials.")

    delivery_id = models.CharField(max_length=256, blank=True)
    dedup_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001 - NULL is "none"
    replay_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="replays")
    producer = models.CharField(max_length=200, blank=True, help_text="Actor, endpoint or bus that brought it.")
    cause = models.UUIDField(null=True, blank=True, help_text="The execution that it came from.")
    depth = models.PositiveSmallIntegerField(default=0, help_text="How many activations led to it.")
    received_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint", "dedup_key"],
                condition=Q(dedup_key__isnull=False),
                nulls_distinct=False,
                name="event_once",
            ),
        ]
        indexes = [
            models.Index(fields=["type", "-id"], name="event_by_type"),
            models.Index(fields=["endpoint", "-id"], name="event_by_endpoint"),
            models.Index(fields=["received_at"], name="event_received"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class EventType(models.Model):
    """A type of event that somebody has described. With a schema, internal producers are held to it."""

    name = models.CharField(max_length=200, unique=True)
    description = models.TextField(blank=True)
    schema = models.JSONField(null=True, blank=True, help_text="JSON Schema of the data.")
    example = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
