"""Workflows that call workflows: one child per attempt, whose end settles the step, whatever dies in between."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import children, creation, engine, lifecycle, maintenance, queue, runner, workflows
from execution.models import Attempt, DeadLetter, Execution, News, Workflow
from execution.runner import Outcome
from execution.why import why
from scheduling_project.common.errors import Conflict, InvalidInput
from tests import factories
from tests.api_client import Api
from tests.execution import flow

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_transaction(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WORKFLOW_LEASE_SECONDS = 1.0
    monkeypatch.setattr(runner, "close_old_connections", lambda: None)
    monkeypatch.setattr(engine, "close", lambda: None)


def child_workflow(name: str = "child", **definition: Any) -> Workflow:
    return factories.make_workflow(name, {"steps": {"work": flow.http()}, **definition})


def work(execution: Execution, name: str = "call", index: int | None = None) -> runner.Report:
    return runner.run(flow.step(execution, name, index).pk, worker="w@h/1")


def child_of(execution: Execution, name: str = "call", index: int | None = None) -> Execution:
    return Execution.objects.get(pk=flow.step(execution, name, index).last_token)


def called(call: Any = "child", **step: Any) -> Execution:
    """An execution whose child has been started."""
    execution = flow.begin({"call": {"workflow": call, **step}, "end": flow.http("call")}, input={"n": 1})
    assert work(execution).outcome is Outcome.HANDED_OVER
    return execution


def test_a_step_starts_a_child_and_waits_without_a_slot() -> None:
    child_workflow(input={"type": "object", "required": ["day"]})
    execution = called({"name": "child", "input": {"day": "${{ input.n }}"}})
    run, child = flow.step(execution, "call"), child_of(execution)
    assert (run.state, run.waiting_for, run.lease_token) == ("waiting", "child", None)
    assert (child.input, child.priority, child.news_topic) == ({"day": 1}, run.priority, "child")
    assert (child.source_kind, child.source_id, child.source_label) == ("child", str(execution.pk), run.label)
    assert child.idempotency_key == f"{execution.pk}:call:1"
    assert Attempt.objects.get(step_run=run).state == "running"
    assert f"execution {child.pk} of workflow child" in why(flow.fresh(execution))["summary"]
    shown = Api().ok("get", f"/api/executions/{execution.pk}")["steps"]
    assert [step["child"] for step in shown] == [str(child.pk), None]
    listed = Api().ok("get", f"/api/executions?source_kind=child&source_id={execution.pk}")["results"]
    assert [row["id"] for row in listed] == [str(child.pk)]


def test_the_output_of_the_child_is_the_output_of_the_step() -> None:
    child_workflow(output={"rows": "${{ steps.work.output.n }}"})
    execution = called()
    flow.succeed(child_of(execution), "work", {"n": 7})
    assert flow.states(execution) == {"call": "waiting", "end": "waiting"}
    assert News.objects.count() == 1  # as durable as the end itself: a crash here loses nothing
    assert children.settle_ended() == 1
    assert flow.states(execution) == {"call": "succeeded", "end": "queued"}
    assert flow.step(execution, "call").output.data == {"rows": 7}
    assert Attempt.objects.get(step_run__name="call").state == "succeeded"
    assert children.settle_ended() == 0


def test_the_last_step_of_a_child_lets_its_caller_go_on_at_once() -> None:
    factories.make_workflow("child", {"steps": {"work": {"task": "demo.nothing"}}})
    execution = called()
    assert work(child_of(execution), "work").outcome is Outcome.FAILED  # there is no such task
    assert flow.states(execution) == {"call": "failed", "end": "skipped"}


def test_a_failed_child_fails_its_step_with_its_error_and_both_have_a_letter() -> None:
    child_workflow()
    execution = called()
    child = child_of(execution)
    flow.fail(child, "work", error="no rows")
    children.settle_ended()
    letter = DeadLetter.objects.get(execution=execution)
    assert (letter.reason, letter.step_name, letter.error_type) == ("child", "call", "ChildFailed")
    assert letter.error == f"workflow child failed in step work: ValueError: no rows (execution {child.pk})"
    assert letter.fingerprint
    assert DeadLetter.objects.filter(execution=child).count() == 1
    assert flow.fresh(execution).state == "failed"


def test_a_failure_that_is_handled_leaves_no_letter_with_the_caller() -> None:
    child_workflow()
    execution = called(on_error="continue")
    flow.fail(child_of(execution), "work")
    children.settle_ended()
    assert flow.states(execution) == {"call": "failed", "end": "queued"}
    assert not DeadLetter.objects.filter(execution=execution).exists()


def test_a_retry_starts_another_child() -> None:
    child_workflow()
    execution = called(retry={"max_attempts": 2, "backoff": 30, "jitter": False})
    first = child_of(execution)
    flow.fail(first, "work")
    children.settle_ended()
    run = flow.step(execution, "call")
    assert (run.state, run.failures, run.waiting_for) == ("retryable", 1, None)
    assert run.available_at > engine.now() + timedelta(seconds=20)
    attempt = Attempt.objects.get(step_run=run)
    assert (attempt.state, attempt.error_type) == ("retryable", "ChildFailed")
    type(run).objects.filter(pk=run.pk).update(available_at=engine.now())
    assert work(execution).outcome is Outcome.HANDED_OVER
    second = child_of(execution)
    assert second.pk != first.pk
    assert second.idempotency_key == f"{execution.pk}:call:2"
    flow.succeed(second, "work")
    children.settle_ended()
    assert flow.states(execution)["call"] == "succeeded"
    assert list(Attempt.objects.filter(step_run=run).order_by("number").values_list("state", flat=True)) == [
        "retryable",
        "succeeded",
    ]


def test_a_child_that_somebody_cancelled_is_not_started_again() -> None:
    child_workflow()
    execution = called(retry={"max_attempts": 5})
    lifecycle.cancel(child_of(execution).pk, actor="ada", reason="wrong day")
    children.settle_ended()
    run = flow.step(execution, "call")
    assert run.state == "failed"
    assert "was cancelled: cancelled by ada: wrong day" in run.state_reason


def test_a_child_that_ran_out_of_time_is_a_timeout() -> None:
    child_workflow(timeout=500)
    execution = called(timeout=60, retry={"max_attempts": 2, "retry_on": ["timeout"]})
    child = child_of(execution)
    assert child.deadline_at is not None
    assert child.deadline_at < engine.now() + timedelta(seconds=61)
    assert maintenance.cancel_overdue(now=engine.now() + timedelta(seconds=90)) == 1
    children.settle_ended()
    assert flow.step(execution, "call").state == "retryable"


def test_cancelling_the_caller_cancels_all_that_it_called() -> None:
    child_workflow("leaf")
    factories.make_workflow("child", {"steps": {"call": {"workflow": "leaf"}}})
    execution = called()
    child = child_of(execution)
    work(child)
    leaf = child_of(child)
    held = flow.held(leaf, "work")
    lifecycle.cancel(execution.pk, actor="ada")
    assert [flow.fresh(one).state for one in (execution, child, leaf)] == ["cancelled"] * 3
    assert not queue.heartbeat(held.id, held.token, lease=30)
    assert children.settle_ended() == 2  # nobody waits for them any more
    assert set(Attempt.objects.values_list("state", flat=True)) == {"cancelled"}


@pytest.mark.parametrize("deed", [lifecycle.skip_step, lifecycle.succeed_step])
def test_ending_the_step_by_hand_cancels_the_child_soon(deed: Any) -> None:
    child_workflow()
    execution = called()
    child = child_of(execution)
    deed(flow.step(execution, "call").pk, actor="ada")
    assert flow.states(execution)["end"] == "queued"
    assert children.cancel_orphans() == 1
    assert flow.fresh(child).state == "cancelled"
    assert children.cancel_orphans() == 0


def test_a_failed_child_that_is_resumed_is_no_orphan() -> None:
    child_workflow()
    execution = called()
    child = child_of(execution)
    flow.fail(child, "work")
    children.settle_ended()
    lifecycle.resume_from_failure(child.pk, actor="ada")
    assert children.cancel_orphans() == 0
    flow.succeed(child, "work")
    assert children.settle_ended() == 1
    assert flow.fresh(execution).state == "failed"  # its own resumption starts another child
    lifecycle.resume_from_failure(execution.pk, actor="ada")
    work(execution)
    flow.succeed(child_of(execution), "work")
    children.settle_ended()
    assert flow.states(execution) == {"call": "succeeded", "end": "queued"}
    assert DeadLetter.objects.get(execution=execution).state == "resolved"


def test_a_child_per_item_and_the_fan_in() -> None:
    child_workflow(output="${{ input.day }}")
    execution = flow.begin(
        {
            "call": {
                "for_each": [1, 2, 3],
                "max_parallel": 2,
                "workflow": {"name": "child", "input": {"day": "${{ item }}"}},
            }
        }
    )
    for index in range(3):
        assert work(execution, index=index).outcome is Outcome.HANDED_OVER
        flow.succeed(child_of(execution, index=index), "work")
        children.settle_ended()
    output = flow.step(execution, "call").output.data
    assert (output["succeeded"], output["failed"], output["results"]) == (3, 0, [1, 2, 3])
    assert flow.fresh(execution).state == "succeeded"


def test_a_version_can_be_pinned_and_is_the_published_one_otherwise() -> None:
    workflow = child_workflow()
    workflows.publish(workflow, {"steps": {"other": flow.http()}}, actor="ada")
    pinned, latest = called({"name": "child", "version": 1}), called()
    assert (child_of(pinned).version.number, child_of(latest).version.number) == (1, 2)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("nobody", "there is no workflow nobody"),
        ({"name": "child", "version": 9}, "workflow child has no published version 9"),
        ({"name": "draft"}, "workflow draft has no published version"),
        ({"name": "child", "input": {"day": 1}}, "workflow child refuses its input"),
        ({"name": "child", "input": "${{ input.n }}"}, "must be an object"),
    ],
)
def test_what_cannot_be_called_fails_clearly_and_at_once(call: Any, reason: str) -> None:
    child_workflow(input={"type": "object", "additionalProperties": False})
    Workflow.objects.create(name="draft")
    execution = flow.begin({"call": {"workflow": call, "retry": {"max_attempts": 5}}}, input={"n": 1})
    report = work(execution)
    assert report.outcome is Outcome.FAILED
    assert reason in DeadLetter.objects.get().error
    assert Execution.objects.count() == 1


def test_a_workflow_that_calls_itself_is_cut() -> None:
    factories.make_workflow("a", {"steps": {"call": {"workflow": "b"}}})
    factories.make_workflow("b", {"steps": {"call": {"workflow": "a"}}})
    execution = creation.start(Workflow.objects.get(name="a"))
    work(execution)
    report = work(child_of(execution))
    assert report.outcome is Outcome.FAILED
    assert "workflow a calls itself: a → b → a" in report.message
    assert flow.fresh(execution).state == "failed"
    assert Execution.objects.count() == 2


def test_the_depth_is_bounded(settings: Any) -> None:
    settings.WORKFLOW_MAX_CHILD_DEPTH = 2
    for number in range(3):
        factories.make_workflow(f"w{number}", {"steps": {"call": {"workflow": f"w{number + 1}"}}})
    child_workflow("w3")
    execution = creation.start(Workflow.objects.get(name="w0"))
    for _ in range(2):
        assert work(execution).outcome is Outcome.HANDED_OVER
        execution = child_of(execution)
    report = work(execution)
    assert "more than 2 deep: w0 → w1 → w2 → w3" in report.message


def test_a_child_that_ends_while_it_is_created_settles_its_step() -> None:
    factories.make_workflow("child", {"steps": {"tell": {"emit": {"type": "x"}}}})
    execution = called()
    assert child_of(execution).state == "succeeded"
    assert children.settle_ended() == 1
    assert flow.states(execution)["call"] == "succeeded"


def test_a_child_that_cannot_be_created_fails_its_step_and_nothing_is_left() -> None:
    child_workflow(concurrency={"key": "${{ abs(input.n) }}"})
    execution = flow.begin({"call": {"workflow": {"name": "child", "input": {"n": "x"}}}})
    assert work(execution).outcome is Outcome.FAILED
    assert Execution.objects.count() == 1
    assert flow.fresh(execution).state == "failed"


def test_a_foreign_execution_with_the_key_of_the_child_is_not_waited_for() -> None:
    workflow = child_workflow()
    execution = flow.begin({"call": {"workflow": "child"}})
    creation.start(workflow, idempotency_key=f"{execution.pk}:call:1")
    report = work(execution)
    assert report.outcome is Outcome.FAILED
    assert "was used for execution" in report.message


def test_an_attempt_that_lost_its_lease_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    child_workflow()
    execution = flow.begin({"call": {"workflow": "child"}})
    original = runner.hand_over

    def late(*arguments: Any) -> bool:
        queue.cancel(execution.pk, reason="too late")
        return original(*arguments)

    monkeypatch.setattr(runner, "hand_over", late)
    assert work(execution).outcome is Outcome.LOST
    assert Execution.objects.count() == 1


def test_the_end_of_a_child_whose_caller_is_broken_fails_the_caller() -> None:
    from tests.execution.test_broken import spoil

    child_workflow()
    execution = called()
    child = child_of(execution)
    spoil(execution)
    flow_end = flow.held(child, "work")
    assert flow.finish(flow_end)
    assert children.settle_ended() == 1
    assert (flow.fresh(execution).state, News.objects.filter(topic=children.TOPIC).count()) == ("failed", 0)


def test_the_end_of_a_child_whose_caller_is_gone_is_taken_quietly() -> None:
    child_workflow()
    execution = called()
    child = child_of(execution)
    execution.delete()
    flow.succeed(child, "work")
    assert (children.settle_ended(), News.objects.count()) == (1, 0)


def test_a_pause_lets_the_child_end_and_holds_what_follows() -> None:
    child_workflow()
    execution = called()
    lifecycle.pause(execution.pk, actor="ada")
    flow.succeed(child_of(execution), "work")
    children.settle_ended()
    assert flow.states(execution) == {"call": "succeeded", "end": "queued"}
    assert flow.claim(execution, "end") is None


# ── Saving ──


def refused(definition: Any, name: str = "caller") -> dict[str, Any]:
    with pytest.raises(InvalidInput) as caught:
        workflows.create(name, definition, actor="ada")
    return {path.removeprefix("definition."): " ".join(rules) for path, rules in caught.value.fields.items()}


@pytest.mark.parametrize(
    ("step", "path", "rule"),
    [
        ({"workflow": "nobody"}, "steps.call.workflow", "there is no workflow nobody"),
        ({"workflow": {"name": "nobody"}}, "steps.call.workflow.name", "there is no workflow nobody"),
        ({"workflow": {"name": "child", "version": 2}}, "steps.call.workflow.version", "no published version 2"),
        ({"workflow": "draft"}, "steps.call.workflow", "has no published version"),
        ({"workflow": "caller"}, "steps.call.workflow", "calls the workflow caller itself"),
        ({"workflow": {"name": "child", "input": {}}}, "steps.call.workflow.input.day", "is required"),
        (
            {"workflow": {"name": "child", "input": {"x": "${{ input.n }}"}}},
            "steps.call.workflow.input.x",
            "is not in the input schema",
        ),
        ({"workflow": {"name": "child", "input": {"x": "${{ input.n }}"}}}, "steps.call.workflow.input", "lacks day"),
        ({"workflow": {"name": "child", "input": "${{ steps.x }}"}}, "steps.call.workflow.input", "does not exist"),
        ({"workflow": "child", "pool": {"name": "p"}}, "steps.call.pool", "in the workflow that is called"),
        ({"workflow": "child", "with": {}}, "steps.call.with", "only for steps that run a task"),
        ({"workflow": "not a name"}, "steps.call.workflow", ""),
        ({"workflow": {"name": "child", "input": 3}}, "steps.call.workflow", ""),
    ],
)
def test_a_call_that_cannot_work_is_refused_when_it_is_saved(step: Any, path: str, rule: str) -> None:
    child_workflow(
        input={
            "type": "object",
            "additionalProperties": False,
            "required": ["day"],
            "properties": {"day": {"type": "integer"}},
        }
    )
    workflows.create("draft", factories.ONE_STEP, actor="ada", draft=True)
    problems = refused({"steps": {"call": step}})
    found = [rules for at, rules in problems.items() if at.startswith(path)]
    assert found, problems
    assert any(rule in rules for rules in found), problems


def test_a_workflow_that_is_called_is_neither_deleted_nor_renamed() -> None:
    child = workflows.create("child", factories.ONE_STEP, actor="ada")
    caller = workflows.create("caller", {"steps": {"call": {"workflow": {"name": "child"}}}}, actor="ada")
    with pytest.raises(Conflict, match="is called by caller and cannot be deleted"):
        workflows.delete(child, actor="ada")
    with pytest.raises(Conflict, match="is called by caller and cannot be renamed"):
        workflows.update(child, {"name": "other"}, actor="ada")
    running = creation.start(caller)
    workflows.publish(caller, factories.ONE_STEP, actor="ada")
    with pytest.raises(Conflict, match="is called by caller"):  # an open execution runs the old version
        workflows.delete(child, actor="ada")
    lifecycle.cancel(running.pk, actor="ada")
    workflows.update(child, {"name": "other"}, actor="ada")
    workflows.delete(child, actor="ada")
    assert not Workflow.objects.filter(name="other").exists()


def test_publishing_a_call_of_what_is_gone_is_refused() -> None:
    child = workflows.create("child", factories.ONE_STEP, actor="ada")
    caller = workflows.create("caller", {"steps": {"call": {"workflow": "child"}}}, actor="ada", draft=True)
    workflows.delete(child, actor="ada")
    with pytest.raises(InvalidInput, match="there is no workflow child"):
        workflows.publish_version(caller, 1, actor="ada")


def test_the_published_schema_knows_the_kind() -> None:
    schema = Api().ok("get", "/api/workflows/definition-schema")
    assert {"required": ["workflow"]} in schema["$defs"]["step"]["oneOf"]
