"""What can be done to triggers. Every deed is audited in its own transaction and in force with its commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction

from execution import audit
from execution.models import Workflow
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound, StaleVersion
from triggers import catalog, checks, endpoints
from triggers.models import Trigger, WebhookEndpoint

#: What may be created and changed besides the plain fields of `checks.TRIGGER`.
LINKS: Final = ("workflow", "endpoint")


def create(name: str, *, workflow: Any, actor: str, endpoint: Any = None, **values: Any) -> Trigger:
    """Create a trigger.

    Args:
        workflow: a `Workflow`, its name or its id.
        endpoint: a `WebhookEndpoint`, its slug or its id; None for events of any origin.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        Conflict: the name is taken.
    """
    found = checks.checked({"name": name, **values}, checks.TRIGGER)
    trigger = Trigger(workflow=find_workflow(workflow), endpoint=find_endpoint(endpoint), **found)
    _check_together(trigger)
    with transaction.atomic():
        if not trigger.enabled:
            trigger.paused_at = clock.now()
        _save(trigger, created=True)
        _audit(trigger, "create", actor, changes=audit.difference({}, _values(trigger, [*found, *LINKS])))
        catalog.expire()
    return trigger


def update(
    trigger: Trigger, changes: Mapping[str, Any], *, actor: str, expected_revision: int | None = None
) -> Trigger:
    """Change some of its fields, all or nothing.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        StaleVersion: `expected_revision` is not the present one.
        Conflict: the name is taken.
    """
    values = checks.checked({name: value for name, value in changes.items() if name not in LINKS}, checks.TRIGGER)
    if "workflow" in changes:
        values["workflow"] = find_workflow(changes["workflow"])
    if "endpoint" in changes:
        values["endpoint"] = find_endpoint(changes["endpoint"])
    with transaction.atomic():
        held = _hold(trigger.pk, expected_revision)
        before = _values(held, list(values))
        for name, value in values.items():
            setattr(held, name, value)
        if "enabled" in values:
            held.paused_at = None if held.enabled else held.paused_at or clock.now()
            held.pause_note = "" if held.enabled else held.pause_note
        _check_together(held)
        difference = audit.difference(before, _values(held, list(values)))
        if difference:
            held.revision += 1
            _save(held)
            _audit(held, "update", actor, changes=difference)
            catalog.expire()
    return held


def pause(trigger: Trigger, *, actor: str, note: str = "") -> Trigger:
    """Let it take no events until it is resumed. What waits in its groups is still started."""
    return _switch(trigger, False, "pause", actor, note)


def resume(trigger: Trigger, *, actor: str) -> Trigger:
    """Let it take events again."""
    return _switch(trigger, True, "resume", actor, "")


def delete(trigger: Trigger, *, actor: str) -> None:
    """Delete it with its activations; its executions stay."""
    with transaction.atomic():
        held = _hold(trigger.pk)
        held.delete()
        _audit(trigger, "delete", actor)
        catalog.expire()


@dataclass(frozen=True, slots=True)
class Subscription:
    """What the one call made: an endpoint with its secret, and the trigger on its events."""

    endpoint: WebhookEndpoint
    trigger: Trigger
    secret: str


def subscribe(
    slug: str,
    *,
    workflow: Any,
    actor: str,
    secret: str | None = None,
    events: Any = (),
    filters: Any = None,
    retry_policy: Any = None,
    endpoint_values: Mapping[str, Any] | None = None,
    **trigger_values: Any,
) -> Subscription:
    """Create an endpoint and a trigger on its events together, all or nothing.

    Args:
        filters: a pattern over the event, or over its data alone.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        Conflict: a name is taken.
    """
    problems: dict[str, Any] = {}
    made: endpoints.Made | None = None
    with transaction.atomic():
        try:
            made = endpoints.create(slug, actor=actor, secret=secret, **(endpoint_values or {}))
        except InvalidInput as error:
            problems |= {("endpoint" if name == "slug" else name): rules for name, rules in error.fields.items()}
        values = {
            "event_types": list(events) if isinstance(events, list | tuple) else events,
            "pattern": checks.filters_as_pattern({} if filters is None else filters),
            "retry_policy": retry_policy,
            **trigger_values,
        }
        name = values.pop("name", None) or slug
        try:
            trigger = create(
                name, workflow=workflow, actor=actor, endpoint=None if made is None else made.endpoint, **values
            )
        except InvalidInput as error:
            renamed = {"event_types": "events", "pattern": "filters"}
            problems |= {
                renamed.get(field.split(".")[0], field.split(".")[0]) + field[len(field.split(".")[0]) :]: rules
                for field, rules in error.fields.items()
                if not (made is None and field == "event_types")
            }
        if problems or made is None:
            raise InvalidInput(fields=problems)
    return Subscription(made.endpoint, trigger, made.secret)


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def find_workflow(given: Any) -> Workflow:
    """A workflow by itself, its id or its name.

    Raises:
        InvalidInput: there is none.
    """
    if isinstance(given, Workflow):
        return given
    found = None
    if isinstance(given, str | UUID):
        pk = _uuid(given)
        found = Workflow.objects.filter(pk=pk).first() if pk else None
        found = found or Workflow.objects.filter(name=str(given)).first()
    if found is None:
        raise InvalidInput(fields={"workflow": ["is not the name or id of a workflow"]})
    return found


def find_endpoint(given: Any) -> WebhookEndpoint | None:
    """An endpoint by itself, its id or its slug; None for None.

    Raises:
        InvalidInput: there is none.
    """
    if given is None or isinstance(given, WebhookEndpoint):
        return given
    found = None
    if isinstance(given, str | UUID):
        pk = _uuid(given)
        found = WebhookEndpoint.objects.filter(pk=pk).first() if pk else None
        found = found or WebhookEndpoint.objects.filter(slug=str(given)).first()
    if found is None:
        raise InvalidInput(fields={"endpoint": ["is not the slug or id of a webhook endpoint"]})
    return found


def _uuid(text: str | UUID) -> UUID | None:
    try:
        return text if isinstance(text, UUID) else UUID(text)
    except ValueError:
        return None


def _check_together(trigger: Trigger) -> None:
    problems: dict[str, list[str]] = {}
    if trigger.endpoint is None and not trigger.event_types:
        problems["event_types"] = ["must name at least one type, or the trigger an endpoint"]
    if trigger.debounce is not None and trigger.batch is not None:
        problems["batch"] = ["cannot be combined with debounce"]
    if trigger.start_at and trigger.end_at and trigger.end_at <= trigger.start_at:
        problems["end_at"] = ["must be after start_at"]
    if trigger.max_activations is not None and trigger.max_activations < trigger.activation_count:
        problems["max_activations"] = [f"is below the {trigger.activation_count} that were counted already"]
    if problems:
        raise InvalidInput(fields=problems)


def _switch(trigger: Trigger, enabled: bool, verb: str, actor: str, note: str) -> Trigger:
    with transaction.atomic():
        held = _hold(trigger.pk)
        if held.enabled == enabled:
            return held
        held.enabled, held.pause_note = enabled, note[:500]
        held.paused_at = None if enabled else clock.now()
        held.revision += 1
        _save(held)
        _audit(held, verb, actor, note=note, changes={"enabled": {"before": not enabled, "after": enabled}})
        catalog.expire()
    return held


def _hold(pk: UUID, expected_revision: int | None = None) -> Trigger:
    held = (
        Trigger.objects.select_for_update(no_key=True, of=("self",))
        .select_related("workflow", "endpoint")
        .filter(pk=pk)
        .first()
    )
    if held is None:
        raise NotFound("There is no such trigger any more.")
    if expected_revision is not None and held.revision != expected_revision:
        raise StaleVersion(revision=held.revision)
    return held


def _save(trigger: Trigger, *, created: bool = False) -> None:
    # The count is live traffic's: an edit must not put back an old one.
    columns = None if created else [f.name for f in Trigger._meta.concrete_fields if f.name not in _NOT_SAVED]
    try:
        with transaction.atomic():
            trigger.save(force_insert=created, update_fields=columns)
    except IntegrityError as error:
        if "never_beyond" in str(error):
            raise InvalidInput(fields={"max_activations": ["is below what was counted already"]}) from None
        raise Conflict(
            f"There is already a trigger named {trigger.name}.", fields={"name": ["is already used"]}
        ) from None


_NOT_SAVED: Final = frozenset({"id", "activation_count", "watches", "created_at"})


def _values(trigger: Trigger, names: list[str]) -> dict[str, Any]:
    """Fields as they stand in the audit trail."""
    shown: dict[str, Any] = {}
    for name in names:
        value = getattr(trigger, name)
        shown[name] = (
            value.isoformat()
            if isinstance(value, datetime)
            else str(value)
            if isinstance(value, Workflow | WebhookEndpoint)
            else value
        )
    return shown


def _audit(
    trigger: Trigger, verb: str, actor: str, *, changes: Mapping[str, Any] | None = None, note: str = ""
) -> None:
    audit.record(
        actor=actor,
        action=f"trigger.{verb}",
        subject_kind="trigger",
        subject_id=trigger.pk,
        subject_label=trigger.name,
        changes=changes,
        note=note,
    )
