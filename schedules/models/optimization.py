from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from schedules.models.schedule import Schedule
from schedules.states import ChangeState
from scheduling_project.common.ids import uuid7


class OptimizationReport(models.Model):
    """What the optimiser saw and proposes. Nothing is changed before a proposal is applied."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    days = models.PositiveSmallIntegerField(help_text="How far it looked ahead.")
    schedules = models.PositiveIntegerField()
    before = models.JSONField(help_text="Figures of the simulation as things are.")
    after = models.JSONField(help_text="The same with every move and jitter applied.")
    curve = models.JSONField(help_text="Utilisation and waiting per stretch of time, before and after.")
    patterns = models.JSONField(help_text="Durations, failures and waiting per workflow.")
    note = models.CharField(max_length=500, blank=True)
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.days} days of {self.schedules} schedules"


class OptimizationChange(models.Model):
    """One proposal of a report, and what became of it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    report = models.ForeignKey(OptimizationReport, on_delete=models.CASCADE, related_name="changes")
    schedule = models.ForeignKey(Schedule, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=20)
    subject_kind = models.CharField(max_length=20)
    subject = models.CharField(max_length=200)
    label = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)
    changes = models.JSONField(default=dict, help_text="Fields and their new values; empty: advice for people.")
    before = models.JSONField(default=dict, help_text="The same fields as they were.")
    effect = models.JSONField(default=dict, help_text="Predicted figures.")
    revision = models.PositiveIntegerField(null=True, blank=True, help_text="Of the schedule it was made for.")
    state = models.CharField(max_length=10, choices=ChangeState, default=ChangeState.PROPOSED)
    decided_by = models.CharField(max_length=200, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["report", "id"], name="optimization_change_report")]

    def __str__(self) -> str:
        return f"{self.kind} {self.label}"
