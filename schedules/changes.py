"""What a change of timing does to the fires of the coming weeks: added, removed, moved. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from schedules import occurrences

DAYS = 30
#: Fires compared at most, on either side.
MOST = 50_000
#: A fire that disappears is taken to have moved to a new one at most so many seconds away.
NEAR = 12 * 3600


@dataclass(slots=True)
class Changes:
    """Fires in epoch seconds. `truncated`: there were more than `MOST`, and only the first were compared."""

    added: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    moved: list[tuple[int, int]] = field(default_factory=list)
    kept: int = 0
    truncated: bool = False


def preview(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, *, seed: str, now: int, days: int = DAYS
) -> Changes:
    """Compare two canonical specs (None: no schedule) over the next `days` days.

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
    changes = Changes(kept=len(was & will), truncated=old_cut or new_cut)
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


def _fires(spec: Mapping[str, Any] | None, seed: str, now: int, until: int) -> tuple[list[int], bool]:
    if spec is None:
        return [], False
    timing = occurrences.compile(spec, seed=seed)
    fires = [i.due for i in islice(timing.between(now, until), MOST + 1) if not i.skip]
    return fires[:MOST], len(fires) > MOST
