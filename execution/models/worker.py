from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class ProcessReport(models.Model):
    """The last sign of life of a worker or a beat."""

    name = models.CharField(max_length=200, primary_key=True)
    kind = models.CharField(max_length=20, help_text="worker or beat")
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    queues = models.JSONField(default=list)
    slots = models.PositiveIntegerField(default=0)
    busy = models.PositiveIntegerField(default=0)
    versions = models.JSONField(default=dict)
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), db_index=True)
    stopped_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name
