"""How the end of a child execution settles the step that waits for it, and how children end with their caller.

The end of a child leaves durable news in its finishing transaction; taking the news and settling the step is one
transaction, so a crash in between repeats it and nothing is settled twice (the step must still wait for this child).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from execution import advance, broken, cancellation, child_rows, engine, graph_rows, news
from execution.failures import class_names, storable
from execution.fingerprints import fingerprint
from execution.graph import Plan, StepPlan
from execution.plans import Unrunnable, plan_by_id
from execution.queue import Ending
from execution.retry import Decision, Failure, decide, effective_policy
from execution.states import AttemptState, ExecutionState, StepState
from execution.steps.workflow import TOPIC
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

BATCH = 100


class ChildFailed(Exception):
    """The child execution failed."""


class ChildCancelled(Exception):
    """The child execution was cancelled."""


def settle_ended(*, now: datetime | None = None) -> int:
    """Settle the steps whose children have ended. Safe to run anywhere, any number of times at once.

    Returns how many ends were taken.
    """
    taken = 0
    while taken < BATCH and _settle_next(now=now):
        taken += 1
    return taken


def _settle_next(*, now: datetime | None) -> bool:
    with engine.transaction():
        rows = news.claim(TOPIC, limit=1)
        for row in rows:
            _settle(row.execution_id, now=now)
    return bool(rows)


def _settle(child_id: UUID, *, now: datetime | None) -> None:
    ended, caller = child_rows.child(child_id), child_rows.caller_of(child_id)
    if ended is None or caller is None or graph_rows.hold(caller) is None:
        return  # opened again by somebody, or the caller's history was pruned
    waiting = child_rows.waiting_for(child_id, execution_id=caller)
    if waiting is None:
        return
    try:
        plan = plan_by_id(waiting.version_id)
    except Unrunnable as error:
        broken.fail(caller, error, now=now)
        return
    step = plan.steps[waiting.name]
    if ended.state == ExecutionState.SUCCEEDED:
        output = engine.load_json(ended.output)
        ending = advance.ending_of(
            plan, step, state=StepState.SUCCEEDED, output=output, has_output=ended.output is not None
        )
        _end(waiting, caller, plan, ending, now=now)
        return
    _settle_failure(child_id, ended, waiting, caller, plan, step, now=now)


def _settle_failure(
    child_id: UUID, ended: Any, waiting: Any, caller: UUID, plan: Plan, step: StepPlan, *, now: datetime | None
) -> None:
    failure = failure_of(child_id, ended)
    policy = effective_policy(
        step=step.retry,
        source=engine.load_json(waiting.source_retry),
        workflow=plan.retry if plan.retry is not None else engine.load_json(waiting.workflow_retry),
        task=None,
    )
    decision = decide(policy, failure, failures=waiting.failures + 1, now=now or engine.now())
    error_type = failure.names[-1].rpartition(".")[2]
    log.warning("step.child_did_not_succeed", step_run_id=str(waiting.id), child=str(child_id), reason=decision.reason)
    if decision.decision is Decision.RETRY:
        child_rows.again(
            waiting.id,
            child_id=child_id,
            at=decision.at,
            reason=decision.reason,
            error_type=error_type,
            error=failure.message,
            decision=decision.as_json(),
            now=now,
        )
        return
    ending = advance.ending_of(
        plan,
        step,
        state=StepState.FAILED,
        attempt_state=AttemptState.FAILED,
        reason=failure.message,
        charged=True,
        letter="child" if step.writes_letters else "",
        error_type=error_type,
        error=failure.message,
        fingerprint=fingerprint(error_type, failure.message, step.name),
        decision=decision.as_json(),
    )
    _end(waiting, caller, plan, ending, now=now)


def _end(waiting: Any, caller: UUID, plan: Plan, ending: Ending, *, now: datetime | None) -> None:
    advance.settle(
        waiting.id,
        execution_id=caller,
        plan=plan,
        leaving=[StepState.WAITING],
        ending=ending,
        is_item=waiting.parent_id is not None,
        now=now,
    )


def failure_of(child_id: UUID, ended: Any) -> Failure:
    """The end of a child as a failure that a retry policy can name: ``child_failed``, ``child_cancelled``, ``timeout``.

    A child that somebody cancelled is not started again; one that ran out of time may be.
    """
    if ended.state == ExecutionState.FAILED:
        where = f" in step {ended.step_name}" if ended.step_name else ""
        what = f": {ended.error_type}: {ended.error}" if ended.error_type else ""
        message = f"workflow {ended.workflow_name} failed{where}{what} (execution {child_id})"
        return Failure(("child_failed", *_names(ChildFailed())), storable(message))
    message = f"workflow {ended.workflow_name} was cancelled: {ended.state_reason} (execution {child_id})"
    if ended.overdue:
        return Failure(("timeout", "child_cancelled", *_names(ChildCancelled())), storable(message))
    return Failure(("child_cancelled", *_names(ChildCancelled())), storable(message), asked="fail")


def _names(error: Exception) -> tuple[str, ...]:
    return class_names(error)[:1]


def cancel_orphans(*, now: datetime | None = None) -> int:
    """Cancel open children that nobody waits for any more. Returns how many."""
    cancelled = 0
    for child_id in child_rows.orphans(limit=BATCH):
        with engine.transaction():
            cancelled += cancellation.cancel(child_id, reason="the step that called it was ended", now=now)
    return cancelled
