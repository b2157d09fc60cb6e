"""PeriodicTasks of django-celery-beat become schedules."""

from __future__ import annotations

import io
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.schedules import crontab
from django.core.management import CommandError, call_command
from django.db import connection
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.models import Workflow
from schedules.importing.celery_beat import Periodic, Untranslatable, cron_expression, translate
from schedules.importing.report import Row
from schedules.models import Schedule
from schedules.timing import cron

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
EVERY: dict[str, Any] = {"every": 5, "period": "minutes"}


def row(**fields: Any) -> Row:
    values = {"id": 7, "name": "job", "task": "demo.tasks.sleep", "interval": EVERY, **fields}
    return translate(Periodic(**values), label="beat", queues=["default", "io"], now=NOW)


FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


@pytest.mark.parametrize(
    ("fields", "expression"),
    [
        ("* * * * *", "* * * * *"),
        ("*/15 0 * * *", "0,15,30,45 0 * * *"),
        ("0 22-2 * * fri-mon", "0 0-2,22,23 * * 0,1,5,6"),
        ("0 0 13 * fri", "0 0 13 * +5"),
        ("0 0 1-31 jan,jun 1-5", "0 0 * 1,6 1-5"),
        ("0 0-23/6 */10 * *", "0 0,6,12,18 1,11,21,31 * *"),
    ],
)
def test_a_crontab_means_what_celery_means(fields: str, expression: str) -> None:
    assert cron_expression(dict(zip(FIELDS, fields.split(), strict=True))) == expression


@pytest.mark.parametrize("fields", ["60 * * * *", "* * 0 * *", "* * * * 7", "x * * * *", "*/0 * * * *", "5/10 * * * *"])
def test_what_celery_cannot_read_is_refused(fields: str) -> None:
    with pytest.raises(Untranslatable):
        cron_expression(dict(zip(FIELDS, fields.split(), strict=True)))


def field_of(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.tuples(number, number).map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.lists(number, min_size=1, max_size=3).map(lambda values: ",".join(map(str, values))),
    )


@given(st.tuples(field_of(0, 59), field_of(0, 23), field_of(1, 31), field_of(1, 12), field_of(0, 6)))
@settings(max_examples=60, deadline=None)
def test_the_next_fire_is_the_one_of_celerys_own_sets(fields: tuple[str, ...]) -> None:
    named = dict(zip(FIELDS, fields, strict=True))
    ours = cron.parse(cron_expression(named))
    try:
        theirs = crontab(**named)
    except ValueError:  # a day that no month has
        assert ours.next(NOW, UTC) is None
        return
    instant = NOW
    for _ in range(3):
        following = ours.next(instant, UTC)
        if following is None or following.year > 2040:
            break
        day = following.isoweekday() % 7
        assert following.minute in theirs.minute
        assert following.hour in theirs.hour
        assert following.day in theirs.day_of_month
        assert following.month in theirs.month_of_year
        assert day in theirs.day_of_week
        instant = following


@pytest.mark.parametrize(
    ("fields", "timetable"),
    [
        ({"interval": {"every": 2, "period": "days"}}, {"kind": "interval", "every": 172_800}),
        ({"interval": {"every": 3_000_000, "period": "microseconds"}}, {"kind": "interval", "every": 3}),
        (
            {"interval": EVERY, "last_run_at": NOW - timedelta(minutes=3)},
            {"kind": "interval", "every": 300, "anchor": "2026-03-04T11:57:00Z"},
        ),
        (
            {"interval": None, "solar": {"event": "sunset", "latitude": "52.5", "longitude": "13.4"}},
            {"kind": "solar", "event": "sunset", "latitude": 52.5, "longitude": 13.4},
        ),
        (
            {"interval": None, "clocked": {"clocked_time": NOW + timedelta(hours=1)}, "one_off": True},
            {"kind": "once", "at": "2026-03-04T13:00:00Z"},
        ),
    ],
)
def test_each_kind_of_timetable(fields: dict[str, Any], timetable: dict[str, Any]) -> None:
    found = row(**fields)
    assert found.reason == ""
    assert found.values["spec"]["timetables"] == [timetable]


def test_positional_arguments_take_the_names_of_the_signature() -> None:
    found = row(args="[2.5]")
    assert (found.values["input"], found.task) == ({"seconds": 2.5}, ("demo.tasks.sleep", ("seconds",)))
    both = row(task="demo.tasks.report", args='["2026-03-01"]', kwargs='{"rate": 2}')
    assert both.values["input"] == {"day": "2026-03-01", "rate": 2}


def test_options_come_along() -> None:
    found = row(
        queue="io",
        priority=2,
        headers='{"x": 1}',
        exchange="ex",
        routing_key="rk",
        expire_seconds=60,
        one_off=True,
        start_time=NOW,
        expires=NOW + timedelta(days=9),
        enabled=False,
        description="why",
    )
    values = found.values
    assert (values["queue"], values["priority"], values["max_executions"], values["catch_up_window"]) == (
        "io",
        2,
        1,
        60,
    )
    assert (values["spec"]["start"], values["spec"]["end"]) == ("2026-03-04T12:00:00Z", "2026-03-13T12:00:00Z")
    assert values["metadata"]["django_celery_beat"]["headers"] == {"x": 1}
    assert (found.enabled, values["description"]) == (False, "why")
    assert len(found.notes) == 6
    odd = row(queue="gpu", priority=200)
    assert (odd.values["queue"], odd.values["priority"], len(odd.notes)) == ("", 9, 2)
    assert row(routing_key="io").values["queue"] == "io"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"task": "nobody.knows"}, "may not be a step"),
        ({"interval": None}, "no crontab, interval"),
        ({"interval": {"every": 5, "period": "microseconds"}}, "microseconds"),
        ({"interval": {"every": 5, "period": "eons"}}, "no interval"),
        ({"interval": None, "solar": {"event": "eclipse", "latitude": 0, "longitude": 0}}, "no solar event"),
        ({"interval": None, "clocked": {"clocked_time": NOW}}, "has passed"),
        ({"one_off": True, "enabled": False, "total_run_count": 1}, "was to run once"),
        ({"expires": NOW}, "expired"),
        ({"expires": NOW + timedelta(days=1), "start_time": NOW + timedelta(days=2)}, "before its start"),
        ({"args": "{"}, "not JSON"),
        ({"args": "{}"}, "must be a list"),
        ({"kwargs": "[]"}, "must be an object"),
        ({"args": "[1, 2]"}, "have no names"),
        ({"args": "[1]", "kwargs": '{"seconds": 2}'}, "given twice"),
        ({"kwargs": '{"nobody": 1}', "task": "demo.tasks.report"}, "do not fit"),
        (
            {"interval": None, "crontab": {**dict.fromkeys(FIELDS, "*"), "timezone": "Mars/Base"}},
            "timezone",
        ),
    ],
)
def test_what_cannot_be_translated_says_why(fields: dict[str, Any], why: str) -> None:
    assert why in row(**fields).reason


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────


def run(*arguments: str) -> Any:
    out = io.StringIO()
    call_command("schedules", "import-beat", *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def fill() -> None:
    every = IntervalSchedule.objects.create(every=10, period="seconds")
    nightly = CrontabSchedule.objects.create(
        minute="30", hour="2", day_of_month="13", day_of_week="fri", timezone="Europe/Berlin"
    )
    solar = SolarSchedule.objects.create(event="sunrise", latitude=52.5, longitude=13.4)
    later = ClockedSchedule.objects.create(clocked_time=datetime(2190, 1, 1, tzinfo=UTC))
    PeriodicTask.objects.create(name="every", task="demo.tasks.sleep", interval=every)
    PeriodicTask.objects.create(name="nightly", task="demo.tasks.sleep", crontab=nightly, enabled=False)
    PeriodicTask.objects.create(name="sun", task="demo.tasks.sleep", solar=solar, queue="io", priority=3)
    PeriodicTask.objects.create(name="later", task="demo.tasks.sleep", clocked=later, one_off=True)
    PeriodicTask.objects.create(name="foreign", task="shop.tasks.unknown", interval=every)


@pytest.mark.django_db
class TestCommand:
    def test_a_second_import_changes_nothing(self) -> None:
        fill()
        dry = run("--dry-run")
        assert (dry["actions"]["created"], Schedule.objects.count(), Workflow.objects.count()) == (4, 0, 0)
        first = run()
        assert (first["actions"]["created"], first["outcomes"]["refused"]) == (4, 1)
        assert Workflow.objects.get().name == "demo.tasks.sleep"
        nightly = Schedule.objects.get(name="nightly")
        assert nightly.version is not None
        assert nightly.version.spec == {
            "timezone": "Europe/Berlin",
            "timetables": [{"kind": "cron", "expression": "30 2 13 * +5"}],
        }
        assert (nightly.enabled, nightly.pause_note) == (False, "It was disabled where it comes from.")
        PeriodicTask.objects.filter(name="every").update(last_run_at=datetime.now(UTC))
        assert run()["actions"] == {"created": 0, "updated": 0, "unchanged": 4, "none": 1}

    def test_taking_over_disables_the_originals_once(self) -> None:
        fill()
        out = io.StringIO()
        call_command("schedules", "import-beat", "--take-over", stdout=out)
        assert "3 PeriodicTasks were disabled" in out.getvalue()
        assert list(PeriodicTask.objects.filter(enabled=True, name__in=["every", "foreign"]).values_list("name")) == [
            ("foreign",)
        ]
        assert Schedule.objects.get(name="every").enabled
        assert run("--paused")["actions"]["unchanged"] >= 3
        assert Schedule.objects.get(name="every").enabled
        with pytest.raises(CommandError):
            run("--take-over", "--database-url", "sqlite:///x")


@pytest.mark.django_db(transaction=True)
def test_another_postgres_is_read_through_its_url() -> None:
    fill()
    told = connection.settings_dict
    url = "postgresql://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format_map(told)
    assert run("--database-url", url, "--label", "shop", "--dry-run")["actions"]["created"] == 4


@pytest.mark.django_db
def test_an_old_sqlite_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "old.sqlite3"
    old = sqlite3.connect(file)
    old.executescript(
        """
        CREATE TABLE django_celery_beat_intervalschedule (id integer primary key, every integer, period varchar(24));
        CREATE TABLE django_celery_beat_periodictask (id integer primary key, name varchar(200), task varchar(200),
            args text, kwargs text, queue varchar(200), expires datetime, enabled bool, last_run_at datetime,
            total_run_count integer, description text, interval_id integer, crontab_id integer);
        INSERT INTO django_celery_beat_intervalschedule VALUES (1, 1, 'hours');
        INSERT INTO django_celery_beat_periodictask VALUES (1, 'old', 'demo.tasks.sleep', '[]', '{}', NULL, NULL, 1,
            '2026-03-01 10:15:00', 3, '', 1, NULL);
        """
    )
    old.close()
    (found,) = run("--database-url", f"sqlite:///{file}")["rows"]
    assert (found["action"], found["spec"]["timetables"][0]["anchor"]) == ("created", "2026-03-01T10:15:00Z")
    empty = tmp_path / "empty.sqlite3"
    sqlite3.connect(empty).close()
    for url in (f"sqlite:///{empty}", "nonsense", "postgresql://nobody@127.0.0.1:1/none"):
        with pytest.raises(CommandError) as caught:
            run("--database-url", url)
        assert "database_url" in str(caught.value)
