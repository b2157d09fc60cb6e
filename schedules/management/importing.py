"""What the commands that import have in common: choosing workflows, bars on a terminal, the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from django.core.management.base import CommandError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from schedules.importing.crontab import Choose
from schedules.importing.report import Report

TONES = {"translated": "green", "noted": "yellow", "refused": "red"}


@contextmanager
def bar(console: Console, what: str, total: int) -> Iterator[Callable[[], object]]:
    """Something to call once per thing done; a bar where somebody watches, else nothing."""
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def chooser(workflow: str | None, mapping: str | None) -> Choose:
    """Which workflow runs a command: the first entry of a mapping file that matches, else `workflow`.

    Raises:
        CommandError: the file cannot be read, or is not a list of {match, workflow, input}.
    """
    entries = _mapping(mapping) if mapping else []

    def choose(command: str) -> tuple[str, Mapping[str, Any]] | None:
        for pattern, name, further in entries:
            if pattern.search(command):
                return name, further
        return (workflow, {}) if workflow else None

    return choose


def _mapping(name: str) -> list[tuple[re.Pattern[str], str, dict[str, Any]]]:
    try:
        content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandError(f"{name} cannot be read: {error}") from None
    if not isinstance(content, list):
        raise CommandError(f"{name} must be a list of objects with match and workflow")
    entries = []
    for number, entry in enumerate(content, start=1):
        known = isinstance(entry, dict) and entry.keys() <= {"match", "workflow", "input"}
        if not known or not isinstance(entry.get("match"), str) or not isinstance(entry.get("workflow"), str):
            raise CommandError(f"{name}, entry {number}: must have match and workflow, and may have input")
        if not isinstance(entry.get("input", {}), dict):
            raise CommandError(f"{name}, entry {number}: input must be an object")
        try:
            entries.append((re.compile(entry["match"]), entry["workflow"], entry.get("input", {})))
        except re.error as error:
            raise CommandError(f"{name}, entry {number}: match is no regular expression: {error}") from None
    return entries


def show(console: Console, report: Report) -> None:
    """The report as a table, and a line that sums it up."""
    table = Table("Where", "Schedule", "Outcome", "Done", "Remarks", box=None)
    for row in report.rows:
        remarks = "; ".join([row.reason] if row.reason else row.notes)
        outcome = f"[{TONES[row.outcome]}]{row.outcome}[/]"
        table.add_row(row.source, escape(row.name or row.text), outcome, row.action, escape(remarks))
    console.print(table)
    for note in report.notes:
        console.print(escape(note))
    counted = report.as_dict()
    outcomes, actions = counted["outcomes"], counted["actions"]
    done = "would be" if report.dry_run else "were"
    console.print(
        f"{actions['created']} {done} created, {actions['updated']} changed, {actions['unchanged']} are as they "
        f"should be; {outcomes['noted']} with notes, {outcomes['refused']} could not be translated."
    )
