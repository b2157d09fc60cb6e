from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from execution import priority
from execution.models.workflow import Workflow, WorkflowVersion
from execution.states import EXECUTION_OPEN, EXECUTION_TERMINAL, ExecutionState
from scheduling_project.common.ids import uuid7


class ExecutionQuerySet(models.QuerySet["Execution"]):
    def open(self) -> ExecutionQuerySet:
        return self.filter(state__in=EXECUTION_OPEN)


class Execution(models.Model):
    """One run of a workflow version. It knows nothing of schedules or triggers but a neutral source."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    workflow = models.ForeignKey(  # its index is execution_by_workflow
        Workflow, on_delete=models.PROTECT, related_name="executions", db_index=False
    )
    version = models.ForeignKey(WorkflowVersion, on_delete=models.PROTECT, related_name="executions")

    # Why it exists: kind is "api", "schedule", "trigger", "rerun", "child"…; the app upstream owns the real link.
    source_kind = models.CharField(max_length=40, default="api")
    source_id = models.CharField(max_length=100, blank=True)
    source_label = models.CharField(max_length=200, blank=True)
    scheduled_for = models.DateTimeField(null=True, blank=True, help_text="The instant that it stands for.")
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001 - NULL is "none"

    news_topic = models.CharField(max_length=60, blank=True, help_text="Who waits durably for its end.")

    input = models.JSONField(default=dict, blank=True)
    priority = priority.field()
    queue = models.CharField(max_length=100, blank=True, help_text="Overrides the queue of every step.")
    retry_policy = models.JSONField(null=True, blank=True, help_text="From the schedule or trigger.")
    concurrency_key = models.CharField(max_length=255, blank=True, help_text="Runs with one key wait for each other.")
    key_held = models.BooleanField(default=False, db_default=False, help_text="It has one of its key's places.")
    deadline_at = models.DateTimeField(null=True, blank=True)

    state = models.CharField(max_length=10, choices=ExecutionState, default=ExecutionState.QUEUED)
    state_reason = models.CharField(max_length=500, blank=True)
    outcome = models.CharField(  # noqa: DJ001 - NULL is "not yet"
        max_length=10,
        choices=[(state.value, state.label) for state in sorted(EXECUTION_TERMINAL)],
        null=True,
        blank=True,
        help_text="How its main steps ended, where on_success, on_failure or finally steps follow.",
    )
    section = models.CharField(max_length=10, blank=True, db_default="", help_text="The part whose steps run now.")
    open_steps = models.PositiveIntegerField(default=0, help_text="Step runs that have not ended.")
    failed_steps = models.PositiveIntegerField(default=0, help_text="Unhandled permanent failures.")

    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = ExecutionQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="execution_idempotency_key",
            ),
            models.CheckConstraint(condition=Q(priority__lte=9), name="execution_priority_range"),
            models.CheckConstraint(
                condition=Q(state__in=EXECUTION_TERMINAL, finished_at__isnull=False)
                | Q(state__in=EXECUTION_OPEN, finished_at__isnull=True),
                name="execution_terminal_iff_finished",
            ),
            models.CheckConstraint(
                condition=~Q(state=ExecutionState.SUCCEEDED) | Q(open_steps=0),
                name="execution_succeeded_has_no_open_steps",
            ),
        ]
        indexes = [
            models.Index(fields=["workflow", "-id"], name="execution_by_workflow"),
            models.Index(fields=["source_kind", "source_id", "-id"], name="execution_by_source"),
            models.Index(fields=["state", "-id"], name="execution_by_state"),
            # What still runs for a source (a schedule's overlap policy asks at every fire): tiny whatever the history.
            models.Index(
                fields=["source_kind", "source_id"],
                condition=Q(finished_at__isnull=True),
                name="execution_open_by_source",
            ),
            models.Index(
                fields=["deadline_at"],
                condition=Q(deadline_at__isnull=False, finished_at__isnull=True),
                name="execution_open_deadline",
            ),
            models.Index(
                fields=["concurrency_key", "priority", "id"],
                condition=Q(finished_at__isnull=True, key_held=False) & ~Q(concurrency_key=""),
                name="execution_waits_for_key",
            ),
            models.Index(fields=["concurrency_key"], condition=Q(key_held=True), name="execution_holds_key"),
            models.Index(fields=["finished_at"], condition=Q(finished_at__isnull=False), name="execution_finished_at"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_terminal(self) -> bool:
        return self.state in EXECUTION_TERMINAL


class ExecutionOutput(models.Model):
    """What an execution returned; in a table of its own so that lists never load it."""

    execution = models.OneToOneField(Execution, primary_key=True, on_delete=models.CASCADE, related_name="output")
    data = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"output of {self.execution_id}"
