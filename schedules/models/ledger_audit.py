from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class LedgerAudit(models.Model):
    """One comparison of the ledger with the instants derived anew. What it found stands in the audit trail."""

    since = models.DateTimeField(help_text="Beginning of the window (excluded).")
    until = models.DateTimeField(help_text="End of the window (included).")
    schedules = models.PositiveIntegerField(help_text="Schedules compared.")
    findings = models.PositiveIntegerField(help_text="Schedules whose ledger differs.")
    differences = models.PositiveIntegerField(help_text="Instants missing, too many or miscounted.")
    unreadable = models.PositiveIntegerField(default=0, help_text="Schedules whose timing could not be computed.")
    seconds = models.FloatField(help_text="How long it took.")
    finished_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.differences} differences in {self.schedules} schedules"
