"""`on_success`, `on_failure` and `finally`: what runs after the main steps, and how the execution then ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import definitions, engine, epilogue, lifecycle, maintenance, plans, runner
from execution.models import DeadLetter, Execution, News
from execution.plans import plan_by_id
from execution.states import ExecutionState
from tests.api_client import Api
from tests.execution import flow

pytestmark = pytest.mark.django_db

HTTP = flow.http
ALL: dict[str, Any] = {"on_success": {"yes": HTTP()}, "on_failure": {"no": HTTP()}, "finally": {"last": HTTP()}}


def begin(steps: Any = None, *, topic: str = "", input: Any = None, **sections: Any) -> Execution:
    options = {"news_topic": topic} if topic else {}
    return flow.begin(steps or {"a": HTTP()}, input=input, options=options, **(sections or ALL))


def fate(execution: Execution) -> tuple[str, str | None, str]:
    ended = flow.fresh(execution)
    return ended.state, ended.outcome, ended.section


@pytest.mark.parametrize(
    ("sections", "after", "ended", "following"),
    [
        (["on_success", "on_failure", "finally"], "", "succeeded", "on_success"),
        (["on_success", "on_failure", "finally"], "", "failed", "on_failure"),
        (["on_success", "on_failure", "finally"], "", "cancelled", "finally"),
        (["on_failure"], "", "succeeded", ""),
        (["on_failure", "finally"], "", "succeeded", "finally"),
        (["on_success", "finally"], "on_success", "failed", "finally"),
        (["on_success"], "on_success", "succeeded", ""),
        (["finally"], "finally", "cancelled", ""),
        ([], "", "failed", ""),
    ],
)
def test_what_follows_what(sections: list[str], after: str, ended: str, following: str) -> None:
    assert epilogue.next_section(sections, after=after, ended=ExecutionState(ended)) == following


def test_success_is_followed_by_its_handler_and_the_cleaning() -> None:
    execution = begin(topic="t", output="${{ steps.a.output }}", **ALL)
    flow.succeed(execution, "a", {"n": 1})
    assert fate(execution) == ("running", "succeeded", "on_success")
    assert flow.states(execution) == {"a": "succeeded", "yes": "queued"}
    flow.succeed(execution, "yes")
    assert fate(execution) == ("running", "succeeded", "finally")
    assert not News.objects.exists()
    flow.succeed(execution, "last")
    assert fate(execution) == ("succeeded", "succeeded", "finally")
    assert [news.data for news in News.objects.all()] == [{"state": "succeeded"}]
    assert Execution.objects.get(pk=execution.pk).output.data == {"n": 1}
    shown = Api().ok("get", f"/api/executions/{execution.pk}")
    assert (shown["outcome"], [step["name"] for step in shown["steps"]]) == ("succeeded", ["a", "yes", "last"])


def test_failure_is_followed_by_its_handler_and_stays_a_failure() -> None:
    execution = begin()
    flow.fail(execution, "a")
    assert flow.states(execution) == {"a": "failed", "no": "queued"}
    flow.succeed(execution, "no")
    flow.succeed(execution, "last")
    assert fate(execution) == ("failed", "failed", "finally")
    assert DeadLetter.objects.count() == 1


def test_a_section_that_fails_fails_the_execution_with_a_letter_and_the_cleaning_runs_all_the_same() -> None:
    execution = begin()
    flow.succeed(execution, "a")
    flow.fail(execution, "yes")
    assert flow.states(execution)["last"] == "queued"
    flow.succeed(execution, "last")
    assert fate(execution) == ("failed", "succeeded", "finally")
    assert DeadLetter.objects.get().step_name == "yes"


def test_a_handled_failure_in_a_section_changes_nothing() -> None:
    execution = begin(**{"finally": {"last": HTTP(on_error="continue")}})
    flow.succeed(execution, "a")
    flow.fail(execution, "last")
    assert fate(execution) == ("succeeded", "succeeded", "finally")
    assert not DeadLetter.objects.exists()


def test_cancelling_runs_the_cleaning_and_ends_as_cancelled() -> None:
    execution = begin(topic="t")
    flow.held(execution, "a")
    lifecycle.cancel(execution.pk, actor="ada")
    assert fate(execution) == ("running", "cancelled", "finally")
    assert flow.states(execution) == {"a": "cancelled", "last": "queued"}
    flow.succeed(execution, "last")
    assert fate(execution) == ("cancelled", "cancelled", "finally")
    assert [news.data for news in News.objects.all()] == [{"state": "cancelled"}]
    assert flow.fresh(execution).state_reason == "cancelled by ada"


def test_a_second_cancellation_ends_the_cleaning_too() -> None:
    execution = begin()
    flow.held(execution, "a")
    for _ in range(2):
        lifecycle.cancel(execution.pk, actor="ada")
    assert fate(execution) == ("cancelled", "cancelled", "finally")
    assert flow.states(execution) == {"a": "cancelled", "last": "cancelled"}


def test_a_failure_of_the_cleaning_after_a_cancellation_is_a_failure_that_can_be_resumed() -> None:
    execution = begin()
    flow.held(execution, "a")
    lifecycle.cancel(execution.pk, actor="ada")
    flow.fail(execution, "last")
    assert fate(execution)[0] == "failed"
    lifecycle.resume_from_failure(execution.pk, actor="ada")
    flow.succeed(execution, "last")
    assert fate(execution)[0] == "cancelled"
    assert DeadLetter.objects.get().state == "resolved"


def test_nothing_is_cleaned_up_where_nothing_had_begun() -> None:
    execution = begin()
    lifecycle.cancel(execution.pk, actor="ada")
    assert fate(execution) == ("cancelled", None, "")


def test_a_handler_that_is_cancelled_is_followed_by_the_cleaning() -> None:
    execution = begin()
    flow.fail(execution, "a")
    lifecycle.cancel(execution.pk, actor="ada")
    flow.succeed(execution, "last")
    assert fate(execution) == ("cancelled", "cancelled", "finally")


def test_a_deadline_leaves_time_for_the_cleaning_and_for_no_more(settings: Any) -> None:
    settings.WORKFLOW_CLEANUP_SECONDS = 100
    execution = begin({"a": {"wait": "1h"}, "b": HTTP()}, timeout=10, **{"finally": {"last": HTTP()}})
    flow.succeed(execution, "b")
    now = engine.now()
    assert maintenance.cancel_overdue(now=now + timedelta(seconds=20)) == 1
    assert fate(execution) == ("running", "cancelled", "finally")
    assert maintenance.cancel_overdue(now=now + timedelta(seconds=100)) == 0
    assert maintenance.cancel_overdue(now=now + timedelta(seconds=130)) == 1
    assert fate(execution) == ("cancelled", "cancelled", "finally")


def test_sections_see_how_it_ended_and_with_what() -> None:
    section = {
        "tell": {"emit": {"type": "x", "data": "${{ execution.error }}"}},
        "skip": HTTP("tell", when={"execution": {"outcome": ["cancelled"]}}),
        "ask": {"http": {"url": "https://x/?${{ execution.outcome }}&${{ steps.a.state }}"}, "needs": ["skip"]},
    }
    execution = begin({"a": HTTP()}, on_failure=section)
    flow.fail(execution, "a", error="no rows")
    assert News.objects.get(topic="emit").data["data"] == {"step": "a", "type": "ValueError", "message": "no rows"}
    assert flow.states(execution) == {"a": "failed", "tell": "succeeded", "skip": "skipped", "ask": "queued"}
    held = flow.held(execution, "ask")
    plan = plan_by_id(held.version_id)
    assert runner.render_argument(held, plan, plan.steps["ask"]) == {"url": "https://x/?failed&failed"}


def test_an_output_that_cannot_be_made_is_a_failure_for_the_handlers_too() -> None:
    execution = begin(output="${{ abs(steps.a.output) }}", **ALL)
    flow.succeed(execution, "a", "x")
    assert fate(execution) == ("running", "failed", "on_failure")
    facts = epilogue.facts(execution.pk, plan_by_id(execution.version_id))
    assert facts["error"]["message"].startswith("output: ")
    flow.succeed(execution, "no")
    flow.succeed(execution, "last")
    assert fate(execution)[0] == "failed"


def test_a_resumed_execution_runs_its_sections_anew() -> None:
    each = {"each": HTTP(for_each=[1, 2])}
    execution = begin({"a": HTTP()}, on_success={"yes": HTTP()}, on_failure={"no": HTTP()}, **{"finally": each})
    flow.fail(execution, "a")
    flow.fail(execution, "no")
    for index in range(2):
        flow.succeed(execution, "each", index=index)
    assert fate(execution)[0] == "failed"
    lifecycle.resume_from_failure(execution.pk, actor="ada")
    assert fate(execution) == ("running", None, "")
    assert set(DeadLetter.objects.values_list("step_name", "state")) == {("a", "redriving"), ("no", "open")}
    flow.succeed(execution, "a")
    flow.succeed(execution, "yes")
    assert flow.states(execution) == {"a": "succeeded", "yes": "succeeded", "no": "failed", "each": "waiting"}
    for index in range(2):
        flow.succeed(execution, "each", index=index)
    assert fate(execution) == ("succeeded", "succeeded", "finally")


def test_a_section_with_items_and_children_ends_once() -> None:
    execution = begin({"a": HTTP()}, **{"finally": {"each": HTTP(for_each=[1, 2]), "end": HTTP("each")}})
    flow.succeed(execution, "a")
    for index in range(2):
        flow.succeed(execution, "each", index=index)
    flow.succeed(execution, "end")
    assert fate(execution)[0] == "succeeded"


def test_a_broken_definition_is_cancelled_without_its_cleaning() -> None:
    from tests.execution.test_broken import spoil

    execution = begin()
    flow.held(execution, "a")
    spoil(execution)
    lifecycle.cancel(execution.pk, actor="ada")
    assert fate(execution)[0] == "cancelled"
    plans._plans.clear()


@pytest.mark.parametrize(
    ("sections", "path", "rule"),
    [
        ({"finally": {"a": HTTP()}}, "finally.a", "there is a step a in steps already"),
        ({"finally": {"b": HTTP("a")}}, "finally.b.needs.0", "there is no step a in finally"),
        ({"on_failure": {"b": HTTP("c"), "c": HTTP("b")}}, "on_failure.b.needs", "needs itself in a circle"),
        ({"on_failure": {"b": {"http": {"url": "${{ steps.x }}"}}}}, "on_failure.b.http.url", "does not exist"),
        ({"on_success": {"b": {"http": {"url": "ftp://x"}}}}, "on_success.b.http.url", "must be an http://"),
        ({"on_success": {}}, "on_success", ""),
        ({"on_success": {"b": {"task": "x"}}}, "on_success.b.task", "is not a task"),
        ({"on_success": {"b": HTTP(), "c": {"wait": "${{ steps.b }}"}}}, "on_success.c.wait", "may not have ended"),
        ({"output": "${{ steps.b.output }}", "finally": {"b": HTTP()}}, "output", "does not exist"),
    ],
)
def test_mistakes_in_sections_are_found_when_they_are_saved(sections: Any, path: str, rule: str) -> None:
    problems = definitions.problems_of({"steps": {"a": HTTP()}, **sections})
    assert any(rule in text for text in problems.get(path, [])), problems


def test_sections_may_read_every_main_step() -> None:
    section = {"b": {"http": {"url": "https://x/${{ steps.a.output }}"}}}
    assert definitions.problems_of({"steps": {"a": HTTP()}, "on_failure": section}) == {}
