"""Figures of triggers: deliveries at the webhook doors by verdict, and how long they took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from execution import engine
from execution.counters import Source
from scheduling_project.common.metrics import SECONDS, Metric, Samples

METRICS: Final = (
    Metric("scheduling_webhook_deliveries", "counter", "Arrivals at webhook doors by verdict.", ("outcome",)),
    Metric("scheduling_webhook_duration_seconds", "histogram", "From the arrival to the answer, of accepted ones."),
    Metric("scheduling_event_groups_open", "gauge", "Groups of events (debounce, batch) that wait for their time."),
)  # fmt: skip

_DELIVERIES = """
WITH new AS MATERIALIZED (
    SELECT outcome, arrivals, duration_ms / 1000 AS seconds FROM triggers_delivery
    WHERE received_at > %(after)s::timestamptz AND received_at <= %(until)s::timestamptz
)
SELECT 'scheduling_webhook_deliveries' AS name, ARRAY[outcome]::text[] AS labels, sum(arrivals)::float8 AS value
FROM new GROUP BY outcome
UNION ALL
SELECT 'scheduling_webhook_duration_seconds_bucket',
       ARRAY[width_bucket(seconds, %(bounds)s::float8[])]::text[], count(*)
FROM new WHERE seconds IS NOT NULL GROUP BY 2
UNION ALL
SELECT 'scheduling_webhook_duration_seconds_sum', ARRAY[]::text[], sum(seconds)
FROM new HAVING count(seconds) > 0
"""
SOURCES: Final = (Source("deliveries", _DELIVERIES, {"bounds": engine.array(SECONDS)}),)

_GROUPS = """
SELECT count(*) AS count FROM (SELECT 1 FROM triggers_pendinggroup WHERE closed_at IS NULL LIMIT 100000) open
"""


def gauges(using: str = "default") -> Mapping[str, Samples]:
    """What is so at this moment."""
    row = engine.fetch_one(_GROUPS, {}, using=using)
    assert row is not None
    return {"scheduling_event_groups_open": {(): row.count}}
