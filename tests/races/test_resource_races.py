"""Leases on pool units, balancing and wishes for one worker, on many connections at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from execution import allocations, engine, process_reports, queues, workers
from execution.balancing import balance_execution_load
from execution.models import AuditEntry, Pool, PoolLease, ProcessReport, StepRun, Turn
from scheduling_project.common.errors import Conflict
from tests.execution.flow import begin, claim, http

pytestmark = [
    pytest.mark.race,
    pytest.mark.django_db(transaction=True, databases=["default", "engine"]),
    pytest.mark.usefixtures("engine_connection"),
]

Race = Callable[..., list[Any]]


def test_a_pool_is_never_overbooked_by_leases_and_claims(race: Race) -> None:
    Pool.objects.create(name="db", slots=3)
    for _ in range(4):
        executions = [begin({"a": http(pool={"name": "db", "units": 1})}) for _ in range(3)]

        def take() -> Any:
            return allocations.allocate_resources("db", holder="etl")

        outcomes = race(*[take] * 4, *[lambda one=one: claim(one, "a") for one in executions])
        held = sum(outcome is not None for outcome in outcomes)
        pool = Pool.objects.get()
        assert held == pool.used <= 3
        given_back = race(*[lambda lease=lease: allocations.release(lease.pk) for lease in PoolLease.objects.all()] * 2)
        assert sum(given_back) * 2 == len(given_back)  # each once
        StepRun.objects.all().delete()
        Pool.objects.update(used=0)


def test_a_lease_that_runs_out_is_given_back_once(race: Race) -> None:
    Pool.objects.create(name="db", slots=5)
    for _ in range(5):
        leases = [allocations.allocate_resources("db", holder="etl", seconds=1) for _ in range(3)]
        late = engine.now() + timedelta(seconds=5)

        def expire(late: Any = late) -> int:
            return allocations.expire(now=late)

        def give_back(lease: Any = leases[0]) -> bool:
            return allocations.release(lease.id)

        expired, other, released = race(expire, expire, give_back)
        assert expired + other + released == 3
        assert Pool.objects.get().used == 0


def test_one_worker_balances_for_all(race: Race) -> None:
    queues.set_age_limit("io", 5, actor="ada")
    begin({"a": http(queue="io")})
    StepRun.objects.update(available_at=engine.now() - timedelta(minutes=1))
    process_reports.report_process(
        "a@h", kind="worker", host="h", pid=1, queues=["default"], own_queues=["default"], slots=1
    )
    for _ in range(3):
        Turn.objects.all().delete()
        ProcessReport.objects.update(extra_queues=[])
        AuditEntry.objects.all().delete()
        lent = race(*[balance_execution_load] * 4)
        assert sum(bool(decision.extra) for decision in lent) == 1
        assert AuditEntry.objects.filter(action="worker.balance").count() == 1


def test_of_two_operators_one_pauses(race: Race) -> None:
    def report() -> Any:
        return process_reports.report_process("a@h", kind="worker", host="h", pid=1)

    def pause() -> bool:
        try:
            workers.pause("a@h", actor="ada")
        except Conflict:
            return False
        return True

    report()
    for _ in range(4):
        first, second, _ = race(pause, pause, report)
        assert first + second == 1
        assert ProcessReport.objects.get().wanted == "paused"
        assert report().wanted == "paused"
        workers.resume("a@h", actor="ada")
