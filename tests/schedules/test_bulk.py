"""Deeds for many schedules, the switch for all, and previews of changes."""

from __future__ import annotations

import pytest

from execution.models import AuditEntry
from schedules import bulk, changes, firing, lifecycle, switch
from schedules.models import Schedule
from schedules.timing.occurrences import normalise
from scheduling_project.common.errors import InvalidInput
from tests.schedules.builders import MINUTELY, schedule, workflow


@pytest.mark.django_db
class TestBulk:
    @pytest.fixture(autouse=True)
    def _three(self):
        of = workflow()
        for name in ("a", "b", "c"):
            lifecycle.create(actor="x", name=name, workflow=of, spec=MINUTELY)
        lifecycle.pause(Schedule.objects.get(name="c").pk, actor="x")

    def names(self, rows):
        return [row[1] for row in rows]

    def test_a_dry_run_lists_what_it_would_touch_and_touches_nothing(self):
        entries = AuditEntry.objects.count()
        done = bulk.pause(Schedule.objects.all(), actor="x", dry_run=True)
        assert (self.names(done.changed), self.names(done.unchanged)) == (["a", "b"], ["c"])
        assert Schedule.objects.filter(enabled=True).count() == 2
        assert AuditEntry.objects.count() == entries

    def test_pause_and_resume_by_filter(self):
        bulk.pause(Schedule.objects.filter(name__in=["a", "b"]), actor="x", note="freeze")
        assert not Schedule.objects.filter(enabled=True).exists()
        done = bulk.resume(Schedule.objects.all(), actor="x")
        assert self.names(done.changed) == ["a", "b", "c"]

    def test_update_gives_all_the_same_values(self):
        done = bulk.update(Schedule.objects.all(), {"queue": "io", "labels": {"t": "1"}}, actor="x")
        assert len(done.changed) == 3
        assert len(bulk.update(Schedule.objects.all(), {"queue": "io"}, actor="x").unchanged) == 3

    def test_all_or_nothing(self):
        strict = workflow(
            "strict", definition={"input": {"required": ["d"]}, "steps": {"s": {"task": "demo.tasks.noop"}}}
        )
        lifecycle.create(actor="x", name="d", workflow=strict, spec=MINUTELY, input={"d": 1})
        with pytest.raises(bulk.BulkRefused) as caught:
            bulk.update(Schedule.objects.all(), {"input": {"x": 1}}, actor="x")
        assert [row["name"] for row in caught.value.extra["refused"]] == ["d"]
        assert not Schedule.objects.filter(input={"x": 1}).exists()

    def test_delete(self):
        bulk.delete(Schedule.objects.exclude(name="a"), actor="x")
        assert [s.name for s in Schedule.objects.all()] == ["a"]

    def test_what_makes_no_sense_is_refused(self, monkeypatch):
        with pytest.raises(InvalidInput):
            bulk.update(Schedule.objects.all(), {"name": "same"}, actor="x")
        with pytest.raises(InvalidInput):
            bulk.update(Schedule.objects.all(), {"queue": "nowhere"}, actor="x")
        monkeypatch.setattr(bulk, "MOST", 2)
        with pytest.raises(InvalidInput):
            bulk.pause(Schedule.objects.all(), actor="x")


@pytest.mark.django_db
def test_the_switch_stops_and_starts_everything():
    workflow()
    schedule()
    assert switch.state().stopped_at is None
    stopped = switch.stop(actor="ann", note="incident")
    assert (stopped.stopped_by, stopped.note) == ("ann", "incident")
    again = switch.stop(actor="bob", note="still")
    assert (again.stopped_at, again.note) == (stopped.stopped_at, "still")
    assert firing.fire_due().schedules == 0
    assert switch.start(actor="ann").stopped_at is None
    switch.start(actor="ann")
    assert firing.fire_due().schedules >= 1
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions == ["firing.stop", "firing.stop", "firing.start"]


def cron(expression, **more):
    return normalise({"timetables": [{"kind": "cron", "expression": expression}], **more})


def test_a_moved_fire_is_one_change():
    found = changes.preview(cron("0 2 * * *"), cron("0 3 * * *"), seed="s", now=0, days=3)
    assert found.moved == [(7200 + d * 86400, 10800 + d * 86400) for d in range(3)]
    assert (found.added, found.removed, found.kept) == ([], [], 0)


def test_added_and_removed_fires():
    found = changes.preview(cron("0 2 * * *"), cron("0 2,14 * * *"), seed="s", now=0, days=2)
    assert (found.added, found.kept) == ([50400, 136800], 2)
    found = changes.preview(cron("0 2,14 * * *"), cron("0 2 * * *"), seed="s", now=0, days=2)
    assert found.removed == [50400, 136800]
    assert changes.preview(None, cron("0 2 * * *"), seed="s", now=0, days=2).added == [7200, 93600]
    assert changes.preview(cron("0 2 * * *"), None, seed="s", now=0, days=1).removed == [7200]
    far = changes.preview(cron("0 0 20 1 *"), cron("0 0 5 1 *"), seed="s", now=0)
    assert (len(far.added), len(far.removed), far.moved) == (1, 1, [])


def test_a_comparison_of_very_many_fires_is_bounded(monkeypatch):
    monkeypatch.setattr(changes, "MOST", 10)
    found = changes.preview(cron("* * * * *"), cron("*/2 * * * *"), seed="s", now=0, days=1)
    assert found.truncated
    assert (len(found.removed), found.kept) == (5, 5)
