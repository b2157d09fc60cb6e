"""What executions have been like: durations, failures, retries, waiting and cost per workflow and step.

Everything is measured on a bounded sample, the latest executions of each workflow in a window, found by index; so
the cost follows the number of workflows, not the length of history. The figures feed reports, the simulation
(`profile_of`) and the optimiser. Seconds throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from execution import engine
from execution.graph import WORKER_KINDS, Plan
from execution.simulation import Profile, Stage
from scheduling_project.common import clock
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.ids import uuid7_floor

DAYS: Final = 14
SAMPLE: Final = 500
#: Durations are kept as so many equally likely values.
POINTS: Final = 32
QUANTILES: Final = tuple((i + 0.5) / POINTS for i in range(POINTS))
#: What a step that never ran is taken to last.
ASSUMED_SECONDS: Final = 1.0

#: An anomaly needs so many executions on either side of the comparison.
ENOUGH: Final = 10
SLOWER: Final = 1.5
LARGER: Final = 3.0
FAILING: Final = 0.5

_SAMPLE = """
sample AS MATERIALIZED (
    SELECT e.*, row_number() OVER (PARTITION BY e.workflow_id ORDER BY e.id DESC) AS place,
           count(*) OVER (PARTITION BY e.workflow_id) AS sampled
    FROM execution_workflow w CROSS JOIN LATERAL (
        SELECT x.id, x.workflow_id, x.version_id, x.state, x.created_at, x.started_at, x.finished_at, x.scheduled_for
        FROM execution_execution x
        WHERE x.workflow_id = w.id AND x.id > %(since)s::uuid ORDER BY x.id DESC LIMIT %(sample)s::int
    ) e
    WHERE %(ids)s::uuid[] IS NULL OR w.id = ANY(%(ids)s::uuid[])
)
"""

WORKFLOWS = f"""
WITH {_SAMPLE}, timed AS (
    SELECT s.*, extract(epoch FROM s.finished_at - s.started_at)::float8 AS seconds,
           greatest(0, extract(epoch FROM s.created_at - s.scheduled_for))::float8 AS late,
           greatest(0, extract(epoch FROM s.started_at - s.created_at))::float8 AS waited,
           s.place <= s.sampled / 2 AS recent
    FROM sample s
)
SELECT t.workflow_id, w.name, count(*) AS executions,
       count(*) FILTER (WHERE t.state = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE t.state = 'failed') AS failed,
       count(*) FILTER (WHERE t.state = 'cancelled') AS cancelled,
       min(t.created_at) AS first_at, max(t.created_at) AS last_at,
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY t.seconds)
           FILTER (WHERE t.state = 'succeeded') AS seconds,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds)
           FILTER (WHERE t.state = 'succeeded' AND t.recent) AS recent_p50,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds)
           FILTER (WHERE t.state = 'succeeded' AND NOT t.recent) AS earlier_p50,
       percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY t.late) FILTER (WHERE t.late IS NOT NULL) AS late,
       percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY t.waited) FILTER (WHERE t.waited IS NOT NULL) AS waited
FROM timed t JOIN execution_workflow w ON w.id = t.workflow_id
GROUP BY t.workflow_id, w.name ORDER BY w.name
"""

STEPS = f"""
WITH {_SAMPLE}, worked AS (
    SELECT p.workflow_id, p.execution_id, p.name, p.queue, p.pool, p.pool_units, p.state, p.recent,
           count(a.id) AS attempts,
           coalesce(sum(extract(epoch FROM a.finished_at - a.started_at)), 0)::float8 AS busy,
           extract(epoch FROM max(a.finished_at) - min(a.started_at))::float8 AS span,
           extract(epoch FROM p.finished_at - p.created_at)::float8 AS alive,
           CASE WHEN p.failures = 0 THEN greatest(0, extract(epoch FROM p.started_at - p.available_at)) END::float8
               AS waited
    FROM (
        SELECT s.workflow_id, s.place <= s.sampled / 2 AS recent, r.*
        FROM sample s JOIN execution_steprun r ON r.execution_id = s.id
        WHERE r.state IN ('succeeded', 'failed') AND NOT EXISTS (
            SELECT 1 FROM execution_steprun i WHERE i.parent_id = r.id)
    ) p LEFT JOIN execution_attempt a ON a.step_run_id = p.id AND a.finished_at IS NOT NULL
    GROUP BY p.workflow_id, p.execution_id, p.id, p.name, p.queue, p.pool, p.pool_units, p.state, p.recent, p.failures,
        p.started_at, p.available_at, p.finished_at, p.created_at
)
SELECT workflow_id, name, max(queue) AS queue, max(pool) AS pool, max(pool_units) AS units, count(*) AS runs,
       count(DISTINCT execution_id) AS executions,
       count(*) FILTER (WHERE state = 'failed') AS failed,
       coalesce(sum(attempts), 0)::int AS attempts,
       sum(busy)::float8 AS worked,
       sum(greatest(0, span - busy))::float8 AS backoff,
       percentile_cont(%(quantiles)s::float8[]) WITHIN GROUP (ORDER BY busy) AS durations,
       percentile_cont(%(quantiles)s::float8[]) WITHIN GROUP (ORDER BY alive) AS lives,
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY busy) AS seconds,
       percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY waited) FILTER (WHERE waited IS NOT NULL) AS waits,
       sum(waited)::float8 AS waited
FROM worked GROUP BY workflow_id, name ORDER BY name
"""

OUTPUTS = f"""
WITH {_SAMPLE}
SELECT s.workflow_id, r.name,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY pg_column_size(o.data)) FILTER (WHERE s.place <= s.sampled / 2)
           AS recent,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY pg_column_size(o.data)) FILTER (WHERE s.place > s.sampled / 2)
           AS earlier
FROM sample s JOIN execution_steprun r ON r.execution_id = s.id JOIN execution_stepoutput o ON o.step_run_id = r.id
GROUP BY s.workflow_id, r.name
"""

VERSIONS = f"""
WITH {_SAMPLE}
SELECT s.workflow_id, v.number, count(*) AS ended, count(*) FILTER (WHERE s.state = 'failed') AS failed
FROM sample s JOIN execution_workflowversion v ON v.id = s.version_id
WHERE s.state IN ('succeeded', 'failed')
GROUP BY s.workflow_id, v.number ORDER BY s.workflow_id, v.number
"""


@dataclass(frozen=True, slots=True)
class StepPattern:
    """One step over the sample. `durations` are `POINTS` equally likely worker seconds, all attempts together.

    `lives` likewise from being made to its end: what a sleep or an approval takes. `width` items per execution.
    `worked`, `backoff`, `waited`: seconds in all, at work, between attempts, and ready but not started.
    """

    name: str
    queue: str
    pool: str
    units: int
    runs: int
    executions: int
    failed: int
    attempts: int
    p50: float
    p95: float
    p99: float
    wait_p50: float
    wait_p95: float
    worked: float
    backoff: float
    waited: float
    durations: tuple[float, ...]
    lives: tuple[float, ...]

    @property
    def width(self) -> int:
        return max(1, round(self.runs / self.executions)) if self.executions else 1

    @property
    def retry_rate(self) -> float:
        """Attempts beyond the first, per run."""
        return max(0, self.attempts - self.runs) / self.runs if self.runs else 0.0

    @property
    def failure_rate(self) -> float:
        return self.failed / self.runs if self.runs else 0.0


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that is not as it used to be. `code`: slower, larger_output, failing_since."""

    code: str
    message: str
    step: str = ""
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkflowPattern:
    """One workflow over the sample. `trend` is the later half's median duration over the earlier half's."""

    id: UUID
    name: str
    executions: int
    succeeded: int
    failed: int
    cancelled: int
    first_at: datetime
    last_at: datetime
    p50: float
    p95: float
    p99: float
    late_p50: float
    late_p95: float
    wait_p50: float
    wait_p95: float
    trend: float | None
    steps: tuple[StepPattern, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()

    @property
    def failure_rate(self) -> float:
        ended = self.succeeded + self.failed
        return self.failed / ended if ended else 0.0

    @property
    def cost(self) -> float:
        """Worker seconds of the average execution."""
        return sum(step.worked for step in self.steps) / self.executions if self.executions else 0.0

    @property
    def waiting(self) -> dict[str, float]:
        """Seconds waited in all, by cause: for a slot, for a pool's units, between attempts."""
        causes = {"queue": 0.0, "pool": 0.0, "retry": 0.0}
        for step in self.steps:
            causes["pool" if step.pool else "queue"] += step.waited
            causes["retry"] += step.backoff
        return causes

    def as_dict(self) -> dict[str, Any]:
        """In the shape of the API."""
        shown = {name: value for name, value in asdict(self).items() if name != "steps"}
        steps = [
            {name: value for name, value in asdict(step).items() if name not in ("durations", "lives")}
            | {"width": step.width, "retry_rate": step.retry_rate, "failure_rate": step.failure_rate}
            for step in self.steps
        ]
        return shown | {
            "failure_rate": self.failure_rate,
            "cost": self.cost,
            "waiting": self.waiting,
            "steps": steps,
        }


@dataclass(frozen=True, slots=True)
class Patterns:
    """What `analyze_execution_patterns` found in [`since`, `until`]."""

    since: datetime
    until: datetime
    workflows: tuple[WorkflowPattern, ...] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        return {
            "since": self.since,
            "until": self.until,
            "workflows": [workflow.as_dict() for workflow in self.workflows],
            "anomalies": [
                {"workflow": workflow.id, "workflow_name": workflow.name, **asdict(anomaly)}
                for workflow in self.workflows
                for anomaly in workflow.anomalies
            ],
        }


def analyze_execution_patterns(
    *,
    days: int = DAYS,
    sample: int = SAMPLE,
    workflows: Sequence[UUID] | None = None,
    now: datetime | None = None,
    using: str = "default",
) -> Patterns:
    """Measure the latest `sample` executions of each workflow (or of those given) within the last `days` days.

    Raises:
        InvalidInput: naming `days` or `sample`.
    """
    if not 1 <= days <= 366:
        raise InvalidInput(fields={"days": [f"must be from 1 to 366, not {days}"]})
    if not 1 <= sample <= 10_000:
        raise InvalidInput(fields={"sample": [f"must be from 1 to 10000, not {sample}"]})
    until = now or clock.now(using=using)
    since = until - timedelta(days=days)
    params: dict[str, Any] = {
        "since": uuid7_floor(since),
        "sample": sample,
        "ids": None if workflows is None else engine.array(list(workflows)),
    }
    steps: dict[UUID, list[StepPattern]] = {}
    for row in engine.fetch_all(STEPS, params | {"quantiles": engine.array(list(QUANTILES))}, using=using):
        steps.setdefault(row.workflow_id, []).append(_step(row))
    outputs: dict[UUID, list[Any]] = {}
    for row in engine.fetch_all(OUTPUTS, params, using=using):
        outputs.setdefault(row.workflow_id, []).append(row)
    versions: dict[UUID, list[Any]] = {}
    for row in engine.fetch_all(VERSIONS, params, using=using):
        versions.setdefault(row.workflow_id, []).append(row)
    found = []
    for row in engine.fetch_all(WORKFLOWS, params, using=using):
        key = row.workflow_id
        anomalies = _anomalies(row, outputs.get(key, ()), versions.get(key, ()))
        found.append(_workflow(row, tuple(steps.get(key, ())), tuple(anomalies)))
    return Patterns(since, until, tuple(found))


def _step(row: Any) -> StepPattern:
    p50, p95, p99 = row.seconds or (0.0, 0.0, 0.0)
    wait_p50, wait_p95 = row.waits or (0.0, 0.0)
    return StepPattern(
        name=row.name,
        queue=row.queue,
        pool=row.pool,
        units=row.units,
        runs=row.runs,
        executions=row.executions,
        failed=row.failed,
        attempts=row.attempts,
        p50=p50,
        p95=p95,
        p99=p99,
        wait_p50=wait_p50,
        wait_p95=wait_p95,
        worked=row.worked or 0.0,
        backoff=row.backoff or 0.0,
        waited=row.waited or 0.0,
        durations=tuple(row.durations or ()),
        lives=tuple(value or 0.0 for value in row.lives or ()),
    )


def _workflow(row: Any, steps: tuple[StepPattern, ...], anomalies: tuple[Anomaly, ...]) -> WorkflowPattern:
    p50, p95, p99 = row.seconds or (0.0, 0.0, 0.0)
    late_p50, late_p95 = row.late or (0.0, 0.0)
    wait_p50, wait_p95 = row.waited or (0.0, 0.0)
    return WorkflowPattern(
        id=row.workflow_id,
        name=row.name,
        executions=row.executions,
        succeeded=row.succeeded,
        failed=row.failed,
        cancelled=row.cancelled,
        first_at=row.first_at,
        last_at=row.last_at,
        p50=p50,
        p95=p95,
        p99=p99,
        late_p50=late_p50,
        late_p95=late_p95,
        wait_p50=wait_p50,
        wait_p95=wait_p95,
        trend=row.recent_p50 / row.earlier_p50 if row.recent_p50 and row.earlier_p50 else None,
        steps=steps,
        anomalies=anomalies,
    )


def _anomalies(row: Any, outputs: Sequence[Any], versions: Sequence[Any]) -> list[Anomaly]:
    found = []
    enough = row.succeeded >= 2 * ENOUGH
    if enough and row.recent_p50 and row.earlier_p50 and row.recent_p50 > SLOWER * row.earlier_p50:
        message = f"Takes {row.recent_p50:.1f} s at the median, up from {row.earlier_p50:.1f} s."
        if row.recent_p50 - row.earlier_p50 >= 1:
            found.append(Anomaly("slower", message, before=row.earlier_p50, after=row.recent_p50))
    for output in outputs if enough else ():
        if output.recent and output.earlier and output.recent > LARGER * output.earlier and output.recent > 1_000:
            message = f"The output of {output.name} grew from {output.earlier:.0f} to {output.recent:.0f} bytes."
            found.append(Anomaly("larger_output", message, output.name, output.earlier, output.recent))
    since = failing_since([(version.number, version.ended, version.failed) for version in versions])
    if since is not None:
        number, before, after = since
        message = f"Fails {after:.0%} of the time since version {number}; {before:.0%} before."
        found.append(Anomaly("failing_since", message, before=before, after=after))
    return found


def failing_since(versions: Sequence[tuple[int, int, int]]) -> tuple[int, float, float] | None:
    """The version from which on at least half of the executions fail, of (number, ended, failed) ascending. Pure.

    Also the failure rates before and since. None when no version stands out, or there was none before it.

    >>> failing_since([(1, 40, 0), (2, 20, 18)])
    (2, 0.0, 0.9)
    """
    found: tuple[int, float, float] | None = None
    for place, (number, _, _) in enumerate(versions):
        before = versions[:place]
        since = versions[place:]
        ended_before, ended = sum(v[1] for v in before), sum(v[1] for v in since)
        if ended_before < ENOUGH or ended < ENOUGH:
            continue
        rate_before, rate = sum(v[2] for v in before) / ended_before, sum(v[2] for v in since) / ended
        stands_out = rate >= FAILING and rate_before < FAILING / 2
        if stands_out and (found is None or rate - rate_before > found[2] - found[1]):
            found = number, rate_before, rate
    return found


def profile_of(
    name: str, plan: Plan, pattern: WorkflowPattern | None, *, default_queue: str, queue: str = ""
) -> Profile:
    """How the simulation sees a workflow: its steps in levels by their needs, with measured durations.

    Args:
        pattern: None, or without some step, for what never ran: it is taken to last `ASSUMED_SECONDS`.
        queue: a schedule's own, which overrides that of every step.
    """
    known: Mapping[str, StepPattern] = {step.name: step for step in pattern.steps} if pattern is not None else {}
    total = pattern.executions if pattern is not None else 0
    depth: dict[str, int] = {}
    levels: list[list[Stage]] = []
    for step in plan.steps.values():
        depth[step.name] = 1 + max((depth[need] for need in step.needs), default=-1)
        while len(levels) <= depth[step.name]:
            levels.append([])
        seen = known.get(step.name)
        works = step.kind in WORKER_KINDS
        durations = (seen.durations if works else seen.lives) if seen is not None else ()
        levels[depth[step.name]].append(
            Stage(
                name=step.name,
                durations=durations or ((ASSUMED_SECONDS,) if works else (0.0,)),
                queue=(queue or step.queue or plan.queue or default_queue) if works else "",
                pool=step.pool,
                units=step.pool_units,
                width=seen.width if seen is not None else 1,
                share=min(1.0, seen.executions / total) if seen is not None and total else 1.0,
            )
        )
    return Profile(name, tuple(tuple(level) for level in levels))
