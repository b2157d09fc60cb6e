"""Matching a compiled pattern: closures over plain JSON values.

Every test answers one of three: NO, ABSENT (it holds, but only because something is not there) or YES.
The difference matters inside arrays. A pattern that asks for something is satisfied by one element that
satisfies all of it; a pattern that only asks for absence must hold for all elements. That is what
array-consistent matching in aws/event-ruler comes to (``ACFinder``, ``NameState``), made independent of
the order of the field names.

No recursion follows the event (nested arrays are walked with a stack; objects only as deep as the pattern
is), no text is searched by a backtracking matcher, and a budget bounds the elements visited.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from execution.patterns.tree import (
    AnythingBut,
    Cidr,
    Exact,
    Exists,
    IgnoreCase,
    Leaf,
    Matcher,
    Node,
    Numeric,
    Prefix,
    Suffix,
    Wildcard,
)

NO: Final = 0
ABSENT: Final = 1
YES: Final = 2

MISSING: Final = object()

MAX_VISITS: Final = 1_000_000
"""Units of work of one match, about 0.1 µs each: a value of an array costs one, an object in an array
as many as the pattern asks of it, a long text by its length where it is searched."""

_OBJECT_VISITS: Final = 4

_LONG_TEXT: Final = 1_024
_TEXT_PER_VISIT: Final = 32

TextTest = Callable[[str], bool]
NumberTest = Callable[[Any], bool]
LeafTest = Callable[[Any, list[int]], int]


class TooMuchWork(Exception):
    """The arrays of the event are too large for this pattern."""


# --- one value -------------------------------------------------------------------------------------


def glob(pieces: tuple[str, ...]) -> TextTest:
    """A test for a text with stars, as the literal pieces between them.

    The pieces are looked for from left to right, each at its first place after the one before: with two
    pointers and no way back, so the time is that of one pass.
    """
    first, *middle, last = pieces if len(pieces) > 1 else (pieces[0], "")
    if len(pieces) == 1:
        return first.__eq__
    middle = [piece for piece in middle if piece]
    least = len(first) + len(last) + sum(map(len, middle))

    def test(text: str) -> bool:
        if len(text) < least or not text.startswith(first) or not text.endswith(last):
            return False
        position, end = len(first), len(text) - len(last)
        for piece in middle:
            position = text.find(piece, position, end)
            if position < 0:
                return False
            position += len(piece)
        return True

    return test


def _folded(matchers: list[IgnoreCase | Prefix | Suffix]) -> TextTest:
    """All tests that ignore case, so that a text is folded once."""
    equal = frozenset(m.text for m in matchers if isinstance(m, IgnoreCase))
    starts = tuple(m.text for m in matchers if isinstance(m, Prefix))
    ends = tuple(m.text for m in matchers if isinstance(m, Suffix))

    def test(text: str) -> bool:
        folded = text.casefold()
        return folded in equal or folded.startswith(starts) or folded.endswith(ends)

    return test


def _in_blocks(blocks: list[Cidr]) -> TextTest:
    four = [(b.network, b.shift) for b in blocks if b.family == socket.AF_INET]
    six = [(b.network, b.shift) for b in blocks if b.family == socket.AF_INET6]
    parse, number = socket.inet_pton, int.from_bytes

    def test(text: str) -> bool:
        if not 2 <= len(text) <= 45:
            return False
        of_six = ":" in text
        try:
            packed = parse(socket.AF_INET6 if of_six else socket.AF_INET, text)
        except (OSError, ValueError):
            return False
        address = number(packed, "big")
        return any(address >> shift == network for network, shift in (six if of_six else four))

    return test


def _any_of(tests: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    if not tests:
        return _never
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        one, two = tests
        return lambda value: one(value) or two(value)

    def test(value: Any) -> bool:
        for each in tests:  # noqa: SIM110 - a generator costs twice as much here
            if each(value):
                return True
        return False

    return test


def _never(_: Any) -> bool:
    return False


def _always(_: Any) -> bool:
    return True


def _not(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: not test(value)


def text_test(matchers: tuple[Matcher, ...]) -> TextTest:
    """Whether a text satisfies one of the matchers; cheap tests first."""
    tests: list[TextTest] = []
    if any(m == Exists(True) for m in matchers):
        return _always
    exact = frozenset(m.value for m in matchers if isinstance(m, Exact) and isinstance(m.value, str))
    if exact:
        tests.append(exact.__contains__)
    starts = tuple(m.text for m in matchers if isinstance(m, Prefix) and not m.folded)
    if starts:
        tests.append(lambda text: text.startswith(starts))
    ends = tuple(m.text for m in matchers if isinstance(m, Suffix) and not m.folded)
    if ends:
        tests.append(lambda text: text.endswith(ends))
    tests.extend(_not(text_test(m.refused)) for m in matchers if isinstance(m, AnythingBut))
    blocks = [m for m in matchers if isinstance(m, Cidr)]
    if blocks:
        tests.append(_in_blocks(blocks))
    folded = [m for m in matchers if isinstance(m, IgnoreCase) or (isinstance(m, Prefix | Suffix) and m.folded)]
    if folded:
        tests.append(_folded(folded))
    tests.extend(glob(m.pieces) for m in matchers if isinstance(m, Wildcard))
    return _any_of(tests)


def number_test(matchers: tuple[Matcher, ...]) -> NumberTest:
    """Whether a number (not a boolean) satisfies one of the matchers."""
    tests: list[NumberTest] = []
    if any(m == Exists(True) for m in matchers):
        return _always
    exact = frozenset(m.value for m in matchers if isinstance(m, Exact) and _is_number(m.value))
    if exact:
        tests.append(exact.__contains__)
    tests.extend(_in_range(m) for m in matchers if isinstance(m, Numeric))
    tests.extend(_not(number_test(m.refused)) for m in matchers if isinstance(m, AnythingBut))
    return _any_of(tests)


def _in_range(r: Numeric) -> NumberTest:
    low, high = r.low, r.high
    if r.low_open and r.high_open:
        return lambda number: low < number < high
    if r.low_open:
        return lambda number: low < number <= high
    if r.high_open:
        return lambda number: low <= number < high
    return lambda number: low <= number <= high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _constant(matchers: tuple[Matcher, ...], value: bool | None) -> int:
    """Whether true, false or null satisfies one of the matchers. Each is only itself."""
    for m in matchers:
        if m == Exists(True) or isinstance(m, AnythingBut):
            return YES
        if isinstance(m, Exact) and m.value is value:
            return YES
    return NO


# --- one field -------------------------------------------------------------------------------------


def leaf_test(leaf: Leaf) -> LeafTest:
    """The test of a field on what stands at it (or ``MISSING``)."""
    text, number = text_test(leaf.matchers), number_test(leaf.matchers)
    on_true, on_false = _constant(leaf.matchers, True), _constant(leaf.matchers, False)
    on_null = _constant(leaf.matchers, None)
    absent = ABSENT if Exists(False) in leaf.matchers else NO
    searches = _cost(leaf) == 2

    def test(value: Any, visits: list[int]) -> int:
        kind = type(value)
        if kind is str:
            if searches and len(value) > _LONG_TEXT:
                charge(value, visits)
            return YES if text(value) else NO
        if kind is int or kind is float:
            return YES if number(value) else NO
        if kind is bool:
            return on_true if value else on_false
        if value is None:
            return on_null
        if kind is list:
            return scan(value, visits)
        return absent

    def charge(value: str, visits: list[int]) -> None:
        visits[0] -= len(value) // _TEXT_PER_VISIT
        if visits[0] < 0:
            raise TooMuchWork

    def scan(items: list[Any], visits: list[int]) -> int:
        leaf_seen = False
        stack = [items]
        while stack:
            items = stack.pop()
            visits[0] -= len(items)
            if visits[0] < 0:
                raise TooMuchWork
            for item in items:
                kind = type(item)
                if kind is str:
                    if searches and len(item) > _LONG_TEXT:
                        charge(item, visits)
                    if text(item):
                        return YES
                elif kind is int or kind is float:
                    if number(item):
                        return YES
                elif kind is bool:
                    if on_true if item else on_false:
                        return YES
                elif item is None:
                    if on_null:
                        return YES
                else:
                    if kind is list:
                        stack.append(item)
                    continue
                leaf_seen = True
        return NO if leaf_seen else absent

    return test


# --- objects ---------------------------------------------------------------------------------------


class ObjectTest:
    """The test of an object of the pattern on what stands at it."""

    __slots__ = ("_choices", "_leaf_keys", "_leaves", "_objects", "_visits", "holds_if_absent")

    def __init__(self, node: Node) -> None:
        # The cheapest tests, of exact values, come first: most events fail there.
        leaves = sorted(node.leaves, key=_cost)
        self._leaves = tuple((leaf.key, leaf_test(leaf)) for leaf in leaves)
        self._leaf_keys = tuple(leaf.key for leaf in leaves)
        self._objects = tuple((key, ObjectTest(child)) for key, child in node.children.items())
        self._choices = tuple(tuple(ObjectTest(branch) for branch in choice) for choice in node.choices)
        self._visits = _OBJECT_VISITS + len(leaves) + len(self._objects) + sum(map(len, self._choices))
        self.holds_if_absent: bool = (
            all(Exists(False) in leaf.matchers for leaf in node.leaves)
            and all(test.holds_if_absent for _, test in self._objects)
            and all(any(branch.holds_if_absent for branch in choice) for choice in self._choices)
        )

    def __call__(self, value: Any, visits: list[int]) -> int:
        """NO, ABSENT or YES for whatever JSON value stands at this object's place."""
        kind = type(value)
        if kind is dict:
            return self.on_object(value, visits)
        if kind is list:
            return self.on_array(value, visits)
        return ABSENT if self.holds_if_absent else NO

    def on_object(self, value: dict[str, Any], visits: list[int]) -> int:
        result = ABSENT
        get = value.get
        for key, leaf in self._leaves:
            one = leaf(get(key, MISSING), visits)
            if one != YES:
                if one == NO:
                    return NO
                continue
            result = YES
        for key, test in self._objects:
            one = test(get(key, MISSING), visits)
            if one == NO:
                return NO
            if one == YES:
                result = YES
        for choice in self._choices:
            best = NO
            for branch in choice:
                one = branch.on_object(value, visits)
                if one > best:
                    best = one
                    if one == YES:
                        break
            if best == NO:
                return NO
            if best == YES:
                result = YES
        return result

    def on_array(self, items: list[Any], visits: list[int]) -> int:
        for element in objects_in(items, visits, self._visits):
            if self.on_object(element, visits) == YES:
                return YES
        return ABSENT if self.holds_if_absent and self._is_absent([items], visits) else NO

    def _is_absent(self, values: Sequence[Any], visits: list[int]) -> bool:
        """Whether one alternative that asks only for absence holds over all of ``values`` at once."""
        if not self.holds_if_absent:
            return False
        elements = list(objects_in(values, visits, self._visits))
        for key in self._leaf_keys:
            if any(_has_leaf(element[key], visits) for element in elements if key in element):
                return False
        for key, test in self._objects:
            if not test._is_absent([element[key] for element in elements if key in element], visits):
                return False
        return all(any(branch._is_absent(elements, visits) for branch in choice) for choice in self._choices)


def objects_in(items: Sequence[Any], visits: list[int], each: int = 1) -> Iterator[dict[str, Any]]:
    """The objects in an array, those in arrays inside it included; every element costs ``each`` visits."""
    stack = [items]
    while stack:
        items = stack.pop()
        visits[0] -= len(items) * each
        if visits[0] < 0:
            raise TooMuchWork
        for item in items:
            kind = type(item)
            if kind is dict:
                yield item
            elif kind is list:
                stack.append(item)


def _has_leaf(value: Any, visits: list[int]) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is list:
            visits[0] -= len(item)
            if visits[0] < 0:
                raise TooMuchWork
            stack.extend(item)
        elif kind is not dict:
            return True
    return False


def _cost(leaf: Leaf) -> int:
    if all(isinstance(m, Exact) for m in leaf.matchers):
        return 0
    return 2 if any(_searches(m) for m in leaf.matchers) else 1


def _searches(m: Matcher) -> bool:
    """Whether the test reads the whole of a text."""
    if isinstance(m, AnythingBut):
        return any(_searches(refused) for refused in m.refused)
    return isinstance(m, Wildcard | IgnoreCase) or (isinstance(m, Prefix | Suffix) and m.folded)
