from __future__ import annotations

import secrets
from datetime import datetime

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from scheduling_project.common.ids import uuid7
from triggers.states import Dedup, EndpointState, ResponseMode, WhenRedisIsAway

SLUG = RegexValidator(r"^[a-z0-9][a-z0-9._-]*\Z", "Small letters, digits, '.', '_' and '-', not starting with a sign.")


def new_token() -> str:
    """The part of an endpoint's URL that cannot be guessed: 192 random bits."""
    return secrets.token_urlsafe(24)


def only_post() -> list[str]:
    return ["POST"]


class WebhookEndpoint(models.Model):
    """An address where one sender delivers events: ``/hooks/<token>``."""

    # Identity
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.CharField(max_length=100, unique=True, validators=[SLUG])
    token = models.CharField(max_length=64, unique=True, default=new_token, editable=False)
    description = models.TextField(blank=True)
    owner = models.CharField(max_length=200, blank=True)
    labels = models.JSONField(default=dict, blank=True)

    # Who may deliver
    scheme = models.CharField(max_length=20, default="standard", help_text="Signature scheme (docs: webhooks).")
    scheme_config = models.JSONField(default=dict, blank=True)
    require_api_key = models.BooleanField(default=False, help_text="An API key as well as the scheme's proof.")
    methods = models.JSONField(default=only_post, blank=True)
    allowed_networks = models.JSONField(default=list, blank=True, help_text="CIDR blocks; empty: from anywhere.")

    # What and how much
    max_body_bytes = models.PositiveIntegerField(
        default=1_048_576, validators=[MinValueValidator(1), MaxValueValidator(5_242_880)]
    )
    rate_per_minute = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Deliveries; empty: no limit."
    )
    burst = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="At once; empty: a tenth of the rate."
    )
    caller_rate_per_minute = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Of each API key, or of each address."
    )
    when_redis_is_away = models.CharField(
        max_length=10,
        choices=WhenRedisIsAway,
        default=WhenRedisIsAway.OPEN,
        help_text="What becomes of the limits when Redis cannot count.",
    )

    # Reading a delivery
    type_from = models.CharField(
        max_length=200, blank=True, help_text="header:<name>, path:<a.b> or fixed:<type>; empty: found by itself."
    )
    dedup = models.CharField(max_length=10, choices=Dedup, default=Dedup.AUTO)
    dedup_path = models.CharField(max_length=200, blank=True, help_text="Path of a value that names the delivery.")
    dedup_window = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Seconds; empty: as long as events are kept.",
    )
    response_mode = models.CharField(max_length=10, choices=ResponseMode, default=ResponseMode.IDS)

    # Live state
    state = models.CharField(max_length=10, choices=EndpointState, default=EndpointState.ACTIVE)
    state_note = models.CharField(max_length=500, blank=True)

    # Timestamps
    revision = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    @property
    def path(self) -> str:
        return f"/hooks/{self.token}"


class EndpointSecretQuerySet(models.QuerySet["EndpointSecret"]):
    def valid(self, now: datetime) -> EndpointSecretQuerySet:
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))


class EndpointSecret(models.Model):
    """A secret of an endpoint, encrypted. Several are valid at a time while one replaces another."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="secrets")
    ciphertext = models.TextField(editable=False)
    hint = models.CharField(max_length=10, blank=True, editable=False, help_text="Its last characters.")
    created_by = models.CharField(max_length=200, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = EndpointSecretQuerySet.as_manager()

    class Meta:
        ordering = ["endpoint", "-id"]

    def __str__(self) -> str:
        return f"…{self.hint} of {self.endpoint_id}"
