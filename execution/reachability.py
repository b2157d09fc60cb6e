"""Whether a step's condition can ever hold, as far as the definition alone tells. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from execution import json_kinds, json_schemas
from execution.graph import FINALLY, ON_FAILURE, ON_SUCCESS
from execution.patterns import CompiledPattern, IndexKey
from execution.states import ExecutionState, StepState

_ENDS: Final = (StepState.SUCCEEDED, StepState.SKIPPED)
#: How the main steps have ended when a step of a section is decided about.
_OUTCOMES: Final = {
    ON_SUCCESS: {ExecutionState.SUCCEEDED.value},
    ON_FAILURE: {ExecutionState.FAILED.value},
    FINALLY: {ExecutionState.SUCCEEDED.value, ExecutionState.FAILED.value, ExecutionState.CANCELLED.value},
}


def never(
    condition: CompiledPattern,
    *,
    section: str,
    steps: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Any],
    input_schema: Any,
) -> dict[tuple[str, ...], str]:
    """Why the condition of a step can never hold: a rule per path in it; empty where it may.

    Args:
        section: of the step, empty for a main one.
        steps: all steps that the step may read.
        own: those of them in the same part of the definition.
    """
    found = {}
    for requirement in condition.exact_requirements():
        rule = _rule(requirement.path, requirement.values, section, steps, own, input_schema)
        if rule:
            found[requirement.path] = f"never holds, so the step would never run: {rule}"
    return found


def _rule(
    path: tuple[str, ...],
    values: frozenset[IndexKey],
    section: str,
    steps: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Any],
    input_schema: Any,
) -> str:
    match path:
        case ("steps", name, "state") if name in steps:
            possible = states_of(steps[name], handled=name not in own)
            if values & possible:
                return ""
            told = f"{name} is {' or '.join(sorted(possible))} when this is decided"
            if StepState.FAILED.value in values:
                told += f" (its failure skips this step too, unless {name} says on_error: continue)"
            return told
        case ("execution", "outcome"):
            possible = _OUTCOMES.get(section, set())
            if values & possible:
                return ""
            return (
                f"the outcome is {' or '.join(sorted(possible)) or 'not known before the main steps have ended'} here"
            )
        case ("input", *below):
            return _input_rule(tuple(below), values, input_schema)
        case _:
            return ""


def states_of(step: Mapping[str, Any], *, handled: bool) -> set[str]:
    """The states in which a step that reads another may find it.

    Args:
        handled: its failure does not keep the reader from running (it belongs to an earlier part).
    """
    possible = {state.value for state in _ENDS}
    if handled or step.get("on_error") == "continue":
        possible.add(StepState.FAILED.value)
    if handled:
        possible.add(StepState.CANCELLED.value)
    return possible


def _input_rule(path: tuple[str, ...], values: frozenset[IndexKey], input_schema: Any) -> str:
    schema = json_kinds.schema_at(input_schema, path)
    # Patterns look into arrays; and what a schema refers to elsewhere is not followed.
    if schema is None or "array" in json_kinds.of_schema(schema) or "$ref" in json.dumps(schema):
        return ""
    checker = json_schemas.validator(schema)
    if any(not json_schemas.value_problems(checker, _value(value)) for value in values):
        return ""
    shown = ", ".join(sorted(str(_value(value)) for value in values)[:3])
    return f"the input schema does not allow {shown} as {'.'.join(('input', *path))}"


def _value(key: IndexKey) -> Any:
    """The JSON scalar behind a dictionary key of one."""
    value = key[0] if isinstance(key, tuple) else key
    return int(value) if isinstance(value, float) and value.is_integer() else value
