from __future__ import annotations

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from execution import priority
from execution.models.execution import Execution
from execution.states import STEP_CLAIMABLE, STEP_OPEN, STEP_TERMINAL, AttemptState, StepState, WaitingFor
from scheduling_project.common.ids import uuid7


class StepRun(models.Model):
    """One step of one execution (or one item of its fan-out), through all its attempts."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # No index of their own for the keys whose column another index begins with: every change of state writes them all.
    execution = models.ForeignKey(Execution, on_delete=models.CASCADE, related_name="step_runs", db_index=False)
    name = models.CharField(max_length=100)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="items", db_index=False
    )
    item_index = models.PositiveIntegerField(null=True, blank=True)
    item = models.JSONField(null=True, blank=True)

    kind = models.CharField(max_length=20)
    label = models.CharField(max_length=320, help_text="workflow.step, as Flower shows it.")
    queue = models.CharField(max_length=100)
    priority = priority.field()
    aged = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Levels of its priority that it was given for waiting."
    )
    timeout = models.FloatField(null=True, blank=True, help_text="Seconds one attempt may take.")

    pool = models.CharField(max_length=100, blank=True, db_default="", help_text="Capacity that its attempts need.")
    pool_units = models.PositiveSmallIntegerField(default=1, db_default=1, help_text="How much of it.")
    pool_held = models.PositiveSmallIntegerField(default=0, db_default=0, help_text="What it holds right now.")

    rate_slot_at = models.DateTimeField(null=True, blank=True, help_text="The instant that its rate limit gave it.")

    state = models.CharField(max_length=10, choices=StepState, default=StepState.WAITING)
    waiting_for = models.CharField(max_length=10, choices=WaitingFor, null=True, blank=True)  # noqa: DJ001
    state_reason = models.CharField(max_length=500, blank=True)
    needs_open = models.PositiveIntegerField(default=0, help_text="Needed steps that have not ended.")
    items_open = models.PositiveIntegerField(default=0, help_text="Fan-out items that have not ended.")
    items_failed = models.PositiveIntegerField(default=0, help_text="Fan-out items that failed for good.")
    available_at = models.DateTimeField(db_default=Now(), help_text="Not to be claimed before.")
    dispatched_at = models.DateTimeField(null=True, blank=True)
    dispatches = models.PositiveSmallIntegerField(default=0)

    attempt = models.PositiveIntegerField(default=0, help_text="Number of the latest attempt.")
    failures = models.PositiveIntegerField(default=0, help_text="Attempts charged against the retry policy.")
    worker_deaths = models.PositiveSmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    last_token = models.UUIDField(null=True, blank=True, help_text="Kept after the end, to settle a lost COMMIT.")
    timeout_at = models.DateTimeField(null=True, blank=True, help_text="A hard time limit is about to end it.")
    worker = models.CharField(max_length=200, blank=True)

    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["execution", "name", "item_index"],
                nulls_distinct=False,
                name="step_run_once_per_execution",
            ),
            models.CheckConstraint(condition=Q(priority__lte=9), name="step_run_priority_range"),
            models.CheckConstraint(
                condition=Q(state=StepState.RUNNING, lease_token__isnull=False, lease_until__isnull=False)
                | (~Q(state=StepState.RUNNING) & Q(lease_token__isnull=True, lease_until__isnull=True)),
                name="step_run_running_iff_leased",
            ),
            models.CheckConstraint(
                condition=Q(state__in=STEP_TERMINAL, finished_at__isnull=False)
                | Q(state__in=STEP_OPEN, finished_at__isnull=True),
                name="step_run_terminal_iff_finished",
            ),
            models.CheckConstraint(
                condition=Q(state=StepState.WAITING, waiting_for__isnull=False)
                | (~Q(state=StepState.WAITING) & Q(waiting_for__isnull=True)),
                name="step_run_waiting_says_for_what",
            ),
        ]
        indexes = [
            # The sweep: due and never handed over, by lane and level, oldest first.
            models.Index(
                fields=["queue", "priority", "available_at"],
                condition=Q(state__in=STEP_CLAIMABLE, dispatched_at__isnull=True),
                name="step_run_to_dispatch",
            ),
            # In flight: handed over and unclaimed; bounded per lane and level, so this stays tiny.
            models.Index(
                fields=["queue", "priority", "dispatched_at"],
                condition=Q(state__in=STEP_CLAIMABLE, dispatched_at__isnull=False),
                name="step_run_in_flight",
            ),
            models.Index(fields=["lease_until"], condition=Q(state=StepState.RUNNING), name="step_run_leased"),
            models.Index(
                fields=["available_at"],
                condition=Q(state=StepState.WAITING, waiting_for__in=[WaitingFor.TIMER, WaitingFor.APPROVAL]),
                name="step_run_timer",
            ),
            models.Index(
                fields=["execution"],
                condition=Q(state=StepState.WAITING, waiting_for=WaitingFor.NEEDS, needs_open=0),
                name="step_run_ripe",
            ),
            models.Index(
                fields=["pool", "priority", "id"],
                condition=Q(state=StepState.WAITING, waiting_for=WaitingFor.POOL),
                name="step_run_parked_for_pool",
            ),
            models.Index(fields=["pool"], condition=Q(pool_held__gt=0), name="step_run_holds_pool"),
            # The next item of a bounded fan-out, without a walk over the ended ones.
            models.Index(
                fields=["parent", "item_index"],
                condition=Q(state=StepState.WAITING, parent__isnull=False),
                name="step_run_next_item",
            ),
            models.Index(fields=["parent"], condition=Q(parent__isnull=False), name="step_run_items"),
        ]

    def __str__(self) -> str:
        return self.label if self.item_index is None else f"{self.label}[{self.item_index}]"

    @property
    def idempotency_key(self) -> str:
        """Stable over every attempt; handed to the step so that its effects can be made once."""
        key = f"{self.execution_id}:{self.name}"
        return key if self.item_index is None else f"{key}:{self.item_index}"


class StepOutput(models.Model):
    """What a step returned; loaded only when an expression refers to it."""

    step_run = models.OneToOneField(StepRun, primary_key=True, on_delete=models.CASCADE, related_name="output")
    data = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"output of {self.step_run_id}"


class Attempt(models.Model):
    """One claim of a step run by one worker. Its id is the lease token that fences its writes."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    step_run = models.ForeignKey(StepRun, on_delete=models.CASCADE, related_name="attempts", db_index=False)
    number = models.PositiveIntegerField()
    worker = models.CharField(max_length=200, blank=True)
    state = models.CharField(max_length=10, choices=AttemptState, default=AttemptState.RUNNING)
    error_type = models.CharField(max_length=300, blank=True)
    error = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    decision = models.JSONField(null=True, blank=True, help_text="What was decided after it, why, and until when.")
    progress = models.JSONField(null=True, blank=True)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["step_run", "number"]
        constraints = [models.UniqueConstraint(fields=["step_run", "number"], name="attempt_number")]
        # A few pages that tell metrics where the latest ends are; unlike a btree it leaves updates in place (HOT).
        indexes = [BrinIndex(fields=["finished_at"], pages_per_range=16, name="attempt_finished")]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.step_run_id}"


class StepLog(models.Model):
    """A line that a running attempt wrote. Deleted with its attempt, by the database itself."""

    # The constraint stands in the migration: ON DELETE CASCADE, so that pruning need not know of lines.
    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="lines", db_constraint=False)
    level = models.CharField(max_length=10)
    message = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.level}: {self.message[:80]}"
