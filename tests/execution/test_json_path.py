"""How places inside JSON documents are written."""

from __future__ import annotations

import pytest

from execution import json_path


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("steps", "$.steps"),
        ("load-data", "$.load-data"),
        ("$or", "$.$or"),
        (3, "$[3]"),
        ("a b", '$["a b"]'),
        ("3", '$["3"]'),
        ("é", '$["\\u00e9"]'),
        ("", '$[""]'),
        ('a"]', '$["a\\"]"]'),
        ("x" * 200, f'$["{"x" * 80}\\u2026"]'),
    ],
)
def test_a_child_is_written(key: str | int, expected: str) -> None:
    assert json_path.child(json_path.ROOT, key) == expected
