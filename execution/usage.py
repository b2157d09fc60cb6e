"""What there is and who uses it: hosts, workers with their steps, pools with their holders, and how it went lately."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from execution import engine, workers
from execution.models import Pool, PoolLease, ProcessReport
from scheduling_project.common.errors import InvalidInput

#: Workers that were last seen longer ago than this are not listed.
LISTED_FOR: Final = timedelta(days=1)
MOST_STEPS: Final = 1_000
#: So far back, in so many points for each worker, does the history go.
LONGEST: Final = timedelta(days=31)
POINTS: Final = 240
SHORTEST_STRETCH: Final = 30  # seconds that one point stands for at least

RUNNING = """
SELECT s.id, s.execution_id, s.label, s.worker, s.queue, s.priority, s.pool, s.pool_held, a.started_at
FROM execution_steprun s LEFT JOIN execution_attempt a ON a.id = s.lease_token
WHERE s.state = 'running' ORDER BY s.id LIMIT %(limit)s::int
"""

HISTORY = """
SELECT h.name, h.host, to_timestamp(floor(extract(epoch FROM h.at) / %(stretch)s::int) * %(stretch)s::int) AS instant,
    round(avg(h.cpu_percent)::numeric, 1)::float8 AS cpu_percent, max(h.memory_bytes) AS memory_bytes,
    max(h.slots) AS slots, round(avg(h.busy)::numeric, 2)::float8 AS busy,
    round(avg(h.host_cpu_percent)::numeric, 1)::float8 AS host_cpu_percent,
    max(h.host_memory_used) AS host_memory_used, max(h.host_memory_total) AS host_memory_total,
    round(avg(h.host_load)::numeric, 2)::float8 AS host_load
FROM execution_resourcesample h
WHERE h.at >= %(since)s::timestamptz AND (%(host)s::text IS NULL OR h.host = %(host)s::text)
GROUP BY h.name, h.host, instant ORDER BY instant, h.name LIMIT %(limit)s::int
"""


def resources(
    *, now: datetime, since: datetime | None = None, host: str | None = None, using: str = "default"
) -> dict[str, Any]:
    """Everything at once: `hosts`, `workers`, `pools`, `allocations` and `history`.

    Args:
        since: where the history begins; an hour ago when left out.
        host: only this one's workers and history.

    Raises:
        InvalidInput: `since` lies in the future or further back than a month.
    """
    begin = now - timedelta(hours=1) if since is None else since
    if not now - LONGEST <= begin <= now:
        raise InvalidInput(fields={"since": [f"must lie within the last {LONGEST.days} days"]})
    listed = ProcessReport.objects.using(using).filter(kind="worker", seen_at__gt=now - LISTED_FOR)
    reports = list((listed if host is None else listed.filter(host=host)).order_by("name"))
    running = engine.fetch_all(RUNNING, {"limit": MOST_STEPS}, using=using)
    of_worker: defaultdict[str, list[Any]] = defaultdict(list)
    for row in running:
        of_worker[row.worker.rpartition("/")[0]].append(row)
    shown = [worker_state(report, of_worker.get(report.name, ()), now) for report in reports]
    return {
        "at": now,
        "hosts": hosts(reports, now),
        "workers": shown,
        "pools": [
            {"name": pool.name, "slots": pool.slots, "used": pool.used, "free": pool.free}
            for pool in Pool.objects.using(using).order_by("name")
        ],
        "allocations": [
            *(_allocation(row) for row in running if row.pool_held),
            *(_lease(lease) for lease in PoolLease.objects.using(using).order_by("id")[:MOST_STEPS]),
        ],
        "history": history(since=begin, now=now, host=host, using=using),
    }


def worker_state(report: ProcessReport, running: Iterable[Any], now: datetime) -> dict[str, Any]:
    """One worker: how it stands, what it uses, what it runs."""
    used = report.resources
    return {
        "name": report.name,
        "host": report.host,
        "pid": report.pid,
        "status": workers.status_of(report, now),
        "pressure": report.pressure,
        "queues": report.queues,
        "own_queues": report.own_queues,
        "extra_queues": report.extra_queues,
        "slots": report.slots,
        "busy": report.busy,
        "cpu_percent": used.get("cpu_percent"),
        "memory_bytes": used.get("memory_bytes"),
        "processes": used.get("processes"),
        "versions": report.versions,
        "started_at": report.started_at,
        "seen_at": report.seen_at,
        "steps": [
            {
                "step_run": row.id,
                "execution": row.execution_id,
                "label": row.label,
                "queue": row.queue,
                "priority": row.priority,
                "since": row.started_at,
            }
            for row in running
        ],
    }


def hosts(reports: Iterable[ProcessReport], now: datetime) -> list[dict[str, Any]]:
    """The hosts of living workers, as their last report measured them."""
    by_host: defaultdict[str, list[ProcessReport]] = defaultdict(list)
    for report in reports:
        if workers.is_alive(report, now):
            by_host[report.host].append(report)
    found = []
    for name, own in sorted(by_host.items()):
        measured: Mapping[str, Any] = max(own, key=lambda report: report.seen_at).resources.get("host", {})
        found.append(
            {
                "name": name,
                "workers": len(own),
                "slots": sum(report.slots for report in own),
                "busy": sum(report.busy for report in own),
                "pressure": max((report.pressure for report in own), key=("", "high", "full").index),
                "cpu_percent": measured.get("cpu_percent"),
                "cores": measured.get("cores"),
                "memory_total": measured.get("memory_total"),
                "memory_used": measured.get("memory_used"),
                "memory_available": measured.get("memory_available"),
                "memory_percent": measured.get("memory_percent"),
                "load": measured.get("load"),
                "in_container": measured.get("in_container"),
            }
        )
    return found


def history(*, since: datetime, now: datetime, host: str | None = None, using: str = "default") -> list[dict[str, Any]]:
    """Means and peaks of each worker over even stretches of time, oldest first: what a chart draws."""
    stretch = max(SHORTEST_STRETCH, round((now - since).total_seconds() / POINTS))
    params = {"since": since, "host": host, "stretch": stretch, "limit": 50 * POINTS}
    return [
        {("at" if name == "instant" else name): value for name, value in row._asdict().items()}
        for row in engine.fetch_all(HISTORY, params, using=using)
    ]


def _allocation(row: Any) -> dict[str, Any]:
    return {
        "kind": "step",
        "pool": row.pool,
        "units": row.pool_held,
        "holder": row.label,
        "step_run": row.id,
        "execution": row.execution_id,
        "worker": row.worker,
        "since": row.started_at,
        "expires_at": None,
    }


def _lease(lease: PoolLease) -> dict[str, Any]:
    return {
        "kind": "lease",
        "pool": lease.pool_id,
        "units": lease.units,
        "holder": lease.holder,
        "step_run": None,
        "execution": None,
        "worker": "",
        "since": lease.created_at,
        "expires_at": lease.expires_at,
    }
