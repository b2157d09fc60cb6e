"""A workflow definition as the engine walks it: steps in order, who follows whom, compiled expressions. Pure."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from execution import patterns, priority
from execution.definition_schema import SECTIONS, STEP_KINDS
from execution.expressions import Template, compile_template
from execution.limits import memory_of

ON_SUCCESS, ON_FAILURE, FINALLY = SECTIONS

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LONGEST = 365 * UNITS["d"]  # seconds; no sleep and no approval takes longer

#: Kinds that a worker performs (of a child its start); the others end by themselves (timer, decision, event).
WORKER_KINDS = frozenset({"task", "http", "workflow"})


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How often attempts may begin that share a key: `limit` per `per` seconds, at most `burst` at once."""

    key: Template
    limit: int
    per: float
    burst: int


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many items of a fan-out may fail: a number, or a part of them in percent."""

    count: int = 0
    percent: float | None = None

    def of(self, total: int) -> int:
        """How many of `total` that is, rounded down.

        >>> Tolerance(percent=10).of(25)
        2
        """
        return self.count if self.percent is None else int(total * self.percent / 100)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of a definition, compiled. `argument` is the part that names its kind (`with` for a task)."""

    name: str
    kind: str
    target: str
    argument: Template
    needs: tuple[str, ...]
    successors: tuple[str, ...]
    when: patterns.CompiledPattern | None
    for_each: Template | None
    max_parallel: int | None
    retry: Mapping[str, Any] | None
    timeout: float | None
    continue_on_error: bool
    queue: str
    priority: int | None
    pool: str
    pool_units: int
    section: str = ""
    rate: RateLimit | None = None
    memory: int | None = None
    max_failed: Tolerance | None = None
    stops_items: bool = False

    @property
    def writes_letters(self) -> bool:
        """Whether an attempt that fails for good leaves a dead letter: nobody handles the failure.

        Where some items may fail, it is the step that fails, if too many do, and leaves one letter for all.
        """
        return not self.continue_on_error and self.max_failed is None

    @property
    def is_plain(self) -> bool:
        """Whether it can be queued the moment its needs are met, with nothing to decide."""
        return self.kind in WORKER_KINDS and self.when is None and self.for_each is None


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many executions with one key run at once, and what a further one does: `queue`, `skip`, `cancel_older`."""

    key: Template
    limit: int
    on_conflict: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled definition. `steps` is in topological order, those of `sections` (by name) after the `main` ones."""

    steps: Mapping[str, StepPlan]
    output: Template | None
    input_schema: Mapping[str, Any] | None
    retry: Mapping[str, Any] | None
    timeout: float | None
    queue: str
    priority: int | None
    concurrency: Concurrency | None
    sections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _descendants: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def main(self) -> list[StepPlan]:
        """The steps that an execution begins with."""
        return [step for step in self.steps.values() if not step.section]

    def descendants(self, name: str) -> tuple[str, ...]:
        """Every step that needs `name`, directly or not."""
        if name not in self._descendants:
            found: set[str] = set()
            pending = list(self.steps[name].successors)
            while pending:
                step = pending.pop()
                if step not in found:
                    found.add(step)
                    pending.extend(self.steps[step].successors)
            self._descendants[name] = tuple(sorted(found))
        return self._descendants[name]


def compile_plan(definition: Mapping[str, Any], *, http_timeout: float | None = None) -> Plan:
    """The plan of a definition that `execution.definitions.check` has accepted.

    Args:
        http_timeout: seconds that an attempt of an HTTP step may take where the step states no limit.

    Raises:
        graphlib.CycleError, ExpressionError, PatternError, KeyError: for one that it has not.
    """
    sections = {name: definition[name] for name in SECTIONS if definition.get(name)}
    raw = dict(definition["steps"])
    order: list[str] = []
    for steps in (definition["steps"], *sections.values()):
        raw.update(steps)
        order += graphlib.TopologicalSorter(
            {name: step.get("needs", ()) for name, step in steps.items()}
        ).static_order()
    successors: dict[str, list[str]] = {name: [] for name in raw}
    for name, step in raw.items():
        for need in step.get("needs", ()):
            successors[need].append(name)
    section_of = {name: section for section, steps in sections.items() for name in steps}
    return Plan(
        steps={
            name: _compile_step(name, raw[name], tuple(successors[name]), http_timeout, section_of.get(name, ""))
            for name in order
        },
        output=compile_template(definition["output"], path="$.output") if "output" in definition else None,
        input_schema=definition.get("input"),
        retry=definition.get("retry"),
        timeout=definition.get("timeout"),
        queue=definition.get("queue", ""),
        priority=None if "priority" not in definition else priority.parse(definition["priority"]),
        sections={name: tuple(steps) for name, steps in sections.items()},
        concurrency=_compile_concurrency(definition["concurrency"]) if "concurrency" in definition else None,
    )


def _compile_concurrency(raw: Mapping[str, Any]) -> Concurrency:
    return Concurrency(
        key=compile_template(raw["key"], path="$.concurrency.key"),
        limit=raw.get("limit", 1),
        on_conflict=raw.get("on_conflict", "queue"),
    )


def _compile_step(
    name: str, raw: Mapping[str, Any], successors: tuple[str, ...], http_timeout: float | None, section: str
) -> StepPlan:
    path = f"$.{section or 'steps'}.{name}"
    kind = next(kind for kind in STEP_KINDS if kind in raw)
    argument_key = "with" if kind == "task" else kind
    called = called_workflow(raw)
    return StepPlan(
        name=name,
        kind=kind,
        target=raw["task"] if kind == "task" else called["name"] if kind == "workflow" else "",
        argument=compile_template(called or raw.get(argument_key, {}), path=f"{path}.{argument_key}"),
        needs=tuple(raw.get("needs", ())),
        successors=successors,
        when=patterns.compile(raw["when"]) if "when" in raw else None,
        for_each=compile_template(raw["for_each"], path=f"{path}.for_each") if "for_each" in raw else None,
        max_parallel=raw.get("max_parallel"),
        retry=raw.get("retry"),
        timeout=raw.get("timeout", http_timeout if kind == "http" else None),
        continue_on_error=raw.get("on_error") == "continue",
        queue=raw.get("queue", ""),
        priority=None if "priority" not in raw else priority.parse(raw["priority"]),
        pool=raw.get("pool", {}).get("name", ""),
        pool_units=raw.get("pool", {}).get("units", 1),
        section=section,
        rate=_compile_rate(raw["rate"], f"{path}.rate") if "rate" in raw else None,
        memory=memory_of(raw["limits"]["memory"]) if "memory" in raw.get("limits", {}) else None,
        max_failed=tolerance(raw["max_failed"]) if "max_failed" in raw else None,
        stops_items=raw.get("on_item_error") == "stop",
    )


def tolerance(raw: int | str) -> Tolerance:
    """How many items may fail, from a number or a text such as ``"2.5%"``.

    >>> tolerance("2.5%")
    Tolerance(count=0, percent=2.5)
    """
    return Tolerance(count=raw) if isinstance(raw, int) else Tolerance(percent=float(raw.removesuffix("%")))


def _compile_rate(raw: Mapping[str, Any], path: str) -> RateLimit:
    return RateLimit(
        key=compile_template(raw["key"], path=f"{path}.key"),
        limit=raw["limit"],
        per=seconds(raw["per"]),
        burst=raw.get("burst", 1),
    )


def called_workflow(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a step of kind `workflow` calls: ``name``, and ``version`` and ``input`` where stated; else empty."""
    called = raw.get("workflow", {})
    return {"name": called} if isinstance(called, str) else dict(called)


def seconds(duration: object) -> float:
    """A duration in seconds from a number or a text such as ``90``, ``"1.5h"`` or ``"2d"``.

    Raises:
        ValueError: naming the value and the rule.
    """
    if isinstance(duration, int | float) and not isinstance(duration, bool) and duration >= 0:
        found = float(min(duration, 2 * LONGEST))
    elif isinstance(duration, str) and duration[-1:] in UNITS and duration[:-1].replace(".", "", 1).isdecimal():
        found = float(duration[:-1]) * UNITS[duration[-1]]
    else:
        raise ValueError(f"{duration!r:.100} is not a duration: seconds, or a number with s, m, h or d")
    if found > LONGEST:
        raise ValueError(f"{duration!r:.100} is longer than 365 days")
    return found
