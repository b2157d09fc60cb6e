"""No sequence of events leaves the transition tables, and every graph comes to its end: random play on real rows."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from execution import advance, engine, lost_workers, maintenance, queue
from execution.models import Attempt, DeadLetter, Execution, StepRun
from execution.plans import plan_by_id
from execution.states import (
    EXECUTION_TERMINAL,
    EXECUTION_TRANSITIONS,
    STEP_TERMINAL,
    STEP_TRANSITIONS,
    AttemptState,
    StepState,
    may,
)
from tests.execution import flow

pytestmark = pytest.mark.django_db


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Acyclic graphs of every kind of step that the engine decides about by itself."""
    steps: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 7))):
        needs = draw(st.lists(st.sampled_from(sorted(steps)), unique=True, max_size=3)) if steps else []
        kind = draw(st.sampled_from(["plain", "plain", "plain", "continue", "when", "each", "bounded", "wait"]))
        step = {"wait": 5, "needs": needs} if kind == "wait" else flow.http(*needs)
        if kind == "continue":
            step["on_error"] = "continue"
        elif kind == "when":
            step["when"] = {"input": {"go": [draw(st.booleans())]}}
        elif kind == "each":
            step["for_each"] = list(range(draw(st.integers(0, 3))))
        elif kind == "bounded":
            step |= {"for_each": list(range(draw(st.integers(1, 4)))), "max_parallel": draw(st.integers(1, 2))}
        steps[f"s{number}"] = step
    return steps


class Player:
    """Plays an execution with random events and watches every change of state."""

    def __init__(self, execution: Execution, dice: random.Random) -> None:
        self.execution, self.dice = execution, dice
        self.now = engine.now()
        self.plan = plan_by_id(execution.version_id)
        self.claims: list[queue.Claim] = []
        self.seen: dict[Any, str] = {}
        self.watch()

    def watch(self) -> None:
        """Nothing went another way than the tables allow (two steps in one event included)."""
        states = dict(StepRun.objects.filter(execution=self.execution).values_list("id", "state"))
        for run_id, state in states.items():
            before = self.seen.get(run_id, state)
            through = STEP_TRANSITIONS[before]
            assert (
                state == before or state in through or any(may(STEP_TRANSITIONS, between, state) for between in through)
            ), f"{before} → {state}"
            assert before not in STEP_TERMINAL or state == before
        state = Execution.objects.values_list("state", flat=True).get(pk=self.execution.pk)
        before = self.seen.get("execution", state)
        assert state == before or may(EXECUTION_TRANSITIONS, before, state), f"execution {before} → {state}"
        self.seen = {**states, "execution": state}

    def play(self, events: list[str]) -> None:
        for event in events:
            self.now += timedelta(seconds=self.dice.choice([0, 1, 40]))
            getattr(self, event)()
            self.watch()

    def finish(self) -> None:
        """A patient world: everything is claimed and succeeds, until nothing is left."""
        for _ in range(200):
            self.now += timedelta(seconds=60)
            maintenance.ring_timers(now=self.now)
            maintenance.rescue(now=self.now)
            self.claim()
            if not self.claims and Execution.objects.get(pk=self.execution.pk).is_terminal:
                return
            self.succeed()
            self.watch()
        raise AssertionError(f"never ends: {flow.states(self.execution)}")

    # Events

    def claim(self) -> None:
        ids = list(StepRun.objects.filter(execution=self.execution).values_list("id", flat=True))
        held = queue.claim(self.dice.choice(ids), worker="w@h/1", lease=30, now=self.now)
        for run_id in ids if held is None else []:
            held = held or queue.claim(run_id, worker="w@h/1", lease=30, now=self.now)
        if held is not None:
            self.claims.append(held)

    def end(self, state: StepState, **details: Any) -> None:
        if self.claims:
            held = self.claims.pop(self.dice.randrange(len(self.claims)))
            step = self.plan.steps[held.name]
            ending = advance.ending_of(self.plan, step, state=state, **details)
            advance.conclude(held, self.plan, ending, now=self.now)
            assert advance.conclude(held, self.plan, ending, now=self.now) is None

    def succeed(self) -> None:
        self.end(StepState.SUCCEEDED, output={"n": 1}, has_output=True)

    def fail(self) -> None:
        held = self.claims[-1] if self.claims else None
        if held is not None:
            self.claims = [held]
            letter = "" if self.plan.steps[held.name].continue_on_error else "failed"
            self.end(
                StepState.FAILED, attempt_state=AttemptState.FAILED, letter=letter, error_type="X", fingerprint="f"
            )

    def ignore(self) -> None:
        self.end(StepState.SKIPPED, attempt_state=AttemptState.CANCELLED)

    def retry(self) -> None:
        if self.claims:
            held = self.claims.pop()
            queue.reschedule(
                held.id, token=held.token, state=StepState.RETRYABLE, attempt_state=AttemptState.RETRYABLE,
                at=self.now + timedelta(seconds=2), charged=True, now=self.now,
            )  # fmt: skip

    def heartbeat(self) -> None:
        for held in self.claims:
            queue.heartbeat(held.id, held.token, lease=30, now=self.now)

    def rescue(self) -> None:
        maintenance.rescue(now=self.now)

    def timers(self) -> None:
        maintenance.ring_timers(now=self.now)

    def release(self) -> None:
        lost_workers.release_worker("w@h", reason="deploy", now=self.now)

    def cancel(self) -> None:
        if self.dice.random() < 0.2:
            queue.cancel(self.execution.pk, reason="x", now=self.now)


EVENTS = ["claim", "claim", "claim", "succeed", "succeed", "fail", "ignore", "retry", "heartbeat", "rescue", "timers",
          "release", "cancel"]  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=definitions(), events=st.lists(st.sampled_from(EVENTS), max_size=30), seed=st.integers(0, 10**6))
def test_every_execution_ends_whatever_happens_on_the_way(steps: Any, events: list[str], seed: int) -> None:
    with transaction.atomic():
        execution = flow.begin(steps, input={"go": True})
        player = Player(execution, random.Random(seed))
        player.play(events)
        player.finish()
        check_the_end(execution)
        transaction.set_rollback(True)


def check_the_end(execution: Execution) -> None:
    ended = flow.fresh(execution)
    runs = list(StepRun.objects.filter(execution=execution))
    assert ended.state in EXECUTION_TERMINAL
    assert ended.open_steps == 0
    assert {run.state for run in runs} <= STEP_TERMINAL
    assert not Attempt.objects.filter(step_run__execution=execution, state="running").exists()
    letters = DeadLetter.objects.filter(execution=execution)
    assert len({letter.step_run_id for letter in letters}) == len(letters)
    if ended.state == "succeeded":
        assert not letters
    if ended.state == "failed":
        assert letters
    for run in runs:
        assert run.parent_id is not None or run.needs_open >= 0
        assert run.items_open >= 0
