"""A slow, obvious matcher of event patterns, to compare the real one with.

It works as aws/event-ruler describes itself: the pattern is multiplied out into plain conjunctions of
(path, values), the event is flattened into leaves that remember which element of which array they came
from, and every combination of leaves is tried for one whose memberships do not contradict each other.
Nothing is shared with the real matcher, not even the reading of operators.
"""

from __future__ import annotations

import ipaddress
from fractions import Fraction
from typing import Any, NamedTuple

Path = tuple[str, ...]
Membership = dict[Path, int]


class Occurrence(NamedTuple):
    path: Path
    value: Any
    membership: Membership


def matches(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    leaves = flatten(event)
    return any(_conjunction(fields, leaves) for fields in multiply_out(pattern))


def multiply_out(pattern: dict[str, Any], path: Path = ()) -> list[list[tuple[Path, list[Any]]]]:
    results: list[list[tuple[Path, list[Any]]]] = [[]]
    for key, value in pattern.items():
        if key == "$or":
            ways = [way for branch in value for way in multiply_out(branch, path)]
        elif isinstance(value, dict):
            ways = multiply_out(value, (*path, key))
        else:
            ways = [[((*path, key), value)]]
        results = [result + way for result in results for way in ways]
    return results


def flatten(event: Any) -> list[Occurrence]:
    found: list[Occurrence] = []

    def walk(value: Any, path: Path, marks: tuple[tuple[Any, int], ...]) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, (*path, key), marks)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                walk(item, path, (*marks, ((path, id(value)), index)))
        else:
            # The arrays at the leaf's own path hold alternatives of one value, not elements to agree on.
            found.append(Occurrence(path, value, {k: i for k, i in marks if k[0] != path}))

    walk(event, (), ())
    return found


def _conjunction(fields: list[tuple[Path, list[Any]]], leaves: list[Occurrence]) -> bool:
    def search(index: int, membership: Membership, absent: list[Path]) -> bool:
        if index == len(fields):
            return not any(
                leaf.path == path and _agree(leaf.membership, membership) for path in absent for leaf in leaves
            )
        path, values = fields[index]
        for leaf in leaves:
            if (
                leaf.path == path
                and _agree(leaf.membership, membership)
                and any(accepts(value, leaf.value) for value in values)
                and search(index + 1, {**membership, **leaf.membership}, absent)
            ):
                return True
        may_be_absent = any(value == {"exists": False} for value in values)
        return may_be_absent and search(index + 1, membership, [*absent, path])

    return search(0, {}, [])


def _agree(one: Membership, two: Membership) -> bool:
    return all(two.get(key, index) == index for key, index in one.items())


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _equal(one: Any, two: Any) -> bool:
    if _kind(one) != _kind(two):
        return False
    return Fraction(one) == Fraction(two) if _kind(one) == "number" else one == two


def accepts(wanted: Any, value: Any) -> bool:
    if not isinstance(wanted, dict):
        return _equal(wanted, value)
    ((operator, operand),) = wanted.items()
    if operator == "exists":
        return operand is True
    if operator == "anything-but":
        if isinstance(operand, dict):
            ((inner, texts),) = operand.items()
            listed = texts if isinstance(texts, list) else [texts]
            return not any(accepts({inner: text}, value) for text in listed)
        listed = operand if isinstance(operand, list) else [operand]
        return not any(_equal(item, value) for item in listed)
    if operator == "numeric":
        return _kind(value) == "number" and all(
            _compare(Fraction(value), sign, Fraction(bound))
            for sign, bound in zip(operand[::2], operand[1::2], strict=True)
        )
    if not isinstance(value, str):
        return False
    if isinstance(operand, dict):
        operand, value = operand["equals-ignore-case"].casefold(), value.casefold()
    if operator == "exactly":
        return value == operand
    if operator == "prefix":
        return value[: len(operand)] == operand
    if operator == "suffix":
        return len(value) >= len(operand) and value[len(value) - len(operand) :] == operand
    if operator == "equals-ignore-case":
        return value.casefold() == operand.casefold()
    if operator == "cidr":
        try:
            return "%" not in value and ipaddress.ip_address(value) in ipaddress.ip_network(operand, strict=False)
        except ValueError:
            return False
    if operator == "wildcard":
        return _wildcard(_tokens(operand), value)
    raise AssertionError(operator)


def _compare(left: Fraction, sign: str, right: Fraction) -> bool:
    return {
        "=": left == right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[sign]


def _tokens(pattern: str) -> list[str | None]:
    tokens: list[str | None] = []
    chars = iter(pattern)
    for char in chars:
        if char == "*":
            tokens.append(None)
        else:
            tokens.append(next(chars) if char == "\\" else char)
    return tokens


def _wildcard(tokens: list[str | None], text: str) -> bool:
    if not tokens:
        return not text
    head, rest = tokens[0], tokens[1:]
    if head is None:
        return any(_wildcard(rest, text[i:]) for i in range(len(text) + 1))
    return bool(text) and text[0] == head and _wildcard(rest, text[1:])
