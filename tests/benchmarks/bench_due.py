"""From a due instant to the body of its step, and what a whole installation costs while 1,000 schedules are active.

    python -m tests.benchmarks.bench_due [--instants 200] [--seconds 60] [--json PATH] [--no-fsync]

Starts its own Postgres and Redis (a commit waits for the disk), a real beat and a real worker of two processes.

- due → body: one schedule that is due every second, on an idle worker; milliseconds from the instant itself, as it
  stands on the clock, until the step's body runs.
- active schedules: 1,000 that each fire every ten minutes, one or two a second.
  Processor time of beat, worker, Postgres and Redis together, in percent of the whole machine, and their memory:
  what each has for itself plus its share of what several have in common (PSS).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.benchmarks.bench_execution import make_workflow, percentiles, processor_time, servers
from tests.benchmarks.execution_app import stamp

if TYPE_CHECKING:
    from execution.models import Workflow

SLOTS = 2
ACTIVE = 1_000


def tree() -> list[psutil.Process]:
    """Everything that this run has started: servers, beat and worker, with their children."""
    return [process for process in psutil.Process().children(recursive=True) if process.is_running()]


def weight(processes: list[psutil.Process]) -> float:
    """MB of memory, counting once what they share."""
    return sum(process.memory_full_info().pss for process in processes) / 2**20


def due_to_body(workflow: Workflow, stamps: Path, instants: int) -> dict[str, float]:
    """Milliseconds from each instant of a schedule that is due every second."""
    from schedules import lifecycle

    made = lifecycle.create(
        actor="bench",
        name="every second",
        workflow=workflow.name,
        spec={"timetables": [{"kind": "cron", "expression": "* * * * * *"}]},
        overlap_policy="allow_all",
    )
    warm_up = 5
    before = stamp.count(stamps)
    deadline = time.monotonic() + 10 * instants + 60
    while stamp.count(stamps) < before + instants + warm_up:
        if time.monotonic() > deadline:
            raise TimeoutError("the schedule does not fire")
        time.sleep(0.2)
    lifecycle.delete(made.pk, actor="bench")
    # The body runs within the second that it belongs to, or it is late by more than that and shows as such below.
    ran = sorted(stamp.read(stamps)[before + warm_up :])
    first = int(ran[0])
    return percentiles([at - (first + number) for number, at in enumerate(ran)])


def active(workflow: Workflow, stamps: Path, seconds: float) -> dict[str, Any]:
    """Processor time and memory of everything, with `ACTIVE` schedules."""
    from schedules import lifecycle

    for number in range(ACTIVE):
        second, minute = number % 60, number // 60 % 10
        lifecycle.create(
            actor="bench",
            name=f"active {number}",
            workflow=workflow.name,
            spec={"timetables": [{"kind": "cron", "expression": f"{second} {minute}-59/10 * * * *"}]},
            overlap_policy="allow_all",
        )
    time.sleep(5)
    processes = tree()
    ran, used, begun = stamp.count(stamps), processor_time(*processes), time.perf_counter()
    time.sleep(seconds)
    passed = time.perf_counter() - begun
    return {
        "fires": stamp.count(stamps) - ran,
        "percent_of_machine": round((processor_time(*processes) - used) / passed / (os.cpu_count() or 1) * 100, 2),
        "memory_mb": round(weight(processes), 1),
        "seconds": round(passed, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--instants", type=int, default=200, help="seconds for which the one schedule fires")
    parser.add_argument("--seconds", type=float, default=60, help="how long the active schedules are looked at")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-fsync", action="store_true", help="Postgres does not wait for the disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, servers(Path(name), durable=not options.no_fsync):
        from scheduling_project.drills.processes import Processes, environment

        workflow = make_workflow()
        stamps = Path(name) / "stamps"
        started = Processes(
            Path(name), environment(EXTRA_APPS=os.environ["EXTRA_APPS"], **{stamp.VARIABLE: str(stamps)})
        )
        try:
            started.worker(slots=SLOTS)
            started.beat()
            result: dict[str, Any] = {"due_to_body_ms": due_to_body(workflow, stamps, options.instants)}
            row = result["due_to_body_ms"]
            print(f"due → body on an idle worker   p50 {row['p50']:.1f} ms (bar 12)   p99 {row['p99']:.1f} ms (bar 40)")
            result["active"] = active(workflow, stamps, options.seconds)
            row = result["active"]
            print(
                f"{ACTIVE:,} active schedules: {row['percent_of_machine']:.2f} % of the machine (bar 5), "
                f"{row['memory_mb']:.0f} MB, {row['fires']} fires in {row['seconds']:.0f} s"
            )
        finally:
            started.stop()
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
