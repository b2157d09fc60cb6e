"""How a worker comes back to a broker that was away: it asks every two seconds at least.

Celery's consumer waits two seconds longer after each attempt, up to half a minute, and offers no setting for it: after
an outage of minutes the work would wait for half of one although the broker is back.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from celery.worker.consumer import Consumer

#: Seconds before the second attempt, added for each further one, and at most.
INTERVALS: Final = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}


class SteadyConsumer(Consumer):
    """Celery's consumer with short intervals between its attempts to connect."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying as long as it takes (`broker_connection_max_retries`)."""
        return super().ensure_connected(hasten(conn))


def hasten(connection: Any) -> Any:
    """The connection (of kombu), which now waits shortly between its attempts whoever makes it try."""
    connection.ensure_connection = partial(connection.ensure_connection, **INTERVALS)
    return connection
