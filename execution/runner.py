"""One worker run of one step, as a pipeline: claim → load → keep the lease → perform → classify → report.

One place catches everything, because steps are other people's code. Whatever they raise, return or do becomes one
row change under the lease token; the worker goes on.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import DataError, close_old_connections, connections

from execution import (
    advance,
    broken,
    child_rows,
    children,
    engine,
    epilogue,
    graph_rows,
    lease,
    live,
    queue,
    rate_keys,
    secret_store,
    step_tasks,
)
from execution.expressions import Template
from execution.failures import ends_process, failure_of, message_of, shown, traceback_of
from execution.fingerprints import fingerprint
from execution.graph import Plan, StepPlan
from execution.limits import MemoryLimitExceeded, memory_kept
from execution.plans import Unrunnable, plan_by_id
from execution.queue import Claim
from execution.rate_keys import RateDeferred
from execution.redaction import redacted, redactor
from execution.retry import Decision, Failure, Policy, RetryDecision, decide, effective_policy
from execution.states import AttemptState, StepState
from execution.steps import task_hooks
from execution.steps.context import GiveUp, LeaseLost, StepContext, enter, leave
from execution.steps.kinds import KINDS
from execution.steps.workflow import ChildStart, hand_over
from scheduling_project.common.errors import DomainError
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

COMMIT_RETRY_SECONDS = 0.5
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON text: an escape that is not itself escaped


class Outcome(enum.StrEnum):
    """How a run ended, for the Celery door."""

    NOT_OURS = "not ours"
    SUCCEEDED = "succeeded"
    RETRY = "retry"
    SNOOZED = "snoozed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    HANDED_OVER = "waits for its child"


@dataclass(frozen=True, slots=True)
class Report:
    """What the door tells Celery."""

    outcome: Outcome
    message: str = ""
    at: datetime | None = None
    error: str = ""


def run(step_run_id: UUID, *, worker: str, priority: int | None = None, may_exit: bool = False) -> Report:
    """Claim and run one step run.

    Args:
        worker: name of this process, as attempts record it.
        priority: the priority on the hint; a hint that no longer fits is dropped.
        may_exit: this process runs nothing else, so the self-fence may end it.

    Raises:
        django.db.OperationalError: Postgres is away; nothing was claimed and the sweep sends the hint again.
    """
    claim = queue.claim(step_run_id, worker=worker, lease=settings.WORKFLOW_LEASE_SECONDS, priority=priority)
    if claim is None:
        return Report(Outcome.NOT_OURS)
    ids = {"execution_id": str(claim.execution_id), "step_run_id": str(claim.id), "attempt": claim.attempt}
    with structlog.contextvars.bound_contextvars(step=claim.label, **ids):  # in every line until it has ended
        return _run(claim, may_exit=may_exit)


def _run(claim: Claim, *, may_exit: bool) -> Report:
    log.info("step.claimed", step_run_id=str(claim.id), label=claim.label, attempt=claim.attempt)
    live.announce(live.EXECUTIONS, [claim.execution_id])
    try:
        plan = plan_by_id(claim.version_id)
    except Unrunnable as error:
        broken.fail(claim.execution_id, error)
        return Report(Outcome.FAILED, str(error), error=str(error))
    step = plan.steps[claim.name]
    context = StepContext(
        step_run_id=claim.id,
        execution_id=claim.execution_id,
        name=claim.name,
        label=claim.label,
        attempt=claim.attempt,
        idempotency_key=claim.idempotency_key,
        scheduled_for=claim.scheduled_for,
        token=claim.token,
    )
    performed = _perform(claim, plan, step, context, may_exit=may_exit)
    if isinstance(performed.error, LeaseLost):
        return Report(Outcome.LOST, message_of(performed.error))
    if isinstance(performed.error, RateDeferred):
        return Report(Outcome.SNOOZED, message_of(performed.error), at=performed.error.at)
    if ends_process(performed.error):
        _give_back(claim)
        raise performed.error
    report = _report(claim, plan, step, performed)
    live.announce(live.EXECUTIONS, [claim.execution_id])
    if claim.source_kind == child_rows.SOURCE:
        _settle_caller(claim)
    return report


def _settle_caller(claim: Claim) -> None:
    """A step of a child has ended, and perhaps the child with it: its caller goes on now, not in a second."""
    try:
        children.settle_ended()
    except engine.DatabaseAway as error:
        log.warning("step.caller_waits", step_run_id=str(claim.id), error=str(error))  # the housekeeping settles it
        engine.close()


def _give_back(claim: Claim) -> None:
    """This process was told to end while the step ran: somebody else runs it, uncharged."""
    try:
        queue.reschedule(
            claim.id,
            token=claim.token,
            state=StepState.QUEUED,
            attempt_state=AttemptState.RELEASED,
            at=None,
            reason="its worker was shut down",
        )
    except engine.DatabaseAway as error:
        log.warning("step.not_given_back", step_run_id=str(claim.id), error=str(error))  # its lease will run out
    else:
        log.info("step.given_back", step_run_id=str(claim.id), label=claim.label)


@dataclass(slots=True)
class _Performed:
    output: Any = None
    argument: Any = None  # with the names of secrets in place of their values, once it was performed
    redact: Callable[[str], str] = str
    error: BaseException | None = None


def _perform(claim: Claim, plan: Plan, step: StepPlan, context: StepContext, *, may_exit: bool) -> _Performed:
    """Run the step's own code. Nothing that it does gets past here but as a value."""
    performed = _Performed()
    mark = enter(context)
    try:

        def fail(error: MemoryLimitExceeded) -> bool:
            """In the thread that watches the memory: the step's own may never come to it."""
            return _report(claim, plan, step, _Performed(error=error)).outcome is not Outcome.LOST

        with lease.kept(context, may_exit=may_exit), memory_kept(step.memory, may_exit=may_exit, fail=fail):
            close_old_connections()
            _perform_leased(claim, plan, step, performed, context)
    except BaseException as error:  # noqa: BLE001 - the one place: SystemExit and MemoryError of a step end the step
        performed.error = error
    finally:
        leave(mark)
        _abandon_transaction()
    return performed


def _perform_leased(claim: Claim, plan: Plan, step: StepPlan, performed: _Performed, context: StepContext) -> None:
    """The step's own code and the hooks of its task, which are told what will follow an error."""
    argument = None
    try:
        if step.rate is not None:
            rate = rate_keys.Rate(step.rate.limit, step.rate.per, step.rate.burst)
            rate_keys.admit(claim, str(render(claim, plan, step, step.rate.key)), rate)
        secrets = secret_store.resolve(secret_store.names_in(step.argument))
        performed.redact = context.redact = redactor(secrets)
        argument = render_argument(claim, plan, step, secrets)
        performed.argument = redacted(argument, performed.redact)
        performed.output = KINDS[step.kind](claim, step, argument)
        if not isinstance(performed.output, ChildStart):
            check_output(performed.output)
            performed.output = redacted(performed.output, performed.redact)
    except BaseException as error:
        if isinstance(error, LeaseLost | RateDeferred) or ends_process(error):
            raise
        performed.error = error
    if step.kind == "task":
        task_hooks.after(
            step.target,
            claim,
            argument,
            output=performed.output,
            error=performed.error,
            decision=lambda error: _decision(claim, plan, step, failure_of(error)).decision,
        )


def _decision(claim: Claim, plan: Plan, step: StepPlan, failure: Failure) -> RetryDecision:
    return decide(policy_for(claim, plan, step), failure, failures=claim.failures + 1, now=engine.now())


def render_argument(claim: Claim, plan: Plan, step: StepPlan, secrets: Mapping[str, str] | None = None) -> Any:
    """The step's argument with its expressions evaluated over input, finished steps, item and execution."""
    return render(claim, plan, step, step.argument, secrets)


def render(
    claim: Claim, plan: Plan, step: StepPlan, template: Template, secrets: Mapping[str, str] | None = None
) -> Any:
    """The value of a template over input, finished steps, item and execution of a claimed step run."""
    if template.is_constant:
        return template.render({})
    names = [reference.step for reference in template.references if reference.root == "steps"]
    steps: dict[str, Any] = {}
    if names:
        wanted = None if None in names else [name for name in names if name is not None]
        steps = graph_rows.step_results(claim.execution_id, names=wanted)
    scope: dict[str, Any] = {
        "input": claim.input,
        "steps": steps,
        "item": claim.item,
        "secrets": dict(secrets or {}),
        "execution": {
            "id": str(claim.execution_id),
            "workflow": claim.workflow_name,
            "source": {"kind": claim.source_kind, "id": claim.source_id},
            "scheduled_for": claim.scheduled_for.isoformat() if claim.scheduled_for else None,
        },
    }
    if step.section:
        scope["execution"] |= epilogue.facts(claim.execution_id, plan)
    return template.render(scope, max_bytes=settings.WORKFLOW_MAX_PAYLOAD_BYTES)


class OutputNotKept(Exception):
    """The step returned something that cannot be kept as its output."""


def check_output(output: Any) -> None:
    """Check that an output is JSON within the payload cap.

    Raises:
        OutputNotKept: naming the rule it breaks.
    """
    try:
        text = engine.dump_json(output)
        size = len(text.encode())
    except UnicodeEncodeError:
        raise OutputNotKept("the output holds half a surrogate pair, which is no text") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputNotKept(f"the output is not JSON: {error}") from None
    if size > settings.WORKFLOW_MAX_PAYLOAD_BYTES:
        limit = settings.WORKFLOW_MAX_PAYLOAD_BYTES
        raise OutputNotKept(f"the output is {size} bytes of JSON; at most {limit} are kept")
    if _NUL.search(text):
        raise OutputNotKept("the output holds a NUL character, which Postgres cannot keep")


def _abandon_transaction() -> None:
    """A step that left a transaction open must not leak it into the next one: its connection is replaced."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block and engine.alias() not in {"default", connection.alias}:
            connection.close()
            del connections[connection.alias]  # a closed one would remember for good that it is in a block
    close_old_connections()


def _report(claim: Claim, plan: Plan, step: StepPlan, performed: _Performed) -> Report:
    """Write what became of the attempt, again and again while Postgres is away, until the lease has ended."""
    give_up_at = time.monotonic() + settings.WORKFLOW_LEASE_SECONDS
    while True:
        try:
            return _write(claim, plan, step, performed)
        except SoftTimeLimitExceeded:
            engine.close()  # too late: the step's own code has ended, and only the statement was interrupted
        except (*engine.DatabaseAway, DataError) as error:
            if engine.is_refusal(error):
                if performed.error is not None:
                    raise  # nothing of ours is refused: left to the rescuer, which ends it after some attempts
                performed.error = OutputNotKept(f"Postgres cannot keep the output: {error}")
                continue
            engine.close()
            if time.monotonic() > give_up_at:
                log.error("step.outcome_not_written", step_run_id=str(claim.id), error=str(error))
                return Report(Outcome.LOST, f"Postgres was away until the lease ended: {error}")
            log.warning("step.outcome_waits", step_run_id=str(claim.id), error=str(error))
            time.sleep(COMMIT_RETRY_SECONDS)


def _write(claim: Claim, plan: Plan, step: StepPlan, performed: _Performed) -> Report:
    if isinstance(performed.output, ChildStart) and performed.error is None:
        try:
            if not hand_over(claim, performed.output):
                return _not_held(claim, StepState.WAITING, Report(Outcome.HANDED_OVER))
        except (GiveUp, DomainError, ValueError) as error:
            performed.error = error
        else:
            log.info("step.waits_for_child", step_run_id=str(claim.id), label=claim.label, child=str(claim.token))
            return Report(Outcome.HANDED_OVER)
    if performed.error is None:
        ending = advance.ending_of(
            plan, step, state=StepState.SUCCEEDED, output=performed.output, has_output=performed.output is not None
        )
        if advance.conclude(claim, plan, ending) is None:
            return _not_held(claim, StepState.SUCCEEDED, Report(Outcome.SUCCEEDED))
        log.info("step.succeeded", step_run_id=str(claim.id), label=claim.label, attempt=claim.attempt)
        return Report(Outcome.SUCCEEDED)
    failure = failure_of(performed.error)
    failure = replace(failure, message=performed.redact(failure.message))
    return apply_decision(claim, plan, step, performed, failure)


def policy_for(claim: Any, plan: Plan, step: StepPlan) -> Policy:
    """The retry policy in force for a step run, with its origin (precedence in `execution.retry`)."""
    task = step_tasks.find(step.target) if step.kind == "task" else None
    return effective_policy(
        step=step.retry,
        source=claim.source_retry,
        workflow=plan.retry if plan.retry is not None else claim.workflow_retry,
        task=None if task is None else step_tasks.policy_of(task),
    )


def apply_decision(claim: Claim, plan: Plan, step: StepPlan, performed: _Performed, failure: Failure) -> Report:
    """Decide what follows the failure and write it, fenced by the claim's token."""
    error = performed.error
    assert error is not None
    decision = _decision(claim, plan, step, failure)
    name = type(shown(error)).__name__
    described = f"{name}: {failure.message}"
    details = {
        "error_type": name,
        "error": failure.message,
        "traceback": "" if decision.decision is Decision.SNOOZE else performed.redact(traceback_of(error)),
        "decision": decision.as_json(),
    }
    match decision.decision:
        case Decision.RETRY | Decision.SNOOZE:
            return schedule_retry(claim, decision, details, described)
        case Decision.CANCEL:
            ending = advance.ending_of(
                plan,
                step,
                state=StepState.SKIPPED,
                attempt_state=AttemptState.CANCELLED,
                reason=decision.reason,
                **details,
            )
            outcome = Outcome.CANCELLED
        case _:
            ending = move_to_dead_letter(
                plan,
                step,
                letter="timed_out" if isinstance(error, SoftTimeLimitExceeded) else "failed",
                decision=decision,
                details=details,
                step_input=performed.argument,
            )
            outcome = Outcome.FAILED
    if advance.conclude(claim, plan, ending) is None:
        return _not_held(claim, ending.state, Report(outcome, failure.message, error=described))
    log.warning(f"step.{outcome}", step_run_id=str(claim.id), label=claim.label, reason=decision.reason)
    return Report(outcome, failure.message, error=described)


def move_to_dead_letter(
    plan: Plan,
    step: StepPlan,
    *,
    letter: str,
    decision: RetryDecision,
    details: dict[str, Any],
    step_input: Any = None,
    **more: Any,
) -> queue.Ending:
    """How a step run that fails for good ends: among the dead letters, unless the definition handles it.

    The ending and its letter are written together by the finishing statement, so no crash comes between them.
    """
    return advance.ending_of(
        plan,
        step,
        state=StepState.FAILED,
        attempt_state=AttemptState.FAILED,
        reason=decision.reason,
        charged=True,
        letter=letter if step.writes_letters else "",
        fingerprint=fingerprint(details["error_type"], details["error"], step.name),
        step_input=step_input,
        **details,
        **more,
    )


def schedule_retry(claim: Claim, decision: RetryDecision, details: dict[str, Any], described: str) -> Report:
    """Put a step run back, due when the decision says: charged for a retry, uncharged for a snooze."""
    retry = decision.decision is Decision.RETRY
    written = queue.reschedule(
        claim.id,
        token=claim.token,
        state=StepState.RETRYABLE if retry else StepState.QUEUED,
        attempt_state=AttemptState.RETRYABLE if retry else AttemptState.SNOOZED,
        at=decision.at,
        reason=decision.reason,
        charged=retry,
        **details,
    )
    report = Report(Outcome.RETRY if retry else Outcome.SNOOZED, decision.reason, at=decision.at, error=described)
    if not written:
        return _not_held(claim, StepState.RETRYABLE if retry else StepState.QUEUED, report)
    log.info(f"step.{report.outcome}", step_run_id=str(claim.id), label=claim.label, at=decision.as_json()["at"])
    return report


def _not_held(claim: Claim, wanted: StepState, report: Report) -> Report:
    """Zero rows: somebody else was first, or our own COMMIT went through and only its answer was lost."""
    if queue.outcome(claim.id, claim.token) == wanted.value:
        return report
    log.warning("step.stale_attempt_refused", step_run_id=str(claim.id), label=claim.label, attempt=claim.attempt)
    return Report(Outcome.LOST, "this attempt no longer held the step run")
