"""The limits that this project must keep, measured, in one table: pass or fail.

    python -m tests.benchmarks.bench_required [--json PATH] [--seconds 60] [--schedules 1000] [--waiting 10000]

The parts are measured in this process, the loads on a whole system (web, beat, a worker of two processes) that is
started for the run, all on one machine with its own Postgres and Redis. Exit code 1 when a limit is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks import bench_cron, bench_fire, bench_queue, bench_resources, bench_webhooks, fleet
from tests.benchmarks.bench_beat import memory
from tests.benchmarks.bench_execution import percentiles, servers
from tests.benchmarks.execution_app import stamp

EVERY = 300  # seconds between two fires of a schedule while the system is looked at
PER_SECOND = 30.0  # webhooks, each sent twice


@dataclass(frozen=True)
class Limit:
    """One line of the table. `least` turns the comparison round."""

    name: str
    bar: float
    unit: str
    measured: float
    least: bool = False
    note: str = ""

    @property
    def kept(self) -> bool:
        return self.measured >= self.bar if self.least else self.measured <= self.bar


def validation() -> float:
    """Milliseconds to read and check one cron expression that was never seen before."""
    from schedules.timing import cron

    lines = [f"{minute} {hour} 1-15/2 * MON-FRI" for minute in range(60) for hour in range(24)]
    bench_cron.clear_caches()
    begun = time.perf_counter()
    for line in lines:
        cron.parse(line)
    return (time.perf_counter() - begun) / len(lines) * 1000


def parts(waiting: int) -> list[Limit]:
    """What is measured in this process."""
    from execution.models import Workflow

    door = bench_webhooks.parts(500)
    found = [
        Limit("evaluate one schedule", 10, "ms", bench_fire.evaluation()),
        Limit("validate one cron expression", 1, "ms", validation()),
        Limit("authenticate an API key", 10, "ms", door["auth_ms"]),
        Limit("check a rate limit", 0.5, "ms", door["rate_ms"]),
    ]
    actions = bench_resources.actions(waiting)
    for label, name, bar in (("check availability", "check an allocation", 10.0), ("balance", "balancing cycle", 20.0)):
        action, _ = actions[label]
        action()
        times = []
        for _ in range(50):
            begun = time.perf_counter()
            action()
            times.append(time.perf_counter() - begun)
        found.append(Limit(f"{name}, {waiting:,} waiting", bar, "ms", percentiles(times)["p50"]))
    for name, line in bench_queue.operations(Workflow.objects.get(name="bench"), 200).items():
        if name in {"enqueue", "claim", "finish", "change priority"}:
            found.append(Limit(f"{name}, p50, {waiting:,} waiting", 5, "ms", line["p50"]))
    return found


def loads(folder: Path, postgres: int, *, schedules: int, seconds: float) -> list[Limit]:
    """What is measured on the whole system."""
    from execution.models import Execution

    Execution.objects.all().delete()
    with fleet.started(folder, postgres) as system:
        beat = system.services["beat"][0].pid
        before = memory(beat)[1]
        system.add_schedules(schedules, every=EVERY)
        time.sleep(5)
        began, spent = time.perf_counter(), system.processor_seconds()
        time.sleep(seconds)
        used = sum(system.processor_seconds().values()) - sum(spent.values())
        share = used / (time.perf_counter() - began) / (os.cpu_count() or 1) * 100
        grown = memory(beat)[1] - before
        sender = system.send_webhooks(PER_SECOND)
        began = time.perf_counter()
        time.sleep(seconds)
        sender.stop()
        per_minute = len(sender.accepted) / (time.perf_counter() - began) * 60
        system.stop_schedules()
        wait_until_idle()
        executed = Execution.objects.filter(source_kind="trigger", state="succeeded").count()
        starts = start_delays()
        verdict = system.verdict("load")
    answered = percentiles(sender.seconds)
    return [
        Limit(f"beat's memory for {schedules:,} schedules", 50, "MB", grown),
        Limit(f"all processes, {schedules:,} schedules every {EVERY} s", 5, "% of the machine", share),
        Limit("webhook accepted, p99", 100, "ms", answered["p99"], note=f"p50 {answered['p50']:.1f}"),
        Limit("trigger to execution start, p99", 50, "ms", starts["p99"], note=f"p50 {starts['p50']:.1f}"),
        Limit("events", 1000, "a minute", per_minute, least=True),
        Limit("executions", 100, "a minute", executed / seconds * 60, least=True),
        Limit("success", 99.9, "%", 100 * verdict.succeeded / max(1, verdict.expected), least=True),
        Limit("promises broken", 0, "", len(verdict.problems), note="; ".join(verdict.problems)),
    ]


def wait_until_idle() -> None:
    """Until nothing is open."""
    from execution.models import Execution
    from execution.states import EXECUTION_OPEN
    from scheduling_project.drills.processes import wait_until

    wait_until("all has ended", lambda: not Execution.objects.filter(state__in=EXECUTION_OPEN).exists(), timeout=120)


def start_delays() -> dict[str, float]:
    """Milliseconds from the commit of a triggered execution's row to the claim of its step, by Postgres's clock."""
    from execution.models import Attempt

    rows = Attempt.objects.filter(number=1, step_run__execution__source_kind="trigger").values_list(
        "started_at", "step_run__execution__created_at"
    )
    return percentiles([(started - created).total_seconds() for started, created in rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the two loads")
    parser.add_argument("--schedules", type=int, default=1_000)
    parser.add_argument("--waiting", type=int, default=10_000)
    options = parser.parse_args()
    os.environ[stamp.VARIABLE] = os.devnull
    with tempfile.TemporaryDirectory(prefix="bench-") as name, servers(Path(name), durable=True) as postgres:
        found = loads(Path(name), postgres, schedules=options.schedules, seconds=options.seconds)
        found += parts(options.waiting)
    print(f"{'limit':55} {'bar':>8} {'measured':>10}  unit")
    for line in found:
        note = f" ({line.note})" if line.note else ""
        print(
            f"{line.name:55} {line.bar:8g} {line.measured:10.3f}  {line.unit}{note}  {'pass' if line.kept else 'FAIL'}"
        )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"on {machine}")
    if options.json:
        lines = [asdict(line) | {"kept": line.kept} for line in found]
        options.json.write_text(json.dumps({"machine": machine, "limits": lines}, indent=2))
    return 0 if all(line.kept for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
