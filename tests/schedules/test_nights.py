"""Whole nights and downtimes, walked through by firing with injected time, down to the ledger's rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from execution.models import Execution
from schedules import audit, firing, versions
from schedules.models import ScheduleFire
from tests.schedules.builders import MINUTELY, at, ledger, schedule, workflow

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _workflow():
    versions.forget()
    workflow()


def night(zone, expression, begin, **options):
    """Fire every five minutes through twelve hours; returns the instants that started, as times in UTC."""
    start = datetime.fromisoformat(begin)
    timetables = [{"kind": "cron", "expression": expression}]
    made = schedule({"timezone": zone, "timetables": timetables, **options}, since=start)
    for minutes in range(0, 12 * 60 + 1, 5):
        firing.fire_due(start + timedelta(minutes=minutes))
    fires = ScheduleFire.objects.filter(schedule=made, outcome="started").order_by("scheduled_for")
    assert fires.count() == Execution.objects.count()
    done = audit.audit(since=start - timedelta(hours=1), until=start + timedelta(hours=12))
    assert (done.schedules, done.findings) == (1, [])
    return [fire.scheduled_for.astimezone(UTC).strftime("%H:%M") for fire in fires]


SPRING_BERLIN, AUTUMN_BERLIN = "2026-03-28T18:00:00+00:00", "2026-10-24T18:00:00+00:00"
SPRING_NEW_YORK, AUTUMN_NEW_YORK = "2026-03-08T00:00:00+00:00", "2026-11-01T00:00:00+00:00"


@pytest.fixture(autouse=True)
def _audits_look_back_far_enough(settings, monkeypatch):
    settings.SCHEDULE_LEDGER_DAYS = 3_650
    monkeypatch.setattr(audit.engine, "now", lambda **_: datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("zone", "begin", "options", "expected"),
    [
        ("Europe/Berlin", SPRING_BERLIN, {}, ["01:00"]),  # 02:30 does not exist: at the gap's end, 03:00 local
        ("Europe/Berlin", SPRING_BERLIN, {"gap": "skip"}, []),
        ("Europe/Berlin", AUTUMN_BERLIN, {}, ["00:30"]),
        ("Europe/Berlin", AUTUMN_BERLIN, {"overlap": "last"}, ["01:30"]),
        ("Europe/Berlin", AUTUMN_BERLIN, {"overlap": "both"}, ["00:30", "01:30"]),
        ("America/New_York", SPRING_NEW_YORK, {}, ["07:00"]),
        ("America/New_York", SPRING_NEW_YORK, {"gap": "skip"}, []),
    ],
)
def test_a_fixed_time_fires_once_in_the_night_of_the_change(zone, begin, options, expected):
    assert night(zone, "30 2 * * *", begin, **options) == expected


@pytest.mark.parametrize(
    ("overlap", "expected"), [("first", ["05:30"]), ("last", ["06:30"]), ("both", ["05:30", "06:30"])]
)
def test_half_past_one_comes_twice_in_new_york(overlap, expected):
    assert night("America/New_York", "30 1 * * *", AUTUMN_NEW_YORK, overlap=overlap) == expected


@pytest.mark.parametrize("begin", [SPRING_BERLIN, AUTUMN_BERLIN, SPRING_NEW_YORK, AUTUMN_NEW_YORK])
def test_what_runs_every_quarter_of_an_hour_follows_real_time(begin):
    zone = "Europe/Berlin" if "18:00" in begin else "America/New_York"
    assert len(night(zone, "*/15 * * * *", begin)) == 12 * 4


@pytest.mark.parametrize(
    ("policy", "started", "missed"),
    [("all", 7, 0), ("latest", 1, 6), ("none", 0, 7)],
)
def test_after_minutes_without_a_beat_the_policy_decides(policy, started, missed):
    made = schedule(MINUTELY, catch_up=policy)
    firing.fire_due(at(60))
    firing.fire_due(at(8 * 60 + 30))  # away for seven and a half minutes
    rows = ledger(made)
    assert rows[0][3] == "started"
    late = rows[1:]
    assert sum(row[2] for row in late if row[3] == "started") == started
    assert sum(row[2] for row in late if row[3] == "missed") == missed
    firing.fire_due(at(9 * 60))
    assert ledger(made)[-1][:4] == (540, None, 1, "started")
    assert not audit.audit(since=at(-60), until=at(600)).findings
