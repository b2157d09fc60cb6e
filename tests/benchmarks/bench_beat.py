"""What a beat weighs and costs: memory, time to be ready, idle processor time, and how soon an edit takes effect.

    python -m tests.benchmarks.bench_beat            a table
    python -m tests.benchmarks.bench_beat --json     one JSON object
    python -m tests.benchmarks.bench_beat --quick    short looks, no large tables

Starts its own Postgres and Redis, and real `celery … beat` processes. Memory is in MB: resident (RSS), and as the
process's share of what several processes have in common (PSS). Bytecode is compiled beforehand, as an installed
system has it. An edit takes effect when the ledger entry of the fire that it makes due is committed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks import bench_fire

ROOT = Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
START_TIMEOUT = 120.0
CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "scheduling_project", "beat")
LEAN = (sys.executable, "-m", "scheduling_project.lean_beat", "--quiet", "-A", "scheduling_project", "beat")


@contextmanager
def beat(folder: Path, command: tuple[str, ...] = CELERY) -> Iterator[tuple[int, float]]:
    """A beat: its process id, and the seconds until it was ready to fire (its first sign of life)."""
    from execution.models import ProcessReport

    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    with (folder / "beat.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not ProcessReport.objects.filter(kind="beat", pid=process.pid, stopped_at=None).exists():
                if process.poll() is not None or time.perf_counter() - begun > START_TIMEOUT:
                    raise RuntimeError(f"the beat did not start:\n{(folder / 'beat.log').read_text()[-2000:]}")
                time.sleep(0.01)
            yield process.pid, time.perf_counter() - begun
        finally:
            process.terminate()
            process.wait(30)


def memory(pid: int) -> tuple[float, float]:
    """RSS and PSS in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(size) / 1024 for name, size in re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.MULTILINE)}
    return found["Rss"], found["Pss"]


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def idle(pid: int, seconds: float) -> float:
    """Percent of one core over `seconds`."""
    before, begun = cpu_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.perf_counter() - begun)


def pick_up(count: int, change: Callable[[object], float]) -> list[float]:
    """Milliseconds from the moment that `change` returns (of `perf_counter`) until the ledger entry of its fire is
    committed, `count` times."""
    from django.db import connections

    from schedules.models import Schedule, ScheduleFire

    times = []
    with connections["default"].cursor() as cursor:
        cursor.execute("SET schedules.quiet = 'off'")
    for schedule in Schedule.objects.order_by("id")[:count]:
        seen = ScheduleFire.objects.filter(schedule=schedule).count()
        begun = change(schedule)
        while ScheduleFire.objects.filter(schedule=schedule).count() == seen:
            if time.perf_counter() - begun > START_TIMEOUT:
                raise RuntimeError("an edit had no effect")
            time.sleep(0.0005)
        times.append((time.perf_counter() - begun) * 1000)
    return times


def by_sql(schedule: object) -> float:
    """Make it due by plain SQL, as a stranger would; the moment is before the statement."""
    from django.db import connections

    begun = time.perf_counter()
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "UPDATE schedules_schedule SET next_fire_at = now(), "
            "fired_through = date_trunc('hour', now()) - interval '1 second' WHERE id = %s",
            [schedule.pk],  # type: ignore[attr-defined]
        )
    return begun


def by_function(schedule: object) -> float:
    """Give it a timing with an instant 50 ms from now; the moment is that instant."""
    from datetime import timedelta

    from schedules import lifecycle
    from scheduling_project.common import clock

    soon = clock.now().replace(microsecond=0) + timedelta(seconds=1)
    time.sleep(max(0.0, (soon - clock.now()).total_seconds() - 0.05))
    spec = {"timetables": [{"kind": "once", "at": soon.isoformat()}]}
    lifecycle.update(schedule.pk, {"spec": spec}, actor="bench")  # type: ignore[attr-defined]
    return time.perf_counter() + (soon - clock.now()).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="short looks, no large tables")
    options = parser.parse_args()
    servers = bench_fire.prepare(in_flight="1000000")
    from django.db import connections

    results: dict[str, float] = {}

    def note(name: str, value: float, bar: str = "") -> None:
        results[name] = round(value, 3)
        sys.stdout.write(f"{name:<54} {results[name]:>10,.2f}  {bar}\n")
        sys.stdout.flush()

    seconds = 5.0 if options.quick else 20.0
    try:
        with tempfile.TemporaryDirectory(prefix="bench-beat-") as name:
            folder = Path(name)
            with beat(folder):
                pass  # compiles
            sizes = (0, 1_000) if options.quick else (0, 1_000, 100_000, 1_000_000)
            for total in sizes:
                bench_fire.fill(total)
                with beat(folder) as (pid, ready):
                    share = idle(pid, seconds)
                    rss, pss = memory(pid)
                    note(f"RSS with {total:,} schedules, MB", rss, "(bar 80)")
                    note(f"PSS with {total:,} schedules, MB", pss)
                    note(f"idle with {total:,} schedules, % of a core", share, "(bar 0.5)")
                    if not total:
                        note("ready after the celery command, s", ready)
            with beat(folder, LEAN) as (_, ready):
                note("ready as make run starts it, s", ready, "(bar 2)")
            bench_fire.fill(1_000)
            with beat(folder):
                times = pick_up(20 if options.quick else 200, by_sql)
                note("an edit by SQL fires, p50 ms", statistics.median(times))
                note("an edit by SQL fires, p99 ms", statistics.quantiles(times, n=100)[98], "(bar 20)")
                times = pick_up(3 if options.quick else 30, by_function)
                note("an edit by function 50 ms ahead fires late by, p50 ms", statistics.median(times))
            note("evaluation of one schedule, ms", bench_fire.evaluation(), "(bar 0.1)")
    finally:
        connections.close_all()
        servers.stop()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
