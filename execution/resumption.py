"""What a resumed execution does again: its failed steps and all that was skipped behind them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from execution.graph import Plan
from execution.items import STOPPED
from execution.states import STEP_TERMINAL, StepState

#: How the finishing statement marks what can no longer run because something it needs has failed.
SKIPPED_BEHIND = "needs "


@dataclass(frozen=True, slots=True)
class StepFact:
    """What must be known of a step run. `item_of` is the fan-out parent's id, None for a step itself."""

    id: UUID
    name: str
    state: str
    reason: str = ""
    item_of: UUID | None = None


@dataclass(frozen=True, slots=True)
class Resumption:
    """How step runs change. Everything else keeps its state and its output.

    `queued` run again at once. `waiting` (id → needs that have not ended) wait, or are decided anew when that is 0.
    `fan_outs` (id → items that have not ended) wait for their items. Of these as many are among `queued` as run at
    once (``max_parallel``); the `held_items` follow them.
    `restarts`: main steps run again, so the sections (whose steps these are) follow anew; None when only they failed.
    `steps`: how many steps (not items) are open again. `failures`: how many of them had failed for good.
    """

    queued: tuple[UUID, ...] = ()
    waiting: Mapping[UUID, int] = field(default_factory=dict)
    fan_outs: Mapping[UUID, int] = field(default_factory=dict)
    held_items: tuple[UUID, ...] = ()
    steps: int = 0
    failures: int = 0
    restarts: tuple[str, ...] | None = None


def resumption(plan: Plan, facts: Iterable[StepFact]) -> Resumption:
    """What to do again so that an execution can still succeed.

    Steps that failed with ``on_error: continue`` have been dealt with and stay as they are, as do steps whose own
    condition (`when`) or a person skipped them.
    """
    rows = list(facts)
    steps = {row.name: row for row in rows if row.item_of is None}
    items: dict[UUID, list[StepFact]] = {}
    for row in rows:
        if row.item_of is not None:
            items.setdefault(row.item_of, []).append(row)
    failed = {
        name for name, row in steps.items() if row.state == StepState.FAILED and not plan.steps[name].continue_on_error
    }
    restarts = any(not plan.steps[name].section for name in failed)
    if restarts:
        failed = {name for name in failed if not plan.steps[name].section}
    behind = {step for name in failed for step in plan.descendants(name)}
    behind = {name for name in behind if _is_skipped_behind(steps.get(name))}
    again = failed | behind

    def open_needs(name: str) -> int:
        needs = plan.steps[name].needs
        return sum(1 for need in needs if need in again or (need in steps and steps[need].state not in STEP_TERMINAL))

    queued: list[UUID] = []
    held_items: list[UUID] = []
    waiting: dict[UUID, int] = {}
    fan_outs: dict[UUID, int] = {}
    for name in plan.steps:
        if name not in again:
            continue
        row = steps[name]
        again_items = [item.id for item in items.get(row.id, ()) if _is_open_again(item)]
        if name in failed and again_items:
            places = plan.steps[name].max_parallel or len(again_items)
            queued.extend(again_items[:places])
            held_items.extend(again_items[places:])
            fan_outs[row.id] = len(again_items)
        elif name in failed and plan.steps[name].is_plain:
            queued.append(row.id)
        else:
            waiting[row.id] = open_needs(name)
    return Resumption(
        tuple(queued),
        waiting,
        fan_outs,
        held_items=tuple(held_items),
        steps=len(again),
        failures=len(failed),
        restarts=tuple(name for name, step in plan.steps.items() if step.section) if restarts else None,
    )


def _is_open_again(item: StepFact) -> bool:
    """An item that failed, or that another's failure kept from beginning."""
    return item.state == StepState.FAILED or (item.state == StepState.SKIPPED and item.reason.startswith(STOPPED))


def _is_skipped_behind(row: StepFact | None) -> bool:
    return row is not None and row.state == StepState.SKIPPED and row.reason.startswith(SKIPPED_BEHIND)
