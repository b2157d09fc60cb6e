from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Now

SECRET_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}\Z"  # noqa: S105 - how one may be called


class Secret(models.Model):
    """A value that steps refer to by name (``${{ secrets.NAME }}``). It is stored encrypted and never shown."""

    name = models.CharField(
        max_length=100,
        unique=True,
        validators=[RegexValidator(SECRET_NAME, "Letters, digits and _, not starting with a digit.")],
    )
    ciphertext = models.TextField(editable=False)
    note = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_by = models.CharField(max_length=200, blank=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
