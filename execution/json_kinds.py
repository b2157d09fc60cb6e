"""Which kinds of JSON value something can be or takes: a literal, a JSON Schema, a Python annotation. Pure.

Only what is certain counts: an annotation or schema that says nothing plain takes everything, and two things disagree
only when no value could be both. A definition that could work is never refused.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Union

#: The names of JSON Schema (2020-12). ``number`` is what may have a fraction; every integer is a number.
Kinds = frozenset[str]
EVERY: Final[Kinds] = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})

_SCALARS: Final[dict[Any, Kinds]] = {
    None: frozenset({"null"}),
    type(None): frozenset({"null"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer"}),
    float: frozenset({"integer", "number"}),
    str: frozenset({"string"}),
}
_ARRAYS: Final = frozenset({list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.MutableSequence})
_OBJECTS: Final = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})
_ITERABLES: Final = frozenset({collections.abc.Iterable, collections.abc.Collection})
_UNIONS: Final = (Union, types.UnionType)


def kind_of(value: Any) -> str:
    """The kind of a JSON value.

    >>> [kind_of(value) for value in (None, True, 3, 3.5, "x", [], {})]
    ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object']
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def of_annotation(annotation: Any) -> Kinds:
    """What a parameter with this annotation takes, or a function that returns it gives; `EVERY` where it is not plain.

    >>> sorted(of_annotation(int | None))
    ['integer', 'null']
    """
    try:
        if annotation in _SCALARS:
            return _SCALARS[annotation]
    except TypeError:  # an annotation that cannot be hashed
        return EVERY
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return of_annotation(arguments[0])
    if origin is Literal:
        return _united(frozenset({kind_of(value)}) for value in arguments)
    if origin in _UNIONS:
        return _united(of_annotation(part) for part in arguments)
    plain = origin or annotation
    if plain in _ARRAYS:
        # A text is a sequence too, for those who only read it.
        return frozenset({"array", "string"}) if plain is collections.abc.Sequence else frozenset({"array"})
    if plain in _OBJECTS or typing.is_typeddict(plain):
        return frozenset({"object"})
    if plain in _ITERABLES:
        return frozenset({"array", "object", "string"})
    return EVERY


def _united(parts: collections.abc.Iterable[Kinds]) -> Kinds:
    found: Kinds = frozenset()
    return found.union(*parts)


def of_schema(schema: Any) -> Kinds:
    """What values satisfy a JSON Schema, as far as its ``type``, ``const`` or ``enum`` says."""
    if not isinstance(schema, Mapping):
        return EVERY
    if "const" in schema:
        return frozenset({kind_of(schema["const"])})
    if isinstance(schema.get("enum"), list):
        return frozenset(kind_of(value) for value in schema["enum"])
    named = schema.get("type")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    found = {name for name in names if name in EVERY}
    return frozenset(found | ({"integer"} if "number" in found else set())) or EVERY


def schema_at(schema: Any, path: Sequence[str]) -> Any | None:
    """The part of a schema that describes the value at `path` below an object; None where it does not say."""
    for name in path:
        if not isinstance(schema, Mapping) or any(key in schema for key in ("$ref", "allOf", "anyOf", "oneOf", "if")):
            return None
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or name not in properties:
            return None
        schema = properties[name]
    return schema


def disagree(possible: Kinds, accepted: Kinds) -> bool:
    """Whether nothing that is possible would be accepted."""
    return not possible & accepted


def misfits(value: Any, annotation: Any, *, unknown: collections.abc.Callable[[Any], bool]) -> list[tuple[Any, str]]:
    """Where a literal does not fit an annotation: the path below it (a tuple) and the rule, the first of each part.

    Args:
        unknown: whether a value is not known yet (an expression stands there).

    >>> misfits({"n": "x"}, dict[str, int], unknown=lambda value: False)
    [(('n',), 'must be of type integer, not string')]
    """
    if unknown(value):
        return []
    accepted = of_annotation(annotation)
    kind = kind_of(value)
    if kind not in accepted:
        return [((), f"must be of type {named(accepted)}, not {kind}")]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return misfits(value, arguments[0], unknown=unknown)
    if origin is Literal and value not in arguments:
        return [((), f"must be one of {', '.join(map(repr, arguments))}")]
    if origin in _UNIONS:
        parts = [part for part in arguments if kind in of_annotation(part)]
        return [] if len(parts) != 1 else misfits(value, parts[0], unknown=unknown)
    return _misfits_below(value, origin or annotation, arguments, unknown)


def _misfits_below(
    value: Any, plain: Any, arguments: tuple[Any, ...], unknown: collections.abc.Callable[[Any], bool]
) -> list[tuple[Any, str]]:
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(value, list) and arguments and plain is not tuple:
        pairs = [(index, item, arguments[0]) for index, item in enumerate(value)]
    elif isinstance(value, dict) and typing.is_typeddict(plain):
        hints = hints_of(plain)
        lacking = sorted(_required_keys(plain) - value.keys())
        if lacking:
            return [((), f"lacks {', '.join(lacking)}")]
        pairs = [(name, item, hints[name]) for name, item in value.items() if name in hints]
    elif isinstance(value, dict) and len(arguments) == 2:
        pairs = [(name, item, arguments[1]) for name, item in value.items()]
    return [
        ((key, *path), rule)
        for key, item, annotation in pairs
        for path, rule in misfits(item, annotation, unknown=unknown)
    ]


def _required_keys(typed_dict: Any) -> frozenset[str]:
    """The class's own set is wrong where its annotations are postponed (PEP 563): these name ``NotRequired`` only."""
    exact = hints_of(typed_dict, extras=True)
    optional = {name for name, hint in exact.items() if typing.get_origin(hint) is typing.NotRequired}
    return frozenset(typed_dict.__required_keys__ - optional)


def hints_of(thing: Any, *, extras: bool = False) -> dict[str, Any]:
    """The annotations of a function or class; empty where they cannot be resolved (other people's code)."""
    try:
        return typing.get_type_hints(thing, include_extras=extras)
    except Exception:  # noqa: BLE001 - resolving evaluates the annotations, which are other people's code
        return {}


def named(kinds: Kinds) -> str:
    """The kinds in a sentence."""
    shown = sorted(kinds - {"integer"} if "number" in kinds else kinds)
    return " or ".join(shown)
