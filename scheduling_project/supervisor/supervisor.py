"""Start processes in an order, watch them, and stop them in the reverse order.

Nothing in here knows what the processes are for; ``stack.py`` does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from scheduling_project.supervisor.guard import DEFAULT_PLAN
from scheduling_project.supervisor.output import Output
from scheduling_project.supervisor.process import CannotStart, GuardedProcess

OWN_NAME = "up"
#: How often the processes are looked at, in seconds.
POLL = 0.1
#: All has ended this many seconds after the request to stop, whatever it takes.
STOP_TIMEOUT = 9.0


class StopRequested(Exception):
    """Somebody asked for an end: Ctrl-C, SIGTERM, or nobody reads our output any more."""


class ServiceDied(Exception):
    """A process ended that should not have; ``lines`` are the last ones it wrote."""

    def __init__(self, name: str, code: int | None, lines: list[str]) -> None:
        how = "could not be started" if code is None else describe_exit(code)
        super().__init__(f"{name} {how}")
        self.name = name
        self.code = code
        self.lines = lines


class NotReady(Exception):
    """Something did not become ready in time; the message says what."""


def describe_exit(code: int) -> str:
    """Say in words how a process ended.

    >>> describe_exit(3), describe_exit(137)
    ('ended with exit code 3', 'was ended by signal SIGKILL')
    """
    if code > 128:
        try:
            return f"was ended by signal {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return f"ended with exit code {code}"


@dataclass(frozen=True)
class Service:
    """One process to run: its command, and how it is stopped."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    plan: str = DEFAULT_PLAN
    #: Seconds that the others wait for its end before they are stopped as well.
    patience: float = 1.5
    #: Send the signals of the plan to the process only: it ends its children itself.
    leader_only: bool = False
    #: Started anew when the code changes.
    reloads: bool = False


@dataclass
class _Running:
    name: str
    process: GuardedProcess
    tail: Callable[[], list[str]]
    patience: float
    service: Service | None = None
    #: It ended after a change of the code: not an emergency, the next change starts it anew.
    broken_by_change: bool = False


class Supervisor:
    """The processes of one ``up``, in the order in which they were started."""

    def __init__(self, output: Output, *, cwd: Path | None = None, stop_timeout: float = STOP_TIMEOUT) -> None:
        self.output = output
        self._cwd = cwd
        self._stop_timeout = stop_timeout
        self._running: list[_Running] = []
        self._stop_requests = 0
        self._changed: set[str] = set()
        self._change = threading.Lock()

    # Requests from outside

    def listen_to_signals(self) -> None:
        """Let Ctrl-C, SIGTERM and a closed terminal request the stop; a second Ctrl-C hurries it."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requests += 1

    def request_stop(self) -> None:
        """Ask for the end, as Ctrl-C does; callable from any thread."""
        self._stop_requests += 1

    def code_changed(self, paths: Iterable[str]) -> None:
        """Note changed source files; the processes that reload are started anew soon. Callable from any
        thread."""
        with self._change:
            self._changed.update(paths)

    # Starting

    def adopt(
        self, name: str, process: GuardedProcess, tail: Callable[[], list[str]], *, patience: float = 1.5
    ) -> None:
        """Take responsibility for a process that runs already."""
        self._running.append(_Running(name, process, tail, patience))

    def start(self, service: Service) -> None:
        """Start a process. Raises ``ServiceDied`` when it cannot be run at all."""
        self._running.append(self._launch(service))

    def run(self, service: Service) -> None:
        """Run a process to its end. Raises ``ServiceDied`` when it, or another one, fails, or
        ``StopRequested``."""
        running = self._launch(service)
        try:
            while (code := running.process.poll()) is None:
                self.check()
                time.sleep(POLL)
            if code != 0:
                self.output.drain(service.name)
                raise ServiceDied(service.name, code, self.output.last_lines(service.name))
        finally:
            running.process.stop(timeout=2.0)
            self.output.drain(service.name)

    def _launch(self, service: Service) -> _Running:
        descriptor = self.output.pump(service.name)
        try:
            process = GuardedProcess.start(
                service.command,
                output=descriptor,
                env={**os.environ, **service.env},
                cwd=self._cwd,
                plan=service.plan,
                leader_only=service.leader_only,
            )
        except CannotStart as error:
            raise ServiceDied(service.name, None, [str(error)]) from error
        finally:
            os.close(descriptor)
        return _Running(service.name, process, lambda: self.output.last_lines(service.name), service.patience, service)

    # Watching

    def check(self) -> None:
        """Look at everything once. Raises ``ServiceDied`` or ``StopRequested``."""
        if self._stop_requests or self.output.broken:
            raise StopRequested
        for running in self._running:
            code = running.process.poll()
            if code is not None and not running.broken_by_change:
                self.output.drain(running.name)
                raise ServiceDied(running.name, code, running.tail())

    def wait_for(self, ready: Callable[[], str | None], *, timeout: float, interval: float = 0.5) -> None:
        """Ask ``ready`` every ``interval`` seconds until it answers None.

        Its last answer, what is missing, becomes the message of the ``NotReady``. Raises ``NotReady`` after
        ``timeout`` seconds, ``ServiceDied`` or ``StopRequested`` before that.
        """
        deadline = time.monotonic() + timeout
        while (missing := ready()) is not None:
            self.check()
            if time.monotonic() > deadline:
                raise NotReady(missing)
            time.sleep(interval)

    def watch(self) -> None:
        """Watch until something ends it: raises ``ServiceDied`` or ``StopRequested``, never returns."""
        while True:
            self.check()
            with self._change:
                changed, self._changed = self._changed, set()
            if changed:
                self._reload(changed)
            time.sleep(POLL)

    def _reload(self, changed: set[str]) -> None:
        """Start the processes that run our code anew. One that fails now waits for the next change."""
        shown = ", ".join(sorted(Path(path).name for path in changed)[:3])
        names = [running.name for running in self._running if running.service and running.service.reloads]
        self.output.line(OWN_NAME, f"{shown} changed: restarting {', '.join(names)}")
        affected = [running for running in self._running if running.name in names]
        for running in affected:
            running.process.ask_to_stop()
        for position, running in enumerate(self._running):
            if running in affected and running.service:
                self._stop(running, time.monotonic() + running.patience, requests=self._stop_requests)
                self.output.forget(running.name)
                self._running[position] = self._launch(running.service)
        self._watch_the_restarted(names)

    def _watch_the_restarted(self, names: list[str], settle: float = 5.0) -> None:
        """For some seconds after a change an early end is taken for a mistake in that change."""
        deadline = time.monotonic() + settle
        while time.monotonic() < deadline and not self._stop_requests and not self._changed:
            for running in self._running:
                code = running.process.poll()
                if running.name in names and code is not None and not running.broken_by_change:
                    running.broken_by_change = True
                    self.output.line(
                        OWN_NAME,
                        f"{running.name} {describe_exit(code)} after the change: it starts again with the next change",
                    )
            time.sleep(POLL)

    # Stopping

    def stop_all(self) -> None:
        """Stop everything in the reverse order, within the stop timeout. A further request to stop hurries
        it."""
        deadline = time.monotonic() + self._stop_timeout
        requests = self._stop_requests
        for running in reversed(self._running):
            self._stop(running, min(deadline, time.monotonic() + running.patience), requests=requests)
        self._running.clear()

    def _stop(self, running: _Running, until: float, *, requests: int) -> None:
        """Stop one process: in peace ``until`` then, or until the number of stop requests exceeds
        ``requests``."""
        running.process.ask_to_stop()
        hurried = False
        while running.process.wait(POLL / 2) is None:
            if time.monotonic() >= until or self._stop_requests > requests:
                if not hurried:
                    self.output.line(OWN_NAME, f"{running.name} does not end by itself: forcing it")
                hurried = True
                running.process.hurry()
                running.process.wait(0.4)
        self.output.drain(running.name)
