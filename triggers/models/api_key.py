from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from scheduling_project.common.ids import uuid7


class ApiKey(models.Model):
    """A credential for machines. Only its SHA-256 is kept: 256 random bits need no slow hash."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200)
    prefix = models.CharField(max_length=16, unique=True, editable=False, help_text="Its public part, for lists.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    scopes = models.JSONField(default=list, blank=True)
    allowed_networks = models.JSONField(default=list, blank=True, help_text="CIDR blocks; empty: from anywhere.")
    created_by = models.CharField(max_length=200, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"
