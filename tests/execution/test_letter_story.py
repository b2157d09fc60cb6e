"""The whole story of a dead letter can be read, in the order in which it happened."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import alerts, dead_letters, letter_story, lifecycle, queue, redrives, retention
from execution.models import AuditEntry, DeadLetter
from execution.states import AttemptState, StepState
from tests.api_client import Api
from tests.execution import flow
from tests.execution.flow import begin, fail, held, http, step, succeed

pytestmark = pytest.mark.django_db


def failed(**options: Any) -> DeadLetter:
    execution = begin({"a": http(), "b": http("a")}, **options)
    fail(execution, "a")
    return DeadLetter.objects.get(execution=execution)


def told(letter: DeadLetter) -> list[str]:
    letter.refresh_from_db()
    return [event.kind for event in letter_story.story_of(letter)]


def test_attempts_arrival_redrives_with_edits_and_the_end_are_told_in_order() -> None:
    execution = begin({"a": http()}, input={"n": 1, "deep": {"x": 1, "y": 2}})
    first = held(execution, "a")
    assert queue.reschedule(
        first.id, token=first.token, state=StepState.RETRYABLE, attempt_state=AttemptState.RETRYABLE, at=None,
        charged=True, error_type="OSError", error="away",
    )  # fmt: skip
    fail(execution, "a")
    letter = DeadLetter.objects.get()
    edited = {"n": 2, "deep": {"x": 1, "z": 3}}
    dead_letters.redrive(letter.pk, actor="ada", input=edited, note="wrong n")
    fail(execution, "a", error="again")
    lifecycle.resume_from_failure(execution.pk, actor="bob", note="by hand")
    succeed(execution, "a")
    letter.refresh_from_db()
    events = letter_story.story_of(letter)
    assert [event.kind for event in events] == [
        "attempt", "attempt", "arrived", "redriven", "attempt", "resumed", "attempt", "resolved",
    ]  # fmt: skip
    assert events[0].text == "attempt 1 failed and was to be tried again: OSError: away"
    assert events[0].actor == "w@h/1"
    assert events[2].text == "a failed for good (failed): a dead letter"
    redriven = events[3]
    assert (redriven.actor, redriven.note) == ("ada", "wrong n")
    assert redriven.text == "was redriven from the failed step, with 3 edits of the input"
    assert redriven.changes == [
        {"path": "n", "kind": "changed", "before": 1, "after": 2},
        {"path": "deep.y", "kind": "removed", "before": 2, "after": None},
        {"path": "deep.z", "kind": "added", "before": None, "after": 3},
    ]
    assert (events[5].actor, events[5].note) == ("bob", "by hand")


def test_a_restart_names_the_execution_that_tries_and_what_became_of_it() -> None:
    letter = failed()
    first = dead_letters.redrive(letter.pk, actor="ada", mode="restart")
    fail(first, "a")
    second = dead_letters.redrive(letter.pk, actor="ada", mode="restart", input={"n": 3})
    succeed(second, "a")
    succeed(second, "b")
    letter.refresh_from_db()
    events = [event for event in letter_story.story_of(letter) if event.kind not in {"attempt", "arrived"}]
    assert [(event.kind, event.execution) for event in events] == [
        ("redriven", first.pk),
        ("tried", first.pk),
        ("redriven", second.pk),
        ("tried", second.pk),
        ("resolved", None),
    ]
    assert events[1].text == "the execution that tried again has failed"
    assert events[2].text == "was redriven as a new execution, with an edit of the input"


def test_jobs_discards_expiry_growing_groups_and_deeds_on_the_step_are_told(settings: Any) -> None:
    settings.WORKFLOW_DEAD_LETTER_ALERTS = [2]
    letter, other = failed(), failed()
    alerts.tell()
    assert "group_grew" in told(letter)
    job = redrives.create(dead_letters.Selection(ids=[letter.pk]), actor="ada", canary=False)
    redrives.advance(seconds=5)
    lifecycle.skip_step(step(letter.execution, "a").pk, actor="bob", note="not needed")
    dead_letters.discard(other.pk, actor="eve", note="known")
    story = letter_story.story_of(letter)
    assert f"redrive job {job.pk} took it up" in [event.text for event in story]
    skipped = next(event for event in story if event.kind == "step")
    assert (skipped.text, skipped.actor) == ("the step was skipped by hand", "bob")
    assert told(other)[-1] == "discarded"
    old = failed()
    settings.WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS = 1
    DeadLetter.objects.filter(pk=old.pk).update(created_at=flow.now() - timedelta(days=2))
    retention.prune()
    old.refresh_from_db()
    last = letter_story.story_of(old)[-1]
    assert (old.state, last.kind, last.text) == ("discarded", "expired", "expired without a decision")


def test_a_letter_about_the_output_and_entries_that_nobody_foresaw_are_told_too() -> None:
    execution = begin({"a": http()}, output="${{ sum(steps.a.output) }}")
    succeed(execution, "a", "x")
    letter = DeadLetter.objects.get()
    assert letter_story.story_of(letter)[0].text == "the execution's output failed for good (output): a dead letter"
    AuditEntry.objects.create(
        actor="x", action="dead_letter.redrive", subject_kind="dead_letter", subject_id=str(letter.pk),
        changes={"mode": "odd", "execution": {"after": "no id"}},
    )  # fmt: skip
    of = {"subject_kind": "dead_letter", "subject_id": str(letter.pk)}
    AuditEntry.objects.create(actor="x", action="dead_letter.read", **of)
    assert told(letter) == ["arrived", "redriven", "audit"]


def test_the_api_tells_it_in_a_bounded_number_of_queries(django_assert_max_num_queries: Any) -> None:
    api = Api()
    letter = failed()
    for _ in range(3):
        dead_letters.redrive(letter.pk, actor="ada")
        fail(letter.execution, "a")
    with django_assert_max_num_queries(14):
        answer = api.ok("get", f"/api/dead-letters/{letter.pk}")
    assert [event["kind"] for event in answer["timeline"]].count("redriven") == 3
    assert all(event["at"] for event in answer["timeline"])
