"""Many processes, one terminal: each line with the name of its process in front, in the colour of that
process."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Mapping
from typing import TextIO

COLOURS = ("\x1b[36m", "\x1b[32m", "\x1b[35m", "\x1b[33m", "\x1b[34m", "\x1b[96m", "\x1b[95m")
RESET = "\x1b[0m"
NAME_WIDTH = 8
#: Lines that are kept of each process, for the case that it dies.
KEPT_LINES = 20


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Decide about colour as https://no-color.org and its counterpart FORCE_COLOR have it."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


class Output:
    """Writes lines of many processes to one stream; safe to use from many threads."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._lock = threading.Lock()
        self._colours = itertools.cycle(COLOURS)
        self._colour_of: dict[str, str] = {}
        self._kept: dict[str, deque[str]] = {}
        self._pumps: dict[str, threading.Thread] = {}
        #: True once nobody reads what we write (the terminal is closed, or the pipe's reader has ended).
        self.broken = False

    def line(self, name: str, text: str) -> None:
        """Write one line of the process ``name`` and remember it."""
        with self._lock:
            self._kept.setdefault(name, deque(maxlen=KEPT_LINES)).append(text)
            colour = self._colour_of.setdefault(name, next(self._colours)) if self._colour else ""
            end = RESET if self._colour else ""
            self._write(f"{colour}{name:<{NAME_WIDTH}} │{end} {text}\n")

    def plain(self, text: str) -> None:
        """Write text as it is, between two lines."""
        with self._lock:
            self._write(text if text.endswith("\n") else f"{text}\n")

    def last_lines(self, name: str) -> list[str]:
        """Return the last lines of a process."""
        with self._lock:
            return list(self._kept.get(name, ()))

    def forget(self, name: str) -> None:
        """Drop the remembered lines of a process that is started anew."""
        with self._lock:
            self._kept.pop(name, None)

    def pump(self, name: str) -> int:
        """Return the descriptor that a process shall write to; a thread reads it until the process has closed it.

        The caller closes its copy of the descriptor when the process has been started.
        """
        reading, writing = os.pipe()
        thread = threading.Thread(target=self._copy, args=(name, reading), name=f"log of {name}", daemon=True)
        self._pumps[name] = thread
        thread.start()
        return writing

    def drain(self, name: str, timeout: float = 1.0) -> None:
        """Wait up to ``timeout`` seconds until all that a process wrote has been read."""
        thread = self._pumps.pop(name, None)
        if thread is not None:
            thread.join(timeout)

    def _copy(self, name: str, reading: int) -> None:
        with open(reading, encoding="utf-8", errors="replace") as pipe:
            for text in pipe:
                self.line(name, text.rstrip("\r\n"))

    def _write(self, text: str) -> None:
        if self.broken:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self.broken = True
