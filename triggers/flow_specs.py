"""How often a trigger may start something, as its JSON says it. Pure.

``throttle``: at most `limit` events in `period` seconds, the rest is left out. ``debounce``: wait until nothing
came for `period` seconds, at most `timeout`, then start once with the last event. ``batch``: collect up to `size`
events or for `timeout` seconds, then start once with all. Each counts per `key`, a template over the event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from execution.expressions import ExpressionError, Roots, Template, compile_template
from execution.json_schemas import Problems, add, dotted

ROOTS: Final = Roots(frozenset({"event", "trigger"}))
MAX_SECONDS: Final = 604_800
MAX_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Throttling:
    limit: int
    period: float
    key: Template | None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Throttling:
        return cls(int(spec["limit"]), float(spec["period"]), _key(spec))


@dataclass(frozen=True, slots=True)
class Debounce:
    """`timeout`: the longest that a group waits in all, in seconds."""

    period: float
    timeout: float
    key: Template | None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Debounce:
        return cls(float(spec["period"]), float(spec.get("timeout") or MAX_SECONDS), _key(spec))


@dataclass(frozen=True, slots=True)
class Batch:
    size: int
    timeout: float
    key: Template | None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Batch:
        return cls(int(spec["size"]), float(spec["timeout"]), _key(spec))


def problems_of(kind: str, spec: Any, *, at: str) -> Problems:
    """What is wrong with a ``throttle``, ``debounce`` or ``batch``, by dotted path; empty when nothing is."""
    problems: Problems = {}
    if not isinstance(spec, Mapping):
        return {at: ["must be an object"]}
    wanted = _MEMBERS[kind]
    for name in spec:
        if name not in wanted and name != "key":
            add(problems, dotted(at, str(name)[:80]), f"is not a known member (known: {', '.join(wanted)}, key)")
    for name, (required, whole, highest) in wanted.items():
        value = spec.get(name)
        if value is None:
            if required:
                add(problems, dotted(at, name), "is required")
            continue
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= highest:
            what = "a whole number" if whole else "a number of seconds"
            add(problems, dotted(at, name), f"must be {what} above 0, at most {highest}")
    period, timeout = spec.get("period"), spec.get("timeout")
    if kind == "debounce" and not problems and timeout is not None and period is not None and timeout < period:
        add(problems, dotted(at, "timeout"), "must not be shorter than the period")
    if spec.get("key") is not None:
        if not isinstance(spec["key"], str) or len(spec["key"]) > 500:
            add(problems, dotted(at, "key"), "must be a text of at most 500 characters")
        else:
            try:
                _key(spec)
            except ExpressionError as error:
                add(problems, dotted(at, "key"), error.reason)
    return problems


#: Per member: whether it is required, whether it is a whole number, and its highest value.
_MEMBERS: Final[Mapping[str, Mapping[str, tuple[bool, bool, int]]]] = {
    "throttle": {"limit": (True, True, 1_000_000), "period": (True, False, MAX_SECONDS)},
    "debounce": {"period": (True, False, MAX_SECONDS), "timeout": (False, False, MAX_SECONDS)},
    "batch": {"size": (True, True, MAX_BATCH), "timeout": (True, False, MAX_SECONDS)},
}


def _key(spec: Mapping[str, Any]) -> Template | None:
    return compile_template(spec["key"], path="$.key", roots=ROOTS) if spec.get("key") else None
