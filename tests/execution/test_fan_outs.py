"""Fan-outs some of whose items fail: what becomes of the others, of the step, its letters, and of a resumption."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Count

from execution import children, dead_letters, engine, lifecycle, queue
from execution.models import Attempt, DeadLetter, Execution, StepRun
from execution.plans import plan_by_id
from execution.states import AttemptState, StepState
from execution.steps import workflow as call
from tests import factories
from tests.execution import flow

pytestmark = pytest.mark.django_db


def begin(count: int = 4, **more: Any) -> Execution:
    steps = {"each": flow.http(for_each=list(range(count)), **more), "after": flow.http("each")}
    return flow.begin(steps)


def items(execution: Execution) -> list[str]:
    found = StepRun.objects.filter(execution=execution).exclude(parent=None).order_by("item_index")
    return list(found.values_list("state", flat=True))


def output(execution: Execution) -> Any:
    return flow.step(execution, "each").output.data


def letters(execution: Execution) -> list[tuple[str, str, str]]:
    found = DeadLetter.objects.filter(execution=execution).order_by("id")
    return list(found.values_list("reason", "error_type", "state"))


def test_without_a_word_the_others_go_on_and_each_failed_item_has_its_letter() -> None:
    execution = begin(3)
    flow.fail(execution, "each", 0, error="no amount")
    flow.succeed(execution, "each", "x", index=1)
    flow.fail(execution, "each", 2)
    assert flow.states(execution) == {"each": "failed", "after": "skipped"}
    assert flow.step(execution, "each").state_reason == "2 of 3 items failed"
    assert len(letters(execution)) == 2
    assert output(execution) == {
        "count": 3,
        "succeeded": 1,
        "failed": 2,
        "skipped": 0,
        "results": [None, "x", None],
        "errors": [
            {"index": 0, "type": "ValueError", "message": "no amount"},
            {"index": 2, "type": "ValueError", "message": "boom"},
        ],
    }


def test_stop_skips_what_has_not_begun_and_lets_what_is_with_a_worker_end() -> None:
    execution = begin(5, on_item_error="stop", max_parallel=3)
    running, lost = flow.held(execution, "each", 1), flow.held(execution, "each", 2)
    flow.fail(execution, "each", 0)
    assert items(execution) == ["failed", "running", "running", "skipped", "skipped"]
    parent = flow.step(execution, "each")
    assert (parent.state, parent.items_open, parent.items_failed) == ("waiting", 2, 1)
    assert flow.finish(running, "kept")
    assert flow.finish(lost)
    assert flow.states(execution) == {"each": "failed", "after": "skipped"}
    assert flow.step(execution, "each").state_reason == "1 of 5 items failed; 2 did not begin"
    assert (output(execution)["skipped"], output(execution)["results"][1]) == (2, "kept")
    assert flow.step(execution, "each", 3).state_reason == "stopped: 1 items had failed"
    assert flow.fresh(execution).state == "failed"
    assert len(letters(execution)) == 1


def test_stop_spares_an_item_that_waits_for_its_child_but_not_one_that_waits_to_be_retried() -> None:
    factories.make_workflow("called", {"steps": {"work": flow.http()}})
    execution = flow.begin({"each": {"workflow": "called", "for_each": [1, 2, 3], "on_item_error": "stop"}})
    plan = plan_by_id(execution.version_id)
    for index in (0, 1):
        held = flow.held(execution, "each", index)
        assert call.hand_over(held, call.perform(held, plan.steps["each"], {"name": "called"}))
    retried = flow.held(execution, "each", 2)
    assert queue.reschedule(
        retried.id, token=retried.token, state=StepState.RETRYABLE, attempt_state=AttemptState.RETRYABLE,
        at=engine.now() + timedelta(hours=1), charged=True,
    )  # fmt: skip
    first, second = Execution.objects.filter(source_kind="child").order_by("id")
    flow.fail(first, "work")
    assert children.settle_ended() == 1
    assert items(execution) == ["failed", "waiting", "skipped"]
    flow.succeed(second, "work")
    assert children.settle_ended() == 1
    assert items(execution) == ["failed", "succeeded", "skipped"]
    assert flow.fresh(execution).state == "failed"
    assert output(execution)["errors"][0]["type"] == "ChildFailed"


def test_the_last_item_that_fails_ends_a_stopping_fan_out_at_once() -> None:
    execution = begin(1, on_item_error="stop")
    flow.fail(execution, "each", 0)
    assert flow.states(execution) == {"each": "failed", "after": "skipped"}


def test_when_nothing_is_with_a_worker_the_stop_ends_the_step() -> None:
    execution = begin(4, on_item_error="stop", max_parallel=1)
    flow.fail(execution, "each", 0)
    assert items(execution) == ["failed", "skipped", "skipped", "skipped"]
    assert flow.states(execution) == {"each": "failed", "after": "skipped"}


@pytest.mark.parametrize("most", [2, "50%"])
def test_as_many_as_may_fail_and_the_step_succeeds_without_letters(most: Any) -> None:
    execution = begin(4, max_failed=most)
    for index in range(4):
        flow.fail(execution, "each", index) if index < 2 else flow.succeed(execution, "each", index=index)
    assert flow.states(execution) == {"each": "succeeded", "after": "queued"}
    assert [error["index"] for error in output(execution)["errors"]] == [0, 1]
    flow.succeed(execution, "after")
    assert (flow.fresh(execution).state, letters(execution)) == ("succeeded", [])


def test_one_more_than_may_fail_and_the_step_leaves_one_letter_for_all() -> None:
    execution = begin(4, max_failed=1)
    for index in range(4):
        flow.fail(execution, "each", index) if index < 2 else flow.succeed(execution, "each", index=index)
    assert flow.states(execution) == {"each": "failed", "after": "skipped"}
    assert letters(execution) == [("items", "ItemsFailed", "open")]
    letter = DeadLetter.objects.get()
    assert letter.step_run_id == flow.step(execution, "each").pk
    assert letter.error == ("2 of 4 items failed; at most 1 may: item 0: ValueError: boom; item 1: ValueError: boom")


def test_stop_and_a_tolerance_stop_when_it_is_used_up() -> None:
    execution = begin(10, max_failed="10%", on_item_error="stop", max_parallel=2)
    flow.fail(execution, "each", 0)
    assert items(execution).count("skipped") == 0
    flow.succeed(execution, "each", index=1)
    flow.fail(execution, "each", 2)
    assert items(execution).count("skipped") == 7
    assert flow.states(execution)["each"] == "failed"


def test_a_handled_failure_that_stops_lets_what_follows_go_on() -> None:
    execution = begin(3, on_item_error="stop", on_error="continue", max_parallel=1)
    flow.fail(execution, "each", 0)
    assert flow.states(execution) == {"each": "failed", "after": "queued"}
    flow.succeed(execution, "after")
    assert (flow.fresh(execution).state, letters(execution)) == ("succeeded", [])


def test_a_retry_is_no_failure_of_an_item() -> None:
    execution = begin(2, on_item_error="stop")
    held = flow.held(execution, "each", 0)
    assert queue.reschedule(
        held.id,
        token=held.token,
        state=StepState.RETRYABLE,
        attempt_state=AttemptState.RETRYABLE,
        at=None,
        charged=True,
    )
    assert items(execution) == ["retryable", "queued"]
    assert flow.step(execution, "each").items_failed == 0
    flow.succeed(execution, "each", index=0)
    flow.succeed(execution, "each", index=1)
    assert flow.states(execution)["each"] == "succeeded"


def test_a_resumption_runs_the_failed_and_the_stopped_items_again_a_few_at_once() -> None:
    execution = begin(6, on_item_error="stop", max_parallel=2)
    flow.succeed(execution, "each", "first", index=0)
    flow.fail(execution, "each", 1)
    assert items(execution) == ["succeeded", "failed", *["skipped"] * 4]
    assert lifecycle.resume_from_failure(execution.pk, actor="ada") == 2
    assert items(execution) == ["succeeded", "queued", "queued", "waiting", "waiting", "waiting"]
    for index in range(1, 6):
        flow.succeed(execution, "each", index, index=index)
    assert output(execution)["results"] == ["first", 1, 2, 3, 4, 5]
    assert flow.states(execution) == {"each": "succeeded", "after": "queued"}
    assert letters(execution) == [("failed", "ValueError", "resolved")]
    attempts = StepRun.objects.exclude(parent=None).annotate(n=Count("attempts")).order_by("item_index")
    assert list(attempts.values_list("n", flat=True)) == [1, 2, 1, 1, 1, 1]


def test_the_letter_of_a_step_that_tolerates_some_is_redriven_and_resolved_or_opened_again() -> None:
    execution = begin(3, max_failed=0)
    flow.succeed(execution, "each", index=0)
    flow.fail(execution, "each", 1)
    flow.fail(execution, "each", 2)
    letter = DeadLetter.objects.get()
    dead_letters.redrive(letter.pk, actor="ada")
    assert items(execution) == ["succeeded", "queued", "queued"]
    flow.fail(execution, "each", 1, error="still")
    flow.succeed(execution, "each", index=2)
    letter.refresh_from_db()
    assert (letter.state, letter.redrives) == ("open", 1)
    assert letter.error.startswith("1 of 3 items failed: item 1: ValueError: still")
    dead_letters.redrive(letter.pk, actor="ada")
    flow.succeed(execution, "each", index=1)
    letter.refresh_from_db()
    assert letter.state == "resolved"
    assert flow.states(execution) == {"each": "succeeded", "after": "queued"}


def test_no_more_items_are_handed_over_by_a_resumption_than_may_be_in_flight(settings: Any) -> None:
    settings.WORKFLOW_IN_FLIGHT_PER_LEVEL = 2
    execution = begin(5)
    for index in range(5):
        flow.fail(execution, "each", index)
    lifecycle.resume_from_failure(execution.pk, actor="ada")
    handed_over = StepRun.objects.filter(execution=execution, state="queued", dispatched_at__isnull=False)
    assert (items(execution), handed_over.count()) == (["queued"] * 5, 2)


def test_cancelling_ends_a_fan_out_that_has_stopped_in_part() -> None:
    execution = begin(4, on_item_error="stop", max_parallel=2)
    flow.held(execution, "each", 1)
    flow.fail(execution, "each", 0)
    lifecycle.cancel(execution.pk, actor="ada")
    assert items(execution) == ["failed", "cancelled", "skipped", "skipped"]
    assert flow.fresh(execution).state == "cancelled"
    assert not Attempt.objects.filter(state="running").exists()


def test_an_item_ended_by_hand_can_be_the_last_of_a_fan_out_that_has_stopped() -> None:
    execution = begin(3, on_item_error="stop", max_parallel=2)
    flow.held(execution, "each", 1)
    flow.fail(execution, "each", 0)
    lifecycle.succeed_step(flow.step(execution, "each", 1).pk, actor="ada", output="by hand")
    assert flow.states(execution) == {"each": "failed", "after": "skipped"}
    assert output(execution)["results"] == [None, "by hand", None]


def test_paused_executions_stop_their_items_too() -> None:
    execution = begin(3, on_item_error="stop")
    failing = flow.held(execution, "each", 0)
    lifecycle.pause(execution.pk, actor="ada")
    plan = plan_by_id(failing.version_id)
    from execution import advance

    ending = advance.ending_of(
        plan, plan.steps["each"], state=StepState.FAILED, attempt_state=AttemptState.FAILED, letter="failed",
        error_type="ValueError", error="boom", fingerprint="f" * 32,
    )  # fmt: skip
    assert advance.conclude(failing, plan, ending)
    assert items(execution) == ["failed", "skipped", "skipped"]
    assert flow.fresh(execution).state == "failed"
