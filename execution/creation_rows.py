"""The rows of new executions and their step runs: what goes to Postgres, and what comes back of it.

Many executions differ in little but their ids: what they share is sent once, as a *form*, and each row names its form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.conf import settings

from execution import engine
from execution.graph import Plan, StepPlan
from execution.queue import Hint
from execution.states import ExecutionState, StepState, WaitingFor
from scheduling_project.common.ids import uuid7s

if TYPE_CHECKING:
    from execution.creation import Start

_NEW_EXECUTIONS = """
WITH form AS MATERIALIZED (
    SELECT workflow_id, version_id, source_kind, scheduled_for, news_topic, input::jsonb AS input, priority, queue,
        retry_policy::jsonb AS retry_policy, concurrency_key, deadline_at, state, open_steps, number
    FROM unnest(%(workflow_id)s::uuid[], %(version_id)s::uuid[], %(source_kind)s::text[],
        %(scheduled_for)s::timestamptz[], %(news_topic)s::text[], %(input)s::text[], %(priority)s::int[],
        %(queue)s::text[], %(retry_policy)s::text[], %(concurrency_key)s::text[], %(deadline_at)s::timestamptz[],
        %(state)s::text[], %(open_steps)s::int[])
    WITH ORDINALITY AS form (workflow_id, version_id, source_kind, scheduled_for, news_topic, input, priority,
        queue, retry_policy, concurrency_key, deadline_at, state, open_steps, number)
)
INSERT INTO execution_execution (id, workflow_id, version_id, source_kind, source_id, source_label, scheduled_for,
    idempotency_key, news_topic, input, priority, queue, retry_policy, concurrency_key, deadline_at, state,
    state_reason, open_steps, failed_steps, key_held, created_at)
SELECT new.id, workflow_id, version_id, source_kind, new.source_id, new.source_label, scheduled_for,
    new.idempotency_key, news_topic, input, priority, queue, retry_policy, concurrency_key, deadline_at, state,
    '', open_steps, 0, false, %(now)s
FROM unnest(%(id)s::uuid[], %(source_id)s::text[], %(source_label)s::text[], %(idempotency_key)s::text[],
    %(form)s::bigint[]) AS new (id, source_id, source_label, idempotency_key, form)
JOIN form ON form.number = new.form
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
# messages go out after the commit, and the sweep sends again whatever a crash in between swallows. `place` counts
# the ready ones of each lane and level, so that the number marked says which they are.
_STEP_RUNS = """
form AS MATERIALIZED (
    SELECT * FROM unnest(%(name)s::text[], %(kind)s::text[], %(label)s::text[], %(queue)s::text[], %(priority)s::int[],
        %(timeout)s::float8[], %(state)s::text[], %(waiting_for)s::text[], %(needs_open)s::int[], %(pool)s::text[],
        %(pool_units)s::int[], %(available_at)s::timestamptz[])
    WITH ORDINALITY AS form (name, kind, label, queue, priority, timeout, state, waiting_for, needs_open, pool,
        pool_units, available_at, number)
), level AS MATERIALIZED (
    SELECT queue, priority, CASE WHEN EXISTS (
            SELECT 1 FROM execution_queuesettings q WHERE q.name = lanes.queue AND q.paused_at IS NOT NULL) THEN 0
        ELSE %(bound)s::int - (SELECT count(*) FROM (
            SELECT 1 FROM execution_steprun f WHERE f.queue = lanes.queue AND f.priority = lanes.priority
              AND f.state IN ('queued', 'retryable') AND f.dispatched_at IS NOT NULL LIMIT %(bound)s::int) in_flight)
        END AS room
    FROM (SELECT DISTINCT queue, priority FROM form WHERE state = 'queued') lanes
), fitting AS MATERIALIZED (
    SELECT form.*, level.room FROM form
    LEFT JOIN level ON level.queue = form.queue AND level.priority = form.priority
), made AS (
INSERT INTO execution_steprun (id, execution_id, name, kind, label, queue, priority, timeout, state, waiting_for,
    needs_open, available_at, dispatched_at, dispatches, state_reason, items_open, items_failed, attempt, failures,
    worker_deaths, worker, pool, pool_units, created_at)
SELECT new.id, new.execution_id, name, kind, label, queue, priority, timeout, state, waiting_for,
    needs_open, available_at, CASE WHEN new.place <= room THEN %(now)s::timestamptz END,
    CASE WHEN new.place <= room THEN 1 ELSE 0 END, '', 0, 0, 0, 0, 0, '', pool, pool_units, %(now)s
FROM unnest(%(id)s::uuid[], %(execution_id)s::uuid[], %(form)s::bigint[], %(place)s::int[])
    AS new (id, execution_id, form, place)
JOIN fitting ON fitting.number = new.form
{only_if}RETURNING queue, priority, dispatched_at
)"""
#: How many of ``made`` were marked, by lane and level: what `StepRuns.hints` wants.
MARKED = """
SELECT queue, priority, count(*)::int AS dispatched FROM made WHERE dispatched_at IS NOT NULL GROUP BY queue, priority
"""
INSERT_STEP_RUNS = f"WITH {_STEP_RUNS.format(only_if='')}{MARKED}"


def _parameters_named(prefix: str, sql: str) -> str:
    return re.sub(r"%\((?!now\)|bound\))(\w+)\)s", rf"%({prefix}\1)s", sql)


def ctes_after(gate: str) -> str:
    """The CTEs that create executions if the CTE `gate` has a row: for a statement that also stores why they start.

    It must have no other CTEs called executions, form, level, fitting or made; `MARKED` reads ``made``. Its parameters
    are `in_one_statement`'s. Nothing looks for idempotency keys: they must be new.
    """
    only_if = f"WHERE EXISTS (SELECT 1 FROM {gate})\n"
    executions = _parameters_named("execution_", f"{_NEW_EXECUTIONS}{only_if}")
    return f"executions AS ({executions}), {_parameters_named('step_', _STEP_RUNS.format(only_if=only_if))}"


def in_one_statement(executions: Mapping[str, Any], step_runs: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `ctes_after`, from those of the two statements that it is made of."""
    shared = {"now", "bound"}
    params = {f"execution_{name}": value for name, value in executions.items() if name not in shared}
    params |= {f"step_{name}": value for name, value in step_runs.items() if name not in shared}
    return params | {"now": step_runs["now"], "bound": step_runs["bound"]}


EXECUTION_FORM = (
    "workflow_id",
    "version_id",
    "source_kind",
    "scheduled_for",
    "news_topic",
    "input",
    "priority",
    "queue",
    "retry_policy",
    "concurrency_key",
    "deadline_at",
    "state",
    "open_steps",
)
STEP_FORM = (
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
    "available_at",
)


def _arrays(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return dict(zip(names, map(engine.array, columns), strict=True))


def executions(starts: Sequence[Start], plans: Sequence[Plan], now: datetime) -> dict[str, Any]:
    """The parameters of `INSERT_EXECUTIONS` and `INSERT_KEYLESS`."""
    forms: list[tuple[Any, ...]] = []
    known: dict[tuple[Any, ...], int] = {}
    numbers: list[int] = []
    for start, plan in zip(starts, plans, strict=True):
        # All of these are alive in `starts`: their addresses tell them apart.
        kind = (
            id(start.version),
            start.source.kind,
            id(start.scheduled_for),
            start.news_topic,
            id(start.input),
            start.priority,
            start.queue,
            id(start.retry_policy),
            start.concurrency_key,
            start.timeout,
            start.deadline,
            id(start.start_at),
        )
        number = known.get(kind)
        if number is None:
            forms.append(_execution_form(start, plan, now))
            number = known[kind] = len(forms)
        numbers.append(number)
    return _arrays(EXECUTION_FORM, forms) | {
        "id": engine.array([start.id for start in starts]),
        "source_id": engine.array([start.source.id for start in starts]),
        "source_label": engine.array([start.source.label[:200] for start in starts]),
        "idempotency_key": engine.array([start.idempotency_key for start in starts]),
        "form": engine.array(numbers),
        "now": now,
    }


def _execution_form(start: Start, plan: Plan, now: datetime) -> tuple[Any, ...]:
    later = start.start_at is not None and start.start_at > now
    return (
        start.version.workflow_id,
        start.version.pk,
        start.source.kind,
        start.scheduled_for,
        start.news_topic,
        engine.dump_json(start.input),
        _priority(start, plan),
        start.queue,
        None if start.retry_policy is None else engine.dump_json(start.retry_policy),
        start.concurrency_key,
        _deadline(start, plan, now),
        (ExecutionState.SCHEDULED if later else ExecutionState.QUEUED).value,
        len(plan.main),
    )


def _deadline(start: Start, plan: Plan, now: datetime) -> datetime | None:
    timeout = start.timeout if start.timeout is not None else plan.timeout
    relative = None if timeout is None else (start.start_at or now) + timedelta(seconds=timeout)
    return min((instant for instant in (relative, start.deadline) if instant is not None), default=None)


def _priority(start: Start, plan: Plan) -> int:
    if start.priority is not None:
        return start.priority
    return plan.priority if plan.priority is not None else start.version.workflow.priority


@dataclass(slots=True)
class _Lane:
    """The ready step runs of one queue and priority, in the order of their places: id, label, timeout."""

    ready: list[tuple[UUID, str, float | None]] = field(default_factory=list)


class _First(NamedTuple):
    """One step of all starts of one kind: its form, and the lane that it is ready in, if it is."""

    form: int
    lane: _Lane | None
    label: str
    timeout: float | None


class StepRuns:
    """The step runs of executions to be: `params` for `INSERT_STEP_RUNS`, then `hints` for what it returned.

    `undecided` are the starts of which some first step is not plain, so that its fate is to be decided at once.
    """

    def __init__(self, created: Sequence[tuple[Start, Plan]], now: datetime) -> None:
        self.undecided: list[tuple[Start, Plan]] = []
        self._now = now
        self._forms: list[tuple[Any, ...]] = []
        self._lanes: dict[tuple[str, int], _Lane] = {}
        known: dict[tuple[Any, ...], tuple[list[_First], bool]] = {}
        ids = uuid7s(sum(len(plan.main) for _, plan in created))
        owners: list[UUID] = []
        numbers: list[int] = []
        places: list[int | None] = []
        for start, plan in created:
            # Plans and versions are alive in `created`: their addresses tell them apart.
            kind = (id(plan), id(start.version), start.queue, start.priority, not start.concurrency_key)
            if start.start_at is not None:
                kind = (*kind, start.start_at)  # type: ignore[assignment]
            first = known.get(kind)
            if first is None:
                first = known[kind] = (self._first_steps(start, plan), _needs_decision(start, plan))
            for form, lane, label, timeout in first[0]:
                place = None
                if lane is not None:
                    lane.ready.append((ids[len(owners)], label, timeout))
                    place = len(lane.ready)
                owners.append(start.id)
                numbers.append(form)
                places.append(place)
            if first[1]:
                self.undecided.append((start, plan))
        self.params = _arrays(STEP_FORM, self._forms) | {
            "id": engine.array(ids),
            "execution_id": engine.array(owners),
            "form": engine.array(numbers),
            "place": engine.array(places),
            "now": now,
            "bound": settings.WORKFLOW_IN_FLIGHT_PER_LEVEL,
        }

    def hints(self, marked: Sequence[Any]) -> list[Hint]:
        """What to publish: the first so many of each lane, by the rows that `INSERT_STEP_RUNS` returned."""
        return [
            Hint(step_run_id, label, queue, priority, timeout, 0)
            for queue, priority, dispatched in marked
            for step_run_id, label, timeout in self._lanes[queue, priority].ready[:dispatched]
        ]

    def _first_steps(self, start: Start, plan: Plan) -> list[_First]:
        workflow = start.version.workflow
        later = start.start_at is not None and start.start_at > self._now
        steps = []
        for step in plan.main:
            ready = not step.needs and step.is_plain and not start.concurrency_key
            waiting_for = WaitingFor.KEY if not step.needs and start.concurrency_key else WaitingFor.NEEDS
            label = f"{workflow.name}.{step.name}"
            queue = step.queue or start.queue or plan.queue or workflow.queue
            priority = step.priority if step.priority is not None else _priority(start, plan)
            self._forms.append(
                (
                    step.name,
                    step.kind,
                    label,
                    queue,
                    priority,
                    step.timeout,
                    (StepState.QUEUED if ready else StepState.WAITING).value,
                    None if ready else waiting_for.value,
                    len(step.needs),
                    step.pool,
                    step.pool_units,
                    start.start_at if later else self._now,
                )
            )
            lane = self._lanes.setdefault((queue, priority), _Lane()) if ready and not later else None
            steps.append(_First(len(self._forms), lane, label, step.timeout))
        return steps


def _needs_decision(start: Start, plan: Plan) -> bool:
    return not start.concurrency_key and any(_is_decided_late(step) for step in plan.main)


def _is_decided_late(step: StepPlan) -> bool:
    return not step.needs and not step.is_plain
