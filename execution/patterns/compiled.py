"""Event patterns: which events a trigger wants, and when a step's ``when`` holds.

The language of Amazon EventBridge, complete, with array-consistent matching as in aws/event-ruler:

>>> pattern = compile({"source": ["shop"], "detail": {"total": [{"numeric": [">", 100]}]}})
>>> pattern.matches({"source": "shop", "detail": {"total": 250}})
True
>>> print(pattern.explain({"source": "shop", "detail": {"total": 5}}))
$.detail.total: expected {"numeric": [">", 100]}, got 5

Pure: no clock, no database, no regular expressions. See ``docs/reference/patterns.md``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from execution import json_path
from execution.patterns.matching import (
    MAX_VISITS,
    MISSING,
    NO,
    YES,
    LeafTest,
    ObjectTest,
    TooMuchWork,
    leaf_test,
    objects_in,
)
from execution.patterns.reading import read_pattern
from execution.patterns.tree import Exact, Leaf, Node

IndexKey = str | int | float | tuple[bool] | None
"""A JSON scalar as a dictionary key: 1 and 1.0 are one key, true is another."""

_MAX_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first field that kept an event from matching.

    ``path`` is a JSON path into the event, ``expected`` what the pattern wants there, ``got`` what stands
    there as short JSON text, or ``nothing``.
    """

    path: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True, slots=True)
class ExactRequirement:
    """An event can only match if one of ``values`` stands at ``path`` (keys from the root)."""

    path: tuple[str, ...]
    values: frozenset[IndexKey]


class CompiledPattern:
    """A pattern ready to match. Immutable; may be shared between threads."""

    __slots__ = ("_node", "_test", "source")

    def __init__(self, source: Mapping[str, Any] | str, node: Node) -> None:
        self.source = source
        self._node = node
        self._test = ObjectTest(node).on_object

    def __repr__(self) -> str:
        return f"CompiledPattern({_short(self.source)})"

    def matches(self, event: dict[str, Any]) -> bool:
        """Whether the event (parsed JSON) matches. Never raises on JSON values.

        False also for what is not an object, and for an event whose arrays are so large that the match
        would look at more than a million elements; :meth:`explain` then says so.
        """
        if type(event) is not dict:
            return False
        try:
            return self._test(event, [MAX_VISITS]) != NO
        except TooMuchWork:
            return False

    def explain(self, event: dict[str, Any]) -> Mismatch | None:
        """None if the event matches, else the first field, in the pattern's order, that failed."""
        if type(event) is not dict:
            return Mismatch(json_path.ROOT, "an object", _short(event))
        visits = [MAX_VISITS]
        try:
            if self._test(event, visits) != NO:
                return None
            return _explain_object(self._node, event, json_path.ROOT, visits)
        except TooMuchWork:
            return Mismatch(json_path.ROOT, "arrays and texts small enough to compare", "larger ones")

    def exact_requirements(self) -> tuple[ExactRequirement, ...]:
        """Conditions without which no event matches, for an index of patterns by exact value.

        Each of them alone is necessary; none is sufficient. A pattern may have none. A path that every
        branch of a ``$or`` demands is included, with the values of all branches.
        """
        found = _requirements(self._node, ())
        return tuple(ExactRequirement(path, values) for path, values in found.items())


def compile(pattern: Mapping[str, Any] | str) -> CompiledPattern:
    """Compile a pattern given as a mapping or as JSON text.

    Raises :class:`PatternError` (a ``ValueError``) with the JSON path and the rule that was broken.
    """
    node = read_pattern(pattern)
    return CompiledPattern(pattern, node)


def index_key(value: str | float | bool | None) -> IndexKey:
    """The dictionary key of a JSON scalar, under which equal values meet.

    >>> index_key(300) == index_key(3.0e2), index_key(1) == index_key(True)
    (True, False)
    """
    return (value,) if isinstance(value, bool) else value


def index_keys_at(event: Mapping[str, Any], path: tuple[str, ...]) -> set[IndexKey]:
    """The keys of all leaf values of an event at a path, looking through arrays as matching does.

    A pattern whose requirement at ``path`` shares no key with this set cannot match the event.
    """
    values: list[Any] = [event]
    for name in path:
        values = [item[name] for item in objects_in(values, [sys.maxsize]) if name in item]
    return {index_key(value) for value in _leaves(values)}


def _leaves(values: list[Any]) -> Iterator[Any]:
    stack: list[Any] = list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif not isinstance(value, dict):
            yield value


def _requirements(node: Node, path: tuple[str, ...]) -> dict[tuple[str, ...], frozenset[IndexKey]]:
    found: dict[tuple[str, ...], frozenset[IndexKey]] = {}
    for leaf in node.leaves:
        exact = [m.value for m in leaf.matchers if isinstance(m, Exact)]
        if len(exact) == len(leaf.matchers):
            found.setdefault((*path, leaf.key), frozenset(map(index_key, exact)))
    for key, child in node.children.items():
        found.update(_requirements(child, (*path, key)))
    for choice in node.choices:
        branches = [_requirements(branch, path) for branch in choice]
        for place in branches[0]:
            if place not in found and all(place in branch for branch in branches):
                found[place] = frozenset().union(*(branch[place] for branch in branches))
    return found


# --- why not ---------------------------------------------------------------------------------------


def _explain_object(node: Node, event: Any, path: str, visits: list[int]) -> Mismatch:
    """What fails in ``event``, an object or nothing at all, which is known not to match."""
    value = event if isinstance(event, dict) else {}
    for leaf in node.leaves:
        got = value.get(leaf.key, MISSING)
        if leaf_test(leaf)(got, visits) == NO:
            return Mismatch(json_path.child(path, leaf.key), leaf.described, _short(got))
    for key, child in node.children.items():
        got = value.get(key, MISSING)
        if ObjectTest(child)(got, visits) == NO:
            below = json_path.child(path, key)
            if isinstance(got, list):
                return _explain_array(child, got, below, visits)
            return _explain_object(child, got, below, visits)
    for choice in node.choices:
        if all(ObjectTest(branch).on_object(value, visits) == NO for branch in choice):
            failures = [str(_explain_object(branch, value, path, visits)) for branch in choice[:4]]
            more = "; …" if len(choice) > 4 else ""
            return Mismatch(
                json_path.child(path, "$or"),
                f"one of {len(choice)} alternatives",
                f"none ({'; '.join(failures)}{more})",
            )
    return Mismatch(path, "a match", _short(event))  # pragma: no cover - something has failed above


def _explain_array(node: Node, items: list[Any], path: str, visits: list[int]) -> Mismatch:
    elements = list(objects_in(items, visits))
    if len(items) == 1 and len(elements) == 1 and items[0] is elements[0]:
        return _explain_object(node, elements[0], json_path.child(path, 0), visits)
    for leaf in node.leaves:
        test: LeafTest = leaf_test(leaf)
        answers = {test(element.get(leaf.key, MISSING), visits) for element in elements}
        if YES not in answers and (NO in answers or not elements):
            return Mismatch(f"{path}[*].{leaf.key}", leaf.described, _values_shown(elements, leaf))
    wanted = ", ".join([leaf.key for leaf in node.leaves] + list(node.children)) or "one alternative"
    return Mismatch(path, f"one element that matches all of: {wanted}", f"{len(elements)} that do not")


def _values_shown(elements: list[dict[str, Any]], leaf: Leaf) -> str:
    shown = [_short(element.get(leaf.key, MISSING)) for element in elements[:5]]
    more = f" and {len(elements) - 5} more" if len(elements) > 5 else ""
    return (", ".join(shown) or "no object") + more


def _short(value: Any) -> str:
    if value is MISSING:
        return "nothing"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        if len(value) <= 5 and not any(isinstance(item, dict | list) for item in value):
            return "[" + ", ".join(_short(item) for item in value) + "]"
        return f"an array of {len(value)}"
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        value = value[:_MAX_SHOWN] + "…"
    return json.dumps(value, ensure_ascii=False, default=repr)[: 2 * _MAX_SHOWN]
