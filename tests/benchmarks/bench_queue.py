"""What the queue's operations cost, and how that grows: with 10,000 and 100,000 waiting step runs, and a long past.

    python -m tests.benchmarks.bench_queue [--json PATH] [--rounds 200] [--waiting 10000 100000] [--past 0]
                                           [--fan-out 10000]

Everything runs in this process, on servers started for the run that wait for the disk at every commit; Redis is
there, since an enqueued or re-prioritised step run is also published. Under `--past N` as many finished executions
are laid down before the last round is measured again (the full form: a million, some minutes). Columns are median and
p99 in milliseconds, and the mean processor time of this process and Postgres together, which is the figure to compare
on a machine that does other things as well; `growth` compares it with the first column; each bar is for the p99. What a
long past adds is the processor time of the last column over that of the one before it (bar: 1.5 times).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from tests.benchmarks.bench_execution import make_workflow, percentiles, processor_time, queue_executions, servers
from tests.benchmarks.execution_app import stamp

OPERATION, VIEW, LETTERS, FAN = 5.0, 50.0, 100.0, 60_000.0  # bars, in milliseconds
PAST_GROWTH = 1.5  # a long past may cost so many times as much
LEASE = 30.0
GROUPS = 40  # fingerprints among the dead letters
#: Operation → bar.
BARS = {
    "enqueue": OPERATION,
    "claim": OPERATION,
    "finish": OPERATION,
    "change priority": OPERATION,
    "stats": VIEW,
    "peek": VIEW,
    "why": VIEW,
}

# Ended executions, as a year of work leaves them: inserted at once, for going through the engine would take hours.
PAST = """
WITH made AS (
    INSERT INTO execution_execution (id, workflow_id, version_id, source_kind, source_id, source_label, news_topic,
        input, priority, queue, concurrency_key, state, state_reason, open_steps, failed_steps, created_at, started_at,
        finished_at)
    SELECT gen_random_uuid(), %(workflow)s, %(version)s, 'schedule', 'past', '', '', '{}', 6, '', '', 'succeeded', '',
        0, 0, now() - interval '1 year' + n * interval '10 seconds', now() - interval '1 year', now() - interval '1 day'
    FROM generate_series(1, %(count)s) AS n
    RETURNING id
), runs AS (
    INSERT INTO execution_steprun (id, execution_id, name, kind, label, queue, priority, state, state_reason,
        needs_open, items_open, items_failed, available_at, dispatches, attempt, failures, worker_deaths, worker,
        created_at, started_at, finished_at)
    SELECT gen_random_uuid(), id, 'stamp', 'task', 'bench.stamp', 'default', 6, 'succeeded', '', 0, 0, 0,
        now() - interval '1 day', 0, 1, 0, 0, 'w@past/1', now() - interval '1 day', now() - interval '1 day',
        now() - interval '1 day'
    FROM made
    RETURNING id
)
INSERT INTO execution_attempt (id, step_run_id, number, worker, state, error_type, error, traceback, started_at,
    finished_at)
SELECT gen_random_uuid(), id, 1, 'w@past/1', 'succeeded', '', '', '', now() - interval '1 day', now() - interval '1 day'
FROM runs
"""

LETTERS_OF_EXECUTIONS = """
INSERT INTO execution_deadletter (id, execution_id, step_run_id, workflow_id, step_name, reason, error_type, error,
    traceback, fingerprint, attempts, worker, state, note, redrives, decided_by, created_at)
SELECT gen_random_uuid(), s.execution_id, s.id, e.workflow_id, s.name, 'failed', 'ValueError', 'no such customer',
    repeat('  File "tasks.py", line 1, in step' || chr(10), 20), md5((row_number() OVER () %% %(groups)s)::text), 1,
    'w@past/1', 'open', '', 0, '', now() - interval '1 hour'
FROM execution_steprun s JOIN execution_execution e ON e.id = s.execution_id
LIMIT %(count)s
"""


def execute(sql: str, params: dict[str, Any] | None = None) -> None:
    """A statement outside the engine: no limit of time."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def timed(rounds: int, act: Callable[[int], object]) -> dict[str, float]:
    """Milliseconds of each call, and of processor time on average.

    Three calls before the first do not count: statements get planned.
    """
    took: list[float] = []
    worked = 0.0
    for number in range(rounds + 3):
        if number == 3:
            worked = _processor_time()
        began = time.perf_counter()
        act(number)
        took.append(time.perf_counter() - began)
    return percentiles(took[3:]) | {"cpu": round((_processor_time() - worked) / rounds * 1000, 3)}


def _processor_time() -> float:
    postgres = next(child for child in psutil.Process().children(recursive=True) if child.name() == "postgres")
    return time.process_time() + processor_time(postgres, *postgres.children())


def operations(workflow: Any, rounds: int) -> dict[str, dict[str, float]]:
    """Every operation of `BARS` on the queue as it stands."""
    from django.db import transaction

    from execution import advance, creation, lifecycle, queue, queues
    from execution.models import Execution, StepRun
    from execution.plans import plan_by_id
    from execution.states import StepState
    from execution.why import why

    def enqueue(_: int) -> None:
        with transaction.atomic():
            creation.start(workflow)

    waiting: list[UUID] = list(
        StepRun.objects.filter(state="queued").order_by("id").values_list("id", flat=True)[: rounds + 3]
    )
    claims: list[queue.Claim] = []

    def claim(number: int) -> None:
        claimed = queue.claim(waiting[number], worker="bench@here/1", lease=LEASE, priority=6)
        assert claimed is not None
        claims.append(claimed)

    def finish(number: int) -> None:
        claimed = claims[number]
        plan = plan_by_id(claimed.version_id)
        ending = advance.ending_of(plan, plan.steps[claimed.name], state=StepState.SUCCEEDED)
        assert advance.conclude(claimed, plan, ending) is not None

    result = {"enqueue": timed(rounds, enqueue), "claim": timed(rounds, claim), "finish": timed(rounds, finish)}
    open_ones = list(Execution.objects.filter(state="queued").order_by("-id")[: rounds + 3])
    result["change priority"] = timed(
        rounds, lambda number: lifecycle.set_priority(open_ones[number].pk, 3 + number % 2, actor="bench")
    )
    few = max(20, rounds // 5)
    result["stats"] = timed(few, lambda _: queues.stats())
    result["peek"] = timed(few, lambda _: queues.peek("default"))
    result["why"] = timed(few, lambda number: why(open_ones[number]))
    return result


def letters(count: int) -> dict[str, float]:
    """The group view over `count` open letters."""
    from execution import dead_letters

    execute(LETTERS_OF_EXECUTIONS, {"count": count, "groups": GROUPS})
    execute("ANALYZE execution_deadletter")
    found: list[int] = []
    result = timed(20, lambda _: found.append(len(dead_letters.groups())))
    assert set(found) == {GROUPS}
    return result


def fan_out(items: int) -> float:
    """Milliseconds from the start of an execution that fans out, over every item claimed and ended here, to its end."""
    from django.db import transaction

    from execution import creation, dispatch, runner, workflows
    from execution.models import Execution, StepRun

    workflow = workflows.create(
        "fan",
        {
            "steps": {
                "each": {"task": "bench.stamp", "for_each": "${{ input.items }}"},
                "after": {"task": "bench.stamp", "needs": ["each"]},
            }
        },
        actor="bench",
    )
    began = time.perf_counter()
    with transaction.atomic():
        execution = creation.start(workflow, input={"items": list(range(items))})
    mine = StepRun.objects.filter(execution=execution)
    while ready := list(mine.filter(state="queued").values_list("id", flat=True)):
        for step_run_id in ready:
            runner.run(step_run_id, worker="bench@here/1")
    dispatch.fill()
    took = time.perf_counter() - began
    execution = Execution.objects.get(pk=execution.pk)
    assert execution.state == "succeeded", execution.state
    return round(took * 1000, 1)


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    workflow = make_workflow()
    columns: dict[str, dict[str, dict[str, float]]] = {}
    standing = 0
    for total in options.waiting:
        queue_executions(workflow, total - standing)
        standing = total
        execute("VACUUM ANALYZE")
        columns[f"{total:,} waiting"] = operations(workflow, options.rounds)
        say(f"{total:,} waiting: measured")
    result: dict[str, Any] = {"fan_out_ms": fan_out(options.fan_out), "fan_out_items": options.fan_out}
    say(f"fan-out of {options.fan_out:,}: measured")
    if options.past:
        assert workflow.published is not None
        for _ in range(0, options.past, 100_000):
            count = min(100_000, options.past)
            execute(PAST, {"workflow": workflow.pk, "version": workflow.published.pk, "count": count})
        execute("VACUUM ANALYZE")
        columns[f"and {options.past:,} finished"] = operations(workflow, options.rounds)
        say(f"{options.past:,} finished: measured")
    result["letters"] = letters(options.letters)
    result |= {"letters_count": options.letters, "past": options.past}
    return result | {"columns": columns}


def past_growth(result: dict[str, Any]) -> dict[str, float]:
    """Processor time of each operation with a long past, over that without; nothing where none was laid down."""
    if not result["past"]:
        return {}
    without, with_past = list(result["columns"].values())[-2:]
    return {name: with_past[name]["cpu"] / max(without[name]["cpu"], 0.001) for name in BARS}


def misses(result: dict[str, Any]) -> list[str]:
    """The figures that are over their bar, in words."""
    found = [
        f"{name}, {column}: p99 {row[name]['p99']:g} ms, bar {bar:g}"
        for name, bar in BARS.items()
        for column, row in result["columns"].items()
        if row[name]["p99"] > bar
    ]
    found += [
        f"{name}: {growth:.2f} times the processor time with a long past, bar {PAST_GROWTH:g}"
        for name, growth in past_growth(result).items()
        if growth > PAST_GROWTH
    ]
    if result["letters"]["p99"] > LETTERS:
        found.append(f"letters by group: p99 {result['letters']['p99']:g} ms, bar {LETTERS:g}")
    if result["fan_out_ms"] > FAN:
        found.append(f"fan-out: {result['fan_out_ms']:g} ms, bar {FAN:g}")
    return found


def show(result: dict[str, Any]) -> None:
    columns = result["columns"]
    print(f"{'':<18}" + "".join(f"{name:>30}" for name in columns) + f"{'growth':>9}{'bar p99':>9}")
    for operation, bar in BARS.items():
        rows = [row[operation] for row in columns.values()]
        cells = "".join(f"{row['p50']:>14.2f}{row['p99']:>8.2f}{row['cpu']:>8.2f}" for row in rows)
        print(f"{operation:<18}{cells}{rows[-1]['cpu'] / rows[0]['cpu']:>8.2f}×{bar:>9g}")
    print()
    view, over = result["letters"], f"{result['letters_count']:,}"
    print(f"letters by group   {view['p50']:.1f} / {view['p99']:.1f} ms over {over} (bar {LETTERS:g})")
    print(f"fan-out and fan-in {result['fan_out_ms'] / 1000:.1f} s for {result['fan_out_items']:,} items (bar 60)")
    if growths := past_growth(result):
        worst = max(growths, key=lambda name: growths[name])
        print(f"with {result['past']:,} finished: up to {growths[worst]:.2f}× ({worst}; bar {PAST_GROWTH:g}×)")
    for miss in misses(result):
        print(f"over its bar: {miss}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=200, help="calls of each operation")
    parser.add_argument("--waiting", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--past", type=int, default=0, help="finished executions to lay down: 1000000 is the full form")
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--fan-out", type=int, default=10_000)
    options = parser.parse_args()
    os.environ[stamp.VARIABLE] = os.devnull
    with tempfile.TemporaryDirectory(prefix="bench-") as name, servers(Path(name), durable=True):
        result = measure(options, lambda line: print(line, file=sys.stderr, flush=True))
    show(result)
    if options.json:
        facts = {"python": platform.python_version(), "cpus": os.cpu_count(), "rounds": options.rounds}
        options.json.write_text(json.dumps(facts | result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
