"""The demo's small warehouse."""

from __future__ import annotations

from django.db import models


class Sale(models.Model):
    """One order of one shop; loading it twice changes nothing."""

    order_id = models.CharField(max_length=60, primary_key=True)
    shop = models.CharField(max_length=40)
    day = models.DateField()
    cents = models.PositiveIntegerField()
    loaded_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.order_id
