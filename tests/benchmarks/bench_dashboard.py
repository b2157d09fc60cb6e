"""What the admin's first page costs with a million executions behind it.

    python -m tests.benchmarks.bench_dashboard [--json PATH] [--executions 1000000] [--rounds 20]

Executions and ledger entries of 30 days are laid down at once, on servers of this run alone; then the page is asked for
in this process by somebody signed in. The bar is for the processor time of this process and Postgres together, in
milliseconds: the figure that does not depend on what else the machine does. Every statement of the page is explained:
one that reads a large table from end to end fails the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_execution import make_workflow, servers
from tests.benchmarks.bench_queue import LETTERS_OF_EXECUTIONS, execute, timed

BAR = 300.0  # milliseconds
LARGE = ("execution_execution", "execution_steprun", "schedules_schedulefire", "execution_deadletter")

# A UUIDv7 begins with its milliseconds; evenly over 30 days, one in fifty failed.
EXECUTIONS = """
INSERT INTO execution_execution (id, workflow_id, version_id, source_kind, source_id, source_label, news_topic, input,
    priority, queue, concurrency_key, state, state_reason, open_steps, failed_steps, created_at, started_at,
    finished_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
        || substr(md5(n::text), 4, 15))::uuid,
    %(workflow)s, %(version)s, 'schedule', 'past', 'past', '', '{}', 6, '', '',
    CASE WHEN n %% 50 = 0 THEN 'failed' ELSE 'succeeded' END, '', 0, 0, at, at + interval '0.2 s', at + interval '2 s'
FROM (SELECT n, now() - interval '30 days' * (1 - n::float8 / %(count)s) - interval '3 s' AS at
      FROM generate_series(1, %(count)s) AS n) past
"""

FIRES = """
INSERT INTO schedules_schedulefire (schedule_id, version_id, scheduled_for, due_at, recorded_at, outcome, reason, note,
    count)
SELECT %(schedule)s, %(version)s, at, at, at + interval '0.05 s', 'started', '', '', 1
FROM (SELECT now() - interval '30 days' * (1 - n::float8 / %(count)s) AS at
      FROM generate_series(1, %(count)s) AS n) past
"""

RUNS = """
INSERT INTO execution_steprun (id, execution_id, name, kind, label, queue, priority, state, state_reason, needs_open,
    items_open, items_failed, available_at, dispatches, attempt, failures, worker_deaths, worker, created_at,
    started_at, finished_at)
SELECT gen_random_uuid(), id, 'stamp', 'task', 'bench.stamp', 'default', 6, state, '', 0, 0, 0, created_at, 0, 1, 0, 0,
    'w@past/1', created_at, started_at, finished_at
FROM execution_execution
"""


def fill(count: int) -> None:
    """Lay down a past of so many executions."""
    from execution.models import ProcessReport
    from schedules import lifecycle

    workflow = make_workflow()
    spec = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}
    made = [lifecycle.create(actor="bench", name=f"bench {i}", spec=spec, workflow=workflow) for i in range(50)]
    assert workflow.published_id is not None
    assert made[0].version_id is not None
    execute(EXECUTIONS, {"workflow": workflow.pk, "version": workflow.published_id, "count": count})
    execute(FIRES, {"schedule": made[0].pk, "version": made[0].version_id, "count": count})
    for name in ("w1", "w2"):
        ProcessReport.objects.create(name=name, kind="worker", host="h", pid=1, queues=["default"], slots=4)
    execute(RUNS)
    execute(LETTERS_OF_EXECUTIONS, {"groups": 40, "count": count // 100})
    execute("VACUUM ANALYZE")


def statements(client: Any) -> list[tuple[str, Any]]:
    """The statements that the page makes."""
    from django.db import connection

    found: list[tuple[str, Any]] = []

    def note(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found.append((sql, params))
        return run(sql, params, many, context)

    with connection.execute_wrapper(note):
        client.get("/admin/")
    return found


def scanned(found: list[tuple[str, Any]]) -> list[str]:
    """The large tables that a statement reads from end to end."""
    from django.db import connection

    whole = []
    with connection.cursor() as cursor:
        for sql, params in found:
            if not sql.lstrip().upper().startswith(("SELECT", "WITH")):
                continue
            cursor.execute(f"EXPLAIN {sql}", params)
            plan = "\n".join(row[0] for row in cursor.fetchall())
            whole += [f"{table}: {sql[:300]}" for table in LARGE if f"Seq Scan on {table}" in plan]
    return whole


def measure(count: int, rounds: int) -> dict[str, Any]:
    """Figures of the page over so many executions."""
    from django.contrib.auth.models import User
    from django.test import Client

    fill(count)
    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.create_superuser("bench", "bench@example.org", "bench"))
    whole = scanned(statements(client))

    def look(_: int) -> None:
        assert client.get("/admin/").status_code == 200

    return {"executions": count, **timed(rounds, look), "read from end to end": whole}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder), durable=False):
        figures = measure(options.executions, options.rounds)
    print(json.dumps(figures, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return int(figures["cpu"] > BAR or bool(figures["read from end to end"]))


if __name__ == "__main__":
    sys.exit(main())
