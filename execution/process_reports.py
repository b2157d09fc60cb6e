"""Signs of life of workers and beats, and what a worker learns with its own: what operators want of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from execution import engine
from execution.models.worker import Wanted

#: This start of this process. A pid is not enough: in a container it is the same after every start.
INCARNATION = uuid4()

# Race: an operator's wish against the report: the report writes other columns, and returns the wish that is committed
# by then. A new start forgets what was lent to the one before it and a drain that has ended it; a pause stands.
REPORT_PROCESS = """
WITH reported AS (
    INSERT INTO execution_processreport AS r (name, kind, host, pid, incarnation, queues, own_queues, slots, busy,
        versions, resources, pressure, started_at, seen_at)
    VALUES (%(name)s::text, %(kind)s::text, %(host)s::text, %(pid)s::int, %(incarnation)s::uuid, %(queues)s::jsonb,
        %(own_queues)s::jsonb, %(slots)s::int, %(busy)s::int, %(versions)s::jsonb, %(resources)s::jsonb,
        %(pressure)s::text, clock_timestamp(), clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET host = excluded.host, queues = excluded.queues, own_queues = excluded.own_queues,
        slots = excluded.slots, busy = excluded.busy, versions = excluded.versions, resources = excluded.resources,
        pressure = excluded.pressure, seen_at = excluded.seen_at, stopped_at = NULL, lost_at = NULL,
        pid = excluded.pid, incarnation = excluded.incarnation,
        started_at = CASE WHEN (r.pid, r.incarnation) IS NOT DISTINCT FROM (excluded.pid, excluded.incarnation)
                          THEN r.started_at ELSE excluded.started_at END,
        extra_queues = CASE WHEN (r.pid, r.incarnation) IS NOT DISTINCT FROM (excluded.pid, excluded.incarnation)
                            THEN r.extra_queues ELSE '[]' END,
        wanted = CASE WHEN r.ends_when_drained AND r.drained_at IS NOT NULL AND (r.pid, r.incarnation)
                           IS DISTINCT FROM (excluded.pid, excluded.incarnation) THEN '' ELSE r.wanted END,
        ends_when_drained = r.ends_when_drained AND (r.drained_at IS NULL OR (r.pid, r.incarnation)
                                                     IS NOT DISTINCT FROM (excluded.pid, excluded.incarnation)),
        drained_at = CASE WHEN r.ends_when_drained AND (r.pid, r.incarnation)
                               IS DISTINCT FROM (excluded.pid, excluded.incarnation) THEN NULL ELSE r.drained_at END
    RETURNING r.wanted, r.ends_when_drained, r.drained_at, r.extra_queues
), sampled AS (
    INSERT INTO execution_resourcesample (name, host, at, cpu_percent, memory_bytes, slots, busy, host_cpu_percent,
        host_memory_used, host_memory_total, host_load)
    SELECT %(name)s::text, %(host)s::text, clock_timestamp(), (u ->> 'cpu_percent')::float8,
        (u ->> 'memory_bytes')::bigint, %(slots)s::int, %(busy)s::int, (u #>> '{host,cpu_percent}')::float8,
        (u #>> '{host,memory_used}')::bigint, (u #>> '{host,memory_total}')::bigint, (u #>> '{host,load,0}')::float8
    FROM (SELECT %(resources)s::jsonb AS u) measured WHERE %(sample)s::bool
)
SELECT wanted, ends_when_drained, drained_at, extra_queues FROM reported
"""


@dataclass(frozen=True, slots=True)
class Orders:
    """What is wanted of a worker."""

    wanted: Wanted = Wanted.NOTHING
    ends_when_drained: bool = False
    is_drained: bool = False
    extra_queues: tuple[str, ...] = ()


def report_process(
    name: str,
    *,
    kind: str,
    host: str,
    pid: int,
    queues: Sequence[str] = (),
    own_queues: Sequence[str] = (),
    slots: int = 0,
    busy: int = 0,
    versions: dict[str, str] | None = None,
    resources: Mapping[str, Any] | None = None,
    pressure: str = "",
    sample: bool = False,
    using: str | None = None,
) -> Orders:
    """Say that a worker or a beat is alive; returns what is wanted of it.

    Args:
        queues: those that it consumes from now; `own_queues`: those that it was started with.
        resources: what it uses (`resources.Usage.as_json`).
        sample: keep the measurement for charts too.
    """
    params = {
        "name": name,
        "kind": kind,
        "host": host,
        "pid": pid,
        "incarnation": INCARNATION,
        "queues": engine.dump_json(list(queues)),
        "own_queues": engine.dump_json(list(own_queues)),
        "slots": slots,
        "busy": busy,
        "versions": engine.dump_json(versions or {}),
        "resources": engine.dump_json(dict(resources or {})),
        "pressure": pressure,
        "sample": sample and bool(resources),
    }
    row = engine.fetch_one(REPORT_PROCESS, params, using=using)
    assert row is not None
    return Orders(
        wanted=Wanted(row.wanted),
        ends_when_drained=row.ends_when_drained,
        is_drained=row.drained_at is not None,
        extra_queues=tuple(engine.load_json(row.extra_queues)),
    )


def report_stopped(name: str) -> None:
    """Say that a worker or a beat has stopped as it should."""
    engine.fetch_all(
        "UPDATE execution_processreport SET stopped_at = clock_timestamp() WHERE name = %(name)s::text", {"name": name}
    )
