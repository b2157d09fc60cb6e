"""Rows for tests, valid in any state: whatever a state demands (timestamps, leases, reasons) is filled in."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from execution import priority
from execution.models import Attempt, DeadLetter, Execution, StepOutput, StepRun, Workflow, WorkflowVersion
from execution.states import (
    EXECUTION_TERMINAL,
    STEP_TERMINAL,
    AttemptState,
    DeadLetterState,
    ExecutionState,
    StepState,
    WaitingFor,
)
from scheduling_project.common.ids import uuid7

_numbers = itertools.count(1)

#: A definition of one step that needs no task and no network.
ONE_STEP: dict[str, Any] = {"steps": {"work": {"http": {"url": "https://example.org/"}}}}
#: a → b → c, where c also needs a.
CHAIN: dict[str, Any] = {
    "steps": {
        "a": {"http": {"url": "https://example.org/"}},
        "b": {"http": {"url": "https://example.org/"}, "needs": ["a"]},
        "c": {"http": {"url": "https://example.org/"}, "needs": ["a", "b"]},
    }
}


def now() -> datetime:
    return datetime.now(UTC)


def make_workflow(name: str = "", definition: dict[str, Any] | None = None, **fields: Any) -> Workflow:
    """A workflow with one published version."""
    workflow = Workflow.objects.create(name=name or f"workflow-{next(_numbers)}", **fields)
    version = WorkflowVersion.objects.create(
        workflow=workflow, number=1, definition=definition or ONE_STEP, published_at=now(), created_by="factory"
    )
    workflow.published = version
    workflow.save()
    return workflow


def make_execution(
    workflow: Workflow | None = None,
    *,
    definition: dict[str, Any] | None = None,
    state: ExecutionState = ExecutionState.QUEUED,
    with_steps: bool = False,
    **fields: Any,
) -> Execution:
    """An execution in any state; `with_steps` adds a step run per step, in a state that fits."""
    workflow = workflow or make_workflow(definition=definition)
    assert workflow.published is not None
    begun = state not in {ExecutionState.SCHEDULED, ExecutionState.QUEUED}
    ended = state in EXECUTION_TERMINAL
    steps = workflow.published.definition["steps"]
    values: dict[str, Any] = {
        "started_at": now() - timedelta(seconds=10) if begun else None,
        "finished_at": now() if ended else None,
        "open_steps": 0 if ended or not with_steps else len(steps),
        "failed_steps": 1 if state is ExecutionState.FAILED else 0,
    }
    execution = Execution.objects.create(
        workflow=workflow, version=workflow.published, state=state, **{**values, **fields}
    )
    if with_steps:
        for name, step in steps.items():
            make_step_run(execution, name=name, state=_step_state(state, step), needs_open=len(step.get("needs", ())))
    return execution


def _step_state(state: ExecutionState, step: dict[str, Any]) -> StepState:
    if state in EXECUTION_TERMINAL:
        return StepState(state.value)
    return StepState.WAITING if step.get("needs") else StepState.QUEUED


def make_step_run(
    execution: Execution | None = None,
    *,
    name: str = "work",
    state: StepState = StepState.QUEUED,
    **fields: Any,
) -> StepRun:
    """A step run in any state, with lease, token and timestamps as the state demands, and its attempt."""
    execution = execution or make_execution()
    attempted = state in {StepState.RUNNING, StepState.RETRYABLE, StepState.SUCCEEDED, StepState.FAILED}
    token = uuid7()
    values: dict[str, Any] = {
        "label": f"{execution.workflow.name}.{name}",
        "kind": "http",
        "queue": "default",
        "priority": priority.NORMAL,
        "waiting_for": WaitingFor.NEEDS if state is StepState.WAITING else None,
        "attempt": 1 if attempted else 0,
        "failures": 1 if state in {StepState.RETRYABLE, StepState.FAILED} else 0,
        "started_at": now() - timedelta(seconds=5) if attempted else None,
        "finished_at": now() if state in STEP_TERMINAL else None,
        "worker": "worker@host/1" if attempted else "",
    }
    if state is StepState.RUNNING:
        values |= {"lease_token": token, "lease_until": now() + timedelta(seconds=30)}
    elif attempted:
        values["last_token"] = token
    run = StepRun.objects.create(execution=execution, name=name, state=state, **{**values, **fields})
    if attempted:
        make_attempt(run, id=run.lease_token or run.last_token, state=AttemptState(state.value))
    return run


def make_attempt(run: StepRun, *, state: AttemptState = AttemptState.RUNNING, **fields: Any) -> Attempt:
    """An attempt of a step run, in any state."""
    ended = state is not AttemptState.RUNNING
    failed = state in {AttemptState.FAILED, AttemptState.RETRYABLE}
    values: dict[str, Any] = {
        "id": uuid7(),
        "number": run.attempt,
        "worker": run.worker,
        "finished_at": now() if ended else None,
        "error_type": "ValueError" if failed else "",
        "error": "boom" if failed else "",
    }
    return Attempt.objects.create(step_run=run, state=state, **{**values, **fields})


def make_output(run: StepRun, data: Any) -> StepOutput:
    return StepOutput.objects.create(step_run=run, data=data)


def make_dead_letter(
    run: StepRun | None = None, *, state: DeadLetterState = DeadLetterState.OPEN, **fields: Any
) -> DeadLetter:
    """A dead letter of a failed step of a failed execution, in any state."""
    if run is None:
        run = make_step_run(make_execution(state=ExecutionState.FAILED), state=StepState.FAILED)
    decided = state in {DeadLetterState.RESOLVED, DeadLetterState.DISCARDED}
    values: dict[str, Any] = {
        "execution": run.execution,
        "workflow": run.execution.workflow,
        "step_name": run.name,
        "reason": "failed",
        "error_type": "ValueError",
        "error": "boom",
        "fingerprint": "f" * 32,
        "attempts": run.attempt,
        "worker": run.worker,
        "decided_at": now() if decided else None,
        "decided_by": "somebody" if decided else "",
    }
    return DeadLetter.objects.create(step_run=run, state=state, **{**values, **fields})
