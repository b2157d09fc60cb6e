"""A child process that cannot outlive us, seen from the supervisor's side (the other side is ``guard.py``)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from scheduling_project.supervisor import guard

GUARD_SCRIPT = Path(guard.__file__).resolve()
#: Seconds the guard may take to say that it started the command.
START_TIMEOUT = 20.0


class CannotStart(RuntimeError):
    """The command could not be run at all; the message says why."""


class GuardedProcess:
    """A running command behind a guard.

    ``stop()`` and the death of this Python process do the same thing: the line to the guard closes and the
    guard ends the command by its plan. The command runs in a session of its own, so a Ctrl-C in the
    terminal reaches only the supervisor, which then decides on the order.
    """

    def __init__(self, popen: subprocess.Popen[bytes], line: socket.socket, pid: int) -> None:
        self._popen = popen
        self._line = line
        #: Process id of the command itself (and id of its process group).
        self.pid = pid

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        output: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        plan: str = guard.DEFAULT_PLAN,
        user: int | None = None,
        group: int | None = None,
        leader_only: bool = False,
    ) -> GuardedProcess:
        """Run ``command`` behind a guard and return once it has been executed.

        ``output`` receives standard output and standard error (default: ours). ``plan`` holds the signals
        of the stop with the seconds to wait after each. Raises ``CannotStart``.
        """
        guard.parse_plan(plan)
        ours, theirs = socket.socketpair()
        arguments = [sys.executable, "-I", str(GUARD_SCRIPT), "--plan", plan]
        if user is not None:
            arguments += ["--user", str(user)]
        if group is not None:
            arguments += ["--group", str(group)]
        if leader_only:
            arguments += ["--leader-only"]
        try:
            popen = subprocess.Popen(
                [*arguments, "--", *command],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise CannotStart(f"cannot run {sys.executable}: {error}") from error
        finally:
            theirs.close()
        try:
            pid = _read_pid(ours)
        except CannotStart:
            ours.close()
            popen.wait()
            raise
        return cls(popen, ours, pid)

    def poll(self) -> int | None:
        """Return the exit code of the command when it has ended, else None."""
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to ``timeout`` seconds for the end; None when it still runs."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def ask_to_stop(self) -> None:
        """Let the guard begin its plan; return at once. Safe to call again."""
        self._line.close()

    def hurry(self) -> None:
        """Let the guard go on to the next signal of its plan now (the last one is a kill)."""
        if self._popen.poll() is None:
            self._popen.terminate()

    def stop(self, timeout: float = 30.0) -> int:
        """End the command and wait for it; after ``timeout`` seconds, hurry the guard to its last signal."""
        self.ask_to_stop()
        code = self.wait(timeout)
        while code is None:
            self.hurry()
            code = self.wait(0.3)
        return code


def _read_pid(line: socket.socket) -> int:
    """Read the guard's first line: the command's process id, or why there is none."""
    deadline = time.monotonic() + START_TIMEOUT
    received = b""
    while not received.endswith(b"\n"):
        line.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            chunk = line.recv(4096)
        except TimeoutError:
            raise CannotStart(f"no answer within {START_TIMEOUT:.0f} s") from None
        if not chunk:
            raise CannotStart("the guard process ended before it could run the command")
        received += chunk
    word, _, rest = received.decode(errors="replace").strip().partition(" ")
    if word != "pid":
        raise CannotStart(rest)
    line.settimeout(None)
    return int(rest)
