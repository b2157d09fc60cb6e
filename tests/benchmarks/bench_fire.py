"""How fast due schedules become committed executions with published messages, beside stock django-celery-beat.

    python -m tests.benchmarks.bench_fire            a table
    python -m tests.benchmarks.bench_fire --json     one JSON object
    python -m tests.benchmarks.bench_fire --quick    fewer rounds, no large tables

Starts its own Postgres and Redis. Times are milliseconds from the first instant being due to `fire_due` having
returned: ledger and executions committed, messages published. Rounds fire every schedule once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

    call_command("migrate", verbosity=0)
    return servers


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


def rounds(due: int, count: int) -> list[float]:
    """Let `due` schedules be due together, `count` times; milliseconds each."""
    from django.db import connections

    from schedules.firing import fire_due

    times = []
    for _ in range(count + 1):
        with connections["default"].cursor() as cursor:
            cursor.execute("SET schedules.quiet = 'on'")
            cursor.execute(
                "UPDATE schedules_schedule SET next_fire_at = now(), "
                "fired_through = date_trunc('hour', clock_timestamp()) - interval '1 second' "
                "WHERE id IN (SELECT id FROM schedules_schedule ORDER BY id LIMIT %s)",
                [due],
            )
        begun = time.perf_counter()
        report = fire_due(limit=10 * due)
        times.append((time.perf_counter() - begun) * 1000)
        assert report.started >= due, report
        drain()
    return times[1:]  # the first one compiles and connects


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

    from schedules.firing import fire_due

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
        fired += fire_due(limit=10 * schedules).started
    rate = fired / (time.perf_counter() - begun)
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
    from django.db import connections

    results: dict[str, float] = {}
    bars = {"1 due": 5.0, "1,000 due": 120.0, "10,000 due": 600.0, "evaluation": 0.1, "fires/s": 5_000.0}

    def measure(name: str, work: Callable[[], float]) -> None:
        results[name] = round(work(), 3)
        bar = next((f"  (bar {value:g})" for key, value in bars.items() if name.startswith(key)), "")
        sys.stdout.write(f"{name:<46} {results[name]:>12,.2f}{bar}\n")
        sys.stdout.flush()

    count = 3 if options.quick else 11
    try:
        measure("evaluation of one schedule, ms", evaluation)
        for total in (10_000,) if options.quick else (10_000, 100_000, 1_000_000):
            fill(total)
            for due in (1, 1_000, 10_000):
                few = count if due < 10_000 else min(count, 5)
                measure(f"{due:,} due of {total:,}, p50 ms", lambda d=due, n=few: statistics.median(rounds(d, n)))
        fill(1_000)
        measure("fires/s sustained, one process", lambda: sustained(1_000, 3 if options.quick else 15))
        measure("stock beat: 1,000 due of 1,000, ms", lambda: stock(1_000))
    finally:
        connections.close_all()
        servers.stop()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
