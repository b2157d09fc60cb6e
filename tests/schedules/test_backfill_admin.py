"""Backfills in the admin: shown first, begun, followed, cancelled."""

from __future__ import annotations

import pytest

from execution import plans
from execution.models import Execution, Pool, ProcessReport, WorkflowVersion
from schedules import backfill, firing, versions
from schedules.models import Backfill
from tests.admin_client import Browser, list_url, page_url, told, verb_url
from tests.schedules.builders import MINUTELY, at, end_executions, schedule, workflow

pytestmark = pytest.mark.django_db

ASKED = {
    "since": "2026-03-04T12:00:01",
    "until": "2026-03-04T12:10:00",
    "gaps_only": "on",
    "order": "oldest",
    "max_running": "3",
}


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


@pytest.fixture
def missed():
    versions.forget()
    workflow()
    made = schedule(MINUTELY, catch_up="latest")
    firing.fire_due(at(600))
    made.refresh_from_db()
    return made


def test_the_form_shows_first_what_it_would_do(root, missed):
    assert "Executions at once" in root.page(verb_url(missed, "backfill"))
    end_executions()
    Execution.objects.update(started_at=at(0), finished_at=at(20))
    Pool.objects.create(name="warehouse", slots=4)
    steps = {"load": {"task": "demo.tasks.noop", "pool": {"name": "warehouse", "units": 1}}}
    WorkflowVersion.objects.update(definition={"steps": steps})
    plans._plans.clear()
    ProcessReport.objects.create(name="w1", kind="worker", host="h", pid=1, slots=8, queues=["default"])
    answer = root.do(missed, "backfill", **ASKED)
    text = answer.content.decode()
    assert answer.status_code == 400
    assert "It would start 9 executions (9 steps)" in text
    assert "3 of the 8 slots of queue default (38%)" in text
    assert "3 of the 4 slots of pool warehouse (75%)" in text
    assert "1 instants of the range started before" in text
    assert not Backfill.objects.exists()


def test_begin_follow_and_cancel(root, missed):
    answer = root.do(missed, "backfill", **ASKED, start="on", priority="3", note="outage")
    made = Backfill.objects.get()
    assert answer["Location"] == page_url(made)
    assert (made.total, made.priority, made.note, made.created_by) == (9, 3, "outage", "root")
    assert "Nothing has started yet" in root.page(page_url(made))
    backfill.advance_all()
    text = root.page(page_url(made))
    assert "3 of 9" in text
    assert "3 of 9" in root.page(list_url(Backfill))
    assert told(root.do(made, "cancel", stop_running="on")) == ["Cancelled. Nothing more of it starts."]
    made.refresh_from_db()
    assert made.state == "cancelled"
    assert "verb-cancel" not in root.page(page_url(made))


def test_what_cannot_be_done_is_told_beside_its_field(root, missed):
    answer = root.do(missed, "backfill", **{**ASKED, "until": "2026-03-04T11:00:00"}, start="on")
    assert answer.status_code == 400
    assert "must not lie before the start" in answer.content.decode()


def test_without_slots_or_gaps_it_says_so(root, missed):
    text = root.do(missed, "backfill", **{**ASKED, "since": "2026-03-04T12:10:00"}).content.decode()
    assert "It would start 0 executions (0 steps); 0 of the 0 slots of queue default (there are none now)" in text


def test_staff_without_the_permission_may_only_look(missed):
    made = backfill.create(missed.pk, since=at(1), until=at(600), actor="a")
    viewer = Browser("schedules.view_schedule", "schedules.view_backfill")
    assert "verb-cancel" not in viewer.page(page_url(made))
    assert viewer.do(made, "cancel").status_code == 403
    assert viewer.do(missed, "backfill", **ASKED, start="on").status_code == 403
