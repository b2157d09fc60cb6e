"""The optimiser: how fast it looks ahead, and whether what it foresees is what happens.

    python -m tests.benchmarks.bench_optimizer [--schedules 1000] [--json PATH]

Starts its own Postgres and Redis. Two parts:

- speed: a report over 30 days of 1,000 schedules (and over 1,000 with ten times as many fires), stage by stage.
- reality: a night in fast motion, sixty seconds in one. Schedules that all fire at 02:00, with known durations, run on
  a real worker of two processes, once as they are and once as the optimiser spreads them. Beside each stands what the
  simulation says of the same night; the error is theirs in seconds and as a part of the measured wait.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_execution import SLOTS, servers

FAST = 60
JOBS = 48
#: A night begins here: the fires of one day are looked at.
NIGHT = datetime(2026, 3, 4, tzinfo=UTC)


def add_schedules(count: int, expressions: Sequence[str]) -> None:
    """So many schedules of one workflow, written in bulk."""
    from execution import workflows
    from execution.models import Workflow
    from schedules.models import Schedule, ScheduleVersion
    from schedules.timing.occurrences import normalise
    from scheduling_project.common import clock

    workflow = Workflow.objects.filter(name="bench").first() or workflows.create(
        "bench", {"steps": {"work": {"task": "bench.sleep", "with": {"seconds": 1}}}}, actor="bench"
    )
    Schedule.objects.update(version=None)
    Schedule.objects.all().delete()
    now = clock.now()
    rows = [
        Schedule(name=f"s{i:06}", workflow=workflow, fired_through=now, overlap_policy="allow_all")
        for i in range(count)
    ]
    Schedule.objects.bulk_create(rows, batch_size=2_000)
    versions = [
        ScheduleVersion(
            schedule=row,
            number=1,
            effective_from=now,
            spec=normalise({"timetables": [{"kind": "cron", "expression": expressions[i % len(expressions)]}]}),
            tzdata="bench",
        )
        for i, row in enumerate(rows)
    ]
    ScheduleVersion.objects.bulk_create(versions, batch_size=2_000)
    for row, version in zip(rows, versions, strict=True):
        row.version = version
    Schedule.objects.bulk_update(rows, ["version"], batch_size=2_000)


def speed(schedules: int) -> list[dict[str, Any]]:
    """A report's seconds per stage, for daily and for mixed schedules."""
    from schedules import optimization

    hourly = ["0 * * * *", "*/30 * * * *", "0 2 * * *", "15 */4 * * *"]
    found = []
    for label, count, expressions in (
        ("daily at 02:00", schedules, ["0 2 * * *"]),
        ("hourly and daily", schedules, hourly),
        ("hourly and daily, 10x", schedules * 10, ["0 2 * * *", "0 */6 * * *"]),
    ):
        add_schedules(count, expressions)
        stages: dict[str, float] = {}
        last = [time.perf_counter(), ""]

        def told(what: str, part: float, stages: dict[str, float] = stages, last: list[Any] = last) -> None:
            now = time.perf_counter()
            stages[last[1] or what] = stages.get(last[1] or what, 0.0) + now - last[0]
            last[:] = [now, what]

        began, cpu = time.perf_counter(), time.process_time()
        report = optimization.report(actor="bench", days=30, progress=told)
        found.append(
            {
                "load": label,
                "schedules": count,
                "executions": report.before["executions"],
                "proposals": report.changes.count(),
                "seconds": round(time.perf_counter() - began, 2),
                "cpu_seconds": round(time.process_time() - cpu, 2),
                "stages": {name: round(value, 2) for name, value in stages.items()},
                "wait_p95_before": round(report.before["wait_p95"], 1),
                "wait_p95_after": round(report.after["wait_p95"], 1),
            }
        )
    return found


def reality(folder: Path) -> dict[str, Any]:
    """The same night simulated and run, crowded and spread."""
    from execution import workflows
    from execution.simulation import Capacity, Group, Profile, Stage
    from schedules import load_model, optimizer
    from schedules.optimizer import Fact
    from schedules.placement import placement_of
    from schedules.timing import occurrences
    from scheduling_project.drills.processes import Processes, environment

    dice = random.Random(7)
    start = int(NIGHT.timestamp())
    end = start + 86_400
    workflow = workflows.create(
        "night",
        {"steps": {"work": {"task": "bench.sleep", "with": {"seconds": "${{ input.seconds }}"}}}},
        actor="bench",
    )
    spec = occurrences.normalise({"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]})
    facts, lasts = [], {}
    for number in range(JOBS):
        name = f"job{number:02}"
        lasts[name] = float(dice.randint(20, 100))
        profile = Profile("night", ((Stage("work", (lasts[name],), queue="default"),),))
        fires = load_model.fires_of(occurrences.compile(spec, seed=name), start - 1, end - 1)
        facts.append(
            Fact(
                name,
                name,
                "night",
                spec,
                fires,
                profile,
                placement_of({}),
                lasts[name],
                lasts[name],
                6,
                "allow_all",
                None,
                1,
            )
        )
    capacity = Capacity((Group(frozenset({"default"}), SLOTS),))
    model = load_model.Model(
        start,
        end,
        facts,
        [load_model.load_of(fact) for fact in facts],
        capacity,
        patterns=None,  # type: ignore[arg-type]
    )
    crowded = model.simulate()
    found = optimizer.optimize_schedule_distribution(facts, capacity, start=start, end=end, outcome=crowded)
    fires = {
        one.subject: load_model.fires_of(occurrences.compile(one.changes["spec"], seed=one.subject), start - 1, end - 1)
        for one in found
        if one.kind == "move"
    }
    spread = model.simulate(fires=fires)
    processes = Processes(folder, environment(EXTRA_APPS=os.environ["EXTRA_APPS"]))
    result: dict[str, Any] = {"jobs": JOBS, "moves": len(fires)}
    try:
        processes.worker(slots=SLOTS)
        for label, outcome, own in (("crowded", crowded, {}), ("spread", spread, fires)):
            night = sorted((own.get(fact.id, fact.fires)[0], fact.id) for fact in facts)
            measured = play(workflow, night, lasts)
            simulated = [wait / FAST for key in lasts for wait in outcome.waits_of(key, 1.0)]
            result[label] = compare(simulated, measured)
    finally:
        processes.stop()
    return result


def play(workflow: Any, night: Sequence[tuple[int, str]], lasts: dict[str, float]) -> list[float]:
    """Start each at its instant, in fast motion; the seconds that each waited for its first step."""
    from execution import creation
    from execution.models import Execution

    first = night[0][0]
    began = time.monotonic() + 1
    ids = []
    for instant, name in night:
        time.sleep(max(0.0, began + (instant - first) / FAST - time.monotonic()))
        ids.append(creation.start(workflow, input={"seconds": lasts[name] / FAST}).pk)
    limit = time.monotonic() + 120
    while Execution.objects.filter(pk__in=ids, finished_at=None).exists():
        if time.monotonic() > limit:
            raise TimeoutError("the night did not end")
        time.sleep(0.2)
    rows = Execution.objects.filter(pk__in=ids).values_list("created_at", "started_at")
    return [max(timedelta(0), started - created).total_seconds() for created, started in rows if started]


def compare(simulated: Sequence[float], measured: Sequence[float]) -> dict[str, Any]:
    def figures(values: Sequence[float]) -> dict[str, float]:
        ordered = sorted(values)
        return {
            "mean": round(statistics.fmean(ordered), 3),
            "p50": round(ordered[len(ordered) // 2], 3),
            "p95": round(ordered[int(len(ordered) * 0.95)], 3),
            "max": round(ordered[-1], 3),
        }

    one, other = figures(simulated), figures(measured)
    error = other["mean"] - one["mean"]
    return {
        "simulated": one,
        "measured": other,
        "error_seconds": round(error, 3),
        "error_share": round(error / other["mean"], 3) if other["mean"] else 0.0,
    }


def show(result: dict[str, Any]) -> None:
    print(f"{'a report over 30 days':<26}{'schedules':>10}{'runs':>10}{'seconds':>9}{'cpu':>7}   p95 wait, then")
    for row in result["speed"]:
        print(
            f"{row['load']:<26}{row['schedules']:>10,}{row['executions']:>10,}{row['seconds']:>9.1f}"
            f"{row['cpu_seconds']:>7.1f}   {row['wait_p95_before']:.1f} s, {row['wait_p95_after']:.1f} s"
        )
    print(
        f"\n{JOBS} jobs at 02:00 on {SLOTS} slots, {FAST} seconds in one    mean    p50    p95    max   seconds waited"
    )
    for label in ("crowded", "spread"):
        for side in ("simulated", "measured"):
            row = result["reality"][label][side]
            print(f"{label + ', ' + side:<48}{row['mean']:>7.2f}{row['p50']:>7.2f}{row['p95']:>7.2f}{row['max']:>7.2f}")
        print(f"{'  error of the mean':<48}{result['reality'][label]['error_seconds']:>7.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, servers(Path(name), durable=True):
        result = {"speed": speed(options.schedules), "reality": reality(Path(name))}
    show(result)
    if options.json:
        facts = {"python": platform.python_version(), "cpus": os.cpu_count()}
        options.json.write_text(json.dumps(facts | result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
