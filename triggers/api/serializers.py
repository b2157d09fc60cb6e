"""The shapes of triggers, webhook endpoints, events, activations, deliveries and API keys."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from execution.api.fields import PriorityField, QueueField, RetryPolicyField, WorkflowField
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import (
    AnyField,
    FlagField,
    InstantField,
    NumberField,
    ObjectField,
    TextField,
    WholeNumberField,
)
from triggers import inspection
from triggers.auth import keys
from triggers.models import Trigger, WebhookEndpoint
from triggers.signatures import SCHEMES
from triggers.states import (
    ActivationState,
    Dedup,
    DeliveryOutcome,
    EndpointState,
    ResponseMode,
    WhenRedisIsAway,
)

READ: dict[str, Any] = {"read_only": True}
OPTIONAL: dict[str, Any] = {"required": False}
NULLABLE: dict[str, Any] = {"required": False, "allow_null": True}
EMPTY: dict[str, Any] = {"required": False, "allow_blank": True}


def texts(**options: Any) -> serializers.ListField:
    """A list of texts."""
    return serializers.ListField(child=TextField(max_length=500), **options)


@extend_schema_field(
    {
        "type": "string",
        "minLength": 1,
        "maxLength": 100,
        "description": "Slug or id of a webhook endpoint; answered as its id.",
    }
)
class EndpointField(serializers.Field[Any, Any, Any, Any]):
    """An endpoint by slug or id, which the lifecycle looks up; shown as its id."""

    default_error_messages = {"not_text": "must be the slug or id of a webhook endpoint"}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str) or not 1 <= len(data) <= 100:
            self.fail("not_text")
        return data

    def to_representation(self, value: WebhookEndpoint) -> str:
        return str(value.pk)


# ── Triggers ─────────────────────────────────────────────────────────────────────────────────────────────────


@extend_schema_serializer(component_name="EventTrigger")
class TriggerSerializer(StrictSerializer):
    """A rule on events: which of them start which workflow, with what and how often."""

    id = serializers.UUIDField(**READ)
    name = TextField(max_length=200)
    description = TextField(max_length=10_000, **EMPTY)
    owner = TextField(max_length=200, **EMPTY)
    labels = ObjectField(**OPTIONAL)
    metadata = ObjectField(**OPTIONAL)

    endpoint = EndpointField(**NULLABLE)
    endpoint_slug = serializers.CharField(source="endpoint.slug", default=None, allow_null=True, **READ)
    event_types = texts(required=False, help_text="Exact, or a prefix that ends in *.")
    pattern = ObjectField(required=False, help_text="An event pattern.")
    authentication = ObjectField(required=False, help_text="methods, endpoints, keys, scopes; empty: any sender.")

    workflow = WorkflowField()
    workflow_name = serializers.CharField(source="workflow.name", **READ)
    input = AnyField(help_text="Template over event, events and trigger; null: the event's data.", **NULLABLE)
    priority = PriorityField(**NULLABLE)
    queue = QueueField(**EMPTY)
    retry_policy = RetryPolicyField(**NULLABLE)
    timeout = NumberField(help_text="Seconds.", **NULLABLE)
    concurrency_key = TextField(max_length=500, **EMPTY)

    throttle = ObjectField(help_text="limit, period (seconds), key.", **NULLABLE)
    debounce = ObjectField(help_text="period (seconds), timeout (seconds), key.", **NULLABLE)
    batch = ObjectField(help_text="size, timeout (seconds), key.", **NULLABLE)
    max_activations = WholeNumberField(**NULLABLE)
    start_at = InstantField(**NULLABLE)
    end_at = InstantField(**NULLABLE)

    enabled = FlagField(**OPTIONAL)
    state = serializers.SerializerMethodField(help_text="active, paused, scheduled, ended or exhausted.")
    pause_note = serializers.CharField(**READ)
    paused_at = serializers.DateTimeField(allow_null=True, **READ)
    activation_count = serializers.IntegerField(**READ)
    revision = serializers.IntegerField(**READ)
    created_at = serializers.DateTimeField(**READ)
    updated_at = serializers.DateTimeField(**READ)

    def get_state(self, trigger: Trigger) -> str:
        # To the second is enough here, and a list need not ask Postgres for each of its rows.
        return inspection.state_of(trigger, now=timezone.now())


@extend_schema_serializer(component_name="EventTriggerCreate")
class TriggerCreateSerializer(TriggerSerializer):
    """A new trigger; or, in one call, an endpoint (a slug that is not taken) with a trigger on its events."""

    name = TextField(max_length=200, required=False, help_text="The endpoint's slug when left out.")
    events = texts(required=False, write_only=True, help_text="The same as event_types.")
    filters = ObjectField(write_only=True, help_text="A pattern over the event, or over its data alone.", **NULLABLE)
    scheme = serializers.ChoiceField(SCHEMES, write_only=True, required=False, help_text="Of the new endpoint.")
    secret = TextField(max_length=500, write_only=True, help_text="Of the new endpoint; else a random one.", **NULLABLE)


@extend_schema_serializer(component_name="CreatedEventTrigger")
class CreatedTriggerSerializer(TriggerSerializer):
    """A trigger, with the address and the secret of the endpoint that was made with it."""

    webhook_url = serializers.URLField(allow_null=True, **READ)
    secret = serializers.CharField(help_text="Shown this once.", allow_null=True, **READ)


class TestEventSerializer(StrictSerializer):
    """An event that never happened. With ``dry_run`` false it is stored and this trigger alone gets it."""

    type = TextField(max_length=200, required=False)
    source = TextField(max_length=500, default="/test", allow_blank=True)  # type: ignore[assignment]
    subject = TextField(max_length=500, default="", allow_blank=True)
    data = AnyField(default=None, allow_null=True)  # type: ignore[assignment]
    extensions = ObjectField(default=dict)
    dry_run = FlagField(default=True)


class TrialSerializer(StrictSerializer):
    """What a trigger would make of an event."""

    matched = serializers.BooleanField(**READ)
    reason = serializers.CharField(help_text="The first field that failed, or why nothing could start.", **READ)
    input = AnyField(allow_null=True, **READ)
    event_id = serializers.UUIDField(allow_null=True, default=None, **READ)
    activation_ids = serializers.ListField(child=serializers.UUIDField(), default=list, **READ)
    execution_ids = serializers.ListField(child=serializers.UUIDField(), default=list, **READ)


class TryPatternSerializer(StrictSerializer):
    """A pattern to hold against recent events."""

    pattern = ObjectField()
    event_types = texts(default=list)
    endpoint = EndpointField(allow_null=True, default=None)
    limit = WholeNumberField(min_value=1, max_value=inspection.MAX_RECENT, default=100)


class PatternTrialSerializer(StrictSerializer):
    """A recent event, and whether the pattern takes it."""

    event = serializers.UUIDField(source="event.pk", **READ)
    type = serializers.CharField(source="event.type", **READ)
    received_at = serializers.DateTimeField(source="event.received_at", **READ)
    matched = serializers.BooleanField(**READ)
    reason = serializers.CharField(**READ)


class PatternTrialsSerializer(StrictSerializer):
    """How a pattern fared."""

    tried = serializers.IntegerField(**READ)
    matched = serializers.IntegerField(**READ)
    results = PatternTrialSerializer(many=True, **READ)


class TriggerStatusSerializer(StrictSerializer):
    """How a trigger is at the moment."""

    id = serializers.UUIDField(**READ)
    state = serializers.CharField(**READ)
    enabled = serializers.BooleanField(**READ)
    activation_count = serializers.IntegerField(**READ)
    max_activations = serializers.IntegerField(allow_null=True, **READ)
    waiting_groups = serializers.IntegerField(**READ)
    waiting_until = serializers.DateTimeField(allow_null=True, **READ)
    last_activation_at = serializers.DateTimeField(allow_null=True, **READ)
    last_activation_state = serializers.CharField(allow_null=True, **READ)
    last_execution = serializers.UUIDField(allow_null=True, **READ)
    last_execution_state = serializers.CharField(allow_null=True, **READ)
    failed_activations = serializers.IntegerField(**READ)


class TriggerStatsSerializer(StrictSerializer):
    """What a trigger did in a window of time."""

    window_seconds = serializers.IntegerField(**READ)
    activations = serializers.IntegerField(**READ)
    activations_by_state = serializers.DictField(child=serializers.IntegerField(), **READ)
    executions = serializers.IntegerField(**READ)
    executions_by_state = serializers.DictField(child=serializers.IntegerField(), **READ)
    success_rate = serializers.FloatField(allow_null=True, **READ)
    last_activation_at = serializers.DateTimeField(allow_null=True, **READ)


class ActivationSerializer(StrictSerializer):
    """One event for one trigger that it matched, and what came of it."""

    id = serializers.UUIDField(**READ)
    trigger = serializers.UUIDField(source="trigger_id", **READ)
    trigger_name = serializers.CharField(source="trigger.name", **READ)
    event = serializers.UUIDField(source="event_id", **READ)
    event_type = serializers.CharField(source="event.type", **READ)
    execution = serializers.UUIDField(source="execution_id", allow_null=True, **READ)
    state = serializers.ChoiceField(ActivationState.choices, **READ)
    reason = serializers.CharField(**READ)
    created_at = serializers.DateTimeField(**READ)
    updated_at = serializers.DateTimeField(**READ)


# ── Webhook endpoints ────────────────────────────────────────────────────────────────────────────────────────


class SecretSerializer(StrictSerializer):
    """A secret, without its text."""

    id = serializers.UUIDField(**READ)
    hint = serializers.CharField(help_text="Its last characters.", **READ)
    created_at = serializers.DateTimeField(**READ)
    created_by = serializers.CharField(**READ)
    expires_at = serializers.DateTimeField(allow_null=True, **READ)


class WebhookSerializer(StrictSerializer):
    """An address where one sender delivers events."""

    id = serializers.UUIDField(**READ)
    slug = TextField(max_length=100)
    url = serializers.SerializerMethodField()
    path = serializers.CharField(**READ)
    description = TextField(max_length=10_000, **EMPTY)
    owner = TextField(max_length=200, **EMPTY)
    labels = ObjectField(**OPTIONAL)

    scheme = serializers.ChoiceField(SCHEMES, **OPTIONAL)
    scheme_config = ObjectField(**OPTIONAL)
    require_api_key = FlagField(**OPTIONAL)
    methods = texts(**OPTIONAL)
    allowed_networks = texts(**OPTIONAL)

    max_body_bytes = WholeNumberField(**OPTIONAL)
    rate_per_minute = WholeNumberField(**NULLABLE)
    burst = WholeNumberField(**NULLABLE)
    caller_rate_per_minute = WholeNumberField(**NULLABLE)
    when_redis_is_away = serializers.ChoiceField(WhenRedisIsAway.choices, **OPTIONAL)

    type_from = TextField(max_length=200, **EMPTY)
    dedup = serializers.ChoiceField(Dedup.choices, **OPTIONAL)
    dedup_path = TextField(max_length=200, **EMPTY)
    dedup_window = WholeNumberField(help_text="Seconds.", **NULLABLE)
    response_mode = serializers.ChoiceField(ResponseMode.choices, **OPTIONAL)

    state = serializers.ChoiceField(EndpointState.choices, **READ)
    state_note = serializers.CharField(**READ)
    secrets = SecretSerializer(many=True, **READ)
    revision = serializers.IntegerField(**READ)
    created_at = serializers.DateTimeField(**READ)
    updated_at = serializers.DateTimeField(**READ)

    def get_url(self, endpoint: WebhookEndpoint) -> str:
        request = self.context.get("request")
        return endpoint.path if request is None else request.build_absolute_uri(endpoint.path)


class WebhookCreateSerializer(WebhookSerializer):
    """A new endpoint; with ``workflow`` also a trigger on its events, named as the endpoint."""

    secret = TextField(max_length=500, write_only=True, help_text="Else a random one.", **NULLABLE)
    workflow = WorkflowField(write_only=True, **NULLABLE)
    events = texts(required=False, write_only=True)
    filters = ObjectField(write_only=True, help_text="A pattern over the event, or over its data alone.", **NULLABLE)
    input = AnyField(write_only=True, **NULLABLE)
    retry_policy = RetryPolicyField(write_only=True, **NULLABLE)


class CreatedWebhookSerializer(WebhookSerializer):
    """An endpoint with the text of its newest secret, and its trigger if one was made with it."""

    secret = serializers.CharField(help_text="Shown this once.", **READ)
    trigger = serializers.UUIDField(allow_null=True, **READ)


class RotateSerializer(StrictSerializer):
    """A new secret, and for how many seconds the present ones stay valid."""

    secret = TextField(max_length=500, allow_null=True, default=None)
    overlap = NumberField(default=86_400)


class TestDeliverySerializer(StrictSerializer):
    """A delivery that the server signs and sends to itself."""

    body = AnyField(default=dict, allow_null=True)
    delivery_id = TextField(max_length=200, allow_null=True, default=None)
    headers = ObjectField(default=dict)


class TestedDeliverySerializer(StrictSerializer):
    """What the door answered."""

    status = serializers.IntegerField(**READ)
    body = AnyField(allow_null=True, **READ)
    headers = serializers.DictField(child=serializers.CharField(), help_text="As they were sent, signed.", **READ)


class DeliverySerializer(StrictSerializer):
    """One arrival at a door, and what became of it."""

    id = serializers.UUIDField(**READ)
    endpoint = serializers.UUIDField(source="endpoint_id", allow_null=True, **READ)
    event = serializers.UUIDField(source="event_id", allow_null=True, **READ)
    outcome = serializers.ChoiceField(DeliveryOutcome.choices, **READ)
    status = serializers.IntegerField(**READ)
    reason = serializers.CharField(**READ)
    delivery_id = serializers.CharField(**READ)
    sender = serializers.CharField(**READ)
    size = serializers.IntegerField(**READ)
    verdicts = serializers.ListField(child=ObjectField(), **READ)
    duration_ms = serializers.FloatField(allow_null=True, **READ)
    received_at = serializers.DateTimeField(**READ)


class WebhookStatsSerializer(StrictSerializer):
    """What came to an endpoint in a window of time."""

    window_seconds = serializers.IntegerField(**READ)
    deliveries = serializers.IntegerField(**READ)
    deliveries_by_outcome = serializers.DictField(child=serializers.IntegerField(), **READ)
    per_minute = serializers.FloatField(**READ)
    events_by_type = serializers.DictField(
        child=serializers.IntegerField(), help_text="The twenty most frequent.", **READ
    )
    activations_by_state = serializers.DictField(child=serializers.IntegerField(), **READ)
    p50_duration_ms = serializers.FloatField(allow_null=True, help_text="Until the commit.", **READ)
    p95_duration_ms = serializers.FloatField(allow_null=True, **READ)
    p99_duration_ms = serializers.FloatField(allow_null=True, **READ)
    max_duration_ms = serializers.FloatField(allow_null=True, **READ)
    last_delivery_at = serializers.DateTimeField(allow_null=True, **READ)


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────


class EventSummarySerializer(StrictSerializer):
    """An event in a list: everything but its body."""

    id = serializers.UUIDField(**READ)
    type = TextField(max_length=200)
    source = TextField(max_length=500, **EMPTY)  # type: ignore[assignment]
    subject = TextField(max_length=500, **EMPTY)
    time = InstantField(**NULLABLE)
    endpoint = serializers.UUIDField(source="endpoint_id", allow_null=True, **READ)
    delivery_id = serializers.CharField(**READ)
    producer = serializers.CharField(**READ)
    replay_of = serializers.UUIDField(source="replay_of_id", allow_null=True, **READ)
    cause = serializers.UUIDField(allow_null=True, help_text="The execution that it came from.", **READ)
    depth = serializers.IntegerField(**READ)
    received_at = serializers.DateTimeField(**READ)


class EventSerializer(EventSummarySerializer):
    """An event as it arrived."""

    data = AnyField(allow_null=True, **READ)  # type: ignore[assignment]
    extensions = ObjectField(**READ)
    content_type = serializers.CharField(**READ)
    headers = ObjectField(**READ)
    activations = ActivationSerializer(many=True, **READ)


class PublishSerializer(StrictSerializer):
    """An event from an internal producer. A repeat of source and id starts nothing."""

    type = TextField(max_length=200)
    source = TextField(max_length=500, default="/api", allow_blank=True)  # type: ignore[assignment]
    subject = TextField(max_length=500, default="", allow_blank=True)
    id = TextField(max_length=200, allow_null=True, default=None)
    time = InstantField(allow_null=True, default=None)
    data = AnyField(allow_null=True, default=None)  # type: ignore[assignment]
    extensions = ObjectField(default=dict)


class ReceiptSerializer(StrictSerializer):
    """What an event came to. A repeat has the ids of the first time."""

    id = serializers.UUIDField(source="event_id", **READ)
    event_id = serializers.UUIDField(**READ)
    activation_ids = serializers.ListField(child=serializers.UUIDField(), **READ)
    execution_ids = serializers.ListField(child=serializers.UUIDField(), **READ)
    duplicate = serializers.BooleanField(**READ)


class ReplaySerializer(StrictSerializer):
    """Which triggers get the event again; all when left out."""

    triggers = serializers.ListField(child=serializers.UUIDField(), required=False, allow_null=True, default=None)


class ReplayRangeSerializer(ReplaySerializer):
    """Which events are replayed: received from `after` until before `before`."""

    after = InstantField()
    before = InstantField()
    type = TextField(max_length=200, required=False)
    endpoint = EndpointField(allow_null=True, default=None)


class ReplayedSerializer(StrictSerializer):
    """What a replay of a range came to."""

    replayed = serializers.IntegerField(**READ)
    results = ReceiptSerializer(many=True, **READ)


class VerdictSerializer(StrictSerializer):
    """What a trigger of today says to an event."""

    trigger = serializers.UUIDField(**READ)
    name = serializers.CharField(**READ)
    matched = serializers.BooleanField(**READ)
    reason = serializers.CharField(help_text="The first field that failed.", **READ)


class EventTypeSerializer(StrictSerializer):
    """A type of event that somebody has described. With a schema, producers at the API are held to it."""

    id = serializers.IntegerField(**READ)
    name = TextField(max_length=200)
    description = TextField(max_length=10_000, **EMPTY)
    schema = AnyField(help_text="JSON Schema (2020-12) of the data.", **NULLABLE)
    example = AnyField(**NULLABLE)
    created_at = serializers.DateTimeField(**READ)
    updated_at = serializers.DateTimeField(**READ)


# ── API keys ─────────────────────────────────────────────────────────────────────────────────────────────────


class ApiKeySerializer(StrictSerializer):
    """A credential for machines, without its text."""

    id = serializers.UUIDField(**READ)
    name = TextField(max_length=200)
    prefix = serializers.CharField(**READ)
    scopes = serializers.ListField(child=serializers.ChoiceField(list(keys.SCOPES)), default=["read"])
    allowed_networks = texts(default=list)
    user = serializers.CharField(source="user.username", **READ)
    expires_at = InstantField(allow_null=True, default=None)
    revoked_at = serializers.DateTimeField(allow_null=True, **READ)
    last_used_at = serializers.DateTimeField(allow_null=True, **READ)
    created_by = serializers.CharField(**READ)
    created_at = serializers.DateTimeField(**READ)


class CreatedApiKeySerializer(ApiKeySerializer):
    """A new key with its text."""

    key = serializers.CharField(help_text="Shown this once.", **READ)
