"""Rate limits per key: how often attempts may begin, exactly, however many workers ask at once.

A key is a row with the state of a GCRA (Generic Cell Rate Algorithm, ATM Forum Traffic Management 4.0, 1996): its
theoretical arrival time. An attempt that may not begin yet is put back, uncharged and as if it had not been claimed,
and is due at an instant of its own: it holds no worker, no pool and no place on the way, and the waiting ones wake one
by one. `admission` is pure; what follows happens under the key's row lock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from execution import engine
from execution.queue import Claim
from execution.signals import announce_freed
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: A wait so short is not worth a way back through the queue: the worker sleeps, in seconds.
SHORT: Final = 0.05
MAX_KEY: Final = 255


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` attempts per `per` seconds, evenly; up to `burst` of them at once after a pause."""

    limit: int
    per: float
    burst: int = 1

    @property
    def interval(self) -> timedelta:
        return timedelta(seconds=self.per / self.limit)


@dataclass(frozen=True, slots=True)
class Admission:
    """When an attempt begins (now, or in a moment), or else until when it waits; and the key's state after it."""

    begin_at: datetime | None
    wake_at: datetime | None
    tat: datetime
    next_wake_at: datetime


def admission(rate: Rate, *, tat: datetime, next_wake_at: datetime, promised: bool, now: datetime) -> Admission:
    """Whether an attempt may begin.

    Args:
        tat: the key's theoretical arrival time.
        next_wake_at: the first instant that no waiting attempt was promised; a newcomer does not get in before it.
        promised: this attempt has waited for an instant of its own, which has come.
    """
    open_at = tat - rate.interval * (rate.burst - 1)
    earliest = open_at if promised else max(open_at, next_wake_at)
    if earliest <= now + timedelta(seconds=SHORT):
        begin_at = max(earliest, now)
        return Admission(begin_at, None, max(tat, begin_at) + rate.interval, next_wake_at)
    wake_at = max(open_at, next_wake_at)
    return Admission(None, wake_at, tat, wake_at + rate.interval)


class RateDeferred(Exception):
    """The attempt may not begin yet; its step run is queued again, due at `at`."""

    def __init__(self, key: str, at: datetime) -> None:
        self.at = at
        super().__init__(f"rate limit {key}: not before {at.isoformat()}")


# Race: two first attempts of a key. The insert makes the row, or waits for the other's; the lock is held to the end.
HOLD = """
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
INSERT INTO execution_ratekey AS k (key, tat, next_wake_at, interval, updated_at)
SELECT %(key)s::text, now, now, %(interval)s::float8, now FROM clock
ON CONFLICT (key) DO UPDATE SET interval = excluded.interval
RETURNING k.tat, k.next_wake_at
"""

# Read after the lock is held: the clock of the moment, and whether this attempt has its instant.
PROMISED = """
SELECT clock_timestamp() AS now, s.rate_slot_at IS NOT NULL AS promised
FROM execution_steprun s WHERE s.id = %(id)s::uuid AND s.lease_token = %(token)s::uuid
"""

KEEP = """
UPDATE execution_ratekey SET tat = %(tat)s::timestamptz, next_wake_at = %(next_wake_at)s::timestamptz,
    updated_at = now()
WHERE key = %(key)s::text
"""

BEGIN = """
UPDATE execution_steprun SET rate_slot_at = NULL WHERE id = %(id)s::uuid AND lease_token = %(token)s::uuid
"""

# The claim is undone: no attempt was made. The token fences it like any other end.
DEFER = """
WITH deferred AS (
    UPDATE execution_steprun s
    SET state = 'queued', state_reason = %(reason)s::text, lease_token = NULL, lease_until = NULL,
        attempt = s.attempt - 1, available_at = %(at)s::timestamptz, rate_slot_at = %(at)s::timestamptz,
        dispatched_at = NULL, dispatches = 0, worker = ''
    WHERE s.id = %(id)s::uuid AND s.lease_token = %(token)s::uuid
    RETURNING s.id, s.pool_held
), undone AS (
    DELETE FROM execution_attempt WHERE id = %(token)s::uuid AND EXISTS (SELECT 1 FROM deferred)
)
SELECT pool_held FROM deferred
"""


def admit(claim: Claim, key: str, rate: Rate) -> None:
    """Let a claimed attempt begin under a key, after a short sleep where that is all it takes.

    Raises:
        RateDeferred: it has to wait, and somebody claims it again then.
    """
    key = key[:MAX_KEY]
    mine = {"id": claim.id, "token": claim.token}
    with engine.transaction():
        held = engine.fetch_one(HOLD, {"key": key, "interval": rate.interval.total_seconds()})
        present = engine.fetch_one(PROMISED, mine)
        if held is None or present is None:
            return  # the lease is lost: the next heartbeat or commit says so
        found = admission(
            rate, tat=held.tat, next_wake_at=held.next_wake_at, promised=present.promised, now=present.now
        )
        engine.fetch_all(KEEP, {"key": key, "tat": found.tat, "next_wake_at": found.next_wake_at})
        if found.begin_at is not None:
            if present.promised:
                engine.fetch_all(BEGIN, mine)
        else:
            reason = f"rate limit {key}: {rate.limit} per {rate.per:g} s"[:500]
            row = engine.fetch_one(DEFER, mine | {"at": found.wake_at, "reason": reason})
            if row is not None and row.pool_held:
                announce_freed()
    if found.begin_at is None:
        assert found.wake_at is not None
        log.info("step.rate_deferred", step_run_id=str(claim.id), key=key, at=found.wake_at.isoformat())
        raise RateDeferred(key, found.wake_at)
    pause = (found.begin_at - present.now).total_seconds()
    if pause > 0:
        time.sleep(pause)
