"""The states of endpoints, activations and groups of waiting events; what a delivery came to."""

from __future__ import annotations

from typing import Final

from django.db.models import TextChoices


class EndpointState(TextChoices):
    ACTIVE = "active", "Active"
    PAUSED = "paused", "Paused"  # answers 503, so that senders keep what they have and come again
    RETIRED = "retired", "Retired"  # answers 410 for good


class ActivationState(TextChoices):
    """What became of one event for one trigger that it matched."""

    WAITING = "waiting", "Waiting"  # for its debounce or batch group
    STARTED = "started", "Started"  # has an execution
    MERGED = "merged", "Merged"  # a later event of its debounce group stands for it; has that one's execution
    THROTTLED = "throttled", "Throttled"
    LIMITED = "limited", "Limit reached"
    REFUSED = "refused", "Refused"  # the trigger does not take events from this sender
    CUT = "cut", "Loop cut"  # the chain of events was too long
    FAILED = "failed", "Failed"  # no execution could be made; a person may retry or discard it
    DISCARDED = "discarded", "Discarded"


ACTIVATION_TRANSITIONS: Final[dict[ActivationState, frozenset[ActivationState]]] = {
    ActivationState.WAITING: frozenset(
        {ActivationState.STARTED, ActivationState.MERGED, ActivationState.FAILED, ActivationState.DISCARDED}
    ),
    ActivationState.FAILED: frozenset({ActivationState.STARTED, ActivationState.DISCARDED}),
    **{
        state: frozenset()
        for state in ActivationState
        if state not in {ActivationState.WAITING, ActivationState.FAILED}
    },
}


class GroupKind(TextChoices):
    DEBOUNCE = "debounce", "Debounce"
    BATCH = "batch", "Batch"


class DeliveryOutcome(TextChoices):
    """What a request at the door came to."""

    ACCEPTED = "accepted", "Accepted"
    DUPLICATE = "duplicate", "Duplicate"
    HANDSHAKE = "handshake", "Handshake"
    UNAUTHENTICATED = "unauthenticated", "Not authenticated"
    FORBIDDEN = "forbidden", "Forbidden"
    TOO_LARGE = "too_large", "Too large"
    LIMITED = "limited", "Rate limited"
    MALFORMED = "malformed", "Malformed"
    UNAVAILABLE = "unavailable", "Not taken now"  # paused, or limits that cannot be counted
    GONE = "gone", "Retired"


class WhenRedisIsAway(TextChoices):
    OPEN = "open", "Let through"
    CLOSED = "closed", "Answer 503"


class Dedup(TextChoices):
    """How two deliveries are known to be the same."""

    AUTO = "auto", "Delivery id or Idempotency-Key"
    BODY = "body", "Also the same body"
    NONE = "none", "Never"


class ResponseMode(TextChoices):
    IDS = "ids", "The ids of what was made"
    EMPTY = "empty", "An empty body"
