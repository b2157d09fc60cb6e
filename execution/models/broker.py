from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class BrokerEpoch(models.Model):
    """The last known life of the broker: when Redis answers another, it has lost messages."""

    broker = models.CharField(max_length=50, primary_key=True, default="default")
    epoch = models.UUIDField()
    counter = models.BigIntegerField()
    resets = models.PositiveIntegerField(default=0)
    changed_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.broker} {self.epoch}:{self.counter}"
