"""What annotations, schemas and literals say of JSON values, and that nothing is refused that could work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from execution import json_kinds
from execution.json_kinds import EVERY


class Part(TypedDict):
    shop: str
    orders: int
    note: NotRequired[str]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (bool, "boolean"),
        (None, "null"),
        (int | None, "integer or null"),
        (list[int], "array"),
        (tuple[int, ...], "array"),
        (Sequence[int], "array or string"),
        (Iterable[int], "array or object or string"),
        (dict[str, Any], "object"),
        (Mapping[str, int], "object"),
        (Part, "object"),
        (Literal["a", 1], "integer or string"),
        (Annotated[int, "days"], "integer"),
        (list | str, "array or string"),
    ],
)
def test_an_annotation_takes_these_kinds(annotation: Any, expected: str) -> None:
    assert json_kinds.named(json_kinds.of_annotation(annotation)) == expected


@pytest.mark.parametrize("annotation", [Any, object, dt.date, "int", [], int | dt.date, TypedDict, Exception])
def test_what_is_not_plain_takes_everything(annotation: Any) -> None:
    assert json_kinds.of_annotation(annotation) == EVERY


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer"}, {"integer"}),
        ({"type": "number"}, {"integer", "number"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"const": "x", "type": "integer"}, {"string"}),
        ({"enum": ["x", 1, None]}, {"string", "integer", "null"}),
        ({}, EVERY),
        (True, EVERY),
        ({"type": "unheard of"}, EVERY),
    ],
)
def test_a_schema_allows_these_kinds(schema: Any, expected: set[str]) -> None:
    assert json_kinds.of_schema(schema) == expected


def test_a_schema_is_followed_where_it_is_plain() -> None:
    schema = {"properties": {"a": {"properties": {"b": {"type": "string"}}}, "c": {"$ref": "#/$defs/x"}, "d": True}}
    assert json_kinds.schema_at(schema, ("a", "b")) == {"type": "string"}
    for path in (("a", "x"), ("c", "x"), ("d", "x"), ("e",)):
        assert json_kinds.schema_at(schema, path) is None
    assert json_kinds.schema_at({"properties": 5}, ("a",)) is None
    assert json_kinds.schema_at({"anyOf": [], "properties": {"a": {}}}, ("a",)) is None


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("x", int, [((), "must be of type integer, not string")]),
        (True, int, [((), "must be of type integer, not boolean")]),
        (1.5, int, [((), "must be of type integer, not number")]),
        (3, float, []),
        (None, int, [((), "must be of type integer, not null")]),
        (None, int | None, []),
        ([1, "x"], list[int], [((1,), "must be of type integer, not string")]),
        ([[1], ["x"]], list[list[int]], [((1, 0), "must be of type integer, not string")]),
        ({"a": "x"}, Mapping[str, int], [(("a",), "must be of type integer, not string")]),
        ({"shop": 1, "orders": 2}, Part, [(("shop",), "must be of type string, not integer")]),
        ({"shop": "x"}, Part, [((), "lacks orders")]),
        ({"shop": "x", "orders": 1, "more": None}, Part, []),
        ("c", Literal["a", "b"], [((), "must be one of 'a', 'b'")]),
        ("a", Literal["a", "b"], []),
        (["x"], list[int] | None, [((0,), "must be of type integer, not string")]),
        (["x"], list[int] | tuple[str], []),
        ([1, "x"], tuple[int, int], []),
        ("x", Annotated[int, "days"], [((), "must be of type integer, not string")]),
        (["x"], Annotated[list[int], "days"], [((0,), "must be of type integer, not string")]),
        ("2026-01-01", dt.date, []),
        (["?"], list[int], []),
        ("?", int, []),
        ({"a": 1}, dict, []),
    ],
)
def test_a_literal_fits_or_the_place_is_named(value: Any, annotation: Any, expected: list[Any]) -> None:
    assert json_kinds.misfits(value, annotation, unknown=lambda part: part == "?") == expected


def test_annotations_that_cannot_be_resolved_say_nothing() -> None:
    def body(day: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Other people's code, whose import is there for type checkers only."""

    assert json_kinds.hints_of(body) == {}
