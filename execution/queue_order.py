"""The order inside a queue, as far as it can be changed: what people move, and what rises because it has waited long.

Postgres orders what is not yet sent; what is sent lies in Redis in the order of sending. So whoever changes the order
takes back what is on its way at that priority, and it is sent anew in the new order.

The rule of aging: due work that has waited ``WORKFLOW_AGING_SECONDS`` gains one level of priority, after twice the
time another, and so on up to 0. Each turn looks at the oldest of each level, by index; what stands behind them is
behind them in time too, so nothing is passed over for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from django.conf import settings

from execution import audit, dispatch, engine, handoff
from execution.broker import BrokerAway
from execution.queue import CLOCK
from execution.queues import check_name
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

Place = Literal["first", "last", "before", "after"]
PLACES: Final[tuple[Place, ...]] = ("first", "last", "before", "after")
#: How many of the oldest of each level a turn of aging looks at.
FRONT: Final = 500

#: Within how much time those behind a new place move up to make room for it.
MOST_ROOM, LEAST_ROOM = timedelta(seconds=1), timedelta(microseconds=8)

FIND = """
SELECT s.id, s.label, s.priority, s.available_at, s.state FROM execution_steprun s
WHERE s.queue = %(queue)s::text AND (s.id = %(item)s::uuid OR s.execution_id = %(item)s::uuid)
ORDER BY s.state IN ('queued', 'retryable') DESC, s.available_at, s.id LIMIT 1 FOR NO KEY UPDATE
"""

ENDS = """
SELECT s.id, s.priority, s.available_at FROM generate_series(0, 9) AS p(priority) CROSS JOIN LATERAL (
    (SELECT w.id, w.priority, w.available_at FROM execution_steprun w
     WHERE w.queue = %(queue)s::text AND w.priority = p.priority AND w.state IN ('queued', 'retryable')
       AND w.dispatched_at IS NULL AND w.available_at <= %(now)s::timestamptz AND w.id <> %(id)s::uuid
     ORDER BY w.available_at {direction} LIMIT 1)
    UNION ALL
    (SELECT w.id, w.priority, w.available_at FROM execution_steprun w
     WHERE w.queue = %(queue)s::text AND w.priority = p.priority AND w.state IN ('queued', 'retryable')
       AND w.dispatched_at IS NOT NULL AND w.id <> %(id)s::uuid
     ORDER BY w.available_at {direction} LIMIT 1)
) s ORDER BY s.priority {direction}, s.available_at {direction} LIMIT 1
"""
FIRST, LAST = ENDS.format(direction="ASC"), ENDS.format(direction="DESC")

# What stands behind the new place within a `room` of time moves into the latter half of that room, in its order: also
# rows of one transaction, which are due at the same instant and ordered by id.
MAKE_ROOM = """
UPDATE execution_steprun s
SET available_at = %(at)s::timestamptz + %(room)s::interval / 2 + (s.available_at - %(at)s::timestamptz) / 2
WHERE s.queue = %(queue)s::text AND s.priority = %(priority)s::int AND s.state IN ('queued', 'retryable')
  AND s.available_at >= %(at)s::timestamptz AND s.available_at < %(at)s::timestamptz + %(room)s::interval
  AND s.id <> %(id)s::uuid
  AND (s.available_at > %(at)s::timestamptz OR s.id > %(other)s::uuid
       OR (%(before)s::bool AND s.id = %(other)s::uuid))
"""

# Race: the step run is claimed at this moment. Its row is held since FIND, so it is still claimable here.
MOVE = """
UPDATE execution_steprun s SET priority = %(priority)s::int, aged = 0, available_at = %(at)s::timestamptz
WHERE s.id = %(id)s::uuid AND s.state IN ('queued', 'retryable')
"""

TAKE_BACK = """
UPDATE execution_steprun s SET dispatched_at = NULL, dispatches = 0
WHERE s.queue = %(queue)s::text AND s.priority = ANY(%(levels)s::int[]) AND s.state IN ('queued', 'retryable')
  AND s.dispatched_at IS NOT NULL
RETURNING s.id
"""

# Race: the row is claimed, or raised by another worker: locked rows are passed over, and its state, age and levels are
# compared again with what its row holds by now.
AGE = f"""
WITH {CLOCK},
front AS MATERIALIZED (
    SELECT w.id FROM unnest(%(queues)s::text[]) AS q(name)
    CROSS JOIN generate_series(1, 9) AS p(priority)
    CROSS JOIN LATERAL (
        (SELECT s.id FROM execution_steprun s
         WHERE s.queue = q.name AND s.priority = p.priority AND s.state IN ('queued', 'retryable')
           AND s.dispatched_at IS NULL
           AND s.available_at < (SELECT now FROM clock) - make_interval(secs => %(aging)s::float8)
         ORDER BY s.available_at LIMIT %(front)s::int)
        UNION ALL
        (SELECT s.id FROM execution_steprun s
         WHERE s.queue = q.name AND s.priority = p.priority AND s.state IN ('queued', 'retryable')
           AND s.dispatched_at IS NOT NULL
           AND s.available_at < (SELECT now FROM clock) - make_interval(secs => %(aging)s::float8)
         LIMIT %(front)s::int)
    ) w
    WHERE NOT EXISTS (SELECT 1 FROM execution_queuesettings o WHERE o.name = q.name AND o.paused_at IS NOT NULL)
    UNION ALL
    SELECT w.id FROM execution_pool o
    CROSS JOIN generate_series(1, 9) AS p(priority)
    CROSS JOIN LATERAL (
        SELECT s.id FROM execution_steprun s
        WHERE s.pool = o.name AND s.priority = p.priority AND s.state = 'waiting' AND s.waiting_for = 'pool'
        ORDER BY s.id LIMIT %(front)s::int
    ) w
), ripe AS MATERIALIZED (
    SELECT s.id FROM execution_steprun s JOIN front ON front.id = s.id
    JOIN execution_execution e ON e.id = s.execution_id AND e.state <> 'paused'
    WHERE s.available_at < (SELECT now FROM clock) - make_interval(secs => %(aging)s::float8 * (s.aged + 1))
    FOR NO KEY UPDATE OF s SKIP LOCKED
)
UPDATE execution_steprun s SET priority = s.priority - 1, aged = s.aged + 1, dispatched_at = NULL, dispatches = 0
FROM ripe WHERE s.id = ripe.id AND s.priority > 0
  AND s.available_at < (SELECT now FROM clock) - make_interval(secs => %(aging)s::float8 * (s.aged + 1))
  AND (s.state IN ('queued', 'retryable') OR (s.state = 'waiting' AND s.waiting_for = 'pool'))
RETURNING s.id
"""


def age(*, now: datetime | None = None) -> int:
    """Raise by one level what has waited long enough for it. Returns how many step runs rose.

    Their messages of the lower level find nothing to claim any more; the sweep sends them anew at the higher one.
    """
    if not settings.WORKFLOW_AGING_SECONDS:
        return 0
    params = {
        "queues": list(settings.WORKFLOW_QUEUES),
        "aging": settings.WORKFLOW_AGING_SECONDS,
        "front": FRONT,
        "now": now,
    }
    raised = len(engine.fetch_all(AGE, params))
    if raised:
        log.info("queue.aged", step_runs=raised)
    return raised


def reorder(
    queue: str, item: UUID, place: Place, *, actor: str, other: UUID | None = None, using: str | None = None
) -> None:
    """Put something that waits in a queue first or last of all that is due there, or right before or after `other`.

    It takes over the priority of its new neighbour. Holds at once, also for what has been sent.

    Args:
        item: id of a step run, or of an execution (its next step run in this queue).
        other: likewise; for ``before`` and ``after``.

    Raises:
        NotFound: there is no such queue, or one of the two is not in it.
        InvalidInput: the place is none, or `other` is missing or superfluous.
        Conflict: one of the two does not wait there to be claimed now.
    """
    check_name(queue)
    if place not in PLACES:
        raise InvalidInput(fields={"place": [f"must be one of {', '.join(PLACES)}"]})
    if (other is None) == (place in ("before", "after")):
        word = "is needed" if other is None else "has no meaning"
        raise InvalidInput(fields={"other": [f"{word} with place {place}"]})
    with engine.transaction(using=using) as alias:
        now = engine.now(using=alias)
        moved = _find(queue, item, "item", now, alias)
        if other is None:
            sql = FIRST if place == "first" else LAST
            neighbour: Any = engine.fetch_one(sql, {"queue": queue, "now": now, "id": moved.id}, using=alias)
            if neighbour is None:
                return  # it is the only one
            step = timedelta(milliseconds=-1) if place == "first" else timedelta(microseconds=1)
        else:
            neighbour = _find(queue, other, "other", now, alias)
            if neighbour.id == moved.id:
                raise InvalidInput(fields={"other": ["is the same as item"]})
            room = max(min(MOST_ROOM, now - neighbour.available_at), LEAST_ROOM)
            step = room / 4
            params = {
                "queue": queue,
                "priority": neighbour.priority,
                "at": neighbour.available_at,
                "id": moved.id,
                "other": neighbour.id,
                "before": place == "before",
                "room": room,
            }
            engine.fetch_all(MAKE_ROOM, params, using=alias)
        target = {"id": moved.id, "priority": neighbour.priority, "at": neighbour.available_at + step}
        engine.fetch_all(MOVE, target, using=alias)
        _send_anew(queue, sorted({moved.priority, neighbour.priority}), now, alias)
        audit.record(
            actor=actor,
            action="queue.reorder",
            subject_kind="queue",
            subject_id=queue,
            subject_label=queue,
            note=f"{moved.label} {place}" + (f" {neighbour.label}" if other is not None else ""),
            changes={
                "step_run": {"before": None, "after": str(moved.id)},
                "priority": {"before": moved.priority, "after": neighbour.priority},
            },
            using=alias,
        )


def _find(queue: str, item: UUID, name: str, now: datetime, using: str) -> Any:
    row = engine.fetch_one(FIND, {"queue": queue, "item": item}, using=using)
    if row is None:
        raise NotFound(f"Nothing in queue {queue} has the id {item}.", fields={name: ["is not in this queue"]})
    if row.state not in {"queued", "retryable"} or row.available_at > now:
        raise Conflict(f"{row.label} is {row.state} and does not wait to be claimed now.", fields={name: ["must wait"]})
    return row


def _send_anew(queue: str, levels: Sequence[int], now: datetime, using: str) -> None:
    """Take back what is on its way at some levels, and send as much again in the order of now.

    The rows are held while their messages are taken back, so that nobody sends them again meanwhile; a broker that is
    away keeps the old order of what it had, and nothing else is lost.
    """
    taken = engine.fetch_all(TAKE_BACK, {"queue": queue, "levels": list(levels)}, using=using)
    try:
        dispatch.withdraw(queue, levels, {row.id for row in taken})
    except BrokerAway as error:
        log.warning("queue.not_withdrawn", queue=queue, error=str(error))
    hints = handoff.mark_due(queues=[queue], bound=settings.WORKFLOW_IN_FLIGHT_PER_LEVEL, using=using)
    dispatch.publish_on_commit(hints, using=using)
