"""What people do with schedules: every deed with its effect on watermark, ledger, audit trail and PeriodicTask."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django_celery_beat.models import PeriodicTask

from execution.models import AuditEntry, Execution
from schedules import firing, lifecycle, versions
from schedules.models import FiringSwitch, Schedule, ScheduleFire, ScheduleVersion
from schedules.models.calendar import Calendar
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound, StaleVersion
from tests.schedules.builders import MINUTELY, T0, at, end_executions, ledger, started, workflow

pytestmark = pytest.mark.django_db

HOURLY = {"timetables": [{"kind": "cron", "expression": "0 * * * *"}]}


@pytest.fixture(autouse=True)
def _a_workflow():
    versions.forget()
    workflow()


def make(**given):
    given = {"name": "nightly", "workflow": "report", "spec": MINUTELY, "overlap_policy": "allow_all"} | given
    return lifecycle.create(actor="ann", now=given.pop("now", T0), **given)


# ── Create ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_schedule_fires_after_now_and_not_before():
    nightly = make(input={"day": 1}, labels={"team": "a"})
    assert (nightly.fired_through, nightly.next_fire_at, nightly.enabled) == (T0, at(60), True)
    assert (nightly.version.number, nightly.version.effective_from) == (1, T0)
    firing.fire_due(at(60))
    assert started(nightly) == [60]


def test_creation_is_audited_and_mirrored():
    nightly = make(queue="io", priority="high", description="every minute")
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject_label) == ("ann", "schedule.create", "nightly")
    assert entry.changes["priority"] == {"before": None, "after": 3}
    task = PeriodicTask.objects.get(workflow_schedule=nightly)
    assert (task.task, task.queue, task.priority, task.enabled) == ("schedules.fire", "io", 3, True)
    assert (task.crontab.minute, task.description) == ("*", "every minute")


def test_a_schedule_can_be_made_paused():
    nightly = make(enabled=False, note="not yet")
    assert (nightly.enabled, nightly.pause_kind, nightly.next_fire_at) == (False, "manual", None)


def test_a_start_in_the_past_fires_nothing_of_the_past():
    nightly = make(spec={**MINUTELY, "start": "2020-01-01T00:00:00Z"})
    assert nightly.next_fire_at == at(60)


def test_a_one_off_in_the_past_never_fires_and_stays_enabled():
    never = make(spec={"timetables": [{"kind": "once", "at": "2020-01-01T00:00:00Z"}]})
    assert (never.enabled, never.next_fire_at) == (True, None)


def test_named_calendars_are_pinned_in_the_version():
    Calendar.objects.create(name="closed", definition={"kind": "dates", "dates": ["2026-03-04"]})
    made = make(spec={**HOURLY, "calendars": {"exclude": ["closed"]}})
    assert list(made.version.spec["calendars"]["data"]) == ["closed"]
    assert made.next_fire_at > at(hours=11)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"workflow": "nowhere"}, "workflow"),
        ({"workflow": uuid4()}, "workflow"),
        ({"workflow": 5}, "workflow"),
        ({"spec": {"timetables": [{"kind": "cron", "expression": "61 * * * *"}]}}, "timetables.0.expression"),
        ({"spec": {**MINUTELY, "timezone": "Mars/Olympus"}}, "timezone"),
        ({"spec": {**MINUTELY, "start": "2026-02-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}}, "end"),
        ({"spec": []}, "spec"),
        ({"max_executions": 0}, "max_executions"),
        ({"max_executions": True}, "max_executions"),
        ({"pause_on_failure": -1}, "pause_on_failure"),
        ({"catch_up_window": -1}, "catch_up_window"),
        ({"catch_up": "some"}, "catch_up"),
        ({"overlap_policy": "allow"}, "overlap_policy"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"priority": 10}, "priority"),
        ({"queue": "nowhere"}, "queue"),
        ({"retry_policy": {"max_attempts": 0}}, "retry_policy.max_attempts"),
        ({"input": []}, "input"),
        ({"labels": {"a": 1}}, "labels"),
        ({"metadata": [1]}, "metadata"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_bad_values_are_named_and_nothing_is_made(given, field):
    with pytest.raises(InvalidInput) as caught:
        make(**given)
    assert field in caught.value.fields
    assert not Schedule.objects.exists()
    assert not AuditEntry.objects.exists()


def test_all_wrong_fields_are_named_at_once():
    with pytest.raises(InvalidInput) as caught:
        make(name=None, priority=77, queue="x")
    assert set(caught.value.fields) == {"name", "priority", "queue"}


def test_an_input_that_the_workflow_does_not_allow_is_refused():
    schema = {"type": "object", "required": ["day"]}
    workflow("strict", definition={"input": schema, "steps": {"only": {"task": "demo.tasks.noop"}}})
    with pytest.raises(InvalidInput) as caught:
        make(workflow="strict")
    assert any(field.startswith("input") for field in caught.value.fields)
    make(workflow="strict", input={"day": 1})


@pytest.mark.parametrize("field", ["name", "external_id"])
def test_a_taken_name_or_external_id_is_a_conflict(field):
    make(external_id="e1")
    with pytest.raises(Conflict) as caught:
        make(**({"name": "other", "external_id": "e1"} if field == "external_id" else {}))
    assert field in caught.value.fields


# ── Update ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_edit_settles_the_old_timing_first():
    nightly = make()
    changed = lifecycle.update(nightly.pk, {"spec": HOURLY}, actor="bob", now=at(130))
    assert started(nightly) == [60, 120]
    assert (changed.version.number, changed.version.effective_from) == (2, at(130))
    assert (changed.next_fire_at, changed.revision) == (at(3600), 2)
    assert [v.number for v in ScheduleVersion.objects.order_by("number")] == [1, 2]
    entry = AuditEntry.objects.filter(action="schedule.update").get()
    assert entry.actor == "bob"
    assert set(entry.changes) == {"spec"}
    assert PeriodicTask.objects.get(workflow_schedule=nightly).crontab.minute == "0"


def test_an_edit_of_the_input_does_not_touch_what_was_due_before():
    nightly = make(input={"v": 1})
    lifecycle.update(nightly.pk, {"input": {"v": 2}}, actor="bob", now=at(61))
    firing.fire_due(at(120))
    assert [e.input for e in Execution.objects.order_by("scheduled_for")] == [{"v": 1}, {"v": 2}]
    assert ScheduleVersion.objects.count() == 1


def test_an_edit_that_changes_nothing_changes_nothing():
    nightly = make()
    again = lifecycle.update(nightly.pk, {"spec": MINUTELY, "name": "nightly"}, actor="bob", now=at(130))
    assert again.revision == 1
    assert AuditEntry.objects.count() == 1
    assert started(nightly) == []


def test_a_stale_edit_is_refused():
    nightly = make()
    lifecycle.update(nightly.pk, {"description": "x"}, actor="bob", revision=1)
    with pytest.raises(StaleVersion) as caught:
        lifecycle.update(nightly.pk, {"description": "y"}, actor="cid", revision=1)
    assert caught.value.extra == {"revision": 2}


def test_an_edit_of_a_paused_schedule_waits_for_its_end_with_both_versions():
    nightly = make()
    lifecycle.pause(nightly.pk, actor="ann", now=at(10))
    lifecycle.update(nightly.pk, {"spec": {"timetables": [{"kind": "interval", "every": 30}]}}, actor="ann", now=at(70))
    lifecycle.resume(nightly.pk, actor="ann", missed="catch_up", now=at(125))
    assert started(nightly) == [60, 90, 120]


def test_an_edit_while_all_firing_is_stopped_owes_the_old_instants():
    nightly = make()
    FiringSwitch.objects.create(stopped_at=T0)
    lifecycle.update(nightly.pk, {"spec": HOURLY}, actor="ann", now=at(130))
    assert started(nightly) == []
    FiringSwitch.objects.update(stopped_at=None)
    firing.fire_due(at(140))
    assert started(nightly) == [60, 120]


@pytest.mark.parametrize(
    "changes",
    [{"spec": {"timetables": [{"kind": "once", "at": "2026-03-04T12:10:00Z"}]}}, {"max_executions": 5}],
)
def test_an_edit_that_gives_a_finished_schedule_something_to_fire_revives_it(changes):
    once = make(max_executions=1)
    firing.fire_due(at(60))
    revived = lifecycle.update(once.pk, {"max_executions": None} | changes, actor="ann", now=at(90))
    assert (revived.enabled, revived.pause_kind) == (True, "")
    assert revived.next_fire_at in (at(600), at(120))
    firing.fire_due(at(600))
    assert started(once)[0] == 60
    assert len(started(once)) > 1


def test_an_edit_that_gives_a_finished_schedule_nothing_leaves_it_finished():
    once = make(spec={"timetables": [{"kind": "once", "at": "2026-03-04T12:01:00Z"}]})
    firing.fire_due(at(60))
    changed = lifecycle.update(once.pk, {"description": "done"}, actor="ann", now=at(90))
    assert (changed.enabled, changed.pause_kind) == (False, "finished")


def test_what_is_not_there_is_not_found():
    for call in (
        lambda: lifecycle.update(uuid4(), {}, actor="a"),
        lambda: lifecycle.delete(uuid4(), actor="a"),
        lambda: lifecycle.pause(uuid4(), actor="a"),
        lambda: lifecycle.trigger(uuid4(), actor="a"),
    ):
        with pytest.raises(NotFound):
            call()


# ── Delete ───────────────────────────────────────────────────────────────────────────────────────────────


def test_deleting_takes_versions_ledger_and_row_but_not_what_runs(django_capture_on_commit_callbacks):
    nightly = make()
    firing.fire_due(at(60))
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.delete(nightly.pk, actor="ann", note="over")
    assert not Schedule.objects.exists()
    assert not ScheduleFire.objects.exists()
    assert not PeriodicTask.objects.filter(task="schedules.fire").exists()
    assert Execution.objects.get().finished_at is None
    assert AuditEntry.objects.filter(action="schedule.delete").get().note == "over"


def test_a_schedule_without_a_row_can_be_deleted(settings):
    settings.SCHEDULE_PERIODIC_TASK_MIRROR = False
    nightly = make()
    assert nightly.periodic_task_id is None
    lifecycle.delete(nightly.pk, actor="ann")
    assert not Schedule.objects.exists()


# ── Pause and resume ─────────────────────────────────────────────────────────────────────────────────────


def test_a_pause_fires_what_was_due_before_it_and_nothing_after():
    nightly = make()
    paused = lifecycle.pause(nightly.pk, actor="ann", note="holiday", now=at(70))
    assert started(nightly) == [60]
    assert (paused.enabled, paused.pause_kind, paused.pause_note, paused.next_fire_at) == (
        False,
        "manual",
        "holiday",
        None,
    )
    assert firing.fire_due(at(600)).schedules == 0
    assert PeriodicTask.objects.get(workflow_schedule=nightly).enabled is False


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", [(60, 180, 3, "missed", "paused")]),
        ("catch_up", [(s, None, 1, "started", "") for s in (60, 120, 180)]),
    ],
)
def test_resuming_settles_the_pause_as_chosen(missed, expected):
    nightly = make()
    lifecycle.pause(nightly.pk, actor="ann", now=at(1))
    resumed = lifecycle.resume(nightly.pk, actor="ann", missed=missed, now=at(181))
    assert ledger(nightly) == expected
    assert (resumed.enabled, resumed.next_fire_at) == (True, at(240))


def test_resuming_what_is_not_paused_changes_nothing():
    nightly = make()
    assert lifecycle.resume(nightly.pk, actor="ann").revision == 1
    assert AuditEntry.objects.count() == 1


def test_a_pause_until_wakes_by_itself():
    nightly = make()
    lifecycle.pause(nightly.pk, actor="ann", until=at(150), on_resume="catch_up", now=at(1))
    firing.fire_due(at(150))
    assert started(nightly) == [60, 120]


def test_pausing_again_changes_the_note_and_the_end():
    nightly = make()
    first = lifecycle.pause(nightly.pk, actor="ann", now=at(1))
    second = lifecycle.pause(nightly.pk, actor="ann", note="longer", until=at(500), now=at(100))
    assert (second.paused_at, second.pause_note, second.next_fire_at) == (first.paused_at, "longer", at(500))


def test_pauses_that_make_no_sense_are_refused():
    nightly = make()
    with pytest.raises(InvalidInput, match="until"):
        lifecycle.pause(nightly.pk, actor="ann", until=at(-1), now=at(0))
    with pytest.raises(InvalidInput, match="on_resume"):
        lifecycle.pause(nightly.pk, actor="ann", on_resume="guess")
    with pytest.raises(InvalidInput, match="missed"):
        lifecycle.resume(nightly.pk, actor="ann", missed="guess")


def test_a_finished_schedule_can_neither_be_paused_nor_resumed():
    once = make(spec={"timetables": [{"kind": "once", "at": "2026-03-04T12:01:00Z"}]})
    firing.fire_due(at(60))
    with pytest.raises(Conflict):
        lifecycle.pause(once.pk, actor="ann", now=at(70))
    with pytest.raises(Conflict):
        lifecycle.resume(once.pk, actor="ann", now=at(70))


def test_a_pause_in_the_moment_of_the_last_fire_finds_it_finished():
    once = make(spec={"timetables": [{"kind": "once", "at": "2026-03-04T12:01:00Z"}]})
    assert lifecycle.pause(once.pk, actor="ann", now=at(70)).pause_kind == "finished"
    assert started(once) == [60]


def test_a_resume_after_failures_counts_anew():
    nightly = make(pause_on_failure=1)
    Schedule.objects.update(enabled=False, pause_kind="failures", consecutive_failures=1, paused_at=T0)
    assert lifecycle.resume(nightly.pk, actor="ann", now=at(1)).consecutive_failures == 0


# ── Trigger, clone, upsert ───────────────────────────────────────────────────────────────────────────────


def test_a_trigger_starts_one_execution_beside_the_timetable():
    nightly = make(input={"day": 1}, queue="io", overlap_policy="buffer_one")
    execution = lifecycle.trigger(nightly.pk, actor="ann", input={"day": 9}, priority="critical")
    assert (execution.input, execution.priority, execution.queue) == ({"day": 9}, 0, "io")
    assert (execution.source_kind, execution.source_id, execution.scheduled_for) == ("schedule", str(nightly.pk), None)
    assert execution.news_topic == "schedule.finished"
    assert ledger(nightly) == []
    firing.fire_due(at(60))
    assert ledger(nightly)[0][3] == "buffered"
    end_executions()
    with pytest.raises(InvalidInput, match="priority"):
        lifecycle.trigger(nightly.pk, actor="ann", priority=99)


def test_a_trigger_with_the_same_key_starts_nothing_twice():
    nightly = make()
    first = lifecycle.trigger(nightly.pk, actor="ann", idempotency_key="k")
    assert lifecycle.trigger(nightly.pk, actor="ann", idempotency_key="k").pk == first.pk


def test_a_clone_has_the_same_values_and_a_history_of_its_own():
    nightly = make(external_id="e1", labels={"a": "b"}, max_executions=7)
    firing.fire_due(at(60))
    copy = lifecycle.clone(nightly.pk, name="copy", actor="ann", priority=1, now=at(90))
    assert (copy.labels, copy.max_executions, copy.priority, copy.external_id) == ({"a": "b"}, 7, 1, None)
    assert (copy.started_count, copy.next_fire_at, ledger(copy)) == (0, at(120), [])


def test_an_upsert_is_idempotent():
    given = {"name": "nightly", "workflow": "report", "spec": MINUTELY, "external_id": "e1"}
    first, created = lifecycle.upsert(actor="ann", now=T0, **given)
    assert created
    second, created = lifecycle.upsert(actor="ann", now=T0, **given)
    assert not created
    assert (second.pk, second.revision) == (first.pk, 1)
    third, _ = lifecycle.upsert(actor="ann", now=T0, **given | {"name": "renamed"})
    assert (third.pk, third.name, third.revision) == (first.pk, "renamed", 2)


def test_an_upsert_pauses_and_resumes_where_it_is_told():
    given = {"name": "nightly", "workflow": "report", "spec": MINUTELY}
    lifecycle.upsert(actor="ann", now=T0, **given)
    assert lifecycle.upsert(actor="ann", now=at(1), enabled=False, **given)[0].pause_kind == "manual"
    assert lifecycle.upsert(actor="ann", now=at(2), **given)[0].enabled is False
    assert lifecycle.upsert(actor="ann", now=at(3), enabled=True, **given)[0].enabled is True


def test_an_upsert_needs_a_key_and_reports_other_conflicts():
    with pytest.raises(InvalidInput):
        lifecycle.upsert(actor="ann", workflow="report", spec=MINUTELY)
    make(external_id="e1")
    with pytest.raises(Conflict):
        lifecycle.upsert(actor="ann", name="nightly", external_id="e2", workflow="report", spec=MINUTELY)


def test_an_edit_with_a_clock_set_back_begins_at_the_watermark():
    nightly = make()
    firing.fire_due(at(120))
    changed = lifecycle.update(nightly.pk, {"spec": HOURLY}, actor="ann", now=at(0) - timedelta(hours=1))
    assert changed.version.effective_from == at(120)
