"""The dashboard, the sidebar, users and groups, and django-celery-beat's rows in the admin."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.contrib.staticfiles import finders
from django.test import RequestFactory
from django.urls import reverse
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from pytest_django import DjangoAssertNumQueries

from execution import queues
from execution.models import Execution, ProcessReport, Workflow
from execution.states import DeadLetterState, ExecutionState, StepState
from schedules import lifecycle, periodic_tasks, switch
from schedules.models import Schedule, ScheduleFire
from scheduling_project import dashboard
from scheduling_project.common.ids import uuid7
from tests import factories
from tests.admin_client import Browser, list_url, page_url, told

pytestmark = pytest.mark.django_db

INDEX = "/admin/"
MINUTELY: dict[str, Any] = {"timetables": [{"kind": "cron", "expression": "* * * * *"}]}


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


def make_schedule(name: str = "minutely") -> Schedule:
    made = lifecycle.create(actor="ada", name=name, workflow=factories.make_workflow(), spec=MINUTELY)
    made.refresh_from_db()
    return made


def make_processes() -> None:
    for kind in ("worker", "beat"):
        ProcessReport.objects.create(name=f"{kind}@h", kind=kind, host="h", pid=1, queues=["default", "io"], slots=4)


# ── Everything that is registered ────────────────────────────────────────────────────────────────────────────


def test_every_registered_list_answers_a_superuser_and_nobody_else(root: Browser) -> None:
    stranger, staff = Browser(anonymous=True), Browser()
    for model in admin.site._registry:
        url = list_url(model)
        answer = root.get(url, follow=True)
        assert answer.status_code == 200, url
        assert stranger.get(url).status_code == 302, url
        assert staff.get(url).status_code == 403, url


def test_every_registered_form_for_a_new_row_answers_or_is_refused(root: Browser) -> None:
    for model in admin.site._registry:
        meta = model._meta
        answer = root.get(reverse(f"admin:{meta.app_label}_{meta.model_name}_add"))
        assert answer.status_code in {200, 403}, model


def test_refresh_tokens_are_not_shown() -> None:
    names = {model.__name__ for model in admin.site._registry}
    assert not names & {"OutstandingToken", "BlacklistedToken"}


def test_users_and_groups_have_pages(root: Browser) -> None:
    root.page(page_url(root.user))
    root.page(page_url(Group.objects.create(name="operators")))
    root.page(reverse("admin:auth_user_add"))
    root.page(reverse("admin:password_change"))


def test_signing_in_without_a_destination_leads_to_the_dashboard(root: Browser) -> None:
    stranger = Browser(anonymous=True)
    answer = stranger.post("/admin/login/", {"username": "root", "password": "x"})
    assert answer["Location"] == INDEX


def test_no_page_asks_for_anything_outside(root: Browser) -> None:
    execution = factories.make_execution(with_steps=True)
    make_schedule()
    urls = [INDEX, page_url(execution), list_url(Execution), list_url(Schedule), list_url(PeriodicTask)]
    for url in urls:
        text = root.page(url)
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', text)
        assert fetched
        assert not [address for address in fetched if not address.startswith("/")], url
    for name in ("admin.css", "admin.js", "icon.svg"):
        assert finders.find(f"scheduling_project/{name}"), name


def test_the_sidebar_leads_to_the_api_docs_and_flower(root: Browser, settings: Any) -> None:
    settings.FLOWER_URL = "http://flower.example:5555/"
    text = root.page(INDEX)
    assert 'href="/api/docs/"' in text
    assert "http://flower.example:5555/" in text


def test_the_sidebar_shows_only_what_a_user_may_see() -> None:
    text = Browser("schedules.view_schedule").page(INDEX)
    assert list_url(Schedule) in text
    assert list_url(Execution) not in text


# ── The dashboard ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_installation_says_what_is_missing(root: Browser) -> None:
    text = root.page(INDEX)
    assert "No beat has reported lately" in text
    assert "No worker has reported lately" in text
    assert "Nothing has run yet" in text
    assert "No schedule is due" in text


def test_when_work_flows_the_strip_says_so(root: Browser) -> None:
    make_processes()
    make_schedule()
    assert "Work flows" in root.page(INDEX)


def test_the_cards_count(root: Browser) -> None:
    make_processes()
    make_schedule()
    lifecycle.pause(make_schedule("paused").pk, actor="ada")
    for state in (ExecutionState.SUCCEEDED, ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.RUNNING):
        factories.make_execution(state=state)
    factories.make_dead_letter()
    Execution.objects.update(created_at=factories.now(), started_at=factories.now() + timedelta(seconds=7))
    schedule = Schedule.objects.get(name="paused")
    for late in (1, 2, 3):
        due = factories.now() - timedelta(minutes=late)
        ScheduleFire.objects.create(
            schedule=schedule,
            version=schedule.version,
            scheduled_for=due,
            due_at=due,
            recorded_at=due + timedelta(seconds=late),
            outcome="started",
        )
    request = RequestFactory().get(INDEX)
    request.user = root.user
    context = dashboard.dashboard(request, {})
    figures = {card.label: card.figure for card in context["cards"]}
    assert figures == {
        "Schedules": "1",
        "Running": "1",
        "Queued": "0",
        "Success, 24 h": "50.0 %",
        "Failures, 24 h": "2",
        "Lateness, 1 h": "3.0 s",
        "Waiting, 1 h": "7.0 s",
        "Dead letters": "1",
        "Workers": "1",
        "Beats": "1",
    }
    assert [card.below for card in context["cards"][5:7]] == ["half within 2.0 s", "half within 7.0 s"]
    assert [card.tone for card in context["cards"][5:7]] == ["", "warn"]
    assert "sp-hours" in context["hours"]


def test_figures_of_what_a_user_may_not_see_are_left_out() -> None:
    factories.make_execution()
    text = Browser("schedules.view_schedule").page(INDEX)
    assert "active" in text
    assert "Latest executions" not in text
    assert "undecided" not in text
    nobody = Browser(anonymous=True)
    nobody.force_login(User.objects.create_user("nobody", is_staff=True))
    assert "Next to fire" not in nobody.page(INDEX)


def test_the_dashboard_takes_few_bounded_statements(
    root: Browser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    make_processes()
    for number in range(12):
        factories.make_execution(state=ExecutionState.SUCCEEDED)
        make_schedule(f"s{number}")
    with django_assert_max_num_queries(32) as captured:
        root.page(INDEX)
    unbounded = [
        query["sql"]
        for query in captured.captured_queries
        if "execution_execution" in query["sql"] and "LIMIT" not in query["sql"]
    ]
    assert unbounded == []


def test_what_is_wrong_is_said_in_words(root: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    ProcessReport.objects.create(name="w@h", kind="worker", host="h", pid=1, queues=["default"], slots=4)
    for number in range(4):
        ProcessReport.objects.create(
            name=f"mute{number}", kind="beat", host="h", pid=2, seen_at=now - timedelta(minutes=2)
        )
    factories.make_step_run(state=StepState.QUEUED, queue="io", available_at=now - timedelta(minutes=2))
    queues.pause("default", actor="ada")
    Schedule.objects.filter(pk=make_schedule().pk).update(next_fire_at=now - timedelta(minutes=5))
    monkeypatch.setattr(dashboard, "redis_answers", lambda: False)
    text = root.page(INDEX)
    for expected in (
        "Silent without having said goodbye: mute0, mute1, mute2 and 1 more.",
        "Redis does not answer",
        "Paused queue: default.",
        "Work waits in queue io, and no worker serves it.",
        "1 schedule is overdue by more than 30 s.",
    ):
        assert expected in text, expected
    switch.stop(actor="ada", note="moving")
    text = root.page(INDEX)
    assert "All firing was stopped by ada: moving" in text
    assert "overdue" not in text


def test_redis_is_asked_and_its_absence_is_no_error(settings: Any) -> None:
    assert dashboard.redis_answers()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert not dashboard.redis_answers()


def test_waiting_steps_are_listed_by_queue_and_priority(root: Browser) -> None:
    past = datetime.now(UTC) - timedelta(seconds=5)
    factories.make_step_run(state=StepState.QUEUED, priority=0, available_at=past)
    text = root.page(INDEX)
    assert "0 critical" in text


def test_the_badge_counts_open_letters_up_to_a_hundred(root: Browser) -> None:
    request = RequestFactory().get(INDEX)
    request.user = root.user
    assert dashboard.open_letters_badge(request) == ""
    factories.make_dead_letter()
    factories.make_dead_letter(state=DeadLetterState.DISCARDED)
    assert dashboard.open_letters_badge(request) == "1"
    request.user = Browser().user
    assert dashboard.open_letters_badge(request) == ""


def test_the_command_search_finds_names_and_whole_ids(root: Browser) -> None:
    schedule = make_schedule("Nightly load")
    letter = factories.make_dead_letter()
    request = RequestFactory().get(INDEX)
    request.user = root.user
    assert [result.title for result in dashboard.search(request, "night")] == ["Nightly load"]
    assert [result.link for result in dashboard.search(request, str(letter.pk))] == [page_url(letter)]
    assert dashboard.search(request, str(uuid7())) == []
    assert Workflow.objects.filter(pk=schedule.workflow_id).exists()
    assert "Nightly load" in root.get("/admin/search/", {"s": "Nightly", "extended": "1"}).content.decode()
    request.user = Browser().user
    assert dashboard.search(request, "night") == []


def test_the_chart_stacks_states_by_hour() -> None:
    now = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
    hours = {0: Counter(succeeded=3, failed=1), 23: Counter(cancelled=4)}
    drawn = dashboard.draw_hours(hours, now)
    assert drawn.count("<rect") == 3
    assert "11:00 to 12:00 UTC: 3 succeeded, 1 failed" in drawn
    assert dashboard.draw_hours({}, now).count("<rect") == 0


# ── Periodic tasks ───────────────────────────────────────────────────────────────────────────────────────────


def mirror(schedule: Schedule) -> PeriodicTask:
    schedule.refresh_from_db()
    assert schedule.periodic_task is not None
    return schedule.periodic_task


def ordinary(name: str = "cleanup", **fields: Any) -> PeriodicTask:
    every, _ = IntervalSchedule.objects.get_or_create(every=10, period="seconds")
    return PeriodicTask.objects.create(name=name, task="execution.run_step", interval=every, **fields)


def test_rows_of_django_celery_beat_have_pages(root: Browser) -> None:
    crontab = CrontabSchedule.objects.create(minute="5")
    for row in (
        crontab,
        IntervalSchedule.objects.create(every=3, period="minutes"),
        SolarSchedule.objects.create(event="sunset", latitude=52, longitude=13),
        ClockedSchedule.objects.create(clocked_time=datetime(2030, 1, 1, tzinfo=UTC)),
        ordinary(),
        mirror(make_schedule()),
    ):
        root.page(page_url(row))
    root.page(reverse("admin:django_celery_beat_periodictask_add"))
    assert "minutely" in root.page(list_url(PeriodicTask), mirror="yes")
    assert "minutely" not in root.page(list_url(PeriodicTask), mirror="no")


def test_switching_a_mirror_row_off_and_on_pauses_and_resumes_its_schedule(root: Browser) -> None:
    schedule = make_schedule()
    task = mirror(schedule)
    assert "It mirrors a schedule" in root.page(page_url(task))
    root.post(page_url(task), {})  # an unchecked box is not sent
    schedule.refresh_from_db()
    assert (schedule.enabled, schedule.pause_note) == (False, "switched off as a periodic task")
    assert not mirror(schedule).enabled
    root.post(page_url(task), {"enabled": "on"})
    schedule.refresh_from_db()
    assert schedule.enabled
    revision = schedule.revision
    root.post(page_url(task), {"enabled": "on"})
    schedule.refresh_from_db()
    assert schedule.revision == revision


def test_an_ordinary_task_is_saved_as_ever(root: Browser) -> None:
    task = ordinary()
    values = {"name": "renamed", "task": task.task, "interval": task.interval_id, "args": "[]", "kwargs": "{}"}
    answer = root.post(page_url(task), {**values, "headers": "{}"})
    assert answer.status_code == 302, answer.content.decode()[:3000]
    task.refresh_from_db()
    assert (task.name, task.enabled) == ("renamed", False)


def test_actions_on_mirrors_do_what_the_schedules_buttons_do(root: Browser) -> None:
    schedule, task = make_schedule(), ordinary()
    rows = [mirror(schedule), task]
    root.choose(PeriodicTask, "disable_tasks", rows)
    schedule.refresh_from_db()
    task.refresh_from_db()
    assert (schedule.enabled, task.enabled) == (False, False)
    root.choose(PeriodicTask, "toggle_tasks", rows)
    schedule.refresh_from_db()
    task.refresh_from_db()
    assert (schedule.enabled, task.enabled) == (True, True)
    root.choose(PeriodicTask, "toggle_tasks", rows)
    root.choose(PeriodicTask, "enable_tasks", rows)
    schedule.refresh_from_db()
    task.refresh_from_db()
    assert (schedule.enabled, task.enabled) == (True, True)
    answer = root.choose(PeriodicTask, "run_tasks", rows[:1])
    assert Execution.objects.get().source_id == str(schedule.pk)
    assert told(answer)[-1] == "1 schedule started."


@pytest.mark.parametrize(
    ("action", "enabled"), [("disable_tasks", False), ("toggle_tasks", False), ("enable_tasks", True)]
)
def test_actions_on_mirrors_alone_touch_no_ordinary_task(root: Browser, action: str, enabled: bool) -> None:
    schedule, task = make_schedule(), ordinary()
    root.choose(PeriodicTask, action, [mirror(schedule)])
    schedule.refresh_from_db()
    task.refresh_from_db()
    assert (schedule.enabled, task.enabled) == (enabled, True)


def test_running_an_ordinary_task_sends_it(root: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    from celery import current_app

    sent: list[Any] = []
    task = ordinary("sweep")
    task.task = periodic_tasks.REFRESH
    task.save()
    monkeypatch.setattr(
        current_app.tasks[periodic_tasks.REFRESH], "apply_async", lambda *args, **options: sent.append(options)
    )
    root.choose(PeriodicTask, "run_tasks", [task])
    assert len(sent) == 1


def test_a_refusal_of_a_schedule_is_told(root: Browser) -> None:
    schedule = make_schedule()
    Workflow.objects.filter(pk=schedule.workflow_id).update(published=None)
    answer = root.choose(PeriodicTask, "run_tasks", [mirror(schedule)])
    assert "no published version" in told(answer)[0]


def test_mirror_rows_are_deleted_with_their_schedules_only(root: Browser) -> None:
    schedule, task = make_schedule(), ordinary()
    row = mirror(schedule)
    assert root.post(reverse("admin:django_celery_beat_periodictask_delete", args=[row.pk])).status_code == 403
    assert root.choose(PeriodicTask, "delete_selected", [row, task], post="yes").status_code == 403
    assert PeriodicTask.objects.filter(pk__in=[row.pk, task.pk]).count() == 2
    root.choose(PeriodicTask, "delete_selected", [task], post="yes")
    assert not PeriodicTask.objects.filter(pk=task.pk).exists()


def test_disabling_needs_the_permission_to_change() -> None:
    schedule = make_schedule()
    viewer = Browser("django_celery_beat.view_periodictask")
    viewer.choose(PeriodicTask, "disable_tasks", [mirror(schedule)])
    schedule.refresh_from_db()
    assert schedule.enabled
