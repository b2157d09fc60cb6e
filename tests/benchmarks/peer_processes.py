"""The peers of `bench_execution` as processes: what `tests.benchmarks.peers` has, run by an interpreter of its own.

``make bench`` makes that environment (``requirements-bench.txt``) beside the project's own; where it is missing, the
peers are left out, and that is said.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduling_project.environment import PROJECT_ROOT
from scheduling_project.supervisor.process import GuardedProcess
from tests.benchmarks.execution_app import stamp

VARIABLE = "BENCH_PEERS_PYTHON"
MODULES = "tests.benchmarks.peers"
#: Name of the peer → its module and how its workers are started; each gets as many processes as the engine has.
PEERS: dict[str, tuple[str, Callable[[int], list[list[str]]]]] = {
    "celery_results": (
        "results",
        lambda slots: [
            ["celery", "-A", f"{MODULES}.results", "worker", "-c", str(slots), "-n", "results@bench", "-l", "WARNING"]
        ],
    ),
    "procrastinate": (
        "jobs",
        lambda slots: [["procrastinate", "--app", f"{MODULES}.jobs.app", "worker"]] * slots,
    ),
}
TITLES = {"celery_results": "Celery + results", "procrastinate": "procrastinate"}


def interpreter() -> Path | None:
    """The interpreter of the peers' environment; None where there is none."""
    found = Path(os.environ.get(VARIABLE) or f"{sys.prefix}-bench/bin/python")
    return found if found.exists() else None


class Peer:
    """One of `PEERS`, with its own file of stamps."""

    def __init__(self, name: str, python: Path, folder: Path) -> None:
        self.module, self._workers = PEERS[name]
        self.python = python
        self.folder = folder
        self.stamps = folder / f"{name}.stamps"
        self.environment = os.environ | {stamp.VARIABLE: str(self.stamps), "PYTHONPATH": str(PROJECT_ROOT)}
        del self.environment["DJANGO_SETTINGS_MODULE"]

    def _run(self, *arguments: str) -> None:
        program = f"from {MODULES}.{self.module} import main; main()"
        command = [str(self.python), "-c", program, *arguments]
        subprocess.run(command, check=True, cwd=PROJECT_ROOT, env=self.environment)

    def prepare(self, count: int) -> None:
        """Make its tables, and queue so many runs."""
        self._run("prepare")
        self._run("send", str(count))

    @contextmanager
    def workers(self, slots: int) -> Iterator[Callable[[], list[int]]]:
        """Yields what starts the workers and returns the process ids of their main processes."""
        started: list[GuardedProcess] = []

        def start() -> list[int]:
            with (self.folder / f"{self.module}.log").open("ab") as output:
                started.extend(
                    GuardedProcess.start(
                        [str(self.python), "-m", *command],
                        output=output,
                        env=self.environment,
                        cwd=PROJECT_ROOT,
                        plan="TERM:10,KILL:2",
                    )
                    for command in self._workers(slots)
                )
            return [process.pid for process in started]

        try:
            yield start
        finally:
            for process in started:
                process.stop()
