"""What follows in the graph when a step run ends: inside the finishing transaction, holding the execution's row.

Plain successors (a task or a call, no condition, no fan-out) are queued by the finishing statement itself. The
others are decided here: `when` is evaluated, a fan-out is laid out, a timer or an approval begins.
"""

from __future__ import annotations

import traceback as tracebacks
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import dispatch, engine, epilogue, graph_rows, items, queue, signals
from execution.expressions import ExpressionError, Reference, Template
from execution.fingerprints import fingerprint
from execution.graph import Plan, StepPlan, seconds
from execution.queue import Claim, Ending, Finished, Hint
from execution.states import AttemptState, ExecutionState, StepState, WaitingFor

#: Topic of the news that `emit` steps leave, in the transaction that ends them; who turns news into events reads it.
EMIT_TOPIC = "emit"


def ending_of(
    plan: Plan,
    step: StepPlan,
    *,
    state: StepState,
    attempt_state: AttemptState = AttemptState.SUCCEEDED,
    **details: Any,
) -> Ending:
    """An ending with what follows from it in the graph. A failure that nobody handles dooms all that needs it."""
    unhandled = state is StepState.FAILED and not step.continue_on_error
    return Ending(
        state=state,
        attempt_state=attempt_state,
        successors=() if unhandled else step.successors,
        plain=() if unhandled else [name for name in step.successors if plan.steps[name].is_plain],
        doomed=plan.descendants(step.name) if unhandled else (),
        failed=unhandled,
        **details,
    )


def as_item(ending: Ending) -> Ending:
    """The ending of a fan-out's item: its step counts every failure, also those that it tolerates."""
    return replace(ending, failed=ending.state is StepState.FAILED)


def conclude(
    claim: Claim, plan: Plan, ending: Ending, *, expired: bool = False, now: datetime | None = None
) -> Finished | None:
    """End a running step run and advance its execution, in one transaction; publish what became ready.

    Returns None when the claim no longer holds (cancelled, rescued, finished by hand): nothing was written.
    """
    return conclude_held(
        claim.id,
        execution_id=claim.execution_id,
        token=claim.token,
        plan=plan,
        name=claim.name,
        is_item=claim.parent_id is not None,
        ending=ending,
        redrives=claim.redrives,
        tells=claim.tells,
        expired=expired,
        now=now,
    )


def conclude_held(
    step_run_id: UUID,
    *,
    execution_id: UUID,
    token: UUID,
    plan: Plan,
    name: str,
    is_item: bool,
    ending: Ending,
    redrives: bool = True,
    tells: bool = True,
    expired: bool = False,
    now: datetime | None = None,
) -> Finished | None:
    """`conclude` for a step run known by its ids and lease token.

    Args:
        redrives, tells: what its claim knew of dead letters and listeners; true for one who does not know.
    """
    step = plan.steps[name]
    if is_item:
        ending = as_item(ending)
    parts = queue.parts_of(ending, is_item=is_item, redrives=redrives, tells=tells)
    if is_item and not (ending.failed and step.stops_items):
        # Nothing is to be decided until the last item ends: until then the one statement is the transaction.
        finished = queue.finish(
            step_run_id,
            execution_id=execution_id,
            token=token,
            ending=ending,
            parts=parts,
            expired=expired,
            spares_last=True,
            now=now,
        )
        if finished is not None:
            follow(execution_id, plan, finished, now=now)
            return finished
    # Without anything to decide the one statement is the transaction.
    simple = (
        not is_item
        and plan.output is None
        and not plan.sections
        and all(plan.steps[s].is_plain for s in step.successors)
    )
    with nullcontext() if simple else engine.transaction():
        finished = queue.finish(
            step_run_id,
            execution_id=execution_id,
            token=token,
            ending=ending,
            parts=parts,
            expired=expired,
            now=now,
        )
        if finished is not None:
            follow(execution_id, plan, finished, now=now)
    return finished


def settle(
    step_run_id: UUID,
    *,
    execution_id: UUID,
    plan: Plan,
    leaving: Sequence[StepState],
    ending: Ending,
    is_item: bool = False,
    now: datetime | None = None,
) -> Finished | None:
    """End a step run that nobody runs, and advance its execution in the same transaction."""
    ending = as_item(ending) if is_item else ending
    with engine.transaction():
        finished = queue.settle(step_run_id, execution_id=execution_id, leaving=leaving, ending=ending, now=now)
        if finished is not None:
            follow(execution_id, plan, finished, now=now)
    return finished


def follow(
    execution_id: UUID, plan: Plan, finished: Finished, *, now: datetime | None = None, using: str | None = None
) -> None:
    """Everything that a finishing statement leaves to decide. The execution's row is held by now."""
    opened = _follow(execution_id, plan, finished, now=now, using=using)
    if finished.ripe or opened:
        decide_ripe(execution_id, plan, now=now, using=using)


def _follow(execution_id: UUID, plan: Plan, finished: Finished, *, now: datetime | None, using: str | None) -> bool:
    """`follow`, but for what waits for a decision: the successors, or a section that was opened (then it is True)."""
    hints = list(finished.ready)
    if finished.parent_id is not None:
        open_items = _stop_items(finished.parent_id, plan.steps[finished.name], finished, now=now, using=using)
        if finished.next_item is not None and open_items == finished.parent_items_open:
            hints.append(finished.next_item)
        if open_items == 0:
            _fan_in(execution_id, finished.parent_id, plan.steps[finished.name], plan, now=now, using=using)
    dispatch.publish_on_commit(hints, using=using)
    if finished.frees:
        signals.announce_freed(using=using)
    if finished.execution_state is None:
        return False
    state = _end(execution_id, plan, ExecutionState(finished.execution_state), now=now, using=using)
    if state is not None:
        signals.announce_finished(execution_id, state, using=using)
    return state is None


def _end(
    execution_id: UUID, plan: Plan, state: ExecutionState, *, now: datetime | None, using: str | None
) -> ExecutionState | None:
    """The last open step has ended: the state that the execution ends in, None when another section begins."""
    present = epilogue.present(execution_id, using=using) if plan.sections else None
    section = present.section if present is not None else ""
    if state == ExecutionState.SUCCEEDED and plan.output is not None and not section:
        state = _keep_output(execution_id, plan.output, now=now, using=using)
    if present is None:
        return state
    if epilogue.open_next(execution_id, plan, after=section, ended=state, now=now, using=using):
        return None
    return ExecutionState.CANCELLED if epilogue.keep_cancelled(execution_id, using=using) else state


def decide_ripe(execution_id: UUID, plan: Plan, *, now: datetime | None = None, using: str | None = None) -> None:
    """Decide about every step run whose needs are met, until nothing more follows (a loop: chains may be long)."""
    held = graph_rows.hold(execution_id, using=using)
    if held is None:
        return
    while rows := graph_rows.ripe(execution_id, using=using):
        for row in rows:
            step = plan.steps[row.name]
            try:
                hints = _decide(row.id, held, step, plan, now=now, using=using)
            except (ExpressionError, ValueError) as error:
                _fail_ripe(row.id, execution_id, plan, step, error, now=now, using=using)
            else:
                dispatch.publish_on_commit(hints, using=using)


def _decide(
    step_run_id: UUID, held: Any, step: StepPlan, plan: Plan, *, now: datetime | None, using: str | None
) -> list[Hint]:
    scope = scope_of(held, _references(step), with_all_steps=step.when is not None, using=using)
    if step.section:
        scope["execution"] |= epilogue.facts(held.id, plan, using=using)
    if step.when is not None and not step.when.matches(scope):
        mismatch = step.when.explain(scope)
        ending = ending_of(plan, step, state=StepState.SKIPPED, reason=f"when: {mismatch}")
        _settle_ripe(step_run_id, held.id, plan, ending, now=now, using=using)
        return []
    if step.for_each is not None:
        return _fan_out(step_run_id, held.id, step, plan, step.for_each.render(scope), now=now, using=using)
    if step.kind == "wait":
        delay = seconds(step.argument.render(scope))
        graph_rows.decide(step_run_id, waiting_for=WaitingFor.TIMER.value, delay=delay, now=now, using=using)
        return []
    if step.kind == "approval":
        expires = seconds(step.argument.render(scope).get("expires", "365d"))
        graph_rows.decide(step_run_id, waiting_for=WaitingFor.APPROVAL.value, delay=expires, now=now, using=using)
        return []
    if step.kind == "emit":
        graph_rows.tell(EMIT_TOPIC, execution_id=held.id, data=step.argument.render(scope), now=now, using=using)
        _settle_ripe(step_run_id, held.id, plan, ending_of(plan, step, state=StepState.SUCCEEDED), now=now, using=using)
        return []
    hint = graph_rows.decide(step_run_id, waiting_for=None, now=now, using=using)
    return [] if hint is None else [hint]


def _references(step: StepPlan) -> Iterable[Reference]:
    templates = [template for template in (step.for_each, step.argument) if template is not None]
    return (reference for template in templates for reference in template.references)


def scope_of(
    held: Any, references: Iterable[Reference], *, with_all_steps: bool = False, using: str | None = None
) -> dict[str, Any]:
    """What expressions see: `{input, steps, execution}`; of the steps only what is referred to is loaded."""
    found = [reference.step for reference in references if reference.root == "steps"]
    names = None if with_all_steps or None in found else [name for name in found if name is not None]
    steps = {} if names == [] else graph_rows.step_results(held.id, names=names, using=using)
    return {"input": engine.load_json(held.input), "steps": steps, "execution": execution_facts(held)}


def execution_facts(held: Any) -> dict[str, Any]:
    """The `execution` root of expressions, from an execution's row or a claim."""
    return {
        "id": str(held.id),
        "workflow": held.workflow_name,
        "source": {"kind": held.source_kind, "id": held.source_id},
        "scheduled_for": held.scheduled_for.isoformat() if held.scheduled_for else None,
    }


def _settle_ripe(
    step_run_id: UUID, execution_id: UUID, plan: Plan, ending: Ending, *, now: datetime | None, using: str | None
) -> None:
    """End a step run that is being decided about; what its end makes ripe is for the caller's loop."""
    finished = queue.settle(
        step_run_id, execution_id=execution_id, leaving=[StepState.WAITING], ending=ending, now=now, using=using
    )
    if finished is not None:
        _follow(execution_id, plan, finished, now=now, using=using)


def _fail_ripe(
    step_run_id: UUID,
    execution_id: UUID,
    plan: Plan,
    step: StepPlan,
    error: Exception,
    *,
    now: datetime | None,
    using: str | None,
) -> None:
    ending = ending_of(
        plan,
        step,
        state=StepState.FAILED,
        attempt_state=AttemptState.FAILED,
        reason=f"could not be prepared: {error}",
        letter="" if step.continue_on_error else "unprepared",
        error_type=type(error).__name__,
        error=str(error),
        traceback="".join(tracebacks.format_exception(error)),
        fingerprint=fingerprint(type(error).__name__, str(error), step.name),
    )
    _settle_ripe(step_run_id, execution_id, plan, ending, now=now, using=using)


def _fan_out(
    step_run_id: UUID,
    execution_id: UUID,
    step: StepPlan,
    plan: Plan,
    values: Any,
    *,
    now: datetime | None,
    using: str | None,
) -> list[Hint]:
    if not isinstance(values, list):
        raise ValueError(f"for_each needs a list, got {type(values).__name__}")
    if len(values) > settings.WORKFLOW_MAX_FAN_OUT:
        raise ValueError(f"for_each has {len(values)} items; at most {settings.WORKFLOW_MAX_FAN_OUT} are allowed")
    if not values:
        output = {**items.totals([]), "errors": [], "results": []}
        ending = ending_of(plan, step, state=StepState.SUCCEEDED, output=output, has_output=True)
        _settle_ripe(step_run_id, execution_id, plan, ending, now=now, using=using)
        return []
    graph_rows.decide(step_run_id, waiting_for=WaitingFor.CHILD.value, items=len(values), now=now, using=using)
    return graph_rows.fan_out(
        step_run_id,
        items=values,
        parallel=step.max_parallel,
        bound=settings.WORKFLOW_IN_FLIGHT_PER_LEVEL,
        now=now,
        using=using,
    )


def _stop_items(
    parent_id: UUID, step: StepPlan, finished: Finished, *, now: datetime | None, using: str | None
) -> int | None:
    """Let no further item begin when the one that has ended failed and too many have; how many are open then."""
    failed = finished.parent_items_failed
    if not step.stops_items or not failed or not finished.parent_items_open:
        return finished.parent_items_open
    if not items.stops(step, failed=failed, total=graph_rows.item_count(parent_id, using=using)):
        return finished.parent_items_open
    reason = f"{items.STOPPED}{failed} items had failed"
    return graph_rows.stop_items(parent_id, reason=reason, now=now, using=using)


def _fan_in(
    execution_id: UUID, parent_id: UUID, step: StepPlan, plan: Plan, *, now: datetime | None, using: str | None
) -> None:
    """The last item has ended: so does the step, with its items' results as far as they fit the payload cap."""
    results = graph_rows.item_results(parent_id, using=using)
    output: dict[str, Any] = items.totals(state for state, _ in results)
    state, reason = items.verdict(step, output)
    errors = graph_rows.item_errors(parent_id, limit=items.MOST_ERRORS, using=using) if output["failed"] else []
    output["errors"] = [error.as_json() for error in errors]
    if sum(len(data or "null") for _, data in results) <= settings.WORKFLOW_MAX_PAYLOAD_BYTES:
        output["results"] = [engine.load_json(data) for _, data in results]
    else:
        output |= {"results": None, "truncated": True}
    told = items.described(errors)
    lettered = state is StepState.FAILED and step.max_failed is not None and not step.continue_on_error
    ending = ending_of(
        plan,
        step,
        state=state,
        reason=reason,
        output=output,
        has_output=True,
        letter="items" if lettered else "",
        error_type="ItemsFailed" if lettered else "",
        error=f"{reason}: {told}" if lettered else "",
        fingerprint=fingerprint("ItemsFailed", errors[0].type, step.name) if lettered else "",
    )
    finished = queue.settle(
        parent_id, execution_id=execution_id, leaving=[StepState.WAITING], ending=ending, now=now, using=using
    )
    if finished is not None:
        follow(execution_id, plan, finished, now=now, using=using)


def _keep_output(execution_id: UUID, output: Template, *, now: datetime | None, using: str | None) -> ExecutionState:
    """Store what the execution returns; the state that it ends in."""
    held = graph_rows.hold(execution_id, using=using)
    try:
        value = output.render(
            scope_of(held, output.references, using=using), max_bytes=settings.WORKFLOW_MAX_PAYLOAD_BYTES
        )
    except ExpressionError as error:
        reason = f"output: {error}"
        mark = fingerprint("ExpressionError", reason, "")
        graph_rows.fail_output(execution_id, reason=reason, fingerprint=mark, now=now, using=using)
        return ExecutionState.FAILED
    graph_rows.keep_execution_output(execution_id, value, using=using)
    return ExecutionState.SUCCEEDED
