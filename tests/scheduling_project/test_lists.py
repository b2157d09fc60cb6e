"""Lists stay cheap: as many queries for twenty rows as for one, and no page reads or counts a history."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from execution import audit, redrives, secret_store
from execution.dead_letters import Selection
from execution.models import ConcurrencyKey, Pool, ProcessReport, StepLog
from execution.states import ExecutionState, StepState
from schedules import lifecycle as schedules
from tests import factories
from tests.api_client import Api
from tests.scheduling_project.test_conventions import operations
from triggers import endpoints, ingest
from triggers import lifecycle as triggers
from triggers.auth import keys

pytestmark = pytest.mark.django_db


def one_more(number: int) -> None:
    """One more row of everything that has a list."""
    workflow = factories.make_workflow(f"w{number}")
    execution = factories.make_execution(workflow, state=ExecutionState.FAILED)
    run = factories.make_step_run(execution, state=StepState.FAILED)
    factories.make_dead_letter(run)
    StepLog.objects.create(attempt=run.attempts.get(), level="info", message="m")
    factories.make_step_run(factories.make_execution(workflow))
    redrives.create(Selection(workflow_id=workflow.pk), actor="x", using="default")
    Pool.objects.create(name=f"p{number}", slots=1)
    ConcurrencyKey.objects.create(key=f"k{number}")
    ProcessReport.objects.create(name=f"w{number}", kind="worker", host="h", pid=number)
    audit.record(actor="x", action="a", subject_kind="k", subject_id=str(number))
    secret_store.set_secret(f"S{number}", "value", actor="x")
    schedule = schedules.create(
        name=f"s{number}", workflow=workflow.name, spec={"timetables": [{"kind": "interval", "every": 3600}]}, actor="x"
    )
    schedules.trigger(schedule.pk, actor="x")
    endpoint = endpoints.create(f"e{number}", actor="x").endpoint
    triggers.create(f"t{number}", workflow=workflow, endpoint=endpoint, event_types=["a"], actor="x")
    ingest.publish_event(f"other.{number}")
    keys.create(f"key{number}", user=User.objects.first(), actor="x", scopes=["read"])


def lists() -> list[str]:
    """Every list in pages that needs no id."""
    return sorted(
        path
        for method, path, operation in operations()
        if method == "get" and "{" not in path and "limit" in {one["name"] for one in operation.get("parameters", [])}
    )


def test_twenty_rows_take_as_many_queries_as_one() -> None:
    api = Api()

    def counted() -> dict[str, int]:
        found = {}
        for path in lists():
            api.ok("get", path)  # what is kept in this process is there now
            with CaptureQueriesContext(connection) as queries:
                api.ok("get", path)
            found[path] = len(queries)
        return found

    one_more(0)
    few = counted()
    assert len(few) >= 12, few
    for number in range(1, 20):
        one_more(number)
    many = counted()
    assert {path: (few[path], many[path]) for path in few if many[path] > few[path]} == {}
    assert max(many.values()) <= 15, many


def test_a_page_of_executions_reads_a_page_and_counts_nothing() -> None:
    """100,000 rows: the statements of a first and of a later page, as Postgres plans them."""
    workflow = factories.make_workflow("w")
    assert workflow.published is not None
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO execution_execution (id, workflow_id, version_id, source_kind, source_id, source_label, input,
                news_topic, priority, queue, concurrency_key, state, state_reason, open_steps, failed_steps, created_at,
                finished_at)
            SELECT ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, %s, %s, 'api', '', '', '{}', '', 6,
                '', '', CASE WHEN n %% 1000 = 0 THEN 'failed' ELSE 'succeeded' END, '', 0, 0, now(), now()
            FROM generate_series(1, 100000) AS n
            """,
            [workflow.pk, workflow.published_id],
        )
        cursor.execute("ANALYZE execution_execution")
    api = Api()
    for query in ("limit=50", "limit=50&state=failed", "limit=50&workflow=w", f"limit=50&workflow={workflow.pk}"):
        with CaptureQueriesContext(connection) as queries:
            page = api.ok("get", f"/api/executions?{query}")
        assert len(page["results"]) == 50
        statements = [one["sql"] for one in queries if "execution_execution" in one["sql"]]
        assert statements
        for sql in statements:
            assert not re.search(r"count\(", sql, re.I), sql
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}")
                plan = cursor.fetchone()[0][0]["Plan"]
            assert rows_read(plan) <= 300, (query, plan)
        with CaptureQueriesContext(connection):
            assert len(api.ok("get", page["next"])["results"]) == 50


def rows_read(plan: dict[str, Any]) -> int:
    """The rows that the scans of a plan have looked at."""
    own = 0
    if "Scan" in plan["Node Type"]:
        own = int((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
    return own + sum(rows_read(part) for part in plan.get("Plans", ()))
