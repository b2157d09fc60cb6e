"""Triggers as documents: export, and apply with a diff, all or nothing. Endpoints hold secrets and are named only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.db.models import Field, QuerySet

from execution import audit
from execution.applying import Applied, all_or_nothing, named, noting
from scheduling_project.common.errors import InvalidInput
from triggers import catalog, checks, lifecycle
from triggers.models import Trigger

#: What a document may say of a trigger besides its name, workflow and endpoint.
PLAIN: Final = tuple(name for name in checks.TRIGGER if name != "name")
INSTANTS: Final = frozenset({"start_at", "end_at"})


def export(chosen: QuerySet[Trigger]) -> list[dict[str, Any]]:
    """One document per trigger, by name; what has its default or is empty is left out, so that files stay short."""
    documents = []
    for trigger in chosen.select_related("workflow", "endpoint").order_by("name"):
        document: dict[str, Any] = {"name": trigger.name, "workflow": trigger.workflow.name}
        if trigger.endpoint is not None:
            document["endpoint"] = trigger.endpoint.slug
        for name, value in _plain(trigger).items():
            if value not in (None, "", {}, [], _default(name)):
                document[name] = value
        documents.append(document)
    return documents


def apply(
    documents: Sequence[Any],
    *,
    actor: str,
    dry_run: bool = False,
    progress: Callable[[], object] | None = None,
) -> Applied:
    """Make triggers what the documents say: all of them or, with one wrong value, none.

    What a document leaves out goes back to its default. Triggers that no document names stay as they are.

    Args:
        progress: called once per document.

    Raises:
        InvalidInput: with fields under ``triggers.<index>``, for all documents at once.
    """
    applied = Applied()
    with all_or_nothing(dry_run=dry_run) as problems:
        for path, document in named(documents, "triggers", problems):
            if progress is not None:
                progress()
            with noting(problems, path):
                _apply_one(document, applied, actor)
    if dry_run:
        catalog.expire()
    return applied


def _apply_one(document: Mapping[str, Any], applied: Applied, actor: str) -> None:
    name = document["name"]
    if "workflow" not in document:
        raise InvalidInput(fields={"workflow": ["is required"]})
    given = {plain: _default(plain) for plain in PLAIN} | {"endpoint": None}
    given |= {plain: _read(plain, value) for plain, value in document.items() if plain != "name"}
    present = Trigger.objects.select_related("workflow", "endpoint").filter(name=name).first()
    if present is None:
        lifecycle.create(name, actor=actor, **given)
        applied.created.append(name)
        return
    after = lifecycle.update(present, given, actor=actor)
    difference = audit.difference(_shown(present), _shown(after))
    if difference:
        applied.updated[name] = difference
    else:
        applied.unchanged.append(name)


def _shown(trigger: Trigger) -> dict[str, Any]:
    endpoint = None if trigger.endpoint is None else trigger.endpoint.slug
    return {"workflow": trigger.workflow.name, "endpoint": endpoint, **_plain(trigger)}


def _plain(trigger: Trigger) -> dict[str, Any]:
    """Its fields as a document has them: instants as texts."""
    values = {name: getattr(trigger, name) for name in PLAIN}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _read(name: str, value: Any) -> Any:
    """A member of a document as the domain takes it; what cannot be read is left for its check to refuse."""
    if name in INSTANTS and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    return value


def _default(name: str) -> Any:
    column = Trigger._meta.get_field(name)
    assert isinstance(column, Field)
    return column.get_default()
