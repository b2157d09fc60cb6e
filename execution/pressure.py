"""How much of the work a worker may take: all of it, the urgent alone, or none. Pure, but for the ceiling.

The ceiling is one byte of memory that a worker's parent shares with its pool processes: the parent sets it, and a
process that received a hint above it gives the hint back.
"""

from __future__ import annotations

import enum
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from execution.priority import LEVELS

#: The least urgent priority that a host above its first limit still takes.
URGENT: Final = 3
EVERYTHING: Final = max(LEVELS)
NOTHING: Final = -1
#: A host must fall so many points below a limit before it counts as below it again.
HYSTERESIS: Final = 5.0


class Pressure(enum.StrEnum):
    """Where a host stands against its limits."""

    NONE = ""
    HIGH = "high"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Limits:
    """Percentages above which a host takes only urgent work (`high`) or none (`full`); 0 is no limit."""

    cpu_high: float = 0
    cpu_full: float = 0
    memory_high: float = 0
    memory_full: float = 0


def pressure_of(*, cpu: float, memory: float, limits: Limits, before: Pressure = Pressure.NONE) -> Pressure:
    """Where a host stands that uses `cpu` and `memory` percent.

    >>> pressure_of(cpu=91, memory=10, limits=Limits(cpu_high=90))
    <Pressure.HIGH: 'high'>
    """

    def above(limit_cpu: float, limit_memory: float, slack: float) -> bool:
        pairs: Sequence[tuple[float, float]] = ((cpu, limit_cpu), (memory, limit_memory))
        return any(limit > 0 and value > limit - slack for value, limit in pairs)

    if above(limits.cpu_full, limits.memory_full, HYSTERESIS if before is Pressure.FULL else 0):
        return Pressure.FULL
    if above(limits.cpu_high, limits.memory_high, HYSTERESIS if before is not Pressure.NONE else 0):
        return Pressure.HIGH
    return Pressure.NONE


def ceiling_of(pressure: Pressure, *, stopped: bool) -> int:
    """The least urgent priority that is taken; -1 for none.

    >>> ceiling_of(Pressure.HIGH, stopped=False), ceiling_of(Pressure.NONE, stopped=True)
    (3, -1)
    """
    if stopped or pressure is Pressure.FULL:
        return NOTHING
    return URGENT if pressure is Pressure.HIGH else EVERYTHING


_shared = mmap.mmap(-1, 1)  # anonymous and shared: pool processes forked later see what the parent writes
_shared[0] = EVERYTHING + 1


def set_ceiling(ceiling: int) -> None:
    """Let this process and the pool processes forked from it take nothing less urgent than `ceiling`."""
    _shared[0] = ceiling + 1


def is_refused(priority: int | None) -> bool:
    """Whether a hint of this priority is to be given back (one without a priority counts as the least urgent)."""
    return (EVERYTHING if priority is None else priority) >= _shared[0]
