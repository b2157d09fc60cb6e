"""Types of events that somebody has described, and holding producers to their schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction

from execution import audit, json_schemas
from scheduling_project.common.errors import Conflict, InvalidInput
from triggers import payloads
from triggers.models import EventType


def check(name: str, data: Any) -> None:
    """Hold an event's data to the schema of its type, if there is one.

    Raises:
        InvalidInput: with a rule per dotted path below ``data``.
    """
    schema = EventType.objects.filter(name=name, schema__isnull=False).values_list("schema", flat=True).first()
    if schema is None:
        return
    problems = json_schemas.value_problems(json_schemas.validator(schema), data, at="data")
    if problems:
        raise InvalidInput(f"The data does not satisfy the schema of {name}.", fields=problems)


def register(name: str, *, actor: str, description: str = "", schema: Any = None, example: Any = None) -> EventType:
    """Describe a type.

    Raises:
        InvalidInput: naming each value that breaks a rule; the example must satisfy the schema.
        Conflict: it is described already.
    """
    made = EventType(name=name, description=description, schema=schema, example=example)
    _check(made)
    with transaction.atomic():
        _save(made)
        _audit(made, "register", actor, {"schema": {"before": None, "after": schema}})
    return made


def change(known: EventType, values: Mapping[str, Any], *, actor: str) -> EventType:
    """Change what is said of a type.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        Conflict: the new name is described already.
    """
    before = {name: getattr(known, name) for name in values}
    for name, value in values.items():
        setattr(known, name, value)
    _check(known)
    with transaction.atomic():
        _save(known)
        _audit(known, "change", actor, audit.difference(before, values))
    return known


def forget(known: EventType, *, actor: str) -> None:
    """Forget what was said of a type; its events stay."""
    with transaction.atomic():
        _audit(known, "forget", actor, {})
        known.delete()


def _check(known: EventType) -> None:
    problems: json_schemas.Problems = {}
    if not payloads.is_type(known.name):
        json_schemas.add(problems, "name", "must be a printable text of 1 to 200 characters")
    if known.schema is not None:
        if not isinstance(known.schema, dict | bool):
            json_schemas.add(problems, "schema", "must be an object")
        else:
            problems |= json_schemas.schema_problems(known.schema, at="schema")
        if not problems and known.example is not None:
            checker = json_schemas.validator(known.schema)
            problems |= json_schemas.value_problems(checker, known.example, at="example")
    if problems:
        raise InvalidInput(fields=problems)


def _save(known: EventType) -> None:
    try:
        with transaction.atomic():
            known.save()
    except IntegrityError:
        raise Conflict(f"{known.name} is described already.", fields={"name": ["is already used"]}) from None


def _audit(known: EventType, verb: str, actor: str, changes: Mapping[str, Any]) -> None:
    audit.record(
        actor=actor,
        action=f"event_type.{verb}",
        subject_kind="event_type",
        subject_id=known.pk,
        subject_label=known.name,
        changes=changes,
    )
