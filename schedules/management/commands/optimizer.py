"""The optimiser from the command line: reports, what-ifs, and the changes that are taken from them."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from execution import analysis
from schedules import optimization, optimizer
from schedules.load_model import Assumptions
from schedules.models import OptimizationChange, OptimizationReport
from scheduling_project.common.errors import DomainError

EXAMPLES = """examples:
  manage.py optimizer report --days 7
  manage.py optimizer show
  manage.py optimizer apply                      every proposal of the newest report
  manage.py optimizer revert --change <id>
  manage.py optimizer what-if --slots default=8 --duration-factor 1.5
  manage.py optimizer what-if --add '{"cron_expression": "0 2 * * *", "count": 200, "seconds": 30}'
  manage.py optimizer patterns --json
"""

#: Figure, what it is called, and how it is shown.
FIGURES: Sequence[tuple[str, str, str]] = (
    ("executions", "Executions", "{:,}"),
    ("skipped", "Skipped", "{:,}"),
    ("blocked", "Blocked", "{:,}"),
    ("missed_deadlines", "Missed deadlines", "{:,}"),
    ("utilisation", "Utilisation", "{:.1%}"),
    ("peak_utilisation", "Utilisation at the peak", "{:.1%}"),
    ("peak_arrivals", "Most fires in one stretch", "{:,}"),
    ("wait_p50", "Wait, 50 of 100", "{:.1f} s"),
    ("wait_p95", "Wait, 95 of 100", "{:.1f} s"),
    ("wait_max", "Longest wait", "{:.1f} s"),
)


class Command(BaseCommand):
    help = "Measure what executions cost, simulate the coming days, and propose, apply and revert adjustments."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
        reporting = verbs.add_parser("report", help="simulate the coming days and propose adjustments")
        assuming = verbs.add_parser("what-if", help="the same simulation with other assumptions; saves nothing")
        for one in (reporting, assuming):
            one.add_argument("--days", type=int, default=optimization.DAYS, help="how far to look ahead")
        reporting.add_argument(
            "--tolerated", type=float, default=optimizer.TOLERATED, help="seconds that 95 of 100 runs may wait"
        )
        reporting.add_argument("--note", default="", help="kept with the report")
        assuming.add_argument("--duration-factor", type=float, default=1.0)
        assuming.add_argument("--slots", action="append", default=[], metavar="QUEUE=N")
        assuming.add_argument("--pool", action="append", default=[], metavar="POOL=N")
        assuming.add_argument("--lose-host", action="append", default=[], metavar="HOST")
        assuming.add_argument("--add", action="append", default=[], metavar="JSON", help="schedules to add")
        patterns = verbs.add_parser("patterns", help="durations, failures and waiting per workflow")
        patterns.add_argument("--days", type=int, default=analysis.DAYS, help="how far to look back")
        showing = verbs.add_parser("show", help="a report and its proposals")
        applying = verbs.add_parser("apply", help="make proposed changes, all or none")
        reverting = verbs.add_parser("revert", help="put back what was applied, all or none")
        for one in (showing, applying, reverting):
            one.add_argument("report", nargs="?", help="id of a report; the newest when left out")
        for one in (applying, reverting):
            one.add_argument("--change", action="append", metavar="ID", help="only this one (repeatable)")
            one.add_argument("--note", default="", help="why, for the audit trail")
        for one in (reporting, assuming, patterns, showing, applying, reverting):
            one.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        self.console = Console(file=cast(IO[str], self.stdout), width=None if sys.stdout.isatty() else 160)
        self.as_json = bool(options["json"])
        try:
            getattr(self, f"do_{verb.replace('-', '_')}")(options)
        except DomainError as error:
            raise CommandError(str(error)) from None

    @property
    def actor(self) -> str:
        return f"command:{getpass.getuser()}"

    def do_report(self, options: dict[str, Any]) -> None:
        with self._progress() as progress:
            made = optimization.report(
                actor=self.actor,
                days=options["days"],
                tolerated=options["tolerated"],
                note=options["note"],
                progress=progress,
            )
        self._show(made)

    def do_show(self, options: dict[str, Any]) -> None:
        self._show(self._report(options))

    def do_apply(self, options: dict[str, Any]) -> None:
        report = self._report(options)
        self._decided(
            optimization.apply(report.pk, actor=self.actor, changes=_ids(options), note=options["note"]), "applied"
        )

    def do_revert(self, options: dict[str, Any]) -> None:
        report = self._report(options)
        self._decided(
            optimization.revert(report.pk, actor=self.actor, changes=_ids(options), note=options["note"]), "reverted"
        )

    def do_what_if(self, options: dict[str, Any]) -> None:
        given = Assumptions(
            duration_factor=options["duration_factor"],
            slots=_numbers(options["slots"], "--slots"),
            pools=_numbers(options["pool"], "--pool"),
            lose_hosts=tuple(options["lose_host"]),
            add=tuple(_object(text) for text in options["add"]),
        )
        with self._progress() as progress:
            found = optimization.what_if(given, days=options["days"], progress=progress)
        if self.as_json:
            self._print_json({"before": found.before, "after": found.after, "curve": found.curve})
        else:
            self.console.print(_compared(found.before, found.after, "As it is", "What if"))

    def do_patterns(self, options: dict[str, Any]) -> None:
        found = analysis.analyze_execution_patterns(days=options["days"])
        if self.as_json:
            self._print_json(found.as_dict())
            return
        table = Table("Workflow", "Runs", "Failed", "p50", "p95", "Worker seconds", "Waits p95", "Trend", box=None)
        for one in found.workflows:
            trend = "–" if one.trend is None else f"x{one.trend:.2f}"
            seconds = [f"{value:.1f} s" for value in (one.p50, one.p95, one.cost, one.wait_p95)]
            table.add_row(one.name, f"{one.executions:,}", f"{one.failure_rate:.1%}", *seconds, trend)
        self.console.print(table)
        for one in found.workflows:
            for anomaly in one.anomalies:
                self.console.print(f"! {one.name}: {anomaly.message}", highlight=False)

    def _report(self, options: dict[str, Any]) -> OptimizationReport:
        if options["report"] is None:
            newest = OptimizationReport.objects.first()
            if newest is None:
                raise CommandError("There is no report yet: make one with “optimizer report”.")
            return newest
        return optimization.get(_uuid(options["report"]))

    def _show(self, report: OptimizationReport) -> None:
        rows = list(report.changes.all())
        if self.as_json:
            self._print_json(
                {
                    "id": report.pk,
                    "days": report.days,
                    "schedules": report.schedules,
                    "before": report.before,
                    "after": report.after,
                    "changes": [_shown(row) for row in rows],
                }
            )
            return
        self.console.print(f"Report {report.pk}: {report}", highlight=False)
        if report.before.get("assumed_workers"):
            self.console.print(f"No worker has reported: {report.before['slots']} slots are assumed.", highlight=False)
        self.console.print(_compared(report.before, report.after, "As it is", "With all proposals"))
        if not rows:
            self.console.print("Nothing to propose.")
            return
        table = Table("Change", "What", "Kind", "Why", "State", box=None)
        for row in rows:
            state = row.get_state_display() if row.changes else "Advice"
            table.add_row(str(row.pk), row.label, row.kind, row.reason, state)
        self.console.print(table)

    def _decided(self, rows: Sequence[OptimizationChange], done: str) -> None:
        if self.as_json:
            self._print_json({"changes": [_shown(row) for row in rows]})
            return
        for row in rows:
            self.stdout.write(f"{row.kind} {row.label}")
        self.stdout.write(f"{len(rows)} {done}")

    def _print_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, cls=DjangoJSONEncoder))

    @contextmanager
    def _progress(self) -> Iterator[Callable[[str, float], None] | None]:
        """A bar per stage on a terminal; nothing elsewhere."""
        if self.as_json or not sys.stderr.isatty():
            yield None
            return
        bars: dict[str, TaskID] = {}
        with Progress(console=Console(stderr=True), transient=True) as shown:

            def told(what: str, part: float) -> None:
                if what not in bars:
                    for bar in bars.values():
                        shown.update(bar, completed=1)
                    bars[what] = shown.add_task(what, total=1)
                shown.update(bars[what], completed=part)

            yield told


def _shown(row: OptimizationChange) -> dict[str, Any]:
    names = ("id", "kind", "subject_kind", "subject", "label", "reason", "changes", "before", "effect", "state")
    return {name: getattr(row, name) for name in names}


def _compared(before: Mapping[str, Any], after: Mapping[str, Any], first: str, second: str) -> Table:
    table = Table("", first, second, box=None)
    for name, label, form in FIGURES:
        table.add_row(label, form.format(before[name]), form.format(after[name]))
    return table


def _ids(options: dict[str, Any]) -> list[UUID] | None:
    return None if options["change"] is None else [_uuid(text) for text in options["change"]]


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise CommandError(f"{text!r} is not an id.") from None


def _numbers(entries: Sequence[str], option: str) -> dict[str, int]:
    found = {}
    for entry in entries:
        name, _, number = entry.partition("=")
        if not name or not number.isascii() or not number.isdecimal():
            raise CommandError(f"{option} {entry!r} must look like name=4")
        found[name] = int(number)
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandError(f"--add must be JSON: {error}") from None
    if not isinstance(value, dict):
        raise CommandError("--add must be a JSON object")
    return value
