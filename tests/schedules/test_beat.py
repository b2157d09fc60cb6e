"""The firing thread and the scheduler, against real connections: wake-ups, NOTIFY, outages, several beats."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from celery import current_app
from django.db import OperationalError, connections
from django.db.models.functions import Now
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from execution.models import Execution, News, ProcessReport
from schedules import claims, firing, firing_loop, lifecycle, periodic_tasks
from schedules.beat import WorkflowScheduler
from schedules.firing_loop import FiringLoop
from schedules.models import FiringSwitch, Schedule, ScheduleFire
from tests.patience import PATIENCE
from tests.schedules.builders import SECONDLY, schedule, workflow

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "engine"]), pytest.mark.race]


@pytest.fixture(autouse=True)
def _engine(settings):
    settings.WORKFLOW_ENGINE_DATABASE = "engine"
    workflow()
    yield
    connections["engine"].close()


@pytest.fixture
def loop():
    running = FiringLoop()
    running.start()
    yield running
    running.stop()
    assert not running.is_alive()


def wait_until(claim, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = claim()
        if found:
            return found
        time.sleep(0.002)
    raise AssertionError("it did not happen")


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_an_instant_is_fired_at_its_second(loop):
    every = schedule(SECONDLY, since=datetime.now(UTC))
    wait_until(lambda: ScheduleFire.objects.filter(schedule=every).count() >= 2)
    lateness = [(f.recorded_at - f.due_at).total_seconds() for f in ScheduleFire.objects.order_by("scheduled_for")]
    assert 0 <= min(lateness[1:]) < 0.1


def test_a_new_schedule_takes_effect_at_once(loop):
    wait_until(lambda: loop.listening)
    time.sleep(0.1)
    before = time.monotonic()
    schedule(SECONDLY, since=datetime.now(UTC) - timedelta(seconds=2))
    wait_until(lambda: Execution.objects.exists())
    assert time.monotonic() - before < 0.5  # without LISTEN up to a second


def by_plain_sql():
    with connections["default"].cursor() as cursor:
        cursor.execute("UPDATE schedules_schedule SET next_fire_at = now() WHERE name LIKE 'n%%'")


def by_bulk_update():
    Schedule.objects.filter(name__startswith="n").update(next_fire_at=Now())


def by_enabling_in_bulk():
    Schedule.objects.filter(name__startswith="n").update(enabled=True)


@pytest.mark.parametrize("change", [by_plain_sql, by_bulk_update, by_enabling_in_bulk])
def test_a_change_of_many_is_noticed_however_it_is_made(loop, change):
    wait_until(lambda: loop.listening)
    loop.look_seconds = 3600.0  # it is told, or never looks
    paused = {"enabled": False, "paused_at": soon(0), "pause_kind": "manual"} if change is by_enabling_in_bulk else {}
    since = datetime.now(UTC) - timedelta(seconds=2)
    sleeping = [schedule(SECONDLY, name=f"n{n}", since=since, wake=soon(3600), **paused) for n in range(5)]
    time.sleep(0.05)
    assert not ScheduleFire.objects.exists()
    change()
    wait_until(lambda: ScheduleFire.objects.values("schedule").distinct().count() == len(sleeping), seconds=PATIENCE)


def test_without_listen_the_loop_looks_every_second(monkeypatch):
    monkeypatch.setattr(FiringLoop, "_listen", lambda self, now: None)
    running = FiringLoop(look_seconds=0.1)
    running.start()
    schedule(SECONDLY, since=datetime.now(UTC) - timedelta(seconds=2))
    wait_until(lambda: Execution.objects.exists())
    running.stop()


def test_listen_that_is_refused_is_only_a_warning(monkeypatch):
    def refuse(*args, **kwargs):
        raise firing_loop.psycopg.OperationalError("no LISTEN here")

    monkeypatch.setattr(firing_loop.psycopg, "connect", refuse)
    running = FiringLoop()
    running._listen(time.monotonic())
    assert running.listening is False
    running._listen(time.monotonic())  # not before a second has passed


def test_a_lost_listening_connection_is_opened_again(loop):
    wait_until(lambda: loop.listening)
    first = loop._listener.info.backend_pid
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [first])
    wait_until(lambda: loop._listener is not None and loop._listener.info.backend_pid != first)


def test_the_loop_survives_the_loss_of_its_database_connection(loop):
    wait_until(lambda: ProcessReport.objects.filter(kind="beat").exists())
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name LIKE 'scheduling-%%' AND datname = current_database() AND pid <> pg_backend_pid()"
        )
    schedule(SECONDLY, since=datetime.now(UTC) - timedelta(seconds=2))
    wait_until(lambda: Execution.objects.exists(), seconds=6)


def test_whatever_a_turn_raises_the_thread_goes_on(monkeypatch, loop):
    def explode(**kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(claims, "waiting", explode)
    loop.wake()
    wait_until(lambda: loop._failures >= 2)
    monkeypatch.undo()
    wait_until(lambda: loop._failures == 0)


def test_a_beat_reports_its_life_and_its_end():
    running = FiringLoop()
    running.start()
    report = wait_until(lambda: ProcessReport.objects.filter(kind="beat").first())
    assert report.name == running.process_name
    assert "celery" in report.versions
    running.stop()
    report.refresh_from_db()
    assert report.stopped_at is not None


def test_stopping_a_loop_that_never_ran_is_fine():
    FiringLoop().stop()


def test_several_loops_fire_every_instant_once():
    loops = [FiringLoop() for _ in range(3)]
    for number in range(20):
        schedule(SECONDLY, name=f"n{number}", since=datetime.now(UTC))
    for running in loops:
        running.start()
    time.sleep(2.5)
    for running in loops:
        running.stop()
    fires = list(ScheduleFire.objects.values_list("schedule_id", "scheduled_for"))
    assert len(fires) == len(set(fires)) >= 40
    assert Execution.objects.count() == len(fires)
    for one in Schedule.objects.all():
        instants = sorted(f[1] for f in fires if f[0] == one.pk)
        assert (instants[-1] - instants[0]).total_seconds() == len(instants) - 1


def test_while_others_hold_what_is_due_the_loop_waits_patiently():
    held = schedule(SECONDLY, since=datetime.now(UTC) - timedelta(seconds=1))
    from django.db import transaction

    running = FiringLoop()
    with transaction.atomic():
        Schedule.objects.select_for_update(no_key=True).get(pk=held.pk)
        running.start()
        time.sleep(0.4)
        assert not Execution.objects.using("default").exists()
    wait_until(lambda: Execution.objects.exists(), seconds=1)
    running.stop()


def test_stopping_all_firing_stops_the_loop_and_starting_wakes_it(loop):
    FiringSwitch.objects.create(stopped_at=datetime.now(UTC))
    schedule(SECONDLY, since=datetime.now(UTC) - timedelta(seconds=2))
    time.sleep(0.2)
    assert not Execution.objects.exists()
    FiringSwitch.objects.update(stopped_at=None)
    wait_until(lambda: Execution.objects.exists(), seconds=0.5)


def test_a_buffered_instant_is_released_by_the_loop(loop):
    from tests.schedules.builders import end_executions

    schedule(SECONDLY, since=datetime.now(UTC) - timedelta(seconds=3), overlap_policy="buffer_all", max_executions=2)
    wait_until(lambda: ScheduleFire.objects.filter(outcome="buffered").exists())
    end_executions()
    wait_until(lambda: Execution.objects.count() == 2, seconds=3)


def test_a_backfill_is_advanced_by_the_loop(loop):
    from schedules import backfill

    begun = datetime.now(UTC) - timedelta(seconds=60)
    one = schedule(SECONDLY, since=begun, catch_up="latest", wake=soon(3600))
    Schedule.objects.update(fired_through=datetime.now(UTC))
    backfill.create(one.pk, since=begun, until=begun + timedelta(seconds=3), actor="ann", max_running=10)
    wait_until(lambda: Execution.objects.filter(source_kind="backfill").count() >= 3, seconds=3)


# ── The scheduler ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scheduler():
    made = WorkflowScheduler(app=current_app._get_current_object(), lazy=False)
    yield made
    made.close()


def ordinary(name="ordinary", task="celery.ping", **fields):
    every, _ = IntervalSchedule.objects.get_or_create(every=60, period="seconds")
    return PeriodicTask.objects.create(name=name, task=task, interval=every, **fields)


def test_mirror_rows_and_safety_nets_stay_out_of_the_heap():
    one = lifecycle.create(actor="a", name="n", workflow="report", spec=SECONDLY)
    periodic_tasks.keep_housekeeping()
    ordinary()
    made = WorkflowScheduler(app=current_app._get_current_object())
    names = set(made.schedule)
    assert {"ordinary", periodic_tasks.REFRESH} <= names
    assert not names & {periodic_tasks.FIRE_DUE, one.periodic_task.name if one.periodic_task else ""}
    made.close()


def test_a_tick_starts_the_firing_thread_and_close_ends_it(scheduler, monkeypatch):
    monkeypatch.setattr(WorkflowScheduler, "apply_entry", lambda *a, **k: None)
    monkeypatch.setattr(WorkflowScheduler, "producer", None)
    assert scheduler.firing is None
    scheduler.tick()
    thread = scheduler.firing
    assert thread.is_alive()
    scheduler.close()
    assert not thread.is_alive()


def test_a_due_ordinary_task_is_sent_by_one_of_two_beats(monkeypatch):
    sent = []
    monkeypatch.setattr(WorkflowScheduler, "apply_entry", lambda self, entry, producer=None: sent.append(entry.name))
    monkeypatch.setattr(WorkflowScheduler, "producer", None)
    PeriodicTask.objects.all().delete()
    ordinary(last_run_at=datetime.now(UTC) - timedelta(seconds=61))
    beats = [WorkflowScheduler(app=current_app._get_current_object()) for _ in range(2)]
    for _ in range(5):
        for beat in beats:
            beat.tick()
    for beat in beats:
        beat.close()
    assert [name for name in sent if name == "ordinary"] == ["ordinary"]
    task = PeriodicTask.objects.get(name="ordinary")
    assert task.total_run_count == 1
    assert datetime.now(UTC) - task.last_run_at < timedelta(seconds=5)


def test_an_entry_deleted_in_the_meantime_is_not_sent(scheduler):
    task = ordinary(last_run_at=datetime.now(UTC) - timedelta(seconds=61))
    entry = scheduler.Entry(task, app=scheduler.app)
    PeriodicTask.objects.filter(pk=task.pk).delete()
    assert scheduler.is_due(entry)[0] is False


def test_with_postgres_away_at_the_start_it_reads_its_tasks_later(monkeypatch):
    def away(self):
        raise OperationalError("no connection")

    monkeypatch.setattr(WorkflowScheduler, "all_as_schedule", away)
    monkeypatch.setattr(WorkflowScheduler, "apply_entry", lambda *a, **k: None)
    monkeypatch.setattr(WorkflowScheduler, "producer", None)
    made = WorkflowScheduler(app=current_app._get_current_object())
    assert made.tick() == 1.0
    monkeypatch.undo()
    monkeypatch.setattr(WorkflowScheduler, "apply_entry", lambda *a, **k: None)
    monkeypatch.setattr(WorkflowScheduler, "producer", None)
    ordinary()
    made.tick()
    assert "ordinary" in made.schedule
    made.close()


def test_with_postgres_away_in_between_a_tick_waits(scheduler, monkeypatch):
    monkeypatch.setattr(firing, "fire_due", lambda **kwargs: firing.FireReport())

    def away(self, *args, **kwargs):
        raise OperationalError("gone")

    monkeypatch.setattr("django_celery_beat.schedulers.DatabaseScheduler.tick", away)
    assert scheduler.tick() == 1.0
    assert scheduler._heap is None


def test_more_than_one_visit_takes_is_fired_by_two_at_once_and_each_instant_once(loop, monkeypatch):
    monkeypatch.setattr(firing, "SLICE", 3)
    monkeypatch.setattr(firing_loop, "MATE_SECONDS", 0.01)
    for turn in range(2):  # its connection is closed in between
        now = datetime.now(UTC).replace(microsecond=0)
        made = [schedule(SECONDLY, name=f"n{turn}-{number}", since=now - timedelta(seconds=2)) for number in range(10)]
        ours = Schedule.objects.filter(pk__in=[one.pk for one in made])
        wait_until(lambda: not ours.filter(fired_through__lt=now).exists(), seconds=PATIENCE)  # noqa: B023
        ours.update(next_fire_at=None)
    wait_until(lambda: loop._mate is not None and loop._mate.is_alive())
    assert Execution.objects.count() == ScheduleFire.objects.count() >= 40
    mate = loop._mate
    loop.stop()
    assert not mate.is_alive()


def test_a_visit_says_when_more_may_be_due():
    for number in range(4):
        schedule(SECONDLY, name=f"n{number}", since=datetime.now(UTC) - timedelta(seconds=2))
    called = []
    assert firing.fire_due(limit=3, on_full=lambda: called.append(1)).schedules == 3
    assert firing.fire_due(limit=3, on_full=lambda: called.append(2)).schedules == 1
    assert called == [1]


def test_what_runs_on_demand_is_sent_only_while_something_waits_for_it(monkeypatch, settings):
    sent = []
    monkeypatch.setattr(WorkflowScheduler, "apply_entry", lambda self, entry, producer=None: sent.append(entry.name))
    monkeypatch.setattr(WorkflowScheduler, "producer", None)
    settings.HOUSEKEEPING_ON_DEMAND = {"ordinary.task": "triggers.waiting.is_anything_waiting"}
    PeriodicTask.objects.all().delete()
    long_ago = datetime.now(UTC) - timedelta(seconds=61)
    ordinary(last_run_at=long_ago, task="ordinary.task")
    ordinary(last_run_at=long_ago, name="behind")
    beat = WorkflowScheduler(app=current_app._get_current_object())
    try:
        for _ in range(6):
            beat.tick()
        assert "ordinary" not in sent
        assert "behind" in sent, "it does not stand in the way of others"
        assert PeriodicTask.objects.get(name="ordinary").last_run_at == long_ago
        News.objects.create(topic="emit", data={})
        wait_until(lambda: beat.tick() is not None and "ordinary" in sent, seconds=PATIENCE)
        assert PeriodicTask.objects.get(name="ordinary").total_run_count == 1
    finally:
        beat.close()


def test_a_changed_ordinary_task_is_noticed_once(scheduler, monkeypatch):
    monkeypatch.setattr("schedules.beat.CHANGE_SECONDS", 0.0)
    made = ordinary()
    scheduler.schedule_changed()
    assert scheduler.schedule_changed() is False
    made.enabled = False
    made.save()
    assert scheduler.schedule_changed() is True
    assert scheduler.schedule_changed() is False
