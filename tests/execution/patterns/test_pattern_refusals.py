"""Patterns that are refused at save, with the place and the rule."""

from __future__ import annotations

import time
from typing import Any

import pytest

from execution.patterns import PatternError, compile
from execution.patterns.reading import MAX_FIELDS, MAX_TEXT, MAX_VALUES
from tests.patience import PATIENCE


def _short(value: object) -> str | None:
    return repr(value)[:50] if isinstance(value, dict | list | str) else None


EC2 = {
    "version": "0",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "time": "2026-07-01T16:24:49Z",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-000000aaaaaa00000"],
    "detail": {
        "c-count": 5,
        "d-count": 3,
        "x-limit": 301.8,
        "source-ip": "10.0.0.33",
        "state": "running",
        "empty": "",
        "nothing": None,
        "on": True,
        "list": [],
        "object": {},
    },
}


@pytest.mark.parametrize(
    ("pattern", "path", "rule"),
    [
        ([], "$", "object"),
        (None, "$", "object"),
        ("[1]", "$", "object"),
        ("{", "$", "json"),
        ('{"a": [1], "a": [2]}', "$", "duplicate-key"),
        ("[" * 100_000, "$", "depth"),
        (" " * 300_000, "$", "size"),
        ({}, "$", "empty-object"),
        ({"a": {}}, "$.a", "empty-object"),
        ({"a": []}, "$.a", "empty-array"),
        ({"a": "x"}, "$.a", "field"),
        ({"a": {"b c": 5}}, '$.a["b c"]', "field"),
        ({"a": None}, "$.a", "field"),
        ({1: ["x"]}, "$", "key"),
        ({"a": [["x"]]}, "$.a[0]", "value"),
        ({"a": ["x", float("nan")]}, "$.a[1]", "number"),
        ({"a": [float("inf")]}, "$.a[0]", "number"),
        ({"a": [10**400]}, "$.a[0]", "number"),
        ({"a": [{}]}, "$.a[0]", "one-operator"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "$.a[0]", "one-operator"),
        ({"a": [{1: "x"}]}, "$.a[0]", "key"),
        ({"a": [{"regex": ".*"}]}, "$.a[0].regex", "operator"),
        ({"a": [{"exactly": 5}]}, "$.a[0].exactly", "string"),
        ({"a": [{"prefix": 5}]}, "$.a[0].prefix", "string"),
        ({"a": [{"prefix": ["x"]}]}, "$.a[0].prefix", "string"),
        ({"a": [{"prefix": {"suffix": "x"}}]}, "$.a[0].prefix.suffix", "operator"),
        ({"a": [{"prefix": {}}]}, "$.a[0].prefix", "one-operator"),
        ({"a": [{"suffix": None}]}, "$.a[0].suffix", "string"),
        (
            {"a": [{"suffix": {"equals-ignore-case": 1}}]},
            "$.a[0].suffix.equals-ignore-case",
            "string",
        ),
        ({"a": [{"equals-ignore-case": ["x"]}]}, "$.a[0].equals-ignore-case", "string"),
        ({"a": [{"wildcard": "a**b"}]}, "$.a[0].wildcard", "wildcard-stars"),
        ({"a": [{"wildcard": "a\\b"}]}, "$.a[0].wildcard", "wildcard-escape"),
        ({"a": [{"wildcard": "a\\"}]}, "$.a[0].wildcard", "wildcard-escape"),
        ({"a": [{"wildcard": 5}]}, "$.a[0].wildcard", "string"),
        ({"a": [{"wildcard": "*a" * 65}]}, "$.a[0].wildcard", "stars"),
        ({"a": [{"anything-but": None}]}, "$.a[0].anything-but", "anything-but"),
        ({"a": [{"anything-but": True}]}, "$.a[0].anything-but", "anything-but"),
        ({"a": [{"anything-but": []}]}, "$.a[0].anything-but", "anything-but"),
        ({"a": [{"anything-but": ["x", 1]}]}, "$.a[0].anything-but", "anything-but"),
        ({"a": [{"anything-but": {"prefix": ""}}]}, "$.a[0].anything-but.prefix", "anything-but"),
        ({"a": [{"anything-but": {"suffix": [""]}}]}, "$.a[0].anything-but.suffix", "anything-but"),
        ({"a": [{"anything-but": {"prefix": []}}]}, "$.a[0].anything-but.prefix", "anything-but"),
        ({"a": [{"anything-but": {"prefix": 5}}]}, "$.a[0].anything-but.prefix", "string"),
        ({"a": [{"anything-but": {"numeric": [">", 5]}}]}, "$.a[0].anything-but.numeric", "operator"),
        ({"a": [{"anything-but": {"cidr": "::/0"}}]}, "$.a[0].anything-but.cidr", "operator"),
        ({"a": [{"anything-but": {"wildcard": "**"}}]}, "$.a[0].anything-but.wildcard", "wildcard-stars"),
        ({"a": [{"anything-but": {}}]}, "$.a[0].anything-but", "one-operator"),
        ({"a": [{"numeric": []}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"numeric": 5}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"numeric": [">"]}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"numeric": ["!", 5]}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"numeric": [">", "5"]}]}, "$.a[0].numeric[1]", "number"),
        ({"a": [{"numeric": [">", True]}]}, "$.a[0].numeric[1]", "number"),
        ({"a": [{"numeric": [">", 5, "<", "x"]}]}, "$.a[0].numeric[3]", "number"),
        ({"a": [{"numeric": [">", 5, "<", 5]}]}, "$.a[0].numeric", "numeric-range"),
        ({"a": [{"numeric": [">", 5, "<", 3]}]}, "$.a[0].numeric", "numeric-range"),
        ({"a": [{"numeric": ["<", 5, ">", 3]}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"numeric": [">", 5, ">", 6]}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"numeric": ["=", 5, "<", 6]}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"numeric": [[], 5]}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"numeric": [">", 5, [], 6]}]}, "$.a[0].numeric", "numeric"),
        ({"a": [{"exists": "true"}]}, "$.a[0].exists", "exists"),
        ({"a": [{"exists": 1}]}, "$.a[0].exists", "exists"),
        ({"a": [{"cidr": "10.0.0.0"}]}, "$.a[0].cidr", "cidr"),
        ({"a": [{"cidr": "10.0.0.0/33"}]}, "$.a[0].cidr", "cidr"),
        ({"a": [{"cidr": "10.0.0.0/-1"}]}, "$.a[0].cidr", "cidr"),
        ({"a": [{"cidr": "10.0.0.0/"}]}, "$.a[0].cidr", "cidr"),
        ({"a": [{"cidr": "10.0.0/8"}]}, "$.a[0].cidr", "cidr"),
        ({"a": [{"cidr": "::/129"}]}, "$.a[0].cidr", "cidr"),
        ({"a": [{"cidr": "::/٣"}]}, "$.a[0].cidr", "cidr"),
        ({"a": [{"cidr": "example.com/8"}]}, "$.a[0].cidr", "cidr"),
        ({"a": [{"cidr": 5}]}, "$.a[0].cidr", "string"),
        ({"$or": {"a": [1]}}, "$.$or", "or"),
        ({"$or": [{"a": [1]}]}, "$.$or", "or"),
        ({"$or": [{"a": [1]}, 5]}, "$.$or[1]", "or"),
        ({"$or": [{"a": [1]}, {}]}, "$.$or[1]", "empty-object"),
        ({"$or": [{"a": [1]}, {"prefix": ["x"]}]}, "$.$or[1].prefix", "or-reserved"),
        ({"$or": [{"a": [1]}, {"b": {"numeric": ["x"]}}]}, "$.$or[1].b.numeric", "or-reserved"),
        ({"x": {"$or": [{"a": [1]}] * 65}}, "$.x.$or", "or-branches"),
        ({"a": [1], "$or": [{"a": {"b": [1]}}, {"c": [1]}]}, "$.a", "both-kinds"),
        ({"a": {"b": [1]}, "$or": [{"a": [1]}, {"c": [1]}]}, "$.a", "both-kinds"),
        (
            {"a": {"b": [1]}, "$or": [{"a": {"c": [1]}}, {"d": [1]}], "d": {"e": [1]}},
            "$.d",
            "both-kinds",
        ),
        ({"a": ["x" * (MAX_TEXT + 1)]}, "$.a[0]", "size"),
        ({"a": ["x"] * (MAX_VALUES + 1)}, "$.a", "size"),
        ({"a": [{"equals-ignore-case": "x"}] * 257}, "$.a[256].equals-ignore-case", "size"),
        ({f"f{i}": [1] for i in range(MAX_FIELDS + 1)}, "$", "fields"),
    ],
    ids=_short,
)
def test_a_wrong_pattern_is_refused_with_its_place_and_rule(pattern: Any, path: str, rule: str) -> None:
    with pytest.raises(PatternError) as caught:
        compile(pattern)
    assert (caught.value.path, caught.value.rule) == (path, rule)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 400


def test_a_product_of_alternatives_is_refused_when_compiling() -> None:
    def pattern(levels: int) -> dict[str, Any]:
        inner: dict[str, Any] = {"d": {"x": [1]}}
        for level in range(levels):
            inner = {
                "d": {f"k{level}": [1]},
                "$or": [{"d": {"left": [level]}, **_tail(inner)}, {"d": {"right": [level]}, **_tail(inner)}],
            }
        return inner

    def _tail(inner: dict[str, Any]) -> dict[str, Any]:
        return {"$or": inner["$or"]} if "$or" in inner else {}

    started = time.perf_counter()
    with pytest.raises(PatternError):
        compile(pattern(12))
    assert time.perf_counter() - started < PATIENCE


def test_parallel_alternatives_over_one_object_are_refused_before_they_explode() -> None:
    groups: dict[str, Any] = {
        "a": {"$or": [{"o": {f"k{i}": [i]}} for i in range(16)]},
    }
    compile(groups)
    nested: dict[str, Any] = {"o": {"x": [1]}}
    for _ in range(3):
        nested = {"$or": [{"o": {f"k{i}": [1]}, "p": nested} for i in range(4)]}
    started = time.perf_counter()
    with pytest.raises(PatternError):
        compile(nested)
    assert time.perf_counter() - started < PATIENCE


def test_a_pattern_nested_too_deeply_is_refused() -> None:
    pattern: Any = [1]
    for _ in range(3000):
        pattern = {"a": pattern}
    with pytest.raises(PatternError, match="deeper than 20"):
        compile(pattern)
    pattern = {"a": [1]}
    for _ in range(30):
        pattern = {"$or": [pattern, {"b": [1]}]}
    with pytest.raises(PatternError, match="deeper than 20"):
        compile(pattern)
