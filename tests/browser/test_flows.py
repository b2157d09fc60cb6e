"""The flows that matter most, in a real browser on a live server."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.urls import reverse
from playwright.sync_api import Page, expect

from execution.models import Execution, ProcessReport, Workflow
from execution.states import ExecutionState, StepState
from schedules import lifecycle
from schedules.models import OptimizationReport, Schedule
from tests import factories
from tests.admin_client import list_url, page_url

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

STEP = {"steps": {"work": {"http": {"url": "https://example.org/"}}}}
AT_TWO: dict[str, Any] = {
    "timezone": "Europe/Berlin",
    "timetables": [{"kind": "cron", "expression": "0 2 * * *"}],
}


def make_workflow(name: str = "nightly") -> Workflow:
    return factories.make_workflow(name, STEP)


def crowd(count: int = 6) -> list[Schedule]:
    workflow = make_workflow()
    return [
        lifecycle.create(actor="ada", name=f"night {i}", spec=AT_TWO, workflow=workflow, overlap_policy="allow_all")
        for i in range(count)
    ]


def test_the_first_page_marks_the_hot_hour_in_the_viewers_zone_and_leads_to_its_fires(page: Page) -> None:
    steady = {"timetables": [{"kind": "cron", "expression": "30 * * * *"}]}
    lifecycle.create(actor="ada", name="steady", spec=steady, workflow=crowd()[0].workflow)
    cache.clear()  # the page after signing in has counted already
    page.goto("/admin/")
    expect(page.locator("#sp-agenda")).to_contain_text("times in Europe/Berlin")
    hot = page.locator("#sp-agenda a.sp-hot").first
    expect(hot).to_have_text("6")
    hot.click()
    expect(page.locator(".sp-table tbody tr")).to_have_count(7)
    expect(page.locator(".sp-table tbody tr").first).to_contain_text("02:00:00")
    page.get_by_role("link", name="night 0").click()
    expect(page.locator(".sp-timing")).to_contain_text("02:00")


def test_a_schedule_is_previewed_then_paused_with_a_note_and_resumed(page: Page) -> None:
    workflow = make_workflow()
    page.goto(reverse("admin:schedules_schedule_add"))
    page.fill("[name=name]", "Nightly report")
    page.locator("[name=workflow]").select_option(str(workflow.pk))
    page.fill("[name=cron_expression]", "30 2 * * *")
    page.locator("[name=timezone]").fill("Europe/Berlin")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview tbody tr")).to_have_count(10)
    assert not Schedule.objects.exists()
    page.get_by_role("button", name="Create").click()
    page.locator("[data-opens=verb-pause]").click()
    page.fill("dialog[open] [name=pause-note]", "the source is moving")
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.locator(".sp-note").first).to_contain_text("the source is moving")
    page.locator("[data-opens=verb-resume]").click()
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.locator("[data-opens=verb-pause]")).to_be_visible()
    assert Schedule.objects.get().enabled


def test_a_schedule_is_run_now_and_its_execution_cancelled(page: Page) -> None:
    page.goto(page_url(crowd(1)[0]))
    page.locator("[data-opens=verb-run]").click()
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.locator(".sp-graph")).to_be_visible()
    page.locator("[data-opens=verb-cancel]").click()
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.locator("body")).to_contain_text("Cancelled")
    assert Execution.objects.get().state == ExecutionState.CANCELLED


def test_a_definition_is_checked_while_it_is_typed(page: Page) -> None:
    workflow = make_workflow()
    page.goto(reverse("admin:execution_workflow_verb", args=[workflow.pk, "edit"]))
    area, told = page.locator("[name=edit-definition]"), page.locator(".sp-checked")
    expect(told).to_have_text("It can be run.")
    area.fill('{"steps": {"a": {"needs": ["b"], "wait": 1}}}')
    expect(told).to_contain_text("steps.a")
    area.fill('{"steps": ')
    expect(told).to_have_class(re.compile("sp-bad"))
    area.fill('{"steps": {"a": {"wait": 1}}}')
    expect(told).to_have_text("It can be run.")
    page.locator("form button[type=submit]", has_text="Edit definition").click()
    expect(page.locator("body")).to_contain_text("Version 2 is what new executions run.")


def test_the_optimisers_proposals_are_applied_and_put_back(page: Page) -> None:
    made = crowd(12)
    end = factories.now()
    for _ in range(3):
        begin = end - timedelta(seconds=60)
        run = factories.make_execution(
            made[0].workflow, state=ExecutionState.SUCCEEDED, started_at=begin, finished_at=end
        )
        factories.make_step_run(run, state=StepState.SUCCEEDED, started_at=begin, finished_at=end).attempts.update(
            started_at=begin, finished_at=end
        )
    ProcessReport.objects.create(name="w1", kind="worker", host="h1", pid=1, queues=["default"], slots=2)
    page.goto(list_url(OptimizationReport))
    page.get_by_role("link", name="New report").click()
    page.get_by_role("button", name="Make the report").click()
    expect(page.locator("rect.sp-will").first).to_be_attached()
    page.locator("[data-opens=verb-apply]").click()
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.locator("[data-opens=verb-revert]")).to_be_visible()
    assert len({str(schedule.version.spec) for schedule in Schedule.objects.select_related("version")}) > 1
    page.locator("[data-opens=verb-revert]").click()
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.locator("[name=apply-changes]").first).to_be_attached()  # each can be applied again
    assert len({str(schedule.version.spec) for schedule in Schedule.objects.select_related("version")}) == 1
