from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from execution.models.dead_letter import DeadLetter
from execution.states import REDRIVE_JOB_TERMINAL, RedriveItemState, RedriveJobState
from scheduling_project.common.ids import uuid7


class RedriveJob(models.Model):
    """Many dead letters to be redriven at a measured pace; what it did and how far it is."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)

    selection = models.JSONField(default=dict, help_text="Which letters were asked for; they are fixed in its items.")
    mode = models.CharField(max_length=10, help_text="resume or restart")
    latest = models.BooleanField(default=False, help_text="With restart: the version that is published then.")
    input = models.JSONField(null=True, blank=True, help_text="The same input for all; their own when null.")
    input_patch = models.JSONField(null=True, blank=True, help_text="A merge patch (RFC 7396) of each one's own input.")
    note = models.CharField(max_length=500, blank=True)
    created_by = models.CharField(max_length=200)

    rate_per_minute = models.FloatField(null=True, blank=True, help_text="At most so many; unbounded when null.")
    canary = models.BooleanField(default=True, help_text="One, then ten, then all, each time when the last have ended.")
    max_failures = models.PositiveIntegerField(null=True, blank=True, help_text="Stops at so many; never when null.")

    state = models.CharField(max_length=10, choices=RedriveJobState, default=RedriveJobState.RUNNING)
    state_reason = models.CharField(max_length=500, blank=True)
    total = models.PositiveIntegerField(default=0)
    started = models.PositiveIntegerField(default=0, help_text="Letters that it has taken up.")
    succeeded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0, help_text="Failed again, or refused.")
    skipped = models.PositiveIntegerField(default=0, help_text="Decided by somebody else meanwhile.")
    next_at = models.DateTimeField(db_default=Now(), help_text="When it goes on.")

    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=REDRIVE_JOB_TERMINAL, finished_at__isnull=False)
                | (~Q(state__in=REDRIVE_JOB_TERMINAL) & Q(finished_at__isnull=True)),
                name="redrive_job_terminal_iff_finished",
            ),
            models.CheckConstraint(
                condition=Q(rate_per_minute__isnull=True) | Q(rate_per_minute__gt=0), name="redrive_job_rate_positive"
            ),
        ]
        indexes = [
            models.Index(fields=["next_at"], condition=Q(state=RedriveJobState.RUNNING), name="redrive_job_due"),
        ]

    def __str__(self) -> str:
        return f"redrive of {self.total} dead letters"

    @property
    def under_way(self) -> int:
        """Letters that are being tried at this moment."""
        return self.started - self.succeeded - self.failed - self.skipped


class RedriveItem(models.Model):
    """One dead letter of a redrive job."""

    job = models.ForeignKey(RedriveJob, on_delete=models.CASCADE, related_name="items", db_index=False)
    letter = models.ForeignKey(DeadLetter, on_delete=models.CASCADE, related_name="redrive_items")
    position = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=RedriveItemState, default=RedriveItemState.PENDING)
    reason = models.CharField(max_length=500, blank=True)
    execution_id = models.UUIDField(null=True, help_text="Which tries it again.")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["job", "position"]
        constraints = [models.UniqueConstraint(fields=["job", "position"], name="redrive_item_position")]
        indexes = [
            models.Index(
                fields=["job", "position"],
                condition=Q(state__in=[RedriveItemState.PENDING, RedriveItemState.REDRIVING]),
                name="redrive_item_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.letter_id} ({self.state})"
