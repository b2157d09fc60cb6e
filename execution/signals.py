"""News for this process's other parts, sent after the commit. No work hangs on it; durable news are rows."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

from execution import engine, live

#: An execution has ended. Arguments: ``execution_id`` (UUID), ``state`` (a terminal state's value).
execution_finished = Signal()

#: Dead letters of one kind have arrived. Arguments: ``letter_ids`` (list of UUID, the latest last), ``fingerprint``.
#: It comes from the housekeeping of a worker, shortly after the failures; a receiver that must not miss any reads rows.
dead_letters_arrived = Signal()

#: A group of open dead letters has reached one of ``WORKFLOW_DEAD_LETTER_ALERTS``. Arguments: ``fingerprint``,
#: ``size`` (at least so many are open) and ``threshold``. The audit trail has it too.
dead_letter_group_grew = Signal()

#: Units of a pool or a place of a concurrency key came free. It only hastens what the housekeeping finds.
capacity_freed = Signal()


def announce_freed(*, using: str | None = None) -> None:
    """Send `capacity_freed` once the open transaction has committed."""
    transaction.on_commit(lambda: capacity_freed.send_robust(sender=None) and None, using=using or engine.alias())


def announce_finished(execution_id: UUID, state: str, *, using: str | None = None) -> None:
    """Send `execution_finished` once the open transaction has committed; a receiver's error is only logged."""
    live.announce(live.EXECUTIONS, [execution_id], using=using)
    transaction.on_commit(
        lambda: execution_finished.send_robust(sender=None, execution_id=execution_id, state=state) and None,
        using=using or engine.alias(),
    )


def announce_letters(letter_ids: Sequence[UUID], *, fingerprint: str, using: str | None = None) -> None:
    """Send `dead_letters_arrived` once the open transaction has committed."""
    transaction.on_commit(
        lambda: (
            dead_letters_arrived.send_robust(sender=None, letter_ids=list(letter_ids), fingerprint=fingerprint) and None
        ),
        using=using or engine.alias(),
    )


def announce_growth(fingerprint: str, *, size: int, threshold: int, using: str | None = None) -> None:
    """Send `dead_letter_group_grew` once the open transaction has committed."""
    transaction.on_commit(
        lambda: (
            dead_letter_group_grew.send_robust(sender=None, fingerprint=fingerprint, size=size, threshold=threshold)
            and None
        ),
        using=using or engine.alias(),
    )
