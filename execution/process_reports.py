"""Signs of life of workers and beats."""

from __future__ import annotations

from collections.abc import Sequence

from execution import engine

REPORT_PROCESS = """
INSERT INTO execution_processreport (name, kind, host, pid, queues, slots, busy, versions, started_at, seen_at)
VALUES (%(name)s::text, %(kind)s::text, %(host)s::text, %(pid)s::int, %(queues)s::jsonb, %(slots)s::int,
    %(busy)s::int, %(versions)s::jsonb,
    clock_timestamp(), clock_timestamp())
ON CONFLICT (name) DO UPDATE SET host = excluded.host, queues = excluded.queues, slots = excluded.slots,
    busy = excluded.busy, versions = excluded.versions, seen_at = excluded.seen_at, stopped_at = NULL,
    started_at = CASE WHEN execution_processreport.pid = excluded.pid THEN execution_processreport.started_at
                      ELSE excluded.started_at END, pid = excluded.pid
"""


def report_process(
    name: str,
    *,
    kind: str,
    host: str,
    pid: int,
    queues: Sequence[str] = (),
    slots: int = 0,
    busy: int = 0,
    versions: dict[str, str] | None = None,
    using: str | None = None,
) -> None:
    """Say that a worker or a beat is alive."""
    params = {
        "name": name,
        "kind": kind,
        "host": host,
        "pid": pid,
        "queues": engine.dump_json(list(queues)),
        "slots": slots,
        "busy": busy,
        "versions": engine.dump_json(versions or {}),
    }
    engine.fetch_all(REPORT_PROCESS, params, using=using)


def report_stopped(name: str) -> None:
    """Say that a worker or a beat has stopped as it should."""
    engine.fetch_all(
        "UPDATE execution_processreport SET stopped_at = clock_timestamp() WHERE name = %(name)s::text", {"name": name}
    )
