"""Two connections against each other: firing, editing and pausing the same schedules at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections, transaction

from execution import engine
from execution.models import Execution
from schedules import claims, firing, lifecycle, versions
from schedules.models import Schedule, ScheduleFire
from tests.schedules.builders import SECONDLY, T0, at, schedule, started, workflow

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "engine"]), pytest.mark.race]


@pytest.fixture(autouse=True)
def _engine(settings):
    settings.WORKFLOW_ENGINE_DATABASE = "engine"
    versions.forget()
    workflow()
    yield
    connections["engine"].close()


def together(*deeds):
    """Run the deeds in threads that begin at the same moment; returns what they returned or raised."""
    barrier = threading.Barrier(len(deeds))
    results = [None] * len(deeds)

    def run(place, deed):
        barrier.wait()
        try:
            results[place] = deed()
        except Exception as error:  # noqa: BLE001
            results[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(deeds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def test_many_beats_fire_each_instant_once():
    for number in range(30):
        schedule(SECONDLY, name=f"n{number}")
    reports = together(*[lambda: firing.fire_due(at(10)) for _ in range(4)])
    firing.fire_due(at(10))  # what was locked when a beat looked is passed over by it
    assert not [r for r in reports if isinstance(r, Exception)]
    assert Execution.objects.count() == ScheduleFire.objects.count() == 300


def test_a_maximum_holds_against_many_beats():
    schedule(SECONDLY, max_executions=7)
    together(*[lambda s=s: firing.fire_due(at(s)) for s in (2, 4, 6, 8, 10)])
    firing.fire_due(at(12))
    assert Execution.objects.count() == 7
    assert Schedule.objects.get().started_count == 7


def test_a_locked_schedule_holds_up_nobody_else():
    held, free = schedule(SECONDLY, name="held"), schedule(SECONDLY, name="free")
    with transaction.atomic():
        claims.lock([held.pk], using="default")
        assert firing.fire_due(at(1)).schedules == 1
    assert (started(held), started(free)) == ([], [1])


def test_an_edit_waits_for_a_visit_and_settles_on_top_of_it():
    one = schedule(SECONDLY)
    spec = {"timetables": [{"kind": "interval", "every": 5}]}
    results = together(
        *[lambda s=s: firing.fire_due(at(s)) for s in (3, 6)],
        lambda: lifecycle.update(one.pk, {"spec": spec}, actor="a", now=at(8)),
    )
    assert not [r for r in results if isinstance(r, Exception)]
    firing.fire_due(at(20))
    assert started(one) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20]


def test_a_pause_and_a_visit_leave_no_instant_behind():
    one = schedule(SECONDLY)
    together(
        lambda: firing.fire_due(at(5)),
        lambda: lifecycle.pause(one.pk, actor="a", now=at(5)),
        lambda: firing.fire_due(at(5)),
    )
    assert started(one) == [1, 2, 3, 4, 5]
    assert Schedule.objects.get().enabled is False


def test_a_version_written_between_snapshot_and_lock_is_seen():
    """The claim waits on nothing (SKIP LOCKED); what it returns is the row as locked, never the snapshot's."""
    one = schedule(SECONDLY)
    with transaction.atomic(using="engine"):
        connections["engine"].cursor().execute("SELECT 1")
        lifecycle.update(one.pk, {"input": {"new": True}}, actor="a", now=at(0.5))
        (row,) = claims.claim_due(now=at(5), limit=5, ids=None, using="engine").rows
        assert row.input == '{"new": true}'


def test_two_upserts_of_one_name_make_one_schedule():
    given = {"name": "same", "workflow": "report", "spec": SECONDLY}
    results = together(*[lambda: lifecycle.upsert(actor="a", now=T0, **given) for _ in range(4)])
    assert not [r for r in results if isinstance(r, Exception)]
    assert sorted(created for _, created in results) == [False, False, False, True]


@contextmanager
def in_every_visit(table: str, event: str, statement: str) -> Iterator[None]:
    """Postgres runs `statement` in each transaction that does `event` to `table`."""
    with connections["default"].cursor() as cursor:
        cursor.execute(
            f"CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NULL; END $$;"
            f"CREATE TRIGGER disturb AFTER {event} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION disturb()"
        )
        try:
            yield
        finally:
            cursor.execute(f"DROP TRIGGER disturb ON {table}; DROP FUNCTION disturb()")


def test_a_connection_lost_before_the_commit_leaves_nothing():
    one = schedule(SECONDLY)
    lost = "PERFORM pg_terminate_backend(pg_backend_pid())"
    with in_every_visit("schedules_schedule", "UPDATE", lost), pytest.raises(engine.DatabaseAway):
        firing.fire_due(at(3))
    assert (ScheduleFire.objects.count(), Execution.objects.count()) == (0, 0)
    engine.close()
    firing.fire_due(at(3))
    assert started(one) == [1, 2, 3]


def test_a_watermark_moved_without_the_lock_rolls_the_visit_back():
    one = schedule(SECONDLY)
    move = "UPDATE schedules_schedule SET fired_through = fired_through + interval '1 second'"
    with in_every_visit("schedules_schedulefire", "INSERT", move):
        report = firing.fire_due(at(3), limit=1)
    assert report.quarantined == 1
    assert ScheduleFire.objects.count() == 0
    one.refresh_from_db()
    assert "WatermarkMoved" in one.pause_note


def test_instants_that_the_ledger_has_already_are_not_fired_again_when_a_watermark_is_set_back():
    one, other = schedule(SECONDLY), schedule(SECONDLY, name="other")
    firing.fire_due(at(3))
    Schedule.objects.filter(pk=one.pk).update(fired_through=T0, next_fire_at=at(1))
    Schedule.objects.filter(pk=other.pk).update(next_fire_at=at(4))
    report = firing.fire_due(at(5))
    assert (report.started, report.quarantined) == (4, 0)
    assert started(one) == started(other) == [1, 2, 3, 4, 5]
    assert Execution.objects.count() == 10


def test_the_wake_ups_agree_with_the_clock_of_postgres():
    schedule(SECONDLY, wake=datetime.now(UTC) + timedelta(seconds=30))
    assert 29 < claims.seconds_to_next() <= 30
