"""Compiled timings and workflow versions, kept small in memory: a beat never holds all schedules."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from execution import engine
from execution.models import WorkflowVersion
from schedules import claims
from schedules.due import Segment
from schedules.timing import occurrences
from schedules.timing.occurrences import Timing

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The most recently used values, at most `size` of them. Safe under threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.size:
                self._values.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._values.clear()


class Version(NamedTuple):
    """A schedule version, compiled. `effective_from` in epoch seconds. Never changes, so it is safe to keep."""

    id: UUID
    schedule_id: UUID
    effective_from: int
    timing: Timing
    alone: list[Segment]  # in force to the end of time; never changed


#: Timings that do not depend on the schedule's identity are shared, so that an entry here is only a few words.
_timings: Recent[str, Timing] = Recent(2_000)
_versions: Recent[int, Version] = Recent(20_000)
_workflows: Recent[tuple[UUID, int], WorkflowVersion] = Recent(256)


def forget() -> None:
    """Drop everything kept (tests; a new time zone database)."""
    _timings.clear()
    _versions.clear()
    _workflows.clear()


def segments(
    rows: Sequence[Any], *, using: str, failed: Callable[[Any, Exception], None]
) -> list[tuple[Any, list[Segment]]]:
    """Each claimed schedule with the versions in force from its watermark on, oldest first; in the order of `rows`.

    A schedule whose spec cannot be compiled is handed to `failed` and left out. The lists are not to be changed.
    """
    # Hashing a UUID is slow (it is Python's); its number's is not, and a thousand schedules are claimed at once.
    current = [None if row.version_id is None else _versions.get(row.version_id.int) for row in rows]
    missing = [
        row.version_id for row, version in zip(rows, current, strict=True) if not version and row.version_id is not None
    ]
    errors: dict[UUID, Exception] = {}
    if missing:
        read = _compiled(engine.fetch_all(claims.VERSIONS, {"ids": missing}, using=using), errors)
        current = [version or read.get(row.version_id) for row, version in zip(rows, current, strict=True)]
    owing = [
        row
        for row, version in zip(rows, current, strict=True)
        if version and row.fired_through < version.effective_from
    ]
    chains: dict[UUID, list[Version]] = {}
    if owing:
        owed = engine.fetch_all(claims.OWED_VERSIONS, {"ids": [row.id for row in owing]}, using=using)
        compiled = _compiled(owed, errors)
        for row in owed:
            if row.id in compiled:
                chains.setdefault(row.schedule_id, []).append(compiled[row.id])
    found: list[tuple[Any, list[Segment]]] = []
    for row, version in zip(rows, current, strict=True):
        if version is None or (errors and row.id in errors):
            failed(row, errors.get(row.id) or LookupError("the schedule has no version"))
        else:
            chain = chains.get(row.id) if chains else None
            found.append((row, _chain(chain) if chain else version.alone))
    return found


def _chain(versions: Sequence[Version]) -> list[Segment]:
    ends: list[int | None] = [version.effective_from for version in versions[1:]]
    return [Segment(v.id, v.timing, until) for v, until in zip(versions, [*ends, None], strict=True)]


def _compiled(rows: Iterable[Any], errors: dict[UUID, Exception]) -> dict[UUID, Version]:
    compiled = {}
    for row in rows:
        version = _versions.get(row.id.int)
        if version is None:
            try:
                timing = _timing(row.spec, row.schedule_id)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one spec must stop nobody else
                errors[row.schedule_id] = error
                continue
            version = Version(row.id, row.schedule_id, row.effective_from, timing, [Segment(row.id, timing, None)])
            _versions.put(row.id.int, version)
        compiled[row.id] = version
    return compiled


def _timing(text: str, schedule_id: UUID) -> Timing:
    """The timing of a spec. Only jitter and cron's `H` make it the schedule's own; else all with this spec share it."""
    timing = _timings.get(text)
    if timing is None:
        spec = engine.load_json(text)
        own = "jitter" in spec or any("H" in str(part.get("expression", "")).upper() for part in spec["timetables"])
        timing = occurrences.compile(spec, seed=str(schedule_id) if own else "")
        if not own:
            _timings.put(text, timing)
    return timing


def published(workflow_ids: Iterable[UUID], *, using: str) -> Mapping[UUID, WorkflowVersion]:
    """The published version of each workflow that has one, with its workflow loaded."""
    rows = engine.fetch_all(claims.WORKFLOWS, {"ids": list(set(workflow_ids))}, using=using)
    found = {}
    missing: dict[UUID, Any] = {}
    for row in rows:
        if row.published_id is None:
            continue
        kept = _workflows.get((row.published_id, row.revision))
        if kept is None:
            missing[row.published_id] = row
        else:
            found[row.id] = kept
    if missing:
        for version in WorkflowVersion.objects.using(using).select_related("workflow").filter(pk__in=missing):
            _workflows.put((version.pk, missing[version.pk].revision), version)
            found[version.workflow_id] = version
    return found
