"""What the output of a step looks like, as far as its kind and its task's annotations tell."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, Final

from execution import json_kinds
from execution.json_kinds import EVERY, Kinds

_NULL: Final[Kinds] = frozenset({"null"})
_OBJECT: Final[Kinds] = frozenset({"object"})
_INTEGER: Final[Kinds] = frozenset({"integer"})
_TEXT: Final[Kinds] = frozenset({"string"})

_FAN_OUT: Final[dict[str, Kinds]] = {
    "count": _INTEGER,
    "succeeded": _INTEGER,
    "failed": _INTEGER,
    "skipped": _INTEGER,
    "errors": frozenset({"array"}),
    "results": frozenset({"array", "null"}),
    "truncated": frozenset({"boolean", "null"}),
}
_MEMBERS: Final[dict[str, dict[str, Kinds]]] = {
    "approval": {"approved": frozenset({"boolean"}), "by": _TEXT, "note": _TEXT},
    "http": {"status": _INTEGER, "headers": _OBJECT, "body": EVERY},
}


def members_of(step: Mapping[str, Any]) -> Mapping[str, Kinds] | None:
    """The members that the output of a step has, with their kinds; None where it is not known."""
    if "for_each" in step:
        return _FAN_OUT
    for kind, members in _MEMBERS.items():
        if kind in step:
            return members
    returned = _annotation(step)
    if typing.is_typeddict(returned):
        return {name: json_kinds.of_annotation(hint) for name, hint in json_kinds.hints_of(returned).items()}
    return None


def kinds_of(step: Mapping[str, Any]) -> Kinds:
    """Which kinds of value the output of a step may be. A person may end any step by hand with another."""
    if "for_each" in step or "http" in step or "approval" in step:
        return _OBJECT
    if "wait" in step or "emit" in step:
        return _NULL
    return json_kinds.of_annotation(_annotation(step))


def fault(name: str, step: Mapping[str, Any], below: tuple[str, ...]) -> str:
    """Why nothing can stand below the output of the step called `name`; empty where it may."""
    kinds, path = kinds_of(step), ".".join(("steps", name, "output", *below))
    if kinds == _NULL:
        return f"reads {path}, but {name} has no output"
    if "object" not in kinds:
        return f"reads {path}, but the output of {name} is {json_kinds.named(kinds)}"
    members = members_of(step)
    if members is None or below[0] in members:
        return ""
    told = "the output of a step with for_each" if "for_each" in step else f"the output of {name}"
    return f"reads {path}; {told} has only {', '.join(members)}"


def kinds_at(step: Mapping[str, Any], below: tuple[str, ...]) -> Kinds:
    """Which kinds of value may stand at a path below the output of a step; null too, for it may have been skipped."""
    if not below:
        return kinds_of(step) | _NULL
    members = members_of(step)
    if members is None or len(below) > 1:
        return EVERY
    return members.get(below[0], EVERY) | _NULL


def _annotation(step: Mapping[str, Any]) -> Any:
    from execution import step_tasks  # needs the Celery app, which needs the app registry

    task = step_tasks.find(step["task"]) if "task" in step else None
    return typing.Any if task is None else step_tasks.annotations_of(task).get("return", typing.Any)
