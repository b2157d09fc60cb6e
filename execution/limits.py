"""Limits of one step: how much memory its process may use.

A thread looks every `PERIOD` seconds at the resident memory of the process that runs the step and of all that the step
started in it. Above the limit it writes the failure itself (the retry policy decides what follows), ends what the step
started, and ends the process: memory that Python has taken is seldom given back, and the next step must not inherit
it. Only a process that runs one step at a time (prefork) can be judged by its memory; a thread pool's is not.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from execution import engine
from scheduling_project.common.logs import get_logger

if TYPE_CHECKING:
    import psutil

log = get_logger(__name__)

PERIOD: Final = 0.25
EXIT_CODE: Final = 76
SIZE: Final = r"^[0-9]{1,12}(?:\.[0-9]{1,3})? ?(?:B|KB|MB|GB|KiB|MiB|GiB)$"
UNITS: Final = {
    "B": 1,
    "KB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
LEAST_MEMORY: Final = 1_000_000
MOST_MEMORY: Final = 1 << 50


class MemoryLimitExceeded(Exception):
    """The step's process used more memory than the step's limit allows."""


def memory_of(limit: int | str) -> int:
    """Bytes of a limit as a definition states it.

    >>> memory_of("500MB"), memory_of("1.5 GiB"), memory_of(2_000_000)
    (500000000, 1610612736, 2000000)

    Raises:
        ValueError: naming the rule it breaks.
    """
    size = limit
    if isinstance(limit, str):
        if re.match(SIZE, limit) is None:
            raise ValueError("must be bytes, or a number with B, KB, MB, GB, KiB, MiB or GiB")
        number, unit = re.split(r"(?<=[0-9]) ?(?=[A-Z])", limit, maxsplit=1)
        size = int(float(number) * UNITS[unit])
    if not LEAST_MEMORY <= int(size) <= MOST_MEMORY:
        raise ValueError(f"must be from 1 MB to {MOST_MEMORY >> 40} TiB")
    return int(size)


@contextlib.contextmanager
def memory_kept(limit: int | None, *, may_exit: bool, fail: Callable[[MemoryLimitExceeded], bool]) -> Iterator[None]:
    """End this process when it uses more than `limit` bytes while the block runs; nothing without a limit.

    Args:
        may_exit: this process runs nothing else.
        fail: writes the failure; False when the step had ended before.
    """
    if limit is None:
        yield
        return
    if not may_exit:
        log.warning("limits.memory_not_kept", reason="this process runs several steps at once")
        yield
        return
    over = threading.Event()
    watching = threading.Lock()
    thread = threading.Thread(target=_watch, args=(limit, over, watching, fail), name="step-memory-limit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with watching:  # not between the look and the end of this process
            over.set()


def _watch(
    limit: int, over: threading.Event, watching: threading.Lock, fail: Callable[[MemoryLimitExceeded], bool]
) -> None:
    import psutil  # here and not above: a beat reads definitions, too, and measures nothing

    from execution.resources import tree_memory

    process = psutil.Process(os.getpid())
    while not over.wait(PERIOD):
        used = tree_memory(process)
        if used <= limit:
            continue
        with watching:
            if over.is_set():
                return
            error = MemoryLimitExceeded(f"used {used / 1e6:,.0f} MB, and its limit is {limit / 1e6:,.0f} MB")
            log.error("limits.memory_exceeded", used=used, limit=limit)
            try:
                written = fail(error)
            except engine.DatabaseAway as away:
                log.warning("limits.not_written", error=str(away))  # it ends all the same: rescued as a lost process
                written = True
            if written:
                _end(process)
            engine.close()
            return


def _end(process: psutil.Process) -> None:
    """End what the step started, and this process."""
    import psutil

    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(EXIT_CODE)
