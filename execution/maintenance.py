"""What keeps the promises when a message, a worker or a server was lost. Each function is safe to run anywhere,
at any time, in any number of processes: every row change is guarded in `execution.queue`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from execution import advance, broken, cancellation, engine, graph_rows, lost_workers, queue, runner
from execution.fingerprints import fingerprint
from execution.lost_workers import Expired
from execution.plans import Unrunnable, plan_by_id
from execution.retry import Decision, Failure, RetryDecision, decide, decide_worker_death
from execution.states import AttemptState, StepState
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

BATCH = 100


@dataclass(frozen=True, slots=True)
class Rescued:
    """What one rescue did."""

    queued: int = 0
    failed: int = 0


def rescue(*, now: datetime | None = None) -> Rescued:
    """Take back step runs whose lease ran out: their worker is gone, frozen, or was stopped by a hard time limit.

    A lost worker is not charged to the step, but after ``WORKFLOW_MAX_WORKER_DEATHS`` the step is taken for the
    cause and becomes a dead letter. Nothing is rescued before Postgres has been up for one full lease, because
    no worker could renew while it was away.
    """
    queued = failed = 0
    for row in lost_workers.expired(lease=settings.WORKFLOW_LEASE_SECONDS, limit=BATCH, now=now):
        try:
            taken = _time_out(row, now=now) if row.timed_out else _take_back(row, now=now)
        except Unrunnable as error:  # this one ends here; the others must not wait behind it
            failed += broken.fail(row.execution_id, error, now=now)
            continue
        if taken is None:
            continue
        queued += taken
        failed += not taken
        log.warning(
            "step.rescued" if taken else "step.quarantined",
            step_run_id=str(row.id),
            label=row.label,
            worker=row.worker,
            attempt=row.attempt,
            timed_out=row.timed_out,
        )
    return Rescued(queued=queued, failed=failed)


def _take_back(row: Expired, *, now: datetime | None) -> bool | None:
    """True: to be run again; False: failed for good; None: somebody else was first."""
    plan = plan_by_id(row.version_id)
    policy = runner.policy_for(row, plan, plan.steps[row.name])
    reason = f"worker {row.worker} was lost during attempt {row.attempt}"
    decision = decide_worker_death(
        policy,
        reason,
        deaths=row.worker_deaths + 1,
        most_deaths=settings.WORKFLOW_MAX_WORKER_DEATHS,
        failures=row.failures + 1,
        now=now or engine.now(),
    )
    if decision.decision is Decision.FAIL:
        return _fail(row, decision, letter="quarantined", died=True, now=now)
    charged = policy.on_worker_death == "retry"
    taken = queue.reschedule(
        row.id,
        token=row.token,
        state=StepState.RETRYABLE if charged else StepState.QUEUED,
        attempt_state=AttemptState.LOST,
        at=decision.at,
        reason=decision.reason,
        charged=charged,
        worker_died=True,
        expired=True,
        error_type="WorkerLost",
        error=reason,
        decision=decision.as_json(),
        now=now,
    )
    return True if taken else None


def _time_out(row: Expired, *, now: datetime | None) -> bool | None:
    plan = plan_by_id(row.version_id)
    policy = runner.policy_for(row, plan, plan.steps[row.name])
    message = (
        f"the attempt ran longer than its {row.timeout:g} s and did not stop when told" if row.timeout else "timeout"
    )
    decision = decide(
        policy,
        Failure(("timeout", "celery.exceptions.TimeLimitExceeded"), message),
        failures=row.failures + 1,
        now=now or engine.now(),
    )
    if decision.decision is Decision.RETRY:
        taken = queue.reschedule(
            row.id,
            token=row.token,
            state=StepState.RETRYABLE,
            attempt_state=AttemptState.RETRYABLE,
            at=decision.at,
            reason=decision.reason,
            charged=True,
            expired=True,
            error_type="TimeLimitExceeded",
            error=message,
            decision=decision.as_json(),
            now=now,
        )
        return True if taken else None
    return _fail(row, decision, letter="timed_out", died=False, now=now)


def _fail(row: Expired, decision: RetryDecision, *, letter: str, died: bool, now: datetime | None) -> bool | None:
    plan = plan_by_id(row.version_id)
    step = plan.steps[row.name]
    ending = runner.move_to_dead_letter(
        plan,
        step,
        letter=letter,
        decision=decision,
        details={
            "error_type": "WorkerLost" if died else "TimeLimitExceeded",
            "error": decision.reason,
            "traceback": "",
            "decision": decision.as_json(),
        },
        worker_died=died,
    )
    finished = advance.conclude_held(
        row.id,
        execution_id=row.execution_id,
        token=row.token,
        plan=plan,
        name=row.name,
        is_item=row.parent_id is not None,
        ending=ending,
        expired=True,
        now=now,
    )
    return None if finished is None else False


def ring_timers(*, now: datetime | None = None) -> int:
    """End durable sleeps that are over and approvals that have expired. Returns how many."""
    rung = 0
    for row in graph_rows.due_timers(limit=BATCH, now=now):
        try:
            plan = plan_by_id(row.version_id)
        except Unrunnable as error:
            rung += broken.fail(row.execution_id, error, now=now)
            continue
        step = plan.steps[row.name]
        if row.waiting_for == "timer":
            ending = advance.ending_of(plan, step, state=StepState.SUCCEEDED)
        else:
            ending = advance.ending_of(
                plan,
                step,
                state=StepState.FAILED,
                attempt_state=AttemptState.FAILED,
                reason="nobody approved it in time",
                letter="" if step.continue_on_error else "expired",
                error_type="ApprovalExpired",
                error="nobody approved it in time",
                fingerprint=fingerprint("ApprovalExpired", "nobody approved it in time", step.name),
            )
        finished = advance.settle(
            row.id, execution_id=row.execution_id, plan=plan, leaving=[StepState.WAITING], ending=ending, now=now
        )
        rung += finished is not None
    return rung


def cancel_overdue(*, now: datetime | None = None) -> int:
    """Cancel open executions past their deadline. Returns how many."""
    cancelled = 0
    for execution_id in graph_rows.overdue(limit=BATCH, now=now):
        with engine.transaction():
            cancelled += cancellation.cancel(execution_id, reason="its deadline has passed", now=now)
    return cancelled


def decide_forgotten(*, now: datetime | None = None) -> int:
    """Decide about steps whose needs were met a while ago and about which nobody has decided. Returns how many
    executions had any, which is none unless rows were changed by hand."""
    rows = graph_rows.forgotten(limit=BATCH, now=now)
    for row in rows:
        log.error("execution.forgotten_step", execution_id=str(row.execution_id))
        try:
            plan = plan_by_id(row.version_id)
        except Unrunnable as error:
            broken.fail(row.execution_id, error, now=now)
            continue
        with engine.transaction():
            advance.decide_ripe(row.execution_id, plan, now=now)
    return len(rows)
