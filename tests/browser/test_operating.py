"""What operators do on a bad night, in a real browser on a live server."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import reverse
from playwright.sync_api import Page, expect

from execution import lifecycle as executions
from execution.models import DeadLetter, Execution, StepRun
from execution.states import DeadLetterState, ExecutionState, StepState, WaitingFor
from schedules import lifecycle
from schedules.models import Schedule
from tests import factories
from tests.admin_client import list_url, page_url

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

AT_TWO: dict[str, Any] = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}


def test_a_poisoned_payload_is_edited_and_redriven(page: Page) -> None:
    execution = factories.make_execution(state=ExecutionState.FAILED, input={"amount": "twelve"})
    factories.make_dead_letter(factories.make_step_run(execution, state=StepState.FAILED))
    page.goto(list_url(DeadLetter))
    page.locator("#result_list a.sp-link").first.click()
    page.locator("[data-opens=verb-redrive]").click()
    area = page.locator("dialog[open] [name=redrive-input]")
    expect(area).to_have_value(re.compile('"twelve"'))
    area.fill('{"amount": ')
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.locator(".sp-error")).to_be_visible()  # what was typed stays, and what is wrong is said
    page.locator("[name=redrive-input]").fill('{"amount": 12}')
    page.locator("form button[type=submit]", has_text="Redrive").click()
    expect(page.locator("body")).to_contain_text("Redriven")
    assert DeadLetter.objects.get().state == DeadLetterState.REDRIVING
    assert Execution.objects.get().input == {"amount": 12}


def test_all_letters_of_one_error_are_redriven_as_a_job(page: Page) -> None:
    for _ in range(3):
        failed = factories.make_execution(state=ExecutionState.FAILED)
        factories.make_dead_letter(factories.make_step_run(failed, state=StepState.FAILED), fingerprint="a" * 32)
    page.goto(list_url(DeadLetter))
    page.get_by_role("link", name=re.compile("Redrive all 3")).click()
    page.get_by_role("button", name="Begin").click()
    expect(page.locator(".sp-facts")).to_contain_text("0 of 3")
    expect(page.locator("[data-opens=verb-cancel]")).to_be_visible()


def test_a_step_that_waits_for_people_is_approved(page: Page) -> None:
    workflow = factories.make_workflow(definition={"steps": {"ask": {"approval": {"message": "Is it right?"}}}})
    execution = factories.make_execution(workflow, state=ExecutionState.RUNNING, with_steps=True)
    later = factories.now() + timedelta(days=1)
    StepRun.objects.update(state=StepState.WAITING, waiting_for=WaitingFor.APPROVAL, available_at=later)
    page.goto(page_url(execution))
    expect(page.locator(".sp-decision")).to_contain_text("Is it right?")
    page.get_by_role("textbox", name="Note", exact=True).fill("checked by hand")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("body")).to_contain_text("is approved")
    assert StepRun.objects.get().state == StepState.SUCCEEDED


def test_a_page_follows_what_happens_without_being_loaded_again(page: Page) -> None:
    execution = factories.make_execution(state=ExecutionState.RUNNING, with_steps=True)
    page.goto(page_url(execution))
    page.evaluate("window.stays = true")
    expect(page.locator(".sp-facts .sp-badge").first).to_have_text("Running")
    executions.cancel(execution.pk, actor="ada", reason="no longer wanted")
    expect(page.locator(".sp-facts .sp-badge").first).to_have_text("Cancelled")
    assert page.evaluate("window.stays")


def test_many_schedules_are_changed_after_a_look_at_what_would_change(page: Page) -> None:
    workflow = factories.make_workflow()
    for index in range(3):
        lifecycle.create(actor="ada", name=f"night {index}", spec=AT_TWO, workflow=workflow)
    page.goto(list_url(Schedule))
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("change-many")
    page.locator("button[name=index]").click()
    page.locator("[name=bulk-priority]").select_option("9")
    page.fill("[name=bulk-note]", "quarter end")
    page.get_by_role("button", name="Show what would change").click()
    expect(page.locator("#seen")).to_contain_text("3 would change")
    assert set(Schedule.objects.values_list("priority", flat=True)) == {6}
    page.get_by_role("button", name="Change them").click()
    expect(page.locator("body")).to_contain_text("3 schedules are changed")
    assert set(Schedule.objects.values_list("priority", flat=True)) == {9}


def test_a_file_is_applied_after_a_look_at_it(page: Page) -> None:
    page.goto(reverse("apply"))
    page.get_by_role("button", name="Show what would change").click()
    expect(page.locator(".sp-strip")).to_contain_text("Nothing has been done yet")
    assert not Schedule.objects.exists()
    page.get_by_role("button", name="Apply", exact=True).click()
    expect(page.locator("body")).to_contain_text("2 created")
    assert Schedule.objects.get().name == "Hello every hour"


def test_the_tour_starts_what_breaks_and_tells_how_to_deliver(page: Page) -> None:
    call_command("demo", "seed", verbosity=0)
    page.goto(reverse("admin:demo_tour"))
    expect(page.locator("#sp-curl")).to_contain_text("curl -sS")
    page.get_by_role("button", name="Deliver it from here").click()
    expect(page.locator("body")).to_contain_text("The door answered 202")
    page.goto(reverse("admin:demo_tour"))
    page.get_by_role("button", name="Break it").click()
    expect(page.locator(".sp-graph")).to_contain_text("fragile")
