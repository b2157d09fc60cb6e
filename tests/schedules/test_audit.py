"""The ledger auditor: quiet over a right ledger, loud over a wrong one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from execution.models import AuditEntry
from schedules import audit, firing, lifecycle, tasks, versions
from schedules.models import LedgerAudit, ScheduleFire, ScheduleVersion
from tests.schedules.builders import MINUTELY, schedule, workflow

pytestmark = pytest.mark.django_db


@pytest.fixture
def base():
    versions.forget()
    workflow()
    return (datetime.now(UTC) - timedelta(hours=2)).replace(second=0, microsecond=0)


@pytest.fixture
def nightly(base):
    made = schedule(MINUTELY, since=base)
    firing.fire_due(base + timedelta(minutes=30))
    return made


def test_a_right_ledger_has_no_findings(nightly):
    done = audit.audit()
    assert (done.schedules, done.findings) == (1, [])


def test_ranges_edits_and_pauses_are_followed(base):
    made = lifecycle.create(actor="a", name="n", workflow="report", spec=MINUTELY, catch_up="latest", now=base)
    firing.fire_due(base + timedelta(minutes=20))
    every = {"timetables": [{"kind": "interval", "every": 45}]}
    lifecycle.update(made.pk, {"spec": every}, actor="a", now=base + timedelta(minutes=25))
    lifecycle.pause(made.pk, actor="a", now=base + timedelta(minutes=30))
    lifecycle.update(made.pk, {"spec": MINUTELY}, actor="a", now=base + timedelta(minutes=35))
    lifecycle.resume(made.pk, actor="a", now=base + timedelta(minutes=40))
    firing.fire_due(base + timedelta(minutes=50))
    assert ScheduleFire.objects.filter(until__isnull=False).count() >= 3
    assert audit.audit().findings == []
    assert audit.audit(since=base + timedelta(minutes=10)).findings == []


def test_a_row_deleted_by_hand_is_found_and_reported_once(nightly):
    gone = ScheduleFire.objects.order_by("scheduled_for")[7]
    instant = gone.scheduled_for
    gone.delete()
    tasks.audit_ledger()
    audit.run()
    entry = AuditEntry.objects.get(action="schedule.audit")
    assert entry.changes["missing"] == [f"{instant:%Y-%m-%dT%H:%M:%SZ}"]
    assert entry.subject_id == str(nightly.pk)


def test_a_row_too_many_is_found(nightly):
    ScheduleFire.objects.create(
        schedule=nightly,
        version=nightly.version,
        scheduled_for=nightly.fired_through + timedelta(seconds=90),
        due_at=nightly.fired_through,
        outcome="started",
    )
    (finding,) = audit.audit(schedule_ids=[nightly.pk]).findings
    assert (finding.missing, len(finding.unexpected)) == ([], 1)


def test_a_range_that_miscounts_or_doubles_is_found(base):
    late = schedule(MINUTELY, since=base, catch_up="latest")
    firing.fire_due(base + timedelta(minutes=30))
    ScheduleFire.objects.filter(until__isnull=False).update(count=5)
    (finding,) = audit.audit().findings
    assert finding.miscounted[0][1:] == (5, 29)
    ScheduleFire.objects.filter(until__isnull=False).update(count=29)
    ScheduleFire.objects.create(
        schedule=late,
        version=late.version,
        scheduled_for=base + timedelta(minutes=5),
        until=base + timedelta(minutes=6),
        count=2,
        due_at=base,
        outcome="missed",
        reason="paused",
    )
    (finding,) = audit.audit().findings
    assert len(finding.unexpected) == 1


def test_very_many_differences_are_counted_not_listed(nightly, monkeypatch):
    monkeypatch.setattr(audit, "LISTED", 3)
    monkeypatch.setattr(audit, "ENOUGH", 10)
    ScheduleFire.objects.all().delete()
    (finding,) = audit.audit().findings
    assert (len(finding.missing), finding.differences) == (3, 10)


def test_a_spec_that_cannot_be_compiled_hides_nobody_else(nightly):
    ScheduleVersion.objects.filter(schedule=nightly).update(spec={"timezone": "Mars/Olympus", "timetables": []})
    done = audit.audit()
    assert (done.findings, done.unreadable) == ([], 1)


def test_pruning_keeps_the_latest_and_the_buffered_entries(nightly, settings):
    settings.SCHEDULE_LEDGER_DAYS = 0
    first = ScheduleFire.objects.order_by("scheduled_for").first()
    ScheduleFire.objects.filter(pk=first.pk).update(outcome="buffered")
    ScheduleFire.objects.update(recorded_at=datetime.now(UTC) - timedelta(days=1))
    assert audit.prune(batch=10) == 28
    assert ScheduleFire.objects.count() == 2
    tasks.prune()


def test_each_audit_leaves_its_figures(nightly, settings):
    assert audit.latest() is None
    audit.run()
    ScheduleFire.objects.order_by("scheduled_for")[3].delete()
    done = audit.run()
    kept = audit.latest()
    assert (kept.schedules, kept.findings, kept.differences, kept.unreadable) == (1, 1, 1, 0)
    assert (kept.since, kept.until) == (done.since, done.until)
    assert str(kept) == "1 differences in 1 schedules"
    settings.SCHEDULE_LEDGER_DAYS = 0
    audit.prune()
    assert not LedgerAudit.objects.exists()


def test_a_schedule_deleted_while_it_is_compared_is_no_finding(nightly, monkeypatch):
    real = audit._audit_chunk
    gone = []

    def delete_first(rows, *args):
        if not gone:
            gone.append(ScheduleFire.objects.all().delete())
            found = real(rows, *args)
            lifecycle.delete(nightly.pk, actor="a")
            return found
        return real(rows, *args)

    monkeypatch.setattr(audit, "_audit_chunk", delete_first)
    done = audit.audit()
    assert (done.schedules, done.findings) == (1, [])


def test_what_is_about_to_be_pruned_is_not_missed(nightly, settings, base):
    settings.SCHEDULE_LEDGER_DAYS = 1
    done = audit.audit(since=base - timedelta(days=30))
    assert done.since > datetime.now(UTC) - timedelta(days=1)
