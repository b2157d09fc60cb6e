from __future__ import annotations

import uuid

from django.db import models


class Catalog(models.Model):
    """One row: the version of all that processes keep in memory (triggers, endpoints, secrets, keys).

    A random value, not a counter: a transaction that is rolled back must not give its number to another content.
    Database triggers renew it in the transaction of any change, however it is made.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    version = models.UUIDField(default=uuid.uuid4)

    class Meta:
        verbose_name_plural = "catalog"

    def __str__(self) -> str:
        return str(self.version)
