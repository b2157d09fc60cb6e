"""The shapes of notification rules and of the messages that they sent."""

from __future__ import annotations

from rest_framework import serializers

from execution.api.fields import QueueField, WorkflowField
from execution.api.serializers.common import READ
from execution.notifications.kinds import Channel, NotificationKind, NotificationState
from execution.notifications.rules import MOST_EMAILS, MOST_WINDOW
from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import FlagField, NumberField, ObjectField, TextField, WholeNumberField


class NotificationRuleSerializer(StrictSerializer):
    """Who is told of what, and how. Every filter that is given must fit."""

    id = serializers.UUIDField(**READ)
    name = TextField(max_length=200)
    enabled = FlagField(required=False)
    kind = serializers.ChoiceField(NotificationKind.choices)
    workflow = WorkflowField(required=False, allow_null=True)
    schedule = TextField(max_length=200, required=False, allow_blank=True, help_text="Id or name of a schedule.")
    labels = ObjectField(required=False, help_text="Labels of the workflow, or of the schedule.")
    queue = QueueField(required=False, allow_blank=True)
    threshold = WholeNumberField(min_value=1, max_value=1000, required=False, allow_null=True)
    seconds = NumberField(required=False, allow_null=True)
    window = WholeNumberField(
        min_value=0, max_value=MOST_WINDOW, required=False, help_text="Seconds within which news become one message."
    )
    emails = serializers.ListField(child=TextField(max_length=254), max_length=MOST_EMAILS, required=False)
    webhook_url = TextField(max_length=2000, required=False, allow_blank=True)
    webhook_failing_since = serializers.DateTimeField(allow_null=True, **READ)
    webhook_disabled_at = serializers.DateTimeField(allow_null=True, **READ)
    webhook_note = serializers.CharField(**READ)
    revision = serializers.IntegerField(**READ)
    created_at = serializers.DateTimeField(**READ)
    created_by = serializers.CharField(**READ)


class NotificationRuleMadeSerializer(NotificationRuleSerializer):
    """A rule with the secret of its webhook, which is shown only now; empty where it has not changed."""

    secret = serializers.CharField(**READ)


class NotificationSerializer(StrictSerializer):
    """One message to one channel."""

    id = serializers.UUIDField(**READ)
    channel = serializers.ChoiceField(Channel.choices, **READ)
    state = serializers.ChoiceField(NotificationState.choices, **READ)
    is_test = serializers.BooleanField(**READ)
    count = serializers.IntegerField(**READ)
    events = serializers.ListField(child=ObjectField(), **READ)
    attempts = serializers.IntegerField(**READ)
    due_at = serializers.DateTimeField(**READ)
    status = serializers.IntegerField(allow_null=True, **READ)
    error = serializers.CharField(**READ)
    created_at = serializers.DateTimeField(**READ)
    finished_at = serializers.DateTimeField(allow_null=True, **READ)
