"""How many items of a fan-out may fail, when it stops, and how it ends: every combination of what a step can say."""

from __future__ import annotations

from typing import Any

import pytest

from execution import items
from execution.definitions import problems_of
from execution.graph import StepPlan, compile_plan
from tests.execution.flow import http


def plan(**more: Any) -> StepPlan:
    return compile_plan({"steps": {"each": http(for_each=[1], **more)}}).steps["each"]


@pytest.mark.parametrize(
    ("options", "total", "expected"),
    [
        ({}, 10, 0),
        ({"on_item_error": "continue"}, 10, 0),
        ({"on_item_error": "stop"}, 10, 0),
        ({"on_error": "continue"}, 10, None),
        ({"on_error": "continue", "on_item_error": "stop"}, 10, 0),
        ({"max_failed": 0}, 10, 0),
        ({"max_failed": 3}, 10, 3),
        ({"max_failed": 3, "on_error": "continue"}, 10, 3),
        ({"max_failed": "10%"}, 25, 2),
        ({"max_failed": "100%"}, 25, 25),
        ({"max_failed": "0%"}, 25, 0),
        ({"max_failed": "0.5%"}, 1_000, 5),
        ({"max_failed": "50%"}, 1, 0),
    ],
)
def test_so_many_items_may_fail(options: dict[str, Any], total: int, expected: int | None) -> None:
    assert items.allowed(plan(**options), total) == expected


@pytest.mark.parametrize(
    ("options", "failed", "expected"),
    [
        ({}, 1, False),
        ({"on_item_error": "stop"}, 0, False),
        ({"on_item_error": "stop"}, 1, True),
        ({"on_item_error": "stop", "max_failed": 2}, 2, False),
        ({"on_item_error": "stop", "max_failed": 2}, 3, True),
        ({"on_item_error": "stop", "max_failed": "20%"}, 3, True),
        ({"on_item_error": "stop", "on_error": "continue"}, 1, True),
        ({"max_failed": 2}, 3, False),
    ],
)
def test_no_further_item_begins(options: dict[str, Any], failed: int, expected: bool) -> None:
    assert items.stops(plan(**options), failed=failed, total=10) is expected


@pytest.mark.parametrize(
    ("options", "states", "expected"),
    [
        ({}, "ss", ("succeeded", "")),
        ({}, "sf", ("failed", "1 of 2 items failed")),
        ({}, "sk", ("succeeded", "")),
        ({"max_failed": 1}, "sf", ("succeeded", "1 of 2 items failed")),
        ({"max_failed": 1}, "ff", ("failed", "2 of 2 items failed; at most 1 may")),
        ({"on_item_error": "stop"}, "fkk", ("failed", "1 of 3 items failed; 2 did not begin")),
        ({"on_error": "continue"}, "ff", ("succeeded", "2 of 2 items failed")),
        ({"on_error": "continue", "max_failed": 1}, "ff", ("failed", "2 of 2 items failed; at most 1 may")),
    ],
)
def test_how_a_fan_out_ends(options: dict[str, Any], states: str, expected: tuple[str, str]) -> None:
    names = {"s": "succeeded", "f": "failed", "k": "skipped"}
    assert items.verdict(plan(**options), items.totals(names[letter] for letter in states)) == expected


def test_a_long_message_of_an_item_is_cut() -> None:
    error = items.ItemError(1, "ValueError", "x" * 10_000)
    assert len(error.as_json()["message"]) == items.MOST_MESSAGE


@pytest.mark.parametrize(
    ("step", "path", "rule"),
    [
        ({"max_failed": 1}, "steps.a.max_failed", "is only for steps with for_each"),
        ({"on_item_error": "stop"}, "steps.a.on_item_error", "is only for steps with for_each"),
        ({"for_each": [1], "max_failed": -1}, "steps.a.max_failed", "at least 0"),
        ({"for_each": [1], "max_failed": "101%"}, "steps.a.max_failed", "must match"),
        ({"for_each": [1], "max_failed": "5"}, "steps.a.max_failed", "must match"),
        ({"for_each": [1], "max_failed": True}, "steps.a.max_failed", "not boolean"),
        ({"for_each": [1], "on_item_error": "fail"}, "steps.a.on_item_error", "must be one of"),
    ],
)
def test_what_cannot_be_meant_is_refused(step: dict[str, Any], path: str, rule: str) -> None:
    problems = problems_of({"steps": {"a": http(**step)}})
    assert rule in " ".join(problems[path])
