"""What schedules have to say to people: missed and late instants, differences of the ledger, schedules that do not run.

News are left in the transaction that recorded them, only where a rule looks for their kind; a range of missed
instants is one piece of news.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import Q

from execution import engine, news
from execution.models import NotificationRule
from execution.notifications import intake
from execution.notifications.kinds import NotificationKind
from execution.notifications.matching import Facts
from execution.notifications.outbox import Told
from schedules.claims import LedgerRow
from schedules.models import Schedule
from schedules.states import FireOutcome

#: Starts closer to their instant than this are not late for anybody, so that nothing is asked about them.
NEVER_LATE_SECONDS: Final = 1.0
MOST_SILENT: Final = 500
#: Types of events that triggers can ask for.
MISSED: Final = "schedule.fire_missed"
SKIPPED: Final = "schedule.fire_skipped"


def note(entries: Iterable[tuple[LedgerRow, Any, bool]], *, now: datetime, using: str) -> None:
    """Leave news of new ledger entries, given with their schedules' rows and whether they are new."""
    moment = now.timestamp()
    missed, late, skipped = [], [], []
    for entry, schedule, is_new in entries:
        if is_new and entry.outcome == FireOutcome.MISSED:
            missed.append((entry, schedule))
        elif is_new and entry.outcome == FireOutcome.SKIPPED:
            skipped.append((entry, schedule))
        elif is_new and entry.outcome == FireOutcome.STARTED and moment - entry.due > NEVER_LATE_SECONDS:
            late.append((entry, schedule))
    _tell({MISSED: missed, SKIPPED: skipped}, using)
    if not missed and not late:
        return
    wanted = intake.wanted([NotificationKind.FIRE_MISSED, NotificationKind.FIRE_LATE], using=using)
    events = []
    if NotificationKind.FIRE_MISSED in wanted:
        events += [(_missed(entry, schedule, now), schedule.id) for entry, schedule in missed]
    least = wanted.get(NotificationKind.FIRE_LATE)
    if least is not None:
        for entry, schedule in late:
            if moment - entry.due >= least:
                events.append((_late(entry, schedule, now), schedule.id))
    _publish(events, using)


def _tell(found: Mapping[str, Sequence[tuple[LedgerRow, Any]]], using: str) -> None:
    """Leave what triggers can start something on."""
    types = [type for type, entries in found.items() if entries]
    wanted = news.wanted(types, using=using) if types else set()
    for type in types:
        if type in wanted:
            told = [
                (
                    f"/schedules/{schedule.id}",
                    str(schedule.id),
                    {"schedule_id": str(schedule.id), **_facts(entry, schedule)},
                )
                for entry, schedule in found[type]
            ]
            news.leave(type, told, using=using)


def note_difference(schedule_id: UUID, name: str, differences: int, *, using: str) -> None:
    """Leave news of a difference between the ledger and the timing."""
    if intake.wanted([NotificationKind.LEDGER_DIFFERS], using=using):
        told = Told(
            kind=NotificationKind.LEDGER_DIFFERS,
            subject=str(schedule_id),
            title=f"The ledger of {name} differs from its timing in {differences} instants",
            at=engine.now(using=using),
            data={"schedule": name, "differences": differences},
        )
        _publish([(told, schedule_id)], using)


def note_stopped(schedules: Iterable[tuple[UUID, str]], why: str, *, now: datetime, using: str) -> None:
    """Leave news of schedules, given by id and name, that the system itself has taken out of firing."""
    if intake.wanted([NotificationKind.SCHEDULE_STOPPED], using=using):
        kind = NotificationKind.SCHEDULE_STOPPED
        told = [
            (
                Told(
                    kind=kind,
                    subject=str(schedule_id),
                    title=f"{name} does not fire any longer: {why}",
                    at=now,
                    data={"schedule": name, "reason": why},
                ),
                schedule_id,
            )
            for schedule_id, name in schedules
        ]
        _publish(told, using)


def _publish(events: list[tuple[Told, UUID]], using: str) -> None:
    if not events:
        return
    schedules = Schedule.objects.using(using).in_bulk({schedule_id for _, schedule_id in events})
    intake.publish(
        [(told, facts_of(schedules[key])) for told, key in events if key in schedules],
        using=using,
    )


def facts_of(schedule: Schedule) -> Facts:
    """What rules can be held against of a schedule."""
    return Facts(
        workflow_id=schedule.workflow_id,
        schedule=(str(schedule.pk), schedule.name),
        labels=schedule.labels,
        queue=schedule.queue,
    )


def _text(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat()


def _missed(entry: LedgerRow, schedule: Any, now: datetime) -> Told:
    count = f"{entry.instants} instants" if entry.instants > 1 else "an instant"
    return Told(
        kind=NotificationKind.FIRE_MISSED,
        subject=str(schedule.id),
        title=f"{schedule.name} missed {count}: {entry.reason}",
        at=now,
        data=_facts(entry, schedule),
    )


def _facts(entry: LedgerRow, schedule: Any) -> dict[str, Any]:
    return {
        "schedule": schedule.name,
        "scheduled_for": _text(entry.first),
        "until": _text(entry.last),
        "count": entry.instants,
        "reason": str(entry.reason),
    }


def _late(entry: LedgerRow, schedule: Any, now: datetime) -> Told:
    seconds = now.timestamp() - entry.due
    return Told(
        kind=NotificationKind.FIRE_LATE,
        subject=str(schedule.id),
        title=f"{schedule.name} fired {seconds:.0f} s late",
        at=now,
        data={"schedule": schedule.name, "scheduled_for": _text(entry.first), "seconds_late": round(seconds, 1)},
    )


# The latest begun execution of each schedule, by the index of sources; what waits in a queue has not begun.
LATEST: Final = """
SELECT s.id, (
    SELECT max(e.started_at) FROM (
        SELECT started_at FROM execution_execution
        WHERE source_kind = 'schedule' AND source_id = s.id::text ORDER BY id DESC LIMIT 20) e) AS at
FROM unnest(%(ids)s::uuid[]) AS s (id)
"""


def no_run(rule: NotificationRule, now: datetime, using: str) -> dict[str, Told]:
    """Schedules that fit the rule and have not run for its seconds. Paused ones are not expected to."""
    if rule.seconds is None or (rule.workflow_id is not None and not rule.schedule):
        return {}
    before = now - timedelta(seconds=rule.seconds)
    schedules = Schedule.objects.using(using).filter(enabled=True, created_at__lt=before)
    if rule.workflow_id is not None:
        schedules = schedules.filter(workflow=rule.workflow_id)
    if rule.labels:
        schedules = schedules.filter(labels__contains=rule.labels)
    if rule.queue:
        schedules = schedules.filter(queue=rule.queue)
    if rule.schedule:
        named = Q(name=rule.schedule)
        with suppress(ValueError):  # it is a name
            named |= Q(pk=UUID(rule.schedule))
        schedules = schedules.filter(named)
    chosen = {schedule.pk: schedule for schedule in schedules.order_by("name")[:MOST_SILENT]}
    found = {}
    for row in engine.fetch_all(LATEST, {"ids": engine.array(list(chosen))}, using=using):
        schedule = chosen[row.id]
        since = max(instant for instant in (row.at, schedule.created_at, rule.created_at) if instant is not None)
        seconds = (now - since).total_seconds()
        if seconds > rule.seconds:
            key = str(schedule.pk)
            title = f"{schedule.name} has not run for {seconds:.0f} s"
            data = {"schedule": schedule.name, "seconds": round(seconds)}
            found[key] = Told(kind=rule.kind, subject=key, title=title, at=now, data=data)
    return found
