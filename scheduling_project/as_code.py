"""Workflows, schedules and triggers together as one document: export, and apply all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from execution import as_code as workflow_documents
from execution.applying import Applied, all_or_nothing
from execution.models import Workflow
from schedules import as_code as schedule_documents
from schedules.models import Schedule
from scheduling_project.common.errors import InvalidInput
from triggers import as_code as trigger_documents
from triggers import catalog
from triggers.models import Trigger

#: In the order in which they are applied: what others name comes first.
SECTIONS: Final = ("workflows", "schedules", "triggers")


def export(sections: Sequence[str] = SECTIONS) -> dict[str, list[dict[str, Any]]]:
    """The document of everything, or of some sections. Secrets, calendars and endpoints are named, not contained."""
    every: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "workflows": lambda: workflow_documents.export(Workflow.objects.all()),
        "schedules": lambda: schedule_documents.export(Schedule.objects.all()),
        "triggers": lambda: trigger_documents.export(Trigger.objects.all()),
    }
    return {name: every[name]() for name in SECTIONS if name in sections}


def apply(
    document: Any,
    *,
    actor: str,
    dry_run: bool = False,
    prune: bool = False,
    progress: Callable[[], object] | None = None,
) -> dict[str, Applied]:
    """Make everything what the document says, in one transaction. Sections that it lacks stay as they are.

    Args:
        prune: delete schedules that were applied before and that the document no longer names.
        progress: called once per document.

    Raises:
        InvalidInput: with fields such as ``schedules.2.cron_expression``. Mistakes in schedules and triggers are told
            together; those in workflows alone, since the others name workflows.
    """
    misshapen = _shape(document)
    if misshapen:
        raise InvalidInput("Nothing was applied.", fields=misshapen)
    applied: dict[str, Applied] = {}
    with all_or_nothing(dry_run=dry_run) as problems:
        if "workflows" in document:
            applied["workflows"] = workflow_documents.apply(document["workflows"], actor=actor, progress=progress)
        if "schedules" in document:
            with _told_together(problems):
                applied["schedules"] = schedule_documents.apply(
                    document["schedules"], actor=actor, prune=prune, progress=progress
                )
        if "triggers" in document:
            with _told_together(problems):
                applied["triggers"] = trigger_documents.apply(document["triggers"], actor=actor, progress=progress)
    if dry_run:
        catalog.expire()
    return applied


@contextmanager
def _told_together(problems: dict[str, list[str]]) -> Iterator[None]:
    try:
        yield
    except InvalidInput as error:
        problems.update({name: list(rules) for name, rules in error.fields.items()})


def _shape(document: Any) -> dict[str, list[str]]:
    if not isinstance(document, Mapping):
        return {"document": [f"must be an object with {', '.join(SECTIONS)}"]}
    problems: dict[str, list[str]] = {}
    for name, section in document.items():
        if name not in SECTIONS:
            problems[str(name)] = [f"is not a section; there are {', '.join(SECTIONS)}"]
        elif not isinstance(section, list):
            problems[str(name)] = ["must be a list"]
    return problems
