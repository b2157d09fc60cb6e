"""Looking without touching: would this trigger take this event, which recent events would it have taken, how is it?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, Max, Q

from execution import engine, patterns
from execution.expressions import ExpressionError
from execution.states import ExecutionState
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError
from triggers import activation, catalog, checks
from triggers.arrivals import Arrival
from triggers.matching import Rule
from triggers.models import Activation, Event, PendingGroup, Trigger, WebhookEndpoint

MAX_RECENT: Final = 500


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trigger would make of an event. `reason`: the first field that failed, or why nothing could start."""

    matched: bool
    reason: str = ""
    input: Any = None


def try_trigger(trigger: Trigger, arrival: Arrival, *, now: datetime) -> Trial:
    """Match an event that never happened, and render its input. Nothing is stored or counted."""
    rule = catalog.load_rule(trigger.pk)
    assert rule is not None, "the trigger was read a moment ago"
    slug = "" if trigger.endpoint is None else trigger.endpoint.slug
    document = arrival.document(id=UUID(int=0), endpoint=slug, received_at=now)
    reason = rule.why_not(document)
    if reason is not None:
        return Trial(False, reason)
    reason = rule.value.why_not_due(now)
    if reason is not None:
        return Trial(False, reason)
    try:
        return Trial(True, input=activation.input_of(rule.value, document))
    except (DomainError, ExpressionError) as error:
        return Trial(True, reason=str(error))


@dataclass(frozen=True, slots=True)
class PatternTrial:
    """One recent event, and whether a pattern takes it."""

    event: Event
    matched: bool
    reason: str = ""


def try_pattern(
    pattern: Any, *, event_types: Any = (), endpoint: WebhookEndpoint | None = None, limit: int = 100
) -> list[PatternTrial]:
    """Hold a pattern against the latest events of an endpoint and of some types.

    Raises:
        InvalidInput: naming what is wrong with the pattern.
    """
    values = checks.checked({"pattern": pattern, "event_types": list(event_types)}, checks.TRIGGER)
    compiled = patterns.compile(values["pattern"]) if values["pattern"] else None
    types = tuple(values["event_types"])
    events = Event.objects.select_related("endpoint").order_by("-pk")
    if endpoint is not None:
        events = events.filter(endpoint=endpoint)
    if types:
        wanted = Q()
        for name in types:
            wanted |= Q(type__startswith=name[:-1]) if name.endswith("*") else Q(type=name)
        events = events.filter(wanted)
    trials = []
    for event in events[: min(limit, MAX_RECENT)]:
        mismatch = None if compiled is None else compiled.explain(activation.document_of(event))
        trials.append(PatternTrial(event, mismatch is None, "" if mismatch is None else str(mismatch)))
    return trials


def verdicts_now(event: Event) -> list[dict[str, Any]]:
    """What the triggers of today say to a stored event."""
    document = activation.document_of(event)
    index = catalog.current().index
    matched = index.match(document, event.endpoint_id)
    now = clock.now()
    said: list[tuple[Rule, str]] = [(rule, rule.value.why_not_due(now) or "") for rule in matched]
    said += index.misses(document, event.endpoint_id, matched=matched, limit=MAX_RECENT)
    return [
        {"trigger": str(rule.id), "name": rule.value.name, "matched": not reason, "reason": reason}
        for rule, reason in said
    ]


def state_of(trigger: Trigger, *, now: datetime) -> str:
    """One word for how a trigger is: active, paused, scheduled (not begun), ended or exhausted."""
    if not trigger.enabled:
        return "paused"
    if trigger.end_at is not None and trigger.end_at <= now:
        return "ended"
    if trigger.max_activations is not None and trigger.activation_count >= trigger.max_activations:
        return "exhausted"
    return "scheduled" if trigger.start_at is not None and trigger.start_at > now else "active"


def status_of(trigger: Trigger, *, now: datetime) -> dict[str, Any]:
    """How a trigger is at the moment."""
    last = Activation.objects.filter(trigger=trigger).select_related("execution").order_by("-pk").first()
    waiting = PendingGroup.objects.filter(trigger=trigger, closed_at__isnull=True)
    groups = waiting.aggregate(groups=Count("pk"), next=Max("due_at"))
    execution = None if last is None else last.execution
    return {
        "id": str(trigger.pk),
        "state": state_of(trigger, now=now),
        "enabled": trigger.enabled,
        "activation_count": trigger.activation_count,
        "max_activations": trigger.max_activations,
        "waiting_groups": groups["groups"],
        "waiting_until": groups["next"],
        "last_activation_at": None if last is None else last.created_at,
        "last_activation_state": None if last is None else last.state,
        "last_execution": None if execution is None else str(execution.pk),
        "last_execution_state": None if execution is None else execution.state,
        "failed_activations": Activation.objects.filter(trigger=trigger, state="failed").count(),
    }


def stats_of(trigger: Trigger, *, now: datetime, window: timedelta) -> dict[str, Any]:
    """What a trigger did within `window`: activations by state, executions by state, mean time in seconds."""
    activations = Activation.objects.filter(trigger=trigger, created_at__gte=now - window)
    by_state = dict(activations.values_list("state").annotate(count=Count("pk")).order_by())
    executions = activations.filter(execution__isnull=False)
    by_outcome = dict(
        executions.values_list("execution__state").annotate(count=Count("execution", distinct=True)).order_by()
    )
    finished = by_outcome.get(ExecutionState.SUCCEEDED, 0) + by_outcome.get(ExecutionState.FAILED, 0)
    return {
        "window_seconds": int(window.total_seconds()),
        "activations": sum(by_state.values()),
        "activations_by_state": by_state,
        "executions": sum(by_outcome.values()),
        "executions_by_state": by_outcome,
        "success_rate": by_outcome.get(ExecutionState.SUCCEEDED, 0) / finished if finished else None,
        "last_activation_at": activations.aggregate(last=Max("created_at"))["last"],
    }


_ENDPOINT_STATS: Final = """
SELECT outcome, sum(arrivals)::int AS arrivals, max(received_at) AS last,
    percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY duration_ms) AS quantiles,
    max(duration_ms) AS slowest
FROM triggers_delivery
WHERE endpoint_id = %(endpoint)s::uuid AND received_at >= %(since)s::timestamptz
GROUP BY GROUPING SETS ((outcome), ())
"""
_EVENTS_BY_TYPE: Final = """
SELECT type, count(*)::int AS events FROM triggers_event
WHERE endpoint_id = %(endpoint)s::uuid AND received_at >= %(since)s::timestamptz
GROUP BY type ORDER BY count(*) DESC, type LIMIT 20
"""
_ACTIVATIONS_BY_STATE: Final = """
SELECT a.state, count(*)::int AS activations FROM triggers_event e JOIN triggers_activation a ON a.event_id = e.id
WHERE e.endpoint_id = %(endpoint)s::uuid AND e.received_at >= %(since)s::timestamptz
GROUP BY a.state ORDER BY a.state
"""


def endpoint_stats_of(endpoint: WebhookEndpoint, *, now: datetime, window: timedelta) -> dict[str, Any]:
    """What came to an endpoint within `window`, by outcome, and how long it took from its body's end to the commit.

    Counted from the rows that deliveries leave anyhow, so that no delivery pays for it. Refusals are counted through
    the sample that is kept of them, those of the minute in progress perhaps not yet. Durations in milliseconds.
    """
    params = {"endpoint": endpoint.pk, "since": now - window}
    rows = {row.outcome: row for row in engine.fetch_all(_ENDPOINT_STATS, params, using="default")}
    whole = rows.pop(None)
    median, p95, p99 = whole.quantiles or (None, None, None)
    by_outcome = {name: row.arrivals for name, row in sorted(rows.items())}
    types = engine.fetch_all(_EVENTS_BY_TYPE, params, using="default")
    states = engine.fetch_all(_ACTIVATIONS_BY_STATE, params, using="default")
    return {
        "window_seconds": int(window.total_seconds()),
        "deliveries": whole.arrivals or 0,
        "deliveries_by_outcome": by_outcome,
        "per_minute": (whole.arrivals or 0) * 60 / window.total_seconds(),
        "events_by_type": {row.type: row.events for row in types},
        "activations_by_state": {row.state: row.activations for row in states},
        "p50_duration_ms": median,
        "p95_duration_ms": p95,
        "p99_duration_ms": p99,
        "max_duration_ms": whole.slowest,
        "last_delivery_at": whole.last,
    }
