"""Dead letters are redriven, discarded and grouped."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from execution import creation, dead_letters, lifecycle
from execution.dead_letters import Selection
from execution.models import AuditEntry, DeadLetter, Execution
from execution.states import DeadLetterState, ExecutionState
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests import factories
from tests.execution.flow import begin, fail, fresh, http, succeed

pytestmark = pytest.mark.django_db


def failed(input: Any = None) -> tuple[Execution, DeadLetter]:
    execution = begin({"a": http(), "b": http("a")}, input=input)
    succeed(execution, "a", 1)
    fail(execution, "b")
    return execution, DeadLetter.objects.get(execution=execution)


def test_resuming_a_letter_runs_the_failed_step_and_success_resolves_it() -> None:
    execution, letter = failed()
    assert dead_letters.redrive(letter.pk, actor="ada", note="fixed").pk == execution.pk
    letter.refresh_from_db()
    assert (letter.state, letter.redrives) == ("redriving", 1)
    succeed(execution, "b")
    letter.refresh_from_db()
    assert (letter.state, fresh(execution).state) == ("resolved", "succeeded")
    assert letter.decided_at is not None
    assert AuditEntry.objects.filter(action="dead_letter.redrive", actor="ada", note="fixed").count() == 1


def test_a_failed_redrive_opens_the_letter_again() -> None:
    execution, letter = failed()
    dead_letters.redrive(letter.pk, actor="ada")
    fail(execution, "b", error="again")
    letter.refresh_from_db()
    assert (letter.state, letter.error) == ("open", "again")
    assert DeadLetter.objects.count() == 1


def test_restarting_a_letter_makes_a_new_execution_whose_success_resolves_it() -> None:
    execution, letter = failed({"n": 1})
    again = dead_letters.redrive(letter.pk, actor="ada", mode="restart", input={"n": 2})
    assert (again.source_kind, again.source_id, again.input) == ("redrive", str(letter.pk), {"n": 2})
    letter.refresh_from_db()
    assert (letter.state, letter.redrive_execution_id) == ("redriving", again.pk)
    assert fresh(execution).state == "failed"
    succeed(again, "a")
    succeed(again, "b")
    letter.refresh_from_db()
    assert letter.state == "resolved"
    entry = AuditEntry.objects.get(action="dead_letter.redrive")
    assert entry.changes["input"] == {"before": {"n": 1}, "after": {"n": 2}}


def test_a_restart_that_fails_or_is_cancelled_opens_the_letter_again() -> None:
    _, letter = failed()
    again = dead_letters.redrive(letter.pk, actor="ada", mode="restart")
    lifecycle.cancel(again.pk, actor="ada")
    letter.refresh_from_db()
    assert letter.state == "open"
    second = dead_letters.redrive(letter.pk, actor="ada", mode="restart", latest=True)
    succeed(second, "a")
    fail(second, "b")
    letter.refresh_from_db()
    assert letter.state == "open"


def test_a_letter_that_is_decided_is_left_alone() -> None:
    _, letter = failed()
    dead_letters.redrive(letter.pk, actor="ada")
    for mode in dead_letters.MODES:
        with pytest.raises(Conflict, match="is redriving"):
            dead_letters.redrive(letter.pk, actor="ada", mode=mode)
    dead_letters.discard(letter.pk, actor="ada", note="enough")
    with pytest.raises(Conflict, match="is discarded"):
        dead_letters.discard(letter.pk, actor="ada")
    letter.refresh_from_db()
    assert (letter.state, letter.note, letter.decided_by) == ("discarded", "enough", "ada")


def test_a_letter_about_an_output_can_only_be_restarted() -> None:
    workflow = factories.make_workflow(
        definition={"steps": {"a": http()}, "output": "${{ join(', ', steps.a.output) }}"}
    )
    execution = creation.start(workflow)
    succeed(execution, "a", 5)
    letter = DeadLetter.objects.get()
    with pytest.raises(Conflict, match="restart"):
        dead_letters.redrive(letter.pk, actor="ada")
    assert dead_letters.redrive(letter.pk, actor="ada", mode="restart").state == ExecutionState.QUEUED


def test_bad_requests_change_nothing() -> None:
    execution, letter = failed()
    with pytest.raises(InvalidInput):
        dead_letters.redrive(letter.pk, actor="ada", mode="again")  # type: ignore[arg-type]
    for mode in dead_letters.MODES:
        with pytest.raises(InvalidInput):
            dead_letters.redrive(letter.pk, actor="ada", mode=mode, input=[])
    for verb in (dead_letters.redrive, dead_letters.discard):
        with pytest.raises(NotFound):
            verb(uuid4(), actor="ada")
    letter.refresh_from_db()
    assert (letter.state, Execution.objects.count()) == ("open", 1)
    assert fresh(execution).input == {}


def test_letters_group_by_fingerprint() -> None:
    for mark, count in (("a" * 32, 3), ("b" * 32, 1)):
        for _ in range(count):
            factories.make_dead_letter(fingerprint=mark)
    factories.make_dead_letter(fingerprint="a" * 32, state=DeadLetterState.DISCARDED)
    found = dead_letters.groups()
    assert [(group.fingerprint, group.count) for group in found] == [("a" * 32, 3), ("b" * 32, 1)]
    assert (found[0].error_type, found[0].step_name) == ("ValueError", "work")
    assert found[0].first_at <= found[0].last_at


def test_many_letters_are_decided_one_by_one_and_the_canary_goes_first() -> None:
    letters = [failed()[1] for _ in range(3)]
    canary = dead_letters.redrive_many(Selection(fingerprint="f" * 32), actor="ada", limit=1)
    assert (canary.done, canary.left) == ([letters[0].pk], 2)
    rest = dead_letters.redrive_many(Selection(workflow_id=letters[1].workflow_id), actor="ada", mode="restart")
    assert (rest.done, rest.left) == ([letters[1].pk], 0)
    others = dead_letters.discard_many(
        Selection(ids=[letter.pk for letter in letters], step="b", error_type="ValueError", before=factories.now()),
        actor="ada",
    )
    assert others.done == [letters[2].pk]


def test_what_cannot_be_decided_is_named_and_the_others_go_on() -> None:
    execution, _ = failed()
    Execution.objects.filter(pk=execution.pk).update(state=ExecutionState.CANCELLED)
    _, good = failed()
    result = dead_letters.redrive_many(Selection(), actor="ada")
    assert result.done == [good.pk]
    assert list(result.refused.values()) == ["The execution is cancelled; rerun it instead."]
    assert Selection().is_everything
