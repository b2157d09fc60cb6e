"""JSON Schema (2020-12) for what strangers send: no network, no endless work, messages that people can read.

Used for workflow definitions (our schema) and for inputs (the workflow author's schema). Problems are keyed by
dotted path, as everywhere in the API: ``steps.load.needs.0``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from scheduling_project.common.json_values import MAX_DEPTH, too_deep

if TYPE_CHECKING:  # loaded where something is checked: several MB, which a beat does without
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import ValidationError

Problems = dict[str, list[str]]

MAX_PROBLEMS: Final = 50
MAX_PATTERN: Final = 500
MAX_SHOWN: Final = 80

_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_REF_KEYS: Final = ("$ref", "$dynamicRef")
_REPEATED_REPEAT: Final = re.compile(r"\((?:\?:)?(?:\\.|\[[^\]]*\]|[^()\\])(?:[+*]|\{[0-9]+,\})\)(?:[+*]|\{[0-9]+,)")


@cache
def _formats() -> FormatChecker:
    from jsonschema import FormatChecker

    formats = FormatChecker(("date", "email", "ipv4", "ipv6", "uuid"))
    formats.checks("date-time", raises=ValueError)(_is_date_time)
    return formats


def _is_date_time(value: object) -> bool:
    """RFC 3339, section 5.6. The library's own check needs a package more."""
    if not isinstance(value, str):
        return True
    return bool(_RFC3339.fullmatch(value)) and bool(datetime.fromisoformat(value.upper()))


def add(problems: Problems, path: str, rule: str) -> None:
    """Note that the value at `path` breaks `rule`; once, and not without end."""
    if len(problems) >= MAX_PROBLEMS and path not in problems:
        return
    rules = problems.setdefault(path, [])
    if rule not in rules and len(rules) < MAX_PROBLEMS:
        rules.append(rule)


def dotted(*parts: str | int) -> str:
    """A path as problems name it.

    >>> dotted("steps", "load", "needs", 0)
    'steps.load.needs.0'
    """
    return ".".join(str(part) for part in parts if part != "")


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator of a schema that `schema_problems` has accepted. It never reads anything from the network."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    return Draft202012Validator(schema, registry=Registry(), format_checker=_formats())


def value_problems(check: Draft202012Validator, value: Any, *, at: str = "") -> Problems:
    """What a value breaks of a schema, by dotted path below `at`; empty when it is valid."""
    from referencing.exceptions import Unresolvable

    problems: Problems = {}
    try:
        for error in check.iter_errors(value):
            for path, rule in _explain(error, at):
                add(problems, path, rule)
            if len(problems) >= MAX_PROBLEMS:
                break
    except RecursionError:
        add(problems, at, "is nested too deeply, or its schema refers to itself without end")
    except Unresolvable as error:
        add(problems, at, f"cannot be checked: its schema refers to {_shown(error.ref)}, which is not there")
    return problems


def schema_problems(schema: Any, *, at: str = "") -> Problems:
    """What keeps `schema` from being usable as a JSON Schema; empty when it is usable."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    problems: Problems = {}
    if too_deep(schema):
        return {at: [f"is nested deeper than {MAX_DEPTH}"]}
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        path = dotted(at, *error.absolute_path)
        return {path: [f"is not valid JSON Schema: {_shorten(error.message)}"]}
    resource = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource("", resource).resolver()
    for path, key, text in _sensitive(schema, at):
        if key in _REF_KEYS:
            if not text.startswith("#"):
                add(problems, path, "may only refer to the schema itself (#/$defs/…)")
                continue
            try:
                resolver.lookup(text)
            except (Unresolvable, ValueError, TypeError):
                add(problems, path, f"refers to {_shown(text)}, which is not in the schema")
        else:
            fault = _pattern_fault(text)
            if fault:
                add(problems, path, fault)
    return problems


def _sensitive(schema: Any, at: str) -> Iterator[tuple[str, str, str]]:
    """References and regular expressions of a schema: (path, kind, text)."""
    pending: list[tuple[str, Any]] = [(at, schema)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, list):
            pending.extend((dotted(path, index), item) for index, item in enumerate(node))
        elif isinstance(node, dict):
            for key, item in node.items():
                if key in {"const", "enum", "default", "examples"}:
                    continue
                if key in (*_REF_KEYS, "pattern") and isinstance(item, str):
                    yield dotted(path, key), key, item
                if key == "patternProperties" and isinstance(item, dict):
                    for pattern in item:
                        yield dotted(path, key, pattern), "pattern", pattern
                pending.append((dotted(path, key), item))


def _pattern_fault(pattern: str) -> str:
    if len(pattern) > MAX_PATTERN:
        return f"is a regular expression of more than {MAX_PATTERN} characters"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    # (a+)+ and its kin take exponential time on a text that almost matches; nobody needs them in a schema.
    if _REPEATED_REPEAT.search(pattern):
        return "repeats a group that only repeats; such an expression can take for ever"
    return ""


def _explain(error: ValidationError, at: str) -> Iterable[tuple[str, str]]:
    """A validation error as (path, rule) pairs in words that name the rule and not the whole document."""
    path = dotted(at, *error.absolute_path)
    value, limit, rule = error.instance, error.validator_value, str(error.validator)
    if rule == "required" and isinstance(limit, list) and isinstance(value, dict):
        missing = [name for name in limit if name not in value]
        return [(dotted(path, name), "is required") for name in missing]
    if rule == "additionalProperties" and limit is False and isinstance(value, dict):
        known = (error.schema if isinstance(error.schema, dict) else {}).get("properties", {})
        return [(dotted(path, name), "is not a known member") for name in value if name not in known]
    if rule in {"oneOf", "anyOf"} and (error.context or _is_choice_of_members(limit)):
        return [(path, _explain_choice(error))]
    if "propertyNames" in error.absolute_schema_path:
        return [(dotted(path, str(value)[:MAX_SHOWN]), f"is not a valid name: {_words(rule, limit, value)}")]
    return [(path, _words(rule, limit, value, default=error.message))]


def _is_choice_of_members(branches: Any) -> bool:
    return all(isinstance(branch, dict) and set(branch) == {"required"} for branch in branches)


def _explain_choice(error: ValidationError) -> str:
    branches: Any = error.validator_value
    if _is_choice_of_members(branches):
        names = [name for branch in branches for name in branch["required"]]
        given = [name for name in names if isinstance(error.instance, dict) and name in error.instance]
        found = f"has {' and '.join(given)}" if given else "has none"
        return f"must have exactly one of {', '.join(names)}; it {found}"
    choices = " or ".join(
        dict.fromkeys(
            _words(str(e.validator), e.validator_value, e.instance, default=e.message) for e in error.context or ()
        )
    )
    return choices or _shorten(error.message)


def _words(rule: str, limit: Any, value: Any, *, default: str = "") -> str:
    match rule:
        case "type":
            wanted = " or ".join(limit) if isinstance(limit, list) else str(limit)
            return f"must be of type {wanted}, not {_type_name(value)}"
        case "enum":
            return f"must be one of {', '.join(_shown(item) for item in limit)}"
        case "const":
            return f"must be {_shown(limit)}"
        case "minimum":
            return f"must be at least {limit}"
        case "maximum":
            return f"must be at most {limit}"
        case "exclusiveMinimum":
            return f"must be greater than {limit}"
        case "exclusiveMaximum":
            return f"must be less than {limit}"
        case "minLength":
            return "must not be empty" if limit == 1 else f"must have at least {limit} characters"
        case "maxLength":
            return f"must have at most {limit} characters"
        case "minItems" | "minProperties":
            return "must not be empty" if limit == 1 else f"must have at least {limit} members"
        case "maxItems" | "maxProperties":
            return f"must have at most {limit} members"
        case "uniqueItems":
            return "must not name anything twice"
        case "pattern":
            return f"must match {limit}"
        case "format":
            return f"must be a valid {limit}"
        case _:
            return _shorten(default)


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    return _shorten(json.dumps(value, ensure_ascii=False, default=str))


def _shorten(text: str) -> str:
    return text if len(text) <= 2 * MAX_SHOWN else text[: 2 * MAX_SHOWN] + "…"
