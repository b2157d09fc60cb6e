"""A definition as the engine walks it."""

from __future__ import annotations

import graphlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution.graph import LONGEST, compile_plan, seconds
from tests.execution.flow import http


def test_steps_come_in_an_order_in_which_they_can_run() -> None:
    plan = compile_plan({"steps": {"c": http("a", "b"), "b": http("a"), "a": http()}})
    assert list(plan.steps) == ["a", "b", "c"]
    assert plan.steps["a"].successors == ("c", "b")
    assert plan.steps["c"].needs == ("a", "b")


def test_descendants_are_all_that_need_a_step_directly_or_not() -> None:
    plan = compile_plan({"steps": {"a": http(), "b": http("a"), "c": http("b"), "d": http("b", "c"), "x": http()}})
    assert plan.descendants("a") == ("b", "c", "d")
    assert plan.descendants("c") == ("d",)
    assert plan.descendants("x") == ()
    assert plan.descendants("a") is plan.descendants("a")


@pytest.mark.parametrize(
    ("step", "plain"),
    [
        (http(), True),
        ({"task": "t"}, True),
        (http(when={"input": {"go": [True]}}), False),
        (http(for_each=[1]), False),
        ({"wait": "1h"}, False),
        ({"approval": {}}, False),
        ({"emit": {"type": "x"}}, False),
    ],
)
def test_a_plain_step_leaves_nothing_to_decide(step: dict[str, Any], plain: bool) -> None:
    assert compile_plan({"steps": {"s": step}}).steps["s"].is_plain is plain


def test_what_is_left_out_of_a_definition_is_absent_from_its_plan() -> None:
    plan = compile_plan({"steps": {"s": {"task": "shop.tasks.sell"}}})
    step = plan.steps["s"]
    assert (plan.output, plan.input_schema, plan.retry, plan.timeout, plan.queue, plan.priority) == (
        None, None, None, None, "", None,
    )  # fmt: skip
    assert plan.concurrency is None
    assert (step.kind, step.target, step.needs, step.timeout, step.retry) == ("task", "shop.tasks.sell", (), None, None)
    assert (step.continue_on_error, step.queue, step.priority, step.max_parallel, step.pool) == (
        False, "", None, None, "",
    )  # fmt: skip


def test_what_a_definition_states_is_in_its_plan() -> None:
    plan = compile_plan(
        {
            "input": {"type": "object"},
            "steps": {
                "s": {
                    "task": "t",
                    "with": {"n": "${{ input.n }}"},
                    "retry": {"max_attempts": 2},
                    "timeout": 5,
                    "on_error": "continue",
                    "queue": "io",
                    "priority": "low",
                    "for_each": "${{ input.list }}",
                    "max_parallel": 3,
                    "pool": {"name": "db", "units": 2},
                }
            },
            "output": "${{ steps.s.output }}",
            "retry": {"max_attempts": 9},
            "timeout": 60,
            "queue": "default",
            "priority": 0,
            "concurrency": {"key": "${{ input.customer }}", "limit": 4, "on_conflict": "skip"},
        }
    )
    step = plan.steps["s"]
    assert plan.output is not None
    assert (plan.retry, plan.timeout, plan.queue, plan.priority) == ({"max_attempts": 9}, 60, "default", 0)
    assert plan.concurrency is not None
    assert (plan.concurrency.limit, plan.concurrency.on_conflict) == (4, "skip")
    assert (step.continue_on_error, step.queue, step.priority, step.timeout) == (True, "io", 9, 5)
    assert (step.max_parallel, step.pool, step.pool_units) == (3, "db", 2)
    assert step.argument.render({"input": {"n": 5}}) == {"n": 5}


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ({"a": http("b"), "b": http("a")}, graphlib.CycleError),
        ({"a": http("a")}, graphlib.CycleError),
        ({"a": http("nobody")}, KeyError),
    ],
)
def test_a_graph_that_cannot_be_walked_is_refused(steps: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        compile_plan({"steps": steps})


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(0, 0), (90, 90), (1.5, 1.5), ("30s", 30), ("1.5h", 5_400), ("2d", 172_800), ("10m", 600), ("365d", LONGEST)],
)
def test_durations_are_numbers_of_seconds_or_carry_their_unit(duration: Any, expected: float) -> None:
    assert seconds(duration) == expected


@pytest.mark.parametrize(
    ("duration", "rule"),
    [
        (-1, "is not a duration"),
        (True, "is not a duration"),
        (None, "is not a duration"),
        ("", "is not a duration"),
        ("d", "is not a duration"),
        ("1", "is not a duration"),
        ("1w", "is not a duration"),
        ("1.2.3s", "is not a duration"),
        ("-1s", "is not a duration"),
        (float("nan"), "is not a duration"),
        ("366d", "longer than 365 days"),
        (1e300, "longer than 365 days"),
        (float("inf"), "longer than 365 days"),
        (10**400, "longer than 365 days"),
        ("9" * 400 + "s", "longer than 365 days"),
    ],
)
def test_other_durations_are_refused_with_the_rule(duration: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        seconds(duration)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Acyclic graphs, their steps named in any order."""
    names = draw(st.permutations([f"s{n}" for n in range(draw(st.integers(1, 12)))]))
    return {
        name: http(*draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else ())
        for index, name in draw(st.permutations(list(enumerate(names))))
    }


@given(graphs())
def test_needs_and_successors_are_each_others_mirror(steps: dict[str, Any]) -> None:
    plan = compile_plan({"steps": steps})
    seen: set[str] = set()
    for name, step in plan.steps.items():
        assert set(step.needs) <= seen
        seen.add(name)
        assert all(name in plan.steps[successor].needs for successor in step.successors)
        assert all(name in plan.steps[need].successors for need in step.needs)
        reached = set(step.successors).union(*(plan.descendants(successor) for successor in step.successors))
        assert set(plan.descendants(name)) == reached
    assert seen == set(steps)
