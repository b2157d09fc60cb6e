"""Workflows as documents: export, and apply with a diff, all or nothing."""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from django.db.models import Field, QuerySet

from execution import audit, workflows
from execution.applying import Applied, all_or_nothing, named, noting
from execution.definition_schema import SECTIONS
from execution.models import Workflow
from scheduling_project.common.errors import InvalidInput

#: What a document may say of a workflow besides its name and definition.
PLAIN: Final = ("description", "labels", "priority", "queue", "retry_policy")


def export(chosen: QuerySet[Workflow]) -> list[dict[str, Any]]:
    """One document per workflow, by name, with the definition that new executions run; drafts have none and are left
    out. What has its default or is empty is left out too, so that files stay short."""
    documents = []
    for workflow in chosen.filter(published__isnull=False).select_related("published").order_by("name"):
        assert workflow.published is not None
        document: dict[str, Any] = {"name": workflow.name}
        for name in PLAIN:
            value = getattr(workflow, name)
            if value not in (None, "", {}, _default(name)):
                document[name] = value
        documents.append({**document, "definition": workflow.published.definition})
    return documents


def apply(
    documents: Sequence[Any],
    *,
    actor: str,
    dry_run: bool = False,
    note: str = "",
    progress: Callable[[], object] | None = None,
) -> Applied:
    """Make workflows what the documents say: all of them or, with one wrong value, none.

    What a document leaves out goes back to its default; another definition is published as a new version. Workflows
    that no document names stay as they are. Those that others call are made first.

    Args:
        progress: called once per document.

    Raises:
        InvalidInput: with fields under ``workflows.<index>``, for all documents at once.
    """
    applied = Applied()
    with all_or_nothing(dry_run=dry_run) as problems:
        for path, document in _order(named(documents, "workflows", problems)):
            if progress is not None:
                progress()
            with noting(problems, path):
                _apply_one(document, applied, actor, note)
    return applied


def _order(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The documents with their paths, those that others call before their callers."""
    places = {document["name"]: (path, document) for path, document in documents}
    needs = {
        name: [called for called in _called(document.get("definition")) if called in places]
        for name, (_, document) in places.items()
    }
    try:
        return [places[name] for name in graphlib.TopologicalSorter(needs).static_order()]
    except graphlib.CycleError:  # the check of the definitions tells who calls itself
        return list(places.values())


def _called(definition: Any) -> list[str]:
    """The workflows that a definition calls, as far as it can be read."""
    sections = [definition.get(part) for part in ("steps", *SECTIONS)] if isinstance(definition, Mapping) else []
    steps = [step for section in sections if isinstance(section, Mapping) for step in section.values()]
    found = [step.get("workflow") for step in steps if isinstance(step, Mapping)]
    names = [called.get("name") if isinstance(called, Mapping) else called for called in found]
    return [name for name in names if isinstance(name, str)]


def _apply_one(document: Mapping[str, Any], applied: Applied, actor: str, note: str) -> None:
    unknown = {name: ["is not something that can be said of a workflow"] for name in document if name not in KNOWN}
    if unknown:
        raise InvalidInput(fields=unknown)
    if "definition" not in document:
        raise InvalidInput(fields={"definition": ["is required"]})
    name, definition = document["name"], document["definition"]
    given = {plain: document.get(plain, _default(plain)) for plain in PLAIN}
    present = Workflow.objects.select_related("published").filter(name=name).first()
    if present is None:
        workflows.create(name, definition, actor=actor, note=note, **given)
        applied.created.append(name)
        return
    before = {plain: getattr(present, plain) for plain in PLAIN}
    running = None if present.published is None else present.published.definition
    workflows.update(present, {**given, "definition": definition, "note": note}, actor=actor)
    after = Workflow.objects.get(pk=present.pk)
    difference = audit.difference(before, {plain: getattr(after, plain) for plain in PLAIN})
    for change in workflows.diff(running, definition, at="definition"):
        difference[change.path] = {"before": change.before, "after": change.after}
    if difference:
        applied.updated[name] = difference
    else:
        applied.unchanged.append(name)


KNOWN: Final = frozenset({"name", "definition", *PLAIN})


def _default(name: str) -> Any:
    column = Workflow._meta.get_field(name)
    assert isinstance(column, Field)
    return column.get_default()
