"""How many slots each queue needs: the figure that an autoscaler follows.

By Little's law, work that arrives at a rate and takes a duration keeps rate · duration slots busy; what waits already
takes backlog · duration / age limit more, if it is to be done within the limit. Both divided by the utilisation that
slots are to have, since queues in front of fully used slots grow without bound. The duration is the p95, which leaves
room for variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings

from execution import engine, queues
from execution.models import QueueSettings

WINDOW: Final = timedelta(minutes=15)
#: Attempts of the window whose durations are looked at, the newest first.
MOST_ATTEMPTS: Final = 5_000
MOST_ARRIVALS: Final = 200_000
#: Within so many seconds the backlog of a queue without an age limit is to be done.
USUAL_AGE_LIMIT: Final = 300.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What one queue needs. Rates are per second, durations and ages in seconds."""

    queue: str
    arrival_rate: float
    duration_p95: float
    backlog: int
    running: int
    oldest_age: float
    age_limit: float | None
    slots: int
    workers: int
    desired_slots: int
    desired_workers: int


ARRIVALS = """
SELECT queue, count(*) AS n FROM (
    SELECT queue FROM execution_steprun WHERE id >= %(since)s::uuid AND kind IN ('task', 'http', 'workflow')
    ORDER BY id DESC LIMIT %(most)s::int) arrived
GROUP BY queue
"""

DURATIONS = """
SELECT s.queue, percentile_cont(0.95) WITHIN GROUP (
    ORDER BY extract(epoch FROM coalesce(a.finished_at, clock_timestamp()) - a.started_at))::float8 AS p95
FROM (SELECT step_run_id, started_at, finished_at FROM execution_attempt WHERE id >= %(since)s::uuid
      ORDER BY id DESC LIMIT %(most)s::int) a
JOIN execution_steprun s ON s.id = a.step_run_id GROUP BY s.queue
"""


def desired_slots(*, arrival_rate: float, duration: float, backlog: int, age_limit: float, utilisation: float) -> int:
    """Slots that keep up with what arrives and do what waits within the age limit. Pure.

    >>> desired_slots(arrival_rate=2, duration=3, backlog=0, age_limit=60, utilisation=0.75)
    8
    >>> desired_slots(arrival_rate=0, duration=0, backlog=1, age_limit=60, utilisation=0.75)
    1
    """
    needed = (arrival_rate * duration + backlog * duration / age_limit) / utilisation
    return max(math.ceil(round(needed, 6)), 1 if backlog else 0)


def demand(*, now: datetime, states: Sequence[queues.QueueState] | None = None, using: str = "default") -> list[Demand]:
    """What every queue of the deployment needs now. `states`: those of all queues, where they are at hand."""
    since = _first_id(now - WINDOW)
    arrived = {
        row.queue: row.n for row in engine.fetch_all(ARRIVALS, {"since": since, "most": MOST_ARRIVALS}, using=using)
    }
    p95 = {
        row.queue: max(0.0, row.p95 or 0.0)
        for row in engine.fetch_all(DURATIONS, {"since": since, "most": MOST_ATTEMPTS}, using=using)
    }
    limits = dict(QueueSettings.objects.using(using).values_list("name", "age_limit"))
    found = []
    for state in queues.stats(using=using) if states is None else states:
        backlog = state.total("waiting") + state.total("in_flight")
        rate = arrived.get(state.name, 0) / WINDOW.total_seconds()
        limit = limits.get(state.name)
        slots = desired_slots(
            arrival_rate=rate,
            duration=p95.get(state.name, 0.0),
            backlog=backlog,
            age_limit=limit or USUAL_AGE_LIMIT,
            utilisation=settings.WORKFLOW_TARGET_UTILISATION / 100,
        )
        running = state.total("running")
        wanted = max(slots, running)
        each = state.slots / state.workers if state.workers and state.slots else 1
        found.append(
            Demand(
                queue=state.name,
                arrival_rate=round(rate, 4),
                duration_p95=round(p95.get(state.name, 0.0), 4),
                backlog=backlog,
                running=running,
                oldest_age=max(0.0, (now - state.oldest_at).total_seconds()) if backlog and state.oldest_at else 0.0,
                age_limit=limit,
                slots=state.slots,
                workers=state.workers,
                desired_slots=wanted,
                desired_workers=math.ceil(wanted / each),
            )
        )
    return found


def _first_id(instant: datetime) -> UUID:
    """The smallest id (UUIDv7) that can have been made at an instant."""
    return UUID(int=(int(instant.timestamp() * 1000) << 80))
