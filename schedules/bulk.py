"""One deed for many schedules: all of them or none, with a dry run that lists what it would touch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from schedules import claims, lifecycle, values
from schedules.models import Schedule
from schedules.states import OnResume, PauseKind
from scheduling_project.common.errors import DomainError, InvalidInput

#: Schedules in one deed: they stay locked until the last one is done.
MOST = 10_000

#: Called once per schedule.
Progress = Callable[[], object] | None


@dataclass(slots=True)
class Bulk:
    """What a deed did, or (dry run) would do: the schedules it changes, those it leaves as they are, and those that
    would refuse, each with id and name."""

    deed: str
    dry_run: bool
    changed: list[tuple[UUID, str]] = field(default_factory=list)
    unchanged: list[tuple[UUID, str]] = field(default_factory=list)
    refused: list[tuple[UUID, str, str]] = field(default_factory=list)


class BulkRefused(DomainError):
    """Some of the schedules do not allow this, so that nothing was changed."""

    code = "bulk_refused"
    status = 409


def pause(
    schedules: QuerySet[Schedule],
    *,
    actor: str,
    note: str = "",
    dry_run: bool = False,
    progress: Progress = None,
    using: str = "default",
) -> Bulk:
    """Pause those that are not paused."""

    def deed(schedule: Schedule) -> bool:
        if not schedule.enabled:
            return False
        lifecycle.pause(schedule.pk, actor=actor, note=note, using=using)
        return True

    return _each("pause", schedules, deed, dry_run=dry_run, progress=progress, using=using)


def resume(
    schedules: QuerySet[Schedule],
    *,
    actor: str,
    missed: str = OnResume.SKIP,
    note: str = "",
    dry_run: bool = False,
    progress: Progress = None,
    using: str = "default",
) -> Bulk:
    """Resume those that are paused and have something left to fire."""

    def deed(schedule: Schedule) -> bool:
        if schedule.enabled or schedule.pause_kind == PauseKind.FINISHED:
            return False
        lifecycle.resume(schedule.pk, actor=actor, missed=missed, note=note, using=using)
        return True

    return _each("resume", schedules, deed, dry_run=dry_run, progress=progress, using=using)


def delete(
    schedules: QuerySet[Schedule],
    *,
    actor: str,
    note: str = "",
    dry_run: bool = False,
    progress: Progress = None,
    using: str = "default",
) -> Bulk:
    """Delete all of them."""

    def deed(schedule: Schedule) -> bool:
        lifecycle.delete(schedule.pk, actor=actor, note=note, using=using)
        return True

    return _each("delete", schedules, deed, dry_run=dry_run, progress=progress, using=using)


def update(
    schedules: QuerySet[Schedule],
    changes: Mapping[str, Any],
    *,
    actor: str,
    note: str = "",
    dry_run: bool = False,
    progress: Progress = None,
    using: str = "default",
) -> Bulk:
    """Give all of them the same values.

    Raises:
        InvalidInput: also for names and external ids, which only one can have.
    """
    unique = {name: ["cannot be the same for several"] for name in ("name", "external_id") if name in changes}
    if unique:
        raise InvalidInput(fields=unique)
    values.check({name: value for name, value in changes.items() if name != "input"}, using=using)

    def deed(schedule: Schedule) -> bool:
        before = schedule.revision
        return lifecycle.update(schedule.pk, changes, actor=actor, note=note, using=using).revision != before

    return _each("update", schedules, deed, dry_run=dry_run, progress=progress, using=using)


class _DryRun(Exception):
    """Rolls a dry run back."""


def _each(
    name: str,
    schedules: QuerySet[Schedule],
    deed: Callable[[Schedule], bool],
    *,
    dry_run: bool,
    progress: Progress,
    using: str,
) -> Bulk:
    """Do the deed to each, in the order of ids, under locks taken beforehand: two of these cannot lock each other up.

    A dry run does everything and rolls it back: it refuses exactly what the deed itself would refuse.
    """
    ids = sorted(schedules.using(using).order_by().values_list("pk", flat=True)[: MOST + 1])
    if len(ids) > MOST:
        raise InvalidInput(f"More than {MOST} schedules match; narrow the filter.")
    result = Bulk(name, dry_run)
    try:
        with transaction.atomic(using=using):
            claims.lock(ids, using=using)
            for schedule in Schedule.objects.using(using).filter(pk__in=ids).order_by("pk"):
                if progress is not None:
                    progress()
                try:
                    with transaction.atomic(using=using):
                        done = deed(schedule)
                except DomainError as error:
                    result.refused.append((schedule.pk, schedule.name, str(error)))
                else:
                    (result.changed if done else result.unchanged).append((schedule.pk, schedule.name))
            if result.refused and not dry_run:
                raise BulkRefused(
                    refused=[{"id": str(pk), "name": label, "reason": why} for pk, label, why in result.refused]
                )
            if dry_run:
                raise _DryRun
    except _DryRun:
        pass
    return result
