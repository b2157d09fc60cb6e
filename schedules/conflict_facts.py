"""What `schedules.conflicts` decides by, read from the database: who may collide, how long runs take, what there is.

Whom a schedule is compared with is found by indexes, never by reading all schedules: those with the same timing, those
whose next fire is one of its own next instants, those that fire next of all, and those that share its key or a pool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from execution import engine
from execution.expressions import ExpressionError
from execution.graph import WORKER_KINDS, Plan
from execution.models import Pool
from execution.plans import plan_of
from execution.queues import stats as queue_stats
from schedules import conflicts, versions
from schedules.claims import SOURCE_KIND
from schedules.conflicts import ENOUGH_RUNS, Bounds, Contender, Found, Resource
from schedules.models import Schedule
from schedules.states import ConflictSeverity, OnConflict
from schedules.timing.spec_reading import LAST_INSTANT
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError

#: Runs whose durations are read, the latest first.
SAMPLE: Final = 200
#: Own instants whose coincidence with others' next fires is looked up.
COINCIDING: Final = 100

# The latest runs of each workflow, by the index on (workflow, -id): never its whole history.
DURATIONS = """
SELECT w.id, count(*)::int AS runs,
    percentile_disc(0.95) WITHIN GROUP (
        ORDER BY extract(epoch FROM e.finished_at - coalesce(e.started_at, e.created_at))::float8) AS p95
FROM unnest(%(ids)s::uuid[]) AS w (id) CROSS JOIN LATERAL (
    SELECT state, started_at, created_at, finished_at FROM execution_execution
    WHERE workflow_id = w.id ORDER BY id DESC LIMIT %(sample)s::int) e
WHERE e.state IN ('succeeded', 'failed') GROUP BY w.id
"""

OWN_DURATION = """
SELECT count(*)::int AS runs,
    percentile_disc(0.95) WITHIN GROUP (
        ORDER BY extract(epoch FROM e.finished_at - coalesce(e.started_at, e.created_at))::float8) AS p95
FROM (SELECT state, started_at, created_at, finished_at FROM execution_execution
      WHERE source_kind = %(kind)s::text AND source_id = %(id)s::text ORDER BY id DESC LIMIT %(sample)s::int) e
WHERE e.state IN ('succeeded', 'failed')
"""

# By the index on the hash of a spec; the comparison itself rules out what only hashes alike.
SAME_TIMING = """
SELECT s.id FROM schedules_schedule s
JOIN schedules_scheduleversion v ON v.id = s.version_id
JOIN schedules_scheduleversion own ON own.id = %(version)s::uuid
WHERE jsonb_hash_extended(v.spec, 0) = jsonb_hash_extended(own.spec, 0) AND v.spec = own.spec
  AND s.workflow_id = %(workflow)s::uuid AND s.id <> %(id)s::uuid AND s.enabled
LIMIT %(limit)s::int
"""

# Workflows are few beside schedules; those whose definition mentions what is shared are looked for among the published.
SHARING_WORKFLOWS = """
SELECT w.id FROM execution_workflow w JOIN execution_workflowversion v ON v.id = w.published_id
WHERE (%(keys)s::bool AND v.definition ? 'concurrency')
   OR jsonb_path_exists(v.definition, '$.steps.*.pool ? (@.name == $names[*])',
                        jsonb_build_object('names', %(pools)s::jsonb))
LIMIT 1000
"""


class ConflictsRefused(DomainError):
    """The schedule conflicts with others, and says that it is not to be saved then."""

    code = "schedule_conflicts"
    status = 409


class _Row(NamedTuple):
    """What `versions.segments` reads of a schedule; a watermark at the end of time asks for the present version."""

    id: UUID
    version_id: UUID | None
    fired_through: int


_FIELDS: Final = (
    "pk",
    "name",
    "workflow_id",
    "workflow__name",
    "workflow__queue",
    "queue",
    "input",
    "concurrency_key",
    "overlap_policy",
    "version_id",
    "max_executions",
    "started_count",
    "on_conflict",
)


def of(
    schedule: Schedule,
    *,
    bounds: Bounds = conflicts.ON_DEMAND,
    now: datetime | None = None,
    using: str = "default",
) -> Found:
    """The conflicts of one schedule, ranked as its `on_conflict` says; a paused one is looked at as if it were not."""
    instant = now or clock.now(using=using)
    seconds = int(instant.timestamp())
    own = _read(Schedule.objects.using(using).filter(pk=schedule.pk), using=using)
    if not own.contenders:
        return Found(seconds, seconds, failed=own.failed)
    (subject,) = own.contenders
    subject = _with_own_duration(subject, using=using)
    chosen = _candidates(schedule, subject, seconds, bounds, using=using)
    others = _read(Schedule.objects.using(using).filter(pk__in=chosen[: bounds.others]), using=using)
    limits = _least(own.key_limits, others.key_limits) | _capacity(subject.wants, using=using)
    found = conflicts.find(subject, others.contenders, limits, now=seconds, bounds=bounds)
    found.findings = conflicts.judged(found.findings, schedule.on_conflict)
    found.truncated = found.truncated or len(chosen) > bounds.others
    found.failed = others.failed
    return found


def among(
    schedules: QuerySet[Schedule],
    *,
    hours: int | None = None,
    bounds: Bounds = conflicts.SURVEY,
    now: datetime | None = None,
    using: str = "default",
) -> Found:
    """The conflicts of all these schedules, with each other. Those that are paused for good do not count.

    Args:
        hours: how far ahead; a day when left out.
    """
    if hours is not None:
        bounds = replace(bounds, horizon=hours * 3600)
    seconds = int((now or clock.now(using=using)).timestamp())
    wanted = schedules.using(using).filter(enabled=True).order_by("next_fire_at", "pk")
    read = _read(wanted[: bounds.others + 1], using=using)
    contenders = read.contenders[: bounds.others]
    resources = {resource for contender in contenders for resource in contender.wants}
    limits = read.key_limits | _capacity(resources, using=using)
    found = conflicts.survey(contenders, limits, now=seconds, bounds=bounds)
    found.truncated = found.truncated or len(read.contenders) > bounds.others
    found.failed = read.failed
    policies = read.policies
    found.findings = [
        ranked
        for finding in found.findings
        for ranked in conflicts.judged([finding], policies.get(finding.schedule[0]) if finding.schedule else None)
    ]
    return found


def refuse(schedule: Schedule, *, now: datetime, using: str = "default") -> None:
    """Stop the deed where a schedule's `on_conflict` refuses what it has just become, inside the deed's transaction.

    Race: two schedules that would each refuse the other, saved at once. Both hold the row of their workflow, so the
    second is compared with what the first committed.

    Raises:
        ConflictsRefused: with all that was found.
    """
    policy = schedule.on_conflict
    wanted = policy.values() if isinstance(policy, Mapping) else [policy]
    if OnConflict.REJECT.value not in wanted:
        return
    engine.fetch_all(
        "SELECT 1 FROM execution_workflow WHERE id = %(id)s::uuid FOR NO KEY UPDATE",
        {"id": schedule.workflow_id},
        using=using,
    )
    found = of(schedule, bounds=conflicts.ON_SAVE, now=now, using=using)
    errors = [finding for finding in found.findings if finding.severity == ConflictSeverity.ERROR]
    if errors:
        raise ConflictsRefused(
            fields={"on_conflict": [finding.message for finding in errors]},
            conflicts=[finding.as_dict() for finding in found.findings],
        )


def warnings_of(schedule: Schedule, *, using: str = "default") -> list[dict[str, Any]]:
    """What is worth telling who has just saved a schedule. Says nothing, and reads nothing, where all is ignored."""
    if schedule.on_conflict == OnConflict.IGNORE.value:
        return []
    return [finding.as_dict() for finding in of(schedule, bounds=conflicts.ON_SAVE, using=using).findings]


# ── Who ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _candidates(schedule: Schedule, subject: Contender, now: int, bounds: Bounds, *, using: str) -> list[UUID]:
    """Ids of enabled schedules that may collide with it, the likeliest first: one more than `bounds` where there is."""
    others = Schedule.objects.using(using).filter(enabled=True).exclude(pk=schedule.pk).order_by()
    most = bounds.others + 1
    params = {"version": schedule.version_id, "workflow": schedule.workflow_id, "id": schedule.pk, "limit": most // 3}
    found = [row.id for row in engine.fetch_all(SAME_TIMING, params, using=using)]
    found += _sharing(others, subject, most // 3, using=using)
    mine = [
        datetime.fromtimestamp(instant.due, UTC)
        for instant in islice(subject.timing.due_between(now, min(now + bounds.horizon, LAST_INSTANT)), COINCIDING)
        if not instant.skip
    ]
    if mine:
        found += others.filter(next_fire_at__in=mine).order_by("next_fire_at").values_list("pk", flat=True)[: most // 2]
    found += others.filter(next_fire_at__isnull=False).order_by("next_fire_at").values_list("pk", flat=True)[:most]
    return list(dict.fromkeys(found))[:most]


def _sharing(others: QuerySet[Schedule], subject: Contender, most: int, *, using: str) -> list[UUID]:
    """Those that may want its key or one of its pools."""
    keys = [name for kind, name in subject.wants if kind == "key"]
    pools = [name for kind, name in subject.wants if kind == "pool"]
    found: list[UUID] = []
    if keys:
        found += others.filter(concurrency_key__in=keys).exclude(concurrency_key="").values_list("pk", flat=True)[:most]
    if keys or pools:
        params = {"keys": bool(keys), "pools": engine.dump_json(pools)}
        workflows = [row.id for row in engine.fetch_all(SHARING_WORKFLOWS, params, using=using)]
        found += others.filter(workflow_id__in=workflows).order_by("next_fire_at").values_list("pk", flat=True)[:most]
    return found


# ── What they want ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Read:
    """Schedules as contenders, how many runs with one key their workflows admit at once, and their `on_conflict`;
    `failed` of them could not be computed."""

    contenders: list[Contender]
    key_limits: dict[Resource, int]
    policies: dict[str, Any]
    failed: int = 0


def _read(schedules: QuerySet[Schedule], *, using: str) -> _Read:
    """These schedules, in order. What cannot be computed is left out: its own page tells so."""
    rows = list(schedules.values(*_FIELDS))
    keyed = [_Row(row["pk"], row["version_id"], LAST_INSTANT + conflicts.DAY) for row in rows]
    broken: list[UUID] = []
    compiled = versions.segments(keyed, using=using, failed=lambda row, error: broken.append(row.id))
    segments = {key.id: chain for key, chain in compiled}
    rows = [row for row in rows if row["pk"] in segments]
    workflows = {row["workflow_id"] for row in rows}
    published = versions.published(workflows, using=using)
    durations = _durations(workflows, using=using)
    read = _Read([], {}, {str(row["pk"]): row["on_conflict"] for row in rows}, len(broken))
    for row in rows:
        version = published.get(row["workflow_id"])
        wants: dict[Resource, int] = {}
        if version is not None:
            plan = plan_of(version)
            wants = _capacity_wanted(plan, row["queue"], row["workflow__queue"])
            key, limit = _key_wanted(plan, row["concurrency_key"], row["input"], row["workflow__name"])
            if key:
                wants["key", key] = 1
                read.key_limits = _least(read.key_limits, {("key", key): limit})
        most = row["max_executions"]
        duration, runs = durations.get(row["workflow_id"], (None, 0))
        read.contenders.append(
            Contender(
                id=str(row["pk"]),
                name=row["name"],
                workflow=row["workflow__name"],
                timing=segments[row["pk"]][-1].timing,
                input=row["input"],
                overlap_policy=row["overlap_policy"],
                wants=wants,
                duration=duration,
                runs=runs,
                remaining=None if most is None else max(0, most - row["started_count"]),
            )
        )
    return read


def _capacity_wanted(plan: Plan, own_queue: str, workflow_queue: str) -> dict[Resource, int]:
    """What one run takes at its beginning of queues (its first steps), and at any time of each pool at least."""
    wants: dict[Resource, int] = {}
    for step in plan.steps.values():
        if step.kind not in WORKER_KINDS:
            continue
        if not step.needs:
            lane = ("queue", step.queue or own_queue or plan.queue or workflow_queue)
            wants[lane] = wants.get(lane, 0) + 1
        if step.pool:
            pool = ("pool", step.pool)
            wants[pool] = max(wants.get(pool, 0), step.pool_units)
    return wants


def _key_wanted(plan: Plan, own: str, data: Mapping[str, Any], workflow: str) -> tuple[str, int]:
    """The concurrency key of its runs and how many may have it; "" for none, or one that each run has for itself."""
    limit = plan.concurrency.limit if plan.concurrency is not None else 1
    if own or plan.concurrency is None:
        return own, limit
    rendered = set()
    for execution_id in ("1", "2"):  # a key that names the execution is shared with nobody
        facts = {"id": execution_id, "workflow": workflow}
        try:
            key = plan.concurrency.key.render({"input": data, "steps": {}, "item": None, "execution": facts})
        except ExpressionError:
            return "", limit  # the fire itself will tell
        rendered.add("" if key is None else str(key)[:255])
    return (rendered.pop(), limit) if len(rendered) == 1 else ("", limit)


def _capacity(wanted: Collection[Resource], *, using: str) -> dict[Resource, int]:
    """How much there is of these queues and pools. A queue that no worker serves at present has no known limit."""
    found: dict[Resource, int] = {}
    if queues := [name for kind, name in wanted if kind == "queue"]:
        slots = {state.name: state.slots for state in queue_stats(queues, using=using)}
        found |= {("queue", name): number for name, number in slots.items() if number}
    if pools := [name for kind, name in wanted if kind == "pool"]:
        rows = Pool.objects.using(using).filter(name__in=pools).values_list("name", "slots")
        found |= {("pool", name): slots for name, slots in rows}
    return found


def _least(one: Mapping[Resource, int], other: Mapping[Resource, int]) -> dict[Resource, int]:
    """Both; where they differ, the smaller."""
    return {**one, **{key: min(limit, one.get(key, limit)) for key, limit in other.items()}}


def _durations(workflows: Iterable[UUID], *, using: str) -> dict[UUID, tuple[float, int]]:
    """Per workflow what 95 of 100 of its latest runs do not exceed, in seconds, and how many were looked at."""
    rows = engine.fetch_all(DURATIONS, {"ids": list(workflows), "sample": SAMPLE}, using=using)
    return {row.id: (round(row.p95, 3), row.runs) for row in rows if row.p95 is not None}


def _with_own_duration(subject: Contender, *, using: str) -> Contender:
    """With the duration of its own runs, once there are enough of them; until then its workflow's stands for it."""
    params = {"kind": SOURCE_KIND, "id": subject.id, "sample": SAMPLE}
    row = engine.fetch_one(OWN_DURATION, params, using=using)
    if row is None or row.p95 is None or (row.runs < ENOUGH_RUNS and row.runs < subject.runs):
        return subject
    return replace(subject, duration=round(row.p95, 3), runs=row.runs)
