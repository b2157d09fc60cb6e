"""What people do with schedules. The API, the admin and the commands all call these functions.

Every deed is one transaction: the schedule's row lock first (so it waits for a visit in progress, and the next visit
for it), then the change, its audit entry and its PeriodicTask. An edit first settles the old values up to now: what
was due by then fires as it was defined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Max

from execution import audit, creation
from execution.creation import Source
from execution.models import Execution
from schedules import claims, conflict_facts, due, firing, periodic_tasks, values, versions
from schedules.claims import SOURCE_KIND
from schedules.models import Schedule, ScheduleVersion
from schedules.states import OnResume, PauseKind
from schedules.timing.zones import TZDATA_VERSION
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound, StaleVersion

#: Changes of these alone leave alone what is due: nothing has to be settled for them.
COSMETIC = frozenset({"name", "external_id", "description", "owner", "labels", "metadata"})


def create(
    *,
    actor: str,
    enabled: bool = True,
    note: str = "",
    now: datetime | None = None,
    using: str = "default",
    **given: Any,
) -> Schedule:
    """Make a schedule. It fires instants after now; those before are not its business.

    Args:
        given: `name`, `workflow` and `spec` at least, further `values.FIELDS`.

    Raises:
        InvalidInput: with a rule per field.
        Conflict: the name or external id is taken.
        ConflictsRefused: its `on_conflict` refuses what it would be.
    """
    missing = {name: ["is required"] for name in ("name", "workflow", "spec") if given.get(name) is None}
    if missing:
        try:
            values.check({k: v for k, v in given.items() if v is not None}, using=using)
        except InvalidInput as error:
            missing = {**{key: list(rules) for key, rules in error.fields.items()}, **missing}
        raise InvalidInput(fields=missing)
    checked = values.check(given, using=using)
    spec = checked.pop("spec")
    with _unique(), transaction.atomic(using=using):
        instant = now or clock.now(using=using)
        schedule = Schedule(**checked, enabled=enabled, fired_through=instant)
        if not enabled:
            schedule.paused_at, schedule.pause_kind, schedule.pause_note = instant, PauseKind.MANUAL, note[:500]
        schedule.save(using=using, force_insert=True)
        _add_version(schedule, spec, instant, actor=actor, using=using)
        _set_wake(schedule, instant, using=using)
        conflict_facts.refuse(schedule, now=instant, using=using)
        periodic_tasks.keep([schedule], using=using)
        changes = audit.difference({}, values.snapshot(schedule))
        _audit(schedule, "create", actor, changes=changes, note=note, using=using)
    return schedule


def update(
    schedule_id: UUID,
    changes: Mapping[str, Any],
    *,
    actor: str,
    revision: int | None = None,
    note: str = "",
    now: datetime | None = None,
    using: str = "default",
) -> Schedule:
    """Change some `values.FIELDS` or the `spec`; what does not differ is not a change.

    A schedule that had nothing left to fire goes on when the change gives it something.

    Raises:
        NotFound, InvalidInput, Conflict, ConflictsRefused: as for `create`.
        StaleVersion: `revision` is not the present one.
    """
    with _unique(), transaction.atomic(using=using):
        schedule = _hold(schedule_id, revision, using=using)
        before = values.snapshot(schedule)
        checked = values.check(changes, present=schedule, using=using)
        spec = checked.pop("spec", None)
        if spec is not None and schedule.version is not None and spec == schedule.version.spec:
            spec = None
        differing = {name: value for name, value in checked.items() if getattr(schedule, name) != value}
        if not differing and spec is None:
            return schedule
        instant = now or clock.now(using=using)
        if schedule.enabled and (spec is not None or not differing.keys() <= COSMETIC):
            schedule = _settle(schedule, instant, using=using)
        for name, value in differing.items():
            setattr(schedule, name, value)
        schedule.revision += 1
        schedule.save(using=using, update_fields=[*differing, "revision", "updated_at"])
        if spec is not None:
            _add_version(schedule, spec, instant, actor=actor, using=using)
        _revive(schedule, instant, using=using)
        if schedule.enabled:
            _set_wake(schedule, instant, using=using)
        if spec is not None or not differing.keys() <= COSMETIC:
            conflict_facts.refuse(schedule, now=instant, using=using)
        periodic_tasks.keep([schedule], using=using)
        changes_made = audit.difference(before, values.snapshot(schedule))
        _audit(schedule, "update", actor, changes=changes_made, note=note, using=using)
    return schedule


def delete(
    schedule_id: UUID, *, actor: str, revision: int | None = None, note: str = "", using: str = "default"
) -> None:
    """Delete a schedule with its versions and ledger. Executions that it started stay, and run to their end.

    Raises:
        NotFound, StaleVersion.
    """
    with transaction.atomic(using=using):
        schedule = _hold(schedule_id, revision, using=using)
        changes = audit.difference(values.snapshot(schedule), {})
        _audit(schedule, "delete", actor, changes=changes, note=note, using=using)
        if schedule.periodic_task_id is not None:
            task_id = schedule.periodic_task_id
            Schedule.objects.using(using).filter(pk=schedule.pk).update(periodic_task=None, version=None)
            periodic_tasks.drop([task_id], using=using)
        else:
            Schedule.objects.using(using).filter(pk=schedule.pk).update(version=None, next_fire_at=None)
        Schedule.objects.using(using).get(pk=schedule.pk).delete()


def pause(
    schedule_id: UUID,
    *,
    actor: str,
    note: str = "",
    until: datetime | None = None,
    on_resume: str = OnResume.SKIP,
    revision: int | None = None,
    now: datetime | None = None,
    using: str = "default",
) -> Schedule:
    """Stop firing; what was due before now still fires. Pausing again changes note, end and what happens at the end.

    Args:
        until: when the pause ends by itself; None: only by `resume`.
        on_resume: what happens then with the instants that the pause covered: ``skip`` or ``catch_up``.

    Raises:
        NotFound, StaleVersion.
        InvalidInput: `until` lies in the past, or there is no such choice.
        Conflict: the schedule has nothing left to fire.
    """
    if on_resume not in OnResume.values:
        raise InvalidInput(fields={"on_resume": [f"must be one of {', '.join(OnResume.values)}"]})
    with transaction.atomic(using=using):
        schedule = _hold(schedule_id, revision, using=using)
        instant = now or clock.now(using=using)
        if until is not None and until <= instant:
            raise InvalidInput(fields={"until": ["must lie in the future"]})
        if not schedule.enabled and schedule.pause_kind == PauseKind.FINISHED:
            raise Conflict("The schedule has nothing left to fire.")
        before = _pause_state(schedule)
        if schedule.enabled:
            schedule = _settle(schedule, instant, using=using)
        if not schedule.enabled and schedule.pause_kind == PauseKind.FINISHED:
            return schedule  # what was due just now was its last
        if schedule.enabled:
            schedule.enabled, schedule.paused_at = False, instant
        schedule.pause_kind, schedule.pause_note = PauseKind.MANUAL, note[:500]
        schedule.paused_until, schedule.on_resume, schedule.next_fire_at = until, on_resume, until
        schedule.revision += 1
        schedule.save(using=using)
        periodic_tasks.keep([schedule], using=using)
        changes = audit.difference(before, _pause_state(schedule))
        _audit(schedule, "pause", actor, changes=changes, note=note, using=using)
    return schedule


def resume(
    schedule_id: UUID,
    *,
    actor: str,
    missed: str = OnResume.SKIP,
    note: str = "",
    revision: int | None = None,
    now: datetime | None = None,
    using: str = "default",
) -> Schedule:
    """Fire again. Resuming what is not paused changes nothing.

    Args:
        missed: what to do about the instants that the pause covered: ``skip`` (they become missed) or ``catch_up``
            (the schedule's catch-up policy decides).

    Raises:
        NotFound, StaleVersion, InvalidInput.
        Conflict: the schedule has nothing left to fire.
    """
    if missed not in OnResume.values:
        raise InvalidInput(fields={"missed": [f"must be one of {', '.join(OnResume.values)}"]})
    with transaction.atomic(using=using):
        schedule = _hold(schedule_id, revision, using=using)
        if schedule.enabled:
            return schedule
        instant = now or clock.now(using=using)
        before = _pause_state(schedule)
        if _spent(schedule) or (schedule.pause_kind == PauseKind.FINISHED and _wake(schedule, using) is None):
            raise Conflict("The schedule has nothing left to fire.")
        _enable(schedule, instant, missed=missed)
        schedule.revision += 1
        schedule.save(using=using)
        schedule = _settle(schedule, instant, using=using)
        periodic_tasks.keep([schedule], using=using)
        changes = audit.difference(before, _pause_state(schedule)) | {"missed": {"before": None, "after": missed}}
        _audit(schedule, "resume", actor, changes=changes, note=note, using=using)
    return schedule


def trigger(
    schedule_id: UUID,
    *,
    actor: str,
    input: Mapping[str, Any] | None = None,
    priority: Any = None,
    idempotency_key: str | None = None,
    note: str = "",
    using: str = "default",
) -> Execution:
    """Start one execution now, beside the timetable: it is no instant, so it is not in the ledger, counts against no
    maximum and waits for no overlap policy. It works while the schedule is paused.

    Raises:
        NotFound.
        InvalidInput: the input does not satisfy the workflow's schema, or the priority is none.
        Conflict: the workflow has no published version.
    """
    with transaction.atomic(using=using):
        schedule = get(schedule_id, using=using)
        try:
            level = schedule.priority if priority is None else values.CHECKS["priority"](priority, using)
        except ValueError as error:
            raise InvalidInput(fields={"priority": [str(error)]}) from None
        execution = creation.start(
            schedule.workflow,
            source=Source(SOURCE_KIND, str(schedule.pk), schedule.name),
            input=dict(schedule.input if input is None else input),
            using=using,
            priority=level,
            queue=schedule.queue,
            retry_policy=schedule.retry_policy,
            timeout=schedule.timeout,
            concurrency_key=schedule.concurrency_key,
            idempotency_key=idempotency_key,
            news_topic=firing.news_topic(schedule),
        )
        changes = {"execution": {"before": None, "after": str(execution.pk)}}
        _audit(schedule, "trigger", actor, changes=changes, note=note, using=using)
    return execution


def clone(
    schedule_id: UUID, *, name: str, actor: str, now: datetime | None = None, using: str = "default", **changes: Any
) -> Schedule:
    """A new schedule like this one, with another name and further `changes`; its history starts anew.

    Raises:
        NotFound, InvalidInput, Conflict.
    """
    source = get(schedule_id, using=using)
    given = {field: getattr(source, field) for field in values.FIELDS}
    given |= {"spec": source.version.spec if source.version else None, "external_id": None}
    given |= {"name": name, "enabled": source.enabled or source.pause_kind != PauseKind.MANUAL, **changes}
    return create(actor=actor, note=f"Cloned from {source.name}.", now=now, using=using, **given)


def upsert(
    *, actor: str, note: str = "", now: datetime | None = None, using: str = "default", **given: Any
) -> tuple[Schedule, bool]:
    """Create the schedule, or make the one with the same `external_id` (else `name`) what is given. Idempotent.

    Returns the schedule and whether it was created. `enabled` is only heeded where it is given.

    Raises:
        InvalidInput, Conflict.
    """
    key = "external_id" if given.get("external_id") is not None else "name"
    if given.get(key) is None:
        raise InvalidInput(fields={"name": ["is required"]})
    for attempt in range(2):
        present = Schedule.objects.using(using).filter(**{key: given[key]}).first()
        if present is not None:
            changes = {name: value for name, value in given.items() if name != "enabled"}
            with transaction.atomic(using=using):
                schedule = update(present.pk, changes, actor=actor, note=note, now=now, using=using)
                if given.get("enabled") is False and schedule.enabled:
                    schedule = pause(schedule.pk, actor=actor, note=note, now=now, using=using)
                elif given.get("enabled") is True and schedule.pause_kind == PauseKind.MANUAL:
                    schedule = resume(schedule.pk, actor=actor, note=note, now=now, using=using)
            return schedule, False
        try:
            return create(actor=actor, note=note, now=now, using=using, **given), True
        except Conflict:
            # Race: another upsert of the same key came first. Its row is seen on the second try.
            if attempt or not Schedule.objects.using(using).filter(**{key: given[key]}).exists():
                raise
    raise AssertionError("unreachable")


def get(schedule_id: UUID, *, using: str = "default") -> Schedule:
    """A schedule with its workflow and version loaded.

    Raises:
        NotFound.
    """
    try:
        return (
            Schedule.objects.using(using)
            .select_related("workflow", "workflow__published", "version")
            .get(pk=schedule_id)
        )
    except Schedule.DoesNotExist:
        raise NotFound(f"There is no schedule {schedule_id}.") from None


def _hold(schedule_id: UUID, revision: int | None, *, using: str) -> Schedule:
    """Lock a schedule, then read it."""
    claims.lock([schedule_id], using=using)
    schedule = get(schedule_id, using=using)
    if revision is not None and schedule.revision != revision:
        raise StaleVersion(revision=schedule.revision)
    return schedule


def _settle(schedule: Schedule, now: datetime, *, using: str) -> Schedule:
    """Fire what the schedule owes up to `now`, as far as one visit goes; returns it as it is then."""
    firing.settle(schedule.pk, now=now, using=using)
    return get(schedule.pk, using=using)


def _add_version(schedule: Schedule, spec: Mapping[str, Any], now: datetime, *, actor: str, using: str) -> None:
    latest = ScheduleVersion.objects.using(using).filter(schedule=schedule).aggregate(latest=Max("number"))["latest"]
    schedule.version = ScheduleVersion.objects.using(using).create(
        schedule=schedule,
        number=(latest or 0) + 1,
        effective_from=max(now, schedule.fired_through),
        spec=dict(spec),
        tzdata=TZDATA_VERSION,
        created_by=actor[:200],
    )
    schedule.save(using=using, update_fields=["version", "updated_at"])


def _wake(schedule: Schedule, using: str, *, after: int | None = None) -> int | None:
    """The wake-up after the watermark (or `after`) that follows from the versions, epoch seconds; None: never."""
    (row,) = claims.lock([schedule.pk], using=using)

    def fail(row: Any, error: Exception) -> None:
        raise Conflict(f"The timing cannot be computed: {error}") from error

    ((_, segments),) = versions.segments([row], using=using, failed=fail)
    return due.next_wake(segments, row.fired_through if after is None else after)


def _set_wake(schedule: Schedule, now: datetime, *, using: str) -> None:
    if not schedule.enabled:
        return
    wake = _wake(schedule, using)
    schedule.next_fire_at = None if wake is None else datetime.fromtimestamp(wake, now.tzinfo)
    schedule.save(using=using, update_fields=["next_fire_at"])


def _revive(schedule: Schedule, now: datetime, *, using: str) -> None:
    """Let a finished schedule go on when an edit gave it something to fire after now."""
    if schedule.enabled or schedule.pause_kind != PauseKind.FINISHED or _spent(schedule):
        return
    if _wake(schedule, using, after=int(now.timestamp())) is None:
        return
    _enable(schedule, now, missed=OnResume.SKIP)
    schedule.save(using=using)


def _spent(schedule: Schedule) -> bool:
    return schedule.max_executions is not None and schedule.started_count >= schedule.max_executions


def _enable(schedule: Schedule, now: datetime, *, missed: str) -> None:
    schedule.enabled = True
    schedule.pause_kind = schedule.pause_note = ""
    schedule.paused_at = schedule.paused_until = None
    schedule.consecutive_failures = 0
    schedule.next_fire_at = now
    if missed == OnResume.SKIP:
        schedule.missed_through = now


def _pause_state(schedule: Schedule) -> dict[str, Any]:
    return {
        "enabled": schedule.enabled,
        "pause_kind": schedule.pause_kind,
        "pause_note": schedule.pause_note,
        "paused_until": schedule.paused_until.isoformat() if schedule.paused_until else None,
        "on_resume": schedule.on_resume,
    }


def _audit(
    schedule: Schedule, verb: str, actor: str, *, changes: Mapping[str, Any] | None = None, note: str = "", using: str
) -> None:
    audit.record(
        actor=actor,
        action=f"schedule.{verb}",
        subject_kind="schedule",
        subject_id=schedule.pk,
        subject_label=schedule.name,
        changes=changes,
        note=note,
        using=using,
    )


@contextmanager
def _unique() -> Iterator[None]:
    """A taken name or external id as what it is, not as a database error."""
    try:
        yield
    except IntegrityError as error:
        for marker in ("external_id", "name"):
            if f"({marker})=" in str(error):
                raise Conflict(
                    f"There is another schedule with this {marker.replace('_', ' ')}.", fields={marker: ["is taken"]}
                ) from None
        raise
