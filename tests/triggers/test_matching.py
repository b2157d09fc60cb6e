"""The index finds what looking at every trigger would find, and looks at few."""

from __future__ import annotations

import random
from typing import Any

import pytest

from execution import patterns
from triggers.matching import Rule, TriggerIndex, type_fits

ANY = {"type": [{"exists": True}]}


def rule(name: str, *types: str, pattern: dict[str, Any] | None = None, endpoint: str | None = None) -> Rule:
    return Rule(name, endpoint, types, patterns.compile(pattern or ANY))


def event(type: str = "a", data: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": type, "source": "", "data": data, **more}


def names(index: TriggerIndex, one: dict[str, Any], endpoint: str | None = None) -> set[Any]:
    return {found.id for found in index.match(one, endpoint)}


@pytest.mark.parametrize(
    ("wanted", "name", "fits"),
    [("a.b", "a.b", True), ("a.b", "a.b.c", False), ("a.*", "a.b.c", True), ("a.*", "a", False), ("*", "x", True)],
)
def test_types_are_exact_or_prefixes(wanted: str, name: str, fits: bool) -> None:
    assert type_fits(wanted, name) is fits
    assert names(TriggerIndex([rule("r", wanted)]), event(name)) == ({"r"} if fits else set())


def test_a_trigger_of_an_endpoint_sees_that_endpoint_only() -> None:
    index = TriggerIndex([rule("mine", endpoint="shop"), rule("types", "a"), rule("both", "a", endpoint="shop")])
    assert len(index) == 3
    assert names(index, event(), "shop") == {"mine", "types", "both"}
    assert names(index, event("b"), "shop") == {"mine"}
    assert names(index, event(), "other") == names(index, event()) == {"types"}


def test_the_rarest_value_decides_where_a_trigger_stands() -> None:
    rules = [rule(f"r{number}", "a", pattern={"data": {"id": [number], "country": ["CH"]}}) for number in range(1_000)]
    index = TriggerIndex(rules)
    one = event(data={"id": 7, "country": "CH"})
    assert [found.id for found in index.candidates(one, None)] == ["r7"]
    assert index.candidates(event(data={"country": "CH"}), None) == []


def test_values_in_arrays_and_objects_in_arrays_are_found() -> None:
    index = TriggerIndex(
        [
            rule("tag", "a", pattern={"data": {"tags": ["new"]}}),
            rule("item", "a", pattern={"data": {"items": {"sku": ["x", "y"]}}}),
            rule("one", "a", pattern={"data": {"n": [1]}}),
            rule("true", "a", pattern={"data": {"n": [True]}}),
            rule("null", "a", pattern={"data": {"n": [None]}}),
        ]
    )
    assert names(index, event(data={"tags": [["old"], ["new"]]})) == {"tag"}
    assert names(index, event(data={"items": [{"sku": "z"}, {"sku": "y"}]})) == {"item"}
    assert names(index, event(data={"n": 1.0})) == {"one"}
    assert names(index, event(data={"n": True})) == {"true"}
    assert names(index, event(data={"n": None})) == {"null"}


def test_misses_name_the_first_field_that_failed() -> None:
    rules = [
        rule("value", "a", pattern={"data": {"n": [1]}}),
        rule("type", "b", endpoint="shop"),
        rule("other type", "c"),
        rule("hit", "a"),
    ]
    index = TriggerIndex(rules)
    one = event(data={"n": 2})
    matched = index.match(one, "shop")
    missed = index.misses(one, "shop", matched=matched, limit=10)
    assert [(found.id, reason) for found, reason in missed] == [
        ("type", "$.type: expected b, got a"),
        ("value", "$.data.n: expected 1, got 2"),
    ]
    assert len(index.misses(one, "shop", matched=matched, limit=1)) == 1
    assert index.misses(one, None, matched=index.match(one, None), limit=10)[0][0].id == "value"
    assert TriggerIndex([]).misses(one, None, matched=[], limit=1) == []


def test_the_index_finds_what_looking_at_every_trigger_finds() -> None:
    dice = random.Random(5)
    values: list[Any] = [1, 2, "x", "y", True, None]

    def pattern() -> dict[str, Any]:
        leaf = [dice.choice(values) for _ in range(dice.randrange(1, 3))]
        choices: list[dict[str, Any]] = [
            {"data": {"a": leaf}},
            {"data": {"b": {"c": leaf}}},
            {"data": {"a": leaf, "b": {"c": [dice.choice(values)]}}},
            {"data": {"a": [{"exists": False}]}},
            {"data": {"a": [{"anything-but": [1]}]}},
            {"$or": [{"data": {"a": leaf}}, {"data": {"a": ["x"]}, "source": ["s"]}]},
            {"$or": [{"data": {"a": leaf}}, {"source": ["s"]}]},
            {},
        ]
        return dice.choice(choices)

    def some_event() -> dict[str, Any]:
        def value() -> Any:
            return dice.choice([*values, [dice.choice(values), dice.choice(values)], {"c": dice.choice(values)}])

        data: Any = {name: value() for name in ("a", "b") if dice.random() < 0.8}
        return event(dice.choice(["t.a", "t.b", "u"]), dice.choice([data, data, [data, data], 5, None]), source="s")

    types = [(), ("t.a",), ("t.*",), ("u", "t.b"), ("u", "t.*"), ("*",)]
    rules = [
        rule(str(number), *chosen, pattern=pattern(), endpoint=dice.choice([None, "e"]) if chosen else "e")
        for number in range(300)
        if (chosen := dice.choice(types)) is not None
    ]
    index = TriggerIndex(rules)
    for _ in range(500):
        one, endpoint = some_event(), dice.choice([None, "e"])
        slow = {r.id for r in rules if r.endpoint_id in (None, endpoint) and r.why_not(one) is None}
        assert names(index, one, endpoint) == slow, one
