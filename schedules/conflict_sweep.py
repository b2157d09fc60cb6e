"""When runs want more together than there is: one sweep over the starts and ends of intervals. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Run(NamedTuple):
    """A run that is to come, from `start` until before `end`, epoch seconds."""

    start: int
    end: int
    units: int
    owner: str


@dataclass(slots=True)
class Peak:
    """A time in which more is wanted than there is: when it begins, the most that is wanted, and by whom then."""

    at: int
    demand: int
    owners: set[str]


def windows_of(runs: Sequence[Run]) -> list[tuple[int, int]]:
    """The times [start, end) covered by runs in the order of their starts, merged."""
    windows: list[tuple[int, int]] = []
    for run in runs:
        if windows and run.start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(windows[-1][1], run.end))
        else:
            windows.append((run.start, run.end))
    return windows


def overfull(runs: Iterable[Run], limit: int, *, owner: str | None = None) -> list[Peak]:
    """When runs want more than `limit` units together (while a run of `owner` goes, where one is named), in order.

    One sweep over all starts and ends; a run that ends where another starts has given back what it held.

    >>> overfull([Run(0, 60, 1, "a"), Run(30, 90, 1, "b"), Run(60, 70, 1, "c")], 1)
    [Peak(at=30, demand=2, owners={...})]
    """
    ordered = sorted(runs)
    peaks: list[Peak] = []
    active: list[tuple[int, int]] = []  # (end, index), a heap
    demand = held = place = 0
    inside = False

    def is_over() -> bool:
        return demand > limit and (owner is None or held > 0)

    while place < len(ordered):
        at = ordered[place].start
        while active and active[0][0] <= at:
            end, index = heapq.heappop(active)
            demand -= ordered[index].units
            held -= ordered[index].owner == owner
            inside = inside and (end == at or is_over())
        begun = place
        while place < len(ordered) and ordered[place].start == at:
            run = ordered[place]
            heapq.heappush(active, (run.end, place))
            demand += run.units
            held += run.owner == owner
            place += 1
        if not is_over():
            inside = False
        elif inside:
            peaks[-1].demand = max(peaks[-1].demand, demand)
            peaks[-1].owners.update(run.owner for run in ordered[begun:place])
        else:
            peaks.append(Peak(at, demand, {ordered[index].owner for _, index in active}))
            inside = True
    return peaks
