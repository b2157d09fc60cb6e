"""Changes in the admin before they are made: of one schedule, and of many at once."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from execution.models import AuditEntry
from schedules import lifecycle
from schedules.admin import timing_tables
from schedules.models import Schedule
from schedules.timing.preview import preview, spec_of
from tests import factories
from tests.admin_client import Browser, list_url, page_url, told

pytestmark = pytest.mark.django_db

AT_TWO = spec_of("0 2 * * *", timezone="Europe/Berlin")
#: The first of January 2026, in UTC.
NEW_YEAR = 1_767_225_600


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


def make_schedules(count: int = 1, **options: Any) -> list[Schedule]:
    workflow = factories.make_workflow()
    return [
        lifecycle.create(actor="ada", name=f"night {index}", spec=AT_TWO, workflow=workflow, **options)
        for index in range(count)
    ]


def form_of(schedule: Schedule, **changes: Any) -> dict[str, Any]:
    values = {
        "name": schedule.name,
        "workflow": str(schedule.workflow_id),
        "cron_expression": "0 2 * * *",
        "timezone": "Europe/Berlin",
        "priority": schedule.priority,
        "overlap_policy": schedule.overlap_policy,
        "catch_up": schedule.catch_up,
        "revision": schedule.revision,
    }
    return values | changes


# ── One ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_edit_is_seen_with_its_fires_before_it_is_saved(root: Browser) -> None:
    (schedule,) = make_schedules()
    edit = reverse("admin:schedules_schedule_edit", args=[schedule.pk])
    typed = form_of(schedule, cron_expression="0 3 * * *", priority="0")
    text = root.post(edit, typed | {"preview": "1"}).content.decode()
    assert "What would change" in text
    assert "30 move, 0 go, 0 come" in text
    assert "<s>6</s> → <b>0</b>" in text
    schedule.refresh_from_db()
    assert (schedule.priority, schedule.versions.count()) == (6, 1)
    same = root.post(edit, form_of(schedule) | {"preview": "1"}).content.decode()
    assert "No field changes." in same
    assert "No fire of the next 30 days changes" in same
    stale = root.post(edit, form_of(schedule, revision=99) | {"preview": "1"})
    assert stale.status_code == 400
    root.post(edit, typed)
    assert '<span class="sp-mono">timetables</span>' in root.page(page_url(schedule))  # what the version changed


# ── Many ─────────────────────────────────────────────────────────────────────────────────────────────────────


def choose(root: Browser, schedules: list[Schedule], **values: Any) -> Any:
    return root.choose(Schedule, "change-many", schedules, **values)


def test_many_are_changed_after_a_look_with_a_reason_that_is_kept(root: Browser) -> None:
    made = make_schedules(3)
    assert "Change 3 schedules" in choose(root, made).content.decode()
    values = {"confirmed": "yes", "bulk-priority": "9", "bulk-owner": "ops", "bulk-note": "quarter end"}
    seen = choose(root, made, **values).content.decode()
    assert "3 would change. Nothing has been done yet." in seen
    assert set(Schedule.objects.values_list("priority", flat=True)) == {6}
    answer = choose(root, made, **values, apply="1")
    assert told(answer)[-1] == "3 schedules are changed."
    assert set(Schedule.objects.values_list("priority", "owner")) == {(9, "ops")}
    assert AuditEntry.objects.filter(action="schedule.update", note="quarter end", actor="root").count() == 3
    answer = choose(root, made, **values, apply="1")
    assert told(answer)[-1] == "0 schedules are changed, 3 had these values already."


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bulk-note": "why"}, "Say what to change"),
        ({"bulk-priority": "9"}, "This field is required"),
        ({"bulk-timeout": "-1", "bulk-note": "why"}, "greater than or equal"),
    ],
)
def test_many_are_not_changed_without_a_change_or_a_reason(root: Browser, values: dict[str, str], said: str) -> None:
    answer = choose(root, make_schedules(), confirmed="yes", apply="1", **values)
    assert (answer.status_code, said in answer.content.decode()) == (400, True)
    assert not AuditEntry.objects.filter(action="schedule.update").exists()


def test_one_that_refuses_keeps_all_as_they_are(root: Browser) -> None:
    strict = factories.make_workflow("strict", {**factories.ONE_STEP, "input": {"required": ["day"]}})
    day = {"day": "today"}
    made = [lifecycle.create(actor="ada", name="strict", spec=AT_TWO, workflow=strict, input=day), *make_schedules()]
    values = {"confirmed": "yes", "bulk-input": '{"month": 1}', "bulk-note": "why"}
    seen = choose(root, made, **values).content.decode()
    assert "1 would refuse" in seen
    answer = choose(root, made, **values, apply="1")
    assert "Look again" in told(answer)[-1]
    assert not Schedule.objects.filter(input={"month": 1}).exists()


def test_changing_many_needs_the_permission() -> None:
    make_schedules()
    viewer = Browser("schedules.view_schedule")
    assert "change-many" not in viewer.page(list_url(Schedule))


# ── Clock changes ────────────────────────────────────────────────────────────────────────────────────────────


def clock_rows(expression: str, zone: str) -> list[tuple[str, ...]]:
    seen = preview(spec_of(expression, timezone=zone), now=NEW_YEAR)
    table = timing_tables.clock_changes_table(seen, now=NEW_YEAR)
    return [] if table is None else [tuple(str(cell) for cell in row) for row in table.rows]


def test_the_page_says_what_each_change_of_clocks_does() -> None:
    spring, autumn = clock_rows("30 2 * * *", "Europe/Berlin")
    assert spring[:2] == ("Sun 2026-03-29", "goes forward from 02:00 to 03:00")
    assert "03:00:00 CEST" in spring[2]
    assert "its time does not exist" in spring[2]
    assert autumn[:2] == ("Sun 2026-10-25", "goes back from 03:00 to 02:00")
    assert autumn[2].count("<div>") == 1
    assert "the first of two" in autumn[2]
    assert all(row[2] == "not within three hours of it" for row in clock_rows("0 12 * * *", "Europe/Berlin"))
    assert "…" in clock_rows("*/10 * * * *", "Europe/Berlin")[0][2]
    assert clock_rows("0 2 * * *", "UTC") == []
