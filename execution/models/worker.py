from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Wanted(models.TextChoices):
    """What operators want of one worker. A worker without a wish consumes from its queues."""

    NOTHING = "", "nothing"
    PAUSED = "paused", "paused"
    DRAINING = "draining", "draining"


class ProcessReport(models.Model):
    """The last sign of life of a worker or a beat, and what is wanted of it."""

    name = models.CharField(max_length=200, primary_key=True)
    kind = models.CharField(max_length=20, help_text="worker or beat")
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    incarnation = models.UUIDField(
        null=True, help_text="Another one after every start, also where the pid is the same."
    )
    queues = models.JSONField(default=list, help_text="Those that it consumes from now.")
    own_queues = models.JSONField(default=list, db_default=[], help_text="Those that it was started with.")
    slots = models.PositiveIntegerField(default=0)
    busy = models.PositiveIntegerField(default=0)
    versions = models.JSONField(default=dict)

    resources = models.JSONField(default=dict, db_default={}, help_text="What it and its host use, as last measured.")
    pressure = models.CharField(max_length=10, default="", db_default="", blank=True)

    wanted = models.CharField(max_length=20, choices=Wanted, default="", db_default="", blank=True)
    wanted_at = models.DateTimeField(null=True, blank=True)
    wanted_by = models.CharField(max_length=200, default="", db_default="", blank=True)
    wanted_note = models.CharField(max_length=500, default="", db_default="", blank=True)
    ends_when_drained = models.BooleanField(default=False, db_default=False)
    drained_at = models.DateTimeField(null=True, blank=True)
    extra_queues = models.JSONField(default=list, db_default=[], help_text="Those that it is to serve beside its own.")

    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), db_index=True)
    stopped_at = models.DateTimeField(null=True, blank=True)
    lost_at = models.DateTimeField(null=True, blank=True, help_text="When others noticed that it reports no more.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(wanted__in=Wanted.values), name="process_report_wanted_known")
        ]

    def __str__(self) -> str:
        return self.name


class ResourceSample(models.Model):
    """What a worker and its host used at one instant: a row each half minute, for charts."""

    name = models.CharField(max_length=200)
    host = models.CharField(max_length=200)
    at = models.DateTimeField(db_index=True)
    cpu_percent = models.FloatField(help_text="Of one core: 200 are two busy cores.")
    memory_bytes = models.BigIntegerField()
    slots = models.PositiveIntegerField()
    busy = models.PositiveIntegerField()
    host_cpu_percent = models.FloatField(help_text="Of all cores.")
    host_memory_used = models.BigIntegerField()
    host_memory_total = models.BigIntegerField()
    host_load = models.FloatField(help_text="Of the last minute.")

    def __str__(self) -> str:
        return f"{self.name} at {self.at:%H:%M:%S}"
