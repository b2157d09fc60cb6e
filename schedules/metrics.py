"""Figures of schedules: fires by outcome, lateness, what is overdue, the latest audit of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from execution import engine
from execution.counters import Source
from schedules import audit
from scheduling_project.common.metrics import SECONDS, Metric, Samples

METRICS: Final = (
    Metric("scheduling_fires", "counter", "Due instants as they were first recorded.", ("outcome", "reason")),
    Metric("scheduling_fire_lateness_seconds", "histogram", "From the due instant to the start of its execution."),
    Metric("scheduling_schedules", "gauge", "Schedules that fire, and those that are paused.", ("state",)),
    Metric("scheduling_overdue_seconds", "gauge", "How long the earliest due schedule has been due; 0: none is."),
    Metric("scheduling_ledger_audit_differences", "gauge", "Instants that the latest audit found wrong."),
    Metric("scheduling_ledger_audit_age_seconds", "gauge", "Since the latest audit of the ledger."),
)  # fmt: skip

_FIRES = """
WITH new AS MATERIALIZED (
    SELECT outcome, reason, count, greatest(0, extract(epoch FROM recorded_at - due_at))::float8 AS late
    FROM schedules_schedulefire
    WHERE recorded_at > %(after)s::timestamptz AND recorded_at <= %(until)s::timestamptz
)
SELECT 'scheduling_fires' AS name, ARRAY[outcome, reason]::text[] AS labels, sum(count)::float8 AS value
FROM new GROUP BY outcome, reason
UNION ALL
SELECT 'scheduling_fire_lateness_seconds_bucket', ARRAY[width_bucket(late, %(bounds)s::float8[])]::text[], count(*)
FROM new WHERE outcome = 'started' GROUP BY 2
UNION ALL
SELECT 'scheduling_fire_lateness_seconds_sum', ARRAY[]::text[], sum(late)
FROM new WHERE outcome = 'started' HAVING count(*) > 0
"""
SOURCES: Final = (Source("fires", _FIRES, {"bounds": engine.array(SECONDS)}),)

_SCHEDULES = """
SELECT count(*) FILTER (WHERE enabled) AS active, count(*) FILTER (WHERE NOT enabled) AS paused,
       greatest(0, extract(epoch FROM clock_timestamp() - min(next_fire_at)))::float8 AS overdue
FROM schedules_schedule
"""


def gauges(using: str = "default") -> Mapping[str, Samples]:
    """What is so at this moment."""
    row = engine.fetch_one(_SCHEDULES, {}, using=using)
    assert row is not None
    found: dict[str, Samples] = {
        "scheduling_schedules": {("active",): row.active, ("paused",): row.paused},
        "scheduling_overdue_seconds": {(): row.overdue or 0.0},
    }
    latest = audit.latest(using=using)
    if latest is not None:
        age = (engine.now(using=using) - latest.finished_at).total_seconds()
        found["scheduling_ledger_audit_differences"] = {(): latest.differences}
        found["scheduling_ledger_audit_age_seconds"] = {(): max(0.0, age)}
    return found
