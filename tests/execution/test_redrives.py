"""Redrive jobs: fixed letters, canary, rate, stop, cancel and what each letter came to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from execution import dead_letters, engine, redrives
from execution.dead_letters import Selection
from execution.models import AuditEntry, DeadLetter, Execution, RedriveItem, RedriveJob
from execution.states import DeadLetterState, ExecutionState, StepState
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests import factories
from tests.execution.flow import begin, fail, http, succeed

pytestmark = pytest.mark.django_db

GROUP = Selection(fingerprint="f" * 32)
LONG = 3_600.0


def letters(count: int, **options: Any) -> list[DeadLetter]:
    found = []
    for _ in range(count):
        execution = begin({"a": http()}, **options)
        fail(execution, "a")
        found.append(DeadLetter.objects.get(execution=execution))
    return found


def states(job: RedriveJob) -> list[str]:
    return list(RedriveItem.objects.filter(job=job).order_by("position").values_list("state", flat=True))


def turn(job: RedriveJob) -> RedriveJob:
    RedriveJob.objects.filter(pk=job.pk).update(next_at=engine.now() - timedelta(seconds=1))
    redrives.advance(seconds=LONG)
    job.refresh_from_db()
    return job


def test_a_job_goes_one_then_ten_then_all_and_ends() -> None:
    made = letters(13)
    job = redrives.create(GROUP, actor="ada", note="fixed")
    assert (job.total, job.state, job.started) == (13, "running", 0)
    assert turn(job).started == 1
    assert turn(job).started == 1
    succeed(made[0].execution, "a")
    assert turn(job).started == 11
    for letter in made[1:11]:
        succeed(letter.execution, "a")
    assert turn(job).started == 13
    assert job.under_way == 2
    for letter in made[11:]:
        succeed(letter.execution, "a")
    assert turn(job).state == "done"
    assert (job.succeeded, job.failed, job.skipped) == (13, 0, 0)
    assert job.finished_at is not None
    assert set(DeadLetter.objects.values_list("state", flat=True)) == {"resolved"}
    assert list(AuditEntry.objects.filter(subject_kind="redrive_job").values_list("action", flat=True)) == [
        "redrive_job.done",
        "redrive_job.create",
    ]
    assert redrives.advance() == 0


def test_a_canary_that_fails_stops_the_job_and_says_why() -> None:
    made = letters(3)
    job = redrives.create(GROUP, actor="ada")
    turn(job)
    fail(made[0].execution, "a", error="again")
    assert turn(job).state == "stopped"
    assert job.state_reason == "1 failed again or refused among the first 1 (canary)"
    item = RedriveItem.objects.get(job=job, position=0)
    assert (item.state, item.reason) == ("failed", "again")
    assert states(job) == ["failed", "pending", "pending"]
    made[0].refresh_from_db()
    assert made[0].state == "open"


def test_without_a_canary_failures_are_counted_up_to_the_limit() -> None:
    made = letters(4)
    job = redrives.create(GROUP, actor="ada", canary=False, max_failures=2)
    assert turn(job).started == 4
    fail(made[0].execution, "a")
    succeed(made[1].execution, "a")
    assert turn(job).state == "running"
    fail(made[2].execution, "a")
    assert turn(job).state == "stopped"
    assert (job.succeeded, job.failed, job.under_way) == (1, 2, 1)


def test_a_rate_takes_up_one_letter_at_a_time() -> None:
    letters(3)
    job = redrives.create(GROUP, actor="ada", canary=False, rate_per_minute=60)
    start = engine.now()
    assert redrives.advance(now=start, seconds=LONG) == 1
    assert redrives.advance(now=start + timedelta(seconds=0.4), seconds=LONG) == 0
    assert redrives.advance(now=start + timedelta(seconds=1), seconds=LONG) == 1
    job.refresh_from_db()
    assert job.started == 2


def test_inputs_are_edited_by_a_patch_and_the_difference_is_kept() -> None:
    made = letters(2, input={"n": 1, "keep": True})
    job = redrives.create(GROUP, actor="ada", canary=False, mode="restart", input_patch={"n": 2})
    turn(job)
    again = Execution.objects.filter(source_kind="redrive").order_by("id")
    assert [execution.input for execution in again] == [{"n": 2, "keep": True}] * 2
    assert [item.execution_id for item in RedriveItem.objects.order_by("position")] == [row.pk for row in again]
    entry = AuditEntry.objects.get(action="dead_letter.redrive", subject_id=str(made[0].pk))
    assert entry.changes["input"] == {"before": {"n": 1, "keep": True}, "after": {"n": 2, "keep": True}}
    succeed(again[0], "a")
    assert turn(job).succeeded == 1


def test_one_input_for_all_when_resuming_is_kept_too() -> None:
    made = letters(1, input={"n": 1})
    turn(redrives.create(GROUP, actor="ada", input={"n": 3}))
    made[0].execution.refresh_from_db()
    assert made[0].execution.input == {"n": 3}
    entry = AuditEntry.objects.get(action="dead_letter.redrive")
    assert entry.changes["input"] == {"before": {"n": 1}, "after": {"n": 3}}


def test_what_others_decided_meanwhile_is_followed_or_skipped() -> None:
    made = letters(3)
    job = redrives.create(GROUP, actor="ada", canary=False)
    dead_letters.discard(made[0].pk, actor="eve", note="no")
    dead_letters.redrive(made[1].pk, actor="eve")
    turn(job)
    assert states(job) == ["skipped", "redriving", "redriving"]
    dead_letters.discard(made[2].pk, actor="eve")
    succeed(made[1].execution, "a")
    assert turn(job).state == "done"
    assert (states(job), job.skipped, job.succeeded) == (["skipped", "succeeded", "skipped"], 2, 1)


def test_a_letter_that_cannot_be_redriven_is_refused_with_its_reason_and_the_others_go_on() -> None:
    made = letters(2)
    Execution.objects.filter(pk=made[0].execution_id).update(state="cancelled")
    job = redrives.create(GROUP, actor="ada", canary=False, max_failures=None)
    turn(job)
    item = RedriveItem.objects.get(job=job, position=0)
    assert (item.state, item.reason) == ("refused", "The execution is cancelled; rerun it instead.")
    assert (job.failed, states(job)[1]) == (1, "redriving")


def test_letters_that_are_deleted_meanwhile_do_not_hold_the_job_up() -> None:
    made = letters(2)
    job = redrives.create(GROUP, actor="ada", canary=False, limit=5)
    DeadLetter.objects.filter(pk=made[1].pk).delete()
    turn(job)
    succeed(made[0].execution, "a")
    assert (turn(job).state, job.total) == ("done", 1)


def test_cancel_takes_up_no_further_letter() -> None:
    letters(2)
    job = redrives.create(GROUP, actor="ada")
    turn(job)
    redrives.cancel(job.pk, actor="eve", note="wrong group")
    job.refresh_from_db()
    assert (job.state, job.state_reason) == ("cancelled", "cancelled by eve: wrong group")
    assert turn(job).started == 1
    with pytest.raises(Conflict, match="is cancelled"):
        redrives.cancel(job.pk, actor="eve")
    with pytest.raises(NotFound):
        redrives.cancel(uuid4(), actor="eve")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mode": "again"}, "mode"),
        ({"latest": True}, "latest"),
        ({"input": {}, "input_patch": {}}, "input_patch"),
        ({"input_patch": [1]}, "input_patch"),
        ({"input": [1]}, "input"),
        ({"input_patch": {"n": "text"}}, "input_patch.n"),
        ({"rate_per_minute": 0}, "rate_per_minute"),
        ({"max_failures": 0}, "max_failures"),
    ],
)
def test_bad_jobs_are_refused_and_nothing_is_made(options: dict[str, Any], field: str) -> None:
    workflow = factories.make_workflow(
        definition={
            "input": {"type": "object", "properties": {"n": {"type": "integer"}}},
            "steps": {"work": {"http": {"url": "https://example.org/"}}},
        }
    )
    factories.make_dead_letter(
        factories.make_step_run(factories.make_execution(workflow, state=ExecutionState.FAILED), state=StepState.FAILED)
    )
    with pytest.raises(InvalidInput) as refused:
        redrives.create(GROUP, actor="ada", **options)
    assert field in refused.value.fields
    assert not RedriveJob.objects.exists()


def test_a_job_needs_letters_and_a_published_version() -> None:
    with pytest.raises(Conflict, match="No open"):
        redrives.create(GROUP, actor="ada")
    factories.make_dead_letter(state=DeadLetterState.RESOLVED)
    with pytest.raises(Conflict, match="No open"):
        redrives.create(Selection(before=engine.now(), step="x"), actor="ada")
    letter = factories.make_dead_letter()
    letter.workflow.published = None
    letter.workflow.save()
    with pytest.raises(Conflict, match="no published"):
        redrives.create(
            Selection(ids=[letter.pk], workflow_id=letter.workflow_id, before=engine.now()),
            actor="ada", mode="restart", latest=True, input={},
        )  # fmt: skip
    shown = redrives.create(
        Selection(ids=[letter.pk], workflow_id=letter.workflow_id, before=engine.now()), actor="ada"
    )
    assert shown.selection["ids"] == [str(letter.pk)]
