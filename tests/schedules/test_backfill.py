"""Backfills: gaps and ranges in the ledger, order, bounds, progress, cancel."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from execution.models import AuditEntry, Execution
from schedules import audit, backfill, firing, versions
from schedules.models import Backfill, FiringSwitch, ScheduleFire
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests.schedules.builders import MINUTELY, at, end_executions, ledger, schedule, workflow

pytestmark = pytest.mark.django_db


@pytest.fixture
def missed():
    """Ten minutes missed as one range (60 … 540), the eleventh started."""
    versions.forget()
    workflow()
    made = schedule(MINUTELY, catch_up="latest", input={"v": 1}, priority=3)
    firing.fire_due(at(600))
    end_executions()
    assert ledger(made)[0] == (60, 540, 9, "missed", "catch_up_latest")
    return made


def begin(of, **given):
    given = {"since": at(1), "until": at(600), "actor": "ann", "max_running": 100} | given
    return backfill.create(of.pk, **given)


def instants(one):
    return [(f.scheduled_for - at(0)).total_seconds() for f in one.fires.order_by("id")]


def test_gaps_are_counted_filled_and_become_started(missed):
    one = begin(missed)
    assert (one.total, one.priority) == (9, 6)
    assert backfill.advance_all() == 9
    assert backfill.advance_all() == 0
    one.refresh_from_db()
    assert (one.state, one.started, one.passed) == ("finished", 9, 1)
    assert instants(one) == [60 * n for n in range(1, 10)]
    assert {entry[3] for entry in ledger(missed)} == {"started"}
    assert len(ledger(missed)) == 10
    execution = Execution.objects.filter(source_kind="backfill").order_by("scheduled_for").first()
    assert (execution.input, execution.scheduled_for, execution.priority) == ({"v": 1}, at(60), 6)
    assert AuditEntry.objects.filter(action="schedule.backfill").exists()


def test_a_part_of_a_range_splits_it(missed):
    one = begin(missed, since=at(180), until=at(240), input={"v": 2})
    backfill.advance(one.pk)
    assert ledger(missed)[:4] == [
        (60, 120, 2, "missed", "catch_up_latest"),
        (180, None, 1, "started", ""),
        (240, None, 1, "started", ""),
        (300, 540, 5, "missed", "catch_up_latest"),
    ]
    assert not audit.audit(since=at(0) - timedelta(hours=1)).findings


def test_newest_first(missed):
    one = begin(missed, order="newest", max_running=2)
    backfill.advance(one.pk)
    assert instants(one) == [540, 480]
    assert ledger(missed)[0] == (60, 420, 7, "missed", "catch_up_latest")


def test_only_so_many_run_at_once_and_start_in_a_minute(missed):
    one = begin(missed, max_running=2)
    assert backfill.advance(one.pk) == 2
    assert backfill.advance(one.pk) == 0
    end_executions()
    assert backfill.advance(one.pk) == 2
    slow = begin(missed, per_minute=3)
    assert backfill.advance(slow.pk) == 3
    assert backfill.advance(slow.pk) == 0


def test_everything_again_leaves_started_entries_alone(missed):
    backfill.advance(begin(missed).pk)
    again = begin(missed, gaps_only=False)
    assert again.total == 10
    assert backfill.advance(again.pk) == 10
    assert ScheduleFire.objects.count() == 10


def test_an_entry_deleted_by_hand_is_a_gap(missed):
    ScheduleFire.objects.filter(outcome="started").delete()
    one = begin(missed, since=at(600))
    assert one.total == 1
    backfill.advance(one.pk)
    assert ledger(missed)[-1] == (600, None, 1, "started", "")


def test_a_single_missed_entry_becomes_started(missed):
    ScheduleFire.objects.filter(outcome="started").update(outcome="missed", reason="paused", execution=None)
    backfill.advance(begin(missed, since=at(600)).pk)
    assert ledger(missed)[-1] == (600, None, 1, "started", "")


def test_it_stops_at_the_watermark_and_can_be_cancelled(missed):
    one = begin(missed, until=at(99_999), max_running=3)
    assert one.until == at(600)
    backfill.advance(one.pk)
    cancelled = backfill.cancel(one.pk, actor="ann", stop_running=True)
    assert cancelled.state == "cancelled"
    assert backfill.advance(one.pk) == 0
    assert not Execution.objects.filter(source_kind="backfill", finished_at=None).exists()
    with pytest.raises(Conflict):
        backfill.cancel(one.pk, actor="ann")
    with pytest.raises(NotFound):
        backfill.cancel(uuid4(), actor="ann")
    assert backfill.advance(uuid4()) == 0


def test_while_all_firing_is_stopped_it_waits(missed):
    one = begin(missed)
    FiringSwitch.objects.create(stopped_at=at(0))
    assert backfill.advance(one.pk) == 0


def test_the_plan_says_how_many_and_how_long(missed):
    Execution.objects.update(started_at=at(0), finished_at=at(30))
    estimate = backfill.plan(missed.pk, since=at(1), until=at(600), max_running=3)
    assert (estimate.instants, estimate.seconds, estimate.average_run_seconds) == (9, 90, 30)
    assert backfill.plan(missed.pk, since=at(1), until=at(600), per_minute=1).seconds == 540
    Execution.objects.update(started_at=None)
    assert backfill.plan(missed.pk, since=at(1), until=at(600)).seconds is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"until": at(-5)}, "until"),
        ({"since": at(700), "until": at(900)}, "since"),
        ({"since": at(599), "until": at(599)}, "since"),
        ({"max_running": 0}, "max_running"),
        ({"per_minute": 0}, "per_minute"),
        ({"priority": 12}, "priority"),
        ({"order": "random"}, "order"),
        ({"input": []}, "input"),
    ],
)
def test_bad_values_are_named(missed, given, field):
    with pytest.raises(InvalidInput) as caught:
        begin(missed, **given)
    assert field in caught.value.fields
    assert not Backfill.objects.exists()


def test_a_range_of_too_many_instants_is_refused(missed, monkeypatch):
    monkeypatch.setattr(backfill, "MOST", 5)
    with pytest.raises(InvalidInput, match="10 instants"):
        begin(missed)


def test_a_workflow_without_a_version_is_refused(missed):
    missed.workflow.published = None
    missed.workflow.save()
    with pytest.raises(Conflict):
        begin(missed)
