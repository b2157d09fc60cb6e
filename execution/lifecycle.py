"""What people can do to executions and their steps. Each deed is one transaction with its audit entry.

A deed that the present state does not allow raises `Conflict` and changes nothing: somebody was faster, or it has
ended. The work itself is stopped by the fence: a worker learns at its next heartbeat or commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import advance, audit, cancellation, creation, dispatch, engine, graph_rows, interventions
from execution.creation import Source, Start
from execution.definitions import validate_input
from execution.fingerprints import fingerprint
from execution.models import Execution, StepRun
from execution.plans import plan_by_id
from execution.priority import parse as parse_priority
from execution.resumption import resumption
from execution.states import STEP_OPEN, AttemptState, StepState, WaitingFor
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound


def cancel(execution_id: UUID, *, actor: str, reason: str = "", using: str | None = None) -> None:
    """End an open execution, all that is open in it and what it called. Running steps lose their lease and result.

    Raises:
        NotFound: there is no such execution.
        Conflict: it has ended.
    """
    told = f"cancelled by {actor}" + (f": {reason}" if reason else "")
    with engine.transaction(using=using) as alias:
        if not cancellation.cancel(execution_id, reason=told, using=alias):
            raise _refusal(execution_id, "cancelled", alias)
        _audit(execution_id, "cancel", actor, note=reason, using=alias)


def pause(execution_id: UUID, *, actor: str, note: str = "", using: str | None = None) -> None:
    """Start no further step of an execution until `resume`. What runs is left to end.

    Raises:
        NotFound: there is no such execution.
        Conflict: it is paused already or has ended.
    """
    told = f"paused by {actor}" + (f": {note}" if note else "")
    with engine.transaction(using=using) as alias:
        if not interventions.pause(execution_id, reason=told, using=alias):
            raise _refusal(execution_id, "paused", alias)
        _audit(execution_id, "pause", actor, note=note, using=alias)


def resume(execution_id: UUID, *, actor: str, using: str | None = None) -> None:
    """Go on with a paused execution.

    Raises:
        NotFound: there is no such execution.
        Conflict: it is not paused.
    """
    with engine.transaction(using=using) as alias:
        # Held before the statement looks: a step that a worker frees at this moment would else keep a message that was
        # refused while the execution was paused.
        graph_rows.hold(execution_id, using=alias)
        hints = interventions.resume(execution_id, bound=settings.WORKFLOW_IN_FLIGHT_PER_LEVEL, using=alias)
        if hints is None:
            raise _refusal(execution_id, "resumed", alias)
        dispatch.publish_on_commit(hints, using=alias)
        _audit(execution_id, "resume", actor, using=alias)


def set_priority(execution_id: UUID, priority: Any, *, actor: str, using: str | None = None) -> int:
    """Give an open execution and its open steps another priority, at once, also where messages are on their way.

    Returns the priority as a number.

    Raises:
        InvalidInput: it is no priority.
        NotFound: there is no such execution.
        Conflict: it has ended.
    """
    try:
        level = parse_priority(priority)
    except ValueError as error:
        raise InvalidInput(fields={"priority": [str(error)]}) from None
    with engine.transaction(using=using) as alias:
        # Held before the statement looks: a step that a worker frees at this moment is sent with the new priority too.
        graph_rows.hold(execution_id, using=alias)
        moved = interventions.set_priority(
            execution_id, priority=level, bound=settings.WORKFLOW_IN_FLIGHT_PER_LEVEL, using=alias
        )
        if moved is None:
            raise _refusal(execution_id, "given another priority", alias)
        before, hints = moved
        dispatch.publish_on_commit(hints, using=alias)
        changes = {"priority": {"before": before, "after": level}}
        _audit(execution_id, "set_priority", actor, changes=changes, using=alias)
    return level


def rerun(
    execution_id: UUID,
    *,
    actor: str,
    input: Any = None,
    latest: bool = False,
    priority: int | None = None,
    using: str = "default",
) -> Execution:
    """Start a new execution like an earlier one: same version, input, queue, policy, and instant it stands for.

    Args:
        input: another input; the earlier one's when None.
        latest: run the version that is published now.

    Raises:
        NotFound: there is no such execution.
        InvalidInput: the input does not satisfy the version's schema.
        Conflict: `latest`, and no version is published.
    """
    with engine.transaction(using=using):
        earlier = _get(execution_id, using)
        source = Source("rerun", str(earlier.pk), f"rerun of {earlier.pk}")
        started = copy_of(earlier, source=source, input=input, latest=latest, priority=priority, using=using)
        changes = {"execution": {"before": str(earlier.pk), "after": str(started.pk)}}
        if input is not None:
            changes |= audit.difference({"input": earlier.input}, {"input": input})
        _audit(earlier.pk, "rerun", actor, changes=changes, using=using)
    return started


def copy_of(
    earlier: Execution,
    *,
    source: Source,
    input: Any = None,
    latest: bool = False,
    priority: int | None = None,
    using: str,
) -> Execution:
    """A new execution like `earlier`, in the caller's transaction on `using`.

    Raises:
        InvalidInput: the input does not satisfy the version's schema.
        Conflict: `latest`, and no version is published.
    """
    version = earlier.workflow.published if latest else earlier.version
    if version is None:
        raise Conflict(f"Workflow {earlier.workflow.name} has no published version.")
    version.workflow = earlier.workflow
    data = earlier.input if input is None else input
    validate_input(version, data)
    creation.check_size(data, field_name="input")
    start = Start(
        version=version,
        source=source,
        input=data,
        scheduled_for=earlier.scheduled_for,
        priority=earlier.priority if priority is None else priority,
        queue=earlier.queue,
        retry_policy=earlier.retry_policy,
        concurrency_key=earlier.concurrency_key,
    )
    (started,) = creation.start_many([start], now=engine.now(using=using), using=using)
    return _get(started, using)


def resume_from_failure(
    execution_id: UUID, *, actor: str, input: Any = None, note: str = "", using: str | None = None
) -> int:
    """Run an execution's failed steps again, and then what was skipped behind them. Finished steps keep their
    outputs. Its dead letters become redriving: success resolves them, another failure opens them again.

    Returns how many steps are open again.

    Raises:
        NotFound: there is no such execution.
        InvalidInput: the edited input does not satisfy the version's schema.
        Conflict: no step of it has failed, or it was cancelled.
    """
    with engine.transaction(using=using) as alias:
        held = graph_rows.hold(execution_id, using=alias)
        if held is None:
            raise NotFound("There is no such execution.")
        plan = plan_by_id(held.version_id)
        again = resumption(plan, interventions.step_facts(execution_id, using=alias))
        if not again.steps:
            raise Conflict(f"The execution is {held.state} and none of its steps has failed; rerun it instead.")
        if input is not None:
            validate_input(_get(execution_id, alias).version, input)
            creation.check_size(input, field_name="input")
        hints = interventions.reopen(execution_id, again, actor=actor, input=input, using=alias)
        if hints is None:
            raise Conflict(f"The execution is {held.state}; rerun it instead.")
        dispatch.publish_on_commit(hints, using=alias)
        if any(needs == 0 for needs in again.waiting.values()):
            advance.decide_ripe(execution_id, plan, using=alias)
        changes = {} if input is None else audit.difference({"input": engine.load_json(held.input)}, {"input": input})
        _audit(execution_id, "resume_from_failure", actor, note=note, changes=changes, using=alias)
    return again.steps


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────


def skip_step(step_run_id: UUID, *, actor: str, note: str = "", using: str | None = None) -> None:
    """End an open step as skipped; what needs it goes on without its output.

    Raises:
        NotFound: there is no such step run.
        Conflict: it has ended.
    """
    _end_by_hand(step_run_id, StepState.SKIPPED, "skip", actor=actor, note=note, using=using)


def succeed_step(
    step_run_id: UUID, *, actor: str, note: str = "", output: Any = None, using: str | None = None
) -> None:
    """End an open step as succeeded, with an output given by hand.

    Raises:
        NotFound: there is no such step run.
        InvalidInput: the output is too large.
        Conflict: it has ended.
    """
    creation.check_size(output, field_name="output")
    _end_by_hand(step_run_id, StepState.SUCCEEDED, "succeed", actor=actor, note=note, output=output, using=using)


def approve(step_run_id: UUID, *, actor: str, note: str = "", using: str | None = None) -> None:
    """Let a step that waits for approval succeed; its output tells who approved.

    Raises:
        NotFound: there is no such step run.
        Conflict: it does not wait for approval.
    """
    output = {"approved": True, "by": actor, "note": note}
    _check_awaits_approval(step_run_id, using)
    _end_by_hand(
        step_run_id, StepState.SUCCEEDED, "approve", actor=actor, note=note, output=output, waiting=True, using=using
    )


def reject(step_run_id: UUID, *, actor: str, note: str = "", using: str | None = None) -> None:
    """Let a step that waits for approval fail.

    Raises:
        NotFound: there is no such step run.
        Conflict: it does not wait for approval.
    """
    _check_awaits_approval(step_run_id, using)
    _end_by_hand(step_run_id, StepState.FAILED, "reject", actor=actor, note=note, waiting=True, using=using)


def _check_awaits_approval(step_run_id: UUID, using: str | None) -> None:
    run = _get_step(step_run_id, using or engine.alias())
    if run.waiting_for != WaitingFor.APPROVAL:
        raise Conflict(f"Step {run} is {run.state} and does not wait for approval.")


def _end_by_hand(
    step_run_id: UUID,
    state: StepState,
    verb: str,
    *,
    actor: str,
    note: str,
    output: Any = None,
    waiting: bool = False,
    using: str | None,
) -> None:
    with engine.transaction(using=using) as alias:
        run = _get_step(step_run_id, alias)
        graph_rows.hold(run.execution_id, using=alias)
        plan = plan_by_id(run.execution.version_id)
        step = plan.steps[run.name]
        reason = f"{verb} by {actor}" + (f": {note}" if note else "")
        failed = state is StepState.FAILED
        ending = advance.ending_of(
            plan,
            step,
            state=state,
            attempt_state=AttemptState.CANCELLED,
            reason=reason,
            output=output,
            has_output=output is not None,
            letter="rejected" if failed and not step.continue_on_error else "",
            error_type="Rejected" if failed else "",
            error=reason if failed else "",
            fingerprint=fingerprint("Rejected", "rejected", step.name) if failed else "",
        )
        interventions.cancel_items(run.pk, reason=reason, using=alias)
        leaving = [StepState.WAITING] if waiting else [StepState(value) for value in sorted(STEP_OPEN)]
        finished = interventions.finish_by_hand(
            run.pk, execution_id=run.execution_id, leaving=leaving, ending=ending, using=alias
        )
        if finished is None:
            raise Conflict(f"Step {run} is {_get_step(step_run_id, alias).state}; it has ended.")
        advance.follow(run.execution_id, plan, finished, using=alias)
        audit.record(
            actor=actor,
            action=f"step.{verb}",
            subject_kind="step_run",
            subject_id=run.pk,
            subject_label=str(run),
            note=note,
            changes={"state": {"before": run.state, "after": state.value}},
            using=alias,
        )


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _get(execution_id: UUID, using: str) -> Execution:
    found = (
        Execution.objects.using(using)
        .select_related("workflow__published", "version__workflow")
        .filter(pk=execution_id)
        .first()
    )
    if found is None:
        raise NotFound("There is no such execution.")
    return found


def _get_step(step_run_id: UUID, using: str) -> StepRun:
    found = StepRun.objects.using(using).select_related("execution").filter(pk=step_run_id).first()
    if found is None:
        raise NotFound("There is no such step run.")
    return found


def _refusal(execution_id: UUID, done: str, using: str) -> Conflict:
    """Why a conditional statement changed nothing.

    Raises:
        NotFound: there is no such execution.
    """
    state = _get(execution_id, using).state
    return Conflict(f"The execution is {state} and cannot be {done}.", state=state)


def _audit(
    execution_id: UUID,
    verb: str,
    actor: str,
    *,
    note: str = "",
    changes: Mapping[str, Any] | None = None,
    using: str,
) -> None:
    audit.record(
        actor=actor,
        action=f"execution.{verb}",
        subject_kind="execution",
        subject_id=execution_id,
        note=note,
        changes=changes,
        using=using,
    )
