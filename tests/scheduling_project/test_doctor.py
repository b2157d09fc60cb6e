"""`manage.py doctor`: what it finds, how bad that is, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.db import DatabaseError, OperationalError
from django.db.migrations.recorder import MigrationRecorder
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from execution import broker, engine, process_reports, queues
from execution.models import News, ProcessReport, StepRun
from execution.states import ExecutionState, StepState, WaitingFor
from schedules import audit, lifecycle, periodic_tasks, switch
from schedules.models import LedgerAudit, Schedule, ScheduleVersion
from scheduling_project.diagnosis import examination, installation, servers, work
from scheduling_project.diagnosis.finding import Finding, error, warning
from tests import factories
from tests.commands import ends

pytestmark = pytest.mark.django_db
MINUTES = timedelta(minutes=1)


def told(findings: Iterable[Finding]) -> list[str]:
    """What is not well, as ``severity check: message``."""
    return [f"{one.severity} {one.check}: {one.message}" for one in findings if one.severity != "ok"]


def alive(name: str, kind: str, **more: Any) -> None:
    process_reports.report_process(name, kind=kind, host="h", pid=1, **more)


def make_schedule() -> Schedule:
    factories.make_workflow("report")
    return lifecycle.create(
        name="s", workflow="report", spec={"timetables": [{"kind": "interval", "every": 60}]}, actor="x"
    )


@pytest.fixture
def durable(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """A laptop whose Postgres may lose power: that of the tests may not."""
    settings.DEBUG = True
    asked = servers.FACTS
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        asked = asked.replace(f"current_setting('{name}')", "'on'")
    monkeypatch.setattr(servers, "FACTS", asked)


def well() -> None:
    """Processes and housekeeping as they should be."""
    alive("beat", "beat", slots=1)
    alive("w@h", "worker", queues=["default", "io"], slots=4)
    periodic_tasks.reconcile()
    audit.run()


@pytest.mark.usefixtures("durable")
def test_an_installation_that_is_well_ends_with_0_and_lists_what_was_looked_at() -> None:
    well()
    code, out, _ = ends("doctor")
    assert code == 0, out
    for part in ("ok      postgres", "ok      redis", "ok      migrations", "1 alive, 4 slots", "0 errors, 0 warnings"):
        assert part in out
    code, out, _ = ends("doctor", "--problems")
    assert (code, "ok  " in out) == (0, False)


@pytest.mark.parametrize(("finding", "code"), [(warning, 1), (error, 2)])
@pytest.mark.usefixtures("durable")
def test_the_worst_finding_is_the_exit_code(
    finding: Callable[[str, str, str], Finding], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    well()
    monkeypatch.setattr(examination, "CHECKS", (("x", lambda: [finding("x", "[bad]", "do this")]),))
    found = ends("doctor")
    assert (found[0], "x: [bad]" in found[1], "→ do this" in found[1]) == (code, True, True)
    code_of_json, out, _ = ends("doctor", "--json")
    assert (code_of_json, f'"exit_code": {code}' in out) == (code, True)


# ── Servers ──────────────────────────────────────────────────────────────────────────────────────────────────


def facts(**other: Any) -> Any:
    usual = {"version": 180_000, "named": "18.0", "most": 100, "connections": 3, "is_replica": False}
    return SimpleNamespace(**usual | {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"} | other)


@pytest.mark.parametrize(
    ("other", "skew", "expected"),
    [
        ({}, 0.1, []),
        ({"version": 130_000, "named": "13.2"}, 0, ["error postgres: version 13.2 is too old"]),
        ({"is_replica": True}, 0, ["error postgres: it is a read-only replica"]),
        ({"fsync": "off"}, 0, ["error postgres: fsync is off: a power failure loses or corrupts data"]),
        ({"connections": 90}, 0, ["warning postgres: 90 of 100 connections are in use"]),
        ({}, 2, ["warning clock of Postgres: 2.0 s ahead of this host"]),
        ({}, -7, ["error clock of Postgres: 7.0 s behind this host"]),
    ],
    ids=str,
)
def test_postgres_is_judged(other: dict[str, Any], skew: float, expected: list[str]) -> None:
    assert told(servers.judge_postgres(facts(**other), skew)) == expected


def test_a_commit_that_may_be_lost_is_a_warning() -> None:
    (found,) = told(servers.judge_postgres(facts(synchronous_commit="off"), 0))
    assert found.startswith("warning postgres: synchronous_commit is off")


INFO = {"redis_version": "7.2.4", "used_memory_human": "1M", "used_memory": 90, "maxmemory": 0, "role": "master"}
KEPT = {"appendonly": "yes", "save": ""}


@pytest.mark.parametrize(
    ("info", "settings", "expected"),
    [
        ({}, KEPT, []),
        ({}, {}, []),
        ({"redis_version": "5.0.7"}, KEPT, ["error redis: version 5.0.7 is too old"]),
        ({"role": "slave"}, KEPT, ["error redis: it is a read-only replica"]),
        ({"maxmemory": 100}, KEPT, ["warning redis: nearly all of its memory is in use"]),
        ({"maxmemory_policy": "noeviction"}, {"appendonly": "no", "save": "3600 1"}, []),
    ],
    ids=str,
)
def test_redis_is_judged(info: dict[str, Any], settings: dict[str, Any], expected: list[str]) -> None:
    assert told(servers.judge_redis(INFO | info, settings, 0)) == expected


def test_a_redis_that_throws_away_or_keeps_nothing_is_told() -> None:
    found = told(servers.judge_redis(INFO | {"maxmemory_policy": "allkeys-lru"}, {"appendonly": "no", "save": ""}, 6))
    assert [one.split(":")[0] for one in found] == ["error redis", "hint redis", "error clock of Redis"]


def test_a_redis_that_refuses_config_is_judged_by_what_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> Any:
        raise redis.ResponseError("unknown command CONFIG")

    monkeypatch.setattr(broker.client(), "config_get", refused, raising=False)
    assert told(servers.redis()) == []


def test_servers_that_are_away_are_told_without_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any, **options: Any) -> Any:
        raise OperationalError("connection to server at 192.0.2.1 failed")

    def gone() -> Any:
        raise redis.ConnectionError("Error 111 connecting to 192.0.2.1:6379")

    monkeypatch.setattr(broker.client(), "info", gone, raising=False)
    monkeypatch.setattr(engine, "fetch_one", away)
    found = list(examination.examine())
    assert [(one.check, one.severity.value) for one in found] == [("postgres", "error"), ("redis", "error")]
    assert not any("192.0.2.1" in one.message for one in found)


@pytest.mark.usefixtures("durable")
def test_a_check_that_postgres_refuses_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> Iterable[Finding]:
        raise DatabaseError("no")

    monkeypatch.setattr(examination, "CHECKS", (("a", refused), ("b", lambda: [warning("b", "m", "t")])))
    found = [one for one in told(examination.examine()) if not one.startswith("hint")]
    assert found == ["error a: it could not be examined (DatabaseError)", "warning b: m"]


# ── Installation ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("durable")
def test_migrations_that_are_missing_are_named_and_nothing_else_is_asked() -> None:
    MigrationRecorder.Migration.objects.filter(app="schedules").delete()
    found = [one for one in told(examination.examine()) if not one.startswith("hint")]
    assert len(found) == 1
    assert found[0].startswith("error migrations: ")
    assert "schedules.0001_initial" in found[0]
    assert "more" in found[0]


def test_a_production_with_laptop_settings_is_told(settings: Any) -> None:
    settings.DEBUG = False
    settings.SECRET_KEY = installation.LAPTOP_SECRET_KEY
    settings.ALLOWED_HOSTS = ["*"]
    settings.WORKFLOW_ENCRYPTION_KEYS = []
    settings.WORKFLOW_LEASE_SECONDS = 900
    settings.USE_TZ = False
    found = "\n".join(told(installation.configuration()))
    for part in (
        "error settings: SECRET_KEY is the one of the source code",
        "warning settings: ALLOWED_HOSTS takes any name",
        "warning settings: secrets are encrypted with a key made from SECRET_KEY",
        "warning settings: the broker's visibility timeout (300 s) is shorter than a lease (900 s)",
        "error settings: USE_TZ or CELERY_ENABLE_UTC is off",
        "security.",
    ):
        assert part in found, found


def test_schedules_of_other_time_zone_data_are_counted() -> None:
    schedule = make_schedule()
    assert told(installation.time_zones()) == []
    ScheduleVersion.objects.filter(schedule=schedule).update(tzdata="2019a")
    assert "saved 1 with 2019a" in told(installation.time_zones())[0]


def test_rows_of_beat_that_differ_from_the_schedules_are_counted(settings: Any) -> None:
    schedule = make_schedule()
    periodic_tasks.reconcile()
    assert told(installation.mirror()) == []
    PeriodicTask.objects.filter(pk=Schedule.objects.get().periodic_task_id).update(enabled=False)
    every = IntervalSchedule.objects.create(every=1, period="days")
    PeriodicTask.objects.create(name="stray", task=periodic_tasks.FIRE, interval=every)
    names = sorted(periodic_tasks.HOUSEKEEPING)
    PeriodicTask.objects.filter(name=names[0]).delete()
    PeriodicTask.objects.filter(name=names[1]).update(enabled=False)
    assert told(installation.mirror()) == [
        "warning periodic tasks: rows of schedules: 1 different, 1 without a schedule",
        f"warning housekeeping: missing: {names[0]}",
        f"warning housekeeping: switched off: {names[1]}",
    ]
    Schedule.objects.filter(pk=schedule.pk).update(periodic_task=None)
    assert "1 missing" in told(installation.mirror())[0]
    settings.SCHEDULE_PERIODIC_TASK_MIRROR = False
    assert "2 superfluous" in told(installation.mirror())[0]


# ── Work ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_silent_and_differing_processes_are_told() -> None:
    now = engine.now()
    assert [one.split(":")[0] for one in told(work.processes(now))] == ["error beats", "error workers"]
    alive("b", "beat")
    alive("w1", "worker", versions={"celery": "5.6"})
    alive("w2", "worker", versions={"celery": "5.7"})
    alive("w3", "worker")
    ProcessReport.objects.filter(name="w3").update(seen_at=now - MINUTES)
    found = told(work.processes(engine.now()))
    assert "w3 on h was last seen 1 min" in found[0]
    assert found[1:] == ["warning workers: they run different versions of their libraries"]


def test_queues_that_nobody_serves_pause_or_fall_behind_are_told() -> None:
    now = engine.now()
    factories.make_step_run(available_at=now - MINUTES)
    factories.make_step_run(queue="lost", available_at=now - MINUTES)
    found = told(work.lanes(now))
    assert found[0] == "error queues: 1 step runs are due in queue default and no worker serves it"
    assert found[1].startswith("error queues: 1 step runs are due in queue lost, which this installation lacks")
    StepRun.objects.filter(queue="lost").delete()
    alive("w", "worker", queues=["default"], slots=1)
    assert told(work.lanes(now)) == []
    StepRun.objects.update(available_at=now - 20 * MINUTES)
    assert told(work.lanes(now)) == ["warning queues: what is due in queue default waits for up to 20 min"]
    queues.pause("default", actor="x")
    assert told(work.lanes(engine.now()))[0].startswith("hint queues: default is paused")
    assert told(work.lanes(now + timedelta(days=2)))[0].startswith("warning queues: default is paused for ")


def test_rows_that_stand_still_are_told() -> None:
    old = factories.now() - 10 * MINUTES
    paused = factories.make_execution(state=ExecutionState.PAUSED)
    factories.make_step_run(state=StepState.RUNNING, lease_until=old)
    for execution in (None, paused):
        factories.make_step_run(execution, state=StepState.WAITING, waiting_for=WaitingFor.TIMER, available_at=old)
        factories.make_step_run(
            execution, name="ripe", state=StepState.WAITING, waiting_for=WaitingFor.NEEDS, needs_open=0
        )
    factories.make_execution(state=ExecutionState.RUNNING, deadline_at=old, open_steps=1)
    looks: list[float] = []
    found = told(work.standing_still(engine.now(), pause=looks.append))
    assert found[0] == "error stuck: 1 step runs are running though their lease has long ended"
    assert found[1] == "error stuck: 1 sleeping steps are past their time"
    assert found[2] == "error stuck: 1 executions run past their deadline"
    assert found[3] == "error stuck: 1 steps wait for needs that have all ended"
    assert "executions are open without an open step" in found[4]
    assert looks == [work.LOOK_AGAIN_SECONDS]


def test_what_moves_on_between_two_looks_does_not_stand_still() -> None:
    execution = factories.make_execution(open_steps=1)
    step = factories.make_step_run(execution, state=StepState.WAITING, waiting_for=WaitingFor.NEEDS, needs_open=0)

    def decided(seconds: float) -> None:
        StepRun.objects.filter(pk=step.pk).update(needs_open=1)

    assert told(work.standing_still(engine.now(), pause=decided)) == []
    assert told(work.standing_still(engine.now(), pause=lambda _: pytest.fail("nothing to look at again"))) == []


def test_firing_that_is_late_or_stopped_is_told() -> None:
    audit.run()
    schedule = make_schedule()
    assert told(work.firing(engine.now())) == []
    Schedule.objects.filter(pk=schedule.pk).update(next_fire_at=engine.now() - 2 * MINUTES)
    assert told(work.firing(engine.now()))[0].startswith("error firing: 1 schedules are overdue, the first for 2 min")
    switch.stop(actor="x")
    assert told(work.firing(engine.now()))[0].startswith("warning firing: all firing is stopped")


def test_a_ledger_that_differs_or_was_not_audited_is_told() -> None:
    now = engine.now()
    assert told(work.firing(now)) == ["hint ledger: it was never audited"]
    kept = LedgerAudit.objects.create(since=now, until=now, schedules=3, findings=1, differences=2, seconds=0.1)
    assert told(work.firing(now)) == ["error ledger: 2 differences in 1 schedules, 0 not computable"]
    LedgerAudit.objects.filter(pk=kept.pk).update(finished_at=now - timedelta(hours=5))
    assert told(work.firing(now)) == ["hint ledger: it was last audited 5 h ago"]


def test_news_that_nobody_takes_and_letters_that_wait_are_told() -> None:
    now = engine.now()
    assert [*told(work.news(now)), *told(work.letters(now))] == []
    News.objects.create(topic="chaining", created_at=now - 5 * MINUTES)
    assert told(work.news(now)) == ["warning news: 1 of topic chaining wait for up to 5 min"]
    factories.make_dead_letter(created_at=now - 5 * MINUTES)
    assert told(work.letters(now)) == ["hint dead letters: 1 are open, the first for 5 min"]


def test_the_doctor_of_an_empty_installation_says_what_to_start() -> None:
    code, out, _ = ends("doctor")
    assert code == 2
    assert "celery -A scheduling_project beat" in out
