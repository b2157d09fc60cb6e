"""Small builders for schedule tests: a published workflow, a schedule with a spec, ended executions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from execution.models import Execution, StepRun, Workflow, WorkflowVersion
from schedules.models import Schedule, ScheduleFire, ScheduleVersion
from schedules.timing import occurrences

#: A Wednesday; every builder's schedule begins here unless told otherwise.
T0 = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
MINUTELY: dict[str, Any] = {"timetables": [{"kind": "cron", "expression": "* * * * *"}]}
SECONDLY: dict[str, Any] = {"timetables": [{"kind": "interval", "every": 1}]}


def at(seconds: float = 0, **delta: float) -> datetime:
    """`T0` plus so much."""
    return T0 + timedelta(seconds=seconds, **delta)


def workflow(name: str = "report", *, published: bool = True, definition: Mapping[str, Any] | None = None) -> Workflow:
    made = Workflow.objects.create(name=name)
    if published:
        version = WorkflowVersion.objects.create(
            workflow=made,
            number=1,
            definition=dict(definition or {"steps": {"only": {"task": "demo.tasks.noop"}}}),
            published_at=T0,
        )
        Workflow.objects.filter(pk=made.pk).update(published=version)
        made.refresh_from_db()
    return made


def schedule(
    spec: Mapping[str, Any] = MINUTELY,
    *,
    name: str = "nightly",
    of: Workflow | None = None,
    since: datetime = T0,
    wake: datetime | None = None,
    **options: Any,
) -> Schedule:
    """A schedule whose watermark stands at `since` and that is to be visited at once (`wake`)."""
    of = of or Workflow.objects.first() or workflow()
    options.setdefault("overlap_policy", "allow_all")
    made = Schedule.objects.create(name=name, workflow=of, fired_through=since, **options)
    version = ScheduleVersion.objects.create(
        schedule=made, number=1, effective_from=since, spec=occurrences.normalise(spec), tzdata="test"
    )
    Schedule.objects.filter(pk=made.pk).update(version=version, next_fire_at=wake or since)
    made.refresh_from_db()
    return made


def ledger(of: Schedule | UUID) -> list[tuple[float, float | None, int, str, str]]:
    """The ledger, oldest first: (seconds after T0, until, count, outcome, reason)."""
    pk = of.pk if isinstance(of, Schedule) else of
    return [
        (
            (fire.scheduled_for - T0).total_seconds(),
            None if fire.until is None else (fire.until - T0).total_seconds(),
            fire.count,
            fire.outcome,
            fire.reason,
        )
        for fire in ScheduleFire.objects.filter(schedule_id=pk).order_by("scheduled_for")
    ]


def started(of: Schedule) -> list[float]:
    """The instants with an execution, in seconds after T0."""
    return [
        (instant - T0).total_seconds()
        for instant in Execution.objects.filter(
            source_kind="schedule", source_id=str(of.pk), scheduled_for__isnull=False
        )
        .order_by("scheduled_for")
        .values_list("scheduled_for", flat=True)
    ]


def end_executions(state: str = "succeeded", *, of: Schedule | None = None, when: datetime = T0) -> int:
    """End what runs, as far as the schedules are concerned: states, and the news that was asked for."""
    from execution.models import News

    running = Execution.objects.filter(finished_at__isnull=True).order_by("id")
    if of is not None:
        running = running.filter(source_id=str(of.pk))
    ended = list(running)
    for execution in ended:
        StepRun.objects.filter(execution=execution).update(state="succeeded", waiting_for=None, finished_at=when)
        Execution.objects.filter(pk=execution.pk).update(state=state, finished_at=when, open_steps=0)
        if execution.news_topic:
            News.objects.create(
                topic=execution.news_topic,
                execution_id=execution.pk,
                subject=execution.source_id,
                data={"state": state},
            )
    return len(ended)
