from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from execution.models.execution import Execution
from execution.models.step_run import StepRun
from execution.models.workflow import Workflow
from execution.states import DEAD_LETTER_UNDECIDED, DeadLetterState
from scheduling_project.common.ids import uuid7


class DeadLetter(models.Model):
    """A permanent failure that waits for somebody's decision. Written in the statement that fails the step."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    execution = models.ForeignKey(Execution, on_delete=models.CASCADE, related_name="dead_letters")
    step_run = models.ForeignKey(StepRun, null=True, on_delete=models.CASCADE, related_name="dead_letters")
    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="dead_letters")
    step_name = models.CharField(max_length=100, blank=True)

    reason = models.CharField(max_length=40, help_text="failed, exhausted, timed_out, quarantined…")
    error_type = models.CharField(max_length=300, blank=True)
    error = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=64, help_text="Equal for errors that differ in ids and numbers only.")
    step_input = models.JSONField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=200, blank=True)

    state = models.CharField(max_length=10, choices=DeadLetterState, default=DeadLetterState.OPEN)
    note = models.CharField(max_length=500, blank=True)
    redrives = models.PositiveIntegerField(default=0)
    redrive_execution = models.ForeignKey(
        Execution, null=True, blank=True, on_delete=models.SET_NULL, related_name="redrives_letters"
    )
    created_at = models.DateTimeField(db_default=Now())
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["execution", "step_run"],
                condition=Q(state__in=DEAD_LETTER_UNDECIDED),
                nulls_distinct=False,
                name="dead_letter_one_undecided",
            ),
        ]
        indexes = [
            models.Index(fields=["state", "-id"], name="dead_letter_by_state"),
            # With the ends of a group's time in it: the group view reads nothing but this index.
            models.Index(fields=["state", "fingerprint", "created_at"], name="dead_letter_by_fingerprint"),
            models.Index(fields=["decided_at"], condition=Q(decided_at__isnull=False), name="dead_letter_decided_at"),
            models.Index(fields=["created_at"], condition=Q(state=DeadLetterState.OPEN), name="dead_letter_open_since"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow_id}.{self.step_name}: {self.error_type}"
