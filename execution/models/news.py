from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class News(models.Model):
    """Something that ended and that somebody waits for durably; consumers claim and delete it."""

    topic = models.CharField(max_length=60)
    execution_id = models.UUIDField(null=True)
    subject = models.CharField(max_length=100, blank=True)
    data = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "news"
        indexes = [models.Index(fields=["topic", "id"], name="news_by_topic")]

    def __str__(self) -> str:
        return f"{self.topic} {self.subject}"
