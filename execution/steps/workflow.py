"""A step that calls another workflow: it starts a child execution and waits for its end without holding a slot.

The worker only starts the child. That is one transaction with the step's waiting, fenced by the lease token, so that
there is exactly one child per attempt whatever dies in between; `execution.children` settles the step later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from execution import child_rows, creation, engine
from execution.definitions import validate_input
from execution.graph import StepPlan
from execution.models import Workflow, WorkflowVersion
from execution.plans import plan_of
from execution.queue import Claim
from execution.signals import announce_freed
from execution.steps.context import GiveUp
from scheduling_project.common.errors import InvalidInput

#: Topic of the news of a child's end.
TOPIC = "child"


@dataclass(frozen=True, slots=True)
class ChildStart:
    """The child that an attempt is to start. `timeout` in seconds, None for none."""

    version: WorkflowVersion
    input: dict[str, Any]
    timeout: float | None


def perform(claim: Claim, step: StepPlan, argument: Any) -> ChildStart:
    """What is to be started; nothing is written yet.

    Raises:
        GiveUp: there is no such workflow or version, its input schema refuses the input, the workflow calls itself,
            or workflows call workflows too deep.
        Unrunnable: the child's definition cannot be compiled.
    """
    version = _version(argument["name"], argument.get("version"))
    _check_line(claim, version)
    data = argument.get("input", {})
    try:
        validate_input(version, data)
        creation.check_size(data, field_name="input")
    except InvalidInput as error:
        raise GiveUp(f"workflow {version.workflow.name} refuses its input: {error}") from None
    limits = [limit for limit in (step.timeout, plan_of(version).timeout) if limit is not None]
    return ChildStart(version, data, min(limits, default=None))


def _version(name: str, number: int | None) -> WorkflowVersion:
    alias = engine.alias()
    workflow = Workflow.objects.using(alias).select_related("published").filter(name=name).first()
    if workflow is None:
        raise GiveUp(f"there is no workflow {name}")
    if number is None:
        found = workflow.published
    else:
        versions = WorkflowVersion.objects.using(alias).filter(workflow=workflow, number=number)
        found = versions.exclude(published_at=None).first()
    if found is None:
        raise GiveUp(f"workflow {name} has no published version" + ("" if number is None else f" {number}"))
    found.workflow = workflow
    return found


def _check_line(claim: Claim, version: WorkflowVersion) -> None:
    line = child_rows.line(claim.execution_id)
    path = " → ".join([*(row.name for row in line), version.workflow.name])
    if any(row.workflow_id == version.workflow_id for row in line):
        raise GiveUp(f"workflow {version.workflow.name} calls itself: {path}")
    if len(line) > settings.WORKFLOW_MAX_CHILD_DEPTH:
        raise GiveUp(f"workflows call workflows more than {settings.WORKFLOW_MAX_CHILD_DEPTH} deep: {path}")


def hand_over(claim: Claim, start: ChildStart) -> bool:
    """Create the child and let the step wait for it, in one transaction; False when the claim no longer holds."""
    with engine.transaction() as alias:
        frees = child_rows.park(claim.id, claim.token, using=alias)
        if frees is None:
            return False
        key = f"{claim.idempotency_key}:{claim.attempt}"
        child = creation.Start(
            id=claim.token,
            version=start.version,
            source=creation.Source(child_rows.SOURCE, str(claim.execution_id), claim.label),
            input=start.input,
            scheduled_for=claim.scheduled_for,
            idempotency_key=key,
            priority=claim.priority,
            timeout=start.timeout,
            news_topic=TOPIC,
        )
        (created,) = creation.start_many([child], now=engine.now(using=alias), using=alias)
        if created != claim.token:
            raise GiveUp(f"the idempotency key {key} of the child was used for execution {created}")
        if frees:
            announce_freed(using=alias)
    return True
