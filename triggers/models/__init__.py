from __future__ import annotations

from triggers.models.activation import Activation, PendingGroup, Throttle
from triggers.models.api_key import ApiKey
from triggers.models.catalog import Catalog
from triggers.models.delivery import Delivery
from triggers.models.endpoint import EndpointSecret, WebhookEndpoint
from triggers.models.event import Event, EventType
from triggers.models.trigger import Trigger

__all__ = [
    "Activation",
    "ApiKey",
    "Catalog",
    "Delivery",
    "EndpointSecret",
    "Event",
    "EventType",
    "PendingGroup",
    "Throttle",
    "Trigger",
    "WebhookEndpoint",
]
