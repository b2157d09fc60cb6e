"""The mirror: each schedule's PeriodicTask, its refresh, its reconciliation, and the housekeeping rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from django_celery_beat.models import CrontabSchedule, PeriodicTask, PeriodicTasks

from schedules import firing, lifecycle, periodic_tasks, tasks, versions
from schedules.mirror import nearest
from schedules.models import Schedule
from tests.schedules.builders import MINUTELY, T0, at, schedule, started, workflow


def spec(kind="cron", zone="Europe/Berlin", **members):
    return {"timezone": zone, "timetables": [{"kind": kind, **members}]}


def fields(row):
    return tuple(value for name, value in row.columns if name != "timezone")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 2 * * *", ("0", "2", "*", "*", "*")),
        ("*/5 8-18 * * MON-FRI", ("*/5", "8-18", "*", "*", "mon-fri")),
        ("0 0 1,15 * *", ("0", "0", "1,15", "*", "*")),
        ("0 0 1 * MON", ("0", "0", "*", "*", "*")),
        ("0 0 L * ?", ("0", "0", "*", "*", "*")),
        ("0 0 15W * *", ("0", "0", "*", "*", "*")),
        ("0 0 * * MON#2", ("0", "0", "*", "*", "*")),
        ("H H * * *", ("*", "*", "*", "*", "*")),
        ("30 0 2 * * *", ("0", "2", "*", "*", "*")),
        ("0 0 2 * * * 2027", ("0", "2", "*", "*", "*")),
        ("@daily", ("0", "0", "*", "*", "*")),
        ("@HOURLY", ("0", "*", "*", "*", "*")),
    ],
)
def test_a_cron_line_becomes_a_crontab_that_is_never_too_narrow(expression, expected):
    row = nearest(spec(expression=expression))
    assert (row.kind, fields(row), dict(row.columns)["timezone"]) == ("crontab", expected, "Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (spec("interval", every=60), "crontab", ("*", "*", "*", "*", "*")),
        (spec("interval", every=900), "crontab", ("*/15", "*", "*", "*", "*")),
        (spec("interval", every=3600), "crontab", ("0", "*", "*", "*", "*")),
        (spec("interval", every=7200), "crontab", ("0", "*/2", "*", "*", "*")),
        (spec("interval", every=86400), "crontab", ("0", "0", "*", "*", "*")),
        (spec("interval", every=7), "interval", (7, "seconds")),
        (spec("interval", every=60, anchor="2026-01-01T00:00:30Z"), "interval", (60, "seconds")),
        (spec("interval", every={"months": 1}), "crontab", ("0", "0", "*", "*", "*")),
        (
            spec("interval", every={"days": 2}, anchor="2026-01-01T08:30:00Z"),
            "crontab",
            ("30", "9", "*", "*", "*"),
        ),
        (spec("once", at="2026-05-01T08:00:00Z"), "clocked", (datetime(2026, 5, 1, 8, tzinfo=UTC),)),
        (spec("solar", event="sunrise", latitude=52.5, longitude=13.4), "solar", ("sunrise", 52.5, 13.4)),
        (spec("solar", event="moonrise", latitude=1, longitude=1), "crontab", ("*", "*", "*", "*", "*")),
        (spec("rrule", rules="x"), "crontab", ("*", "*", "*", "*", "*")),
        (spec(expression="0 2 * * *") | {"jitter": 60}, "crontab", ("*", "*", "*", "*", "*")),
    ],
)
def test_the_nearest_row_of_other_timetables(value, kind, expected):
    row = nearest(value)
    assert (row.kind, fields(row)) == (kind, expected)


@pytest.fixture
def _clean():
    versions.forget()
    workflow()
    PeriodicTask.objects.all().delete()


@pytest.mark.django_db
@pytest.mark.usefixtures("_clean")
class TestRows:
    def test_many_schedules_share_timetable_rows_and_one_announcement(self, django_capture_on_commit_callbacks):
        many = [schedule(name=f"n{i}") for i in range(20)]
        with django_capture_on_commit_callbacks() as callbacks:
            assert periodic_tasks.keep(list(Schedule.objects.select_related("version"))) == (20, 0)
        assert len(callbacks) == 1
        assert CrontabSchedule.objects.filter(minute="*", hour="*").count() == 1
        task = PeriodicTask.objects.get(workflow_schedule=many[0])
        assert json.loads(task.kwargs) == {"schedule_id": str(many[0].pk)}
        assert periodic_tasks.keep(list(Schedule.objects.select_related("version"))) == (0, 0)

    def test_stock_beats_are_told_after_the_commit(self, django_capture_on_commit_callbacks):
        before = PeriodicTasks.last_change()
        with django_capture_on_commit_callbacks(execute=True):
            lifecycle.create(actor="a", name="n", workflow="report", spec=MINUTELY)
        assert PeriodicTasks.last_change() != before

    def test_the_row_follows_the_schedule(self):
        made = lifecycle.create(actor="a", name="n", workflow="report", spec=MINUTELY)
        lifecycle.update(made.pk, {"spec": spec(expression="5 4 * * *"), "queue": "io"}, actor="a")
        task = PeriodicTask.objects.get(workflow_schedule=made)
        assert (task.crontab.minute, task.crontab.hour, task.queue) == ("5", "4", "io")
        lifecycle.update(
            made.pk, {"spec": spec("once", at="2030-05-01T08:00:00Z") | {"start": "2029-01-01T00:00:00Z"}}, actor="a"
        )
        task.refresh_from_db()
        assert (task.crontab, task.one_off, task.start_time.year) == (None, True, 2029)

    def test_past_runs_are_copied_in_one_statement(self):
        made = lifecycle.create(actor="a", name="n", workflow="report", spec=MINUTELY, now=T0)
        firing.fire_due(at(60))
        tasks.refresh_periodic_tasks()
        task = PeriodicTask.objects.get(workflow_schedule=made)
        assert (task.last_run_at, task.total_run_count) == (at(60), 1)
        assert periodic_tasks.refresh() == 0

    def test_the_stock_path_fires_through_the_rows(self, settings):
        made = schedule(since=datetime.now(UTC).replace(microsecond=0))
        tasks.fire(str(made.pk))
        assert started(made) == []
        Schedule.objects.update(fired_through=at(0), next_fire_at=at(0), catch_up="latest", catch_up_window=10**9)
        tasks.fire(str(made.pk))
        tasks.fire_due()
        assert len(started(made)) == 1

    def test_reconcile_makes_all_rows_what_they_should_be(self):
        keep, lose = schedule(name="keep"), schedule(name="lose")
        first = periodic_tasks.reconcile()
        assert (first.created, first.housekeeping > 0) == (2, True)
        assert periodic_tasks.reconcile().total == 0
        PeriodicTask.objects.filter(workflow_schedule=keep).update(enabled=False)
        Schedule.objects.filter(pk=lose.pk).update(periodic_task=None)
        second = periodic_tasks.reconcile()
        assert (second.updated, second.created, second.deleted) == (1, 1, 1)
        assert PeriodicTask.objects.filter(task=periodic_tasks.FIRE, enabled=True).count() == 2

    def test_with_the_mirror_off_there_are_no_rows(self, settings):
        schedule()
        periodic_tasks.reconcile()
        settings.SCHEDULE_PERIODIC_TASK_MIRROR = False
        assert periodic_tasks.reconcile().deleted == 1
        assert Schedule.objects.get().periodic_task_id is None
        assert periodic_tasks.keep([Schedule.objects.get()]) == (0, 0)

    def test_housekeeping_rows_keep_their_interval_and_whether_they_are_disabled(self, settings):
        settings.HOUSEKEEPING_TASKS = {"other.flush": 7}
        periodic_tasks.keep_housekeeping()
        flush = PeriodicTask.objects.get(name="other.flush")
        assert (flush.interval.every, flush.task) == (7, "other.flush")
        settings.HOUSEKEEPING_TASKS = {"other.flush": 9}
        PeriodicTask.objects.filter(pk=flush.pk).update(enabled=False)
        assert periodic_tasks.keep_housekeeping() == 1
        flush.refresh_from_db()
        assert (flush.interval.every, flush.enabled) == (9, False)
