"""What follows from the items of a fan-out: how many may fail, and what their step says at its end. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from execution.graph import StepPlan
from execution.states import StepState

#: How the items are marked that an earlier failure kept from beginning; a resumption brings them back.
STOPPED: Final = "stopped: "
#: Failed items that a step's output lists, and how much of each message (characters).
MOST_ERRORS: Final = 100
MOST_MESSAGE: Final = 500


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why an item failed; `index` is its place in the list, from 0."""

    index: int
    type: str
    message: str

    def as_json(self) -> dict[str, Any]:
        """As the step's output lists it."""
        return {"index": self.index, "type": self.type, "message": self.message[:MOST_MESSAGE]}


def allowed(step: StepPlan, total: int) -> int | None:
    """How many of `total` items may fail with the step still succeeding; None for any number.

    ``max_failed`` says so. Without it no failure is allowed, or any with ``on_error: continue``, unless the step also
    stops at an item's error: then it has something to stop at.
    """
    if step.max_failed is not None:
        return step.max_failed.of(total)
    return None if step.continue_on_error and not step.stops_items else 0


def stops(step: StepPlan, *, failed: int, total: int) -> bool:
    """Whether, with `failed` items of `total` failed for good, no further one is to begin."""
    most = allowed(step, total)
    return step.stops_items and most is not None and failed > most


def totals(states: Iterable[str]) -> dict[str, int]:
    """What the output of a fan-out counts.

    >>> totals(["succeeded", "failed", "skipped", "succeeded"])
    {'count': 4, 'succeeded': 2, 'failed': 1, 'skipped': 1}
    """
    found = Counter(states)
    return {
        "count": found.total(),
        "succeeded": found[StepState.SUCCEEDED],
        "failed": found[StepState.FAILED],
        "skipped": found[StepState.SKIPPED],
    }


def verdict(step: StepPlan, counts: dict[str, int]) -> tuple[StepState, str]:
    """The state that a fan-out ends in when its last item has ended, and why."""
    failed, total = counts["failed"], counts["count"]
    most = allowed(step, total)
    broken = most is not None and failed > most
    reason = f"{failed} of {total} items failed" if failed else ""
    if broken and most:
        reason += f"; at most {most} may"
    if broken and counts["skipped"] and step.stops_items:
        reason += f"; {counts['skipped']} did not begin"
    return (StepState.FAILED if broken else StepState.SUCCEEDED), reason


def described(errors: Sequence[ItemError]) -> str:
    """The first errors in a line, for the dead letter of a step that tolerates some.

    >>> described([ItemError(2, "ValueError", "no amount"), ItemError(7, "KeyError", "'id'")])
    "item 2: ValueError: no amount; item 7: KeyError: 'id'"
    """
    return "; ".join(f"item {error.index}: {error.type}: {error.message[:MOST_MESSAGE]}" for error in errors[:3])
