"""Units of pools for work outside of steps: asked for, taken with a lease, renewed, given back.

A step takes its pool's units in the statement that claims it and needs none of this. A script, a notebook or another
system that uses the same database, licence or machine takes units here, so that both together never use more than
there is. A lease runs out: a holder that died gives its units back without being asked.

Who waits for a pool goes first: nothing is given here while steps are parked for it, so that asking again and again
cannot starve them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from execution import engine, pools
from execution.queue import CLOCK
from execution.signals import announce_freed
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from scheduling_project.common.ids import uuid7

MOST_UNITS = 1_000_000
LONGEST_LEASE = 86_400.0
BATCH = 200


@dataclass(frozen=True, slots=True)
class Availability:
    """How a pool stands. `is_available`: so many units would be given now."""

    pool: str
    slots: int
    used: int
    free: int
    waiting: int
    is_available: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """Units that `holder` has until `expires_at`."""

    id: UUID
    pool: str
    holder: str
    units: int
    expires_at: datetime


CHECK = """
SELECT p.name, p.slots, p.used, greatest(p.slots - p.used, 0) AS free,
    (SELECT count(*) FROM execution_steprun s
     WHERE s.pool = p.name AND s.state = 'waiting' AND s.waiting_for = 'pool') AS waiting
FROM execution_pool p WHERE p.name = %(pool)s::text
"""

# Race: claims of steps and other leases take the last units. All change `used` under the pool row's lock, and an
# UPDATE that waited for it compares again with what the row holds by then.
TAKE = f"""
WITH {CLOCK},
taken AS (
    UPDATE execution_pool p SET used = p.used + %(units)s::int, updated_at = now()
    WHERE p.name = %(pool)s::text AND p.used + %(units)s::int <= p.slots
      AND NOT EXISTS (SELECT 1 FROM execution_steprun s WHERE s.pool = p.name AND s.state = 'waiting'
                      AND s.waiting_for = 'pool' AND s.pool_units <= p.slots)
    RETURNING p.name
)
INSERT INTO execution_poollease (id, pool_id, holder, units, created_at, expires_at)
SELECT %(id)s::uuid, taken.name, %(holder)s::text, %(units)s::int, clock.now,
    clock.now + make_interval(secs => %(seconds)s::float8)
FROM taken, clock RETURNING expires_at
"""

# Race: it expires at this moment: whoever deletes the row gives its units back, nobody else.
RENEW = f"""
WITH {CLOCK}
UPDATE execution_poollease l SET expires_at = clock.now + make_interval(secs => %(seconds)s::float8)
FROM clock WHERE l.id = %(id)s::uuid AND l.expires_at > clock.now
RETURNING l.id, l.pool_id, l.holder, l.units, l.expires_at
"""
GIVE_BACK = """
WITH gone AS (
    DELETE FROM execution_poollease WHERE id = %(id)s::uuid RETURNING pool_id, units
)
UPDATE execution_pool p SET used = greatest(p.used - gone.units, 0), updated_at = now()
FROM gone WHERE p.name = gone.pool_id RETURNING p.name
"""
EXPIRE = f"""
WITH {CLOCK},
old AS MATERIALIZED (
    SELECT id FROM execution_poollease WHERE expires_at <= (SELECT now FROM clock)
    ORDER BY id LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM execution_poollease l USING old WHERE l.id = old.id RETURNING l.pool_id, l.units
), counted AS (
    UPDATE execution_pool p SET used = greatest(p.used - f.units, 0), updated_at = now()
    FROM (SELECT pool_id, sum(units)::int AS units FROM gone GROUP BY pool_id) f WHERE p.name = f.pool_id
)
SELECT count(*) AS n FROM gone
"""


def check_resource_availability(pool: str, *, units: int = 1, using: str | None = None) -> Availability:
    """How a pool stands, and whether `units` of it would be given now. Takes nothing.

    Raises:
        NotFound: there is no such pool.
        InvalidInput: the number of units.
    """
    _check(units=units)
    row = engine.fetch_one(CHECK, {"pool": pool}, using=using)
    if row is None:
        raise NotFound(f"There is no pool {pool}.")
    is_available = not row.waiting and units <= row.free
    return Availability(row.name, row.slots, row.used, row.free, row.waiting, is_available)


def allocate_resources(
    pool: str,
    *,
    units: int = 1,
    holder: str,
    seconds: float = 300,
    now: datetime | None = None,
    using: str | None = None,
) -> Lease | None:
    """Take units of a pool for so many seconds; None when they are not to be had now.

    Raises:
        NotFound: there is no such pool.
        Conflict: the pool has fewer slots than that at all.
        InvalidInput: the number of units or seconds, or who holds them.
    """
    _check(units=units, seconds=seconds)
    if not holder or len(holder) > 200 or "\x00" in holder:
        raise InvalidInput(fields={"holder": ["must have 1 to 200 characters"]})
    lease_id = uuid7()
    params = {"id": lease_id, "pool": pool, "units": units, "holder": holder, "seconds": seconds, "now": now}
    row = engine.fetch_one(TAKE, params, using=using)
    if row is not None:
        return Lease(lease_id, pool, holder, units, row.expires_at)
    slots = pools.get(pool, using=using or engine.alias()).slots
    if units > slots:
        raise Conflict(f"Pool {pool} has {slots} slots, not {units}.", fields={"units": [f"must be at most {slots}"]})
    return None


def renew(lease: UUID, *, seconds: float = 300, now: datetime | None = None, using: str | None = None) -> Lease:
    """Hold the units for so many seconds from now.

    Raises:
        NotFound: it has run out or was released.
        InvalidInput: the number of seconds.
    """
    _check(seconds=seconds)
    row = engine.fetch_one(RENEW, {"id": lease, "seconds": seconds, "now": now}, using=using)
    if row is None:
        raise NotFound(f"Lease {lease} has run out or was released.")
    return Lease(*row)


def release(lease: UUID, *, using: str | None = None) -> bool:
    """Give the units back; who waits goes on at once. False when they were back already."""
    with engine.transaction(using=using) as alias:
        given = bool(engine.fetch_all(GIVE_BACK, {"id": lease}, using=alias))
        if given:
            announce_freed(using=alias)
    return given


def expire(*, now: datetime | None = None, using: str | None = None) -> int:
    """Take back the units of leases that have run out. Returns how many leases that were."""
    with engine.transaction(using=using) as alias:
        row = engine.fetch_one(EXPIRE, {"limit": BATCH, "now": now}, using=alias)
        expired = int(row.n) if row is not None else 0
        if expired:
            announce_freed(using=alias)
    return expired


def _check(*, units: int = 1, seconds: float = 1.0) -> None:
    if not 1 <= units <= MOST_UNITS:
        raise InvalidInput(fields={"units": [f"must be a whole number from 1 to {MOST_UNITS}"]})
    if not 0 < seconds <= LONGEST_LEASE:
        raise InvalidInput(fields={"seconds": [f"must be more than 0 and at most {LONGEST_LEASE:g}"]})
