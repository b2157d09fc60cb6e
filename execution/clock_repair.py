"""What a clock that has jumped back leaves behind: instants that were "now" and lie in the future.

Everything here is put right relative to the clock as it is. The rules are those of `execution.queue`; what has an
instant of its own (an execution's start, a durable sleep) keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from execution import engine
from execution.queue import CLOCK

# Race: a worker renews at this very moment: whichever comes second leaves a lease of the same length from its own
# instant on.
CUT_LEASES = f"""
WITH {CLOCK}
UPDATE execution_steprun s SET lease_until = clock.now + make_interval(secs => %(lease)s::float8)
FROM clock WHERE s.state = 'running' AND s.lease_until > clock.now + make_interval(secs => %(lease)s::float8)
RETURNING s.id
"""

# Race: a claim or a sweep at this very moment: only the states are touched that they leave, and a doubled hint is
# harmless. What was never attempted became due when it was queued; what was, so long after its attempt had ended.
HASTEN = f"""
WITH {CLOCK},
late AS MATERIALIZED (
    SELECT s.id, CASE WHEN s.attempt = 0 THEN clock.now ELSE least(s.available_at,
               clock.now + greatest(s.available_at - a.finished_at, interval '0')) END AS available_at
    FROM clock CROSS JOIN execution_steprun s
    JOIN execution_execution e ON e.id = s.execution_id AND e.state IN ('queued', 'running')
    LEFT JOIN execution_attempt a ON a.id = s.last_token
    WHERE s.state IN ('queued', 'retryable')
      AND (s.dispatched_at > clock.now
           OR (s.available_at > clock.now AND ((s.attempt = 0 AND s.state = 'queued') OR a.finished_at > clock.now)))
    FOR NO KEY UPDATE OF s
)
UPDATE execution_steprun s
SET available_at = least(s.available_at, late.available_at), dispatched_at = NULL, dispatches = 0
FROM late WHERE s.id = late.id AND s.state IN ('queued', 'retryable')
RETURNING s.id
"""


@dataclass(frozen=True, slots=True)
class Repaired:
    """How many step runs had a lease that lasts too long, and how many would have waited for the old time."""

    leases: int
    waits: int


def after_jump_back(*, lease: float, now: datetime | None = None) -> Repaired:
    """Cut leases to `lease` seconds from now, and let nothing wait for a "now" that the clock has taken back.

    Without it a dead worker's step, and whatever was queued while the clock was ahead, would wait as long as the jump.
    """
    cut = engine.fetch_all(CUT_LEASES, {"lease": lease, "now": now})
    return Repaired(leases=len(cut), waits=len(engine.fetch_all(HASTEN, {"now": now})))
