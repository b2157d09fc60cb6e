"""Counters that survive pruning: what is new since the last look is added up once and kept (`MetricCounter`).

A source is a statement over a window of time that an index finds. Each look counts what lies between the source's
mark and a moment ago and moves the mark in the same transaction, so its cost follows what is new, never the length of
history. Rows that become visible later than `LAG_SECONDS` after their own timestamp are not counted; nor is what
happened before the last `MOST_SECONDS` when nobody looked for so long.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError

from execution import engine
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: How long a transaction may take from writing a timestamp to its commit. The engine's statements have 5 s.
LAG_SECONDS: Final = 10.0
MOST_SECONDS: Final = 3600.0
#: One statement counts at most so many seconds' rows, and has so long for it.
WINDOW_SECONDS: Final = 900.0
BOUND: Final = "SET LOCAL statement_timeout = '2s'"
OTHER: Final = "other"
WORKFLOW: Final = "workflow"


@dataclass(frozen=True, slots=True)
class Source:
    """Something to be counted.

    Args:
        sql: a statement with the parameters ``after`` (excluded) and ``until`` (included), and `extra`; its rows are
            (name, labels as ``text[]``, value to add). Of the names in `BY_WORKFLOW` the first label is a workflow,
            and only so many workflows get counters of their own.
    """

    name: str
    sql: str
    extra: Mapping[str, Any]


# Race: two web processes are asked at once. One holds the mark and counts, the other reads what is there.
HOLD: Final = """
SELECT through, clock_timestamp() AS now FROM execution_metricmark WHERE source = %(source)s::text
FOR NO KEY UPDATE SKIP LOCKED
"""
BEGIN: Final = """
INSERT INTO execution_metricmark (source, through)
VALUES (%(source)s::text, clock_timestamp() - make_interval(secs => %(lag)s::float8)) ON CONFLICT (source) DO NOTHING
"""
MOVE: Final = "UPDATE execution_metricmark SET through = %(until)s::timestamptz WHERE source = %(source)s::text"
ADD: Final = """
INSERT INTO execution_metriccounter (name, labels, value)
SELECT * FROM unnest(%(names)s::text[], %(labels)s::text[], %(values)s::float8[])
ON CONFLICT (name, labels) DO UPDATE SET value = execution_metriccounter.value + excluded.value
"""
READ: Final = "SELECT name, labels, value FROM execution_metriccounter ORDER BY name, labels"
MARKS: Final = """
SELECT source, extract(epoch FROM clock_timestamp() - through)::float8 AS age FROM execution_metricmark
"""
#: Counters whose first label is a workflow.
BY_WORKFLOW: Final = ("scheduling_executions", "scheduling_attempts")
NAMED: Final = """
SELECT DISTINCT labels::jsonb ->> 0 AS workflow FROM execution_metriccounter WHERE name = ANY(%(names)s::text[])
"""
_window: dict[str, float] = {}


def look(sources: Sequence[Source], *, using: str = "default", seconds: float = 1.0) -> None:
    """Count what is new, for at most about `seconds`. What is left is for the next look.

    A source that cannot be counted in time is logged and looked at in smaller pieces from then on.
    """
    give_up_at = time.monotonic() + seconds
    for source in sources:
        try:
            while time.monotonic() < give_up_at and _advance(source, using):
                pass
        except DatabaseError as error:
            _window[source.name] = max(5.0, _window.get(source.name, WINDOW_SECONDS) / 4)
            log.warning("metrics.not_counted", source=source.name, error=str(error).strip())


def _advance(source: Source, using: str) -> bool:
    """Count one window. Whether there is more."""
    with engine.transaction(using=using):
        engine.fetch_all(BOUND, {}, using=using)
        row = engine.fetch_one(HOLD, {"source": source.name}, using=using)
        if row is None:
            engine.fetch_all(BEGIN, {"source": source.name, "lag": LAG_SECONDS}, using=using)
            return False
        newest = row.now - timedelta(seconds=LAG_SECONDS)
        after = max(row.through, newest - timedelta(seconds=MOST_SECONDS))
        until = min(newest, after + timedelta(seconds=_window.get(source.name, WINDOW_SECONDS)))
        if until <= after:
            return False
        _count(source, after, until, using)
        engine.fetch_all(MOVE, {"source": source.name, "until": until}, using=using)
        return bool(until < newest)


def _count(source: Source, after: datetime, until: datetime, using: str) -> None:
    rows = engine.fetch_all(source.sql, {"after": after, "until": until, **source.extra}, using=using)
    if not rows:
        return
    named = _named(using) if any(row.name in BY_WORKFLOW for row in rows) else set()
    sums: dict[tuple[str, str], float] = {}
    for name, labels, value in rows:
        if name in BY_WORKFLOW:
            workflow, *others = labels
            labels = [_own_or_other(workflow, named), *others]
        key = (name, json.dumps(list(labels)))
        sums[key] = sums.get(key, 0.0) + float(value or 0.0)
    columns = sorted((name, labels, value) for (name, labels), value in sums.items())
    arrays = [engine.array(column) for column in zip(*columns, strict=True)]
    engine.fetch_all(ADD, dict(zip(("names", "labels", "values"), arrays, strict=True)), using=using)


def _own_or_other(workflow: str, named: set[str]) -> str:
    """A workflow keeps the label that it got first, so that no counter ever goes down."""
    if workflow not in named:
        if len(named) >= settings.METRICS_WORKFLOWS:
            return OTHER
        named.add(workflow)
    return workflow


def _named(using: str) -> set[str]:
    """Workflows that have counters of their own."""
    rows = engine.fetch_all(NAMED, {"names": engine.array(BY_WORKFLOW)}, using=using)
    return {row.workflow for row in rows} - {OTHER}


def read(*, using: str = "default") -> dict[str, dict[tuple[str, ...], float]]:
    """All counters: per name the values by label values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for name, labels, value in engine.fetch_all(READ, {}, using=using):
        found.setdefault(name, {})[tuple(json.loads(labels))] = value
    return found


def ages(*, using: str = "default") -> dict[str, float]:
    """Per source how many seconds ago its counters end."""
    return {row.source: row.age for row in engine.fetch_all(MARKS, {}, using=using)}
