"""What can be followed: per kind its permission, its filters, and the statements that find rows by id or by change.

Rows look as in the lists of the REST API, without inputs, outputs and tracebacks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from execution import engine, live, queues
from execution.api.serializers import QueueSerializer
from execution.states import DEAD_LETTER_UNDECIDED, EXECUTION_OPEN
from scheduling_project.live.cursors import Cursor

#: Values of one filter.
MOST_VALUES: Final = 100

Filters = Mapping[str, Sequence[str]]
NO_FILTERS: Final[Filters] = {}


@dataclass(frozen=True)
class Row:
    """One row as watchers see it. `version` changes with every change of it; empty where rows have none."""

    id: str
    data: Mapping[str, Any]
    version: str = ""

    @cached_property
    def text(self) -> str:
        """Its JSON, made once for all who watch."""
        return json.dumps(self.data, separators=(",", ":"), default=_json)

    @cached_property
    def brief(self) -> str:
        """Its id alone."""
        return json.dumps({"id": self.id})

    def matches(self, filters: Filters, names: Mapping[str, str]) -> bool:
        """Whether it passes every filter; `names` says where a filter finds its value, if not under its own name."""
        if self.data.get("deleted"):
            return "id" not in filters or self.id in filters["id"]
        return all(self._value(names.get(name, name)) in values for name, values in filters.items())

    def _value(self, path: str) -> str:
        value: Any = self.data
        for name in path.split("."):
            value = value[name]
        return str(value)


@dataclass(frozen=True)
class Kind:
    """One kind of row."""

    name: str
    permission: str
    #: Filter → the column that it compares, and the type of its values.
    filters: Mapping[str, tuple[str, str]]
    select: str = ""
    #: Conditions: with ids that were announced, by the kind of the announcement; and what can have changed at all.
    by: Mapping[str, str] = field(default_factory=dict)
    candidates: str = ""
    #: Filters whose value stands under another name in the row.
    shown_as: Mapping[str, str] = field(default_factory=dict)
    #: Kind of the audit entries that tell of deletions, where watchers are told of them.
    deletions_of: str = ""

    def announced(self, ids: Mapping[str, Collection[str]], *, using: str | None = None) -> list[Row]:
        """The rows that announcements are about, as they are now."""
        found: list[Row] = []
        for kind, condition in self.by.items():
            if not ids.get(kind):
                continue
            params = {"ids": engine.array(sorted(ids[kind]))}
            rows = self._rows(engine.fetch_all(f"{self.select} WHERE {condition}", params, using=using))
            found += rows
            if self.deletions_of and kind == self.name:
                found += [_deleted(id) for id in sorted(set(ids[kind]) - {row.id for row in rows})]
        return found

    def present(self, *, using: str | None = None) -> list[Row]:
        """What a new subscription is told at once: nothing, but of queues."""
        return []

    def changed(
        self, cursor: Cursor, *, limit: int, filters: Filters = NO_FILTERS, using: str | None = None
    ) -> list[Row]:
        """The rows that pass the filters and were changed by a transaction that the cursor had not seen, as they
        are now; up to `limit`."""
        since = {"below": str(cursor.below), "floor": cursor.floor, "limit": limit}
        narrowed = "".join(
            f" AND {column} = ANY(%({name})s::{kind}[])"
            for name, (column, kind) in self.filters.items()
            if name in filters
        )
        params = since | {name: engine.array(list(values)) for name, values in filters.items()}
        sql = f"{self.select} WHERE {self.candidates} AND {CHANGED}{narrowed} LIMIT %(limit)s::int"
        rows = self._rows(engine.fetch_all(sql, params, using=using))
        if self.deletions_of:
            gone = engine.fetch_all(DELETED, {**since, "subject": self.deletions_of}, using=using)
            ids = [row.subject_id for row in gone]
            rows += [_deleted(id) for id in ids if "id" not in filters or id in filters["id"]]
        return rows

    def _rows(self, found: Iterable[Any]) -> list[Row]:
        rows = []
        for one in found:
            data = one._asdict()
            version = data.pop("row_version")
            source = {name[7:]: data.pop(name) for name in [*data] if name.startswith("source_")}
            if source:
                data["source"] = source
            rows.append(Row(str(data["id"]), data, version))
        return rows


class Queues(Kind):
    """Queues are counted, not written: there are no changes to look up, only the present state."""

    def announced(self, ids: Mapping[str, Collection[str]], *, using: str | None = None) -> list[Row]:
        return []

    def changed(
        self, cursor: Cursor, *, limit: int, filters: Filters = NO_FILTERS, using: str | None = None
    ) -> list[Row]:
        return [row for row in self.present(using=using) if row.matches(filters, self.shown_as)]

    def present(self, *, using: str | None = None) -> list[Row]:
        states = queues.stats(using=using or engine.alias())
        return [Row(str(data["id"]), data) for data in QueueSerializer(states, many=True).data]


# Both ages are measured against one and the same transaction number, so that the 32 bits may have gone round.
CHANGED: Final = "age(t.xmin) <= age(%(below)s::text::xid8::xid)"

# The trail has no index by time: of the latest entries, those that no watcher at the cursor can have known.
DELETED: Final = """
SELECT t.subject_id FROM execution_auditentry t
WHERE t.id > (SELECT coalesce(max(id), 0) - 20000 FROM execution_auditentry) AND t.subject_kind = %(subject)s::text
  AND t.action = %(subject)s::text || '.delete' AND age(t.xmin) <= age(%(below)s::text::xid8::xid)
LIMIT %(limit)s::int
"""


def _states(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


# An execution is open, or the time of its end tells; the two parts of the union read one index each.
_RECENT: Final = f"""(
    SELECT o.id FROM execution_execution o WHERE o.state IN ({_states(EXECUTION_OPEN)})
    UNION ALL SELECT f.id FROM execution_execution f WHERE f.finished_at >= %(floor)s::timestamptz
)"""

EXECUTIONS: Final = Kind(
    name=live.EXECUTIONS,
    permission="execution.view_execution",
    filters={
        "id": ("t.id", "uuid"),
        "workflow": ("t.workflow_id", "uuid"),
        "workflow_name": ("w.name", "text"),
        "state": ("t.state", "text"),
        "source_kind": ("t.source_kind", "text"),
        "source_id": ("t.source_id", "text"),
    },
    select="""
SELECT t.id, t.workflow_id AS workflow, w.name AS workflow_name, t.state, t.state_reason, t.source_kind, t.source_id,
       t.source_label, t.scheduled_for AS source_scheduled_for, t.idempotency_key, t.priority, t.queue, t.outcome,
       t.section, t.open_steps, t.failed_steps, t.created_at, t.started_at, t.finished_at, t.xmin::text AS row_version
FROM execution_execution t JOIN execution_workflow w ON w.id = t.workflow_id""",
    by={
        live.EXECUTIONS: "t.id = ANY(%(ids)s::uuid[])",
        live.STEP_RUNS: "t.id IN (SELECT s.execution_id FROM execution_steprun s WHERE s.id = ANY(%(ids)s::uuid[]))",
        live.DEAD_LETTERS: "t.id IN (SELECT d.execution_id FROM execution_deadletter d"
        " WHERE d.id = ANY(%(ids)s::uuid[]))",
    },
    candidates=f"t.id IN {_RECENT}",
    shown_as={"source_kind": "source.kind", "source_id": "source.id"},
)
STEP_RUNS: Final = Kind(
    name=live.STEP_RUNS,
    permission="execution.view_execution",
    filters={
        "id": ("t.id", "uuid"),
        "execution": ("t.execution_id", "uuid"),
        "name": ("t.name", "text"),
        "state": ("t.state", "text"),
        "queue": ("t.queue", "text"),
    },
    select="""
SELECT t.id, t.execution_id AS execution, t.name, t.label, t.kind, t.parent_id AS parent, t.item_index, t.state,
       t.waiting_for, t.state_reason, t.queue, t.priority, t.attempt, t.failures, t.worker_deaths, t.needs_open,
       t.items_open, t.items_failed, t.worker, t.available_at, t.created_at, t.started_at, t.finished_at,
       t.xmin::text AS row_version
FROM execution_steprun t""",
    by={
        live.EXECUTIONS: "t.execution_id = ANY(%(ids)s::uuid[])",
        live.STEP_RUNS: "t.execution_id IN (SELECT s.execution_id FROM execution_steprun s"
        " WHERE s.id = ANY(%(ids)s::uuid[]))",
    },
    candidates=f"t.execution_id IN {_RECENT}",
)
DEAD_LETTERS: Final = Kind(
    name=live.DEAD_LETTERS,
    permission="execution.view_deadletter",
    filters={
        "id": ("t.id", "uuid"),
        "execution": ("t.execution_id", "uuid"),
        "workflow": ("t.workflow_id", "uuid"),
        "workflow_name": ("w.name", "text"),
        "state": ("t.state", "text"),
        "step": ("t.step_name", "text"),
    },
    select="""
SELECT t.id, t.execution_id AS execution, t.step_run_id AS step_run, t.workflow_id AS workflow,
       w.name AS workflow_name, t.step_name AS step, t.state, t.reason, t.error_type, left(t.error, 1000) AS error,
       t.fingerprint, t.attempts, t.worker, t.note, t.redrives, t.redrive_execution_id AS redrive_execution,
       t.created_at, t.decided_at, t.decided_by, t.xmin::text AS row_version
FROM execution_deadletter t JOIN execution_workflow w ON w.id = t.workflow_id""",
    by={
        live.EXECUTIONS: "t.execution_id = ANY(%(ids)s::uuid[])",
        live.DEAD_LETTERS: "t.id = ANY(%(ids)s::uuid[])",
    },
    candidates=f"(t.state IN ({_states(DEAD_LETTER_UNDECIDED)}) OR t.decided_at >= %(floor)s::timestamptz)",
)
SCHEDULES: Final = Kind(
    name=live.SCHEDULES,
    permission="schedules.view_schedule",
    filters={
        "id": ("t.id", "uuid"),
        "name": ("t.name", "text"),
        "workflow": ("t.workflow_id", "uuid"),
        "workflow_name": ("w.name", "text"),
    },
    select="""
SELECT t.id, t.name, t.workflow_id AS workflow, w.name AS workflow_name, t.enabled, t.pause_kind, t.pause_note,
       t.paused_at, t.paused_until, t.next_fire_at, t.last_fire_at, t.fired_through, t.started_count,
       t.consecutive_failures, t.priority, t.queue, t.revision, t.created_at, t.updated_at,
       t.xmin::text AS row_version
FROM schedules_schedule t JOIN execution_workflow w ON w.id = t.workflow_id""",
    by={live.SCHEDULES: "t.id = ANY(%(ids)s::uuid[])"},
    candidates="%(floor)s::timestamptz IS NOT NULL",  # the table is small beside the others: all of it
    deletions_of="schedule",
)
QUEUES: Final = Queues(
    name=live.QUEUES,
    permission="execution.view_queuesettings",
    filters={"name": ("", "text")},
)
KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind for kind in (EXECUTIONS, STEP_RUNS, DEAD_LETTERS, SCHEDULES, QUEUES)
}


def check_filters(kind: Kind, given: object) -> dict[str, list[str]]:
    """The filters of a subscription: per name the values of which a row must have one.

    Raises:
        ValueError: whose argument is a dict, per field what rule its value breaks.
    """
    if not isinstance(given, Mapping):
        raise ValueError({"filter": "must be an object"})
    wrong: dict[str, str] = {}
    filters: dict[str, list[str]] = {}
    for name, value in given.items():
        field_name = f"filter.{name}"
        values = value if isinstance(value, list) else [value]
        if name not in kind.filters:
            wrong[field_name] = f"is not a filter of {kind.name}; there are {', '.join(kind.filters)}"
        elif not values or len(values) > MOST_VALUES:
            wrong[field_name] = f"must be a text or a list of 1 to {MOST_VALUES} texts"
        elif not all(isinstance(one, str) and len(one) <= 200 and "\0" not in one for one in values):
            wrong[field_name] = "must be a text of at most 200 characters, or a list of such"
        elif kind.filters[name][1] == "uuid":
            try:
                filters[name] = sorted({str(UUID(one)) for one in values})
            except ValueError:
                wrong[field_name] = "must be a UUID, or a list of UUIDs"
        else:
            filters[name] = sorted(set(values))
    if wrong:
        raise ValueError(wrong)
    return filters


def _deleted(id: str) -> Row:
    return Row(id, {"id": id, "deleted": True}, "deleted")


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)
