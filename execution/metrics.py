"""Figures of the engine: executions, attempts, dead letters, queues, workers. Each query reads an index's new end, or
what is open now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from execution import counters, demand, engine, queues
from execution.counters import Source
from scheduling_project.common.metrics import SECONDS, Metric, Samples

#: Nobody needs to know more exactly how many are open; counting them all would cost what they are many.
MOST_COUNTED: Final = 100_000
ALIVE_SECONDS: Final = 30.0

METRICS: Final = (
    Metric("scheduling_executions", "counter", "Executions that ended.", ("workflow", "state")),
    Metric("scheduling_execution_duration_seconds", "histogram", "From the begin to the end of executions."),
    Metric("scheduling_attempts", "counter", "Attempts of steps that ended.", ("workflow", "state")),
    Metric("scheduling_retries", "counter", "Attempts that failed and were to be tried again.", ("queue",)),
    Metric("scheduling_rescues", "counter", "Attempts whose worker was lost.", ("queue",)),
    Metric("scheduling_dead_letters", "counter", "Dead letters that arrived.", ("reason",)),
    Metric("scheduling_executions_open", "gauge", "Executions that have not ended, at most 100,000.", ("state",)),
    Metric("scheduling_dead_letters_open", "gauge", "Undecided dead letters, at most 100,000.", ("state",)),
    Metric("scheduling_queue_depth", "gauge", "Step runs: waiting, in flight, running, later.",
           ("queue", "priority", "state")),
    Metric("scheduling_queue_oldest_age_seconds", "gauge", "How long the oldest has waited.", ("queue", "priority")),
    Metric("scheduling_queue_paused", "gauge", "1 while nobody may claim from it.", ("queue",)),
    Metric("scheduling_queue_slots", "gauge", "Slots of living workers that serve it.", ("queue",)),
    Metric("scheduling_queue_slots_wanted", "gauge", "Slots that it needs, for autoscalers.", ("queue",)),
    Metric("scheduling_queue_workers_wanted", "gauge", "The same in workers of the present size.", ("queue",)),
    Metric("scheduling_worker_slots", "gauge", "Slots of all living workers."),
    Metric("scheduling_worker_busy", "gauge", "Slots in use."),
    Metric("scheduling_processes", "gauge", "Workers and beats that are alive.", ("kind",)),
    Metric("scheduling_heartbeat_age_seconds", "gauge", "Since the latest sign of life.", ("kind",)),
    Metric("scheduling_counter_lag_seconds", "gauge", "How long ago the counters of a source end.", ("source",)),
)  # fmt: skip

_ENDED = """
WITH ended AS MATERIALIZED (
    SELECT w.name AS workflow, e.state, extract(epoch FROM e.finished_at - e.started_at)::float8 AS seconds
    FROM execution_execution e JOIN execution_workflow w ON w.id = e.workflow_id
    WHERE e.finished_at > %(after)s::timestamptz AND e.finished_at <= %(until)s::timestamptz
)
SELECT 'scheduling_executions' AS name, ARRAY[workflow, state]::text[] AS labels, count(*)::float8 AS value
FROM ended GROUP BY workflow, state
UNION ALL
SELECT 'scheduling_execution_duration_seconds_bucket',
       ARRAY[width_bucket(seconds, %(bounds)s::float8[])]::text[], count(*)
FROM ended WHERE seconds IS NOT NULL GROUP BY 2
UNION ALL
SELECT 'scheduling_execution_duration_seconds_sum', ARRAY[]::text[], sum(seconds)
FROM ended HAVING count(seconds) > 0
"""
_ATTEMPTS = """
WITH ended AS MATERIALIZED (
    SELECT w.name AS workflow, a.state, s.queue
    FROM execution_attempt a
    JOIN execution_steprun s ON s.id = a.step_run_id
    JOIN execution_execution e ON e.id = s.execution_id
    JOIN execution_workflow w ON w.id = e.workflow_id
    WHERE a.finished_at > %(after)s::timestamptz AND a.finished_at <= %(until)s::timestamptz
)
SELECT 'scheduling_attempts' AS name, ARRAY[workflow, state]::text[] AS labels, count(*)::float8 AS value
FROM ended GROUP BY workflow, state
UNION ALL
SELECT CASE state WHEN 'lost' THEN 'scheduling_rescues' ELSE 'scheduling_retries' END, ARRAY[queue]::text[], count(*)
FROM ended WHERE state IN ('lost', 'retryable') GROUP BY 1, 2
"""
# Ids are made a moment before their rows: the primary key finds what is new, the timestamp decides.
_LETTERS = """
SELECT 'scheduling_dead_letters' AS name, ARRAY[reason]::text[] AS labels, count(*)::float8 AS value
FROM execution_deadletter
WHERE id > (lpad(to_hex((extract(epoch FROM %(after)s::timestamptz - interval '1 minute') * 1000)::bigint), 12, '0')
            || '70008000000000000000')::uuid
  AND created_at > %(after)s::timestamptz AND created_at <= %(until)s::timestamptz
GROUP BY reason
"""

SOURCES: Final = (
    Source("executions", _ENDED, {"bounds": engine.array(SECONDS)}),
    Source("attempts", _ATTEMPTS, {}),
    Source("dead_letters", _LETTERS, {}),
)

_OPEN = """
SELECT wanted.state, (
    SELECT count(*) FROM (
        SELECT 1 FROM execution_execution e WHERE e.state = wanted.state LIMIT %(most)s::int) open) AS count
FROM unnest(ARRAY['scheduled', 'queued', 'running', 'paused']) AS wanted (state)
"""
_UNDECIDED = """
SELECT wanted.state, (
    SELECT count(*) FROM (
        SELECT 1 FROM execution_deadletter d WHERE d.state = wanted.state LIMIT %(most)s::int) open) AS count
FROM unnest(ARRAY['open', 'redriving']) AS wanted (state)
"""
_PROCESSES = """
SELECT kind, extract(epoch FROM clock_timestamp() - max(seen_at))::float8 AS age,
       count(*) FILTER (WHERE alive) AS alive, coalesce(sum(slots) FILTER (WHERE alive), 0)::int AS slots,
       coalesce(sum(busy) FILTER (WHERE alive), 0)::int AS busy
FROM (
    SELECT *, stopped_at IS NULL AND seen_at > clock_timestamp() - make_interval(secs => %(alive)s::float8) AS alive
    FROM execution_processreport
) p GROUP BY kind
"""


def gauges(using: str = "default") -> Mapping[str, Samples]:
    """What is so at this moment."""
    found: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in METRICS if metric.kind == "gauge"}
    for row in engine.fetch_all(_OPEN, {"most": MOST_COUNTED}, using=using):
        found["scheduling_executions_open"][row.state,] = row.count
    for row in engine.fetch_all(_UNDECIDED, {"most": MOST_COUNTED}, using=using):
        found["scheduling_dead_letters_open"][row.state,] = row.count
    _queues(found, using)
    processes: dict[str, Any] = {
        row.kind: row for row in engine.fetch_all(_PROCESSES, {"alive": ALIVE_SECONDS}, using=using)
    }
    for kind, row in sorted(processes.items()):
        found["scheduling_processes"][kind,] = row.alive
        found["scheduling_heartbeat_age_seconds"][kind,] = max(0.0, row.age)
    workers = processes.get("worker")
    found["scheduling_worker_slots"][()] = workers.slots if workers else 0
    found["scheduling_worker_busy"][()] = workers.busy if workers else 0
    found["scheduling_counter_lag_seconds"] = {(name,): age for name, age in counters.ages(using=using).items()}
    return found


def _queues(found: dict[str, dict[tuple[str, ...], float]], using: str) -> None:
    now = engine.now(using=using)
    states = queues.stats(using=using)
    for need in demand.demand(now=now, states=states, using=using):
        found["scheduling_queue_slots_wanted"][need.queue,] = need.desired_slots
        found["scheduling_queue_workers_wanted"][need.queue,] = need.desired_workers
    for queue in states:
        found["scheduling_queue_paused"][queue.name,] = float(queue.paused_at is not None)
        found["scheduling_queue_slots"][queue.name,] = queue.slots
        for level in queue.levels:
            place = queue.name, str(level.priority)
            for state in ("waiting", "in_flight", "running", "later"):
                found["scheduling_queue_depth"][*place, state] = getattr(level, state)
            if level.oldest_at is not None:
                age = (now - level.oldest_at).total_seconds()
                found["scheduling_queue_oldest_age_seconds"][place] = max(0.0, age)
