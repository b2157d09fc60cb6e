from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from execution.models.workflow import Workflow
from execution.notifications.kinds import Channel, NotificationKind, NotificationState
from scheduling_project.common.ids import uuid7


class NotificationRule(models.Model):
    """Who is told of what, and how."""

    # Identity
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True)
    enabled = models.BooleanField(default=True)

    # What for; every filter that is given must fit
    kind = models.CharField(max_length=20, choices=NotificationKind)
    workflow = models.ForeignKey(Workflow, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    schedule = models.CharField(max_length=200, blank=True, help_text="Id or name of a schedule.")
    labels = models.JSONField(default=dict, blank=True, help_text="Labels of the workflow or schedule.")
    queue = models.CharField(max_length=100, blank=True)
    threshold = models.PositiveIntegerField(null=True, blank=True, help_text="How many times.")
    seconds = models.FloatField(null=True, blank=True, help_text="How long.")
    window = models.PositiveIntegerField(default=60, help_text="Seconds within which news become one message.")

    # Whom
    emails = models.JSONField(default=list, blank=True)
    webhook_url = models.CharField(max_length=2000, blank=True)
    ciphertext = models.TextField(blank=True, editable=False)
    old_ciphertext = models.TextField(blank=True, editable=False)
    old_until = models.DateTimeField(null=True, blank=True, editable=False)

    # Live state
    webhook_failing_since = models.DateTimeField(null=True, blank=True, editable=False)
    webhook_disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    webhook_note = models.CharField(max_length=500, blank=True, editable=False)
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)

    # Timestamps
    revision = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    created_by = models.CharField(max_length=200, blank=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def channels(self) -> list[Channel]:
        """The ways by which it tells at present."""
        found = [Channel.EMAIL] if self.emails else []
        return found + ([Channel.WEBHOOK] if self.webhook_url and self.webhook_disabled_at is None else [])


class NotificationAlert(models.Model):
    """A condition that a rule has found and that still holds, so that it is told once."""

    rule = models.ForeignKey(NotificationRule, on_delete=models.CASCADE, related_name="alerts", db_index=False)
    subject = models.CharField(max_length=200)
    level = models.PositiveIntegerField(default=1)
    since = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rule", "subject"], name="notification_alert_once")]

    def __str__(self) -> str:
        return self.subject


class Notification(models.Model):
    """One message to one channel, with all that it tells. Sent at least once; its id tells repeats apart."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    rule = models.ForeignKey(NotificationRule, on_delete=models.CASCADE, related_name="notifications", db_index=False)
    channel = models.CharField(max_length=10, choices=Channel)
    state = models.CharField(max_length=10, choices=NotificationState, default=NotificationState.PENDING)
    is_open = models.BooleanField(default=False, help_text="Still takes what happens in its window.")
    is_test = models.BooleanField(default=False)
    count = models.PositiveIntegerField(default=1)
    events = models.JSONField(default=list, help_text="What it tells; the first ones of many.")
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True, blank=True, help_text="HTTP status of the last answer.")
    error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "channel"], condition=Q(is_open=True), name="notification_one_open_group"
            ),
            models.CheckConstraint(
                condition=Q(state=NotificationState.PENDING) ^ Q(finished_at__isnull=False),
                name="notification_finished_iff_not_pending",
            ),
        ]
        indexes = [
            models.Index(fields=["rule", "-id"], name="notification_by_rule"),
            models.Index(fields=["due_at"], condition=Q(state=NotificationState.PENDING), name="notification_due"),
        ]

    def __str__(self) -> str:
        return f"{self.channel} {self.state} {self.id}"
