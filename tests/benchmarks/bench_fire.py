"""How fast due schedules become committed executions with published messages, beside stock django-celery-beat.

    python -m tests.benchmarks.bench_fire            a table
    python -m tests.benchmarks.bench_fire --json     one JSON object
    python -m tests.benchmarks.bench_fire --quick    fewer rounds, no large tables

Starts its own Postgres and Redis. Times are milliseconds from the instants being due until ledger and executions are
committed and the messages are in the broker, fired as a beat's thread does it (`FiringLoop`, two visits in flight).
Beside each stands the processor time of an instant, in this process and in Postgres: on a busy machine, the figure to
compare. Rounds fire every schedule once. Growth is the same 1,000 due with ever more schedules in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.plugins.servers import TestServers

DEFINITION = {"steps": {"only": {"http": {"url": "https://example.org/"}}}}


def prepare(*, in_flight: str) -> TestServers:
    servers = TestServers()
    servers.start()
    os.environ["WORKFLOW_IN_FLIGHT_PER_LEVEL"] = in_flight
    os.environ["LOG_LEVEL"] = "ERROR"
    os.environ["DJANGO_SETTINGS_MODULE"] = "scheduling_project.settings"
    import django

    django.setup()
    from django.core.management import call_command

    from scheduling_project import celery  # noqa: F401 - the app that messages are published with
    from scheduling_project.common.memory import settle_memory

    call_command("migrate", verbosity=0)
    settle_memory()  # as a beat does
    return servers


def postgres_seconds() -> float:
    """Processor time that our Postgres has taken so far, for statements and its own upkeep."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.name() == "postgres":
                total += sum(process.cpu_times()[:2])
    return total


def fill(total: int) -> None:
    """`total` schedules of one workflow, none of them due, written in bulk."""
    from django.db import connections

    from execution import workflows
    from execution.models import Workflow
    from schedules.timing.occurrences import normalise

    workflow = Workflow.objects.first() or workflows.create("bench", DEFINITION, actor="bench")
    spec = normalise({"timetables": [{"kind": "interval", "every": 3600}]})
    with connections["default"].cursor() as cursor:
        cursor.execute("TRUNCATE schedules_schedule, schedules_scheduleversion, schedules_schedulefire CASCADE")
        cursor.execute(
            """
            INSERT INTO schedules_schedule (id, name, description, owner, labels, metadata, workflow_id, input,
                priority, queue, concurrency_key, overlap_policy, catch_up, enabled, pause_kind, pause_note, on_resume,
                fired_through, started_count, consecutive_failures, revision, updated_at)
            SELECT gen_random_uuid(), 'bench ' || n, '', '', '{}', '{}', %s, '{}', 6, '', '', 'allow_all', 'all', true,
                '', '', 'skip', now(), 0, 0, 1, now() FROM generate_series(1, %s) n
            """,
            [workflow.pk, total],
        )
        cursor.execute(
            """
            INSERT INTO schedules_scheduleversion (id, schedule_id, number, effective_from, spec, tzdata, created_by)
            SELECT gen_random_uuid(), id, 1, '2020-01-01Z', %s::jsonb, '', '' FROM schedules_schedule
            """,
            [json.dumps(spec)],
        )
        cursor.execute(
            "UPDATE schedules_schedule s SET version_id = v.id, next_fire_at = now() + interval '1 day' "
            "FROM schedules_scheduleversion v WHERE v.schedule_id = s.id"
        )
        cursor.execute("VACUUM ANALYZE schedules_schedule")
        cursor.execute("VACUUM ANALYZE schedules_scheduleversion")


class Rounds(NamedTuple):
    """Milliseconds of each round; processor time for an instant in this process and in Postgres, in microseconds."""

    times: list[float]
    here: float
    postgres: float

    @property
    def p50(self) -> float:
        return statistics.median(self.times)


def rounds(due: int, count: int) -> Rounds:
    """Let `due` schedules be due together, `count` times."""
    from django.conf import settings
    from django.db import connections

    from execution import dispatch
    from schedules.firing_loop import FiringLoop

    loop = FiringLoop()
    expected = min(due, settings.WORKFLOW_IN_FLIGHT_PER_LEVEL)
    times: list[float] = []
    here = postgres = 0.0
    for number in range(count + 1):
        with connections["default"].cursor() as cursor:
            cursor.execute("SET schedules.quiet = 'on'")
            cursor.execute(
                "UPDATE schedules_schedule SET next_fire_at = now(), "
                "fired_through = date_trunc('hour', clock_timestamp()) - interval '1 second' "
                "WHERE id IN (SELECT id FROM schedules_schedule ORDER BY id LIMIT %s)",
                [due],
            )
        postgres_before = postgres_seconds()
        here_before = time.process_time()
        begun = time.perf_counter()
        loop._fire(0.0)
        while dispatch.depth(["default"]) < expected:
            time.sleep(0.001)
        times.append((time.perf_counter() - begun) * 1000)
        if number:  # the first one compiles and connects
            here += time.process_time() - here_before
            postgres += postgres_seconds() - postgres_before
        assert count_rows("schedules_schedulefire") == count_rows("execution_execution") == due
        drain()
    loop.stop()
    if loop._mate is not None:
        loop._mate.stop()
    return Rounds(times[1:], here / count / due * 1e6, postgres / count / due * 1e6)


def count_rows(table: str) -> int:
    from django.db import connections

    with connections["default"].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return int(cursor.fetchone()[0])


def mirror() -> float:
    """Give every schedule its PeriodicTask, as the reconcile command does. Returns the seconds that took."""
    from schedules import periodic_tasks

    begun = time.perf_counter()
    periodic_tasks.reconcile()
    return time.perf_counter() - begun


def refresh() -> float:
    """Milliseconds of the housekeeping that copies runs to the PeriodicTasks, after 1,000 schedules have fired."""
    from schedules import periodic_tasks

    rounds(1_000, 1)
    begun = time.perf_counter()
    periodic_tasks.refresh()
    return (time.perf_counter() - begun) * 1000


def drain() -> None:
    """Empty the broker and the executions between rounds."""
    from celery import current_app
    from django.db import connections

    with connections["default"].cursor() as cursor:
        # As pruning does it: after TRUNCATE, Postgres would plan as if the tables stayed empty.
        cursor.execute("DELETE FROM schedules_schedulefire")
        cursor.execute("DELETE FROM execution_steprun")
        cursor.execute("DELETE FROM execution_execution")
    with current_app.connection_for_write() as connection:
        connection.default_channel.client.flushdb()


def sustained(schedules: int, seconds: float) -> float:
    """Fires per second when everything is due again as soon as it has fired."""
    from django.db import connections

    from schedules.firing_loop import FiringLoop

    loop = FiringLoop()
    fired = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        with connections["default"].cursor() as cursor:
            cursor.execute("SET schedules.quiet = 'on'")
            cursor.execute("TRUNCATE schedules_schedulefire")
            cursor.execute(
                "UPDATE schedules_schedule SET next_fire_at = now(), "
                "fired_through = date_trunc('hour', now()) - interval '6 hours'"
            )
        loop._fire(0.0)
        fired += count_rows("schedules_schedulefire")
    rate = fired / (time.perf_counter() - begun)
    loop.stop()
    if loop._mate is not None:
        loop._mate.stop()
    drain()
    return rate


def debt(beats: int, schedules: int) -> float:
    """Fires per second while this many real beats work off 50 instants of each schedule; none twice, none lost."""
    from django.db import connections

    from tests.benchmarks import bench_beat

    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as running:
        for number in range(beats):
            folder = Path(name) / str(number)
            folder.mkdir()
            running.enter_context(bench_beat.beat(folder))
        time.sleep(1)
        begun = time.perf_counter()
        with connections["default"].cursor() as cursor:
            cursor.execute("SET schedules.quiet = 'off'")
            cursor.execute(
                "UPDATE schedules_schedule SET next_fire_at = now(), catch_up_window = 864000, "
                "fired_through = date_trunc('hour', now()) - interval '50 hours'"
            )
        wanted = 50 * schedules
        while count_rows("execution_execution") < wanted:
            if time.perf_counter() - begun > 300:
                raise RuntimeError("the beats did not work off their debt")
            time.sleep(0.02)
        rate = wanted / (time.perf_counter() - begun)
        time.sleep(0.5)
    assert count_rows("schedules_schedulefire") == count_rows("execution_execution"), "an instant without its one run"
    drain()
    return rate


def evaluation() -> float:
    """Milliseconds to find one schedule's due instants and next wake-up."""
    from uuid import UUID

    from schedules.due import Segment, collect
    from schedules.policies import CatchUp
    from schedules.timing.occurrences import compile, normalise

    spec = normalise({"timezone": "Europe/Berlin", "timetables": [{"kind": "cron", "expression": "*/5 8-18 * * 1-5"}]})
    segment = Segment(UUID(int=0), compile(spec, seed="s"), None)
    policy = CatchUp("all", 86_400, 100, 5)
    moment = 1_772_600_000
    begun = time.perf_counter()
    for _ in range(5_000):
        batch = collect([segment], after=moment, now=moment + 300, catch_up=policy, cap=1_000)
        moment = batch.reached
    return (time.perf_counter() - begun) / 5


def stock(due: int) -> float:
    """Milliseconds until django-celery-beat's own scheduler has sent `due` tasks that are due together."""
    from celery import current_app
    from django.utils.timezone import now
    from django_celery_beat.models import IntervalSchedule, PeriodicTask
    from django_celery_beat.schedulers import DatabaseScheduler

    PeriodicTask.objects.all().delete()
    every = IntervalSchedule.objects.create(every=3600, period="seconds")
    long_ago = now() - __import__("datetime").timedelta(days=1)
    PeriodicTask.objects.bulk_create(
        PeriodicTask(name=f"stock {n}", task="celery.ping", interval=every, last_run_at=long_ago) for n in range(due)
    )
    scheduler = DatabaseScheduler(app=current_app._get_current_object())
    sent = 0
    send = scheduler.apply_async

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal sent
        sent += 1
        return send(*args, **kwargs)

    scheduler.apply_async = counted
    begun = time.perf_counter()
    while sent < due:
        scheduler.tick()
    elapsed = (time.perf_counter() - begun) * 1000
    scheduler._finalize.cancel()  # it would write to a database that has gone by the end of this process
    PeriodicTask.objects.all().delete()
    drain()
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no large tables")
    options = parser.parse_args()
    servers = prepare(in_flight="1000000")
    from django.conf import settings
    from django.db import connections

    results: dict[str, float] = {}
    bars = {"1 due": 5.0, "1,000 due": 120.0, "10,000 due": 600.0, "evaluation": 0.1, "fires/s": 5_000.0}

    def note(name: str, value: float, remark: str = "") -> float:
        results[name] = round(value, 3)
        bar = next((f"  (bar {value:g})" for key, value in bars.items() if name.startswith(key)), "")
        sys.stdout.write(f"{name:<52} {results[name]:>12,.2f}{bar}{remark}\n")
        sys.stdout.flush()
        return value

    def measure(name: str, due: int, count: int) -> float:
        done = rounds(due, count)
        results[f"{name}: us here"], results[f"{name}: us in Postgres"] = round(done.here, 1), round(done.postgres, 1)
        return note(name, done.p50, f"  {done.here:,.0f} + {done.postgres:,.0f} µs of processor time each")

    count = 3 if options.quick else 11
    try:
        note("evaluation of one schedule, ms", evaluation())
        totals = (1_000, 10_000) if options.quick else (1_000, 10_000, 100_000, 1_000_000)
        growth = {}
        for total in totals:
            fill(total)
            for due in (due for due in (1, 1_000, 10_000) if due <= total):
                figure = measure(f"{due:,} due of {total:,}, p50 ms", due, count if due < 10_000 else min(count, 5))
                growth[due, total] = figure
        for due in (1, 1_000):
            note(
                f"growth: {due:,} due of {totals[-1]:,} against {totals[0]:,}",
                growth[due, totals[-1]] / growth[due, totals[0]],
                "  (bar 1.5)",
            )
        fill(10_000)
        settings.WORKFLOW_IN_FLIGHT_PER_LEVEL = 200
        measure("10,000 due, default in-flight bound, p50 ms", 10_000, min(count, 5))
        settings.WORKFLOW_IN_FLIGHT_PER_LEVEL = 1_000_000
        fill(1_000)
        note("fires/s sustained, one process", sustained(1_000, 3 if options.quick else 15))
        for beats in (1, 2):
            note(f"fires/s of {beats} real beat{'s' * (beats - 1)} working off a debt", debt(beats, 1_000))
        note("mirror: reconcile 1,000 schedules, s", mirror())
        measure("1,000 due of 1,000 with their mirror rows, p50 ms", 1_000, count)
        note("mirror: refresh after 1,000 fires, ms", refresh())
        note("fires/s sustained with mirror rows", sustained(1_000, 3 if options.quick else 15))
        fill(1)
        note("stock beat: 1,000 due of 1,000, ms", stock(1_000))
    finally:
        connections.close_all()
        servers.stop()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
