"""Expressions that read what cannot be there, and arguments of the wrong type, are found when a definition is saved."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from celery import Task

from execution.definitions import problems_of
from execution.step_tasks import step_task
from tests import factories

pytestmark = pytest.mark.django_db

INPUT = {
    "type": "object",
    "properties": {
        "day": {"type": "string"},
        "count": {"type": "integer"},
        "mode": {"enum": ["full", "delta"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "shop": {"type": "object", "properties": {"id": {"type": "integer"}}, "additionalProperties": False},
        "free": {},
    },
    "required": ["day", "count", "shop"],
    "additionalProperties": False,
}


class Loaded(TypedDict):
    rows: int
    name: str


@step_task(name="tests.types.load")
def load(count: int, names: list[str] | None = None, **more: Any) -> Loaded:
    """Rows and a name."""
    return {"rows": count, "name": ",".join(names or ())}


@step_task(name="tests.types.bound", bind=True, autoretry_for=(OSError,))
def bound(self: Task[Any, Any], day: str, ratio: float = 1.0) -> str:
    """A text."""
    return f"{day}{ratio}"


@step_task(name="tests.types.plain")
def plain(anything, more=None):  # type: ignore[no-untyped-def]
    """Says nothing of types."""
    return anything


def task(name: str = "load", *needs: str, **arguments: Any) -> dict[str, Any]:
    return {"task": f"tests.types.{name}", "needs": list(needs), "with": arguments}


def http(*needs: str, **more: Any) -> dict[str, Any]:
    body = {"json": more.pop("json")} if "json" in more else {}
    return {"http": {"url": "https://example.org/", **body}, "needs": list(needs), **more}


def check(steps: dict[str, Any], **definition: Any) -> dict[str, list[str]]:
    return problems_of({"input": INPUT, "steps": steps, **definition})


FITS: list[dict[str, Any]] = [
    {"a": task(count=3, names=["x"])},
    {"a": task(count="${{ input.count }}", names="${{ input.tags }}", extra={"n": None})},
    {"a": task(count="${{ input.free }}")},
    {"a": task(count="${{ input.count || `3` }}")},
    {"a": task(count=1), "b": task("load", "a", count="${{ steps.a.output.rows }}")},
    {"a": task("bound", day="${{ input.count }} days", ratio=2)},
    {"a": task("bound", day="${{ steps.b.state }}") | {"needs": ["b"]}, "b": http()},
    {"a": task("plain", anything=[1, "x"], more={})},
    {"a": http(for_each="${{ input.tags }}"), "b": http("a", when={"steps": {"a": {"state": ["succeeded"]}}})},
    {"a": {"approval": {}}, "b": task("bound", "a", day="${{ steps.a.output.by }}")},
    {"a": http(on_error="continue"), "b": http("a", when={"steps": {"a": {"state": ["failed"]}}})},
    {"a": http(when={"input": {"mode": ["delta"], "tags": ["x"], "shop": {"id": [3]}, "free": [1]}})},
    {"a": http(when={"input": {"count": [{"numeric": [">", 3]}], "day": [{"exists": True}]}})},
    {"a": http(), "b": task("bound", "a", day="$${{ literal")},
]


@pytest.mark.parametrize("steps", FITS, ids=range(len(FITS)))
def test_what_can_work_is_accepted(steps: dict[str, Any]) -> None:
    assert check(steps) == {}


WRONG: list[tuple[dict[str, Any], str, str]] = [
    # literal arguments
    ({"a": task(count="3")}, "steps.a.with.count", "must be of type integer, not string"),
    ({"a": task(count=True)}, "steps.a.with.count", "must be of type integer, not boolean"),
    ({"a": task(count=1, names="x")}, "steps.a.with.names", "must be of type array or null, not string"),
    ({"a": task(count=1, names=["x", 5])}, "steps.a.with.names.1", "must be of type string, not integer"),
    ({"a": task("bound", day="x", ratio="2")}, "steps.a.with.ratio", "must be of type number, not string"),
    ({"a": task("bound", day=1)}, "steps.a.with.day", "must be of type string, not integer"),
    # expressions of a known type
    ({"a": task(count="${{ input.day }}")}, "steps.a.with.count", "takes integer, and this gives string"),
    ({"a": task(count="${{ input.day }} x")}, "steps.a.with.count", "takes integer, and this gives string"),
    ({"a": task(count=1, names="${{ input.count }}")}, "steps.a.with.names", "and this gives integer"),
    ({"a": task(count=1), "b": task("load", "a", count="${{ steps.a.output.name }}")}, "steps.b.with.count", "string"),
    ({"a": http(), "b": task("bound", "a", day="${{ steps.a.output.status }}")}, "steps.b.with.day", "takes string"),
    (
        {"a": task("bound", day="x"), "b": task("load", "a", count="${{ steps.a.output }}")},
        "steps.b.with.count",
        "null",
    ),
    # paths
    ({"a": http(json="${{ input.nope }}")}, "steps.a.http.json", "reads input.nope, which the input schema does not"),
    ({"a": http(json="${{ input.shop.nope }}")}, "steps.a.http.json", "reads input.shop.nope, which the input schema"),
    ({"a": http(json="${{ input.day.nope }}")}, "steps.a.http.json", "reads input.day.nope, but input.day is string"),
    ({"a": http(json="x ${{ execution.idd }}")}, "steps.a.http.json", "reads execution.idd; there are only id,"),
    ({"a": http(json="${{ execution.outcome }}")}, "steps.a.http.json", "which only steps of on_success"),
    (
        {"a": http(), "b": http("a", json="${{ steps.a.result }}")},
        "steps.b.http.json",
        "there are only state and output",
    ),
    ({"a": http(), "b": http("a", json="${{ steps.a.state.x }}")}, "steps.b.http.json", "but a state is a text"),
    ({"a": http(), "b": http("a", json="${{ steps.a.output.json }}")}, "steps.b.http.json", "has only status, headers"),
    ({"a": {"wait": 1}, "b": http("a", json="${{ steps.a.output.x }}")}, "steps.b.http.json", "but a has no output"),
    (
        {"a": http(for_each=[1]), "b": http("a", json="${{ steps.a.output.rows }}")},
        "steps.b.http.json",
        "for_each has only",
    ),
    (
        {"a": task(count=1), "b": http("a", json="${{ steps.a.output.row }}")},
        "steps.b.http.json",
        "has only rows, name",
    ),
    ({"a": task("bound", day="x"), "b": http("a", json="${{ steps.a.output.x }}")}, "steps.b.http.json", "is string"),
    ({"a": http(), "b": http(json="${{ steps.a.output.body }}")}, "steps.b.http.json", "which may not have ended"),
    ({"a": http(), "b": http(when={"steps": {"a": {"state": ["succeeded"]}}})}, "steps.b.when.steps.a", "may not have"),
    ({"a": http(when={"input": {"nope": [1]}})}, "steps.a.when.input.nope", "which the input schema does not have"),
    ({"a": http(when={"execution": {"outcome": ["failed"]}})}, "steps.a.when.execution.outcome", "only steps of on_"),
    # conditions that never hold
    (
        {"a": http(), "b": http("a", when={"steps": {"a": {"state": ["failed"]}}})},
        "steps.b.when.steps.a.state",
        "never",
    ),
    (
        {"a": http(), "b": http("a"), "c": http("b", when={"steps": {"a": {"state": ["failed", "cancelled"]}}})},
        "steps.c.when.steps.a.state",
        "unless a says on_error: continue",
    ),
    (
        {"a": http(on_error="continue"), "b": http("a", when={"steps": {"a": {"state": ["done"]}}})},
        "steps.b.when.steps.a.state",
        "a is failed or skipped or succeeded when this is decided",
    ),
    (
        {"a": http(when={"input": {"mode": ["fast", "slow"]}})},
        "steps.a.when.input.mode",
        "the input schema does not allow fast, slow as input.mode",
    ),
    ({"a": http(when={"input": {"shop": {"id": ["7"]}}})}, "steps.a.when.input.shop.id", "never holds"),
    (
        {"a": http(when={"$or": [{"input": {"mode": ["x"]}}, {"input": {"mode": ["y"]}}]})},
        "steps.a.when.input.mode",
        "never",
    ),
]


@pytest.mark.parametrize(("steps", "path", "rule"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_work_is_named_with_its_path(steps: dict[str, Any], path: str, rule: str) -> None:
    problems = check(steps)
    assert list(problems) == [path]
    assert rule in " ".join(problems[path])


def test_steps_of_a_section_see_how_the_main_ones_ended_and_may_not_expect_another_end() -> None:
    tell = http(json={"why": "${{ execution.error.message }}", "rows": "${{ steps.a.output.body }}"})
    fits = {"on_failure": {"tell": tell | {"when": {"steps": {"a": {"state": ["failed", "cancelled"]}}}}}}
    assert check({"a": http()}, **fits) == {}
    assert check({"a": http()}, **{"finally": {"tell": http(when={"execution": {"outcome": ["cancelled"]}})}}) == {}
    problems = check({"a": http()}, on_success={"tell": http(when={"execution": {"outcome": ["failed"]}})})
    assert problems == {
        "on_success.tell.when.execution.outcome": [
            "never holds, so the step would never run: the outcome is succeeded here"
        ]
    }


def test_a_childs_literal_members_are_checked_beside_expressions() -> None:
    factories.make_workflow("typed-child", {"steps": {"a": http()}, "input": INPUT})
    call: dict[str, Any] = {
        "name": "typed-child",
        "input": {"day": "${{ input.day }}", "count": "x", "shop": {"id": 1}},
    }
    assert check({"call": {"workflow": call}}) == {
        "steps.call.workflow.input.count": ["must be of type integer, not string"]
    }
    call["input"] |= {"count": "${{ input.day }}", "shop": {"id": "${{ input.count }}"}}
    assert check({"call": {"workflow": call}}) == {
        "steps.call.workflow.input.count": ["may be string; the workflow that is called takes integer"]
    }
    call["input"] |= {"count": "${{ input.count }}", "mode": "${{ input.mode }}"}
    assert check({"call": {"workflow": call}}) == {}
