"""Workflows that follow on workflows: changes of executions' states, and what `emit` steps say, as events.

The database leaves a row of news in the transaction of a change, if a trigger asks for it by type
(``execution.succeeded``, ``execution.*``; migration 0002); so do schedules and workers for what they have to tell
(``schedule.fire_missed``, ``worker.lost``), and `emit` steps leave one always. `consume` takes the
rows and hands them to `triggers.ingest`, each in one transaction: a crash gives the row back. A state event that no
pattern matches is forgotten; what was emitted is kept in the inbox.

An event knows how many activations led to it. A chain longer than ``WORKFLOW_MAX_EVENT_DEPTH`` is a loop: the
activation is cut, with that reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from execution import engine, news
from execution.models import Execution, ExecutionOutput, StepRun
from scheduling_project.common.errors import DomainError
from scheduling_project.common.logs import get_logger
from triggers import catalog, ingest
from triggers.activation import SOURCE_KIND
from triggers.arrivals import Arrival, Sender
from triggers.models import Activation

log = get_logger(__name__)

EXECUTION: Final = "execution"
EMIT: Final = "emit"
#: An output longer than this (bytes of JSON) is left out of state events; whoever needs it reads the execution.
MAX_OUTPUT: Final = 65_536
MAX_GENERATIONS: Final = 20
_CHILD: Final = "child"


def consume(*, limit: int = 100, using: str | None = None) -> int:
    """Turn up to `limit` news of each kind into events. Returns how many were taken. Safe to run anywhere."""
    alias = using or engine.alias()
    taken = 0
    for topic in (EXECUTION, EMIT, news.EVENT):
        for _ in range(limit):
            if not _consume_one(topic, alias):
                break
            taken += 1
    return taken


_WANTED: Final = """
SELECT DISTINCT asked.type FROM triggers_trigger t, jsonb_array_elements_text(t.event_types) AS wanted (type),
    unnest(%(types)s::text[]) AS asked (type)
WHERE t.watches AND (wanted.type = asked.type OR (
    right(wanted.type, 1) = '*' AND starts_with(asked.type, left(wanted.type, -1))))
"""


def wanted(types: Sequence[str], using: str) -> set[str]:
    """Which of these types of news (``schedule.fire_missed``) some enabled trigger names, exactly or by a prefix."""
    return {row.type for row in engine.fetch_all(_WANTED, {"types": engine.array(list(types))}, using=using)}


def hasten(**_: Any) -> None:
    """An execution has ended: look for news now rather than at the next turn, if any trigger waits for them."""
    alias = engine.alias()
    if catalog.current(using=alias).watching:
        consume(limit=20, using=alias)


def _consume_one(topic: str, using: str) -> bool:
    with engine.transaction(using=using):
        rows = news.claim(topic, limit=1, using=using)
        if not rows:
            return False
        (row,) = rows
        try:
            arrival = _of_execution(row, using) if topic == EXECUTION else _of_emit(row, using)
        except DomainError as error:
            # Nobody is there to be answered, and it would fail for ever.
            log.error("chaining.news_unusable", topic=topic, execution_id=str(row.execution_id), error=str(error))
            return True
        if arrival is not None:
            ingest.ingest(arrival, sender=Sender("system"), wanted_only=topic != EMIT, using=using)
    return True


def _of_execution(row: Any, using: str) -> Arrival | None:
    execution = (
        Execution.objects.using(using)
        .select_related("workflow", "version")
        .defer("version__definition")
        .filter(pk=row.execution_id)
        .first()
    )
    if execution is None:
        return None  # pruned in the meantime
    data: dict[str, Any] = {
        "execution": str(execution.pk),
        "workflow": execution.workflow.name,
        "version": execution.version.number,
        "labels": execution.workflow.labels,
        "state": row.data.get("state", execution.state),
        "before": row.data.get("before"),
        "reason": execution.state_reason,
        "source": {"kind": execution.source_kind, "id": execution.source_id, "label": execution.source_label},
        "input": execution.input,
        "priority": execution.priority,
        "failed_steps": execution.failed_steps,
        "created_at": _text(execution.created_at),
        "started_at": _text(execution.started_at),
        "finished_at": _text(execution.finished_at),
    }
    if "dead_letter" in row.data:
        data["dead_letter"] = row.data["dead_letter"]
    if execution.state == "succeeded":
        data["output"] = _output(execution.pk, using)
    return ingest.internal(
        row.data["type"],
        data,
        source=f"/workflows/{execution.workflow.name}",
        subject=str(execution.pk),
        cause=execution.pk,
        depth=depth_after(execution, using=using),
    )


def _of_emit(row: Any, using: str) -> Arrival | None:
    execution = None
    if row.execution_id is not None:
        execution = Execution.objects.using(using).select_related("workflow").filter(pk=row.execution_id).first()
    source = row.data.get("source") or (f"/workflows/{execution.workflow.name}" if execution else "/internal")
    return ingest.internal(
        row.data.get("type"),
        row.data.get("data"),
        source=source,
        subject=row.data.get("subject") or "",
        id=row.data.get("id"),
        cause=row.execution_id,
        depth=0 if execution is None else depth_after(execution, using=using),
    )


def depth_after(execution: Execution, *, using: str) -> int:
    """How many activations lead to an event that this execution causes."""
    for _ in range(MAX_GENERATIONS):
        if execution.source_kind == SOURCE_KIND:
            depths = Activation.objects.using(using).filter(execution_id=execution.pk)
            deepest = depths.order_by("-event__depth").values_list("event__depth", flat=True).first()
            return 1 + (deepest or 0)
        parent = _parent(execution, using) if execution.source_kind == _CHILD else None
        if parent is None:
            return 0
        execution = parent
    return MAX_GENERATIONS


def _parent(execution: Execution, using: str) -> Execution | None:
    """The execution whose step started this one; the source names the execution or the step run."""
    try:
        pk = UUID(execution.source_id)
    except ValueError:
        return None
    found = Execution.objects.using(using).filter(pk=pk).first()
    if found is None:
        run = StepRun.objects.using(using).select_related("execution").filter(pk=pk).first()
        found = None if run is None else run.execution
    return found


def _output(execution_id: UUID, using: str) -> Any:
    output = ExecutionOutput.objects.using(using).filter(pk=execution_id).values_list("data", flat=True).first()
    return output if len(engine.dump_json(output)) <= MAX_OUTPUT else None


def _text(instant: Any) -> str | None:
    return None if instant is None else instant.isoformat()
