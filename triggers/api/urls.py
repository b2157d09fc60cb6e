"""Routes of triggers and events, below ``/api/``."""

from __future__ import annotations

from scheduling_project.common.api import OptionalSlashRouter
from triggers.api.events import EventTypeViewSet, EventViewSet
from triggers.api.keys import ApiKeyViewSet
from triggers.api.triggers import ActivationViewSet, TriggerViewSet
from triggers.api.webhooks import WebhookViewSet
from triggers.auth import schema  # noqa: F401 - tells the API's description of API keys

router = OptionalSlashRouter()
router.register("triggers", TriggerViewSet, basename="trigger")
router.register("activations", ActivationViewSet, basename="activation")
router.register("webhooks", WebhookViewSet, basename="webhook")
router.register("events", EventViewSet, basename="event")
router.register("event-types", EventTypeViewSet, basename="event-type")
router.register("api-keys", ApiKeyViewSet, basename="api-key")

urlpatterns = router.urls
