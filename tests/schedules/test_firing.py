"""Firing, row by row: what a visit writes for each policy, pause, edit, clock and failure."""

from __future__ import annotations

from datetime import timedelta

import pytest

from execution.models import AuditEntry, Execution, Notification
from execution.notifications import intake, rules
from schedules import firing, outcomes, versions
from schedules.firing import fire_due
from schedules.models import FiringSwitch, Schedule, ScheduleFire, ScheduleVersion
from schedules.timing.occurrences import normalise
from tests.schedules.builders import (
    MINUTELY,
    SECONDLY,
    T0,
    at,
    end_executions,
    ledger,
    schedule,
    started,
    workflow,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_leftovers():
    versions.forget()
    workflow()


def test_a_due_instant_becomes_one_ledger_entry_and_one_execution():
    nightly = schedule(input={"day": 1}, priority=3, queue="io")
    report = fire_due(at(60))
    assert (report.started, report.schedules, report.more) == (1, 1, False)
    (execution,) = Execution.objects.all()
    assert execution.pk == report.execution_ids[0]
    assert (execution.scheduled_for, execution.input, execution.priority, execution.queue) == (
        at(60),
        {"day": 1},
        3,
        "io",
    )
    assert (execution.source_kind, execution.source_id, execution.source_label) == (
        "schedule",
        str(nightly.pk),
        "nightly",
    )
    assert ledger(nightly) == [(60, None, 1, "started", "")]
    assert ScheduleFire.objects.get().execution == execution
    nightly.refresh_from_db()
    assert (nightly.fired_through, nightly.next_fire_at) == (at(60), at(120))
    assert (nightly.started_count, nightly.last_fire_at) == (1, at(60))


def test_nothing_due_does_nothing():
    schedule(wake=at(60))
    report = fire_due(at(59))
    assert (report.schedules, report.started) == (0, 0)


def test_firing_again_at_the_same_moment_does_nothing():
    nightly = schedule()
    fire_due(at(60))
    assert fire_due(at(60)).schedules == 0
    assert started(nightly) == [60]


def test_a_clock_set_back_fires_nothing_twice():
    nightly = schedule()
    fire_due(at(120.5))
    Schedule.objects.update(next_fire_at=at(0))
    report = fire_due(at(60))
    assert report.started == 0
    nightly.refresh_from_db()
    assert (nightly.fired_through, nightly.next_fire_at) == (at(120), at(180))


def test_a_watermark_set_back_by_hand_starts_nothing_twice():
    nightly = schedule()
    fire_due(at(120))
    Schedule.objects.update(fired_through=T0, next_fire_at=T0)
    assert fire_due(at(180)).started == 1
    assert started(nightly) == [60, 120, 180]


def test_several_schedules_fire_in_one_transaction(django_assert_max_num_queries):
    for number in range(5):
        schedule(name=f"n{number}")
    with django_assert_max_num_queries(15):
        report = fire_due(at(60))
    assert (report.started, report.schedules) == (5, 5)


def test_only_the_named_schedules_fire():
    first, second = schedule(name="a"), schedule(name="b")
    assert fire_due(at(60), schedule_ids=[first.pk]).started == 1
    assert (started(first), started(second)) == ([60], [])


def test_the_limit_bounds_a_call_and_says_that_more_is_due():
    for number in range(3):
        schedule(name=f"n{number}")
    report = fire_due(at(60), limit=2)
    assert (report.schedules, report.more) == (2, True)
    assert fire_due(at(60), limit=2).schedules == 1


# ── Catch-up ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_late_fire_inside_the_window_still_runs():
    nightly = schedule()
    fire_due(at(200))
    assert started(nightly) == [60, 120, 180]


def test_catch_up_latest_starts_the_last_instant_and_records_the_others_as_one_range():
    nightly = schedule(catch_up="latest")
    fire_due(at(250))
    assert ledger(nightly) == [
        (60, 180, 3, "missed", "catch_up_latest"),
        (240, None, 1, "started", ""),
    ]


def test_catch_up_none_starts_only_what_is_not_late():
    nightly = schedule(catch_up="none")
    fire_due(at(122))
    assert ledger(nightly) == [(60, None, 1, "missed", "catch_up_none"), (120, None, 1, "started", "")]


def test_instants_older_than_the_window_are_one_missed_range():
    nightly = schedule(catch_up_window=100)
    fire_due(at(300))
    assert ledger(nightly) == [
        (60, 180, 3, "missed", "outside_window"),
        (240, None, 1, "started", ""),
        (300, None, 1, "started", ""),
    ]


def test_at_most_so_many_instants_are_caught_up_and_the_latest_ones(settings):
    settings.SCHEDULE_CATCH_UP_LIMIT = 2
    nightly = schedule()
    fire_due(at(300))
    assert ledger(nightly)[0] == (60, 180, 3, "missed", "catch_up_limit")
    assert started(nightly) == [240, 300]


@pytest.mark.parametrize("policy", ["all", "latest", "none"])
def test_a_backlog_longer_than_one_visit_is_one_range_in_the_end(policy, monkeypatch, settings):
    settings.SCHEDULE_CATCH_UP_LIMIT = 3
    monkeypatch.setattr(firing, "INSTANTS_PER_SCHEDULE", 50)
    busy = schedule(SECONDLY, catch_up=policy, catch_up_window=100_000)
    report = fire_due(at(1000))
    entries = ledger(busy)
    assert started(busy) == [998, 999, 1000]  # on time or the latest: the limit of three
    reasons = {entry[4] for entry in entries if entry[3] == "missed"}
    assert sum(entry[2] for entry in entries) == 1000
    assert len([e for e in entries if e[3] == "missed"]) == len(reasons) <= 2
    assert report.slices > 10
    busy.refresh_from_db()
    assert (busy.fired_through, busy.next_fire_at) == (at(1000), at(1001))


# ── Overlap ──────────────────────────────────────────────────────────────────────────────────────────────


def test_skip_leaves_an_instant_out_while_the_previous_run_is_going():
    nightly = schedule(overlap_policy="skip")
    fire_due(at(60))
    fire_due(at(120))
    end_executions()
    fire_due(at(180))
    assert ledger(nightly) == [
        (60, None, 1, "started", ""),
        (120, None, 1, "skipped", "overlap"),
        (180, None, 1, "started", ""),
    ]


def test_buffer_one_keeps_one_instant_until_the_previous_run_ends():
    nightly = schedule(overlap_policy="buffer_one")
    for minute in (1, 2, 3):
        fire_due(at(60 * minute))
    assert [entry[3:] for entry in ledger(nightly)] == [
        ("started", ""),
        ("buffered", ""),
        ("skipped", "buffer_full"),
    ]
    assert outcomes.take_news(now=at(190)).started == 0
    end_executions()
    assert outcomes.take_news(now=at(190)).started == 1
    assert started(nightly) == [60, 120]
    assert ScheduleFire.objects.filter(outcome="buffered").count() == 0


def test_buffer_all_runs_one_after_the_other_in_order():
    nightly = schedule(overlap_policy="buffer_all")
    fire_due(at(180))
    assert [entry[3] for entry in ledger(nightly)] == ["started", "buffered", "buffered"]
    end_executions()
    fire_due(at(240))  # the next instant finds the way free: the oldest buffered one goes first
    assert [entry[3] for entry in ledger(nightly)] == ["started", "started", "buffered", "buffered"]
    for _ in range(2):
        end_executions()
        assert firing.release_buffered(now=at(250)).started == 1
    assert started(nightly) == [60, 120, 180, 240]


@pytest.mark.parametrize("policy", ["cancel_other", "terminate_other"])
def test_the_other_policies_end_what_runs_and_start_the_latest(policy):
    nightly = schedule(overlap_policy=policy)
    fire_due(at(60))
    fire_due(at(180))
    first, last = Execution.objects.order_by("scheduled_for")
    assert (first.state, last.state) == ("cancelled", "queued")
    assert policy.split("_")[0] in first.state_reason
    assert [entry[3:] for entry in ledger(nightly)] == [("started", ""), ("skipped", "overlap"), ("started", "")]


def test_a_release_that_the_news_missed_is_made_up_by_the_sweep():
    schedule(overlap_policy="buffer_one")
    fire_due(at(120))
    Execution.objects.update(news_topic="")
    end_executions()
    assert firing.release_buffered(now=at(130)).started == 1


def test_what_was_buffered_starts_when_the_policy_becomes_allow_all():
    schedule(overlap_policy="buffer_all")
    fire_due(at(180))
    Schedule.objects.update(overlap_policy="allow_all")
    assert firing.release_buffered(now=at(190)).started == 2


def test_a_paused_schedule_keeps_its_buffer_until_it_is_resumed():
    schedule(overlap_policy="buffer_one")
    fire_due(at(120))
    end_executions()
    Schedule.objects.update(enabled=False, paused_at=at(121))
    assert firing.release_buffered(now=at(130)).started == 0


# ── The end of a schedule ────────────────────────────────────────────────────────────────────────────────


def test_a_one_off_ends_after_its_fire():
    once = schedule({"timetables": [{"kind": "once", "at": "2026-03-04T12:01:00Z"}]})
    fire_due(at(60))
    once.refresh_from_db()
    assert (once.enabled, once.pause_kind, once.next_fire_at) == (False, "finished", None)
    assert started(once) == [60]


def test_the_maximum_of_executions_is_exact_and_ends_the_schedule():
    busy = schedule(SECONDLY, max_executions=3)
    fire_due(at(5))
    assert started(busy) == [1, 2, 3]
    assert [entry[3:] for entry in ledger(busy)][3:] == [("skipped", "max_executions")] * 2
    busy.refresh_from_db()
    assert (busy.pause_kind, busy.next_fire_at, busy.started_count) == ("finished", None, 3)


def test_buffered_instants_count_against_the_maximum_when_they_start():
    busy = schedule(overlap_policy="buffer_all", max_executions=2)
    fire_due(at(240))
    assert [entry[3] for entry in ledger(busy)] == ["started", "buffered", "skipped", "skipped"]
    end_executions()
    firing.release_buffered(now=at(241))
    busy.refresh_from_db()
    assert (busy.started_count, busy.pause_kind) == (2, "finished")


def test_a_lowered_maximum_lets_buffered_instants_expire():
    busy = schedule(overlap_policy="buffer_all")
    fire_due(at(180))
    Schedule.objects.update(max_executions=1)
    end_executions()
    firing.release_buffered(now=at(190))
    assert [entry[3:] for entry in ledger(busy)][1:] == [("skipped", "max_executions")] * 2
    busy.refresh_from_db()
    assert busy.pause_kind == "finished"


# ── Failures ─────────────────────────────────────────────────────────────────────────────────────────────


def assert_told(name, why):
    """A rule has been told that the schedule no longer fires."""
    intake.consume(limit=10)
    (told,) = Notification.objects.get().events
    assert told["schedule"] == name
    assert why in told["title"]


def test_repeated_failures_pause_the_schedule():
    rules.create({"name": "stopped", "kind": "schedule_stopped", "emails": ["ops@example.org"]}, actor="ada")
    nightly = schedule(pause_on_failure=2)
    for minute in (1, 2):
        fire_due(at(60 * minute))
        end_executions("failed")
        outcomes.take_news(now=at(60 * minute + 1))
    nightly.refresh_from_db()
    assert (nightly.enabled, nightly.pause_kind, nightly.consecutive_failures) == (False, "failures", 2)
    assert nightly.next_fire_at is None
    assert AuditEntry.objects.filter(action="schedule.pause").count() == 1
    assert_told("nightly", "2 failures in a row")
    assert fire_due(at(600)).schedules == 0


def test_a_success_in_between_starts_the_count_anew():
    nightly = schedule(pause_on_failure=2)
    for minute, state in enumerate(("failed", "succeeded", "failed", "cancelled"), start=1):
        fire_due(at(60 * minute))
        end_executions(state)
        outcomes.take_news(now=at(60 * minute + 1))
    nightly.refresh_from_db()
    assert (nightly.enabled, nightly.consecutive_failures) == (True, 1)


def test_a_schedule_that_raises_is_quarantined_and_stops_nobody_else():
    rules.create({"name": "stopped", "kind": "schedule_stopped", "emails": ["ops@example.org"]}, actor="ada")
    broken, fine = schedule(name="broken"), schedule(name="fine")
    ScheduleVersion.objects.filter(schedule=broken).update(spec={"timezone": "Mars/Olympus", "timetables": []})
    report = fire_due(at(60))
    assert_told("broken", "Mars/Olympus")
    assert (report.quarantined, report.started) == (1, 1)
    broken.refresh_from_db()
    assert (broken.enabled, broken.pause_kind, broken.next_fire_at) == (False, "error", None)
    assert "Mars/Olympus" in broken.pause_note
    assert AuditEntry.objects.filter(action="schedule.quarantine").count() == 1
    assert started(fine) == [60]
    assert fire_due(at(60)).schedules == 0


def test_a_timing_that_raises_in_the_middle_is_quarantined(monkeypatch):
    broken, fine = schedule(name="broken"), schedule(SECONDLY, name="fine")
    cron_timing = type(versions.occurrences.compile(normalise(MINUTELY), seed=""))
    between = cron_timing.between

    def explode(self, after, until):
        if "minute" in self.describe():
            raise ZeroDivisionError("somewhere deep")
        return between(self, after, until)

    monkeypatch.setattr(cron_timing, "between", explode)
    assert fire_due(at(1)).quarantined == 1
    broken.refresh_from_db()
    assert broken.pause_kind == "error"
    assert started(fine) == [1]


def test_an_execution_that_cannot_be_made_quarantines_its_schedule_only():
    fine = schedule(name="fine")
    bad = schedule(name="bad", of=workflow("bad", definition={"steps": 5}))
    report = fire_due(at(60))
    assert (report.quarantined, report.started) == (1, 1)
    bad.refresh_from_db()
    assert bad.pause_kind == "error"
    assert (started(fine), started(bad), ledger(bad)) == ([60], [], [])


def test_a_workflow_without_a_published_version_is_an_entry_not_an_error():
    drafted = schedule(of=workflow("draft", published=False))
    fire_due(at(60))
    assert ledger(drafted) == [(60, None, 1, "skipped", "error")]


# ── Pauses and the switch ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("on_resume", "expected"),
    [
        ("skip", [(60, 180, 3, "missed", "paused"), (240, None, 1, "started", "")]),
        ("catch_up", [(s, None, 1, "started", "") for s in (60, 120, 180, 240)]),
    ],
)
def test_a_pause_with_an_end_ends_by_itself(on_resume, expected):
    nightly = schedule(on_resume=on_resume)
    Schedule.objects.update(enabled=False, paused_at=T0, paused_until=at(200))
    nightly.refresh_from_db()
    assert nightly.next_fire_at == at(200)
    fire_due(at(100))
    assert ledger(nightly) == []
    fire_due(at(241))
    assert ledger(nightly) == expected
    nightly.refresh_from_db()
    assert (nightly.enabled, nightly.paused_until, nightly.missed_through) == (True, None, None)
    assert AuditEntry.objects.get().action == "schedule.resume"


def test_enabling_by_plain_update_wakes_the_schedule_and_misses_the_pause():
    nightly = schedule(since=T0 - timedelta(seconds=1))
    Schedule.objects.update(enabled=False)
    nightly.refresh_from_db()
    assert nightly.paused_at is not None
    assert nightly.next_fire_at is None
    assert nightly.pause_kind == "manual"
    Schedule.objects.update(enabled=True)
    nightly.refresh_from_db()
    assert nightly.next_fire_at is not None
    fire_due(limit=1)
    assert started(nightly) == []
    assert ledger(nightly)[0][3:] == ("missed", "paused")


def test_while_firing_is_stopped_nothing_fires_and_the_debt_is_kept():
    nightly = schedule()
    FiringSwitch.objects.create(stopped_at=T0, stopped_by="me")
    assert fire_due(at(120)).schedules == 0
    assert firing.release_buffered(now=at(120)).schedules == 0
    FiringSwitch.objects.update(stopped_at=None)
    assert fire_due(at(120)).started == 2
    assert started(nightly) == [60, 120]


# ── Edits, jitter, exclusions ────────────────────────────────────────────────────────────────────────────


def edit(of, spec, when):
    """What an edit leaves behind when the old version still owes instants."""
    version = ScheduleVersion.objects.create(
        schedule=of, number=2, effective_from=when, spec=normalise(spec), tzdata="test"
    )
    Schedule.objects.filter(pk=of.pk).update(version=version, next_fire_at=when)


def test_instants_owed_before_an_edit_follow_the_old_version():
    nightly = schedule()
    edit(nightly, {"timetables": [{"kind": "interval", "every": 40}]}, at(130))
    fire_due(at(250))
    assert started(nightly) == [60, 120, 160, 200, 240]
    assert [f.version.number for f in ScheduleFire.objects.order_by("scheduled_for")] == [1, 1, 2, 2, 2]


def test_a_jittered_instant_fires_when_it_is_due_and_the_watermark_waits_for_it():
    begin = int(T0.timestamp())
    for number in range(20):  # one identity in 51 has no jitter at its first instant
        nightly = schedule({**MINUTELY, "jitter": 50}, name=f"nightly {number}")
        first = versions.occurrences.compile(nightly.version.spec, seed=str(nightly.pk)).next_after(begin)
        if first.due > first.nominal:
            break
        Schedule.objects.filter(pk=nightly.pk).update(next_fire_at=None)
    fire_due(at(60))
    assert ledger(nightly) == []
    nightly.refresh_from_db()
    assert nightly.next_fire_at.timestamp() == first.due
    fire_due(nightly.next_fire_at)
    entry = ScheduleFire.objects.get()
    assert (entry.scheduled_for, entry.due_at.timestamp()) == (at(60), first.due)


def test_an_old_jittered_instant_survives_an_edit():
    nightly = schedule({**MINUTELY, "jitter": 50})
    edit(nightly, {"timetables": [{"kind": "interval", "every": 3600}]}, at(60))
    fire_due(at(60))
    fire_due(at(111))
    assert started(nightly) == [60]


def test_excluded_instants_are_one_range_and_wake_nobody():
    quiet = schedule({**MINUTELY, "blackouts": [{"from": "2026-03-04T12:01:30Z", "until": "2026-03-04T12:04:30Z"}]})
    fire_due(at(60))
    quiet.refresh_from_db()
    assert quiet.next_fire_at == at(300)
    fire_due(at(300))
    assert ledger(quiet) == [
        (60, None, 1, "started", ""),
        (120, 240, 3, "skipped", "blackout"),
        (300, None, 1, "started", ""),
    ]
