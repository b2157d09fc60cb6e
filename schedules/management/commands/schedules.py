"""Schedules from the command line: look at them, pause, resume, trigger, export, apply, reconcile, stop and start."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import IO, Any, cast
from uuid import UUID

import yaml
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q
from rich.console import Console
from rich.table import Table

from schedules import as_code, audit, lifecycle, periodic_tasks, switch, values
from schedules.management import backfills
from schedules.models import Schedule
from schedules.states import OnResume
from scheduling_project.common.errors import DomainError


class Command(BaseCommand):
    help = "List, show, pause, resume, trigger, export, apply and audit schedules; stop and start all firing."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
        listing = verbs.add_parser("list", help="list schedules")
        listing.add_argument("--search", default="", help="part of the name or of the workflow's")
        listing.add_argument("--paused", action="store_true", help="only what is not enabled")
        for verb, text in (
            ("show", "show one schedule as YAML"),
            ("pause", "stop it firing"),
            ("resume", "let it fire again"),
            ("trigger", "start one execution now"),
            ("delete", "delete it with its history"),
        ):
            one = verbs.add_parser(verb, help=text)
            one.add_argument("name", help="the schedule's name or id")
            if verb in ("pause", "resume", "delete"):
                one.add_argument("--note", default="", help="why, for the audit trail")
            if verb == "resume":
                one.add_argument("--missed", choices=OnResume.values, default=OnResume.SKIP.value)
            if verb == "trigger":
                one.add_argument("--input", help="JSON, instead of the schedule's input")
                one.add_argument("--priority", help="0 (first) to 9, or its name")
        backfills.add_arguments(verbs)
        exporting = verbs.add_parser("export", help="print schedules as YAML or JSON")
        exporting.add_argument("--json", action="store_true")
        applying = verbs.add_parser("apply", help="make schedules what a YAML or JSON file says")
        applying.add_argument("file", help="a path, or - for the standard input")
        applying.add_argument("--dry-run", action="store_true", help="only show what would change")
        applying.add_argument("--prune", action="store_true", help="delete applied schedules that the file lacks")
        verbs.add_parser("reconcile", help="make all PeriodicTask rows what they should be")
        verbs.add_parser("audit", help="compare the ledger of the last day with the timings")
        for verb, text in (("stop", "stop all firing"), ("start", "let everything fire again")):
            switching = verbs.add_parser(verb, help=text)
            switching.add_argument("--note", default="", help="why, for the audit trail")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        self.console = Console(file=cast(IO[str], self.stdout), width=None if sys.stdout.isatty() else 160)
        try:
            getattr(self, f"do_{verb.replace('-', '_')}")(options)
        except DomainError as error:
            raise CommandError(str(error)) from None

    @property
    def actor(self) -> str:
        return f"command:{getpass.getuser()}"

    def do_list(self, options: dict[str, Any]) -> None:
        schedules = Schedule.objects.select_related("workflow").order_by("name")
        if options["search"]:
            text = options["search"]
            schedules = schedules.filter(Q(name__icontains=text) | Q(workflow__name__icontains=text))
        if options["paused"]:
            schedules = schedules.filter(enabled=False)
        table = Table("Name", "Workflow", "State", "Next fire", "Last fire", "Started", box=None)
        for one in schedules.iterator(chunk_size=500):
            state = "enabled" if one.enabled else (one.get_pause_kind_display() or "paused").lower()
            shown = [f"{t:%Y-%m-%d %H:%M:%SZ}" if t else "–" for t in (one.next_fire_at, one.last_fire_at)]
            table.add_row(one.name, one.workflow.name, state, *shown, str(one.started_count))
        self.console.print(table)

    def do_show(self, options: dict[str, Any]) -> None:
        shown = values.snapshot(self._schedule(options))
        self.stdout.write(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))

    def do_pause(self, options: dict[str, Any]) -> None:
        lifecycle.pause(self._schedule(options).pk, actor=self.actor, note=options["note"])
        self.stdout.write("paused")

    def do_resume(self, options: dict[str, Any]) -> None:
        one = self._schedule(options)
        lifecycle.resume(one.pk, actor=self.actor, missed=options["missed"], note=options["note"])
        self.stdout.write("resumed")

    def do_delete(self, options: dict[str, Any]) -> None:
        lifecycle.delete(self._schedule(options).pk, actor=self.actor, note=options["note"])
        self.stdout.write("deleted")

    def do_trigger(self, options: dict[str, Any]) -> None:
        level = options["priority"]
        try:
            data = None if options["input"] is None else json.loads(options["input"])
        except ValueError as error:
            raise CommandError(f"--input must be JSON: {error}") from None
        execution = lifecycle.trigger(
            self._schedule(options).pk,
            actor=self.actor,
            input=data,
            priority=int(level) if level is not None and level.isdigit() else level,
        )
        self.stdout.write(str(execution.pk))

    def do_backfill(self, options: dict[str, Any]) -> None:
        backfills.begin(self._schedule(options), options, actor=self.actor, console=self.console)

    def do_backfills(self, options: dict[str, Any]) -> None:
        backfills.show(self.console)

    def do_cancel_backfill(self, options: dict[str, Any]) -> None:
        backfills.cancel(options, actor=self.actor, console=self.console)

    def do_export(self, options: dict[str, Any]) -> None:
        documents = {"schedules": as_code.export(Schedule.objects.all())}
        if options["json"]:
            self.stdout.write(json.dumps(documents, indent=2, ensure_ascii=False))
        else:
            self.stdout.write(yaml.safe_dump(documents, sort_keys=False, allow_unicode=True))

    def do_apply(self, options: dict[str, Any]) -> None:
        applied = as_code.apply(
            _read(options["file"]), actor=self.actor, prune=options["prune"], dry_run=options["dry_run"]
        )
        for name in applied.created:
            self.stdout.write(f"+ {name}")
        for name, difference in applied.updated.items():
            self.stdout.write(f"~ {name}")
            for label, change in difference.items():
                self.stdout.write(f"    {label}: {json.dumps(change['before'])} → {json.dumps(change['after'])}")
        for name in applied.pruned:
            self.stdout.write(f"- {name}")
        done = "would be" if options["dry_run"] else "were"
        self.stdout.write(
            f"{len(applied.created)} {done} created, {len(applied.updated)} changed, {len(applied.pruned)} deleted; "
            f"{len(applied.unchanged)} are as they should be."
        )

    def do_reconcile(self, options: dict[str, Any]) -> None:
        done = periodic_tasks.reconcile()
        self.stdout.write(f"{done.created} created, {done.updated} corrected, {done.deleted} deleted")

    def do_audit(self, options: dict[str, Any]) -> None:
        done = audit.run()
        for finding in done.findings:
            self.stdout.write(f"{finding.name}: {json.dumps(finding.as_changes())}")
        self.stdout.write(f"{done.schedules} schedules compared, {len(done.findings)} with differences")
        if done.findings:
            raise CommandError("The ledger differs from the timings.")

    def do_stop(self, options: dict[str, Any]) -> None:
        switch.stop(actor=self.actor, note=options["note"])
        self.stdout.write("all firing is stopped")

    def do_start(self, options: dict[str, Any]) -> None:
        switch.start(actor=self.actor, note=options["note"])
        self.stdout.write("everything fires")

    def _schedule(self, options: dict[str, Any]) -> Schedule:
        name = options["name"]
        found = Schedule.objects.filter(name=name).values_list("pk", flat=True).first()
        if found is None:
            try:
                found = UUID(name)
            except ValueError:
                raise CommandError(f"There is no schedule {name!r}.") from None
        return lifecycle.get(found)


def _read(name: str) -> list[Any]:
    """The documents of a YAML or JSON file: a list, or an object whose member ``schedules`` is one."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise CommandError(f"{name} is neither YAML nor JSON: {error}") from None
    documents = content.get("schedules") if isinstance(content, dict) else content
    if not isinstance(documents, list):
        raise CommandError(f"{name} must hold a list of schedules, or an object with the member schedules")
    return documents
