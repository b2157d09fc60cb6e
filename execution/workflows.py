"""What can be done to workflows and their versions. Every deed is audited in its own transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Max, ProtectedError

from execution import audit, definitions, engine, priority
from execution.definition_schema import SECTIONS
from execution.graph import called_workflow
from execution.json_schemas import Problems, add, dotted
from execution.models import Execution, Workflow, WorkflowVersion
from execution.models.workflow import NAME
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound, StaleVersion

#: What `update` may change; the definition is changed by `publish`.
CHANGEABLE: Final = ("name", "description", "labels", "priority", "queue", "retry_policy")


def create(
    name: str,
    definition: Any,
    *,
    actor: str,
    description: str = "",
    labels: Mapping[str, Any] | None = None,
    priority: Any = priority.NORMAL,
    queue: str = "default",
    retry_policy: Mapping[str, Any] | None = None,
    note: str = "",
    draft: bool = False,
) -> Workflow:
    """Create a workflow with its first version, published unless it is to stay a draft.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        Conflict: the name is taken.
    """
    values = _checked(
        {
            "name": name,
            "description": description,
            "labels": dict(labels or {}),
            "priority": priority,
            "queue": queue,
            "retry_policy": retry_policy,
        }
    )
    definitions.check(definition, at="definition", workflow=name)
    with transaction.atomic():
        workflow = Workflow(**values)
        try:
            with transaction.atomic():
                workflow.save(force_insert=True)
        except IntegrityError:
            raise _name_taken(name) from None
        version = _add_version(workflow, definition, actor=actor, note=note, published=not draft)
        if not draft:
            workflow.published = version
            workflow.save(update_fields=["published", "updated_at"])
        _audit(workflow, "create", actor, note=note, changes={"version": {"before": None, "after": version.number}})
    return workflow


def update(
    workflow: Workflow, changes: Mapping[str, Any], *, actor: str, expected_revision: int | None = None
) -> Workflow:
    """Change some of `CHANGEABLE`, and with ``definition`` (and ``note``) publish a new version, all or nothing.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        StaleVersion: `expected_revision` is not the present one.
        Conflict: the name is taken.
    """
    changes = dict(changes)
    definition, note = changes.pop("definition", None), changes.pop("note", "")
    values = _checked(changes)
    if definition is not None:
        definitions.check(definition, at="definition", workflow=values.get("name", workflow.name))
    with transaction.atomic():
        held = _hold(workflow, expected_revision)
        if values.get("name", held.name) != held.name:
            _refuse_callers(held, "renamed")
        difference = audit.difference({name: getattr(held, name) for name in values}, values)
        if difference:
            for name, value in values.items():
                setattr(held, name, value)
            held.revision += 1
            try:
                with transaction.atomic():
                    held.save()
            except IntegrityError:
                raise _name_taken(held.name) from None
            _audit(held, "update", actor, note=note, changes=difference)
        if definition is not None:
            _publish(held, definition, actor=actor, note=note)
    return held


def publish(workflow: Workflow, definition: Any, *, actor: str, note: str = "") -> WorkflowVersion:
    """Make `definition` what new executions run. Nothing changes when it is what they run already.

    Raises:
        InvalidInput: it cannot be run.
    """
    definitions.check(definition, at="definition", workflow=workflow.name)
    with transaction.atomic():
        held = _hold(workflow)
        version = _publish(held, definition, actor=actor, note=note)
    workflow.published, workflow.revision = held.published, held.revision
    return version


def save_draft(workflow: Workflow, definition: Any, *, actor: str, note: str = "") -> WorkflowVersion:
    """Keep a definition as a version that nothing runs until `publish_version`.

    Raises:
        InvalidInput: it cannot be run.
    """
    definitions.check(definition, at="definition", workflow=workflow.name)
    with transaction.atomic():
        held = _hold(workflow)
        version = _add_version(held, definition, actor=actor, note=note, published=False)
        _audit(held, "draft", actor, note=note, changes={"version": {"before": None, "after": version.number}})
    return version


def publish_version(workflow: Workflow, number: int, *, actor: str, note: str = "") -> WorkflowVersion:
    """Publish a draft, or go back to an earlier version.

    Raises:
        NotFound: the workflow has no such version.
        InvalidInput: it can no longer be run (a task is gone, say).
    """
    with transaction.atomic():
        held = _hold(workflow)
        version = WorkflowVersion.objects.filter(workflow=held, number=number).first()
        if version is None:
            raise NotFound(f"Workflow {held.name} has no version {number}.")
        definitions.check(version.definition, at="definition", workflow=held.name)
        _hold_called(version.definition)
        if version.published_at is None:
            version.published_at = clock.now()
            version.save(update_fields=["published_at"])
        _point_to(held, version, actor=actor, note=note)
    workflow.published, workflow.revision = held.published, held.revision
    return version


def delete(workflow: Workflow, *, actor: str, with_history: bool = False) -> None:
    """Delete a workflow that nothing uses.

    Args:
        with_history: also delete its finished executions; without, they keep the workflow.

    Raises:
        Conflict: something uses it: schedules, triggers, executions, workflows that call it.
    """
    with transaction.atomic():
        held = _hold(workflow)
        _refuse_callers(held, "deleted")
        executions = Execution.objects.filter(workflow=held)
        if executions.open().exists():
            raise Conflict(f"Workflow {held.name} has executions that have not ended; cancel them first.")
        if with_history:
            executions.delete()
        elif executions.exists():
            raise Conflict(
                f"Workflow {held.name} has {executions.count()} finished executions; "
                "delete it with its history, or keep it."
            )
        Workflow.objects.filter(pk=held.pk).update(published=None)  # it would protect its own version
        try:
            with transaction.atomic():
                Workflow.objects.get(pk=held.pk).delete()
        except ProtectedError as error:
            raise Conflict(_users(held, error)) from None
        _audit(held, "delete", actor)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two definitions. `kind` is ``added``, ``removed`` or ``changed``."""

    path: str
    kind: str
    before: Any = None
    after: Any = None


def diff(before: Any, after: Any, *, at: str = "") -> list[Change]:
    """How two JSON documents differ, by dotted path, in the order of the first. Pure.

    >>> diff({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    [Change(path='b.c', kind='changed', before=2, after=3)]
    """
    if isinstance(before, dict) and isinstance(after, dict):
        changes = []
        for name in dict.fromkeys([*before, *after]):
            path = dotted(at, name)
            if name not in after:
                changes.append(Change(path, "removed", before=before[name]))
            elif name not in before:
                changes.append(Change(path, "added", after=after[name]))
            else:
                changes.extend(diff(before[name], after[name], at=path))
        return changes
    # As text, because true and 1 are equal in Python and two values in JSON.
    if json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True):
        return []
    return [Change(at, "changed", before=before, after=after)]


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _publish(held: Workflow, definition: Any, *, actor: str, note: str) -> WorkflowVersion:
    if held.published is not None and not diff(held.published.definition, definition):
        return held.published
    version = _add_version(held, definition, actor=actor, note=note, published=True)
    _point_to(held, version, actor=actor, note=note)
    return version


def _point_to(held: Workflow, version: WorkflowVersion, *, actor: str, note: str) -> None:
    before = held.published
    if before is not None and before.pk == version.pk:
        return
    held.published = version
    held.revision += 1
    held.save(update_fields=["published", "revision", "updated_at"])
    numbers = {"before": None if before is None else before.number, "after": version.number}
    _audit(held, "publish", actor, note=note, changes={"version": numbers})


def _add_version(workflow: Workflow, definition: Any, *, actor: str, note: str, published: bool) -> WorkflowVersion:
    """The next version. The workflow's row is held, so that numbers follow each other."""
    _hold_called(definition)
    latest = WorkflowVersion.objects.filter(workflow=workflow).aggregate(latest=Max("number"))["latest"] or 0
    return WorkflowVersion.objects.create(
        workflow=workflow,
        number=latest + 1,
        definition=definition,
        note=note[:500],
        created_by=actor[:200],
        published_at=clock.now() if published else None,
    )


# Race: a workflow is deleted or renamed while another one that calls it is saved. The saver holds what it calls (FOR
# KEY SHARE), which the deleter's lock (FOR UPDATE) excludes: one of them waits, and then sees what the other did.
def _hold_called(definition: Mapping[str, Any]) -> None:
    names = {called_workflow(step).get("name") for step in _steps_of(definition)} - {None}
    held = (
        engine.fetch_all(
            "SELECT name FROM execution_workflow WHERE name = ANY(%(names)s::text[]) ORDER BY id FOR KEY SHARE",
            {"names": sorted(map(str, names))},
            using="default",
        )
        if names
        else []
    )
    missing = names - {row.name for row in held}
    if missing:
        raise Conflict(f"There is no workflow {', '.join(sorted(map(str, missing)))} any more.")


def _steps_of(definition: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [step for part in ("steps", *SECTIONS) for step in definition.get(part, {}).values()]


CALLERS = """
SELECT DISTINCT w.name FROM execution_workflowversion v JOIN execution_workflow w ON w.id = v.workflow_id
WHERE w.id <> %(id)s::uuid
  AND (v.id = w.published_id OR EXISTS (
      SELECT 1 FROM execution_execution e WHERE e.version_id = v.id AND e.finished_at IS NULL))
  AND jsonb_path_exists(v.definition, '$.*.*.workflow ? (@ == $name || @.name == $name)',
      jsonb_build_object('name', %(name)s::text), true)
ORDER BY w.name LIMIT 20
"""


def _refuse_callers(held: Workflow, done: str) -> None:
    """Lock the workflow against new callers, and refuse when there are any (published, or in open executions).

    Raises:
        Conflict: naming the workflows that call it.
    """
    Workflow.objects.select_for_update(of=("self",)).get(pk=held.pk)
    callers = engine.fetch_all(CALLERS, {"id": held.pk, "name": held.name}, using="default")
    if callers:
        named = ", ".join(row.name for row in callers)
        raise Conflict(f"Workflow {held.name} is called by {named} and cannot be {done}.")


def _hold(workflow: Workflow, expected_revision: int | None = None) -> Workflow:
    """The workflow's row, locked: versions are numbered and pointed to by one at a time."""
    held = (
        Workflow.objects.select_for_update(no_key=True, of=("self",))
        .select_related("published")
        .filter(pk=workflow.pk)
        .first()
    )
    if held is None:
        raise NotFound(f"There is no workflow {workflow.name} any more.")
    if expected_revision is not None and held.revision != expected_revision:
        raise StaleVersion(revision=held.revision)
    return held


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values in their stored form.

    Raises:
        InvalidInput: naming each that breaks a rule.
    """
    problems: Problems = {}
    checked = dict(values)
    for name in values.keys() - set(CHANGEABLE):
        add(problems, name, "is not something that can be changed")
    if "priority" in values:
        try:
            checked["priority"] = priority.parse(values["priority"])
        except ValueError as error:
            add(problems, "priority", str(error))
    if "retry_policy" in values:
        try:
            definitions.check_retry_policy(values["retry_policy"])
        except InvalidInput as error:
            problems.update({path: list(rules) for path, rules in error.fields.items()})
    if "queue" in values:
        definitions.check_queue(problems, values["queue"])
    if "labels" in values:
        _check_labels(problems, values["labels"])
    if "name" in values:
        _check_name(problems, values["name"])
    if "description" in values and not isinstance(values["description"], str):
        add(problems, "description", "must be a text")
    if problems:
        raise InvalidInput(fields=problems)
    return checked


def _check_name(problems: Problems, name: Any) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 200:
        add(problems, "name", "must be a text of 1 to 200 characters")
        return
    try:
        NAME(name)
    except ValidationError as error:
        add(problems, "name", " ".join(error.messages))


def _check_labels(problems: Problems, labels: Any) -> None:
    if not isinstance(labels, dict) or len(labels) > 50:
        add(problems, "labels", "must be an object of at most 50 texts")
        return
    for name, value in labels.items():
        if not isinstance(value, str) or len(value) > 200 or not 1 <= len(name) <= 100:
            add(problems, f"labels.{name[:100]}", "must be a name of 1 to 100 and a text of at most 200 characters")


def _name_taken(name: str) -> Conflict:
    return Conflict(f"There is already a workflow named {name}.", fields={"name": ["is already used"]})


def _users(workflow: Workflow, error: ProtectedError) -> str:
    counts: dict[str, int] = {}
    for user in error.protected_objects:
        kind = str(user._meta.verbose_name_plural)
        counts[kind] = counts.get(kind, 0) + 1
    named = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return f"Workflow {workflow.name} is used by {named}; change or delete these first."


def _audit(
    workflow: Workflow, verb: str, actor: str, *, note: str = "", changes: Mapping[str, Any] | None = None
) -> None:
    audit.record(
        actor=actor,
        action=f"workflow.{verb}",
        subject_kind="workflow",
        subject_id=workflow.pk,
        subject_label=workflow.name,
        note=note,
        changes=changes,
    )
