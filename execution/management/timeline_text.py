"""Attempts on a time axis, in characters: one line per attempt, for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from scheduling_project.common.console import span

#: How an attempt is drawn by its state; others (failed, lost, released…) as CROSSED.
FILLED: Final = {"succeeded": "█", "running": "▓"}
CROSSED: Final = "▒"


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt; without an `end` it goes on."""

    label: str
    state: str
    begin: datetime
    end: datetime | None


def drawn(bars: Sequence[Bar], *, begin: datetime, now: datetime, width: int) -> list[str]:
    """One line per bar: its label, where it lies between `begin` and the last end (`now` for what goes on), how long
    it took and how it ended. `width` is that of the axis in characters; a bar has at least one.

    >>> from datetime import UTC
    >>> at = lambda second: datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
    >>> bars = [Bar("a", "succeeded", at(0), at(5)), Bar("b", "failed", at(5), at(10))]
    >>> drawn(bars, begin=at(0), now=at(10), width=4)
    ['a ██    5 s succeeded', 'b   ▒▒  5 s failed']
    """
    last = max([bar.end or now for bar in bars], default=now)
    scale = width / max((last - begin).total_seconds(), 0.001)
    longest = max((len(bar.label) for bar in bars), default=0)
    lines = []
    for bar in bars:
        seconds = ((bar.end or now) - bar.begin).total_seconds()
        left = min(max(round((bar.begin - begin).total_seconds() * scale), 0), width - 1)
        length = min(max(round(seconds * scale), 1), width - left)
        axis = " " * left + FILLED.get(bar.state, CROSSED) * length
        lines.append(f"{bar.label:{longest}} {axis:{width}}  {span(seconds)} {bar.state}")
    return lines
