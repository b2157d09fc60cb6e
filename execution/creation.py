"""How executions come into being: in bulk, in the caller's transaction, handed over after its commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings

from execution import advance, concurrency, dispatch, engine, live, queue
from execution.definitions import validate_input
from execution.graph import Concurrency, Plan, StepPlan
from execution.models import Execution, Workflow, WorkflowVersion
from execution.plans import plan_of
from execution.states import ExecutionState, StepState, WaitingFor
from scheduling_project.common.errors import Conflict, InvalidInput
from scheduling_project.common.ids import uuid7, uuid7s


@dataclass(frozen=True, slots=True)
class Source:
    """Why an execution exists, in words that the engine does not interpret."""

    kind: str
    id: str = ""
    label: str = ""


API = Source("api")


@dataclass(slots=True, kw_only=True)
class Start:
    """One execution to be; never changed (frozen, it would take four times as long to make, and thousands are).

    `timeout` is in seconds from `start_at` (or now) to the execution's deadline.
    """

    version: WorkflowVersion
    source: Source
    input: Mapping[str, Any] = field(default_factory=dict)
    scheduled_for: datetime | None = None
    idempotency_key: str | None = None
    priority: int | None = None
    queue: str = ""
    retry_policy: Mapping[str, Any] | None = None
    timeout: float | None = None
    concurrency_key: str = ""
    start_at: datetime | None = None
    news_topic: str = ""
    id: UUID = field(default_factory=uuid7)


_NEW_EXECUTIONS = """
INSERT INTO execution_execution (id, workflow_id, version_id, source_kind, source_id, source_label, scheduled_for,
    idempotency_key, news_topic, input, priority, queue, retry_policy, concurrency_key, deadline_at, state,
    state_reason, open_steps, failed_steps, key_held, created_at)
SELECT id, workflow_id, version_id, source_kind, source_id, source_label, scheduled_for, idempotency_key, news_topic,
    input::jsonb, priority, queue, retry_policy::jsonb, concurrency_key, deadline_at, state, '', open_steps, 0, false,
    %(now)s
FROM unnest(%(id)s::uuid[], %(workflow_id)s::uuid[], %(version_id)s::uuid[], %(source_kind)s::text[],
    %(source_id)s::text[], %(source_label)s::text[], %(scheduled_for)s::timestamptz[], %(idempotency_key)s::text[],
    %(news_topic)s::text[], %(input)s::text[], %(priority)s::int[], %(queue)s::text[], %(retry_policy)s::text[],
    %(concurrency_key)s::text[], %(deadline_at)s::timestamptz[], %(state)s::text[], %(open_steps)s::int[])
    AS new (id, workflow_id, version_id, source_kind, source_id, source_label, scheduled_for, idempotency_key,
    news_topic, input, priority, queue, retry_policy, concurrency_key, deadline_at, state, open_steps)
"""

# Without a key nothing can be there already: no speculative insertion, no rows on their way back.
INSERT_KEYLESS = _NEW_EXECUTIONS

# Race: the same idempotency key in two transactions. The unique index makes the second wait for the first's
# commit and then do nothing; step runs are made only for the executions that this statement returns.
INSERT_EXECUTIONS = f"""{_NEW_EXECUTIONS}
ON CONFLICT (idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
"""

# First steps are marked as handed over right here, as far as the window of their lane and level has room: their
# messages go out after the commit, and the sweep sends again whatever a crash in between swallows.
INSERT_STEP_RUNS = """
WITH new AS MATERIALIZED (
    SELECT * FROM unnest(%(id)s::uuid[], %(execution_id)s::uuid[], %(name)s::text[], %(kind)s::text[],
        %(label)s::text[], %(queue)s::text[], %(priority)s::int[], %(timeout)s::float8[], %(state)s::text[],
        %(waiting_for)s::text[], %(needs_open)s::int[], %(available_at)s::timestamptz[], %(pool)s::text[],
        %(pool_units)s::int[])
    WITH ORDINALITY AS new (id, execution_id, name, kind, label, queue, priority, timeout, state, waiting_for,
        needs_open, available_at, pool, pool_units, position)
), ranked AS (
    SELECT new.*, CASE WHEN state = 'queued' AND available_at <= %(now)s
        THEN row_number() OVER (PARTITION BY queue, priority, state, available_at <= %(now)s ORDER BY position)
        END AS place
    FROM new
), level AS MATERIALIZED (
    SELECT queue, priority, CASE WHEN EXISTS (
            SELECT 1 FROM execution_queuesettings q WHERE q.name = lanes.queue AND q.paused_at IS NOT NULL) THEN 0
        ELSE %(bound)s::int - (SELECT count(*) FROM (
            SELECT 1 FROM execution_steprun f WHERE f.queue = lanes.queue AND f.priority = lanes.priority
              AND f.state IN ('queued', 'retryable') AND f.dispatched_at IS NOT NULL LIMIT %(bound)s::int) in_flight)
        END AS room
    FROM (SELECT DISTINCT queue, priority FROM new WHERE state = 'queued') lanes
)
, made AS (
INSERT INTO execution_steprun (id, execution_id, name, kind, label, queue, priority, timeout, state, waiting_for,
    needs_open, available_at, dispatched_at, dispatches, state_reason, items_open, items_failed, attempt, failures,
    worker_deaths, worker, pool, pool_units, created_at)
SELECT ranked.id, execution_id, name, kind, label, ranked.queue, ranked.priority, timeout, state, waiting_for,
    needs_open, available_at, CASE WHEN place <= room THEN %(now)s::timestamptz END,
    CASE WHEN place <= room THEN 1 ELSE 0 END, '', 0, 0, 0, 0, 0, '', pool, pool_units, %(now)s
FROM ranked LEFT JOIN level ON level.queue = ranked.queue AND level.priority = ranked.priority
ORDER BY position
RETURNING id, dispatched_at, state
)
SELECT count(dispatched_at) AS dispatched,
    array_agg(id) FILTER (WHERE dispatched_at IS NULL AND state = 'queued') AS held_back
FROM made
"""


def start_many(starts: Sequence[Start], *, now: datetime, using: str) -> list[UUID]:
    """Create executions with their step runs inside the caller's transaction on `using`.

    Messages are published after its commit. Inputs are taken as they are (`start` validates).

    Returns:
        Per start the id of the execution that exists now: the new one, or the earlier one with the same
        idempotency key.
    """
    if not starts:
        return []
    plans = _plans(starts)
    starts = [
        start if plan.concurrency is None else _with_key(start, plan.concurrency)
        for start, plan in zip(starts, plans, strict=True)
    ]
    live.announce(live.EXECUTIONS, [start.id for start in starts], using=using)
    if all(start.idempotency_key is None for start in starts):
        engine.fetch_all(INSERT_KEYLESS, _executions(starts, plans, now), using=using)
        _insert_step_runs(list(zip(starts, plans, strict=True)), now=now, using=using)
        return [start.id for start in starts]
    inserted = {row.id for row in engine.fetch_all(INSERT_EXECUTIONS, _executions(starts, plans, now), using=using)}
    created = [(start, plan) for start, plan in zip(starts, plans, strict=True) if start.id in inserted]
    if created:
        _insert_step_runs(created, now=now, using=using)
    if len(inserted) == len(starts):
        return [start.id for start in starts]
    keys = [start.idempotency_key for start in starts if start.id not in inserted]
    known = Execution.objects.using(using).filter(idempotency_key__in=keys)
    earlier = dict(known.values_list("idempotency_key", "id"))
    return [start.id if start.id in inserted else earlier[start.idempotency_key] for start in starts]


def start(
    workflow: Workflow,
    *,
    source: Source = API,
    input: Any = None,
    now: datetime | None = None,
    using: str = "default",
    **options: Any,
) -> Execution:
    """Create one execution of the workflow's published version; `options` are further members of `Start`.

    With an idempotency key that was used before, the earlier execution is returned and nothing is created.

    Raises:
        Conflict: the workflow has no published version.
        InvalidInput: `input` does not satisfy the definition's schema.
    """
    if workflow.published is None:
        raise Conflict(f"Workflow {workflow.name} has no published version.", fields={"workflow": ["is a draft"]})
    data = {} if input is None else input
    validate_input(workflow.published, data)
    with engine.transaction(using=using):
        instant = now or engine.now(using=using)
        (execution_id,) = start_many(
            [Start(version=workflow.published, source=source, input=data, **options)], now=instant, using=using
        )
        return Execution.objects.using(using).select_related("workflow", "version").get(pk=execution_id)


def check_size(value: Any, *, field_name: str) -> str:
    """`value` as JSON text, within the payload cap.

    Raises:
        InvalidInput: it is not JSON, or longer than ``WORKFLOW_MAX_PAYLOAD_BYTES``.
    """
    try:
        text = engine.dump_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(fields={field_name: [f"must be JSON: {error}"]}) from None
    size = len(text.encode())
    if size > settings.WORKFLOW_MAX_PAYLOAD_BYTES:
        raise InvalidInput(
            fields={field_name: [f"is {size} bytes of JSON; at most {settings.WORKFLOW_MAX_PAYLOAD_BYTES} are kept"]}
        )
    return text


def _executions(starts: Sequence[Start], plans: Sequence[Plan], now: datetime) -> dict[str, Any]:
    deadlines = []
    for start, plan in zip(starts, plans, strict=True):
        timeout = start.timeout if start.timeout is not None else plan.timeout
        deadlines.append(None if timeout is None else (start.start_at or now) + timedelta(seconds=timeout))
    texts: dict[int, str] = {}  # one schedule's thousand fires share one input object: encode it once
    for start in starts:
        if id(start.input) not in texts:
            texts[id(start.input)] = engine.dump_json(start.input)
    columns: dict[str, list[Any]] = {
        "id": [start.id for start in starts],
        "workflow_id": [start.version.workflow_id for start in starts],
        "version_id": [start.version.pk for start in starts],
        "source_kind": [start.source.kind for start in starts],
        "source_id": [start.source.id for start in starts],
        "source_label": [start.source.label[:200] for start in starts],
        "scheduled_for": [start.scheduled_for for start in starts],
        "idempotency_key": [start.idempotency_key for start in starts],
        "news_topic": [start.news_topic for start in starts],
        "input": [texts[id(start.input)] for start in starts],
        "priority": [_priority(start, plan) for start, plan in zip(starts, plans, strict=True)],
        "queue": [start.queue for start in starts],
        "retry_policy": [
            None if start.retry_policy is None else engine.dump_json(start.retry_policy) for start in starts
        ],
        "concurrency_key": [start.concurrency_key for start in starts],
        "deadline_at": deadlines,
        "state": [
            ExecutionState.SCHEDULED.value
            if start.start_at is not None and start.start_at > now
            else ExecutionState.QUEUED.value
            for start in starts
        ],
        "open_steps": [len(plan.main) for plan in plans],
    }
    return {name: engine.array(values) for name, values in columns.items()} | {"now": now}


def _priority(start: Start, plan: Plan) -> int:
    if start.priority is not None:
        return start.priority
    return plan.priority if plan.priority is not None else start.version.workflow.priority


class _First(NamedTuple):
    """What the step runs of all starts of one plan with the same queue, priority and kind of key have in common.

    `decide`: some first step is not plain, its fate is to be decided at once.
    """

    rows: tuple[tuple[Any, ...], ...]
    decide: bool


def _first_steps(start: Start, plan: Plan) -> _First:
    workflow = start.version.workflow
    rows = []
    for step in plan.main:
        ready = not step.needs and step.is_plain and not start.concurrency_key
        waiting_for = WaitingFor.KEY if not step.needs and start.concurrency_key else WaitingFor.NEEDS
        rows.append(
            (
                step.name,
                step.kind,
                f"{workflow.name}.{step.name}",
                step.queue or start.queue or plan.queue or workflow.queue,
                step.priority if step.priority is not None else _priority(start, plan),
                step.timeout,
                StepState.QUEUED.value if ready else StepState.WAITING.value,
                None if ready else waiting_for.value,
                len(step.needs),
                step.pool,
                step.pool_units,
            )
        )
    decide = not start.concurrency_key and any(_needs_decision(step) for step in plan.main)
    return _First(tuple(rows), decide)


def _insert_step_runs(created: Sequence[tuple[Start, Plan]], *, now: datetime, using: str) -> None:
    known: dict[tuple[Any, ...], _First] = {}
    undecided: list[tuple[Start, Plan]] = []
    rows: list[tuple[Any, ...]] = []
    ids = iter(uuid7s(sum(len(plan.main) for _, plan in created)))
    for start, plan in created:
        # Plans and versions are alive in `created`: their addresses tell them apart.
        kind = (id(plan), id(start.version), start.queue, start.priority, not start.concurrency_key)
        first = known.get(kind)
        if first is None:
            first = known[kind] = _first_steps(start, plan)
        available_at = max(start.start_at, now) if start.start_at is not None else now
        for step in first.rows:
            rows.append((next(ids), start.id, available_at, *step))
        if first.decide:
            undecided.append((start, plan))
    arrays = dict(zip(STEP_COLUMNS, map(engine.array, zip(*rows, strict=True)), strict=True))
    params = arrays | {"now": now, "bound": settings.WORKFLOW_IN_FLIGHT_PER_LEVEL}
    (marked,) = engine.fetch_all(INSERT_STEP_RUNS, params, using=using)
    if marked.dispatched:
        held_back = set(marked.held_back or ())
        dispatch.publish_on_commit(
            [
                queue.Hint(row[0], row[5], row[6], row[7], row[8], 0)
                for row in rows
                if row[STATE] == StepState.QUEUED.value and row[0] not in held_back
            ],
            using=using,
        )
    for start, plan in undecided:
        advance.decide_ripe(start.id, plan, now=now, using=using)
    wishes = [
        concurrency.Wish(
            start.id,
            key=start.concurrency_key,
            limit=plan.concurrency.limit if plan.concurrency is not None else 1,
            on_conflict=plan.concurrency.on_conflict if plan.concurrency is not None else "queue",
        )
        for start, plan in created
        if start.concurrency_key
    ]
    if wishes:
        concurrency.admit(wishes, now=now, using=using)


def _plans(starts: Sequence[Start]) -> list[Plan]:
    """The plan of each start, asked for once per version object."""
    plans: dict[int, Plan] = {}
    for start in starts:
        if id(start.version) not in plans:
            plans[id(start.version)] = plan_of(start.version)
    return [plans[id(start.version)] for start in starts]


def _with_key(start: Start, rule: Concurrency) -> Start:
    """The start with the concurrency key that its definition gives it, unless the start names one itself.

    A key that is null for this input shares nothing with anybody: the execution's own id stands for it.
    """
    if start.concurrency_key:
        return start
    facts = {"id": str(start.id), "workflow": start.version.workflow.name}
    key = rule.key.render({"input": start.input, "steps": {}, "item": None, "execution": facts})
    return replace(start, concurrency_key=str(start.id) if key is None else str(key)[:255])


def _needs_decision(step: StepPlan) -> bool:
    return not step.needs and not step.is_plain


STEP_COLUMNS = (
    "id",
    "execution_id",
    "available_at",
    "name",
    "kind",
    "label",
    "queue",
    "priority",
    "timeout",
    "state",
    "waiting_for",
    "needs_open",
    "pool",
    "pool_units",
)
STATE = STEP_COLUMNS.index("state")
