"""A PeriodicTask of django-celery-beat into a schedule with a workflow of one step. Pure, but for the task registry.

Its crontab is Celery's own dialect: day of month *and* day of week must both match, ranges wrap around, and what it
means is asked of Celery itself. Its intervals are real time, a day is 24 hours.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from celery.schedules import ParseException, crontab_parser

from execution import priority, step_tasks
from schedules.importing.report import Row
from schedules.timing.solar import EVENTS
from schedules.timing.spec_reading import write_instant
from schedules.timing.zones import UnknownZone, zone_of

SOURCE: Final = "django-celery-beat"
SECONDS: Final = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
#: Field of a crontab: the lowest value, and how many there are.
_FIELDS: Final = {
    "minute": (0, 60),
    "hour": (0, 24),
    "day_of_month": (1, 31),
    "month_of_year": (1, 12),
    "day_of_week": (0, 7),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic:
    """A row of the PeriodicTask table with its timetable's row; what an old version lacks has its default."""

    id: int
    name: str
    task: str
    args: str = "[]"
    kwargs: str = "{}"
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    headers: str = "{}"
    priority: int | None = None
    expires: datetime | None = None
    expire_seconds: int | None = None
    one_off: bool = False
    start_time: datetime | None = None
    enabled: bool = True
    last_run_at: datetime | None = None
    total_run_count: int = 0
    description: str = ""
    crontab: Mapping[str, Any] | None = None
    interval: Mapping[str, Any] | None = None
    solar: Mapping[str, Any] | None = None
    clocked: Mapping[str, Any] | None = None


class Untranslatable(Exception):
    """Why a row has no counterpart."""


@dataclass(slots=True)
class _Notes:
    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.texts.append(text)


def translate(periodic: Periodic, *, label: str, queues: Iterable[str], now: datetime) -> Row:
    """The schedule that does what a PeriodicTask did.

    Args:
        label: the database among others; part of what a schedule is recognised by on the next import.
        queues: those that this deployment has.
        now: what has ended by then is refused.
    """
    row = Row(source=f"PeriodicTask {periodic.id}", text=periodic.task, name=periodic.name[:200])
    notes = _Notes()
    try:
        _refuse_what_is_over(periodic, now)
        spec = _spec(periodic, notes)
        data = _arguments(periodic)
        headers = _json(periodic.headers, "headers", dict)
    except Untranslatable as error:
        row.reason = str(error)
        return row
    known = set(queues)
    queue = periodic.queue or (periodic.routing_key if periodic.routing_key in known else None) or ""
    if queue not in known:
        if queue:
            notes.add(f"there is no queue {queue} here: it runs in the workflow's")
        queue = ""
    for name in ("exchange", "routing_key"):
        value = getattr(periodic, name)
        if value and value != queue:
            notes.add(f"{name} {value} has no counterpart")
    if headers:
        notes.add("headers are not sent with steps; they are kept in the metadata")
    values: dict[str, Any] = {
        "name": row.name,
        "external_id": f"{SOURCE}:{label[:120]}:{periodic.id}",
        "description": periodic.description[:10_000],
        "labels": {"imported-from": SOURCE},
        "metadata": {"django_celery_beat": {"id": periodic.id, "task": periodic.task, "headers": headers}},
        "input": data,
        "queue": queue,
        "priority": _priority(periodic, notes),
        "overlap_policy": "allow_all",  # beat never asks whether the run before still goes
        "catch_up": "latest",  # and after a downtime sends what is overdue once
        "max_executions": 1 if periodic.one_off or periodic.clocked else None,
        "spec": spec,
    }
    if periodic.expire_seconds:
        values["catch_up_window"] = periodic.expire_seconds
        notes.add(
            f"expire_seconds: an instant that cannot be fired for {periodic.expire_seconds} s is missed; waiting in a "
            "queue is not bounded by it"
        )
    row.values, row.notes, row.enabled = values, notes.texts, periodic.enabled
    row.task = (periodic.task, tuple(sorted(data)))
    return row


def _refuse_what_is_over(periodic: Periodic, now: datetime) -> None:
    if step_tasks.find(periodic.task) is None:
        raise Untranslatable(
            f"the task {periodic.task} may not be a step here: mark it with @step_task, or name it in WORKFLOW_TASKS"
        )
    if (periodic.one_off or periodic.clocked) and not periodic.enabled and periodic.total_run_count:
        raise Untranslatable("it was to run once, and has")
    if periodic.expires is not None and periodic.expires <= now:
        raise Untranslatable(f"it expired at {_text(periodic.expires)}")
    if periodic.clocked is not None and periodic.clocked["clocked_time"] <= now:
        raise Untranslatable(f"its time {_text(periodic.clocked['clocked_time'])} has passed")


# ── When ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _spec(periodic: Periodic, notes: _Notes) -> dict[str, Any]:
    if periodic.crontab is not None:
        zone = str(periodic.crontab.get("timezone") or "UTC")
        try:
            zone = zone_of(zone).name
        except UnknownZone as error:
            raise Untranslatable(f"timezone: {error}") from None
        expression = cron_expression({name: str(periodic.crontab[name]) for name in _FIELDS})
        spec: dict[str, Any] = {"timezone": zone, "timetables": [{"kind": "cron", "expression": expression}]}
    elif periodic.interval is not None:
        spec = {"timetables": [_interval(periodic, notes)]}
    elif periodic.solar is not None:
        spec = {"timetables": [_solar(periodic.solar)]}
    elif periodic.clocked is not None:
        spec = {"timetables": [{"kind": "once", "at": _text(periodic.clocked["clocked_time"])}]}
    else:
        raise Untranslatable("it has no crontab, interval, solar or clocked schedule")
    if periodic.start_time is not None:
        spec["start"] = _text(periodic.start_time)
    if periodic.expires is not None:
        spec["end"] = _text(periodic.expires)
    if "start" in spec and "end" in spec and spec["end"] < spec["start"]:
        raise Untranslatable("it expires before its start time")
    return spec


def cron_expression(fields: Mapping[str, str]) -> str:
    """The strict expression of a Celery crontab: each field as the values that Celery reads in it.

    >>> fields = {"minute": "0", "hour": "*/6", "day_of_month": "13", "month_of_year": "*", "day_of_week": "fri"}
    >>> cron_expression(fields)
    '0 0,6,12,18 13 * +5'

    Raises:
        Untranslatable: Celery itself could not read it.
    """
    texts = {}
    for name, (low, size) in _FIELDS.items():
        values = _celery_values(name, fields[name], low, size)
        texts[name] = "*" if len(values) == size else _ranges(values)
    if texts["day_of_month"] != "*" and texts["day_of_week"] != "*":
        texts["day_of_week"] = f"+{texts['day_of_week']}"  # Celery asks for both days
    return " ".join(texts[name] for name in ("minute", "hour", "day_of_month", "month_of_year", "day_of_week"))


def _celery_values(name: str, text: str, low: int, size: int) -> list[int]:
    try:
        values = sorted(crontab_parser(size, low).parse(text))
    except (ParseException, ValueError, KeyError, ZeroDivisionError) as error:
        raise Untranslatable(f"{name} {text!r:.60} cannot be read by Celery: {error}") from None
    high = low + size - 1
    if not values or values[0] < low or values[-1] > high:
        raise Untranslatable(f"{name} {text!r:.60} must lie between {low} and {high}")
    return values


def _ranges(values: list[int]) -> str:
    """
    >>> _ranges([1, 2, 3, 7])
    '1-3,7'
    """
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    shown = (f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
    return ",".join(shown)


def _interval(periodic: Periodic, notes: _Notes) -> dict[str, Any]:
    assert periodic.interval is not None
    every, period = int(periodic.interval["every"]), str(periodic.interval["period"])
    if period == "microseconds":
        if every % 1_000_000 or every < 1_000_000:
            raise Untranslatable(f"an interval of {every} microseconds is no whole number of seconds")
        every, period = every // 1_000_000, "seconds"
    if period not in SECONDS or every < 1:
        raise Untranslatable(f"every {every} {period} is no interval")
    timetable: dict[str, Any] = {"kind": "interval", "every": every * SECONDS[period]}
    anchor = periodic.last_run_at or periodic.start_time
    if anchor is not None:
        timetable["anchor"] = _text(anchor)
        notes.add(f"fires at whole intervals from {_text(anchor)} on and does not drift, as beat's intervals do")
    return timetable


def _solar(solar: Mapping[str, Any]) -> dict[str, Any]:
    event = str(solar["event"])
    if event not in EVENTS:
        raise Untranslatable(f"there is no solar event {event!r:.60}")
    return {
        "kind": "solar",
        "event": event,
        "latitude": float(solar["latitude"]),
        "longitude": float(solar["longitude"]),
    }


# ── What ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _arguments(periodic: Periodic) -> dict[str, Any]:
    """Its arguments by name: positional ones take the names that the task's own signature has."""
    task = step_tasks.find(periodic.task)
    assert task is not None
    given = _json(periodic.args, "args", list)
    named: dict[str, Any] = _json(periodic.kwargs, "kwargs", dict)
    if given:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
        parameters = inspect.signature(step_tasks.body_of(task)).parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind not in kinds]
        if len(names) < len(given) or any(parameter.kind in kinds for parameter in parameters):
            raise Untranslatable("its positional arguments have no names in the task's signature")
        twice = [name for name in names[: len(given)] if name in named]
        if twice:
            raise Untranslatable(f"the argument {twice[0]} is given twice")
        named = {**dict(zip(names, given, strict=False)), **named}
    mismatch = step_tasks.check_arguments(task, named)
    if mismatch:
        raise Untranslatable(f"its arguments do not fit the task: {mismatch}")
    odd = [name for name in named if not name.isidentifier()]
    if odd:
        raise Untranslatable(f"the argument {odd[0]!r:.60} is no name")
    return named


def _json(text: str, name: str, kind: type[Any]) -> Any:
    try:
        value = json.loads(text or ("[]" if kind is list else "{}"))
    except ValueError as error:
        raise Untranslatable(f"{name} is not JSON: {error}") from None
    if not isinstance(value, kind):
        raise Untranslatable(f"{name} must be {'a list' if kind is list else 'an object'}")
    return value


def _priority(periodic: Periodic, notes: _Notes) -> int:
    if periodic.priority is None:
        return priority.NORMAL
    if periodic.priority > priority.LEVELS[-1]:
        notes.add(f"priority {periodic.priority} is taken as {priority.LEVELS[-1]}, the last")
        return int(priority.LEVELS[-1])
    notes.add(f"priority {periodic.priority} is kept: 0 is the first here, as with Redis, unlike with RabbitMQ")
    return periodic.priority


def _text(instant: datetime) -> str:
    return write_instant(int(instant.replace(tzinfo=instant.tzinfo or UTC).timestamp()))
