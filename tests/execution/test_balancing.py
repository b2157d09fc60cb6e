"""Lending workers to late queues, what an autoscaler is told, and hot spots at dispatch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from execution import balancing, broker, demand, dispatch, engine, handoff, process_reports, queues, workers
from execution.balancing import Decision, QueueLoad, WorkerLoad, balance_execution_load, decide
from execution.models import AuditEntry, ProcessReport, QueueSettings, StepRun
from tests.api_client import Api
from tests.execution import flow

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LONG_CALM = NOW - timedelta(seconds=balancing.CALM_SECONDS)


def queue(name: str = "io", *, age: float = 0, waiting: int = 0, limit: float = 10, calm: Any = None) -> QueueLoad:
    return QueueLoad(name, limit, age, waiting, calm)


def worker(
    name: str, *, own: str = "default", extra: tuple[str, ...] = (), busy: int = 0, slots: int = 4
) -> WorkerLoad:
    return WorkerLoad(name, (own,), extra, slots, busy)


LATE = queue(age=30, waiting=5)


@pytest.mark.parametrize(
    ("queues_now", "workers_now", "lent"),
    [
        ([LATE], [worker("a"), worker("b", busy=1), worker("c")], {"a": ("io",), "c": ("io",)}),  # 8 slots for 5
        ([LATE], [worker("a", busy=4)], {}),  # nobody is free
        ([LATE], [worker("a", own="io")], {}),  # it serves it already
        ([LATE], [worker("a", extra=("io",))], {}),  # it is lent already
        ([queue(age=30, waiting=0)], [worker("a")], {}),  # nothing waits
        ([queue(age=9, waiting=5)], [worker("a")], {}),  # not late
        ([LATE, queue("default", age=11, waiting=1)], [worker("a")], {}),  # its own queue is late as well
        ([LATE, queue("default", age=11, waiting=1)], [worker("a", extra=("io",))], {"a": ()}),
        ([queue(calm=LONG_CALM)], [worker("a", extra=("io",))], {"a": ()}),  # calm for long
        ([queue(calm=LONG_CALM + timedelta(seconds=1))], [worker("a", extra=("io",))], {}),  # not yet
        ([queue(age=6, waiting=1, calm=LONG_CALM)], [worker("a", extra=("io",))], {}),  # neither late nor calm
        ([], [worker("a", extra=("io",))], {"a": ()}),  # the queue has no limit any more
        (
            [queue("x", age=20, waiting=1), queue("y", age=90, waiting=1)],
            [worker("a"), worker("b", busy=2)],
            {"a": ("y",), "b": ("x",)},
        ),
    ],
)
def test_who_is_lent_to_whom(
    queues_now: list[QueueLoad], workers_now: list[WorkerLoad], lent: dict[str, tuple[str, ...]]
) -> None:
    assert decide(queues_now, workers_now, NOW).extra == lent


def test_calm_begins_ends_and_is_remembered() -> None:
    assert decide([queue()], [], NOW).calm_since == {"io": NOW}
    assert decide([queue(calm=LONG_CALM)], [], NOW).calm_since == {}
    assert decide([queue(age=30, waiting=1, calm=LONG_CALM)], [], NOW).calm_since == {"io": None}


def report(name: str, own: list[str], **values: Any) -> None:
    process_reports.report_process(name, kind="worker", host="h", pid=1, queues=own, own_queues=own, slots=4, **values)


def extra(name: str) -> list[str]:
    return list(ProcessReport.objects.get(pk=name).extra_queues)


def waiting(*, seconds: float, count: int = 1, **options: Any) -> None:
    for _ in range(count):
        flow.begin({"a": flow.http(**options)})
    StepRun.objects.filter(state="queued").update(available_at=engine.now() - timedelta(seconds=seconds))


@pytest.mark.django_db
def test_a_late_queue_borrows_and_gives_back_when_it_is_calm() -> None:
    queues.set_age_limit("io", 10, actor="ada")
    report("a@h", ["default"])
    report("full@h", ["default"], busy=4)
    report("paused@h", ["default"])
    workers.pause("paused@h", actor="ada")
    report("hot@h", ["default"], pressure="high")
    waiting(seconds=60, queue="io")
    now = engine.now()
    assert balance_execution_load(now=now).extra == {"a@h": ("io",)}
    assert (extra("a@h"), extra("full@h"), extra("paused@h"), extra("hot@h")) == (["io"], [], [], [])
    assert AuditEntry.objects.get(action="worker.balance").changes["extra_queues"]["after"] == ["io"]
    assert balance_execution_load(now=now) == Decision()  # another worker has just balanced
    StepRun.objects.update(dispatched_at=now)
    later = now + timedelta(seconds=10)
    assert balance_execution_load(now=later).extra == {}  # what is sent and not claimed is late too
    StepRun.objects.filter(state="queued").update(available_at=later + timedelta(days=1), dispatched_at=None)
    assert balance_execution_load(now=later, force=True).calm_since == {"io": later}
    calm = later + timedelta(seconds=balancing.CALM_SECONDS)
    assert balance_execution_load(now=calm).extra == {"a@h": ()}
    assert extra("a@h") == []


@pytest.mark.django_db
def test_a_pause_takes_back_what_was_lent() -> None:
    report("a@h", ["default"])
    ProcessReport.objects.update(extra_queues=["io"])
    workers.pause("a@h", actor="ada")
    assert extra("a@h") == []


@pytest.mark.parametrize(
    ("rate", "duration", "backlog", "limit", "utilisation", "slots"),
    [
        (0, 0, 0, 60, 0.75, 0),
        (0, 5, 0, 60, 0.75, 0),
        (0, 0, 3, 60, 0.75, 1),
        (2, 3, 0, 60, 0.75, 8),
        (2, 3, 0, 60, 1, 6),
        (0, 30, 100, 60, 1, 50),
        (1, 30, 100, 60, 0.5, 160),
    ],
)
def test_desired_slots_follow_littles_law(
    rate: float, duration: float, backlog: int, limit: float, utilisation: float, slots: int
) -> None:
    found = demand.desired_slots(
        arrival_rate=rate, duration=duration, backlog=backlog, age_limit=limit, utilisation=utilisation
    )
    assert found == slots


@pytest.mark.django_db
def test_demand_and_age_limits_over_the_api(django_assert_max_num_queries: Any) -> None:
    api = Api()
    report("a@h", ["default"])
    api.ok("patch", "/api/queues/default", {"age_limit": 30})
    waiting(seconds=60, count=3)
    held = flow.held(flow.begin({"a": flow.http()}), "a")
    assert held is not None
    with django_assert_max_num_queries(12):
        rows = {row["queue"]: row for row in api.ok("get", "/api/queues/demand")["results"]}
    row = rows["default"]
    assert (row["backlog"], row["running"], row["slots"], row["workers"], row["age_limit"]) == (3, 1, 4, 1, 30)
    assert row["arrival_rate"] == round(4 / 900, 4)
    assert row["oldest_age"] >= 60
    assert (row["desired_slots"], row["desired_workers"]) == (1, 1)
    assert rows["io"]["desired_slots"] == 0
    assert api.ok("get", "/api/queues/default")["age_limit"] == 30
    assert api.ok("patch", "/api/queues/default", {})["age_limit"] == 30
    assert api.ok("patch", "/api/queues/default", {"age_limit": None})["age_limit"] is None
    assert QueueSettings.objects.get(pk="default").age_limit is None
    for bad in (0, 86_401, "soon"):
        api.refused("patch", "/api/queues/default", {"age_limit": bad}, status=400, field="age_limit")
    api.refused("patch", "/api/queues/nowhere", {"age_limit": 5}, status=404)


@pytest.mark.django_db
def test_thousands_that_are_due_at_once_do_not_delay_a_critical_run(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[int]] = []
    monkeypatch.setattr(dispatch, "publish", lambda hints: sent.append([hint.priority for hint in hints]))
    settings.WORKFLOW_IN_FLIGHT_PER_LEVEL = 50
    crowd = flow.begin({"a": flow.http(priority="low")})
    run = flow.step(crowd, "a")
    copies: list[StepRun] = []
    for index in range(3_000):
        copy = StepRun.objects.get(pk=run.pk) if index == 0 else copies[0]
        copies.append(
            StepRun(
                **{f.attname: getattr(copy, f.attname) for f in StepRun._meta.concrete_fields}
                | {
                    "id": demand._first_id(NOW + timedelta(milliseconds=index)),
                    "name": f"a{index}",
                    "dispatched_at": None,
                }
            )
        )
    StepRun.objects.bulk_create(copies)
    handoff.unmark_all()
    dispatch.fill()
    critical = flow.begin({"a": flow.http(priority="critical")})
    handoff.unmark([flow.step(critical, "a").pk])
    dispatch.fill()
    assert sent[-1] == [0]  # the crowd fills its own window alone: the critical one is sent at once
    assert sum(len(hints) for hints in sent if 9 in hints) <= 51
    assert queues.peek("default", limit=1) == [flow.step(critical, "a").pk]
    assert broker.key_of("default", 0) != broker.key_of("default", 9)  # and workers ask for its list first
