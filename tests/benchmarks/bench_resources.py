"""What watching costs: a measurement, a report, a resource check, a cycle of balancing with 10,000 waiting step runs.

    python -m tests.benchmarks.bench_resources [--json PATH] [--rounds 100] [--waiting 10000]

Columns are median and p99 in milliseconds, then the mean processor time of this process and Postgres together. The
share of a core that the monitor takes follows from the processor time of a report and how often workers report.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.bench_execution import make_workflow, percentiles, processor_time, queue_executions, servers
from tests.benchmarks.execution_app import stamp

CHECK, CYCLE, SHARE = 10.0, 20.0, 1.0  # bars: milliseconds, milliseconds, percent of a core


def measure(action: Callable[[], Any], rounds: int, processes: list[psutil.Process]) -> dict[str, float]:
    action()
    times, before = [], processor_time(*processes)
    for _ in range(rounds):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    found = percentiles(times)
    spent = (processor_time(*processes) - before) / rounds * 1000
    return {"median": found["p50"], "p99": found["p99"], "cpu": round(spent, 3)}


def actions(waiting: int) -> dict[str, tuple[Callable[[], Any], float | None]]:
    """What is measured, each with its bar for the median."""
    from execution import allocations, demand, pools, process_reports, queues, usage
    from execution.balancing import balance_execution_load
    from execution.resources import Monitor
    from scheduling_project.common import clock

    pools.create("bench", slots=10, actor="bench")
    queues.set_age_limit("default", 1, actor="bench")
    queue_executions(make_workflow(), waiting)
    monitor = Monitor()

    def report(name: str = "w0@bench") -> None:
        process_reports.report_process(
            name,
            kind="worker",
            host="bench",
            pid=1,
            queues=["io"],
            own_queues=["io"],
            slots=4,
            resources=monitor.measure().as_json(),
            sample=True,
        )

    for number in range(20):
        report(f"w{number}@bench")
    return {
        "measure": (monitor.measure, CHECK),
        "report": (report, None),
        "check availability": (lambda: allocations.check_resource_availability("bench"), CHECK),
        "balance": (lambda: balance_execution_load(force=True), CYCLE),
        "resources": (lambda: usage.resources(now=clock.now()), None),
        "demand": (lambda: demand.demand(now=clock.now()), None),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--waiting", type=int, default=10_000)
    options = parser.parse_args()
    os.environ[stamp.VARIABLE] = os.devnull
    found = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, servers(Path(name), durable=True) as pid:
        from django.conf import settings

        period: float = settings.WORKFLOW_REPORT_SECONDS
        postgres = psutil.Process(pid)
        for label, (action, bar) in actions(options.waiting).items():
            processes = [psutil.Process(), postgres, *postgres.children()]
            line = found[label] = measure(action, options.rounds, processes)
            shown = "" if bar is None else f"   bar {bar:g} ms: {'kept' if line['median'] <= bar else 'BROKEN'}"
            print(f"{label:20} {line['median']:8.2f} {line['p99']:8.2f} {line['cpu']:8.2f}{shown}")
        share = found["report"]["cpu"] / period / 10
        print(f"monitor: {share:.2f} % of a core, bar {SHARE:g} %: {'kept' if share < SHARE else 'BROKEN'}")
    if options.json:
        options.json.write_text(json.dumps({"share": share, "operations": found}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
