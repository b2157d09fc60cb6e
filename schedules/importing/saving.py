"""Making schedules of translated rows: each in a savepoint of its own, so that a wrong one stops no other.

A schedule is recognised by its external id: a second import of the same source changes nothing that is as it was,
and leaves alone what people have paused, resumed or relabelled since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from django.db import transaction

from execution import audit, workflows
from execution.models import Workflow
from schedules import lifecycle, values
from schedules.importing.report import Action, Report, Row
from schedules.models import Schedule
from scheduling_project.common.errors import DomainError

#: What people may have changed since the import, and keep.
THEIRS: Final = frozenset({"name", "description", "labels", "metadata"})


class _DryRun(Exception):
    """Rolls a dry run back."""


def save(
    rows: list[Row],
    *,
    actor: str,
    is_paused: bool = False,
    dry_run: bool = False,
    progress: Callable[[], object] | None = None,
    using: str = "default",
) -> Report:
    """Create or correct the schedules that rows mean; each row then tells what became of it.

    Args:
        is_paused: new schedules are paused at first.
        dry_run: do everything and roll it back.
    """
    report = Report(dry_run, rows)
    try:
        with transaction.atomic(using=using):
            for row in rows:
                if progress is not None:
                    progress()
                if row.reason:
                    continue
                try:
                    with transaction.atomic(using=using):
                        _save(row, actor, is_paused, using)
                except DomainError as error:
                    row.reason, row.action, row.schedule_id = str(error), Action.NONE.value, None
            if dry_run:
                raise _DryRun
    except _DryRun:
        for row in rows:
            row.schedule_id = row.schedule_id if row.action != Action.CREATED else None
    return report


def _save(row: Row, actor: str, is_paused: bool, using: str) -> None:
    given = dict(row.values)
    if row.task is not None:
        workflow = _one_step(*row.task, actor=actor)
        row.workflow, given["workflow"] = workflow.name, workflow
    present = Schedule.objects.using(using).filter(external_id=given["external_id"]).first()
    if present is None:
        if Schedule.objects.using(using).filter(name=given["name"]).exists():
            given["name"] = f"{given['name'][:180]} [{_digest(given['external_id'])}]"
            row.notes.append(f"there was a schedule named {row.name} already")
            row.name = given["name"]
        enabled = row.enabled and not is_paused
        note = "" if enabled else "Imported paused." if row.enabled else "It was disabled where it comes from."
        made = lifecycle.create(actor=actor, enabled=enabled, note=note, using=using, **given)
        row.action, row.schedule_id = Action.CREATED.value, str(made.pk)
        return
    present = lifecycle.get(present.pk, using=using)
    row.name, row.schedule_id = present.name, str(present.pk)
    _keep_phase(given["spec"], present)
    before = values.snapshot(present)
    changes = {name: value for name, value in given.items() if name not in THEIRS}
    after = lifecycle.update(present.pk, changes, actor=actor, note="Imported again.", using=using)
    changed = audit.difference(before, values.snapshot(after))
    row.action = (Action.UPDATED if changed else Action.UNCHANGED).value


def _keep_phase(spec: dict[str, Any], present: Schedule) -> None:
    """An interval that is as long as it was keeps its anchor: beat's last run has moved on since."""
    (timetable,) = spec["timetables"]
    was = (present.version.spec if present.version else {}).get("timetables", [])
    if timetable["kind"] == "interval" and len(was) == 1 and was[0].get("every") == timetable["every"]:
        timetable.pop("anchor", None)
        if "anchor" in was[0]:
            timetable["anchor"] = was[0]["anchor"]


def _one_step(task: str, names: tuple[str, ...], *, actor: str) -> Workflow:
    """A workflow that runs this task with these members of its input: one that is there, or a new one."""
    step: dict[str, Any] = {"task": task}
    if names:
        step["with"] = {name: f"${{{{ input.{name} }}}}" for name in names}
    definition = {"steps": {"run": step}}
    base = task[:180]
    for name in (base, f"{base}-{_digest(','.join(names))}"):
        found = Workflow.objects.select_related("published").filter(name=name).first()
        if found is None:
            return workflows.create(name, definition, actor=actor, note="Made by an import of schedules.")
        if found.published is not None and found.published.definition == definition:
            return found
    return workflows.create(f"{base}-{_digest(repr(definition))}", definition, actor=actor)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
