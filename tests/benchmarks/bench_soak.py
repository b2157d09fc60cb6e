"""Mixed load on the whole system for a long time: what grows, what fails, what is late.

    python -m tests.benchmarks.bench_soak [--json PATH] [--minutes 30] [--schedules 200] [--webhooks 5]

Web, two beats, two workers; schedules every ten seconds and signed webhooks, each sent twice. Every few seconds the
memory of each role and the age of the oldest waiting step are looked at. The verdict compares the second half with the
end of the first quarter, when caches are full: memory and age must be flat, and at the end nothing may be lost,
doubled, failed, or missing in the ledger (`schedules.audit`). Exit code 1 when one of these is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import fleet
from tests.benchmarks.bench_execution import servers
from tests.benchmarks.bench_required import wait_until_idle
from tests.benchmarks.execution_app import stamp

EVERY = 10  # seconds between two fires of a schedule
PAUSE = 5.0  # seconds between two looks
GROWTH = 1.1  # of memory; Postgres fills its buffers first and is only shown
AGE = 5.0  # seconds that the oldest due step may have waited, at the median


def look(system: fleet.Fleet) -> dict[str, float]:
    """Memory in MB by role, and the age in seconds of the oldest due step."""
    from execution import queues
    from scheduling_project.common import clock

    oldest = [at for queue in queues.stats() if (at := queue.oldest_at) is not None]
    age = (clock.now() - min(oldest)).total_seconds() if oldest else 0.0
    return {**system.memory_mb(), "age": max(0.0, age)}


def growth(values: Sequence[float]) -> float:
    """The median of the second half over that of the second quarter."""
    half, quarter = len(values) // 2, len(values) // 4
    return statistics.median(values[half:]) / max(0.1, statistics.median(values[quarter:half]))


def soak(folder: Path, postgres: int, options: argparse.Namespace) -> dict[str, Any]:
    from schedules import audit

    looks: list[dict[str, float]] = []
    with fleet.started(folder, postgres, beats=2, workers=2) as system:
        system.add_schedules(options.schedules, every=EVERY, seconds=0.05)
        sender = system.send_webhooks(options.webhooks, seconds=0.05)
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            time.sleep(PAUSE)
            looks.append(look(system))
        sender.stop()
        system.stop_schedules()
        wait_until_idle()
        verdict = system.verdict("soak")
    audited = audit.audit(schedule_ids=[one.pk for one in system.schedules])
    series = {name: [one[name] for one in looks] for name in looks[0]}
    result: dict[str, Any] = {
        "minutes": options.minutes,
        "memory": {
            name: {"first_mb": values[0], "last_mb": values[-1], "growth": round(growth(values), 3)}
            for name, values in series.items()
            if name != "age"
        },
        "age_seconds": {"median": round(statistics.median(series["age"]), 2), "max": round(max(series["age"]), 2)},
        "verdict": verdict.as_json(),
        "ledger_differences": audited.differences,
    }
    result["problems"] = [
        *verdict.problems,
        *(
            f"the memory of {name} grows: {line['growth']:g}"
            for name, line in result["memory"].items()
            if name != "postgres" and line["growth"] > GROWTH
        ),
        *([f"steps wait {result['age_seconds']['median']} s"] if result["age_seconds"]["median"] > AGE else []),
        *([f"{audited.differences} differences in the ledger"] if audited.differences else []),
    ]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--webhooks", type=float, default=5.0, help="a second")
    options = parser.parse_args()
    os.environ[stamp.VARIABLE] = os.devnull
    with tempfile.TemporaryDirectory(prefix="bench-") as name, servers(Path(name), durable=True) as postgres:
        result = soak(Path(name), postgres, options)
    for role, line in result["memory"].items():
        print(
            f"{role:10} {line['first_mb']:8.1f} → {line['last_mb']:8.1f} MB   second half ÷ before {line['growth']:g}"
        )
    print(f"oldest waiting step: median {result['age_seconds']['median']} s, at most {result['age_seconds']['max']} s")
    figures = result["verdict"]
    print(f"{figures['succeeded']} of {figures['expected']} executions succeeded; {figures['figures']}")
    print(f"ledger: {result['ledger_differences']} differences")
    print("passed" if not result["problems"] else "FAILED: " + "; ".join(result["problems"]))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
