"""What people decide against what the housekeeping and the workers do at that moment, on two connections."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import pytest

from execution import dead_letters, engine, interventions, lifecycle, pools, queue, retention
from execution.models import Attempt, AuditEntry, DeadLetter, Execution, Pool, StepRun
from scheduling_project.common.errors import Conflict, NotFound
from tests.execution import flow
from tests.execution.flow import begin, fail, fresh, held, http, step

pytestmark = [
    pytest.mark.race,
    pytest.mark.django_db(transaction=True, databases=["default", "engine"]),
    pytest.mark.usefixtures("engine_connection"),
]

Race = Callable[..., list[Any]]
ROUNDS = range(5)


def tried(deed: Callable[[], Any]) -> bool:
    """Whether a deed was done, or came too late."""
    try:
        deed()
    except (Conflict, NotFound):
        return False
    return True


def old_letter() -> DeadLetter:
    execution = begin({"a": http()})
    fail(execution, "a")
    letter = DeadLetter.objects.get(execution=execution)
    DeadLetter.objects.filter(pk=letter.pk).update(created_at=engine.now() - timedelta(days=400))
    return letter


@pytest.mark.parametrize("mode", ["resume", "restart"])
def test_a_letter_expires_or_is_redriven_but_not_both(race: Race, mode: Literal["resume", "restart"]) -> None:
    for number in ROUNDS:
        letter = old_letter()
        deeds: list[Callable[[], Any]] = [
            lambda letter=letter: tried(lambda: dead_letters.redrive(letter.pk, actor="ada", mode=mode)),
            lambda: retention.prune().expired,
        ]
        order = (0, 1) if number % 2 else (1, 0)
        done = race(*[deeds[index] for index in order])
        redriven, expired = done[order.index(0)], done[order.index(1)]
        letter.refresh_from_db()
        assert redriven != bool(expired)
        assert letter.state == ("redriving" if redriven else "discarded")
        assert fresh(letter.execution).state == ("running" if redriven and mode == "resume" else "failed")
        assert Execution.objects.filter(source_kind="redrive", source_id=str(letter.pk)).exists() == (
            redriven and mode == "restart"
        )
        assert AuditEntry.objects.filter(subject_kind="dead_letter", subject_id=str(letter.pk)).count() == 1
        DeadLetter.objects.filter(pk=letter.pk).update(created_at=engine.now())


def test_a_letter_that_is_discarded_between_the_look_and_the_reopening_reopens_nothing(race: Race) -> None:
    for number in ROUNDS:
        letter = old_letter()
        deeds: list[Callable[[], Any]] = [
            lambda letter=letter: tried(lambda: dead_letters.redrive(letter.pk, actor="ada")),
            lambda letter=letter: tried(lambda: dead_letters.discard(letter.pk, actor="eve")),
        ]
        order = (0, 1) if number % 2 else (1, 0)
        done = race(*[deeds[index] for index in order])
        letter.refresh_from_db()
        assert done[order.index(1)]  # a letter that is being redriven may still be discarded
        assert letter.state == "discarded"
        assert fresh(letter.execution).state == ("running" if done[order.index(0)] else "failed")


def test_an_execution_is_pruned_or_resumed_but_never_half_of_it(race: Race) -> None:
    for number in ROUNDS:
        letter = old_letter()
        dead_letters.discard(letter.pk, actor="ada")
        execution = letter.execution
        Execution.objects.filter(pk=execution.pk).update(finished_at=engine.now() - timedelta(days=900))
        deeds: list[Callable[[], Any]] = [
            lambda execution=execution: tried(lambda: lifecycle.resume_from_failure(execution.pk, actor="ada")),
            lambda: retention.prune().executions,
        ]
        order = (0, 1) if number % 2 else (1, 0)
        done = race(*[deeds[index] for index in order])
        resumed, pruned = done[order.index(0)], done[order.index(1)]
        assert resumed != bool(pruned)
        found = Execution.objects.filter(pk=execution.pk).values_list("state", flat=True)
        assert list(found) == (["running"] if resumed else [])
        assert StepRun.objects.filter(execution_id=execution.pk).exists() == resumed
        if resumed:
            flow.succeed(execution, "a")


def test_a_pool_is_deleted_or_taken_but_a_claim_never_holds_units_of_none(race: Race) -> None:
    for number in ROUNDS:
        name = f"pool-{number}"
        pools.create(name, slots=1, actor="ada")
        first = begin({"a": http(pool={"name": name})})
        run = step(first, "a")
        deeds: list[Callable[[], Any]] = [
            lambda run=run: queue.claim(run.pk, worker="w@h/1", lease=30),
            lambda name=name: tried(lambda: pools.delete(name, actor="ada")),
        ]
        order = (0, 1) if number % 2 else (1, 0)
        done = race(*[deeds[index] for index in order])
        claimed, deleted = done[order.index(0)], done[order.index(1)]
        run.refresh_from_db()
        assert claimed is not None, (run.state, run.waiting_for)  # the only one who wants it gets it either way
        assert run.pool_held == (0 if deleted else 1)
        assert Pool.objects.filter(pk=name).exists() != deleted
        assert flow.finish(claimed)
        if not deleted:
            assert Pool.objects.get(pk=name).used == 0


def test_a_step_is_ended_by_hand_or_by_its_worker_and_its_successor_is_queued_once(race: Race) -> None:
    for number in ROUNDS:
        execution = begin({"a": http(), "b": http("a")})
        claimed = held(execution, "a")
        run = step(execution, "a")
        deeds: list[Callable[[], Any]] = [
            lambda claimed=claimed: flow.finish(claimed, "by the worker"),
            lambda run=run: tried(lambda: lifecycle.succeed_step(run.pk, actor="ada", output="by hand")),
        ]
        order = (0, 1) if number % 2 else (1, 0)
        done = race(*[deeds[index] for index in order])
        assert sorted(done) == [False, True]
        run.refresh_from_db()
        assert run.output.data == ("by the worker" if done[order.index(0)] else "by hand")
        after = step(execution, "b")
        assert (after.state, after.needs_open, after.dispatches) == ("queued", 0, 1)
        assert fresh(execution).open_steps == 1


def test_a_pause_and_a_claim_agree_and_a_resume_brings_back_what_waited(race: Race) -> None:
    for number in ROUNDS:
        execution = begin({"a": http()})
        run = step(execution, "a")
        deeds: list[Callable[[], Any]] = [
            lambda run=run: queue.claim(run.pk, worker="w@h/1", lease=30),
            lambda execution=execution: interventions.pause(execution.pk, reason="x"),
        ]
        order = (0, 1) if number % 2 else (1, 0)
        done = race(*[deeds[index] for index in order])
        claimed = done[order.index(0)]
        assert done[order.index(1)]
        assert fresh(execution).state == "paused"
        run.refresh_from_db()
        assert (claimed is not None) == (run.state == "running") == Attempt.objects.filter(step_run=run).exists()
        lifecycle.resume(execution.pk, actor="ada")
        claimed = claimed or queue.claim(run.pk, worker="w@h/1", lease=30)
        assert claimed is not None
        assert flow.finish(claimed)
        assert fresh(execution).state == "succeeded"


def test_a_priority_changed_while_a_step_ends_gives_its_successor_the_new_one(race: Race) -> None:
    for number in ROUNDS:
        execution = begin({"a": http(), "b": http("a")})
        claimed = held(execution, "a")
        deeds: list[Callable[[], Any]] = [
            lambda claimed=claimed: flow.finish(claimed),
            lambda execution=execution: lifecycle.set_priority(execution.pk, 0, actor="ada"),
        ]
        assert all(found is not None for found in race(*(deeds if number % 2 else reversed(deeds))))
        after = step(execution, "b")
        assert (after.state, after.priority, after.dispatches) == ("queued", 0, 1)
        assert queue.claim(after.pk, worker="w@h/1", lease=30, priority=6) is None
        assert queue.claim(after.pk, worker="w@h/1", lease=30, priority=0) is not None
