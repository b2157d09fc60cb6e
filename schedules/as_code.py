"""Schedules as documents: export, and apply with a diff, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.models import Field, QuerySet

from execution import audit
from execution.applying import Applied, all_or_nothing, named, noting
from schedules import lifecycle, values
from schedules.models import Schedule
from schedules.states import PauseKind

#: Label of schedules that `apply` made; only those are pruned.
MANAGED = "managed-by"
MANAGER = "schedules-apply"


def export(schedules: QuerySet[Schedule]) -> list[dict[str, Any]]:
    """One document per schedule, by name; what has its default or is empty is left out, so that files stay short.

    The definitions of calendars are not part of it: a file names calendars, and `apply` pins them as they are then.
    """
    return [_document(s) for s in schedules.select_related("workflow", "version").order_by("name")]


def _document(schedule: Schedule) -> dict[str, Any]:
    document: dict[str, Any] = {"name": schedule.name, "workflow": schedule.workflow.name}
    shown = values.snapshot(schedule)
    for name in ("spec", *values.FIELDS):
        value = shown[name]
        default = None if name == "spec" else _default(name)
        if name not in document and value not in (None, "", {}, default):
            document[name] = value
    if "spec" in document and "calendars" in document["spec"]:
        calendars = {k: v for k, v in document["spec"]["calendars"].items() if k != "data"}
        document["spec"] = {**document["spec"], "calendars": calendars}
    if document.get("labels", {}).get(MANAGED) == MANAGER:
        document["labels"] = {k: v for k, v in document["labels"].items() if k != MANAGED}
        if not document["labels"]:
            del document["labels"]
    if not schedule.enabled and schedule.pause_kind == PauseKind.MANUAL:
        document["enabled"] = False
    return document


def apply(
    documents: Sequence[Mapping[str, Any]],
    *,
    actor: str,
    prune: bool = False,
    dry_run: bool = False,
    progress: Callable[[], object] | None = None,
    using: str = "default",
) -> Applied:
    """Make schedules what the documents say: all of them or, with one wrong value, none.

    What a document leaves out goes back to its default. Schedules made here carry a label.

    Args:
        prune: delete schedules with that label that no document names.
        progress: called once per document.

    Raises:
        InvalidInput: with fields under ``schedules.<index>``, for all documents at once.
    """
    applied = Applied()
    with all_or_nothing(dry_run=dry_run, using=using) as problems:
        names = set()
        for path, document in named(documents, "schedules", problems):
            if progress is not None:
                progress()
            names.add(document["name"])
            with noting(problems, path, using=using):
                _apply_one(document, applied, actor, using)
        if prune and not problems:
            strays = Schedule.objects.using(using).filter(**{f"labels__{MANAGED}": MANAGER}).exclude(name__in=names)
            for stray in strays.order_by("name"):
                lifecycle.delete(stray.pk, actor=actor, note="pruned by apply", using=using)
                applied.pruned.append(stray.name)
    return applied


def _apply_one(document: Mapping[str, Any], applied: Applied, actor: str, using: str) -> None:
    given = {name: _default(name) for name in values.FIELDS if name != "workflow"}
    given |= {k: v for k, v in document.items() if k != "enabled"}
    given["labels"] = {**(given["labels"] or {}), MANAGED: MANAGER}
    name = document["name"]
    present = Schedule.objects.using(using).select_related("workflow", "version").filter(name=name).first()
    before = values.snapshot(present) if present is not None else {}
    if present is None:
        lifecycle.create(actor=actor, using=using, **given, enabled=document.get("enabled", True) is not False)
        applied.created.append(name)
        return
    if "external_id" not in document:
        given.pop("external_id")
    after, _ = lifecycle.upsert(actor=actor, using=using, **given, **_enabled(document))
    difference = audit.difference(before, values.snapshot(lifecycle.get(after.pk, using=using)))
    if difference:
        applied.updated[name] = difference
    else:
        applied.unchanged.append(name)


def _enabled(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"enabled": document["enabled"] is not False} if "enabled" in document else {}


def _default(name: str) -> Any:
    field = Schedule._meta.get_field(name)
    assert isinstance(field, Field)
    return field.get_default()
