from __future__ import annotations

from datetime import datetime

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from execution import priority
from execution.models import Workflow
from schedules.states import CatchUpPolicy, OnConflict, OnResume, OverlapPolicy, PauseKind
from scheduling_project.common.ids import uuid7


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def due(self, now: datetime) -> ScheduleQuerySet:
        """Those whose wake-up has come."""
        return self.filter(next_fire_at__lte=now)

    def active(self) -> ScheduleQuerySet:
        return self.filter(enabled=True)


def warn_only() -> str:
    """What a schedule wants done about conflicts when nobody said anything."""
    return OnConflict.WARN.value


class Schedule(models.Model):
    """When a workflow is to run. What it says about time stands in its versions."""

    # Identity
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True)
    external_id = models.CharField(max_length=200, null=True, blank=True, unique=True)
    description = models.TextField(blank=True)
    owner = models.CharField(max_length=200, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True)

    # Definition: what starts, with what
    workflow = models.ForeignKey(
        Workflow,
        on_delete=models.PROTECT,
        related_name="schedules",
        db_index=False,  # `schedule_by_workflow` leads with it
    )
    input = models.JSONField(default=dict, blank=True)
    priority = priority.field()
    queue = models.CharField(max_length=100, blank=True)
    retry_policy = models.JSONField(null=True, blank=True)
    timeout = models.FloatField(null=True, blank=True, help_text="Seconds an execution may take.")
    concurrency_key = models.CharField(max_length=255, blank=True)
    version = models.ForeignKey(
        "ScheduleVersion", null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )

    # Policy
    overlap_policy = models.CharField(max_length=20, choices=OverlapPolicy, default=OverlapPolicy.SKIP)
    catch_up = models.CharField(max_length=10, choices=CatchUpPolicy, default=CatchUpPolicy.ALL)
    catch_up_window = models.PositiveIntegerField(null=True, blank=True, help_text="Seconds; empty: the default.")
    max_executions = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    pause_on_failure = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Pause after so many failures in a row.",
    )
    on_conflict = models.JSONField(
        default=warn_only,
        db_default=models.Value(OnConflict.WARN.value, models.JSONField()),
        help_text="ignore, warn, reject, or an object of these by kind of conflict (and default).",
    )

    # Live state
    enabled = models.BooleanField(default=True)
    pause_kind = models.CharField(max_length=10, choices=PauseKind, blank=True)
    pause_note = models.CharField(max_length=500, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_until = models.DateTimeField(null=True, blank=True)
    on_resume = models.CharField(
        max_length=10,
        choices=OnResume,
        default=OnResume.SKIP,
        help_text="What a pause that ends by itself does about the instants it covered.",
    )
    fired_through = models.DateTimeField(help_text="Every instant up to here is in the ledger.")
    missed_through = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Instants up to here are missed, whatever the catch-up policy."
    )
    next_fire_at = models.DateTimeField(null=True, blank=True, help_text="Wake-up; empty: never due.")
    started_count = models.PositiveIntegerField(default=0, help_text="Executions started, against the maximum.")
    consecutive_failures = models.PositiveIntegerField(default=0)
    last_fire_at = models.DateTimeField(null=True, blank=True)
    periodic_task = models.OneToOneField(
        "django_celery_beat.PeriodicTask",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="workflow_schedule",
        editable=False,
    )

    # Timestamps
    revision = models.PositiveIntegerField(default=1, help_text="Raised by every edit (If-Match).")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(auto_now=True)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(priority__lte=9), name="schedule_priority_range"),
            models.CheckConstraint(
                condition=Q(enabled=True) | Q(paused_at__isnull=False),
                name="schedule_disabled_says_since_when",
            ),
            models.CheckConstraint(
                condition=Q(max_executions__isnull=True) | Q(started_count__lte=F("max_executions")),
                name="schedule_never_beyond_its_maximum",
            ),
        ]
        indexes = [
            models.Index(fields=["next_fire_at"], condition=Q(next_fire_at__isnull=False), name="schedule_next_fire"),
            models.Index(fields=["workflow", "name"], name="schedule_by_workflow"),
            models.Index(fields=["concurrency_key"], condition=~Q(concurrency_key=""), name="schedule_by_key"),
        ]

    def __str__(self) -> str:
        return self.name


class ScheduleVersion(models.Model):
    """What a schedule said about time from an instant on. Ledger entries name theirs, so the past can be re-derived.

    `spec` is the canonical form of `schedules.timing.occurrences`; the zone, calendars and tzdata stand in it.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    effective_from = models.DateTimeField()
    spec = models.JSONField()
    tzdata = models.CharField(max_length=20, help_text="Version of the time zone data it was made with.")
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["schedule", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["schedule", "number"], name="schedule_version_number"),
        ]
        indexes = [
            # Who else says the same about time.
            models.Index(
                models.Func("spec", models.Value(0), function="jsonb_hash_extended"), name="schedule_version_by_spec"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} v{self.number}"
