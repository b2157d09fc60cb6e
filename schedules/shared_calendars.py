"""What people do with named calendars.

A schedule's version pins the definitions it was made with, so an edit changes no schedule until `apply` (or the next
edit of the schedule's timing) brings it there. What is in use keeps its name and cannot be deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction

from execution import audit
from schedules import lifecycle
from schedules.models import Calendar, Schedule
from schedules.timing.calendars import names_in
from scheduling_project.common.errors import Conflict, DomainError, NotFound, StaleVersion

FIELDS: Final = ("name", "description", "definition")
NAMED: Final = 5


def create(*, actor: str, using: str = "default", **given: Any) -> Calendar:
    """Make a calendar of `FIELDS`.

    Raises:
        InvalidInput: the definition is not acceptable.
        Conflict: the name is taken.
    """
    calendar = Calendar(**given)
    with transaction.atomic(using=using):
        _save(calendar, using=using)
        _audit(calendar, "create", actor, audit.difference({}, _values(calendar)), using=using)
    return calendar


def update(
    calendar_id: int, changes: Mapping[str, Any], *, actor: str, revision: int | None = None, using: str = "default"
) -> Calendar:
    """Change some `FIELDS`; schedules keep the definition that they were made with until `apply`.

    Raises:
        NotFound, InvalidInput.
        StaleVersion: `revision` is not the present one.
        Conflict: the name is taken, or is to change while something uses it.
    """
    with transaction.atomic(using=using):
        calendar = _hold(calendar_id, revision, using=using)
        before = _values(calendar)
        if changes.get("name", calendar.name) != calendar.name:
            _refuse_while_used(calendar, "renamed", using=using)
        for name, value in changes.items():
            setattr(calendar, name, value)
        calendar.clean()
        differing = audit.difference(before, _values(calendar))
        if differing:
            calendar.revision += 1
            _save(calendar, using=using)
            _audit(calendar, "update", actor, differing, using=using)
    return calendar


def delete(calendar_id: int, *, actor: str, revision: int | None = None, using: str = "default") -> None:
    """Delete a calendar.

    Raises:
        NotFound, StaleVersion.
        Conflict: a schedule's present version or another calendar uses it.
    """
    with transaction.atomic(using=using):
        calendar = _hold(calendar_id, revision, using=using)
        _refuse_while_used(calendar, "deleted", using=using)
        _audit(calendar, "delete", actor, audit.difference(_values(calendar), {}), using=using)
        calendar.delete(using=using)


def apply(calendar_id: int, *, actor: str, using: str = "default") -> tuple[list[UUID], list[dict[str, str]]]:
    """Bring the present definition into all schedules that use the calendar, each in a transaction of its own.

    What was due before still fires as it was defined. Returns the schedules that changed, and those that refused
    with the reason.

    Raises:
        NotFound.
    """
    calendar = get(calendar_id, using=using)
    done: list[UUID] = []
    refused: list[dict[str, str]] = []
    using_it = users_of(calendar.name, using=using).select_related("version").order_by("pk")
    for schedule_id, number in list(using_it.values_list("pk", "version__number")):
        try:
            with transaction.atomic(using=using):
                schedule = lifecycle.get(schedule_id, using=using)
                spec = schedule.version.spec if schedule.version else {}
                note = f"Calendar {calendar.name}, revision {calendar.revision}"
                changed = lifecycle.update(schedule_id, {"spec": spec}, actor=actor, note=note, using=using)
        except DomainError as error:
            refused.append({"id": str(schedule_id), "reason": str(error)})
        else:
            if changed.version is not None and changed.version.number != number:
                done.append(schedule_id)
    return done, refused


def get(calendar_id: int, *, using: str = "default") -> Calendar:
    """Raises NotFound."""
    try:
        return Calendar.objects.using(using).get(pk=calendar_id)
    except Calendar.DoesNotExist:
        raise NotFound(f"There is no calendar {calendar_id}.") from None


def users_of(name: str, *, using: str = "default") -> Any:
    """The schedules whose present version uses a calendar, itself or through another one."""
    return Schedule.objects.using(using).filter(version__spec__calendars__data__has_key=name)


def _hold(calendar_id: int, revision: int | None, *, using: str) -> Calendar:
    """Lock and read."""
    calendar = Calendar.objects.using(using).select_for_update().filter(pk=calendar_id).first()
    if calendar is None:
        raise NotFound(f"There is no calendar {calendar_id}.")
    if revision is not None and calendar.revision != revision:
        raise StaleVersion(revision=calendar.revision)
    return calendar


def _refuse_while_used(calendar: Calendar, verb: str, *, using: str) -> None:
    rows = Calendar.objects.using(using).exclude(pk=calendar.pk).order_by("name").values_list("name", "definition")
    users = [f"calendar {name}" for name, definition in rows if calendar.name in names_in(definition)]
    schedules = users_of(calendar.name, using=using).order_by("name").values_list("name", flat=True)
    users += [f"schedule {name}" for name in schedules]
    if users:
        more = f" and {len(users) - NAMED} more" if len(users) > NAMED else ""
        raise Conflict(f"It cannot be {verb} while it is used by {', '.join(users[:NAMED])}{more}.")


def _save(calendar: Calendar, *, using: str) -> None:
    calendar._state.db = using
    calendar.clean()
    try:
        with transaction.atomic(using=using):
            calendar.save(using=using)
    except IntegrityError as error:
        if "(name)=" not in str(error):
            raise
        raise Conflict("There is another calendar with this name.", fields={"name": ["is taken"]}) from None


def _values(calendar: Calendar) -> dict[str, Any]:
    return {name: getattr(calendar, name) for name in FIELDS}


def _audit(calendar: Calendar, verb: str, actor: str, changes: Mapping[str, Any], *, using: str) -> None:
    audit.record(
        actor=actor,
        action=f"calendar.{verb}",
        subject_kind="calendar",
        subject_id=calendar.pk,
        subject_label=calendar.name,
        changes=changes,
        using=using,
    )
