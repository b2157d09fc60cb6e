"""From matched triggers to activations and executions, in the transaction that stored the event.

Each trigger is asked in turn, in the order of ids: does it take events from this sender, is there room, does the
event wait in a group, or does an execution start now? What cannot be started is kept as a failed activation with
the reason, for a person to retry or discard: an event is never lost because a mapping is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from execution import creation, engine
from execution.creation import Source, Start
from execution.definitions import validate_input
from execution.expressions import ExpressionError, Template
from scheduling_project.common.errors import Conflict, DomainError, NotFound
from scheduling_project.common.ids import uuid7
from triggers import catalog, flow_control
from triggers.arrivals import Arrival, Sender
from triggers.catalog import Activator
from triggers.matching import Rule
from triggers.models import Activation, Event
from triggers.states import ActivationState, GroupKind

SOURCE_KIND: Final = "trigger"
MAX_KEY: Final = 255
MAX_REASON: Final = 1000
MAX_GROUP: Final = 1_000


@dataclass(slots=True)
class Outcome:
    """What one trigger made of one event."""

    id: UUID
    trigger_id: UUID
    trigger_name: str
    state: ActivationState
    reason: str = ""
    group_id: UUID | None = None
    execution_id: UUID | None = None

    def as_verdict(self) -> dict[str, Any]:
        """For the delivery log."""
        return {
            "trigger": str(self.trigger_id),
            "name": self.trigger_name,
            "matched": True,
            "activation": str(self.id),
            "state": self.state.value,
            "execution": None if self.execution_id is None else str(self.execution_id),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Decided:
    """What the matched triggers make of an event: nothing is written yet but throttles, counts and groups.

    `full` are batches that this event completes.
    """

    outcomes: list[Outcome]
    starts: list[Start]
    full: list[UUID]


def decide(
    rules: Iterable[Rule],
    *,
    arrival: Arrival,
    document: Mapping[str, Any],
    sender: Sender,
    now: datetime,
    using: str,
) -> Decided:
    """Ask each trigger in turn. The caller writes the outcomes and starts the executions in the same transaction."""
    decided = Decided([], [], [])
    for rule in sorted(rules, key=lambda rule: str(rule.id)):
        activator: Activator = rule.value
        outcome = Outcome(uuid7(), activator.id, activator.name, ActivationState.STARTED)
        decided.outcomes.append(outcome)
        try:
            start = _decide(
                activator,
                outcome,
                decided.full,
                arrival=arrival,
                document=document,
                sender=sender,
                now=now,
                using=using,
            )
        except (DomainError, ExpressionError) as error:
            outcome.state, outcome.reason = ActivationState.FAILED, str(error)[:MAX_REASON]
            continue
        if start is not None:
            outcome.execution_id = start.id
            decided.starts.append(start)
    return decided


def start_full(decided: Decided, *, now: datetime, using: str) -> None:
    """Start the batches that the event has completed, once its activations are written."""
    for group_id in decided.full:
        group = flow_control.close(group_id, now=now, using=using)
        if group is None:
            continue
        execution_id, reason = start_group(group, now=now, using=using)
        for outcome in decided.outcomes:
            if outcome.group_id == group_id:
                outcome.state = ActivationState.FAILED if execution_id is None else ActivationState.STARTED
                outcome.execution_id, outcome.reason = execution_id, reason


def _decide(
    activator: Activator,
    outcome: Outcome,
    full: list[UUID],
    *,
    arrival: Arrival,
    document: Mapping[str, Any],
    sender: Sender,
    now: datetime,
    using: str,
) -> Start | None:
    limit: int = settings.WORKFLOW_MAX_EVENT_DEPTH
    if arrival.depth >= limit:
        outcome.state = ActivationState.CUT
        outcome.reason = f"{arrival.depth} activations led to this event; a longer chain is taken for a loop"
        return None
    refusal = refusal_of(activator.authentication, sender)
    if refusal is not None:
        outcome.state, outcome.reason = ActivationState.REFUSED, refusal
        return None
    scope = {"event": document, "events": [document], "trigger": _facts(activator)}
    if activator.throttle is not None:
        spec = activator.throttle
        if not flow_control.take(activator.id, _text(spec.key, scope), spec, now=now, using=using):
            outcome.state = ActivationState.THROTTLED
            outcome.reason = f"more than {spec.limit} in {spec.period:g} s"
            return None
    if activator.max_activations is not None and not flow_control.count(activator.id, using=using):
        outcome.state = ActivationState.LIMITED
        outcome.reason = f"its {activator.max_activations} activations are used up"
        return None
    waits = activator.debounce or activator.batch
    if waits is not None:
        group = flow_control.join(activator.id, _text(waits.key, scope), waits, now=now, using=using)
        outcome.state, outcome.group_id = ActivationState.WAITING, group.id
        if activator.batch is not None and group.size >= activator.batch.size:
            full.append(group.id)
        return None
    return _start(activator, scope, key=f"activation:{outcome.id}")


def input_of(activator: Activator, document: Mapping[str, Any]) -> Any:
    """What an execution of this event would get; nothing is started.

    Raises:
        Conflict, InvalidInput, ExpressionError: why none could be.
    """
    return _start(activator, {"event": document, "events": [document], "trigger": _facts(activator)}, key="").input


def _start(activator: Activator, scope: Mapping[str, Any], *, key: str) -> Start:
    """The execution to be.

    Raises:
        Conflict: the workflow has no published version.
        InvalidInput: its schema refuses the input, or it is too large.
        ExpressionError: the mapping cannot be applied to this event.
    """
    if activator.version is None:
        raise Conflict("The workflow has no published version.")
    value = default_input(scope) if activator.input is None else activator.input.render(scope)
    validate_input(activator.version, value)
    creation.check_size(value, field_name="input")
    return Start(
        version=activator.version,
        source=Source(SOURCE_KIND, str(activator.id), activator.name),
        input=value,
        idempotency_key=key,
        priority=activator.priority,
        queue=activator.queue,
        retry_policy=activator.retry_policy,
        timeout=activator.timeout,
        concurrency_key=_text(activator.concurrency_key, scope),
    )


def default_input(scope: Mapping[str, Any]) -> dict[str, Any]:
    """What a workflow gets from a trigger without a mapping: the event's data, or all events of a batch."""
    if scope.get("batch"):
        return {"events": scope["events"]}
    data = scope["event"]["data"]
    return data if isinstance(data, dict) else {"data": data}


def refusal_of(authentication: Mapping[str, Any], sender: Sender) -> str | None:
    """Why a trigger does not take events from this sender, None if it does.

    >>> refusal_of({"methods": ["signature"]}, Sender("key:ab", "api_key"))
    'takes events by signature only, this one came by api_key'
    """
    if sender.trusted:
        return None
    methods = authentication.get("methods")
    if methods and sender.method not in methods:
        return f"takes events by {' or '.join(methods)} only, this one came by {sender.method}"
    endpoints = authentication.get("endpoints")
    if endpoints and sender.endpoint not in endpoints:
        return f"takes events from {', '.join(endpoints)} only"
    keys = authentication.get("keys")
    if keys and sender.key_prefix not in keys:
        return "takes events with certain API keys only, this one came with another or none"
    missing = sorted(set(authentication.get("scopes") or ()) - sender.scopes)
    if missing:
        return f"takes events with the scope {', '.join(missing)} only"
    return None


def _facts(activator: Activator) -> dict[str, str]:
    return {"id": str(activator.id), "name": activator.name}


def _text(template: Template | None, scope: Mapping[str, Any]) -> str:
    """A key as text; one that is too long by its hash."""
    if template is None:
        return ""
    value = template.render(scope)
    text = value if isinstance(value, str) else engine.dump_json(value)
    if len(text) <= MAX_KEY and "\x00" not in text:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ── Groups ───────────────────────────────────────────────────────────────────────────────────────────────────

# The activations of a group that was closed by this transaction. A debounce group is stood for by its last event.
_SETTLE = """
UPDATE triggers_activation SET
    state = CASE WHEN %(reason)s::text <> '' THEN 'failed' WHEN %(merge)s::bool AND id <> %(last)s::uuid THEN 'merged'
        ELSE 'started' END,
    execution_id = %(execution)s::uuid, reason = %(reason)s::text, updated_at = %(now)s::timestamptz
WHERE group_id = %(group)s::uuid AND state IN ('waiting', 'failed')
"""


def flush(*, now: datetime, limit: int = 100, using: str) -> int:
    """Start what waited long enough. One transaction for all; returns how many groups were closed."""
    with engine.transaction(using=using):
        groups = flow_control.close_due(now=now, limit=limit, using=using)
        for group in groups:
            start_group(group, now=now, using=using)
    return len(groups)


def start_group(group: flow_control.DueGroup, *, now: datetime, using: str) -> tuple[UUID | None, str]:
    """Start one execution for the events of a closed group. Returns its id, or None and what went wrong."""
    merge = group.kind == GroupKind.DEBOUNCE
    members = Activation.objects.using(using).filter(group_id=group.id).select_related("event").order_by("-id")
    activations = list(reversed(members[: 1 if merge else MAX_GROUP]))
    if not activations:
        return None, ""
    start, reason = _group_start(group, activations, using=using)
    params = {
        "group": group.id,
        "last": activations[-1].pk,
        "merge": merge,
        "execution": None if start is None else start.id,
        "reason": reason,
        "now": now,
    }
    engine.fetch_all(_SETTLE, params, using=using)
    if start is not None:
        creation.start_many([start], now=now, using=using)
    return (None if start is None else start.id), reason


def _group_start(
    group: flow_control.DueGroup, activations: Sequence[Activation], *, using: str
) -> tuple[Start | None, str]:
    rule = catalog.load_rule(group.trigger_id, using=using)
    assert rule is not None, "a group goes with its trigger"
    documents = [document_of(activation.event, using=using) for activation in activations]
    scope = {
        "event": documents[-1],
        "events": documents,
        "trigger": _facts(rule.value),
        "batch": group.kind == GroupKind.BATCH,
    }
    try:
        return _start(rule.value, scope, key=f"group:{group.id}"), ""
    except (DomainError, ExpressionError) as error:
        return None, str(error)[:MAX_REASON] or "failed"


def document_of(event: Event, *, using: str = "default") -> dict[str, Any]:
    """A stored event as patterns match it and expressions read it."""
    slug = ""
    if event.endpoint_id is not None:
        slug = catalog.current(using=using).slugs.get(event.endpoint_id, "")
    return arrival_of(event).document(id=event.pk, endpoint=slug, received_at=event.received_at)


def arrival_of(event: Event) -> Arrival:
    """A stored event as it once arrived, without its claim to be the only one."""
    return Arrival(
        type=event.type,
        source=event.source,
        subject=event.subject,
        time=event.time,
        data=event.data,
        extensions=event.extensions,
        content_type=event.content_type,
        raw=bytes(event.raw),
        headers=event.headers,
        delivery_id=event.delivery_id,
        cause=event.cause,
        depth=event.depth,
    )


# ── Failed activations ───────────────────────────────────────────────────────────────────────────────────────


def retry(activation_id: UUID, *, now: datetime, using: str = "default") -> Activation:
    """Try a failed activation again, with the trigger and workflow as they are now.

    Raises:
        NotFound: there is no such activation.
        Conflict: it has not failed.
        InvalidInput, ExpressionError: it fails again; nothing is changed.
    """
    with engine.transaction(using=using):
        activation = _hold_failed(activation_id, using)
        rule = catalog.load_rule(activation.trigger_id, using=using)
        assert rule is not None, "an activation goes with its trigger"
        if activation.group_id is not None:
            return _retry_group(activation, now=now, using=using)
        document = document_of(activation.event, using=using)
        scope = {"event": document, "events": [document], "trigger": _facts(rule.value)}
        start = _start(rule.value, scope, key=f"activation:{activation.pk}")
        creation.start_many([start], now=now, using=using)
        return _set(activation, ActivationState.STARTED, execution_id=start.id, reason="", now=now)


def _retry_group(activation: Activation, *, now: datetime, using: str) -> Activation:
    """All members of a group failed together and are tried again together."""
    group = activation.group
    assert group is not None
    execution_id, reason = start_group(
        flow_control.DueGroup(group.pk, group.trigger_id, group.kind), now=now, using=using
    )
    if execution_id is None:
        raise Conflict(f"It failed again: {reason}")
    return Activation.objects.using(using).select_related("event", "trigger").get(pk=activation.pk)


def discard(activation_id: UUID, *, note: str, now: datetime, using: str = "default") -> Activation:
    """Decide that a failed activation needs no execution.

    Raises:
        NotFound: there is no such activation.
        Conflict: it has not failed.
    """
    with engine.transaction(using=using):
        activation = _hold_failed(activation_id, using)
        reason = f"{activation.reason} (discarded: {note})" if note else activation.reason
        return _set(activation, ActivationState.DISCARDED, execution_id=None, reason=reason, now=now)


def _hold_failed(activation_id: UUID, using: str) -> Activation:
    activation = (
        Activation.objects.using(using)
        .select_for_update(no_key=True, of=("self",))
        .select_related("event", "trigger", "group")
        .filter(pk=activation_id)
        .first()
    )
    if activation is None:
        raise NotFound("There is no such activation.")
    if activation.state != ActivationState.FAILED:
        raise Conflict(f"The activation is {activation.state}; only failed ones can be decided.")
    return activation


def _set(
    activation: Activation, state: ActivationState, *, execution_id: UUID | None, reason: str, now: datetime
) -> Activation:
    activation.state, activation.reason = state, reason[:MAX_REASON]
    activation.execution_id, activation.updated_at = execution_id, now
    activation.save(update_fields=["state", "reason", "execution", "updated_at"])
    return activation
