from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from execution import priority
from execution.models import Execution
from schedules.models.schedule import Schedule
from schedules.states import BackfillOrder, BackfillState
from scheduling_project.common.ids import uuid7


class Backfill(models.Model):
    """Past instants of a schedule that are to run after all. It never reaches past the schedule's watermark."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    schedule = models.ForeignKey(
        Schedule,
        on_delete=models.CASCADE,
        related_name="backfills",
        db_index=False,  # `backfill_of_schedule` leads with it
    )

    # What
    since = models.DateTimeField(help_text="First instant, included.")
    until = models.DateTimeField(help_text="Last instant, included.")
    gaps_only = models.BooleanField(default=True, help_text="Only instants that did not start.")
    ignore_calendars = models.BooleanField(
        default=False, help_text="Also instants that calendars or blackouts keep from firing."
    )
    order = models.CharField(max_length=6, choices=BackfillOrder, default=BackfillOrder.OLDEST)
    input = models.JSONField(null=True, blank=True, help_text="Instead of the schedule's.")
    note = models.CharField(max_length=500, blank=True)

    # How fast
    priority = priority.field()
    max_running = models.PositiveIntegerField(default=1, help_text="Executions of it that run at once.")
    per_minute = models.PositiveIntegerField(null=True, blank=True, help_text="Starts in a minute; empty: any.")

    # Progress
    state = models.CharField(max_length=10, choices=BackfillState, default=BackfillState.RUNNING)
    total = models.PositiveIntegerField(default=0, help_text="Instants to start, as counted at the beginning.")
    started = models.PositiveIntegerField(default=0)
    passed = models.PositiveIntegerField(default=0, help_text="Instants that turned out to need nothing.")
    cursor = models.DateTimeField(null=True, blank=True, help_text="The instant that was looked at last.")
    looked_at = models.DateTimeField(null=True, blank=True, help_text="When it was last asked to go on.")
    error = models.CharField(max_length=500, blank=True, help_text="Why it failed.")
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(priority__lte=9), name="backfill_priority_range"),
            models.CheckConstraint(condition=Q(until__gte=F("since")), name="backfill_has_a_range"),
            models.CheckConstraint(
                condition=Q(state=BackfillState.RUNNING, finished_at__isnull=True)
                | (~Q(state=BackfillState.RUNNING) & Q(finished_at__isnull=False)),
                name="backfill_over_iff_finished",
            ),
        ]
        indexes = [
            models.Index(fields=["id"], condition=Q(state=BackfillState.RUNNING), name="backfill_running"),
            models.Index(fields=["schedule", "-id"], name="backfill_of_schedule"),
        ]

    def __str__(self) -> str:
        return f"backfill of {self.schedule_id} from {self.since:%Y-%m-%d}"

    @property
    def remaining(self) -> int:
        """Instants still to start, as far as the count of the beginning holds."""
        return max(0, self.total - self.started) if self.state == BackfillState.RUNNING else 0


class BackfillFire(models.Model):
    """An instant that a backfill started."""

    backfill = models.ForeignKey(Backfill, on_delete=models.CASCADE, related_name="fires")
    scheduled_for = models.DateTimeField()
    execution = models.OneToOneField(
        Execution, null=True, blank=True, on_delete=models.SET_NULL, related_name="backfill_fire"
    )
    started_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["scheduled_for"]
        constraints = [models.UniqueConstraint(fields=["backfill", "scheduled_for"], name="backfill_instant_once")]
        indexes = [models.Index(fields=["backfill", "started_at"], name="backfill_rate")]

    def __str__(self) -> str:
        return f"{self.backfill_id} {self.scheduled_for:%Y-%m-%dT%H:%M:%SZ}"
