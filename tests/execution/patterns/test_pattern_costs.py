"""What an event may cost: no pattern and no event makes matching slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from execution import patterns
from execution.patterns import compile
from tests.patience import PATIENCE


def _wide(build: Callable[[int], Any], size: int) -> list[Any]:
    return [build(i) for i in range(size)]


def _deep(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def _deep_objects(depth: int) -> Any:
    value: Any = {"b": "x"}
    for _ in range(depth):
        value = [value, value]
    return value


HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stars": ({"a": [{"wildcard": "*a" * 60 + "*b*"}]}, {"a": "a" * 1_000_000}),
    "near misses of a star": ({"a": [{"wildcard": "*" + "a" * 500 + "b*c"}]}, {"a": "a" * 1_000_000}),
    "stars in anything-but": (
        {"a": [{"anything-but": {"wildcard": "*a" * 60 + "*b*"}}]},
        {"a": ["a" * 100_000] * 3},
    ),
    "case": ({"a": [{"prefix": {"equals-ignore-case": "İ" * 50}}]}, {"a": "İ" * 300_000}),
    "wide values": ({"a": ["no"], "b": [1]}, {"a": _wide(str, 200_000)}),
    "wide numbers": ({"a": [{"numeric": [">", 1e9]}]}, {"a": list(range(200_000))}),
    "wide objects": ({"a": {"b": [-1], "c": ["x"]}}, {"a": _wide(lambda i: {"b": i, "c": "x"}, 50_000)}),
    "wide absence": ({"a": {"z": [{"exists": False}]}}, {"a": _wide(lambda i: {"b": i}, 100_000)}),
    "deep values": ({"a": ["y"]}, {"a": _deep(100_000)}),
    "deep objects": ({"a": {"b": ["y"]}}, {"a": _deep_objects(16)}),
    "alternatives": (
        {"$or": [{"a": {f"k{i}": [1], "$or": [{"x": [1]}, {"y": [1]}]}} for i in range(20)]},
        {"a": _wide(lambda i: {f"k{i % 20}": 1}, 10_000)},
    ),
    "address lookalikes": ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": ["1." * 20] * 50_000}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_event_costs_little(name: str) -> None:
    pattern, event = HOSTILE[name]
    compiled = compile(pattern)
    # A quadratic matcher takes minutes; the bar of 0.1 s is measured by bench_patterns.py.
    assert _timed(compiled, event) < PATIENCE


def _timed(compiled: patterns.CompiledPattern, event: dict[str, Any]) -> float:
    started = time.process_time()
    compiled.matches(event)
    return time.process_time() - started


@pytest.mark.parametrize(
    "event",
    [
        {"a": [0] * 1_100_000},
        {"a": _deep_objects(21)},
        {"a": {"b": [[0] * 10] * 150_000}},
        {"a": "x" * 40_000_000},
        {"a": ["x" * 40_000_000]},
    ],
    ids=["values", "objects", "leaves", "text", "text in an array"],
)
def test_beyond_the_work_limit_nothing_matches_and_the_explanation_says_so(event: dict[str, Any]) -> None:
    if isinstance(event["a"], dict):
        compiled = compile({"a": {"b": {"c": [{"exists": False}]}, "z": [{"exists": False}]}})
        event = {"a": [event["a"]]}
    elif isinstance(event["a"], list) and isinstance(event["a"][0], list):
        compiled = compile({"a": {"b": ["y"]}})
    else:
        compiled = compile({"a": [{"wildcard": "*y*"}]})
    assert compiled.matches(event) is False
    assert "small enough" in str(compiled.explain(event))


def test_the_work_limit_also_bounds_the_search_for_absence() -> None:
    compiled = compile({"a": {"b": [{"exists": False}]}})
    assert compiled.matches({"a": [{"b": [[]] * 600_000}]}) is False
    assert compiled.matches({"a": [{"b": [[]] * 1_000}]}) is True


def test_a_compiled_pattern_shows_its_source_shortly() -> None:
    assert repr(compile({"a": ["x"]})) == "CompiledPattern(an object of 1)"
    assert compile({"a": ["x"]}).source == {"a": ["x"]}
