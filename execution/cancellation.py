"""The one way to cancel an execution: with all that is open in it, and its children; then its `finally` steps run."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from execution import advance, child_rows, epilogue, queue, signals
from execution.plans import Unrunnable, plan_by_id
from execution.states import ExecutionState

#: Children that are cancelled in the same transaction; `children.cancel_orphans` finds the others.
AT_ONCE = 50


def cancel(
    execution_id: UUID,
    *,
    reason: str,
    at_once: bool = False,
    now: datetime | None = None,
    using: str | None = None,
) -> bool:
    """Cancel an open execution and what it called, in the open transaction; False when it has already ended.

    Where something of it had begun, its `finally` steps run now and it ends after them; a second call ends these too.

    A step that runs is told by `LeaseLost` at its next heartbeat and has `lease.TERMINATION_GRACE` seconds to tidy up
    before its process ends; with `at_once` it is not told: its process ends at that heartbeat. In thread pools, which
    cannot end one step alone, both tell.

    Order of locking: callers before those that they called.
    """
    if not queue.cancel(execution_id, reason=reason, at_once=at_once, now=now, using=using):
        return False
    for child_id in child_rows.open_children(execution_id, limit=AT_ONCE, using=using):
        told = f"{reason} (with the execution that called it)"
        cancel(child_id, reason=told, at_once=at_once, now=now, using=using)
    signals.announce_freed(using=using)
    if not _cleans_up(execution_id, now=now, using=using):
        signals.announce_finished(execution_id, ExecutionState.CANCELLED.value, using=using)
    return True


def _cleans_up(execution_id: UUID, *, now: datetime | None, using: str | None) -> bool:
    present = epilogue.present(execution_id, using=using)
    if present is None or not present.begun:
        return False
    try:
        plan = plan_by_id(present.version_id)
    except Unrunnable:
        return False  # it is cancelled all the same
    ended = ExecutionState.CANCELLED
    if not epilogue.open_next(execution_id, plan, after=present.section, ended=ended, now=now, using=using):
        return False
    advance.decide_ripe(execution_id, plan, now=now, using=using)
    return True
