"""What can be found wrong with a definition before it is saved, and with an input before it starts."""

from __future__ import annotations

from typing import Any

import pytest

from execution import definitions, json_schemas
from execution.models import WorkflowVersion
from execution.step_tasks import step_task
from scheduling_project.common.errors import InvalidInput


def steps(**named: dict[str, Any]) -> dict[str, Any]:
    return {"steps": named}


def wait(*needs: str, **more: Any) -> dict[str, Any]:
    return {"wait": 1, **({"needs": list(needs)} if needs else {}), **more}


def http(*needs: str, **more: Any) -> dict[str, Any]:
    members = {name: more.pop(name) for name in ("json", "headers", "query", "method") if name in more}
    return {"http": {"url": "https://example.org/", **members}, **({"needs": list(needs)} if needs else {}), **more}


ACCEPTED = [
    steps(a=wait()),
    steps(a=wait(), b=wait("a"), c=wait("a"), d=wait("b", "c")),
    steps(a={"wait": "1.5h"}),
    steps(a={"wait": "${{ input.delay }}"}),
    steps(a={"approval": {"expires": "2d"}}),
    steps(a={"emit": {"type": "x.y", "data": {"n": "${{ input.n }}"}}}),
    steps(a=http(), b=http("a", json="${{ steps.a.output.body }}")),
    steps(a=wait(), b=wait("a"), c=http("b", json="${{ steps.a.output }}")),
    steps(a=wait(), b=http("a", json="${{ item }}", for_each="${{ steps.a.output }}", max_parallel=3)),
    steps(a=http(json="${{ item }}", for_each=[1, 2, 3])),
    steps(a=wait(), b=wait("a", when={"steps": {"a": {"output": [{"exists": True}]}}, "input": {"n": [1]}})),
    steps(a=wait(when={"$or": [{"input": {"n": [1]}}, {"execution": {"id": [{"exists": True}]}}]})),
    {**steps(a=wait()), "output": "${{ steps.a.output }}", "priority": "high", "queue": "io", "timeout": 60},
    {**steps(a=http(json="${{ input.n }}")), "input": {"properties": {"n": {}}, "additionalProperties": False}},
    {
        **steps(a=http(json="${{ input.n }}")),
        "input": {"additionalProperties": False, "$ref": "#/$defs/x", "$defs": {"x": {}}},
    },
    steps(a=wait(retry={"max_attempts": 5, "backoff": 2, "jitter": True, "retry_on": ["5xx", "timeout"]})),
    steps(a=http(json="literal $${{ not an expression")),
]


@pytest.mark.parametrize("definition", ACCEPTED, ids=range(len(ACCEPTED)))
def test_a_definition_that_can_be_run_is_accepted(definition: dict[str, Any]) -> None:
    assert definitions.problems_of(definition) == {}
    definitions.check(definition)


REFUSED: list[tuple[Any, str, str]] = [
    # shape
    (None, "", "must be of type object, not null"),
    ([], "", "must be of type object, not array"),
    ({}, "steps", "is required"),
    ({"steps": {}}, "steps", "must not be empty"),
    ({"steps": {"a": wait()}, "stps": 1}, "stps", "is not a known member"),
    ({"steps": {"a": 5}}, "steps.a", "must be of type object, not integer"),
    ({"steps": {"a b": wait()}}, "steps.a b", "is not a valid name"),
    ({"steps": {"a\n": wait()}}, "steps.a\n", "is not a valid name"),
    (
        steps(a={"wait": 1, "for_each": [1]}),
        "steps.a.for_each",
        "is for steps that a worker runs (http or task or workflow), not for wait",
    ),
    (steps(a={}), "steps.a", "exactly one of task, http, workflow, wait, approval, emit; it has none"),
    (steps(a={"wait": 1, "approval": {}}), "steps.a", "it has wait and approval"),
    (steps(a=wait(needs="b")), "steps.a.needs", "must be of type array, not string"),
    (steps(a=wait("b", "b"), b=wait()), "steps.a.needs", "must not name anything twice"),
    (steps(a=wait(retry={"max_attempts": 0})), "steps.a.retry.max_attempts", "must be at least 1"),
    (steps(a=wait(retry={"retry_on": [5]})), "steps.a.retry.retry_on.0", "must be of type string, not integer"),
    (steps(a=wait(on_error="ignore")), "steps.a.on_error", 'must be one of "fail", "continue"'),
    (steps(a=wait(timeout=0)), "steps.a.timeout", "must be greater than 0"),
    (steps(a=wait(timeout=10**9)), "steps.a.timeout", "must be at most 604800"),
    (steps(a=wait(priority=12)), "steps.a.priority", "must be at most 9 or must be one of"),
    (steps(a=wait(priority=3.0)), "steps.a.priority", "is not a priority"),
    (steps(a=wait(queue="")), "steps.a.queue", "must not be empty"),
    (steps(a={"wait": "soon"}), "steps.a.wait", "must be of type number"),
    (steps(a={"wait": "5s\n"}), "steps.a.wait", "is not a duration"),
    (steps(a={"approval": {"expires": "1d\n"}}), "steps.a.approval.expires", "is not a duration"),
    (steps(a=http(method="BREW")), "steps.a.http.method", "must be one of"),
    (steps(a=http(headers={"X": 5})), "steps.a.http.headers.X", "must be of type string, not integer"),
    (steps(a=wait(description="x" * 3000)), "steps.a.description", "must have at most 2000 characters"),
    # graph
    (steps(a=wait("b")), "steps.a.needs.0", "there is no step b"),
    (steps(a=wait("a")), "steps.a.needs", "needs itself in a circle: a → a"),
    (steps(a=wait("c"), b=wait("a"), c=wait("b")), "steps.b.needs", "in a circle"),
    # kinds
    (steps(a=wait(**{"with": {}})), "steps.a.with", "only for steps that run a task"),
    (steps(a=wait(max_parallel=3)), "steps.a.max_parallel", "only for steps with for_each"),
    (steps(a=http(for_each="a list")), "steps.a.for_each", "must be a list or an expression"),
    (steps(a={"http": {"url": "ftp://example.org"}}), "steps.a.http.url", "http:// or https://"),
    (steps(a=wait(queue="nowhere")), "steps.a.queue", "there is no queue nowhere; there are"),
    ({**steps(a=wait()), "queue": "nowhere"}, "queue", "there is no queue nowhere"),
    # expressions
    (steps(a=http(json={"x": ["${{ input. }}"]})), "steps.a.http.json.x.0", "expression:"),
    (steps(a=http(json="${{ input.x")), "steps.a.http.json", "never closed"),
    (steps(a=http(json={"${{ input.x }}": 1})), "steps.a.http", "an object key cannot hold an expression"),
    (steps(a=http(json="${{ nonsense.x }}")), "steps.a.http.json", "nonsense"),
    (steps(a=http(json="${{ steps.b.output }}")), "steps.a.http.json", "reads step b, which does not exist"),
    (steps(a=http(json="${{ steps.b.output }}"), b=wait()), "steps.a.http.json", "which may not have ended"),
    (steps(a=http(json="${{ steps.a.output }}")), "steps.a.http.json", "which may not have ended"),
    (steps(a=http(json="${{ item }}")), "steps.a.http.json", "reads item"),
    (steps(a=http(for_each="${{ item }}")), "steps.a.for_each", "reads item"),
    ({**steps(a=wait()), "output": "${{ steps.b.output }}"}, "output", "does not exist"),
    (
        {**steps(a=http(json="${{ input.m }}")), "input": {"properties": {"n": {}}, "additionalProperties": False}},
        "steps.a.http.json",
        "reads input.m, which the input schema does not have",
    ),
    # patterns
    (steps(a=wait(when={"input": 5})), "steps.a.when", "is not a valid pattern"),
    (steps(a=wait(when={"nonsense": {"a": [1]}})), "steps.a.when.nonsense", "reads nonsense"),
    (
        steps(a=wait(when={"steps": {"b": {"output": [1]}}})),
        "steps.a.when.steps.b",
        "reads step b, which does not exist",
    ),
    (steps(a=wait(when={"steps": {"b": {"output": [1]}}}), b=wait()), "steps.a.when.steps.b", "may not have ended"),
    # the input's own schema
    ({**steps(a=wait()), "input": {"type": "strin"}}, "input.type", "is not valid JSON Schema"),
    (
        {**steps(a=wait()), "input": {"$ref": "https://example.org/x"}},
        "input.$ref",
        "may only refer to the schema itself",
    ),
    ({**steps(a=wait()), "input": {"$ref": "#/$defs/x"}}, "input.$ref", "which is not in the schema"),
    ({**steps(a=wait()), "input": {"properties": {"n": {"pattern": "("}}}}, "input.properties.n.pattern", "not"),
    (
        {**steps(a=wait()), "input": {"properties": {"n": {"pattern": "^(a+)+$"}}}},
        "input.properties.n.pattern",
        "for ever",
    ),
    ({**steps(a=wait()), "input": {"pattern": "a" * 600}}, "input.pattern", "more than 500 characters"),
    (
        {**steps(a=wait()), "input": {"patternProperties": {"([a-z]*)*": {}}}},
        "input.patternProperties.([a-z]*)*",
        "for ever",
    ),
]


@pytest.mark.parametrize(("definition", "path", "rule"), REFUSED, ids=range(len(REFUSED)))
def test_a_mistake_is_named_with_its_path_and_its_rule(definition: Any, path: str, rule: str) -> None:
    problems = definitions.problems_of(definition)
    assert path in problems
    assert any(rule in text for text in problems[path]), problems
    with pytest.raises(InvalidInput) as caught:
        definitions.check(definition, at="definition")
    assert all(name.startswith("definition") for name in caught.value.fields)


def test_a_definition_that_is_not_json_too_deep_or_too_large_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    assert "nested deeper" in definitions.problems_of({"steps": deep})[""][0]
    assert "must be JSON" in definitions.problems_of(steps(a=http(json=float("nan"))))[""][0]
    assert "must be JSON" in definitions.problems_of(steps(a=http(json={1, 2})))[""][0]
    assert "at most" in definitions.problems_of(steps(a=http(json="x" * 2_000_000)))[""][0]
    with pytest.raises(InvalidInput) as caught:
        definitions.check({"steps": deep})
    assert list(caught.value.fields) == ["definition"]


def test_the_number_of_problems_named_is_bounded() -> None:
    problems = definitions.problems_of({"steps": {f"s{n}": {} for n in range(200)}})
    assert len(problems) == json_schemas.MAX_PROBLEMS


def version(schema: Any) -> WorkflowVersion:
    definition = steps(a=wait())
    return WorkflowVersion(definition=definition if schema is None else {**definition, "input": schema})


SCHEMA = {
    "type": "object",
    "required": ["day"],
    "additionalProperties": False,
    "properties": {
        "day": {"type": "string", "format": "date"},
        "parts": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
        "name": {"const": "x"},
        "code": {"pattern": "^[a-z]+$", "minLength": 2},
        "share": {"exclusiveMaximum": 1},
        "either": {"anyOf": [{"type": "null"}, {"type": ["integer", "string"], "multipleOf": 5}]},
        "step": {"multipleOf": 5},
    },
}


@pytest.mark.parametrize(
    ("input", "path", "rule"),
    [
        (None, "input", "must be an object"),
        ([], "input", "must be an object"),
        ({}, "input.day", "is required"),
        ({"day": 5}, "input.day", "must be of type string, not integer"),
        ({"day": "tomorrow"}, "input.day", "must be a valid date"),
        ({"day": "2026-01-01", "x": 1}, "input.x", "is not a known member"),
        ({"day": "2026-01-01", "parts": [1, True]}, "input.parts.1", "must be of type integer, not boolean"),
        ({"day": "2026-01-01", "parts": []}, "input.parts", "must not be empty"),
        ({"day": "2026-01-01", "parts": [1] * 4}, "input.parts", "must have at most 3 members"),
        ({"day": "2026-01-01", "name": "y"}, "input.name", 'must be "x"'),
        ({"day": "2026-01-01", "code": "A"}, "input.code", "must match ^[a-z]+$"),
        ({"day": "2026-01-01", "code": "a"}, "input.code", "must have at least 2 characters"),
        ({"day": "2026-01-01", "share": 1.5}, "input.share", "must be less than 1"),
        ({"day": "2026-01-01", "either": 1.5}, "input.either", "must be of type null, not number"),
        ({"day": "2026-01-01", "step": 3}, "input.step", "3 is not a multiple of 5"),
    ],
)
def test_an_input_that_breaks_the_schema_is_refused_with_its_path(input: Any, path: str, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        definitions.validate_input(version(SCHEMA), input)
    assert any(rule in text for text in caught.value.fields[path]), caught.value.fields


def test_a_good_input_passes_with_and_without_a_schema() -> None:
    with_schema, without = version(SCHEMA), version(None)
    definitions.validate_input(with_schema, {"day": "2026-01-01", "parts": [1]})
    definitions.validate_input(with_schema, {"day": "2026-01-01"})
    definitions.validate_input(without, {"anything": [1, {"goes": None}]})


def test_an_input_or_schema_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    with pytest.raises(InvalidInput, match="nested deeper"):
        definitions.validate_input(version(None), deep)
    with pytest.raises(InvalidInput, match="refers to itself"):
        definitions.validate_input(version({"$ref": "#"}), {})


def test_a_schema_that_lost_its_reference_refuses_the_input_instead_of_breaking() -> None:
    with pytest.raises(InvalidInput, match="cannot be checked"):
        definitions.validate_input(version({"$ref": "https://example.org/schema"}), {})


def test_validators_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "VALIDATORS_KEPT", 2)
    monkeypatch.setattr(definitions, "_validators", type(definitions._validators)())
    for _ in range(4):
        definitions.validate_input(version(None), {})
    assert len(definitions._validators) == 2


@step_task(name="tests.definitions.copy")
def copy(source: str, target: str = "") -> None:
    """Takes one argument at least."""


@pytest.mark.parametrize(
    ("step", "path", "rule"),
    [
        ({"task": "tests.definitions.copy", "with": {"source": "${{ input.x }}"}}, "", ""),
        ({"task": "tests.definitions.copy"}, "steps.a.with", "missing a required argument: 'source'"),
        ({"task": "tests.definitions.copy", "with": {"source": "", "x": 1}}, "steps.a.with", "unexpected keyword"),
        ({"task": "celery.backend_cleanup"}, "steps.a.task", "is not a task that steps may run here"),
        ({"task": "nowhere"}, "steps.a.task", "is not a task that steps may run here"),
    ],
)
def test_a_task_is_allowed_and_takes_its_arguments(step: dict[str, Any], path: str, rule: str) -> None:
    problems = definitions.problems_of(steps(a=step))
    assert list(problems) == ([path] if path else [])
    assert rule in str(problems)


@pytest.mark.parametrize(
    ("schema", "path", "rule"),
    [
        ({"properties": {"a": {"type": 5}}}, "input.properties.a.type", "is not valid JSON Schema"),
        ({"anyOf": [{"$ref": "#nowhere"}]}, "input.anyOf.0.$ref", "which is not in the schema"),
        ({"$dynamicRef": "https://example.org"}, "input.$dynamicRef", "may only refer to the schema itself"),
        ({"const": {"$ref": "https://example.org"}}, "", ""),
    ],
)
def test_an_input_schema_is_looked_through(schema: dict[str, Any], path: str, rule: str) -> None:
    problems = definitions.problems_of({**steps(a=wait()), "input": schema})
    assert list(problems) == ([path] if path else [])
    assert rule in str(problems)


def test_a_schema_that_is_too_deep_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"not": deep}
    assert "nested deeper" in str(json_schemas.schema_problems(deep, at="input"))


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("2026-03-01T09:00:00Z", True),
        ("2026-03-01T09:00:00.5+01:00", True),
        ("2026-03-01T09:00:00", False),
        ("2026-13-01T09:00:00Z", False),
        ("soon", False),
        (5, True),
    ],
)
def test_instants_are_checked_as_rfc_3339(value: Any, good: bool) -> None:
    checker = json_schemas.validator({"properties": {"at": {"format": "date-time"}}})
    assert (json_schemas.value_problems(checker, {"at": value}, at="input") == {}) is good


def test_a_rule_is_named_once_and_rules_are_bounded() -> None:
    problems: json_schemas.Problems = {}
    json_schemas.add(problems, "a", "is wrong")
    json_schemas.add(problems, "a", "is wrong")
    assert problems == {"a": ["is wrong"]}
    for number in range(200):
        json_schemas.add(problems, f"b{number}", "is wrong")
        json_schemas.add(problems, "a", f"rule {number}")
    assert len(problems) == len(problems["a"]) == json_schemas.MAX_PROBLEMS
