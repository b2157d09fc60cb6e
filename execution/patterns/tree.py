"""What a checked event pattern is: a tree of objects and fields, and what their values may be compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Scalar = str | int | float | bool | None


class PatternError(ValueError):
    """A pattern that is not valid: ``path`` says where, ``rule`` which rule (a stable word), ``reason`` why."""

    def __init__(self, path: str, rule: str, reason: str) -> None:
        super().__init__(f"{path}: {reason} [{rule}]")
        self.path = path
        self.rule = rule
        self.reason = reason


# --- what a value may be compared with -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exact:
    """Equal by JSON value: 300 is 300.0, true is not 1, null is not ""."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Prefix:
    """Starts with the text; ``folded`` ignores case (the text is casefolded already)."""

    text: str
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Suffix:
    """Ends with the text; ``folded`` ignores case."""

    text: str
    folded: bool = False


@dataclass(frozen=True, slots=True)
class IgnoreCase:
    """Equal under Unicode case folding; the text is casefolded already."""

    text: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """``*`` stands for any run of characters. ``pieces`` are the literal texts between the stars."""

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Numeric:
    """A range of JSON numbers; a missing bound is infinite."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False


@dataclass(frozen=True, slots=True)
class Cidr:
    """A text that is an IP address of the block."""

    family: int
    network: int
    shift: int


@dataclass(frozen=True, slots=True)
class Exists:
    """A leaf is there (true), or no leaf is there (false)."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class AnythingBut:
    """Any leaf that none of ``refused`` accepts; the field has to be there."""

    refused: tuple[Exact | Prefix | Suffix | IgnoreCase | Wildcard, ...]


Matcher = Exact | Prefix | Suffix | IgnoreCase | Wildcard | Numeric | Cidr | Exists | AnythingBut

# --- the tree --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field of which one value must satisfy one of the matchers."""

    key: str
    path: str
    matchers: tuple[Matcher, ...]
    described: str


@dataclass(slots=True)
class Node:
    """An object: every entry must hold. ``path`` is a JSON path into the event."""

    path: str
    leaves: list[Leaf] = field(default_factory=list)
    children: dict[str, Node] = field(default_factory=dict)
    choices: list[list[Node]] = field(default_factory=list)
