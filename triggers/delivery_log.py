"""Refused deliveries in the log and the audit trail: a sample, so that an attack can fill neither.

Per process, endpoint and outcome, `KEPT` refusals a minute become rows; the next one that is kept says how many
were left out. The first refused authentication of ten minutes becomes an audit entry.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from execution import audit, engine
from scheduling_project.common.logs import get_logger
from triggers.models import Delivery
from triggers.states import DeliveryOutcome

log = get_logger(__name__)

KEPT: Final = 20
WINDOW: Final = 60.0
AUDIT_WINDOW: Final = 600.0


@dataclass(slots=True)
class _Tally:
    since: float
    kept: int = 0
    left_out: int = 0


_tallies: dict[tuple[UUID, str], _Tally] = {}
_audited: dict[UUID, float] = {}
_lock = threading.Lock()


def note(
    endpoint_id: UUID,
    slug: str,
    outcome: DeliveryOutcome,
    *,
    status: int,
    reason: str,
    sender: str,
    now: datetime,
    size: int = 0,
    delivery_id: str = "",
) -> None:
    """Note what is no event (a refusal, a handshake), if this minute's sample has room for it.

    A line counts those that were left out before it (`Delivery.arrivals`), so that sums stay right.
    """
    moment = time.monotonic()
    left_out = _sampled(endpoint_id, outcome, moment)
    if left_out is None:
        return
    said = f"{reason} (and {left_out} more that were not kept)" if left_out else reason
    using = engine.alias()
    Delivery.objects.using(using).create(
        endpoint_id=endpoint_id,
        outcome=outcome,
        status=status,
        reason=said[:500],
        sender=sender[:200],
        size=size,
        delivery_id=delivery_id[:256],
        arrivals=1 + left_out,
        received_at=now,
    )
    if outcome is DeliveryOutcome.HANDSHAKE:
        return
    log.info("webhook.refused", endpoint=slug, outcome=outcome.value, status=status, reason=reason, sender=sender)
    if outcome in {DeliveryOutcome.UNAUTHENTICATED, DeliveryOutcome.FORBIDDEN} and _audits(endpoint_id, moment):
        audit.record(
            actor=sender or "unknown",
            action="endpoint.refused",
            subject_kind="endpoint",
            subject_id=endpoint_id,
            subject_label=slug,
            note=said,
            using=using,
        )


def _sampled(endpoint_id: UUID, outcome: DeliveryOutcome, moment: float) -> int | None:
    """How many were left out since the last one that was kept; None if this one is left out, too."""
    with _lock:
        tally = _tallies.setdefault((endpoint_id, outcome), _Tally(moment))
        if moment - tally.since >= WINDOW:
            tally.since, tally.kept = moment, 0
        if tally.kept >= KEPT:
            tally.left_out += 1
            return None
        tally.kept += 1
        left_out, tally.left_out = tally.left_out, 0
        return left_out


def _audits(endpoint_id: UUID, moment: float) -> bool:
    with _lock:
        if moment - _audited.get(endpoint_id, float("-inf")) < AUDIT_WINDOW:
            return False
        _audited[endpoint_id] = moment
        return True


def forget() -> None:
    """Begin all samples anew (tests)."""
    with _lock:
        _tallies.clear()
        _audited.clear()
