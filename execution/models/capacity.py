from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from scheduling_project.common.ids import uuid7


class QueueSettings(models.Model):
    """What operators decided about a queue. A queue without a row runs with the defaults."""

    name = models.CharField(max_length=100, primary_key=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_by = models.CharField(max_length=200, blank=True)
    pause_note = models.CharField(max_length=500, blank=True)
    draining_at = models.DateTimeField(null=True, blank=True, help_text="Paused in order to become empty.")
    drained_at = models.DateTimeField(null=True, blank=True, help_text="The last step that ran in it has ended.")
    in_flight_per_level = models.PositiveIntegerField(null=True, blank=True)
    age_limit = models.FloatField(
        null=True, blank=True, help_text="Seconds: when its oldest due item is older, other workers serve it too."
    )
    calm_since = models.DateTimeField(null=True, blank=True, help_text="Its oldest item is young since then.")

    class Meta:
        verbose_name_plural = "queue settings"
        constraints = [
            models.CheckConstraint(condition=Q(age_limit__isnull=True) | Q(age_limit__gt=0), name="queue_age_limit")
        ]

    def __str__(self) -> str:
        return self.name


class Pool(models.Model):
    """A number of slots that steps share (a database that bears four loads at a time, say)."""

    name = models.CharField(max_length=100, primary_key=True)
    description = models.CharField(max_length=500, blank=True)
    slots = models.PositiveIntegerField()
    used = models.PositiveIntegerField(default=0, editable=False)
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(used__gte=0), name="pool_used_not_negative")]

    def __str__(self) -> str:
        return self.name

    @property
    def free(self) -> int:
        return max(0, self.slots - self.used)


class PoolLease(models.Model):
    """Units of a pool in the hand of somebody outside of workflows, until `expires_at`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="leases")
    holder = models.CharField(max_length=200)
    units = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(units__gt=0), name="pool_lease_units_positive")]

    def __str__(self) -> str:
        return f"{self.units} of {self.pool_id} for {self.holder}"


class Turn(models.Model):
    """When a duty that one worker at a time does for all is due again."""

    name = models.CharField(max_length=100, primary_key=True)
    next_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class ConcurrencyKey(models.Model):
    """How many executions with one key run at once. Rows come and go with their users."""

    key = models.CharField(max_length=255, primary_key=True)
    limit = models.PositiveIntegerField(default=1)
    used = models.PositiveIntegerField(default=0)
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(used__gte=0), name="concurrency_key_not_negative")]

    def __str__(self) -> str:
        return self.key


class RateKey(models.Model):
    """How often attempts with one key may begin: the state of its GCRA. Rows come and go with their users."""

    key = models.CharField(max_length=255, primary_key=True)
    tat = models.DateTimeField(help_text="Theoretical arrival time: when the next one may begin, without a burst.")
    next_wake_at = models.DateTimeField(help_text="The first instant that no waiting attempt was promised.")
    interval = models.FloatField(help_text="Seconds between two of them, as last asked for.")
    updated_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.key
