"""Workflows are created, changed, published, compared and deleted; every deed is in the audit trail."""

from __future__ import annotations

from typing import Any

import pytest

from execution import workflows
from execution.models import AuditEntry, Execution, Workflow, WorkflowVersion
from execution.states import ExecutionState
from execution.workflows import Change
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound, StaleVersion
from tests import factories

pytestmark = pytest.mark.django_db

ONE = factories.ONE_STEP
TWO = factories.CHAIN


def actions(workflow: Workflow) -> list[str]:
    return list(AuditEntry.objects.filter(subject_id=str(workflow.pk)).order_by("id").values_list("action", flat=True))


def test_a_new_workflow_is_published_and_audited() -> None:
    workflow = workflows.create(
        "etl",
        ONE,
        actor="ada",
        priority="high",
        labels={"team": "data"},
        retry_policy={"max_attempts": 2},
        note="first",
    )
    stored = Workflow.objects.get(name="etl")
    assert stored.published is not None
    assert (stored.published.number, stored.published.created_by, stored.priority) == (1, "ada", 3)
    assert stored.published.published_at is not None
    entry = AuditEntry.objects.get(subject_id=str(workflow.pk))
    assert (entry.actor, entry.action, entry.note) == ("ada", "workflow.create", "first")


def test_a_draft_is_not_published() -> None:
    workflow = workflows.create("etl", ONE, actor="ada", draft=True)
    assert Workflow.objects.get(pk=workflow.pk).published is None
    version = workflows.publish_version(workflow, 1, actor="ada")
    assert version.published_at is not None
    assert workflow.published == version


def test_a_name_is_used_once() -> None:
    workflows.create("etl", ONE, actor="ada")
    with pytest.raises(Conflict) as caught:
        workflows.create("etl", ONE, actor="ada")
    assert "name" in caught.value.fields
    other = workflows.create("other", ONE, actor="ada")
    with pytest.raises(Conflict):
        workflows.update(other, {"name": "etl"}, actor="ada")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "has space"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"priority": 11}, "priority"),
        ({"priority": True}, "priority"),
        ({"queue": "nowhere"}, "queue"),
        ({"labels": {"a": 5}}, "labels.a"),
        ({"labels": {str(n): "" for n in range(51)}}, "labels"),
        ({"retry_policy": {"max_attempts": 0}}, "retry_policy.max_attempts"),
        ({"retry_policy": {"tries": 3}}, "retry_policy.tries"),
        ({"retry_policy": 3}, "retry_policy"),
        ({"description": None}, "description"),
        ({"definition": {"steps": {}}}, "definition.steps"),
        ({"definition": None}, "definition"),
    ],
)
def test_a_bad_value_is_named_and_nothing_is_created(fields: dict[str, Any], path: str) -> None:
    values = {"name": "etl", "definition": ONE, **fields}
    with pytest.raises(InvalidInput) as caught:
        workflows.create(values.pop("name"), values.pop("definition"), actor="ada", **values)
    assert path in caught.value.fields
    assert not Workflow.objects.exists()


def test_publishing_adds_a_version_and_executions_keep_theirs() -> None:
    workflow = workflows.create("etl", ONE, actor="ada")
    execution = factories.make_execution(Workflow.objects.get(pk=workflow.pk))
    version = workflows.publish(workflow, TWO, actor="bob", note="chain")
    assert (version.number, version.note) == (2, "chain")
    assert Workflow.objects.get(pk=workflow.pk).published == version
    assert Execution.objects.get(pk=execution.pk).version.number == 1
    assert actions(workflow) == ["workflow.create", "workflow.publish"]


def test_publishing_the_same_definition_again_changes_nothing() -> None:
    workflow = workflows.create("etl", ONE, actor="ada")
    assert workflows.publish(workflow, ONE, actor="ada").number == 1
    assert WorkflowVersion.objects.count() == 1
    assert Workflow.objects.get(pk=workflow.pk).revision == 1


def test_going_back_to_an_earlier_version_publishes_it_again() -> None:
    workflow = workflows.create("etl", ONE, actor="ada")
    workflows.publish(workflow, TWO, actor="ada")
    workflows.publish_version(workflow, 1, actor="ada")
    workflows.publish_version(workflow, 1, actor="ada")
    assert Workflow.objects.get(pk=workflow.pk).published.number == 1  # type: ignore[union-attr]
    with pytest.raises(NotFound):
        workflows.publish_version(workflow, 9, actor="ada")


def test_a_saved_draft_runs_only_once_it_is_published() -> None:
    workflow = workflows.create("etl", ONE, actor="ada")
    draft = workflows.save_draft(workflow, TWO, actor="ada")
    assert (draft.number, draft.published_at) == (2, None)
    assert Workflow.objects.get(pk=workflow.pk).published.number == 1  # type: ignore[union-attr]


def test_an_update_changes_fields_and_definition_together() -> None:
    workflow = workflows.create("etl", ONE, actor="ada")
    updated = workflows.update(workflow, {"description": "x", "definition": TWO, "note": "n"}, actor="ada")
    assert updated.published is not None
    assert (updated.description, updated.published.number, updated.revision) == ("x", 2, 3)
    entry = AuditEntry.objects.get(action="workflow.update")
    assert entry.changes == {"description": {"before": "", "after": "x"}}


def test_an_update_that_changes_nothing_leaves_no_trace() -> None:
    workflow = workflows.create("etl", ONE, actor="ada")
    workflows.update(workflow, {"description": ""}, actor="ada")
    assert actions(workflow) == ["workflow.create"]
    with pytest.raises(InvalidInput):
        workflows.update(workflow, {"revision": 5}, actor="ada")


def test_a_stale_revision_is_refused() -> None:
    workflow = workflows.create("etl", ONE, actor="ada")
    workflows.update(workflow, {"description": "x"}, actor="ada", expected_revision=1)
    with pytest.raises(StaleVersion):
        workflows.update(workflow, {"description": "y"}, actor="ada", expected_revision=1)


def test_an_unused_workflow_can_be_deleted() -> None:
    workflow = workflows.create("etl", ONE, actor="ada")
    workflows.publish(workflow, TWO, actor="ada")
    workflows.delete(workflow, actor="ada")
    assert not Workflow.objects.exists()
    assert actions(workflow)[-1] == "workflow.delete"
    with pytest.raises(NotFound):
        workflows.delete(workflow, actor="ada")


def test_a_workflow_with_executions_is_deleted_only_with_its_history() -> None:
    workflow = factories.make_workflow()
    running = factories.make_execution(workflow, state=ExecutionState.RUNNING)
    with pytest.raises(Conflict, match="not ended"):
        workflows.delete(workflow, actor="ada", with_history=True)
    running.delete()
    factories.make_execution(workflow, state=ExecutionState.SUCCEEDED)
    with pytest.raises(Conflict, match="1 finished"):
        workflows.delete(workflow, actor="ada")
    workflows.delete(workflow, actor="ada", with_history=True)
    assert not Execution.objects.exists()


def test_a_workflow_that_a_schedule_uses_is_kept() -> None:
    from schedules.models import Schedule

    workflow = factories.make_workflow()
    Schedule.objects.create(name="nightly", workflow=workflow, fired_through=factories.now())
    with pytest.raises(Conflict, match="1 schedules"):
        workflows.delete(workflow, actor="ada")
    assert Workflow.objects.get(pk=workflow.pk).published is not None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"b": 2}, [Change("a", "removed", before=1), Change("b", "added", after=2)]),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, [Change("a.b", "changed", before=[1], after=[2])]),
        ({"a": 1}, {"a": True}, [Change("a", "changed", before=1, after=True)]),
        ({"a": {}}, {"a": 1}, [Change("a", "changed", before={}, after=1)]),
    ],
)
def test_definitions_are_compared_member_by_member(before: Any, after: Any, expected: list[Change]) -> None:
    assert workflows.diff(before, after) == expected
