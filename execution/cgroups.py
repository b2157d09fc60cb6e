"""What a container may use: the limits of Linux control groups, of both versions. Reads files, changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
#: Version 1 says "no limit" with the largest multiple of a page below 2^63.
NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Limits:
    """What the process may use, None where nothing limits it, and what its group uses.

    `memory_used` leaves out the page cache that the kernel would give back first.
    """

    memory_bytes: int | None = None
    memory_used: int | None = None
    cores: float | None = None
    cpu_seconds: float | None = None


def limits(*, root: Path = ROOT, membership: Path = Path("/proc/self/cgroup")) -> Limits:
    """The tightest limits of this process's group and of those around it; none where there are no control groups."""
    paths = _paths(membership)
    if (root / "cgroup.controllers").exists():
        return _version_2(list(_upwards(root, paths.get("", "/"))))
    return _version_1(
        list(_upwards(root / "memory", paths.get("memory", "/"))), list(_upwards(root / "cpu", paths.get("cpu", "/")))
    )


def _paths(membership: Path) -> dict[str, str]:
    """Controller → path of this process's group; the empty name is version 2."""
    found = {}
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in controllers.split(","):
            found[name] = path
    return found


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The folders of a group and of those around it, as far as they are to be seen from here."""
    folder = root / path.strip("/")
    while folder != root and root in folder.parents:
        if folder.is_dir():
            yield folder
        folder = folder.parent
    yield root


def _version_2(folders: list[Path]) -> Limits:
    own = folders[0]
    cores = []
    for folder in folders:
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and _whole(period):
            cores.append(int(quota) / int(period))
    memory = [size for folder in folders if (size := _whole(_text(folder / "memory.max"))) is not None]
    usage = _table(own / "cpu.stat").get("usage_usec")
    return Limits(
        memory_bytes=min(memory, default=None),
        memory_used=_used(_whole(_text(own / "memory.current")), _table(own / "memory.stat").get("inactive_file", 0)),
        cores=min(cores, default=None),
        cpu_seconds=None if usage is None else usage / 1e6,
    )


def _version_1(memory: list[Path], cpu: list[Path]) -> Limits:
    cores = []
    for folder in cpu:
        quota, period = _whole(_text(folder / "cpu.cfs_quota_us")), _whole(_text(folder / "cpu.cfs_period_us"))
        if quota and period:
            cores.append(quota / period)
    sizes = [_whole(_text(folder / "memory.limit_in_bytes")) for folder in memory]
    usage = _whole(_text(cpu[0] / "cpuacct.usage"))
    return Limits(
        memory_bytes=min((size for size in sizes if size is not None and size < NO_LIMIT), default=None),
        memory_used=_used(
            _whole(_text(memory[0] / "memory.usage_in_bytes")),
            _table(memory[0] / "memory.stat").get("total_inactive_file", 0),
        ),
        cores=min(cores, default=None),
        cpu_seconds=None if usage is None else usage / 1e9,
    )


def _used(current: int | None, cache: int) -> int | None:
    return None if current is None else max(0, current - cache)


def _text(path: Path) -> str:
    """The file's text, empty where there is none or it may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _whole(text: str) -> int | None:
    """The number in a file; None for ``max``, ``-1`` and nothing."""
    return int(text) if text.isdecimal() else None


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
