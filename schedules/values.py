"""The values of a schedule as people give them: checked together, so that one answer names every wrong field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import definitions, priority
from execution.creation import check_size
from execution.models import Workflow
from schedules.models import Schedule
from schedules.models.calendar import Calendar
from schedules.placement import placement_of
from schedules.states import CatchUpPolicy, ConflictCode, OnConflict, OverlapPolicy
from schedules.timing import occurrences
from schedules.timing.specs import calendar_names
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.json_values import too_deep

#: What can be given when a schedule is made or changed, `spec` beside it. `enabled` is changed by pause and resume.
FIELDS = (
    "name",
    "external_id",
    "description",
    "owner",
    "labels",
    "metadata",
    "workflow",
    "input",
    "priority",
    "queue",
    "retry_policy",
    "timeout",
    "concurrency_key",
    "overlap_policy",
    "catch_up",
    "catch_up_window",
    "max_executions",
    "pause_on_failure",
    "on_conflict",
)
LARGEST = 2**31 - 1


def check(values: Mapping[str, Any], *, present: Schedule | None = None, using: str = "default") -> dict[str, Any]:
    """The values as the model takes them; `spec` comes back canonical, with the calendars it names pinned.

    Args:
        values: some of `FIELDS`, and `spec`.
        present: the schedule that is changed; what is not given is taken from it where values hang together.

    Raises:
        InvalidInput: with a rule per field (dotted paths inside `spec`, `input` and `retry_policy`).
    """
    problems: dict[str, list[str]] = {}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in CHECKS and name != "spec":
            problems[name] = ["is not a field of a schedule"]
            continue
        try:
            checked[name] = _spec(value, using) if name == "spec" else CHECKS[name](value, using)
        except InvalidInput as error:
            problems.update({key: list(rules) for key, rules in error.fields.items()})
        except ValueError as error:
            problems[name] = [str(error)]
    _check_input(checked, problems, present)
    if problems:
        raise InvalidInput(fields=problems)
    return checked


def _check_input(checked: dict[str, Any], problems: dict[str, list[str]], present: Schedule | None) -> None:
    """The input must satisfy the published version of the workflow, whichever of the two is new."""
    if not {"input", "workflow"} & checked.keys() or {"input", "workflow"} & problems.keys():
        return
    workflow = checked.get("workflow", present.workflow if present else None)
    data = checked.get("input", present.input if present else {})
    if workflow is None or workflow.published is None:
        return
    try:
        definitions.validate_input(workflow.published, data)
    except InvalidInput as error:
        problems.update({key: list(rules) for key, rules in error.fields.items()})


def _spec(value: Any, using: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be an object")
    return occurrences.normalise(pinned(value, using=using))


def pinned(spec: Mapping[str, Any], *, using: str = "default") -> dict[str, Any]:
    """A spec with the present definitions of the calendars it names; it need not be checked yet."""
    names = calendar_names(spec)
    given = spec["calendars"].get("data") or {} if names else None
    if not isinstance(given, Mapping):
        return dict(spec)
    data = {**given, **Calendar.objects.using(using).definitions(names)}
    return {**spec, "calendars": {**spec["calendars"], "data": data}}


def _workflow(value: Any, using: str) -> Workflow:
    """A workflow, or the id or name of one."""
    if isinstance(value, Workflow):
        return value
    known = Workflow.objects.using(using).select_related("published")
    found = None
    if isinstance(value, UUID):
        found = known.filter(pk=value).first()
    elif isinstance(value, str) and "\x00" not in value:
        found = known.filter(name=value).first()
        if found is None:
            try:
                found = known.filter(pk=UUID(value)).first()
            except ValueError:
                found = None
    if found is None:
        raise ValueError(f"there is no workflow {value!r:.100}")
    return found


def _text(most: int, *, least: int = 0, none: bool = False) -> Callable[[Any, str], str | None]:
    def check(value: Any, using: str) -> str | None:
        if value is None and none:
            return None
        if not isinstance(value, str):
            raise ValueError("must be a text")
        if "\x00" in value:
            raise ValueError("must not contain the character U+0000")
        if not least <= len(value.strip()) or len(value) > most:
            raise ValueError(f"must have {least or 'at most'}{' to' if least else ''} {most} characters")
        return value.strip() if least else value

    return check


def _object(value: Any, using: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    if too_deep(value):
        raise ValueError("is nested too deeply")
    return value


def _metadata(value: Any, using: str) -> dict[str, Any]:
    metadata = _object(value, using)
    placement_of(metadata)
    return metadata


def _labels(value: Any, using: str) -> dict[str, str]:
    labels = _object(value, using)
    if not all(isinstance(key, str) and isinstance(text, str) for key, text in labels.items()):
        raise ValueError("must be an object of texts")
    return labels


def _data(value: Any, using: str) -> dict[str, Any]:
    data = _object(value, using)
    check_size(data, field_name="input")
    return data


def _number(least: int) -> Callable[[Any, str], int | None]:
    def check(value: Any, using: str) -> int | None:
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
            raise ValueError(f"must be a whole number from {least} to {LARGEST}, or null")
        return value

    return check


def _timeout(value: Any, using: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise ValueError("must be a number of seconds above 0, or null")
    return float(value)


def _queue(value: Any, using: str) -> str:
    if value in ("", None):
        return ""
    if value not in settings.WORKFLOW_QUEUES:
        raise ValueError(f"there is no queue {value!r:.60}; there are {', '.join(settings.WORKFLOW_QUEUES)}")
    return str(value)


def _retry_policy(value: Any, using: str) -> Any:
    definitions.check_retry_policy(value)
    return value


def _choice(choices: type[OverlapPolicy] | type[CatchUpPolicy]) -> Callable[[Any, str], str]:
    def check(value: Any, using: str) -> str:
        if value not in choices.values:
            raise ValueError(f"must be one of {', '.join(choices.values)}")
        return str(value)

    return check


def _priority(value: Any, using: str) -> int:
    return priority.parse(value)


def _on_conflict(value: Any, using: str) -> Any:
    """One of `OnConflict`, or an object of these by `ConflictCode`, and `default` for the others."""
    if isinstance(value, str) and value in OnConflict.values:
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"must be one of {', '.join(OnConflict.values)}, or an object of these by kind of conflict")
    kinds = [*ConflictCode.values, "default"]
    for kind, wanted in value.items():
        if kind not in kinds:
            raise ValueError(f"{kind!r:.60} is not a kind of conflict; there are {', '.join(kinds)}")
        if wanted not in OnConflict.values:
            raise ValueError(f"{kind} must be one of {', '.join(OnConflict.values)}")
    return dict(value)


CHECKS: Mapping[str, Callable[[Any, str], Any]] = {
    "name": _text(200, least=1),
    "external_id": _text(200, least=1, none=True),
    "description": _text(10_000),
    "owner": _text(200),
    "labels": _labels,
    "metadata": _metadata,
    "workflow": _workflow,
    "input": _data,
    "priority": _priority,
    "queue": _queue,
    "retry_policy": _retry_policy,
    "timeout": _timeout,
    "concurrency_key": _text(255),
    "overlap_policy": _choice(OverlapPolicy),
    "catch_up": _choice(CatchUpPolicy),
    "catch_up_window": _number(0),
    "max_executions": _number(1),
    "pause_on_failure": _number(1),
    "on_conflict": _on_conflict,
}


def snapshot(schedule: Schedule) -> dict[str, Any]:
    """All that people set of a schedule, JSON-ready, for audit entries, exports and comparisons."""
    values = {name: getattr(schedule, name) for name in FIELDS if name != "workflow"}
    return {
        **values,
        "workflow": schedule.workflow.name,
        "spec": schedule.version.spec if schedule.version else None,
        "enabled": schedule.enabled,
    }
