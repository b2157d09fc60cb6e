"""The agenda's page: a week, a month, the fires of an hour, and the part that the first page shows."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from schedules import lifecycle
from schedules.models import Schedule
from tests import factories
from tests.admin_client import Browser

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> None:
    cache.clear()


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


def url() -> str:
    return reverse("admin:schedules_schedule_agenda")


def crowd(count: int = 5) -> list[Schedule]:
    workflow = factories.make_workflow()
    spec = {"timezone": "Europe/Berlin", "timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}
    night = [
        lifecycle.create(actor="ada", name=f"night {index}", spec=spec, workflow=workflow) for index in range(count)
    ]
    steady = {"timetables": [{"kind": "cron", "expression": "* * * * *"}]}
    lifecycle.create(actor="ada", name="steady", spec=steady, workflow=workflow)
    return night


def test_a_week_marks_the_hot_hour_and_leads_to_its_fires_and_to_the_optimiser(root: Browser) -> None:
    crowd()
    page = root.page(url(), zone="Europe/Berlin")
    assert "sp-hot" in page
    assert "in one minute" in page
    assert reverse("admin:schedules_optimizationreport_changelist") in page
    assert "zone=Europe%2FBerlin&amp;at=" in page
    listed = root.page(url(), view="list", zone="Europe/Berlin", at="2027-01-04T01:00:00Z")
    assert "65 fires in Europe/Berlin" in listed
    assert "Monday, 4 January 2027, 02:00 to 03:00" in listed
    assert listed.count("night ") == 5


def test_a_month_shows_each_day_and_turns_pages(root: Browser) -> None:
    crowd(1)
    page = root.page(url(), view="month", zone="UTC", **{"from": "2027-02-14"})
    assert "February 2027" in page
    assert "1,441" in page
    assert "from=2027-01-31" in page
    assert "from=2027-03-01" in page
    past = root.page(url(), view="month", **{"from": "2026-01-01"})
    assert "past" in past


def test_the_part_is_the_drawing_alone_and_is_counted_once_a_minute(
    root: Browser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    crowd()
    first = root.page(url(), part="1", zone="Europe/Berlin")
    assert "<html" not in first
    assert 'class="sp-heat"' in first
    with django_assert_max_num_queries(4):  # the session, the user, the clock, whether somebody did something
        assert root.page(url(), part="1", zone="Europe/Berlin") == first


def test_what_somebody_did_is_seen_at_once(root: Browser) -> None:
    made = crowd()
    assert "sp-hot" in root.page(url(), part="1", zone="Europe/Berlin")
    for schedule in made:
        lifecycle.pause(schedule.pk, actor="ada")
    assert "sp-hot" not in root.page(url(), part="1", zone="Europe/Berlin")


@pytest.mark.parametrize(
    "query",
    [
        {"zone": "Mars/Base"},
        {"from": "yesterday"},
        {"from": "9999-12-31"},
        {"from": "0001-01-01", "view": "month"},
        {"view": "list", "at": "soon"},
        {"view": "list", "at": "9999-12-31T23:59:59+00:00"},
        {"view": "list", "at": "2027-01-01T00:30:00"},
        {"view": "nothing"},
    ],
)
def test_what_makes_no_sense_in_the_address_is_not_an_error(root: Browser, query: dict[str, str]) -> None:
    assert "Agenda" in root.page(url(), **query)


def test_what_is_too_much_to_count_is_told(root: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd()
    monkeypatch.setattr("schedules.forecast.MOST_INSTANTS", 10)
    assert "too many instants" in root.page(url())


def test_it_is_for_those_who_may_see_schedules() -> None:
    assert Browser().get(url()).status_code == 403


def test_who_may_not_see_reports_is_not_led_to_them() -> None:
    seen = Browser("schedules.view_schedule")
    crowd()
    assert "Spread them" not in seen.page(url())
