"""Workflows as documents: export, and apply with a diff, all or nothing."""

from __future__ import annotations

import graphlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import transaction
from django.db.models import Field, QuerySet

from execution import audit, workflows
from execution.definition_schema import SECTIONS
from execution.models import Workflow
from scheduling_project.common.errors import DomainError, InvalidInput

#: What a document may say of a workflow besides its name and definition.
PLAIN: Final = ("description", "labels", "priority", "queue", "retry_policy")


@dataclass(slots=True)
class Applied:
    """What was, or (dry run) would be done, by name; per updated thing its differences."""

    created: list[str] = field(default_factory=list)
    updated: dict[str, dict[str, Any]] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "created": self.created,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "pruned": self.pruned,
        }

    def as_text(self, *, dry_run: bool) -> str:
        """For people: a line per thing and per difference, and a sum."""
        lines = [f"+ {name}" for name in self.created]
        for name, difference in self.updated.items():
            lines.append(f"~ {name}")
            for label, change in difference.items():
                before, after = (json.dumps(change[when], ensure_ascii=False) for when in ("before", "after"))
                lines.append(f"    {label}: {before} → {after}")
        lines += [f"- {name}" for name in self.pruned]
        done = "would be" if dry_run else "were"
        lines.append(
            f"{len(self.created)} {done} created, {len(self.updated)} changed, {len(self.pruned)} deleted; "
            f"{len(self.unchanged)} are as they should be."
        )
        return "\n".join(lines)


class DryRun(Exception):
    """Rolls a dry run back."""


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
    problems: dict[str, list[str]] = {}
    order = _order(documents, problems)
    try:
        with transaction.atomic():
            for index in order:
                if progress is not None:
                    progress()
                try:
                    with transaction.atomic():
                        _apply_one(documents[index], applied, actor, note)
                except DomainError as error:
                    fields = error.fields or {"": [error.message]}
                    path = f"workflows.{index}"
                    problems.update({f"{path}.{name}".rstrip("."): list(rules) for name, rules in fields.items()})
            if problems:
                raise InvalidInput("Nothing was applied.", fields=problems)
            if dry_run:
                raise DryRun
    except DryRun:
        pass
    return applied


def _order(documents: Sequence[Any], problems: dict[str, list[str]]) -> list[int]:
    """The positions of the documents that can be read, those that others call before their callers."""
    places: dict[str, int] = {}
    for index, document in enumerate(documents):
        path = f"workflows.{index}"
        if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
            problems[path] = ["must be an object with a name"]
        elif "definition" not in document:
            problems[f"{path}.definition"] = ["is required"]
        elif document["name"] in places:
            problems[f"{path}.name"] = ["is named twice"]
        else:
            places[document["name"]] = index
    needs = {
        name: [called for called in _called(documents[places[name]]["definition"]) if called in places]
        for name in places
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
