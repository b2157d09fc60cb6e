from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class AuditEntry(models.Model):
    """Who did what to what, with the values before and after. Rows are only ever added."""

    actor = models.CharField(max_length=200)
    action = models.CharField(max_length=60, help_text="workflow.publish, execution.cancel…")
    subject_kind = models.CharField(max_length=40)
    subject_id = models.CharField(max_length=100)
    subject_label = models.CharField(max_length=200, blank=True)
    note = models.CharField(max_length=500, blank=True)
    changes = models.JSONField(default=dict, help_text="Per field: before and after.")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "audit entries"
        ordering = ["-id"]
        indexes = [models.Index(fields=["subject_kind", "subject_id", "-id"], name="audit_by_subject")]

    def __str__(self) -> str:
        return f"{self.action} {self.subject_label or self.subject_id} by {self.actor}"
