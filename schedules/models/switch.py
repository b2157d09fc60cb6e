from __future__ import annotations

from django.db import models


class FiringSwitch(models.Model):
    """The one row that stops and starts all firing. Watermarks keep the debt while it is off."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    stopped_at = models.DateTimeField(null=True, blank=True)
    stopped_by = models.CharField(max_length=200, blank=True)
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="firing_switch_is_one_row")]

    def __str__(self) -> str:
        return "stopped" if self.stopped_at else "running"
