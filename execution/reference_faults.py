"""What is wrong with the expressions of a definition: they do not compile, or they read what cannot be there. Pure but
for the question whether a secret exists.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from execution import json_kinds, step_outputs
from execution.expressions import ExpressionError, Reference, compile_template
from execution.json_kinds import Kinds
from execution.json_schemas import Problems, add, dotted

EXPRESSION: Final = "${{"
FACTS: Final = ("id", "workflow", "source", "scheduled_for")
#: What the steps of a section see besides.
SECTION_FACTS: Final = ("outcome", "error")
_STEP_MEMBERS: Final = ("state", "output")
#: An expression that is a plain path, such as ``${{ steps.load.output.rows }}``; ``$${{`` is not one.
_PATH: Final = re.compile(r"(?<!\$)\$\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Reach:
    """What expressions at one place of a definition may read.

    `steps` are those that exist for it, `ended` the names of those that have ended by then. `input_schema` is None
    where the definition has none (or a broken one). `section` is that of the step, empty for main ones and others.
    """

    steps: Mapping[str, Mapping[str, Any]]
    ended: Collection[str]
    input_schema: Any = None
    section: str = ""
    item: bool = False
    secrets: bool = False

    def having(self, *, item: bool, secrets: bool = False) -> Reach:
        """The same, with or without `item` and `secrets`."""
        return replace(self, item=item, secrets=secrets)


def check_template(problems: Problems, value: Any, at: str, reach: Reach) -> None:
    """Note what is wrong with the expressions in a JSON value."""
    for path, text in strings(value, at):
        try:
            references = compile_template(text).references
        except ExpressionError as error:
            where = "" if error.position is None else f" (at character {error.position + 1})"
            add(problems, path, f"expression: {error.reason}{where}")
            continue
        faults = [fault for reference in sorted(references, key=str) if (fault := reference_fault(reference, reach))]
        for fault in faults or (path_fault(names, reach) for names in paths(text)):
            if fault:
                add(problems, path, fault)
    try:
        compile_template(value)
    except ExpressionError as error:
        # Keys that hold expressions, too many of them, too deep: what no single string shows.
        if not any(path == at or path.startswith(f"{at}.") for path in problems):
            add(problems, at, f"expression: {error.reason}")


def reference_fault(reference: Reference, reach: Reach) -> str:
    """Why the place may not read this; empty when it may."""
    match reference.root:
        case "secrets":
            return _secret_fault(reference, allowed=reach.secrets)
        case "item":
            return "" if reach.item else "reads item, which exists only inside a step with for_each"
        case "input":
            members = closed_members(reach.input_schema)
            if reference.member is None or members is None or reference.member in members:
                return ""
            return f"reads input.{reference.member}, which the input schema does not have"
        case "execution":
            known = (*FACTS, *SECTION_FACTS) if reach.section else FACTS
            if reference.member is None or reference.member in known:
                return ""
            if reference.member in SECTION_FACTS:
                return f"reads execution.{reference.member}, which only steps of on_success, on_failure and finally see"
            return f"reads execution.{reference.member}; there are only {', '.join(known)}"
        case _:
            return _step_fault(reference, reach)


def _step_fault(reference: Reference, reach: Reach) -> str:
    step = reference.step
    if step is None:
        return ""
    if step not in reach.steps:
        return f"reads step {step}, which does not exist"
    if step not in reach.ended:
        return f"reads step {step}, which may not have ended: name it (or a step that needs it) in needs"
    if reference.member is not None and reference.member not in _STEP_MEMBERS:
        return f"reads steps.{step}.{reference.member}; of a step there are only {' and '.join(_STEP_MEMBERS)}"
    return ""


def _secret_fault(reference: Reference, *, allowed: bool) -> str:
    from execution import secret_store  # needs the steps, which need this module

    if not allowed:
        return "reads secrets, which only the arguments of task and http steps may: everything else is kept and shown"
    if reference.member is None:
        return "reads all secrets; name one: secrets.NAME"
    if not secret_store.exists(reference.member):
        named = f"{secret_store.ENVIRONMENT}{reference.member}"
        return f"reads secret {reference.member}, which does not exist (nor {named} in the environment)"
    return ""


# ── Paths below what the references name ─────────────────────────────────────────────────────────────────────


def paths(text: str) -> list[tuple[str, ...]]:
    """The expressions of a string that are plain paths.

    >>> paths("${{ input.day }} of ${{ steps.a.output.n || 'x' }}")
    [('input', 'day')]
    """
    return [tuple(found.split(".")) for found in _PATH.findall(text)]


def whole_path(text: Any) -> tuple[str, ...] | None:
    """The plain path that a string is, nothing else beside it; None for anything else."""
    found = _PATH.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else tuple(found[1].split("."))


def path_fault(names: tuple[str, ...], reach: Reach) -> str:
    """Why nothing can stand at a path, where the input schema or the step's kind tells; empty where it may."""
    match names:
        case ("input", *below):
            return _input_fault(tuple(below), reach.input_schema)
        case ("steps", step, "output", *below) if step in reach.steps and below:
            return step_outputs.fault(step, reach.steps[step], tuple(below))
        case ("steps", _, "state", *below) if below:
            return f"reads {'.'.join(names)}, but a state is a text"
        case _:
            return ""


def _input_fault(path: tuple[str, ...], schema: Any) -> str:
    for length in range(len(path)):
        part = json_kinds.schema_at(schema, path[:length])
        if part is None:
            return ""
        kinds, here = json_kinds.of_schema(part), ".".join(("input", *path[:length]))
        if "object" not in kinds:
            return f"reads {'.'.join(('input', *path))}, but {here} is {json_kinds.named(kinds)}"
        members = closed_members(part)
        if members is not None and path[length] not in members:
            return f"reads {'.'.join(('input', *path))}, which the input schema does not have"
    return ""


def kinds_of(names: tuple[str, ...], reach: Reach) -> Kinds:
    """Which kinds of value may stand at a path."""
    match names:
        case ("input", *below):
            schema = json_kinds.schema_at(reach.input_schema, below)
            if schema is None:
                return json_kinds.EVERY
            kinds = json_kinds.of_schema(schema)
            return kinds if _is_required(reach.input_schema, below) else kinds | {"null"}
        case ("steps", step, "output", *below) if step in reach.steps:
            return step_outputs.kinds_at(reach.steps[step], tuple(below))
        case ("steps", _, "state") | ("execution", "id" | "workflow"):
            return frozenset({"string"})
        case _:
            return json_kinds.EVERY


def _is_required(schema: Any, path: list[str]) -> bool:
    for length, name in enumerate(path):
        part = json_kinds.schema_at(schema, path[:length])
        if not isinstance(part, Mapping) or name not in part.get("required", ()):
            return False
    return True


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def has_expression(value: Any) -> bool:
    """Whether a value is a string that may hold an expression: what becomes of it is not known yet."""
    return isinstance(value, str) and EXPRESSION in value


def strings(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """Every string of a JSON value that may hold an expression, with its path."""
    pending = [(at, value)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, str) and EXPRESSION in node:
            yield path, node
        elif isinstance(node, dict):
            pending.extend((dotted(path, key), item) for key, item in node.items())
        elif isinstance(node, list):
            pending.extend((dotted(path, index), item) for index, item in enumerate(node))


def closed_members(schema: Any) -> frozenset[str] | None:
    """The members that an object can have, None where its schema leaves that open."""
    if not isinstance(schema, dict) or schema.get("additionalProperties") is not False:
        return None
    if {"patternProperties", "$ref", "allOf", "anyOf", "oneOf", "if"} & schema.keys():
        return None
    return frozenset(schema.get("properties", {}))
