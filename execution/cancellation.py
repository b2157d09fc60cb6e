"""The one way to cancel an execution: with all that is open in it, and its children."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from execution import child_rows, queue, signals
from execution.states import ExecutionState

#: Children that are cancelled in the same transaction; `children.cancel_orphans` finds the others.
AT_ONCE = 50


def cancel(execution_id: UUID, *, reason: str, now: datetime | None = None, using: str | None = None) -> bool:
    """Cancel an open execution and what it called, in the open transaction; False when it has already ended.

    Order of locking: callers before those that they called.
    """
    if not queue.cancel(execution_id, reason=reason, now=now, using=using):
        return False
    for child_id in child_rows.open_children(execution_id, limit=AT_ONCE, using=using):
        cancel(child_id, reason=f"{reason} (with the execution that called it)", now=now, using=using)
    signals.announce_freed(using=using)
    signals.announce_finished(execution_id, ExecutionState.CANCELLED.value, using=using)
    return True
