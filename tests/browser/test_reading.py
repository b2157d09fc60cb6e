"""The main pages read by everybody: with a screen reader, a keyboard, weak eyes, a small screen, in the dark."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from execution.models import DeadLetter, ProcessReport
from execution.states import ExecutionState, StepState
from schedules import lifecycle
from schedules.models import OptimizationReport, Schedule
from tests import factories
from tests.admin_client import list_url, page_url
from triggers import endpoints

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

AT_TWO: dict[str, Any] = {
    "timezone": "Europe/Berlin",
    "timetables": [{"kind": "cron", "expression": "0 2 * * *"}],
}


def main_pages() -> list[str]:
    """Addresses of the pages that people look at most, each with something on it."""
    workflow = factories.make_workflow(
        "nightly", {"steps": {"work": {"http": {"url": "https://example.org/"}}}, "finally": {"end": {"wait": 1}}}
    )
    schedule = lifecycle.create(actor="ada", name="night", spec=AT_TWO, workflow=workflow)
    execution = lifecycle.trigger(schedule.pk, actor="ada")
    failed = factories.make_step_run(
        factories.make_execution(workflow, state=ExecutionState.FAILED), state=StepState.FAILED
    )
    failed.attempts.update(state="failed", error_type="KeyError", error="no amount", finished_at=factories.now())
    letter = factories.make_dead_letter(failed, traceback="Traceback (most recent call last): …")
    ProcessReport.objects.create(name="w1", kind="worker", host="h1", pid=1, queues=["default"], slots=2)
    endpoint = endpoints.create("shop", actor="ada").endpoint
    agenda = reverse("admin:schedules_schedule_agenda")
    return [
        "/admin/",
        agenda,
        f"{agenda}?view=month",
        list_url(Schedule),
        page_url(schedule),
        reverse("admin:schedules_schedule_edit", args=[schedule.pk]),
        page_url(workflow),
        page_url(execution),
        page_url(failed.execution),
        list_url(DeadLetter),
        page_url(letter),
        page_url(endpoint),
        list_url(ProcessReport),
        list_url(OptimizationReport),
        reverse("admin:execution_redrivejob_add"),
        reverse("apply"),
        reverse("admin:demo_tour"),
    ]


@pytest.mark.parametrize(("look", "width"), [("light", 1440), ("dark", 390)])
def test_pages_are_read_by_everybody(page: Page, audit: str, look: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=look)
    found: dict[str, Any] = {}
    for path in main_pages():
        page.goto(path)
        if wrong := page.evaluate(audit):
            found[path] = wrong
    assert not found, json.dumps(found, indent=2)


def test_anything_is_found_and_opened_with_the_keyboard_alone(page: Page) -> None:
    factories.make_workflow("nightly-load")
    page.goto("/admin/")
    page.keyboard.press("Control+k")
    field = page.locator("#search-input-command")
    expect(field).to_be_focused()
    page.keyboard.type("nightly")
    expect(page.locator("#command-results")).to_contain_text("nightly-load")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("body")).to_contain_text("Edit definition")
    page.wait_for_load_state("load")  # the text is there before the scripts are
    page.get_by_role("button", name="Search", exact=False).first.click()
    expect(field).to_be_focused()
    page.keyboard.type("redrive")
    expect(page.locator("#command-results")).to_contain_text("Redrive jobs")


def test_a_dialog_is_opened_left_and_sent_with_the_keyboard(page: Page) -> None:
    schedule = lifecycle.create(actor="ada", name="night", spec=AT_TWO, workflow=factories.make_workflow())
    page.goto(page_url(schedule))
    page.locator("[data-opens=verb-pause]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.press("Enter")
    page.locator("dialog[open] [name=pause-note]").press("Enter")
    expect(page.locator(".sp-note").first).to_contain_text("Paused")
