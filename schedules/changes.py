"""What a change of timing does to the fires of the coming weeks: added, removed, moved. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from schedules.timing import occurrences

DAYS = 30
#: Fires compared at most, on either side.
MOST = 50_000
#: A fire that disappears is taken to have moved to a new one at most so many seconds away.
NEAR = 12 * 3600


@dataclass(slots=True)
class Changes:
    """Fires up to `until`, in epoch seconds. `truncated`: there were more than `MOST`, and only the first were
    compared."""

    until: int = 0
    added: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    moved: list[tuple[int, int]] = field(default_factory=list)
    kept: int = 0
    truncated: bool = False


class Side(NamedTuple):
    """What fires: a canonical spec, nothing up to `begins` (epoch seconds), and at most so often."""

    spec: Mapping[str, Any]
    begins: int = 0
    most: int | None = None


def preview(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, *, seed: str, now: int, days: int = DAYS
) -> Changes:
    """Compare two canonical specs (None: no schedule) over the next `days` days; see `compare`."""
    sides = [None if spec is None else Side(spec) for spec in (before, after)]
    return compare(*sides, seed=seed, now=now, days=days)


def compare(before: Side | None, after: Side | None, *, seed: str, now: int, days: int = DAYS) -> Changes:
    """What differs in the next `days` days; None: nothing fires on that side.

    A removed and an added fire are one moved fire when no other of either lies nearer, by order of time.
    """
    until = now + days * 86_400
    old, old_cut = _fires(before, seed, now, until)
    new, new_cut = _fires(after, seed, now, until)
    if old_cut or new_cut:  # compare no further than both were read
        until = min(old[-1] if old_cut else until, new[-1] if new_cut else until)
        old, new = [i for i in old if i <= until], [i for i in new if i <= until]
    was, will = set(old), set(new)
    removed, added = [i for i in old if i not in will], [i for i in new if i not in was]
    changes = Changes(until=until, kept=len(was & will), truncated=old_cut or new_cut)
    place = 0
    for gone in removed:
        while place < len(added) and added[place] < gone - NEAR:
            changes.added.append(added[place])
            place += 1
        if place < len(added) and added[place] <= gone + NEAR:
            changes.moved.append((gone, added[place]))
            place += 1
        else:
            changes.removed.append(gone)
    changes.added += added[place:]
    return changes


def _fires(side: Side | None, seed: str, now: int, until: int) -> tuple[list[int], bool]:
    if side is None:
        return [], False
    timing = occurrences.compile(side.spec, seed=seed)
    fires = (i.due for i in timing.between(max(now, side.begins), until) if not i.skip)
    found = list(islice(fires, MOST + 1 if side.most is None else min(side.most, MOST + 1)))
    return found[:MOST], len(found) > MOST
