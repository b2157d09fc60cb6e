"""What people can do to executions and their steps, and what they are told when it is too late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from execution import creation, handoff, lifecycle, queue
from execution.models import Attempt, AuditEntry, DeadLetter, Execution, News, QueueSettings, StepOutput
from execution.states import ExecutionState, StepState
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests import factories
from tests.execution.flow import begin, claim, fail, finish, fresh, held, http, now, states, step, succeed

pytestmark = pytest.mark.django_db


def audited(subject: Any) -> list[tuple[str, str]]:
    return list(AuditEntry.objects.filter(subject_id=str(subject.pk)).order_by("id").values_list("actor", "action"))


# ── cancel ──


def test_cancelling_ends_everything_open_and_the_worker_learns_it() -> None:
    execution = begin({"a": http(), "b": http("a"), "c": http()}, options={"news_topic": "schedule"})
    running = held(execution, "a")
    lifecycle.cancel(execution.pk, actor="ada", reason="wrong day")
    assert states(execution) == {"a": "cancelled", "b": "cancelled", "c": "cancelled"}
    assert (fresh(execution).state, fresh(execution).state_reason) == ("cancelled", "cancelled by ada: wrong day")
    assert not queue.heartbeat(running.id, running.token, lease=30)
    assert not finish(running)
    assert Attempt.objects.get().state == "cancelled"
    assert News.objects.get().data == {"state": "cancelled"}
    assert audited(execution) == [("ada", "execution.cancel")]


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
@pytest.mark.parametrize("state", [ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.CANCELLED])
def test_what_has_ended_is_left_alone(verb: str, state: ExecutionState) -> None:
    execution = factories.make_execution(state=state)
    with pytest.raises(Conflict, match=f"is {state.value}"):
        getattr(lifecycle, verb)(execution.pk, actor="ada")
    assert fresh(execution).state == state
    assert audited(execution) == []


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "rerun", "resume_from_failure"])
def test_an_unknown_execution_is_not_found(verb: str) -> None:
    with pytest.raises(NotFound):
        getattr(lifecycle, verb)(uuid4(), actor="ada")
    with pytest.raises(NotFound):
        lifecycle.set_priority(uuid4(), 1, actor="ada")


# ── pause and resume ──


def test_a_paused_execution_starts_nothing_new_but_what_runs_may_end() -> None:
    execution = begin({"a": http(), "b": http("a"), "c": http()})
    running = held(execution, "a")
    lifecycle.pause(execution.pk, actor="ada", note="lunch")
    assert fresh(execution).state_reason == "paused by ada: lunch"
    assert claim(execution, "c") is None
    assert finish(running)
    assert claim(execution, "b") is None
    assert handoff.mark_due(queues=["default"], bound=10) == []
    lifecycle.resume(execution.pk, actor="ada")
    assert step(execution, "b").dispatched_at is not None
    succeed(execution, "b")
    succeed(execution, "c")
    assert fresh(execution).state == "succeeded"
    assert audited(execution) == [("ada", "execution.pause"), ("ada", "execution.resume")]


def test_pausing_twice_and_resuming_what_is_not_paused_are_refused() -> None:
    execution = begin({"a": http()})
    with pytest.raises(Conflict):
        lifecycle.resume(execution.pk, actor="ada")
    lifecycle.pause(execution.pk, actor="ada")
    with pytest.raises(Conflict):
        lifecycle.pause(execution.pk, actor="ada")


def test_a_resumed_step_is_handed_over_only_when_it_is_due_and_its_queue_runs() -> None:
    later = begin({"a": http()}, options={"start_at": now() + timedelta(hours=1)})
    blocked = begin({"a": http(queue="io")})
    QueueSettings.objects.create(name="io", paused_at=now())
    for execution in (later, blocked):
        lifecycle.pause(execution.pk, actor="ada")
        lifecycle.resume(execution.pk, actor="ada")
        assert step(execution, "a").dispatched_at is None


# ── priority ──


def test_another_priority_holds_at_once_and_the_old_hint_finds_nothing() -> None:
    execution = begin({"a": http(), "b": http("a"), "c": http()})
    running = held(execution, "c")
    assert lifecycle.set_priority(execution.pk, "critical", actor="ada") == 0
    assert claim(execution, "a", priority=6) is None
    assert step(execution, "a").dispatched_at is not None
    assert (step(execution, "b").priority, step(execution, "b").dispatched_at) == (0, None)
    assert (step(execution, "c").state, step(execution, "c").priority) == ("running", 0)
    assert finish(running)
    assert claim(execution, "a", priority=0) is not None
    assert fresh(execution).priority == 0
    assert AuditEntry.objects.get().changes == {"priority": {"before": 6, "after": 0}}


@pytest.mark.parametrize("priority", [10, -1, "urgent", None, True, 1.5])
def test_what_is_no_priority_is_refused(priority: Any) -> None:
    execution = begin({"a": http()})
    with pytest.raises(InvalidInput) as caught:
        lifecycle.set_priority(execution.pk, priority, actor="ada")
    assert "priority" in caught.value.fields


def test_a_paused_execution_changes_priority_without_being_handed_over() -> None:
    execution = begin({"a": http()})
    lifecycle.pause(execution.pk, actor="ada")
    lifecycle.set_priority(execution.pk, 1, actor="ada")
    assert (step(execution, "a").priority, step(execution, "a").dispatched_at) == (1, None)
    lifecycle.cancel(execution.pk, actor="ada")
    with pytest.raises(Conflict):
        lifecycle.set_priority(execution.pk, 2, actor="ada")


# ── rerun ──


def test_a_rerun_is_a_new_execution_like_the_earlier_one() -> None:
    instant = now()
    execution = begin({"a": http()}, input={"n": 1}, options={"scheduled_for": instant, "priority": 2, "queue": "io"})
    again = lifecycle.rerun(execution.pk, actor="ada")
    assert again.pk != execution.pk
    assert (again.input, again.scheduled_for, again.priority, again.queue) == ({"n": 1}, instant, 2, "io")
    assert (again.source_kind, again.source_id) == ("rerun", str(execution.pk))
    assert step(again, "a").state == "queued"
    assert audited(execution) == [("ada", "execution.rerun")]


def test_a_rerun_with_edited_input_keeps_the_difference() -> None:
    schema = {"properties": {"n": {"type": "integer"}}}
    workflow = factories.make_workflow(definition={"steps": {"a": http()}, "input": schema})
    execution = creation.start(workflow, input={"n": 1})
    again = lifecycle.rerun(execution.pk, actor="ada", input={"n": 2}, priority=0)
    assert (again.input, again.priority) == ({"n": 2}, 0)
    entry = AuditEntry.objects.get(action="execution.rerun")
    assert entry.changes["input"] == {"before": {"n": 1}, "after": {"n": 2}}
    with pytest.raises(InvalidInput):
        lifecycle.rerun(execution.pk, actor="ada", input={"n": "two"})


def test_a_rerun_keeps_its_version_unless_the_latest_is_asked_for() -> None:
    from execution import workflows

    execution = begin({"a": http()})
    workflows.publish(execution.workflow, {"steps": {"a": http(), "b": http("a")}}, actor="ada")
    assert lifecycle.rerun(execution.pk, actor="ada").version.number == 1
    assert lifecycle.rerun(execution.pk, actor="ada", latest=True).version.number == 2
    type(execution.workflow).objects.update(published=None)
    with pytest.raises(Conflict, match="no published version"):
        lifecycle.rerun(execution.pk, actor="ada", latest=True)


# ── resume from the failed step ──


def test_resuming_keeps_finished_outputs_and_runs_the_failed_step_again() -> None:
    execution = begin({"a": http(), "b": http("a"), "c": http("b"), "d": http("a", "c")})
    succeed(execution, "a", {"n": 1})
    fail(execution, "b")
    assert fresh(execution).state == "failed"
    assert lifecycle.resume_from_failure(execution.pk, actor="ada", note="fixed") == 3
    assert states(execution) == {"a": "succeeded", "b": "queued", "c": "waiting", "d": "waiting"}
    reopened = fresh(execution)
    assert (reopened.state, reopened.open_steps, reopened.failed_steps, reopened.finished_at) == ("running", 3, 0, None)
    assert DeadLetter.objects.get().state == "redriving"
    for name in ("b", "c", "d"):
        succeed(execution, name)
    assert (fresh(execution).state, fresh(execution).open_steps) == ("succeeded", 0)
    assert DeadLetter.objects.get().state == "resolved"
    assert StepOutput.objects.get(step_run__name="a").data == {"n": 1}
    assert list(Attempt.objects.filter(step_run__name="b").values_list("number", "state")) == [
        (1, "failed"),
        (2, "succeeded"),
    ]


def test_another_failure_after_resuming_opens_the_same_letter_again() -> None:
    execution = begin({"a": http(), "b": http("a")})
    fail(execution, "a")
    lifecycle.resume_from_failure(execution.pk, actor="ada")
    fail(execution, "a", error="again")
    letter = DeadLetter.objects.get()
    assert (letter.state, letter.error, letter.redrives) == ("open", "again", 1)
    assert (fresh(execution).state, states(execution)["b"]) == ("failed", "skipped")


def test_a_failed_branch_can_be_resumed_while_another_still_runs() -> None:
    execution = begin({"a": http(), "b": http(), "c": http("a", "b")})
    fail(execution, "a")
    running = held(execution, "b")
    assert lifecycle.resume_from_failure(execution.pk, actor="ada") == 2
    assert (fresh(execution).open_steps, fresh(execution).failed_steps) == (3, 0)
    finish(running)
    succeed(execution, "a")
    succeed(execution, "c")
    assert fresh(execution).state == "succeeded"


def test_a_fan_out_runs_only_its_failed_items_again() -> None:
    execution = begin({"a": http(for_each=[1, 2]), "b": http("a")})
    succeed(execution, "a", 1, index=0)
    fail(execution, "a", index=1)
    assert fresh(execution).state == "failed"
    assert lifecycle.resume_from_failure(execution.pk, actor="ada") == 2
    succeed(execution, "a", 2, index=1)
    assert step(execution, "a").state == "succeeded"
    assert StepOutput.objects.get(step_run=step(execution, "a")).data["results"] == [1, 2]
    succeed(execution, "b")
    assert fresh(execution).state == "succeeded"


def test_a_step_that_failed_to_be_prepared_is_decided_anew() -> None:
    execution = begin({"a": http(for_each="${{ input.parts }}")}, input={"parts": 5})
    assert fresh(execution).state == "failed"
    lifecycle.resume_from_failure(execution.pk, actor="ada", input={"parts": [1]})
    assert fresh(execution).input == {"parts": [1]}
    succeed(execution, "a", index=0)
    assert fresh(execution).state == "succeeded"
    assert AuditEntry.objects.get().changes == {"input": {"before": {"parts": 5}, "after": {"parts": [1]}}}


def test_a_passed_deadline_begins_anew() -> None:
    execution = begin({"a": http()}, options={"timeout": 60})
    fail(execution, "a")
    past = now() - timedelta(hours=1)
    Execution.objects.update(started_at=past, deadline_at=past + timedelta(seconds=60))
    lifecycle.resume_from_failure(execution.pk, actor="ada")
    deadline = fresh(execution).deadline_at
    assert deadline is not None
    assert abs((deadline - now()).total_seconds() - 60) < 5


def test_what_did_not_fail_cannot_be_resumed_from_a_failure() -> None:
    execution = begin({"a": http()})
    with pytest.raises(Conflict, match="none of its steps has failed"):
        lifecycle.resume_from_failure(execution.pk, actor="ada")
    fail(execution, "a")
    Execution.objects.update(state=ExecutionState.CANCELLED)
    with pytest.raises(Conflict, match="is cancelled"):
        lifecycle.resume_from_failure(execution.pk, actor="ada")
    assert states(execution) == {"a": "failed"}
    with pytest.raises(InvalidInput):
        lifecycle.resume_from_failure(execution.pk, actor="ada", input=5)


# ── steps by hand ──


def test_a_skipped_step_lets_its_successors_go_on() -> None:
    execution = begin({"a": http(), "b": http("a")})
    lifecycle.skip_step(step(execution, "a").pk, actor="ada", note="not today")
    assert states(execution) == {"a": "skipped", "b": "queued"}
    assert step(execution, "a").state_reason == "skip by ada: not today"
    assert audited(step(execution, "a")) == [("ada", "step.skip")]


def test_a_running_step_that_is_marked_succeeded_is_taken_from_its_worker() -> None:
    execution = begin({"a": http(), "b": http("a", when={"steps": {"a": {"output": {"n": [1]}}}})})
    running = held(execution, "a")
    lifecycle.succeed_step(step(execution, "a").pk, actor="ada", output={"n": 1})
    assert not finish(running)
    assert Attempt.objects.get().state == "cancelled"
    assert states(execution) == {"a": "succeeded", "b": "queued"}
    succeed(execution, "b")
    assert fresh(execution).state == "succeeded"


def test_a_fan_out_that_is_skipped_ends_its_items() -> None:
    execution = begin({"a": http(for_each=[1, 2])})
    running = held(execution, "a", 0)
    lifecycle.skip_step(step(execution, "a").pk, actor="ada")
    assert not finish(running)
    assert step(execution, "a", 1).state == "cancelled"
    assert fresh(execution).state == "succeeded"


def test_skipping_the_last_open_item_ends_the_fan_out() -> None:
    execution = begin({"a": http(for_each=[1, 2], on_error="continue")})
    succeed(execution, "a", 1, index=0)
    lifecycle.skip_step(step(execution, "a", 1).pk, actor="ada")
    assert step(execution, "a").state in {"succeeded", "failed"}
    assert fresh(execution).state == "succeeded"


def test_a_step_that_has_ended_is_left_alone() -> None:
    execution = begin({"a": http()})
    succeed(execution, "a")
    with pytest.raises(Conflict, match="is succeeded"):
        lifecycle.skip_step(step(execution, "a").pk, actor="ada")
    with pytest.raises(NotFound):
        lifecycle.skip_step(uuid4(), actor="ada")
    with pytest.raises(InvalidInput):
        lifecycle.succeed_step(step(execution, "a").pk, actor="ada", output="x" * 2_000_000)


def test_an_approval_lets_the_workflow_go_on_and_tells_who_gave_it() -> None:
    execution = begin({"a": {"approval": {"expires": "1d"}}, "b": http("a")})
    lifecycle.approve(step(execution, "a").pk, actor="ada", note="fine")
    assert states(execution) == {"a": "succeeded", "b": "queued"}
    assert StepOutput.objects.get().data == {"approved": True, "by": "ada", "note": "fine"}


def test_a_rejection_fails_the_step_with_a_letter() -> None:
    execution = begin({"a": {"approval": {}}, "b": http("a")})
    lifecycle.reject(step(execution, "a").pk, actor="ada", note="no")
    assert (fresh(execution).state, states(execution)) == ("failed", {"a": "failed", "b": "skipped"})
    assert DeadLetter.objects.get().reason == "rejected"
    lifecycle.resume_from_failure(execution.pk, actor="ada")
    assert step(execution, "a").waiting_for == "approval"


def test_only_what_waits_for_approval_can_be_approved() -> None:
    execution = begin({"a": http()})
    for verb in (lifecycle.approve, lifecycle.reject):
        with pytest.raises(Conflict, match="does not wait for approval"):
            verb(step(execution, "a").pk, actor="ada")
    assert step(execution, "a").state == StepState.QUEUED


def test_resuming_what_had_not_begun_puts_it_back_where_it_was() -> None:
    planned = begin({"a": http()}, options={"start_at": now() + timedelta(hours=1)})
    begun, fresh_one = begin({"a": http(), "b": http("a")}), begin({"a": http()})
    succeed(begun, "a")
    for execution, state in ((planned, "scheduled"), (begun, "running"), (fresh_one, "queued")):
        lifecycle.pause(execution.pk, actor="ada")
        lifecycle.resume(execution.pk, actor="ada")
        assert fresh(execution).state == state
    assert fresh(planned).started_at is None


def test_news_of_an_end_that_is_no_longer_true_are_taken_back() -> None:
    execution = begin({"a": http()}, options={"news_topic": "topic"})
    fail(execution, "a")
    lifecycle.resume_from_failure(execution.pk, actor="ada")
    assert not News.objects.exclude(topic="dead_letter").exists()
    succeed(execution, "a")
    assert [news.data for news in News.objects.filter(topic="topic")] == [{"state": "succeeded"}]


def test_a_rejection_has_a_fingerprint() -> None:
    first, second = (begin({"ok": {"approval": {}}}) for _ in range(2))
    for execution, note in ((first, "too dear"), (second, "too late")):
        lifecycle.reject(step(execution, "ok").pk, actor="ada", note=note)
    prints = set(DeadLetter.objects.values_list("fingerprint", flat=True))
    assert len(prints) == 1
    assert prints != {""}
