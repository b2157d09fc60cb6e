"""The admin of schedules, the ledger, calendars and the switch of all firing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from execution.models import AuditEntry, Execution
from execution.states import ExecutionState
from schedules import lifecycle, shared_calendars, switch
from schedules.admin.timing_tables import timing_of
from schedules.models import Calendar, FiringSwitch, Schedule, ScheduleFire, ScheduleVersion
from schedules.states import FireOutcome, FireReason, PauseKind
from scheduling_project.common.ids import uuid7
from tests import factories
from tests.admin_client import Browser, list_url, page_url, told, verb_url

pytestmark = pytest.mark.django_db

BERLIN: dict[str, Any] = {
    "timezone": "Europe/Berlin",
    "timetables": [{"kind": "cron", "expression": "30 2 * * *"}],
}


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


def make_schedule(name: str = "nightly", spec: dict[str, Any] = BERLIN, **options: Any) -> Schedule:
    options.setdefault("workflow", factories.make_workflow())
    return lifecycle.create(actor="ada", name=name, spec=spec, **options)


def make_fire(schedule: Schedule, *, hours_ago: float = 1, **fields: Any) -> ScheduleFire:
    instant = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=hours_ago)
    values: dict[str, Any] = {"outcome": FireOutcome.STARTED, "scheduled_for": instant, "due_at": instant}
    return ScheduleFire.objects.create(schedule=schedule, version=schedule.version, **{**values, **fields})


def everything() -> list[Any]:
    schedule = make_schedule()
    return [
        schedule,
        make_fire(schedule),
        Calendar.objects.create(name="holidays", definition={"kind": "weekly", "days": ["sat", "sun"]}),
    ]


# ── Every page ───────────────────────────────────────────────────────────────────────────────────────────────


def test_every_list_and_page_answers_a_superuser(root: Browser) -> None:
    for subject in everything():
        root.page(list_url(type(subject)))
        root.page(page_url(subject))


def test_every_list_answers_when_there_is_nothing(root: Browser) -> None:
    for model in (Schedule, ScheduleFire, Calendar):
        root.page(list_url(model))


def test_strangers_and_staff_without_permissions_see_nothing() -> None:
    stranger, staff = Browser(anonymous=True), Browser()
    switch_page = reverse("admin:schedules_firingswitch_change", args=[1])
    urls = [url for subject in everything() for url in (list_url(type(subject)), page_url(subject))]
    for url in (*urls, switch_page, list_url(FiringSwitch)):
        assert "/admin/login/" in stranger.get(url)["Location"]
        assert staff.get(url).status_code == 403, url


def test_staff_who_may_view_cannot_change_anything() -> None:
    schedule = make_schedule()
    viewer = Browser("schedules.view_schedule")
    text = viewer.page(page_url(schedule))
    assert "verb-pause" not in text
    edit = reverse("admin:schedules_schedule_edit", args=[schedule.pk])
    assert edit not in text
    for answer in (
        viewer.do(schedule, "pause", on_resume="skip"),
        viewer.do(schedule, "run"),
        viewer.get(edit),
        viewer.get(reverse("admin:schedules_schedule_add")),
    ):
        assert answer.status_code == 403


def test_verbs_are_posts(root: Browser) -> None:
    schedule = make_schedule()
    for verb in ("run", "pause", "resume", "delete"):
        assert root.get(verb_url(schedule, verb)).status_code == 405, verb


# ── The list ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_tells_timing_and_state_in_words(root: Browser) -> None:
    make_schedule()
    lifecycle.pause(make_schedule("stopped").pk, actor="ada", note="waiting for the price list")
    Schedule.objects.filter(pk=make_schedule("over").pk).update(
        enabled=False, paused_at=datetime.now(UTC), pause_kind=PauseKind.FINISHED
    )
    Schedule.objects.filter(pk=make_schedule("broken").pk).update(
        enabled=False, paused_at=datetime.now(UTC), pause_kind=PauseKind.FAILURES
    )
    text = root.page(list_url(Schedule))
    for expected in ("At 02:30 (Europe/Berlin)", ">active<", ">paused<", ">finished<", "waiting for the price list"):
        assert expected in text, expected
    assert "nightly" not in root.page(list_url(Schedule), enabled__exact="0")


def test_the_list_takes_the_same_few_statements_for_any_number(
    root: Browser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    workflow = factories.make_workflow()
    for number in range(2):
        make_schedule(f"s{number}", workflow=workflow)
    with django_assert_max_num_queries(8) as few:
        root.page(list_url(Schedule))
    for number in range(2, 15):
        make_schedule(f"s{number}", workflow=workflow)
    with django_assert_max_num_queries(len(few.captured_queries)) as many:
        root.page(list_url(Schedule))
    assert not [query for query in many.captured_queries if "COUNT(" in query["sql"] and "schedule" in query["sql"]]


def test_a_spec_that_cannot_be_read_breaks_no_page(root: Browser) -> None:
    schedule = make_schedule()
    ScheduleVersion.objects.filter(schedule=schedule).update(spec={"timezone": "Nowhere/Land", "timetables": []})
    assert "cannot be computed" in root.page(list_url(Schedule))
    assert "cannot be computed" in root.page(page_url(schedule))
    Schedule.objects.filter(pk=schedule.pk).update(version=None)
    schedule.refresh_from_db()
    assert timing_of(schedule) == "No timing yet"
    assert "No timing yet" in root.page(page_url(schedule))


# ── The page of one ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_shows_the_next_fires_in_the_zone_and_in_utc(root: Browser) -> None:
    text = root.page(page_url(make_schedule()))
    assert ">Europe/Berlin<" in text
    assert text.count("02:30:00 CE") >= 9  # one of ten may be moved by a change of the clocks
    utc = make_schedule("utc", {"timetables": [{"kind": "cron", "expression": "0 8 * * *"}], "jitter": 600})
    text = root.page(page_url(utc))
    assert "08:00:00 UTC" in text
    assert "later (jitter or blackout)" in text


def test_a_change_of_the_clocks_is_marked(root: Browser) -> None:
    spec = {"timezone": "Europe/Berlin", "timetables": [{"kind": "cron", "expression": "30 2 * 3 SUN#L"}]}
    assert "this local time does not exist that day" in root.page(page_url(make_schedule("gap", spec)))


def test_what_calendars_keep_from_firing_is_told(root: Browser) -> None:
    spec = {**BERLIN, "calendars": {"exclude": [{"kind": "weekly", "days": ["sat", "sun"]}]}}
    assert "instants in between are kept from firing" in root.page(page_url(make_schedule("working", spec)))


def test_a_schedule_that_never_fires_says_so(root: Browser) -> None:
    assert "Never: nothing is left to fire" in root.page(
        page_url(make_schedule("never", {"timetables": [{"kind": "cron", "expression": "0 0 30 2 *"}]}))
    )


def test_the_page_shows_runs_and_ledger(root: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schedules.admin.schedules.LEDGER", 3)
    schedule = make_schedule(max_executions=10, description="Cleans up")
    run = factories.make_execution(
        schedule.workflow, state=ExecutionState.SUCCEEDED, source_kind="schedule", source_id=str(schedule.pk)
    )
    make_fire(schedule, execution=run)
    make_fire(schedule, hours_ago=2, outcome=FireOutcome.SKIPPED, reason=FireReason.OVERLAP, note="still running")
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=9)
    missed = make_fire(
        schedule,
        scheduled_for=begin,
        until=begin + timedelta(hours=3),
        count=1234,
        outcome=FireOutcome.MISSED,
        reason=FireReason.PAUSED,
    )
    text = root.page(page_url(schedule))
    for expected in ("sp-history", "still running", "(1,234×)", "The latest 3.", "0 of 10", "Cleans up"):
        assert expected in text, expected
    listed = root.page(list_url(ScheduleFire), outcome__exact="missed")
    assert "1,234" in listed
    assert "still running" not in listed
    root.page(page_url(missed))


# ── Verbs ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_schedule_runs_now_with_an_edited_input(root: Browser) -> None:
    schedule = make_schedule(input={"day": "x"})
    answer = root.do(schedule, "run", input='{"day": "y"}', note="by hand")
    execution = Execution.objects.get()
    assert execution.input == {"day": "y"}
    assert answer["Location"] == page_url(execution)
    assert AuditEntry.objects.get(action="schedule.trigger").actor == "root"


def test_a_schedule_is_paused_until_and_resumed(root: Browser) -> None:
    schedule = make_schedule()
    wrong = root.do(schedule, "pause", until="2020-01-01T00:00", on_resume="skip")
    assert wrong.status_code == 400
    assert "must lie in the future" in wrong.content.decode()
    root.do(schedule, "pause", note="holidays", until="2099-01-01T06:30", on_resume="catch_up")
    schedule.refresh_from_db()
    assert (schedule.enabled, schedule.pause_note) == (False, "holidays")
    assert schedule.paused_until == datetime(2099, 1, 1, 6, 30, tzinfo=UTC)
    text = root.page(page_url(schedule))
    assert "none of these fires until it is resumed" in text
    assert "verb-resume" in text
    root.do(schedule, "resume", missed="skip")
    schedule.refresh_from_db()
    assert schedule.enabled


def test_many_schedules_are_paused_at_once(root: Browser) -> None:
    some = [make_schedule(f"s{number}") for number in range(3)]
    assert root.choose(Schedule, "pause", some).status_code == 200
    root.choose(Schedule, "pause", some, confirmed="yes", **{"pause-on_resume": "skip", "pause-note": "move"})
    assert Schedule.objects.filter(enabled=False, pause_note="move").count() == 3
    root.choose(Schedule, "resume", some, confirmed="yes", **{"resume-missed": "skip"})
    assert Schedule.objects.active().count() == 3


def test_a_schedule_is_deleted_by_those_who_may(root: Browser) -> None:
    schedule = make_schedule()
    changer = Browser("schedules.view_schedule", "schedules.change_schedule")
    assert changer.do(schedule, "delete").status_code == 403
    answer = root.do(schedule, "delete", note="replaced")
    assert answer["Location"] == list_url(Schedule)
    assert not Schedule.objects.exists()


# ── Add and edit ─────────────────────────────────────────────────────────────────────────────────────────────


def form(**values: Any) -> dict[str, Any]:
    return {"name": "fresh", "priority": "6", "overlap_policy": "skip", "catch_up": "all", "timezone": "UTC", **values}


def test_a_schedule_is_previewed_and_then_added(root: Browser) -> None:
    workflow = factories.make_workflow()
    add = reverse("admin:schedules_schedule_add")
    root.page(add)
    typed = form(workflow=str(workflow.pk), cron_expression="30 2 * * *", timezone="Europe/Berlin")
    seen = root.post(add, {**typed, "preview": "1"})
    assert seen.status_code == 200
    assert "At 02:30 (Europe/Berlin)" in seen.content.decode()
    assert not Schedule.objects.exists()
    answer = root.post(add, typed)
    schedule = Schedule.objects.get()
    assert answer["Location"] == page_url(schedule)
    assert schedule.version is not None
    assert schedule.version.spec == BERLIN


@pytest.mark.parametrize(
    ("typed", "told_by"),
    [
        ({"cron_expression": "61 * * * *"}, "61"),
        ({"cron_expression": "* * * * *", "timezone": "Mars/Base"}, "Mars/Base"),
        ({}, "Give a cron expression, or a spec"),
        ({"cron_expression": "* * * * *", "spec": "{}"}, "not both"),
        ({"spec": '{"timetables": []}'}, "timetables"),
        ({"spec": "{"}, "is not JSON"),
    ],
)
@pytest.mark.parametrize("preview", [{}, {"preview": "1"}])
def test_what_is_wrong_is_told_beside_the_field(
    root: Browser, typed: dict[str, str], told_by: str, preview: dict[str, str]
) -> None:
    workflow = factories.make_workflow()
    answer = root.post(reverse("admin:schedules_schedule_add"), form(workflow=str(workflow.pk), **typed, **preview))
    assert answer.status_code == 400
    assert told_by in answer.content.decode()
    assert not Schedule.objects.exists()


def test_a_taken_name_is_told(root: Browser) -> None:
    schedule = make_schedule("taken")
    typed = form(name="taken", workflow=str(schedule.workflow_id), cron_expression="@daily")
    answer = root.post(reverse("admin:schedules_schedule_add"), typed)
    assert answer.status_code == 400
    assert "is taken" in answer.content.decode()


def test_a_schedule_is_edited_through_its_spec_or_its_expression(root: Browser) -> None:
    schedule = make_schedule()
    edit = reverse("admin:schedules_schedule_edit", args=[schedule.pk])
    assert 'value="30 2 * * *"' in root.page(edit)
    typed = form(name="nightly", workflow=str(schedule.workflow_id), max_executions="5", note="slower")
    spec = '{"timezone": "UTC", "timetables": [{"kind": "interval", "every": 90}]}'
    assert told(root.post(edit, {**typed, "spec": spec}))[0].startswith("Saved.")
    schedule.refresh_from_db()
    assert schedule.version is not None
    assert (schedule.version.number, schedule.max_executions) == (2, 5)
    assert "&quot;every&quot;: 90" in root.page(edit)
    assert "v2" in root.page(page_url(schedule))
    assert root.get(reverse("admin:schedules_schedule_edit", args=[uuid7()])).status_code == 302


def test_a_schedule_without_a_version_can_be_edited(root: Browser) -> None:
    schedule = make_schedule()
    Schedule.objects.filter(pk=schedule.pk).update(version=None)
    root.page(reverse("admin:schedules_schedule_edit", args=[schedule.pk]))


# ── Calendars and the switch ─────────────────────────────────────────────────────────────────────────────────


def test_a_calendar_is_added_and_edited_with_a_trail(root: Browser) -> None:
    add = reverse("admin:schedules_calendar_add")
    root.post(add, {"name": "weekend", "definition": '{"kind": "weekly", "days": ["sat", "sun"]}'})
    calendar = Calendar.objects.get()
    root.post(page_url(calendar), {"name": "weekend", "definition": '{"kind": "weekly", "days": ["sun"]}'})
    calendar.refresh_from_db()
    assert calendar.revision == 2
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True)) == [
        "calendar.create",
        "calendar.update",
    ]
    wrong = root.post(add, {"name": "odd", "definition": '{"kind": "lunar"}'})
    assert wrong.status_code == 200
    assert "kind" in wrong.content.decode()
    assert Calendar.objects.count() == 1


def test_a_calendar_is_checked_as_the_api_checks_it(root: Browser) -> None:
    calendar = shared_calendars.create(actor="x", name="weekend", definition={"kind": "weekly", "days": ["sat"]})
    user = make_schedule("user", {**BERLIN, "calendars": {"exclude": ["weekend"]}})
    page = page_url(calendar)
    typed = {"name": "weekend", "definition": '{"kind": "weekly", "days": ["sun"]}'}
    assert 'name="read_revision" value="1"' in root.page(page).replace('value="1" name="read_revision"', "")
    used = root.post(page, {**typed, "name": "other", "read_revision": "1"}).content.decode()
    assert "used by schedule user" in used
    root.post(page, {**typed, "read_revision": "1"})
    stale = root.post(page, {**typed, "definition": '{"kind": "weekly", "days": ["mon"]}', "read_revision": "1"})
    assert "changed by somebody else" in stale.content.decode()
    calendar.refresh_from_db()
    assert (calendar.revision, calendar.definition["days"]) == (2, ["sun"])
    assert AuditEntry.objects.filter(action="calendar.update", actor="root").count() == 1
    assert "1 schedules have it now" in told(root.choose(Calendar, "apply_to_schedules", [calendar]))[0]
    user.refresh_from_db()
    assert user.version.number == 2
    refused = root.post(page.replace("change", "delete"), {"post": "yes"})
    assert "used by schedule user" in told(refused)[-1]
    assert "used by schedule user" in told(root.choose(Calendar, "delete_selected", [calendar], post="yes"))[-1]
    lifecycle.delete(user.pk, actor="x")
    root.post(page.replace("change", "delete"), {"post": "yes"})
    assert not Calendar.objects.exists()
    assert AuditEntry.objects.filter(action="calendar.delete", actor="root").count() == 1
    second = shared_calendars.create(actor="x", name="b", definition={"kind": "weekly", "days": ["sat"]})
    root.choose(Calendar, "delete_selected", [second], post="yes")
    assert AuditEntry.objects.filter(action="calendar.delete", actor="root").count() == 2
    taken = root.post(reverse("admin:schedules_calendar_add"), {"name": "", "definition": "{}"})
    assert "required" in taken.content.decode()


def test_a_calendar_that_a_schedule_cannot_take_says_so(root: Browser) -> None:
    calendar = shared_calendars.create(actor="x", name="days", definition={"kind": "weekly", "days": ["sat"]})
    user = make_schedule("user", {**BERLIN, "calendars": {"exclude": ["days"]}})
    shared_calendars.update(calendar.pk, {"definition": {"kind": "weekly", "days": ["sun"]}}, actor="x")
    make_schedule("twin", {**BERLIN, "calendars": {"exclude": ["days"]}}, workflow=user.workflow)
    Schedule.objects.filter(pk=user.pk).update(on_conflict="reject")
    assert "1 refused" in told(root.choose(Calendar, "apply_to_schedules", [calendar]))[0]


# ── Conflicts, clones and all fields ─────────────────────────────────────────────────────────────────────────


def test_conflicts_are_told_on_saving_and_on_the_page(root: Browser) -> None:
    first = make_schedule("first")
    typed = form(workflow=str(first.workflow_id), cron_expression="30 2 * * *", timezone="Europe/Berlin")
    answer = root.post(reverse("admin:schedules_schedule_add"), typed)
    assert any("the same timing" in message for message in told(answer))
    page = root.page(page_url(first))
    assert "duplicate" in page
    assert "fresh" in page
    refused = root.post(
        reverse("admin:schedules_schedule_add"), {**typed, "name": "third", "on_conflict": '{"duplicate": "reject"}'}
    )
    assert "the same timing" in refused.content.decode()
    assert Schedule.objects.count() == 2
    assert root.post(reverse("admin:schedules_schedule_add"), {**typed, "on_conflict": "{"}).status_code == 400


def test_a_schedule_is_cloned(root: Browser) -> None:
    schedule = make_schedule()
    root.do(schedule, "clone", name="paused copy", is_paused="on")
    root.do(schedule, "clone", name="copy")
    assert Schedule.objects.get(name="paused copy").enabled is False
    assert Schedule.objects.get(name="copy").enabled is True
    assert "is taken" in root.do(schedule, "clone", name="copy").content.decode()


def test_every_field_can_be_edited_and_a_stale_form_is_refused(root: Browser) -> None:
    schedule = make_schedule()
    edit = reverse("admin:schedules_schedule_edit", args=[schedule.pk])
    typed = form(
        name="nightly",
        workflow=str(schedule.workflow_id),
        cron_expression="30 2 * * *",
        timezone="Europe/Berlin",
        queue="io",
        timeout="90",
        retry_policy='{"max_attempts": 2}',
        concurrency_key="acme",
        on_conflict='{"duplicate": "ignore"}',
        owner="data",
        external_id="crm-1",
        labels='{"team": "data"}',
        metadata='{"ticket": 1}',
        catch_up_window="0",
        revision="1",
    )
    assert told(root.post(edit, typed))[0].startswith("Saved.")
    schedule.refresh_from_db()
    assert (schedule.queue, schedule.timeout, schedule.retry_policy) == ("io", 90.0, {"max_attempts": 2})
    assert (schedule.concurrency_key, schedule.on_conflict) == ("acme", {"duplicate": "ignore"})
    assert (schedule.owner, schedule.external_id, schedule.labels) == ("data", "crm-1", {"team": "data"})
    assert (schedule.metadata, schedule.catch_up_window) == ({"ticket": 1}, 0)
    assert "{&quot;duplicate&quot;: &quot;ignore&quot;}" in root.page(edit)
    assert "team: data" in root.page(page_url(schedule))
    stale = root.post(edit, {**typed, "owner": "ops"})
    assert "changed by somebody else" in stale.content.decode()
    schedule.refresh_from_db()
    assert schedule.owner == "data"
    root.do(schedule, "run", input="{}", priority="0")
    assert Execution.objects.get().priority == 0


def test_all_firing_is_stopped_and_started_from_one_page(root: Browser) -> None:
    page = root.get(list_url(FiringSwitch))["Location"]
    assert "verb-stop" in root.page(page)
    root.do(FiringSwitch(), "stop", note="database is moving")
    assert switch.state().stopped_by == "root"
    text = root.page(page)
    assert "database is moving" in text
    assert "verb-start" in text
    root.do(FiringSwitch(), "start")
    assert switch.state().stopped_at is None
    assert root.get(reverse("admin:schedules_firingswitch_change", args=[2])).status_code == 302
    viewer = Browser("schedules.view_firingswitch")
    assert viewer.do(FiringSwitch(), "stop").status_code == 403
