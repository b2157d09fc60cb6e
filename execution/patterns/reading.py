"""Reading an event pattern: JSON in, a checked tree out, or an error that names the place and the rule.

The language is that of Amazon EventBridge as aws/event-ruler defines it (README and JsonRuleCompiler),
read strictly: what the ruler refuses is refused here. Wider than the ruler only where its limits come
from its automaton: numbers of any size, and ``cidr`` up to /32 and /128.

The tree is normalised so that matching can walk it: when a ``$or`` branch and its surroundings both look
into the same object, the branch is merged with them (the ruler multiplies out every ``$or``), because
fields of one array element must be matched together.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from execution import json_path
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
    PatternError,
    Prefix,
    Suffix,
    Wildcard,
)

MAX_DEPTH: Final = 20
MAX_FIELDS: Final = 1_000
"""Fields of the pattern after merging ``$or`` branches, so that a product of branches counts in full."""
MAX_VALUES: Final = 2_000
MAX_OR_BRANCHES: Final = 64
MAX_STARS: Final = 64
MAX_FOLDED: Final = 256
MAX_TEXT: Final = 65_536
"""Characters of all keys and strings of a pattern together."""

OR: Final = "$or"
RESERVED_IN_OR: Final = frozenset(
    {"exactly", "equals-ignore-case", "prefix", "suffix", "anything-but", "exists", "wildcard", "numeric"}
    | {"cidr", "=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case", "date-after"}
    | {"date-on-or-after", "date-before", "date-on-or-before", "in-date-range", "ip-address-in-range"}
    | {"ip-address-not-in-range"}
)


def read_pattern(pattern: Mapping[str, Any] | str) -> Node:
    """The tree of a pattern given as a mapping or as JSON text. Raises :class:`PatternError`."""
    source = _from_text(pattern) if isinstance(pattern, str) else pattern
    if not isinstance(source, Mapping):
        raise PatternError(json_path.ROOT, "object", "a pattern must be an object")
    reader = _Reader()
    node = reader.read_object(source, json_path.ROOT, json_path.ROOT, 1, in_or=False)
    return _Merger().normalise(node)


def _from_text(text: str) -> Any:
    if len(text) > 4 * MAX_TEXT:
        raise PatternError(json_path.ROOT, "size", f"the pattern is longer than {4 * MAX_TEXT} characters")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise PatternError(json_path.ROOT, "duplicate-key", "an object has the same key twice")
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except PatternError:
        raise
    except RecursionError:
        raise PatternError(json_path.ROOT, "depth", "nested too deeply") from None
    except ValueError as error:
        raise PatternError(json_path.ROOT, "json", f"not JSON: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Reader:
    """One reading: keeps the counts that the caps are about."""

    def __init__(self) -> None:
        self.values = self.branches = self.stars = self.text = self.folded = 0

    # objects

    def read_object(self, source: Mapping[Any, Any], place: str, path: str, depth: int, *, in_or: bool) -> Node:
        """``place`` is where in the pattern, for errors; ``path`` where in the event it looks."""
        if depth > MAX_DEPTH:
            raise PatternError(place, "depth", f"nested deeper than {MAX_DEPTH}")
        if not source:
            raise PatternError(place, "empty-object", "an empty object matches nothing; name a field")
        node = Node(path)
        for key, value in source.items():
            if not isinstance(key, str):
                raise PatternError(place, "key", f"the key {key!r:.40} is not a string")
            self._count_text(key, place)
            here = json_path.child(place, key)
            if key == OR:
                node.choices.append(self._read_or(value, here, path, depth))
            elif in_or and key in RESERVED_IN_OR:
                raise PatternError(here, "or-reserved", f"{key} is an operator and cannot be a field inside {OR}")
            elif isinstance(value, Mapping):
                node.children[key] = self.read_object(value, here, json_path.child(path, key), depth + 1, in_or=in_or)
            elif isinstance(value, list | tuple):
                node.leaves.append(self._read_leaf(key, value, here, json_path.child(path, key)))
            else:
                raise PatternError(
                    here, "field", "must be an array of values or an object (write [value] for one value)"
                )
        return node

    def _read_or(self, value: object, place: str, path: str, depth: int) -> list[Node]:
        if not isinstance(value, list | tuple) or len(value) < 2:
            raise PatternError(place, "or", f"{OR} must be an array of at least two objects")
        self.branches += len(value)
        if self.branches > MAX_OR_BRANCHES:
            raise PatternError(place, "or-branches", f"more than {MAX_OR_BRANCHES} {OR} branches")
        nodes = []
        for index, branch in enumerate(value):
            here = json_path.child(place, index)
            if not isinstance(branch, Mapping):
                raise PatternError(here, "or", f"a branch of {OR} must be an object")
            nodes.append(self.read_object(branch, here, path, depth + 1, in_or=True))
        return nodes

    def _read_leaf(self, key: str, values: Iterable[Any], place: str, path: str) -> Leaf:
        matchers = []
        described = []
        for index, value in enumerate(values):
            self._count_value(place)
            matchers.append(self._read_value(value, json_path.child(place, index)))
            if index < 8:
                described.append(_shown(value))
        if not matchers:
            raise PatternError(place, "empty-array", "an empty array matches nothing")
        if len(matchers) > len(described):
            described.append(f"{len(matchers) - len(described)} more")
        return Leaf(key, path, tuple(matchers), " or ".join(described))

    # values

    def _read_value(self, value: Any, place: str) -> Matcher:
        if isinstance(value, Mapping):
            return self._read_operator(value, place)
        if value is None or isinstance(value, bool):
            return Exact(value)
        if isinstance(value, str):
            return Exact(self._count_text(value, place))
        if _is_number(value):
            return Exact(self._number(value, place))
        raise PatternError(place, "value", "must be a string, a number, true, false, null or an operator object")

    def _read_operator(self, source: Mapping[Any, Any], place: str) -> Matcher:
        operator, value, here = self._single(source, place)
        readers: dict[str, Callable[[Any, str], Matcher]] = {
            "exactly": lambda value, here: Exact(self._text(value, here)),
            "prefix": self._prefix,
            "suffix": self._suffix,
            "equals-ignore-case": lambda value, here: IgnoreCase(self._fold(self._text(value, here), here)),
            "wildcard": self._wildcard,
            "anything-but": self._anything_but,
            "numeric": self._numeric,
            "exists": self._exists,
            "cidr": self._cidr,
        }
        reader = readers.get(operator)
        if reader is None:
            known = ", ".join(readers)
            raise PatternError(here, "operator", f"unknown operator {operator!r:.40} (known: {known})")
        return reader(value, here)

    def _single(self, source: Mapping[Any, Any], place: str) -> tuple[str, Any, str]:
        if len(source) != 1:
            raise PatternError(place, "one-operator", "an operator object must have exactly one key")
        ((operator, value),) = source.items()
        if not isinstance(operator, str):
            raise PatternError(place, "key", f"the key {operator!r:.40} is not a string")
        return operator, value, json_path.child(place, operator)

    def _prefix(self, value: Any, place: str) -> Prefix:
        if isinstance(value, Mapping):
            return Prefix(self._nested_ignore_case(value, place), folded=True)
        return Prefix(self._text(value, place))

    def _suffix(self, value: Any, place: str) -> Suffix:
        if isinstance(value, Mapping):
            return Suffix(self._nested_ignore_case(value, place), folded=True)
        return Suffix(self._text(value, place))

    def _nested_ignore_case(self, source: Mapping[Any, Any], place: str) -> str:
        operator, value, here = self._single(source, place)
        if operator != "equals-ignore-case":
            raise PatternError(here, "operator", "only equals-ignore-case may stand here")
        return self._fold(self._text(value, here), here)

    def _wildcard(self, value: Any, place: str) -> Wildcard:
        text = self._text(value, place)
        pieces, piece, index = [], "", 0
        while index < len(text):
            char = text[index]
            if char == "\\":
                index += 1
                if text[index : index + 1] not in ("*", "\\"):
                    raise PatternError(
                        place, "wildcard-escape", f"a backslash may only escape * or \\ (at {index - 1})"
                    )
                piece += text[index]
            elif char == "*":
                if text[index + 1 : index + 2] == "*":
                    raise PatternError(place, "wildcard-stars", f"two stars in a row (at {index})")
                pieces.append(piece)
                piece = ""
                self.stars += 1
                if self.stars > MAX_STARS:
                    raise PatternError(place, "stars", f"more than {MAX_STARS} stars in the pattern")
            else:
                piece += char
            index += 1
        return Wildcard((*pieces, piece))

    def _anything_but(self, value: Any, place: str) -> AnythingBut:
        if isinstance(value, Mapping):
            operator, inner, here = self._single(value, place)
            return AnythingBut(tuple(self._refused_by(operator, inner, here)))
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise PatternError(place, "anything-but", "an empty list refuses nothing")
        if len(values) > 1:
            self._count_value(place, len(values))
        if not all(isinstance(item, str) for item in values) and not all(_is_number(item) for item in values):
            raise PatternError(place, "anything-but", "must be strings only or numbers only")
        return AnythingBut(
            tuple(
                Exact(self._count_text(item, place) if isinstance(item, str) else self._number(item, place))
                for item in values
            )
        )

    def _refused_by(self, operator: str, value: Any, place: str) -> Iterable[Prefix | Suffix | IgnoreCase | Wildcard]:
        texts = value if isinstance(value, list | tuple) else [value]
        if not texts:
            raise PatternError(place, "anything-but", "an empty list refuses nothing")
        self._count_value(place, len(texts))
        for item in texts:
            text = self._text(item, place)
            if operator in ("prefix", "suffix"):
                if not text:
                    raise PatternError(place, "anything-but", f"an empty {operator} would refuse every text")
                yield Prefix(text) if operator == "prefix" else Suffix(text)
            elif operator == "equals-ignore-case":
                yield IgnoreCase(self._fold(text, place))
            elif operator == "wildcard":
                self.text -= len(text)
                yield self._wildcard(text, place)
            else:
                raise PatternError(
                    place, "operator", "anything-but takes prefix, suffix, equals-ignore-case or wildcard"
                )

    def _numeric(self, value: Any, place: str) -> Exact | Numeric:
        if not isinstance(value, list | tuple) or len(value) not in (2, 4):
            raise PatternError(place, "numeric", "must be [operator, number] or [low, number, high, number]")
        operator = value[0]
        number = self._number(value[1], json_path.child(place, 1))
        if len(value) == 2:
            if operator == "=":
                return Exact(number)
            if operator in (">", ">="):
                return Numeric(low=number, low_open=operator == ">")
            if operator in ("<", "<="):
                return Numeric(high=number, high_open=operator == "<")
            raise PatternError(place, "numeric", f"unknown operator {operator!r:.40} (known: = < <= > >=)")
        if operator not in (">", ">=") or value[2] not in ("<", "<="):
            raise PatternError(place, "numeric", "a range is > or >= with a number, then < or <= with another")
        high = self._number(value[3], json_path.child(place, 3))
        if number >= high:
            raise PatternError(place, "numeric-range", f"the lower bound {number} must be below {high}")
        return Numeric(number, high, operator == ">", value[2] == "<")

    def _exists(self, value: Any, place: str) -> Exists:
        if not isinstance(value, bool):
            raise PatternError(place, "exists", "must be true or false")
        return Exists(value)

    def _cidr(self, value: Any, place: str) -> Cidr:
        text = self._text(value, place)
        address, slash, bits = text.partition("/")
        parsed = parse_address(address)
        if not slash or parsed is None:
            raise PatternError(place, "cidr", f"{text!r:.60} is not an address block such as 10.0.0.0/8")
        family, number = parsed
        width = 32 if family == socket.AF_INET else 128
        if not (bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) <= width):
            raise PatternError(place, "cidr", f"the mask must be between 0 and {width}")
        shift = width - int(bits)
        return Cidr(family, number >> shift, shift)

    # parts

    def _text(self, value: Any, place: str) -> str:
        if not isinstance(value, str):
            raise PatternError(place, "string", "must be a string")
        return self._count_text(value, place)

    def _number(self, value: Any, place: str) -> int | float:
        if not _is_number(value) or (isinstance(value, float) and not math.isfinite(value)):
            raise PatternError(place, "number", "must be a finite number")
        number: int | float = value
        if isinstance(number, int) and number.bit_length() > 1024:
            raise PatternError(place, "number", "the number is too large")
        return number

    def _fold(self, text: str, place: str) -> str:
        self.folded += 1
        if self.folded > MAX_FOLDED:
            raise PatternError(place, "size", f"more than {MAX_FOLDED} texts that ignore case")
        return text.casefold()

    def _count_text(self, text: str, place: str) -> str:
        self.text += len(text)
        if self.text > MAX_TEXT:
            raise PatternError(place, "size", f"more than {MAX_TEXT} characters in the pattern")
        return text

    def _count_value(self, place: str, count: int = 1) -> None:
        self.values += count
        if self.values > MAX_VALUES:
            raise PatternError(place, "size", f"more than {MAX_VALUES} values in the pattern")


def parse_address(text: str) -> tuple[int, int] | None:
    """The family and the number of an IP address in its plain notation, or None."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return family, int.from_bytes(socket.inet_pton(family, text), "big")
    except (OSError, ValueError):
        return None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:100] + "…"


class _Merger:
    """Multiplies a ``$or`` out where it shares an object with its surroundings, and counts the result."""

    def __init__(self) -> None:
        self.fields = 0

    def normalise(self, node: Node) -> Node:
        taken = set(node.children)
        apart: list[list[Node]] = []
        shared: list[list[Node]] = []
        for choice in node.choices:
            keys = set().union(*(_object_keys(branch) for branch in choice))
            (shared if keys & taken else apart).append(choice)
            taken |= keys
        if not shared:
            return self._descend(node)
        # A group may share with another that came before it: multiply them all with the base.
        products = [replace(node, choices=[])]
        for choice in [*apart, *shared]:
            products = [self._merge(product, branch) for product in products for branch in choice]
        return Node(node.path, choices=[[self.normalise(product) for product in products]])

    def _descend(self, node: Node) -> Node:
        self._count(len(node.leaves) + len(node.children), node.path)
        leaf_keys = {leaf.key for leaf in node.leaves}
        for choice in node.choices:
            for branch in choice:
                self._refuse_both_kinds(leaf_keys, _object_keys(branch), node.path)
                self._refuse_both_kinds(_leaf_keys(branch), set(node.children), node.path)
        return Node(
            node.path,
            node.leaves,
            {key: self.normalise(child) for key, child in node.children.items()},
            [[self.normalise(branch) for branch in choice] for choice in node.choices],
        )

    def _merge(self, one: Node, two: Node) -> Node:
        self._refuse_both_kinds({leaf.key for leaf in one.leaves}, set(two.children), one.path)
        self._refuse_both_kinds({leaf.key for leaf in two.leaves}, set(one.children), one.path)
        self._count(len(one.leaves) + len(two.leaves) + 1, one.path)
        children = dict(one.children)
        for key, child in two.children.items():
            children[key] = self._merge(children[key], child) if key in children else child
        return Node(one.path, one.leaves + two.leaves, children, one.choices + two.choices)

    def _count(self, fields: int, path: str) -> None:
        self.fields += fields
        if self.fields > MAX_FIELDS:
            raise PatternError(path, "fields", f"more than {MAX_FIELDS} fields ({OR} branches multiplied out)")

    @staticmethod
    def _refuse_both_kinds(leaves: set[str], objects: set[str], path: str) -> None:
        for key in sorted(leaves & objects):
            raise PatternError(json_path.child(path, key), "both-kinds", "is matched both as a value and as an object")


def _object_keys(node: Node) -> set[str]:
    keys = set(node.children)
    for choice in node.choices:
        for branch in choice:
            keys |= _object_keys(branch)
    return keys


def _leaf_keys(node: Node) -> set[str]:
    keys = {leaf.key for leaf in node.leaves}
    for choice in node.choices:
        for branch in choice:
            keys |= _leaf_keys(branch)
    return keys
