"""News for this process's other parts, sent after the commit. No work hangs on it; durable news are rows."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

from execution import engine

#: An execution has ended. Arguments: ``execution_id`` (UUID), ``state`` (a terminal state's value).
execution_finished = Signal()

#: Units of a pool or a place of a concurrency key came free. It only hastens what the housekeeping finds.
capacity_freed = Signal()


def announce_freed(*, using: str | None = None) -> None:
    """Send `capacity_freed` once the open transaction has committed."""
    transaction.on_commit(lambda: capacity_freed.send_robust(sender=None) and None, using=using or engine.alias())


def announce_finished(execution_id: UUID, state: str, *, using: str | None = None) -> None:
    """Send `execution_finished` once the open transaction has committed; a receiver's error is only logged."""
    transaction.on_commit(
        lambda: execution_finished.send_robust(sender=None, execution_id=execution_id, state=state) and None,
        using=using or engine.alias(),
    )
