"""How executions come into being: in bulk, in the caller's transaction, handed over after its commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import advance, concurrency, creation_rows, dispatch, engine, live
from execution.creation_rows import StepRuns
from execution.definitions import validate_input
from execution.graph import Concurrency, Plan
from execution.models import Execution, Workflow, WorkflowVersion
from execution.plans import plan_of
from scheduling_project.common.errors import Conflict, InvalidInput
from scheduling_project.common.ids import uuid7


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

    `timeout` is in seconds from `start_at` (or now) to the execution's deadline; of it and a given `deadline` the
    earlier one counts.
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
    deadline: datetime | None = None
    concurrency_key: str = ""
    start_at: datetime | None = None
    news_topic: str = ""
    id: UUID = field(default_factory=uuid7)


class Creation:
    """Executions whose rows have been sent; `finish` does what can only be done when they are there."""

    def __init__(self, created: Sequence[tuple[Start, Plan]], *, now: datetime, using: str) -> None:
        self._created = created
        self._now = now
        self._using = using
        self._step_runs = creation_rows.StepRuns(created, now)
        self._marked = engine.send(creation_rows.INSERT_STEP_RUNS, self._step_runs.params, using=using)

    def finish(self) -> None:
        """Have messages published after the commit, decide first steps that are not plain, ask for keys."""
        now, using = self._now, self._using
        dispatch.publish_on_commit(self._step_runs.hints(self._marked.rows()), using=using)
        for start, plan in self._step_runs.undecided:
            advance.decide_ripe(start.id, plan, now=now, using=using)
        wishes = [
            concurrency.Wish(
                start.id,
                key=start.concurrency_key,
                limit=plan.concurrency.limit if plan.concurrency is not None else 1,
                on_conflict=plan.concurrency.on_conflict if plan.concurrency is not None else "queue",
            )
            for start, plan in self._created
            if start.concurrency_key
        ]
        if wishes:
            concurrency.admit(wishes, now=now, using=using)


def send_many(starts: Sequence[Start], *, now: datetime, using: str) -> Creation | None:
    """Send the rows of executions without idempotency keys, and of their step runs, inside the caller's transaction.

    In an `engine.pipeline` nothing is waited for; `Creation.finish` is to be called after it and before the commit.
    None where there is nothing to start.
    """
    if not starts:
        return None
    starts, plans = _planned(starts)
    live.announce(live.EXECUTIONS, [start.id for start in starts], using=using)
    engine.send(creation_rows.INSERT_KEYLESS, creation_rows.executions(starts, plans, now), using=using)
    return Creation(list(zip(starts, plans, strict=True)), now=now, using=using)


class Plain:
    """Executions that are rows and nothing else, for a statement with `creation_rows.ctes_after`.

    `params` are its parameters.
    """

    def __init__(self, starts: Sequence[Start], plans: Sequence[Plan], step_runs: StepRuns, now: datetime) -> None:
        self._ids = [start.id for start in starts]
        self._step_runs = step_runs
        self.params = creation_rows.in_one_statement(
            creation_rows.executions(starts, plans, now), self._step_runs.params
        )

    def created(self, marked: Sequence[Any], *, using: str) -> None:
        """They have been made: `marked` is what `creation_rows.MARKED` says. Word and hints go out after the commit."""
        live.announce(live.EXECUTIONS, self._ids, using=using)
        dispatch.publish_on_commit(self._step_runs.hints(marked), using=using)


def plain(starts: Sequence[Start], *, now: datetime) -> Plain | None:
    """These executions as parameters of one statement; None if more is to be done for one of them.

    A concurrency key is to be asked for, and a first step that is not plain is to be decided on: `start_many` does.
    """
    plans = _plans(starts)
    if any(start.concurrency_key or plan.concurrency for start, plan in zip(starts, plans, strict=True)):
        return None
    step_runs = StepRuns(list(zip(starts, plans, strict=True)), now)
    return None if step_runs.undecided else Plain(starts, plans, step_runs, now)


def start_many(starts: Sequence[Start], *, now: datetime, using: str) -> list[UUID]:
    """Create executions with their step runs inside the caller's transaction on `using`.

    Messages are published after its commit. Inputs are taken as they are (`start` validates).

    Returns:
        Per start the id of the execution that exists now: the new one, or the earlier one with the same
        idempotency key.
    """
    if all(start.idempotency_key is None for start in starts):
        creation = send_many(starts, now=now, using=using)
        if creation is not None:
            creation.finish()
        return [start.id for start in starts]
    starts, plans = _planned(starts)
    live.announce(live.EXECUTIONS, [start.id for start in starts], using=using)
    rows = creation_rows.executions(starts, plans, now)
    inserted = {row.id for row in engine.fetch_all(creation_rows.INSERT_EXECUTIONS, rows, using=using)}
    created = [(start, plan) for start, plan in zip(starts, plans, strict=True) if start.id in inserted]
    if created:
        Creation(created, now=now, using=using).finish()
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
        InvalidInput: `input` does not satisfy the definition's schema, or the deadline leaves no time.
    """
    if workflow.published is None:
        raise Conflict(f"Workflow {workflow.name} has no published version.", fields={"workflow": ["is a draft"]})
    data = {} if input is None else input
    validate_input(workflow.published, data)
    with engine.transaction(using=using):
        instant = now or engine.now(using=using)
        made = Start(version=workflow.published, source=source, input=data, **options)
        _check_deadline(made, instant)
        (execution_id,) = start_many([made], now=instant, using=using)
        return Execution.objects.using(using).select_related("workflow", "version").get(pk=execution_id)


def _check_deadline(start: Start, now: datetime) -> None:
    if start.deadline is None:
        return
    if start.deadline <= now:
        raise InvalidInput(fields={"deadline": ["has passed already"]})
    if start.start_at is not None and start.deadline <= start.start_at:
        raise InvalidInput(fields={"deadline": ["must be later than start_at"]})


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


def _planned(starts: Sequence[Start]) -> tuple[list[Start], list[Plan]]:
    """The starts, with the concurrency keys that their definitions give them, and their plans."""
    plans = _plans(starts)
    keyed = [
        start if plan.concurrency is None else _with_key(start, plan.concurrency)
        for start, plan in zip(starts, plans, strict=True)
    ]
    return keyed, plans


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
