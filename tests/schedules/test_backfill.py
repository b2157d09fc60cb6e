"""Backfills: gaps and ranges in the ledger, order, bounds, progress, cancel."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from execution import plans
from execution.models import AuditEntry, Execution, Pool, ProcessReport, Workflow, WorkflowVersion
from schedules import audit, backfill, backfill_plan, firing, lifecycle, versions
from schedules.models import Backfill, FiringSwitch, Schedule, ScheduleFire, ScheduleVersion
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests.schedules.builders import MINUTELY, SECONDLY, at, end_executions, ledger, schedule, workflow

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


def test_the_plan_says_how_many_how_long_and_what_it_takes(missed, settings):
    Execution.objects.update(started_at=at(0), finished_at=at(30), state="succeeded")
    Pool.objects.create(name="warehouse", slots=4)
    definition = {
        "steps": {
            "load": {"task": "demo.tasks.noop", "pool": {"name": "warehouse", "units": 2}},
            "tell": {"needs": ["load"], "task": "demo.tasks.noop", "queue": "io"},
            "nap": {"wait": "1s"},
        }
    }
    WorkflowVersion.objects.update(definition=definition)
    plans._plans.clear()
    ProcessReport.objects.create(name="w1", kind="worker", host="h", pid=1, slots=8, queues=["default", "io"])
    found = backfill.plan(missed.pk, since=at(1), until=at(600), max_running=3)
    assert (found.instants, found.ran, found.excluded, found.priority) == (9, 1, 0, 6)
    assert (found.seconds, found.run_seconds, found.step_runs) == (90, 30, 18)
    assert (found.first, found.last) == (at(60), at(540))
    assert [(q.name, q.steps, q.used, q.slots, q.share) for q in found.queues] == [
        ("default", ("load",), 3, 8, 0.375),
        ("io", ("tell",), 3, 8, 0.375),
    ]
    assert [(p.name, p.used, p.slots, p.share) for p in found.pools] == [("warehouse", 6, 4, 1.0)]
    assert backfill.plan(missed.pk, since=at(1), until=at(600), per_minute=1).seconds == 480
    Execution.objects.update(started_at=None)
    unknown = backfill.plan(missed.pk, since=at(1), until=at(600), gaps_only=False)
    assert (unknown.instants, unknown.seconds, unknown.run_seconds) == (10, None, None)
    ProcessReport.objects.all().delete()
    nothing = backfill.plan(missed.pk, since=at(599), until=at(600), per_minute=1)
    assert (nothing.instants, nothing.seconds, nothing.first, nothing.queues[0].share) == (0, 0, None, None)
    assert not Backfill.objects.exists()


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
    monkeypatch.setattr(backfill_plan, "MOST", 5)
    with pytest.raises(InvalidInput, match="10 instants"):
        begin(missed)


# ── Calendars ────────────────────────────────────────────────────────────────────────────────────────────────

BLACKED_OUT = {
    **MINUTELY,
    "blackouts": [{"from": "2026-03-04T12:02:30Z", "until": "2026-03-04T12:05:30Z"}],
}


@pytest.fixture
def blacked_out():
    """Ten minutes: 1 and 2 missed, 3 to 5 in a blackout, 6 to 9 missed, 10 started."""
    versions.forget()
    workflow()
    made = schedule(BLACKED_OUT, catch_up="latest")
    firing.fire_due(at(600))
    assert [entry[:3] for entry in ledger(made)] == [(60, 120, 2), (180, 300, 3), (360, 540, 4), (600, None, 1)]
    return made


def test_what_calendars_and_blackouts_leave_out_stays_out(blacked_out):
    found = backfill.plan(blacked_out.pk, since=at(1), until=at(600))
    assert (found.instants, found.excluded) == (6, 3)
    one = begin(blacked_out)
    assert one.total == 6
    backfill.advance(one.pk)
    assert instants(one) == [60, 120, 360, 420, 480, 540]
    assert (180, 300, 3, "skipped", "blackout") in ledger(blacked_out)
    newest = begin(blacked_out, gaps_only=False, order="newest", max_running=2)
    backfill.advance(newest.pk)
    assert instants(newest) == [600, 540]


def test_a_backfill_may_ignore_them(blacked_out):
    one = begin(blacked_out, ignore_calendars=True)
    assert one.total == 9
    assert backfill.advance(one.pk) == 9
    assert {entry[3] for entry in ledger(blacked_out)} == {"started"}
    assert not audit.audit(since=at(0) - timedelta(hours=1)).findings


def test_the_calendars_are_those_of_the_version_in_force_then(blacked_out):
    lifecycle.update(blacked_out.pk, {"spec": MINUTELY}, actor="ann", now=at(600))
    firing.fire_due(at(900))
    found = backfill.plan(blacked_out.pk, since=at(1), until=at(900))
    assert (found.excluded, found.ran) == (3, 2)


def test_a_range_with_calendars_is_counted_no_further_than_it_may_go(blacked_out, monkeypatch):
    monkeypatch.setattr(backfill_plan, "MOST", 6)
    with pytest.raises(InvalidInput, match="more than 6 instants"):
        begin(blacked_out)


# ── What the schedule does meanwhile ─────────────────────────────────────────────────────────────────────────


def test_it_counts_against_no_maximum_and_is_no_predecessor(missed):
    Schedule.objects.update(max_executions=2, overlap_policy="skip")
    missed.refresh_from_db()
    assert backfill.advance(begin(missed).pk) == 9
    missed.refresh_from_db()
    assert missed.started_count == 1
    firing.fire_due(at(660))
    assert ledger(missed)[-1] == (660, None, 1, "started", "")
    missed.refresh_from_db()
    assert (missed.enabled, missed.pause_kind) == (False, "finished")


def test_it_runs_while_the_schedule_is_paused_and_not_into_the_pause(missed):
    lifecycle.pause(missed.pk, actor="ann", now=at(600))
    one = begin(missed, until=at(9_999))
    assert one.until == at(600)
    assert backfill.advance(one.pk) == 9


def test_instants_before_the_schedule_was_made_can_run(missed):
    one = begin(missed, since=at(-120), until=at(0))
    assert one.total == 3
    backfill.advance(one.pk)
    assert ledger(missed)[:3] == [
        (-120, None, 1, "started", ""),
        (-60, None, 1, "started", ""),
        (0, None, 1, "started", ""),
    ]


def test_an_instant_between_two_seconds_is_not_before_the_range(missed):
    one = begin(missed, since=at(60.5), until=at(180.5))
    assert one.total == 2
    backfill.advance(one.pk)
    assert instants(one) == [120, 180]


def test_an_instant_that_fired_meanwhile_is_passed(missed):
    one = begin(missed, until=at(120))
    other = begin(missed, until=at(60))
    backfill.advance(other.pk)
    backfill.advance(one.pk)
    one.refresh_from_db()
    assert (one.started, one.passed, one.remaining) == (1, 1, 1)
    assert backfill.advance(one.pk) == 0
    one.refresh_from_db()
    assert (one.state, one.remaining) == ("finished", 0)


def test_a_timing_that_cannot_be_computed_fails_its_backfill_alone(missed):
    broken, whole = begin(missed, until=at(300)), begin(schedule_of(missed), until=at(300))
    ScheduleVersion.objects.filter(schedule=missed).update(spec={"timezone": "Mars/Olympus", "timetables": []})
    assert backfill.advance_all(budget=60) == whole.total
    broken.refresh_from_db()
    assert (broken.state, broken.started) == ("failed", 0)
    assert broken.error
    assert AuditEntry.objects.get(action="schedule.backfill_fail").note == broken.error
    backfill._fail(broken.pk, ValueError("again"), now=None, using="default")
    assert AuditEntry.objects.filter(action="schedule.backfill_fail").count() == 1


def schedule_of(other):
    made = schedule(MINUTELY, name="other", of=other.workflow, catch_up="none")
    firing.fire_due(at(601))
    return made


def test_those_that_waited_longest_go_first_and_a_turn_has_an_end(missed):
    first, second = begin(missed, until=at(300), max_running=1), begin(missed, since=at(301), max_running=1)
    for _ in range(2):
        assert backfill.advance_all(budget=0) == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.started, second.started) == (1, 1)


def test_what_happens_to_its_executions_is_told(missed):
    one = begin(missed, max_running=4)
    backfill.advance(one.pk)
    states = iter(["succeeded", "failed", "cancelled"])
    for execution in Execution.objects.filter(source_kind="backfill").order_by("id")[:3]:
        Execution.objects.filter(pk=execution.pk).update(state=next(states), finished_at=at(0), open_steps=0)
    assert backfill.progress(one.pk) == backfill.Progress(running=1, succeeded=1, failed=1, cancelled=1)


def test_without_a_published_version_it_waits(missed):
    one = begin(missed)
    Workflow.objects.update(published=None)
    assert backfill.advance(one.pk) == 0
    one.refresh_from_db()
    assert one.state == "running"


def test_a_long_run_of_instants_is_split_in_the_middle():
    versions.forget()
    workflow()
    made = schedule(SECONDLY, catch_up="none")
    firing.fire_due(at(5_000))
    one = begin(made, since=at(2_000), until=at(2_300))
    while backfill.advance(one.pk):
        end_executions()
    assert ledger(made)[0][:3] == (1, 1999, 1999)
    assert ledger(made)[302][:2] == (2301, 4994)
    assert not audit.audit(since=at(0) - timedelta(hours=1), until=at(4_000)).findings


def test_a_workflow_without_a_version_is_refused(missed):
    missed.workflow.published = None
    missed.workflow.save()
    with pytest.raises(Conflict):
        begin(missed)
