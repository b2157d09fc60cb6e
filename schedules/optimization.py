"""Reports of the optimiser, what-ifs, and the changes that people take from them.

A report measures, simulates and proposes; it changes nothing. Proposals are applied one by one or together, through
the same functions as an edit by hand (so each is audited and previewed alike), and each can be reverted from the
report as long as nobody has changed the same fields since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from execution import audit, pools
from execution.models import Pool
from execution.simulation import Capacity, Load, Outcome, summary
from schedules import lifecycle, load_model, optimizer
from schedules.load_model import Assumptions, Model
from schedules.models import OptimizationChange, OptimizationReport, Schedule
from schedules.optimizer import Suggestion
from schedules.states import ChangeState
from schedules.timing import occurrences
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound

DAYS: Final = 7
DAY: Final = 86_400
MOST_SUGGESTIONS: Final = 2_000
MOST_POINTS: Final = 1_500
#: Kinds of suggestion whose effect on the fires is simulated together.
RETIMED: Final = frozenset({"move", "jitter", "interval"})

Progress = Callable[[str, float], None]


@dataclass(slots=True)
class WhatIf:
    """Figures as things are, and as they would be."""

    before: dict[str, Any]
    after: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)


def report(
    *,
    actor: str,
    days: int = DAYS,
    queryset: QuerySet[Schedule] | None = None,
    tolerated: float = optimizer.TOLERATED,
    note: str = "",
    progress: Progress | None = None,
    now: datetime | None = None,
    using: str = "default",
) -> OptimizationReport:
    """Measure, simulate the next `days` days, propose, and simulate the proposals; stored with every proposal.

    Args:
        tolerated: seconds that 95 of 100 runs may wait before something is proposed.
        progress: called with what is being done and the part of it that is over.

    Raises:
        InvalidInput: naming `days` or `tolerated`.
    """
    if not 0 <= tolerated <= 86_400:
        raise InvalidInput(fields={"tolerated": ["must be seconds from 0 to 86400"]})

    def told(what: str) -> Callable[[float], None] | None:
        return None if progress is None else lambda part: progress(what, part)

    model = load_model.read(days=days, queryset=queryset, now=now, progress=told("Reading schedules"), using=using)
    before = model.simulate(progress=told("Simulating as it is"))
    found = optimizer.optimize_schedule_distribution(
        model.facts,
        model.capacity,
        start=model.start,
        end=model.end,
        outcome=before,
        tolerated=tolerated,
        progress=told("Looking for better minutes"),
    )
    found += optimizer.suggest_schedule_adjustments(model.facts, before)
    fires, changed = _changed(model, found)
    after = model.simulate(fires=fires, changed=changed, progress=told("Simulating the proposals"))

    found += (larger := _larger(model, after, fires, changed, tolerated))
    sizes = {one.subject: one.changes["slots"] for one in larger if one.subject_kind == "pool"}
    if sizes:
        grown = Capacity(model.capacity.groups, {**model.capacity.pools, **sizes})
        after = model.simulate(grown, fires=fires, changed=changed)
    _add_waits(found, before, after)
    return _keep(model, found, before, after, days=days, actor=actor, note=note, using=using)


def _changed(model: Model, found: Sequence[Suggestion]) -> tuple[dict[str, Sequence[int]], dict[str, Load]]:
    """The fires and loads of schedules as they are with every proposal applied."""
    fires: dict[str, Sequence[int]] = {}
    changed: dict[str, Load] = {}
    loads = {load.key: load for load in model.loads}
    for one in found:
        if one.kind in RETIMED:
            timing = occurrences.compile(one.changes["spec"], seed=one.subject)
            fires[one.subject] = load_model.fires_of(timing, model.start - 1, model.end - 1)
            continue
        present = changed.get(one.subject, loads[one.subject])
        if one.kind == "priority":
            changed[one.subject] = replace(present, priority=one.changes["priority"])
        elif one.kind == "overlap_policy":
            changed[one.subject] = replace(present, overlap=one.changes["overlap_policy"])
    return fires, changed


def _larger(
    model: Model, after: Outcome, fires: dict[str, Sequence[int]], changed: dict[str, Load], tolerated: float
) -> list[Suggestion]:
    """What still waits after everything has been spread is a matter of capacity: more of it is tried out on the day
    in which most is waited."""
    worst = after.hot_spots(1)
    if not worst:
        return []
    begin = int(max(model.start, worst[0].start - DAY / 2))
    within = (begin, min(begin + DAY, model.end))

    def with_capacity(capacity: Capacity) -> Outcome:
        return model.simulate(capacity, fires=fires, changed=changed, within=within)

    return optimizer.suggest_capacity(with_capacity(model.capacity), model.capacity, with_capacity, tolerated=tolerated)


def _add_waits(found: Iterable[Suggestion], before: Outcome, after: Outcome) -> None:
    for one in found:
        if one.subject_kind == "schedule":
            one.effect["wait_p95_before"] = round(before.waits_of(one.subject, 0.95)[0], 3)
            one.effect["wait_p95_after"] = round(after.waits_of(one.subject, 0.95)[0], 3)


def _keep(
    model: Model,
    found: Sequence[Suggestion],
    before: Outcome,
    after: Outcome,
    *,
    days: int,
    actor: str,
    note: str,
    using: str,
) -> OptimizationReport:
    with transaction.atomic(using=using):
        kept = OptimizationReport.objects.using(using).create(
            days=days,
            schedules=len(model.facts),
            before=summary(before) | {"assumed_workers": model.assumed, "slots": model.capacity.slots},
            after=summary(after),
            curve=curve(before, after),
            patterns=_jsonable(model.patterns.as_dict()),
            note=note[:500],
            created_by=actor[:200],
        )
        rows = [
            OptimizationChange(
                report=kept,
                schedule_id=UUID(one.subject) if one.subject_kind == "schedule" else None,
                kind=one.kind,
                subject_kind=one.subject_kind,
                subject=one.subject[:200],
                label=one.label[:200],
                reason=one.reason[:500],
                changes=one.changes,
                before=one.before,
                effect=one.effect,
                revision=one.revision,
            )
            for one in found[:MOST_SUGGESTIONS]
        ]
        OptimizationChange.objects.using(using).bulk_create(rows, batch_size=500)
        audit.record(
            actor=actor,
            action="optimizer.report",
            subject_kind="optimization_report",
            subject_id=kept.pk,
            subject_label=str(kept),
            note=note,
            using=using,
        )
    return kept


def curve(before: Outcome, after: Outcome) -> list[dict[str, Any]]:
    """Per stretch of time: fires, utilisation, mean and longest wait (seconds), before and after; at most
    `MOST_POINTS` of them."""
    points = []
    for was, will in list(zip(before.buckets, after.buckets, strict=True))[:MOST_POINTS]:
        points.append(
            {
                "start": datetime.fromtimestamp(was.start, UTC).isoformat().replace("+00:00", "Z"),
                "fires": was.arrivals,
                "utilisation": round(before.utilisation(was), 4),
                "waited": round(was.waited / was.arrivals if was.arrivals else 0.0, 3),
                "longest": round(was.longest, 3),
                "fires_after": will.arrivals,
                "utilisation_after": round(after.utilisation(will), 4),
                "waited_after": round(will.waited / will.arrivals if will.arrivals else 0.0, 3),
                "longest_after": round(will.longest, 3),
            }
        )
    return points


def what_if(
    given: Assumptions,
    *,
    days: int = DAYS,
    progress: Progress | None = None,
    now: datetime | None = None,
    using: str = "default",
) -> WhatIf:
    """The same simulation with other assumptions. Nothing is saved.

    Raises:
        InvalidInput: naming the assumption.
    """

    def told(what: str) -> Callable[[float], None] | None:
        return None if progress is None else lambda part: progress(what, part)

    model = load_model.read(days=days, now=now, progress=told("Reading schedules"), using=using)
    changed = load_model.assume(model, given, using=using)
    before = model.simulate(progress=told("Simulating as it is"))
    after = changed.simulate(progress=told("Simulating what if"))
    return WhatIf(
        summary(before) | {"assumed_workers": model.assumed, "slots": model.capacity.slots},
        summary(after) | {"slots": changed.capacity.slots},
        curve(before, after),
    )


def get(report_id: UUID, *, using: str = "default") -> OptimizationReport:
    """
    Raises:
        NotFound.
    """
    found = OptimizationReport.objects.using(using).filter(pk=report_id).first()
    if found is None:
        raise NotFound(f"There is no optimisation report {report_id}.")
    return found


def apply(
    report_id: UUID,
    *,
    actor: str,
    changes: Sequence[UUID] | None = None,
    note: str = "",
    now: datetime | None = None,
    using: str = "default",
) -> list[OptimizationChange]:
    """Make the proposed changes (those named, or all that can be made and were not yet): all of them or none.

    Raises:
        NotFound: no such report, or a change that is not one of its own.
        Conflict: a field is no longer what the proposal was made for, or the change is advice only.
    """
    with transaction.atomic(using=using):
        rows = _chosen(report_id, changes, {ChangeState.PROPOSED, ChangeState.REVERTED}, using)
        if changes is None:
            rows = [row for row in rows if row.changes and row.state == ChangeState.PROPOSED]
        for row in rows:
            if not row.changes:
                raise Conflict(f"“{row.label}” is advice: {row.kind} is nothing that can be set from here.")
            _set(row, expected=row.before, wanted=row.changes, actor=actor, note=note, now=now, using=using)
            _decide(row, ChangeState.APPLIED, actor, now, using)
    return rows


def revert(
    report_id: UUID,
    *,
    actor: str,
    changes: Sequence[UUID] | None = None,
    note: str = "",
    now: datetime | None = None,
    using: str = "default",
) -> list[OptimizationChange]:
    """Put back what `apply` set (the changes named, or all): all of them or none.

    Raises:
        NotFound: no such report, or a change that is not one of its own.
        Conflict: it was not applied, or somebody has changed the same field since.
    """
    with transaction.atomic(using=using):
        rows = _chosen(report_id, changes, {ChangeState.APPLIED}, using)
        for row in reversed(rows):
            _set(row, expected=row.changes, wanted=row.before, actor=actor, note=note, now=now, using=using)
            _decide(row, ChangeState.REVERTED, actor, now, using)
    return rows


def _chosen(
    report_id: UUID, changes: Sequence[UUID] | None, states: set[ChangeState], using: str
) -> list[OptimizationChange]:
    """The rows, locked in order. Race: two people apply one report: the second waits and finds them applied."""
    get(report_id, using=using)
    rows = OptimizationChange.objects.using(using).select_for_update().filter(report_id=report_id).order_by("id")
    if changes is None:
        return list(rows.filter(state__in=states))
    found = list(rows.filter(pk__in=changes))
    missing = set(changes) - {row.pk for row in found}
    if missing:
        raise NotFound(f"The report has no change {min(missing)}.")
    for row in found:
        if row.state not in states:
            raise Conflict(f"“{row.label}” is {row.get_state_display().lower()} already.")
    return found


def _set(
    row: OptimizationChange,
    *,
    expected: dict[str, Any],
    wanted: dict[str, Any],
    actor: str,
    note: str,
    now: datetime | None,
    using: str,
) -> None:
    note = note or row.reason
    if row.subject_kind == "pool":
        _resize(row.subject, expected["slots"], wanted["slots"], actor=actor, using=using)
        return
    if row.schedule_id is None:
        raise NotFound(f"The schedule {row.label} is gone.")
    schedule = lifecycle.get(row.schedule_id, using=using)
    for name, value in expected.items():
        present = schedule.version.spec if name == "spec" and schedule.version else getattr(schedule, name, None)
        if present != value:
            raise Conflict(f"{name} of {schedule.name} has been changed since: make a new report.")
    lifecycle.update(schedule.pk, wanted, actor=actor, revision=schedule.revision, note=note, now=now, using=using)


def _resize(name: str, expected: int, slots: int, *, actor: str, using: str) -> None:
    """Race: an operator resizes the pool at the same moment: its row is locked before it is compared."""
    if not Pool.objects.using(using).select_for_update().filter(pk=name, slots=expected).exists():
        raise Conflict(f"Pool {name} no longer has {expected} slots: make a new report.")
    pools.update(name, slots=slots, actor=actor, using=using)


def _decide(row: OptimizationChange, state: ChangeState, actor: str, now: datetime | None, using: str) -> None:
    row.state, row.decided_by, row.decided_at = state, actor[:200], now or clock.now(using=using)
    row.save(using=using, update_fields=["state", "decided_by", "decided_at"])


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    return value
