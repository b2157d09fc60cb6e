"""The Celery doors of the schedules app: each does one thing, and drops its message while Postgres is away."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery.exceptions import Ignore
from django.db import OperationalError

from execution.models import Execution
from schedules import audit, backfill, firing, outcomes, tasks, versions
from schedules.models import ScheduleFire
from scheduling_project.common import clock
from tests.schedules.builders import MINUTELY, schedule, workflow

pytestmark = pytest.mark.django_db


@pytest.fixture
def due():
    versions.forget()
    workflow()
    now = clock.now().replace(microsecond=0)
    return schedule(MINUTELY, since=now - timedelta(minutes=3), catch_up="latest", wake=now)


def test_one_schedule_fires(due):
    other = schedule(MINUTELY, name="other", since=due.fired_through, wake=due.next_fire_at)
    tasks.fire(str(due.pk))
    assert ScheduleFire.objects.filter(schedule=due).exists()
    assert not ScheduleFire.objects.filter(schedule=other).exists()


def test_whatever_is_due_fires(due):
    tasks.fire_due()
    assert Execution.objects.count() == 1


def test_a_backfill_goes_on(due):
    tasks.fire_due()
    backfill.create(due.pk, since=due.fired_through, until=clock.now(), actor="a")
    tasks.advance_backfills()
    assert Execution.objects.filter(source_kind="backfill").count() == 1


def test_housekeeping(due, caplog):
    tasks.fire_due()
    tasks.refresh_periodic_tasks()
    tasks.prune()
    tasks.audit_ledger()
    assert audit.latest() is not None


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (firing, "fire_due", lambda: tasks.fire("01a20000-0000-7000-8000-000000000000")),
        (firing, "fire_due", tasks.fire_due),
        (outcomes, "take_news", tasks.fire_due),
        (backfill, "advance_all", tasks.advance_backfills),
    ],
)
def test_with_postgres_away_the_message_is_dropped(monkeypatch, module, name, call):
    def away(*args, **kwargs):
        raise OperationalError("the server went away")

    monkeypatch.setattr(tasks.engine, "close", lambda: None)
    monkeypatch.setattr(module, name, away)
    with pytest.raises(Ignore):
        call()
