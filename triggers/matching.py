"""Which of many rules an event satisfies, without looking at most of them. Pure.

Rules stand in a trie of the paths they demand an exact value at: each under its rarest one, counted over all
rules of its endpoint. An event walks the trie once, through its own members only, and meets the few rules that
could match; their patterns then decide.

>>> rule = Rule("r1", None, ("order.*",), patterns.compile({"data": {"shop": ["berlin"]}}))
>>> index = TriggerIndex([rule])
>>> [r.id for r in index.match({"type": "order.paid", "data": {"shop": "berlin"}}, None)]
['r1']
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from execution.patterns import CompiledPattern, IndexKey, index_key

PREFIX_SIGN: Final = "*"
_TYPE: Final = ("type",)

_Place = tuple[tuple[str, ...] | str, IndexKey]
"""(path, value) of an exact value, or (prefix, None) of a type's beginning."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """What must hold for an event: its endpoint, one of its types (``*`` at the end: a prefix), its pattern."""

    id: Hashable
    endpoint_id: Hashable | None
    types: tuple[str, ...]
    pattern: CompiledPattern
    value: Any = None

    def wants_type(self, name: str) -> bool:
        """Whether the type is one of those asked for; without any, every type is."""
        return not self.types or any(type_fits(wanted, name) for wanted in self.types)

    def why_not(self, document: dict[str, Any]) -> str | None:
        """The first field that keeps the event from matching, None if it matches."""
        if not self.wants_type(document["type"]):
            return f"$.type: expected {' or '.join(self.types)}, got {document['type']}"
        mismatch = self.pattern.explain(document)
        return None if mismatch is None else str(mismatch)


def type_fits(wanted: str, name: str) -> bool:
    """Whether a type is the wanted one, or begins with it where it ends in ``*``.

    >>> type_fits("order.*", "order.paid"), type_fits("order", "order.paid")
    (True, False)
    """
    return name.startswith(wanted[:-1]) if wanted.endswith(PREFIX_SIGN) else name == wanted


class TriggerIndex:
    """Rules by endpoint, then by their rarest exact value. Immutable; may be shared between threads."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        by_endpoint: dict[Hashable | None, list[Rule]] = {}
        for rule in rules:
            by_endpoint.setdefault(rule.endpoint_id, []).append(rule)
        self._buckets = {endpoint: _Bucket(found) for endpoint, found in by_endpoint.items()}

    def __len__(self) -> int:
        return sum(len(bucket.rules) for bucket in self._buckets.values())

    def candidates(self, document: Mapping[str, Any], endpoint_id: Hashable | None) -> list[Rule]:
        """The rules that the index cannot rule out, for an event that came to this endpoint (None: to none)."""
        found: dict[Rule, None] = {}
        for endpoint in {endpoint_id, None}:
            bucket = self._buckets.get(endpoint)
            if bucket is not None:
                bucket.collect(document, found)
        return list(found)

    def match(self, document: dict[str, Any], endpoint_id: Hashable | None) -> list[Rule]:
        """The rules that the event satisfies."""
        name = document["type"]
        return [
            rule
            for rule in self.candidates(document, endpoint_id)
            if rule.wants_type(name) and rule.pattern.matches(document)
        ]

    def misses(
        self, document: dict[str, Any], endpoint_id: Hashable | None, *, matched: Iterable[Rule], limit: int
    ) -> list[tuple[Rule, str]]:
        """Rules of this endpoint, or for this type, that did not match, each with the first field that failed."""
        done = set(matched)
        found: list[tuple[Rule, str]] = []
        for endpoint in (endpoint_id, None) if endpoint_id is not None else (None,):
            bucket = self._buckets.get(endpoint)
            for rule in bucket.rules if bucket is not None else ():
                if len(found) >= limit:
                    return found
                if rule in done or (endpoint is None and not rule.wants_type(document["type"])):
                    continue
                reason = rule.why_not(document)
                if reason is not None:
                    found.append((rule, reason))
        return found


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    rules: dict[IndexKey, list[Rule]] = field(default_factory=dict)

    def below(self, path: tuple[str, ...]) -> _Node:
        node = self
        for name in path:
            node = node.children.setdefault(name, _Node())
        return node


class _Bucket:
    """The rules of one endpoint, or of none."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self._root = _Node()
        self._prefixes: dict[str, list[Rule]] = {}
        self._anywhere: list[Rule] = []
        options = [_options(rule) for rule in rules]
        popularity = Counter(place for choice in options for places in choice for place in places)
        for rule, choice in zip(rules, options, strict=True):
            if not choice:
                self._anywhere.append(rule)
                continue
            for where, value in min(choice, key=lambda places: sum(popularity[place] for place in places)):
                if isinstance(where, str):
                    self._prefixes.setdefault(where, []).append(rule)
                else:
                    self._root.below(where).rules.setdefault(value, []).append(rule)
        self._prefix_lengths = sorted({len(prefix) for prefix in self._prefixes})

    def collect(self, document: Mapping[str, Any], found: dict[Rule, None]) -> None:
        found.update(dict.fromkeys(self._anywhere))
        name = document["type"]
        for length in self._prefix_lengths:
            if length > len(name):
                break
            found.update(dict.fromkeys(self._prefixes.get(name[:length], ())))
        stack: list[tuple[_Node, Any]] = [(self._root, document)]
        while stack:
            node, value = stack.pop()
            if isinstance(value, dict):
                children = node.children
                # Through the smaller of the two, so that neither wide events nor many paths make it slow.
                names = value if len(value) < len(children) else children
                stack.extend((children[name], value[name]) for name in names if name in children and name in value)
            elif isinstance(value, list):
                stack.extend((node, item) for item in value)
            elif node.rules:
                found.update(dict.fromkeys(node.rules.get(index_key(value), ())))


def _options(rule: Rule) -> list[list[_Place]]:
    """The ways to file a rule; each is a set of places, one of which every matching event must touch."""
    choices: list[list[_Place]] = [
        [(requirement.path, value) for value in requirement.values] for requirement in rule.pattern.exact_requirements()
    ]
    if rule.types:
        choices.append([(name[:-1], None) if name.endswith(PREFIX_SIGN) else (_TYPE, name) for name in rule.types])
    return choices
