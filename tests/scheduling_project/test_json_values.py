"""Only JSON that can be kept is read."""

from __future__ import annotations

from typing import Any

import pytest

from scheduling_project.common import json_values
from scheduling_project.common.json_values import JSONProblem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": [1, 2.5, true, null, "ü"]}', {"a": [1, 2.5, True, None, "ü"]}),
        ('"\\u00e9\\ud83d\\ude00"', "é😀"),
        ("1e3", 1000.0),
        (b"[]", []),
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_json_is_read(text: Any, expected: Any) -> None:
    assert json_values.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "rule", "path"),
    [
        (b"\xff", "is not UTF-8 at byte 0", ""),
        (b"\xef\xbb\xbf{}", "is not JSON", ""),
        ("{", "is not JSON: Expecting property name", ""),
        ("", "is not JSON", ""),
        ("NaN", "NaN is not JSON", ""),
        ("[-Infinity]", "-Infinity is not JSON", ""),
        ("1e999", "larger than a number can be", ""),
        ("9" * 5000, "a number of 5000 digits", ""),
        ('{"a": {"b": 1, "b": 2}}', "is there twice in one object", "b"),
        ('{"a": ["x", "\\u0000"]}', "cannot be kept", "a.1"),
        ('{"a": "\\ud800"}', "cannot be kept", "a"),
        ('{"x\\u0000": 1}', "cannot be kept", "x�"),
        ('{"n": {"x\\u0000": 1}}', "cannot be kept", "n.x�"),
        ("[" * 100 + "]" * 100, "nested deeper than 64", ""),
        ("[" * 100_000, "nested deeper than 64", ""),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(text: Any, rule: str, path: str) -> None:
    with pytest.raises(JSONProblem) as caught:
        json_values.parse(text)
    assert rule in caught.value.rule
    assert caught.value.path == path
    assert str(caught.value) == (f"{path}: {caught.value.rule}" if path else caught.value.rule)


def test_depth_is_measured_without_recursion() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert json_values.too_deep(deep)
    assert not json_values.too_deep([[1], {"a": [2]}], limit=3)
    assert json_values.too_deep([[[[1]]]], limit=3)
    while isinstance(deep, list):  # taken apart by hand: freeing it at once would overflow the stack
        deep = deep[0]
