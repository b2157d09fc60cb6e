"""What is kept no longer, of all apps: counted, or deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from django.contrib.sessions.models import Session
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from execution import retention
from schedules import audit as ledger
from triggers import maintenance

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Part:
    """One app's share: how to count what would be deleted, and how to delete it."""

    name: str
    count: Callable[[datetime], Counts]
    prune: Callable[[datetime], Counts]


def _expired_sign_ins(now: datetime) -> Counts:
    return {
        "tokens": OutstandingToken.objects.filter(expires_at__lt=now).count(),
        "sessions": Session.objects.filter(expire_date__lt=now).count(),
    }


def _prune_sign_ins(now: datetime) -> Counts:
    counts = _expired_sign_ins(now)
    OutstandingToken.objects.filter(expires_at__lt=now).delete()  # with their entries in the blacklist
    Session.objects.filter(expire_date__lt=now).delete()
    return counts


PARTS: Final = (
    Part("execution", lambda now: asdict(retention.count(now=now)), lambda now: asdict(retention.prune(now=now))),
    Part("schedules", lambda now: {"ledger": ledger.prunable()}, lambda now: {"ledger": ledger.prune()}),
    Part("triggers", lambda now: asdict(maintenance.count(now=now)), lambda now: asdict(maintenance.prune(now=now))),
    Part("access", _expired_sign_ins, _prune_sign_ins),
)
