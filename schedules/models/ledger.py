from __future__ import annotations

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from execution.models import Execution
from schedules.models.schedule import Schedule, ScheduleVersion
from schedules.states import FireOutcome, FireReason


class ScheduleFire(models.Model):
    """The ledger: how each due instant of a schedule ended. A run of instants with one fate is one entry.

    An entry stands for one instant (`scheduled_for`, `until` empty) or, when instants were missed or skipped in
    a row, for all `count` instants from `scheduled_for` to `until`, both included.
    """

    schedule = models.ForeignKey(
        Schedule,
        on_delete=models.CASCADE,
        related_name="fires",
        db_index=False,  # `ledger_instant_once` leads with it
    )
    version = models.ForeignKey(ScheduleVersion, on_delete=models.CASCADE, related_name="fires")
    scheduled_for = models.DateTimeField(help_text="The nominal instant (first of the run).")
    until = models.DateTimeField(null=True, blank=True, help_text="Last instant of the run.")
    count = models.PositiveIntegerField(default=1)
    due_at = models.DateTimeField(help_text="The nominal instant plus its jitter.")
    outcome = models.CharField(max_length=10, choices=FireOutcome)
    reason = models.CharField(max_length=20, choices=FireReason, blank=True)
    note = models.CharField(max_length=500, blank=True)
    execution = models.OneToOneField(
        Execution, null=True, blank=True, on_delete=models.SET_NULL, related_name="schedule_fire"
    )
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-scheduled_for"]
        constraints = [
            models.UniqueConstraint(fields=["schedule", "scheduled_for"], name="ledger_instant_once"),
            models.CheckConstraint(
                condition=Q(until__isnull=True, count=1) | Q(until__gt=F("scheduled_for"), count__gt=1),
                name="ledger_range_counts_its_instants",
            ),
            models.CheckConstraint(
                condition=Q(outcome__in=[FireOutcome.SKIPPED, FireOutcome.MISSED]) | Q(until__isnull=True),
                name="ledger_only_missed_and_skipped_have_ranges",
            ),
            models.CheckConstraint(
                condition=Q(outcome__in=[FireOutcome.SKIPPED, FireOutcome.MISSED]) ^ Q(reason=""),
                name="ledger_skipped_and_missed_say_why",
            ),
        ]
        indexes = [
            models.Index(
                fields=["schedule", "scheduled_for"],
                condition=Q(outcome=FireOutcome.BUFFERED),
                name="ledger_buffered",
            ),
            # Entries come in the order of their time: a few pages that tell retention and statistics where to look.
            BrinIndex(fields=["recorded_at"], name="ledger_recorded"),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} {self.scheduled_for:%Y-%m-%dT%H:%M:%SZ} {self.outcome}"
