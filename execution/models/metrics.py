from __future__ import annotations

from django.db import models


class MetricCounter(models.Model):
    """A count that only ever grows, kept beside the rows that it counts, so that pruning them lowers nothing."""

    name = models.CharField(max_length=100)
    labels = models.CharField(max_length=500, help_text="Values of its labels, as a JSON list.")
    value = models.FloatField(default=0)

    class Meta:
        ordering = ["name", "labels"]
        constraints = [models.UniqueConstraint(fields=["name", "labels"], name="metric_counter_once")]

    def __str__(self) -> str:
        return f"{self.name} {self.labels}"


class MetricMark(models.Model):
    """How far a source of counts has been counted."""

    source = models.CharField(max_length=60, primary_key=True)
    through = models.DateTimeField(help_text="Everything up to here is in the counters.")

    def __str__(self) -> str:
        return self.source
