"""What follows in the graph where the flow tests do not come by: caps, nothing to do, and somebody else first."""

from __future__ import annotations

from typing import Any

import pytest

from execution import advance, engine, queue
from execution.models import DeadLetter, StepRun
from execution.plans import plan_by_id
from execution.states import StepState
from scheduling_project.common.ids import uuid7
from tests.execution import flow

pytestmark = pytest.mark.django_db


def test_results_of_a_fan_out_that_are_too_long_are_left_out_and_said_to_be(settings: Any) -> None:
    settings.WORKFLOW_MAX_PAYLOAD_BYTES = 200
    execution = flow.begin({"each": flow.http(for_each=[1, 2, 3])})
    for index in range(3):
        flow.succeed(execution, "each", "x" * 100, index=index)
    output = flow.step(execution, "each").output.data
    counts = {"count": 3, "succeeded": 3, "failed": 0, "skipped": 0}
    assert output == {**counts, "errors": [], "results": None, "truncated": True}


def test_a_fan_out_over_more_than_is_allowed_fails_its_step(settings: Any) -> None:
    settings.WORKFLOW_MAX_FAN_OUT = 3
    execution = flow.begin({"each": flow.http(for_each=[1, 2, 3, 4])})
    assert flow.fresh(execution).state == "failed"
    assert "at most 3" in DeadLetter.objects.get().error


def test_a_handled_failure_of_an_item_lets_its_fan_out_succeed() -> None:
    execution = flow.begin({"each": flow.http(for_each=[1, 2], on_error="continue"), "after": flow.http("each")})
    flow.fail(execution, "each", 0)
    flow.succeed(execution, "each", index=1)
    assert flow.states(execution) == {"each": "succeeded", "after": "queued"}
    output = flow.step(execution, "each").output.data
    assert (output["succeeded"], output["failed"]) == (1, 1)
    assert not DeadLetter.objects.exists()


def test_nothing_is_decided_about_an_execution_that_is_gone() -> None:
    execution = flow.begin({"a": flow.http()})
    plan = plan_by_id(execution.version_id)
    advance.decide_ripe(uuid7(), plan)
    assert flow.states(execution) == {"a": "queued"}


def test_whoever_comes_second_settles_nothing() -> None:
    execution = flow.begin({"nap": {"wait": 60}, "each": flow.http(for_each=[1])})
    plan = plan_by_id(execution.version_id)
    runs = {run.name: run for run in StepRun.objects.filter(execution=execution, parent=None)}
    assert queue.cancel(execution.pk, reason="first")
    ending = advance.ending_of(plan, plan.steps["nap"], state=StepState.SUCCEEDED)
    with engine.transaction():
        leaving = [StepState.WAITING]
        ids = {"execution_id": execution.pk, "plan": plan}
        assert advance.settle(runs["nap"].pk, **ids, leaving=leaving, ending=ending) is None
        advance._settle_ripe(runs["nap"].pk, execution.pk, plan, ending, now=None, using=None)
        advance._fan_in(execution.pk, runs["each"].pk, plan.steps["each"], plan, now=None, using=None)
    assert set(flow.states(execution).values()) == {"cancelled"}


def test_expressions_load_only_the_steps_that_they_refer_to(django_assert_max_num_queries: Any) -> None:
    execution = flow.begin(
        {"a": flow.http(), "b": flow.http(), "each": flow.http("a", "b", for_each="${{ steps.a.output }}")}
    )
    flow.succeed(execution, "a", [1, 2])
    flow.succeed(execution, "b", "x")
    assert StepRun.objects.filter(parent__execution=execution).count() == 2
