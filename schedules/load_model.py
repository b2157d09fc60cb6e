"""What the simulation runs on, read from the database: schedules with their fires, measured durations, capacity."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet

from execution import analysis, priority
from execution.analysis import Patterns, WorkflowPattern
from execution.models import Pool, ProcessReport, Workflow
from execution.plans import plan_of
from execution.queues import ALIVE_SECONDS
from execution.simulation import Capacity, Group, Load, Outcome, Profile, Stage, simulate
from schedules.models import Schedule
from schedules.optimizer import Fact
from schedules.placement import placement_of
from schedules.states import OverlapPolicy, PauseKind
from schedules.timing import occurrences
from schedules.timing.occurrences import SpecError, Timing
from schedules.values import pinned
from scheduling_project.common import clock
from scheduling_project.common.errors import InvalidInput

DAY: Final = 86_400
MOST_DAYS: Final = 60
#: Slots that are assumed when no worker has reported.
ASSUMED_SLOTS: Final = 4
CHUNK: Final = 500
#: Instants that one model may have: a simulation of some ten seconds for each million.
MOST_INSTANTS: Final = 20_000_000
MOST_ADDED: Final = 100_000


@dataclass(slots=True)
class Model:
    """A horizon [`start`, `end`) (epoch seconds) with its load. `assumed`: no worker has reported any slots."""

    start: int
    end: int
    facts: list[Fact]
    loads: list[Load]
    capacity: Capacity
    patterns: Patterns
    assumed: bool = False
    failed: int = 0
    hosts: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)

    @property
    def width(self) -> float:
        """Of the outcome's buckets, in seconds: an hour, less for short horizons."""
        return float(max(60, min(3600, (self.end - self.start) // 24)))

    def simulate(
        self,
        capacity: Capacity | None = None,
        *,
        fires: Mapping[str, Sequence[int]] | None = None,
        changed: Mapping[str, Load] | None = None,
        within: tuple[int, int] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Outcome:
        """What would happen, with another capacity, other fires or other loads for some schedules if given.

        `within` simulates a part of the horizon only (epoch seconds).
        """
        start, end = within or (self.start, self.end)
        loads = self.loads if not changed else [changed.get(load.key, load) for load in self.loads]
        own = [fact.fires for fact in self.facts]
        if fires:
            own = [fires.get(fact.id, fact.fires) for fact in self.facts]
        return simulate(
            _in_order(own, start, end),
            loads,
            capacity or self.capacity,
            start=start,
            end=end,
            width=self.width,
            progress=progress,
        )


def _in_order(fires: Sequence[Sequence[int]], start: int, end: int) -> Iterator[tuple[float, int]]:
    """All fires by time, a day at a time, so that memory does not follow the horizon."""
    places = [bisect_left(own, start) for own in fires]
    count = len(fires)
    for day in range(start, end, DAY):
        until = min(day + DAY, end)
        today = []
        for index, own in enumerate(fires):
            place = places[index]
            while place < len(own) and own[place] < until:
                today.append(own[place] * count + index)
                place += 1
            places[index] = place
        today.sort()
        for key in today:
            instant, index = divmod(key, count)
            yield float(instant), index


def read(
    *,
    days: int,
    history_days: int = analysis.DAYS,
    queryset: QuerySet[Schedule] | None = None,
    now: datetime | None = None,
    progress: Callable[[float], None] | None = None,
    using: str = "default",
) -> Model:
    """Everything that fires in the next `days` days, as things stand.

    Raises:
        InvalidInput: naming `days`, also when there are too many instants.
    """
    if not 1 <= days <= MOST_DAYS:
        raise InvalidInput(fields={"days": [f"must be from 1 to {MOST_DAYS}, not {days}"]})
    now = now or clock.now(using=using)
    start = int(now.timestamp()) + 1
    end = start + days * DAY
    patterns = analysis.analyze_execution_patterns(days=history_days, now=now, using=using)
    by_workflow = {pattern.id: pattern for pattern in patterns.workflows}
    capacity, assumed, hosts = _capacity(now, using)
    model = Model(start, end, [], [], capacity, patterns, assumed=assumed, hosts=hosts)
    chosen = Schedule.objects.using(using).all() if queryset is None else queryset.using(using)
    ended = Q(pause_kind__in=[PauseKind.FINISHED, PauseKind.ERROR])
    chosen = chosen.exclude(Q(enabled=False) & ended).filter(
        Q(enabled=True) | Q(paused_until__lt=datetime.fromtimestamp(end, UTC))
    )
    total = chosen.count() if progress is not None else 0
    profiles: dict[tuple[UUID, str], Profile] = {}
    budget = MOST_INSTANTS
    rows = chosen.select_related("version", "workflow__published").order_by("pk")
    for done, schedule in enumerate(rows.iterator(chunk_size=CHUNK)):
        if progress is not None and done % 100 == 0:
            progress(done / max(1, total))
        fact = _fact(schedule, model, by_workflow, profiles)
        if fact is None:
            continue
        budget -= len(fact.fires)
        if budget < 0:
            raise InvalidInput(fields={"days": [f"makes more than {MOST_INSTANTS} fires: choose fewer"]})
        model.facts.append(fact)
        model.loads.append(load_of(fact))
    return model


def _fact(
    schedule: Schedule,
    model: Model,
    by_workflow: Mapping[UUID, WorkflowPattern],
    profiles: dict[tuple[UUID, str], Profile],
) -> Fact | None:
    workflow = schedule.workflow
    if schedule.version is None or workflow.published is None:
        model.failed += 1
        return None
    pattern = by_workflow.get(workflow.pk)
    key = (workflow.pk, schedule.queue)
    try:
        timing = occurrences.compile(schedule.version.spec, seed=str(schedule.pk))
        if key not in profiles:
            plan = plan_of(workflow.published)
            profiles[key] = analysis.profile_of(
                workflow.name,
                plan,
                pattern,
                default_queue=settings.CELERY_TASK_DEFAULT_QUEUE,
                queue=schedule.queue,
            )
        placement = placement_of(schedule.metadata)
    except (SpecError, InvalidInput, ValueError, KeyError):
        model.failed += 1  # what cannot be computed does not fire either; the schedule itself says so
        return None
    after = model.start - 1
    if not schedule.enabled and schedule.paused_until is not None:
        after = max(after, int(schedule.paused_until.timestamp()))
    fires = fires_of(timing, after, model.end - 1)
    if schedule.max_executions is not None:
        fires = fires[: max(0, schedule.max_executions - schedule.started_count)]
    return Fact(
        id=str(schedule.pk),
        name=schedule.name,
        workflow=workflow.name,
        spec=schedule.version.spec,
        fires=fires,
        profile=profiles[key],
        placement=placement,
        p95=pattern.p95 if pattern is not None else 0.0,
        p99=pattern.p99 if pattern is not None else 0.0,
        priority=schedule.priority,
        overlap=schedule.overlap_policy,
        timeout=schedule.timeout,
        revision=schedule.revision,
        offset=timing.zone.offset(model.start),
    )


def fires_of(timing: Timing, after: int, until: int) -> array[int]:
    """When a timing's instants in (`after`, `until`] are due, those that are skipped left out."""
    if timing.jitter or timing.blackouts is not None:
        return array("q", (instant.due for instant in timing.due_between(after, until) if not instant.skip))
    return array("q", timing.fires(after, until))


def load_of(fact: Fact) -> Load:
    return Load(fact.id, fact.profile, priority=fact.priority, overlap=fact.overlap, deadline=fact.timeout)


def _capacity(now: datetime, using: str) -> tuple[Capacity, bool, dict[str, tuple[Group, ...]]]:
    """The slots of the living workers, by the queues they serve; and the same by host."""
    alive = ProcessReport.objects.using(using).filter(
        kind="worker", stopped_at=None, seen_at__gt=now - timedelta(seconds=ALIVE_SECONDS)
    )
    hosts: dict[str, dict[frozenset[str], int]] = {}
    for report in alive:
        own = hosts.setdefault(report.host, {})
        own[frozenset(report.queues)] = own.get(frozenset(report.queues), 0) + report.slots
    pools = dict(Pool.objects.using(using).values_list("name", "slots"))
    by_host = {host: _groups(own) for host, own in hosts.items()}
    groups = together([group for own in by_host.values() for group in own])
    assumed = not groups
    if assumed:
        groups = (Group(frozenset(settings.WORKFLOW_QUEUES), ASSUMED_SLOTS),)
    return Capacity(groups, pools), assumed, by_host


def _groups(slots: Mapping[frozenset[str], int]) -> tuple[Group, ...]:
    return tuple(Group(queues, slots[queues]) for queues in sorted(slots, key=sorted) if slots[queues])


def together(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Groups that serve the same queues as one."""
    slots: dict[frozenset[str], int] = {}
    for group in groups:
        slots[group.queues] = slots.get(group.queues, 0) + group.slots
    return _groups(slots)


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a what-if changes.

    Attributes:
        duration_factor: every duration times this.
        slots: queue → slots, which replace all workers that serve that queue.
        lose_hosts: hosts whose workers are gone.
        pools: name → slots.
        add: schedules to add: ``{"workflow": name, "spec": {…}}`` or ``{"cron_expression": …, "timezone": …}``,
            with ``count`` (so many of them), ``seconds`` (a run's length where the workflow is left out),
            ``queue`` and ``priority``.
    """

    duration_factor: float = 1.0
    slots: Mapping[str, int] = field(default_factory=dict)
    lose_hosts: tuple[str, ...] = ()
    pools: Mapping[str, int] = field(default_factory=dict)
    add: tuple[Mapping[str, Any], ...] = ()


def assume(model: Model, given: Assumptions, *, using: str = "default") -> Model:
    """The model as it would be. Nothing is saved.

    Raises:
        InvalidInput: naming the assumption, its value and the rule.
    """
    capacity = _assumed_capacity(model, given)
    loads = model.loads
    if given.duration_factor != 1.0:
        if not 0 < given.duration_factor <= 1000:
            raise InvalidInput(fields={"duration_factor": ["must be above 0 and at most 1000"]})
        known: dict[str, Profile] = {}
        loads = [replace(load, profile=_longer(load.profile, given.duration_factor, known)) for load in loads]
    changed = replace(model, capacity=capacity, loads=list(loads), facts=list(model.facts))
    total = 0
    for place, entry in enumerate(given.add):
        facts = _added(entry, place, model, using)
        total += len(facts)
        if total > MOST_ADDED:
            raise InvalidInput(fields={"add": [f"makes more than {MOST_ADDED} schedules"]})
        changed.facts += facts
        changed.loads += [load_of(fact) for fact in facts]
    return changed


def _assumed_capacity(model: Model, given: Assumptions) -> Capacity:
    groups: Sequence[Group] = model.capacity.groups
    for host in given.lose_hosts:
        if host not in model.hosts:
            known = ", ".join(sorted(model.hosts)) or "none"
            raise InvalidInput(fields={"lose_hosts": [f"{host} has no living workers; hosts that have: {known}"]})
    if given.lose_hosts:
        left = [group for host, own in model.hosts.items() if host not in given.lose_hosts for group in own]
        groups = together(left)
    for queue, slots in given.slots.items():
        if queue not in settings.WORKFLOW_QUEUES:
            raise InvalidInput(fields={f"slots.{queue}": ["is not a queue of this deployment"]})
        if isinstance(slots, bool) or not isinstance(slots, int) or not 0 <= slots <= 100_000:
            raise InvalidInput(fields={f"slots.{queue}": ["must be a whole number from 0 to 100000"]})
        others = [Group(group.queues - {queue}, group.slots) for group in groups if group.queues != {queue}]
        groups = together([*(group for group in others if group.queues), Group(frozenset({queue}), slots)])
    pools = dict(model.capacity.pools)
    for name, slots in given.pools.items():
        if name not in pools:
            raise InvalidInput(fields={f"pools.{name}": ["is not a pool"]})
        if isinstance(slots, bool) or not isinstance(slots, int) or not 0 <= slots <= 100_000:
            raise InvalidInput(fields={f"pools.{name}": ["must be a whole number from 0 to 100000"]})
        pools[name] = slots
    return Capacity(tuple(groups), pools)


def _longer(profile: Profile, factor: float, known: dict[str, Profile]) -> Profile:
    key = f"{id(profile)}"
    if key not in known:
        known[key] = Profile(
            profile.name,
            tuple(
                tuple(replace(stage, durations=tuple(value * factor for value in stage.durations)) for stage in level)
                for level in profile.levels
            ),
        )
    return known[key]


def _added(entry: Mapping[str, Any], place: int, model: Model, using: str) -> list[Fact]:
    """The facts of schedules that do not exist."""

    def wrong(name: str, rule: str) -> InvalidInput:
        return InvalidInput(fields={f"add.{place}.{name}": [rule]})

    spec = entry.get("spec")
    if spec is None and isinstance(entry.get("cron_expression"), str):
        timetable = {"kind": "cron", "expression": entry["cron_expression"]}
        spec = {"timezone": entry.get("timezone", "UTC"), "timetables": [timetable]}
    if not isinstance(spec, Mapping):
        raise wrong("spec", "is required: a spec, or a cron_expression with a timezone")
    try:
        canonical = occurrences.normalise(pinned(spec, using=using))
    except InvalidInput as error:
        raise InvalidInput(fields={f"add.{place}.{key}": rules for key, rules in error.fields.items()}) from None
    count = entry.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_ADDED:
        raise wrong("count", f"must be a whole number from 1 to {MOST_ADDED}")
    try:
        level = priority.parse(entry.get("priority", priority.NORMAL))
    except ValueError as error:
        raise wrong("priority", str(error)) from None
    queue = entry.get("queue") or settings.CELERY_TASK_DEFAULT_QUEUE
    if queue not in settings.WORKFLOW_QUEUES:
        raise wrong("queue", "is not a queue of this deployment")
    profile, p95 = _added_profile(entry, model, str(queue), wrong, using)
    facts = []
    for number in range(count):
        name = f"what-if {place + 1}.{number + 1}"
        timing = occurrences.compile(canonical, seed=name)
        facts.append(
            Fact(
                id=name,
                name=name,
                workflow=profile.name,
                spec=canonical,
                fires=fires_of(timing, model.start - 1, model.end - 1),
                profile=profile,
                placement=placement_of({}),
                p95=p95,
                p99=p95,
                priority=level,
                overlap=OverlapPolicy.ALLOW_ALL,
                timeout=None,
                revision=0,
                offset=timing.zone.offset(model.start),
            )
        )
    return facts


def _added_profile(
    entry: Mapping[str, Any], model: Model, queue: str, wrong: Callable[[str, str], InvalidInput], using: str
) -> tuple[Profile, float]:
    name = entry.get("workflow")
    if name is not None:
        workflow = Workflow.objects.using(using).select_related("published").filter(name=str(name)).first()
        if workflow is None or workflow.published is None:
            raise wrong("workflow", f"{name!r:.100} is not a published workflow")
        pattern = next((one for one in model.patterns.workflows if one.id == workflow.pk), None)
        plan = plan_of(workflow.published)
        return analysis.profile_of(workflow.name, plan, pattern, default_queue=queue), pattern.p95 if pattern else 0.0
    seconds = entry.get("seconds", analysis.ASSUMED_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 30 * DAY:
        raise wrong("seconds", f"must be a number from 0 to {30 * DAY}")
    return Profile("what-if", ((Stage("work", (float(seconds),), queue=queue),),)), float(seconds)
