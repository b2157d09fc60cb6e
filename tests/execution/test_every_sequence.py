"""Whatever happens, in whatever order: no state leaves its table, every counter agrees with the rows that it stands
for, and every execution can be brought to its end. A machine of random events on real rows: workers, their deaths,
timers, children, sections, fan-outs that tolerate or stop, and people who pause, cancel, skip, succeed, approve,
reject, resume and redrive.

``EVERY_SEQUENCE=2000`` is the long form (examples).
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from execution import (
    advance,
    children,
    dead_letters,
    engine,
    lifecycle,
    lost_workers,
    maintenance,
    queue,
    runner,
)
from execution.definitions import problems_of
from execution.models import Attempt, DeadLetter, Execution, StepRun
from execution.plans import plan_by_id
from execution.retry import Decision, RetryDecision
from execution.states import (
    DEAD_LETTER_TRANSITIONS,
    EXECUTION_TERMINAL,
    EXECUTION_TRANSITIONS,
    STEP_CLAIMABLE,
    STEP_TERMINAL,
    STEP_TRANSITIONS,
    AttemptState,
    StepState,
    Transitions,
    WaitingFor,
    may,
)
from execution.steps import workflow as call
from scheduling_project.common.errors import Conflict
from tests import factories
from tests.execution import flow

pytestmark = pytest.mark.django_db

EXAMPLES = int(os.environ.get("EVERY_SEQUENCE", "6"))
KINDS = ["plain", "plain", "continue", "when", "each", "each", "call", "wait", "approval"]


@st.composite
def one_step(draw: st.DrawFn, needs: list[str], kinds: list[str]) -> dict[str, Any]:
    kind = draw(st.sampled_from(kinds))
    if kind == "wait":
        return {"wait": 5, "needs": needs}
    if kind == "approval":
        return {"approval": {"expires": 500}, "needs": needs}
    step = {"workflow": "called", "needs": needs} if kind == "call" else flow.http(*needs)
    if kind == "continue" or draw(st.integers(0, 5)) == 0:
        step["on_error"] = "continue"
    if kind == "when":
        step["when"] = {"input": {"go": [draw(st.booleans())]}}
    if kind == "each" or (kind == "call" and draw(st.booleans())):
        step["for_each"] = list(range(draw(st.integers(0, 4))))
        for name, values in (("max_parallel", [1, 2]), ("max_failed", [0, 1, "50%"]), ("on_item_error", ["stop"])):
            if draw(st.booleans()):
                step[name] = draw(st.sampled_from(values))
    return step


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    definition: dict[str, Any] = {"steps": {}}
    for section, most in (("steps", 5), ("on_success", 1), ("on_failure", 2), ("finally", 2)):
        count = draw(st.integers(1, most)) if section == "steps" else draw(st.integers(0, most))
        own: dict[str, Any] = {}
        for number in range(count):
            needs = draw(st.lists(st.sampled_from(sorted(own)), unique=True, max_size=3)) if own else []
            kinds = KINDS if section == "steps" else [kind for kind in KINDS if kind not in {"call", "approval"}]
            own[f"{section[:4]}{number}"] = draw(one_step(needs, kinds))
        if own:
            definition[section] = own
    if draw(st.integers(0, 3)) == 0:
        definition["output"] = {"n": "${{ input.n }}"}
    return definition


class Machine(RuleBasedStateMachine):
    """One execution with its children, and everything that can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.block = transaction.atomic()
        self.block.__enter__()
        self.now = engine.now()
        self.claims: list[queue.Claim] = []
        self.seen: dict[Any, str] = {}
        self.top: UUID | None = None

    @initialize(definition=definitions(), called=definitions())
    def begin(self, definition: dict[str, Any], called: dict[str, Any]) -> None:
        for steps in called.values():
            for step in steps.values() if "n" not in steps else ():
                if "workflow" in step:
                    step |= {"http": {"url": "https://example.org/"}}
                    del step["workflow"]
        factories.make_workflow("called", called)
        assert problems_of(definition) == {}
        workflow = factories.make_workflow(definition=definition)
        from execution import creation

        self.top = creation.start(workflow, input={"go": True, "n": 1}).pk
        self.watch()

    # ── What must hold after every event ──

    def executions(self) -> list[Execution]:
        return list(Execution.objects.order_by("id"))

    def watch(self) -> None:
        executions = self.executions()
        runs = list(StepRun.objects.all())
        letters = list(DeadLetter.objects.values_list("id", "state"))
        now_seen: dict[Any, str] = {}
        for table, pairs in (
            (EXECUTION_TRANSITIONS, [(found.pk, found.state) for found in executions]),
            (STEP_TRANSITIONS, [(run.pk, run.state) for run in runs]),
            (DEAD_LETTER_TRANSITIONS, letters),
        ):
            for key, state in pairs:
                check_change(table, self.seen.get(key, state), state)
                now_seen[key] = state
        self.seen = now_seen
        check_counters(executions, runs)
        running = Attempt.objects.filter(state="running").count()
        held = sum(run.state == "running" for run in runs)
        assert running == held + sum(run.waiting_for == "child" and run.items_open == 0 for run in runs)

    def happen(self, deed: Callable[[], Any]) -> None:
        """Something that the present state may refuse; refused, it changes nothing."""
        try:
            with transaction.atomic():
                deed()
        except Conflict:
            pass
        self.watch()

    def pick(self, data: st.DataObject, **conditions: Any) -> StepRun | None:
        found = list(StepRun.objects.filter(**conditions).order_by("id"))
        return data.draw(st.sampled_from(found)) if found else None

    def take(self, data: st.DataObject) -> queue.Claim | None:
        return self.claims.pop(data.draw(st.integers(0, len(self.claims) - 1))) if self.claims else None

    # ── Workers ──

    def claim_one(self, run_id: UUID) -> bool:
        claimed = queue.claim(run_id, worker="w@h/1", lease=30, now=self.now)
        if claimed is not None:
            self.claims.append(claimed)
        return claimed is not None

    @rule(data=st.data(), most=st.integers(1, 4))
    def claim(self, data: st.DataObject, most: int) -> None:
        for _ in range(most):
            run = self.pick(data, state__in=STEP_CLAIMABLE)
            if run is not None:
                self.claim_one(run.pk)
        self.watch()

    def succeed_one(self, claimed: queue.Claim) -> None:
        plan = plan_by_id(claimed.version_id)
        step = plan.steps[claimed.name]
        if step.kind == "workflow":
            call.hand_over(claimed, call.perform(claimed, step, {"name": "called", "input": {"go": True, "n": 1}}))
            return
        ending = advance.ending_of(plan, step, state=StepState.SUCCEEDED, output={"n": 1}, has_output=True)
        advance.conclude(claimed, plan, ending, now=self.now)
        assert advance.conclude(claimed, plan, ending, now=self.now) is None

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        claimed = self.take(data)
        if claimed is not None:
            self.succeed_one(claimed)
        self.watch()

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        claimed = self.take(data)
        if claimed is not None:
            plan = plan_by_id(claimed.version_id)
            ending = runner.move_to_dead_letter(
                plan,
                plan.steps[claimed.name],
                letter="failed",
                decision=RetryDecision(Decision.FAIL, "no more"),
                details={"error_type": "ValueError", "error": "boom", "traceback": ""},
            )
            advance.conclude(claimed, plan, ending, now=self.now)
        self.watch()

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), charged=st.booleans())
    def give_back(self, data: st.DataObject, charged: bool) -> None:
        claimed = self.take(data)
        if claimed is not None:
            queue.reschedule(
                claimed.id,
                token=claimed.token,
                state=StepState.RETRYABLE if charged else StepState.QUEUED,
                attempt_state=AttemptState.RETRYABLE if charged else AttemptState.SNOOZED,
                at=self.now + timedelta(seconds=2),
                charged=charged,
                now=self.now,
            )
        self.watch()

    @rule()
    def workers_die(self) -> None:
        self.now += timedelta(seconds=40)
        maintenance.rescue(now=self.now)
        self.watch()

    @rule()
    def deploy(self) -> None:
        lost_workers.release_worker("w@h", reason="deploy", now=self.now)
        self.watch()

    # ── Housekeeping ──

    @rule(seconds=st.sampled_from([1, 10, 1_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        maintenance.ring_timers(now=self.now)
        self.watch()

    @rule()
    def children_end(self) -> None:
        children.settle_ended(now=self.now)
        children.cancel_orphans(now=self.now)
        self.watch()

    # ── People ──

    def chosen(self, data: st.DataObject) -> UUID:
        return data.draw(st.sampled_from([execution.pk for execution in self.executions()]))

    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        self.happen(lambda: lifecycle.pause(self.chosen(data), actor="ada"))

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        self.happen(lambda: lifecycle.resume(self.chosen(data), actor="ada"))

    @rule(data=st.data(), sure=st.integers(0, 4))
    def cancel(self, data: st.DataObject, sure: int) -> None:
        if sure == 0:
            self.happen(lambda: lifecycle.cancel(self.chosen(data), actor="ada"))

    @rule(data=st.data(), level=st.integers(0, 9))
    def set_priority(self, data: st.DataObject, level: int) -> None:
        self.happen(lambda: lifecycle.set_priority(self.chosen(data), level, actor="ada"))

    @rule(data=st.data())
    def resume_from_failure(self, data: st.DataObject) -> None:
        self.happen(lambda: lifecycle.resume_from_failure(self.chosen(data), actor="ada"))

    @rule(data=st.data(), deed=st.sampled_from([lifecycle.skip_step, lifecycle.succeed_step]))
    def end_by_hand(self, data: st.DataObject, deed: Callable[..., None]) -> None:
        run = self.pick(data, finished_at=None)
        if run is not None:
            self.happen(lambda: deed(run.pk, actor="ada"))

    @rule(data=st.data(), deed=st.sampled_from([lifecycle.approve, lifecycle.reject]))
    def decide_approval(self, data: st.DataObject, deed: Callable[..., None]) -> None:
        run = self.pick(data, waiting_for=WaitingFor.APPROVAL)
        if run is not None:
            self.happen(lambda: deed(run.pk, actor="ada"))

    @rule(data=st.data(), deed=st.sampled_from([dead_letters.redrive, dead_letters.discard]))
    def decide_letter(self, data: st.DataObject, deed: Callable[..., Any]) -> None:
        found = list(DeadLetter.objects.order_by("id"))
        if found:
            letter = data.draw(st.sampled_from(found))
            self.happen(lambda: deed(letter.pk, actor="ada"))

    # ── The end ──

    def patience(self) -> None:
        """A patient world: what is paused goes on, everything is claimed and succeeds, until nothing is open."""
        for _ in range(200):
            self.now += timedelta(seconds=60)
            for execution in self.executions():
                if execution.state == "paused":
                    lifecycle.resume(execution.pk, actor="ada")
            for run in StepRun.objects.filter(waiting_for=WaitingFor.APPROVAL):
                lifecycle.approve(run.pk, actor="ada")
            maintenance.ring_timers(now=self.now)
            maintenance.rescue(now=self.now)
            children.settle_ended(now=self.now)
            children.cancel_orphans(now=self.now)
            for run_id in StepRun.objects.filter(state__in=STEP_CLAIMABLE).values_list("id", flat=True):
                self.claim_one(run_id)
            while self.claims:
                self.succeed_one(self.claims.pop())
            self.watch()
            if not Execution.objects.filter(finished_at=None).exists():
                return
        raise AssertionError(f"never ends: {list(StepRun.objects.values_list('label', 'item_index', 'state'))}")

    def teardown(self) -> None:
        try:
            if self.top is not None:
                self.patience()
                for execution in self.executions():
                    check_the_end(execution)
        finally:
            transaction.set_rollback(True)
            self.block.__exit__(None, None, None)


def check_change(table: Transitions, before: str, after: str) -> None:
    """One step of the table, or two in one event."""
    if before != after:
        between = table[before]
        assert after in between or any(may(table, through, after) for through in between), f"{before} → {after}"


def check_counters(executions: list[Execution], runs: list[StepRun]) -> None:
    of_execution: dict[UUID, list[StepRun]] = defaultdict(list)
    of_parent: dict[UUID, list[StepRun]] = defaultdict(list)
    for run in runs:
        if run.parent_id is None:
            of_execution[run.execution_id].append(run)
        else:
            of_parent[run.parent_id].append(run)
    for execution in executions:
        steps = {run.name: run for run in of_execution[execution.pk]}
        plan = plan_by_id(execution.version_id)
        assert execution.open_steps == sum(run.state not in STEP_TERMINAL for run in steps.values())
        failed = sum(run.state == "failed" and not plan.steps[name].continue_on_error for name, run in steps.items())
        if execution.outcome != "cancelled" and execution.state != "cancelled":
            assert execution.failed_steps == failed, (execution.failed_steps, failed)
        for name, run in steps.items():
            if run.waiting_for == "needs":
                open_needs = sum(steps[need].state not in STEP_TERMINAL for need in plan.steps[name].needs)
                assert run.needs_open == open_needs, f"{name} waits for {run.needs_open}, {open_needs} are open"
            if run.waiting_for == "child" and of_parent[run.pk]:
                states = Counter(item.state for item in of_parent[run.pk])
                assert run.items_open == sum(n for state, n in states.items() if state not in STEP_TERMINAL)
                assert run.items_failed == states["failed"]


def check_the_end(execution: Execution) -> None:
    runs = list(StepRun.objects.filter(execution=execution))
    assert execution.state in EXECUTION_TERMINAL
    assert execution.open_steps == 0
    assert {run.state for run in runs} <= STEP_TERMINAL
    undecided = DeadLetter.objects.filter(execution=execution, state__in=["open", "redriving"])
    assert not undecided.filter(state="redriving").exists()
    if execution.state == "succeeded":
        assert not undecided.exists()
    if execution.state == "failed":
        assert DeadLetter.objects.filter(execution=execution).exists()


def test_no_sequence_of_events_leaves_the_tables_miscounts_or_never_ends() -> None:
    short = settings(
        max_examples=EXAMPLES,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Machine, settings=short)
