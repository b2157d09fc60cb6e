"""What a worker's processes and its host use: processor time, memory, load. Within a container, its share of both."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from execution import cgroups


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """A worker with its pool processes and what they started. `cpu_percent` is of one core."""

    cpu_percent: float
    memory_bytes: int
    processes: int


@dataclass(frozen=True, slots=True)
class HostUsage:
    """The host, or the container where that is smaller. `cpu_percent` is of all `cores`; `load` of 1, 5, 15 minutes."""

    cpu_percent: float
    cores: float
    memory_total: int
    memory_used: int
    memory_available: int
    load: tuple[float, float, float]
    in_container: bool

    @property
    def memory_percent(self) -> float:
        return 100 * (1 - self.memory_available / self.memory_total) if self.memory_total else 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """One measurement."""

    process: ProcessUsage
    host: HostUsage

    def as_json(self) -> dict[str, Any]:
        return asdict(self.process) | {
            "host": asdict(self.host) | {"memory_percent": round(self.host.memory_percent, 1)}
        }


def tree_memory(process: psutil.Process) -> int:
    """Resident bytes of a process and all that it started."""
    return sum(memory for _, memory in _tree(process).values())


def _tree(process: psutil.Process) -> dict[tuple[int, float], tuple[float, int]]:
    """(pid, start) → processor seconds and resident bytes, of a process and all that it started."""
    found = {}
    for member in (process, *process.children(recursive=True)):
        try:
            times = member.cpu_times()
            found[member.pid, member.create_time()] = (times.user + times.system, member.memory_info().rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has just ended, or became somebody else's
    return found


class Monitor:
    """Measures this process and its host. Shares of processor time are those since the last measurement."""

    def __init__(self) -> None:
        self._process = psutil.Process(os.getpid())
        self._tree: Mapping[tuple[int, float], tuple[float, int]] = _tree(self._process)
        self._at = time.monotonic()
        self._host_times = psutil.cpu_times()
        self._group_seconds = cgroups.limits().cpu_seconds

    def measure(self) -> Usage:
        """What is used now. Costs a few milliseconds of processor time."""
        now = time.monotonic()
        elapsed = max(now - self._at, 1e-3)
        tree = _tree(self._process)
        spent = sum(max(0.0, seconds - self._tree.get(key, (0.0, 0))[0]) for key, (seconds, _) in tree.items())
        usage = Usage(
            ProcessUsage(
                cpu_percent=round(100 * spent / elapsed, 1),
                memory_bytes=sum(memory for _, memory in tree.values()),
                processes=len(tree),
            ),
            self._host(elapsed),
        )
        self._tree, self._at = tree, now
        return usage

    def _host(self, elapsed: float) -> HostUsage:
        memory, times, limits = psutil.virtual_memory(), psutil.cpu_times(), cgroups.limits()
        cores = float(psutil.cpu_count() or 1)
        share = _busy_share(self._host_times, times)
        if limits.cores is not None and limits.cores < cores:
            cores = limits.cores
            if limits.cpu_seconds is not None and self._group_seconds is not None:
                share = max(0.0, limits.cpu_seconds - self._group_seconds) / elapsed / cores
        self._host_times, self._group_seconds = times, limits.cpu_seconds
        total, available = memory.total, memory.available
        contained = limits.memory_bytes is not None and limits.memory_bytes < total
        if limits.memory_bytes is not None and contained:
            total = limits.memory_bytes
            available = min(available, max(0, total - (limits.memory_used or 0)))
        load = psutil.getloadavg()
        return HostUsage(
            cpu_percent=round(min(100.0, 100 * share), 1),
            cores=round(cores, 2),
            memory_total=total,
            memory_used=total - available,
            memory_available=available,
            load=(round(load[0], 2), round(load[1], 2), round(load[2], 2)),
            in_container=contained or cores != float(psutil.cpu_count() or 1),
        )


def _busy_share(before: Any, after: Any) -> float:
    """The share of processor time between two readings in which the host was not idle."""
    spent = sum(after) - sum(before)
    idle = sum(getattr(after, name, 0.0) - getattr(before, name, 0.0) for name in ("idle", "iowait"))
    return 0.0 if spent <= 0 else max(0.0, 1 - idle / spent)
