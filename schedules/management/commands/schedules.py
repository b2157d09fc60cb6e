"""Schedules from the command line: look at them, change one or many, export, apply, import, reconcile, stop, start."""

from __future__ import annotations

import getpass
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast
from uuid import UUID

import yaml
from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.db.models import Q, QuerySet
from django_celery_beat.models import PeriodicTask
from rest_framework.utils.encoders import JSONEncoder
from rich.console import Console
from rich.table import Table

from schedules import as_code, audit, bulk, conflict_facts, lifecycle, periodic_tasks, switch, values
from schedules.api.serializers import ScheduleSerializer
from schedules.importing import beat_database, celery_beat, crontab, saving
from schedules.importing.report import Action, Row
from schedules.management import backfills
from schedules.management.importing import bar, chooser, show
from schedules.models import Schedule
from schedules.states import CatchUpPolicy, ConflictSeverity, OnResume, OverlapPolicy
from schedules.timing.zones import UnknownZone, zone_of
from scheduling_project.common import clock
from scheduling_project.common.console import ExampleCommand
from scheduling_project.common.errors import DomainError


class Command(ExampleCommand):
    help = "List, change, export, apply, import, compare and audit schedules; stop and start all firing."
    examples = """
schedules list --paused
schedules show "every night" --json
schedules pause "every night" --note maintenance --until 2026-03-01T09:00:00Z
schedules trigger "every night" --priority high
schedules backfill "every night" --since 2026-03-01T00:00:00Z --until 2026-03-08T00:00:00Z
schedules export > schedules.yaml
schedules apply schedules.yaml --dry-run
schedules import-crontab /etc/crontab --system --dry-run
schedules stop --note "the warehouse moves"
"""

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
        listing = verbs.add_parser("list", help="list schedules")
        listing.add_argument("--search", default="", help="part of the name or of the workflow's")
        listing.add_argument("--paused", action="store_true", help="only what is not enabled")
        listing.add_argument("--json", action="store_true", help="as the API shows them")
        for verb, text in (
            ("show", "show one schedule as YAML"),
            ("pause", "stop it firing"),
            ("resume", "let it fire again"),
            ("trigger", "start one execution now"),
            ("delete", "delete it with its history"),
        ):
            one = verbs.add_parser(verb, help=text)
            one.add_argument("name", help="the schedule's name or id")
            if verb == "show":
                one.add_argument("--json", action="store_true", help="as the API shows it")
            if verb in ("pause", "resume", "delete"):
                one.add_argument("--note", default="", help="why, for the audit trail")
            if verb == "pause":
                one.add_argument("--until", help="when it ends by itself, with offset: 2026-03-01T09:00:00Z")
                one.add_argument("--on-resume", choices=OnResume.values, default=OnResume.SKIP.value)
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
        found = verbs.add_parser("conflicts", help="what gets in each other's way: duplicates, overlaps, shortages")
        found.add_argument("name", nargs="?", help="the schedule's name or id; all active ones if left out")
        found.add_argument("--hours", type=int, default=24, help="how far ahead all are compared (24)")
        found.add_argument("--json", action="store_true")
        found.add_argument("--fail", action="store_true", help="end with an error where there are more than notices")
        cloning = verbs.add_parser("clone", help="make a new schedule like one that is there")
        cloning.add_argument("name", help="the schedule's name or id")
        cloning.add_argument("new_name")
        cloning.add_argument("--paused", action="store_true", help="paused at first")
        many = verbs.add_parser("bulk", help="pause, resume, delete or update many, all or none")
        many.add_argument("deed", choices=["pause", "resume", "delete", "update"])
        many.add_argument("--label", help="key:value, or a key")
        many.add_argument("--workflow", help="the workflow's name")
        many.add_argument("--owner")
        many.add_argument("--search", help="part of the name")
        many.add_argument("--set", help="for update: a JSON object of fields")
        many.add_argument("--missed", choices=OnResume.values, default=OnResume.SKIP.value)
        many.add_argument("--note", default="", help="why, for the audit trail")
        many.add_argument("--dry-run", action="store_true", help="only list what it would touch")
        cron = verbs.add_parser("import-crontab", help="make schedules of a crontab file")
        cron.add_argument("file", help="a path, or - for the standard input")
        cron.add_argument("--workflow", help="runs each line; its input gets the command")
        cron.add_argument(
            "--map", help="YAML: a list of {match: regular expression, workflow, input}; first match wins"
        )
        cron.add_argument("--timezone", default="UTC", help="of the machine that cron runs on (UTC)")
        cron.add_argument("--system", action="store_true", help="the form of /etc/crontab, with a user in each line")
        cron.add_argument("--label", help="what the source is called (the file's name)")
        cron.add_argument("--overlap", choices=OverlapPolicy.values, default=OverlapPolicy.ALLOW_ALL.value)
        cron.add_argument("--catch-up", choices=CatchUpPolicy.values, default=CatchUpPolicy.LATEST.value)
        beat = verbs.add_parser("import-beat", help="make schedules of django-celery-beat's PeriodicTasks")
        beat.add_argument("--database-url", help="of another deployment's database; this one's if left out")
        beat.add_argument("--label", default="beat", help="what the source is called (beat)")
        beat.add_argument(
            "--take-over", action="store_true", help="disable the PeriodicTasks that have a schedule then"
        )
        for importing in (cron, beat):
            importing.add_argument("--paused", action="store_true", help="new schedules are paused at first")
            importing.add_argument("--dry-run", action="store_true", help="only show what would be done")
            importing.add_argument("--json", action="store_true", help="the report as JSON")
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
        if options["json"]:
            rows = ScheduleSerializer(schedules.select_related("version"), many=True).data
            self.stdout.write(json.dumps(rows, cls=JSONEncoder, indent=2, ensure_ascii=False))
            return
        table = Table("Name", "Workflow", "State", "Next fire", "Last fire", "Started", box=None)
        for one in schedules.iterator(chunk_size=500):
            state = "enabled" if one.enabled else (one.get_pause_kind_display() or "paused").lower()
            shown = [f"{t:%Y-%m-%d %H:%M:%SZ}" if t else "–" for t in (one.next_fire_at, one.last_fire_at)]
            table.add_row(one.name, one.workflow.name, state, *shown, str(one.started_count))
        self.console.print(table)

    def do_show(self, options: dict[str, Any]) -> None:
        if options["json"]:
            row = ScheduleSerializer(self._schedule(options)).data
            self.stdout.write(json.dumps(row, cls=JSONEncoder, indent=2, ensure_ascii=False))
            return
        shown = values.snapshot(self._schedule(options))
        self.stdout.write(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))

    def do_pause(self, options: dict[str, Any]) -> None:
        try:
            until = datetime.fromisoformat(options["until"]) if options["until"] else None
            if until is not None and until.tzinfo is None:
                raise ValueError("it needs an offset, such as Z")
        except ValueError as error:
            raise CommandError(f"--until is no instant: {error}") from None
        lifecycle.pause(
            self._schedule(options).pk,
            actor=self.actor,
            note=options["note"],
            until=until,
            on_resume=options["on_resume"],
        )
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
        documents = _read(options["file"])
        with bar(self.console, "Applying", len(documents)) as progress:
            applied = as_code.apply(
                documents,
                actor=self.actor,
                prune=options["prune"],
                dry_run=options["dry_run"],
                progress=progress,
            )
        self.stdout.write(applied.as_text(dry_run=options["dry_run"]))

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

    def do_conflicts(self, options: dict[str, Any]) -> None:
        if options["hours"] < 1 or options["hours"] > 744:
            raise CommandError("--hours must lie between 1 and 744")
        if options["name"]:
            found = conflict_facts.of(self._schedule(options))
        else:
            found = conflict_facts.among(Schedule.objects.all(), hours=options["hours"])
        if options["json"]:
            shown = [finding.as_dict() for finding in found.findings]
            self.stdout.write(json.dumps({"truncated": found.truncated, "conflicts": shown}, indent=2))
        else:
            for finding in found.findings:
                self.stdout.write(f"{finding.severity}: {finding.code}: {finding.message}")
            more = "; a bound was reached, there may be more" if found.truncated else ""
            self.stdout.write(f"{found.considered} schedules compared, {len(found.findings)} conflicts{more}")
        if options["fail"] and any(finding.severity != ConflictSeverity.NOTICE for finding in found.findings):
            raise CommandError("There are conflicts.")

    def do_clone(self, options: dict[str, Any]) -> None:
        changes: dict[str, Any] = {"enabled": False} if options["paused"] else {}
        source = self._schedule(options)
        copy = lifecycle.clone(source.pk, name=options["new_name"], actor=self.actor, **changes)
        self.stdout.write(str(copy.pk))

    def do_bulk(self, options: dict[str, Any]) -> None:
        chosen = self._chosen(options)
        try:
            values = json.loads(options["set"]) if options["set"] else None
        except ValueError as error:
            raise CommandError(f"--set must be JSON: {error}") from None
        if (options["deed"] == "update") != isinstance(values, dict):
            raise CommandError("update needs --set with a JSON object of fields, and nothing else takes it")
        given: dict[str, Any] = {"actor": self.actor, "note": options["note"], "dry_run": options["dry_run"]}
        with bar(self.console, options["deed"].capitalize(), chosen.count()) as progress:
            given["progress"] = progress
            if options["deed"] == "update":
                done = bulk.update(chosen, values or {}, **given)
            elif options["deed"] == "resume":
                done = bulk.resume(chosen, missed=options["missed"], **given)
            else:
                done = (bulk.pause if options["deed"] == "pause" else bulk.delete)(chosen, **given)
        for _, name in done.changed:
            self.stdout.write(f"{done.deed}: {name}")
        for _, name, why in done.refused:
            self.stdout.write(f"refused: {name}: {why}")
        would = "would be" if done.dry_run else "were"
        self.stdout.write(f"{len(done.changed)} {would} changed, {len(done.unchanged)} are like that already.")

    def _chosen(self, options: dict[str, Any]) -> QuerySet[Schedule]:
        chosen = Schedule.objects.all()
        if not any(options[name] for name in ("label", "workflow", "owner", "search")):
            raise CommandError("Name some schedules: by --label, --workflow, --owner or --search")
        if options["label"]:
            key, _, wanted = options["label"].partition(":")
            chosen = chosen.filter(labels__contains={key: wanted}) if wanted else chosen.filter(labels__has_key=key)
        if options["workflow"]:
            chosen = chosen.filter(workflow__name=options["workflow"])
        if options["owner"]:
            chosen = chosen.filter(owner=options["owner"])
        if options["search"]:
            chosen = chosen.filter(name__icontains=options["search"])
        return chosen

    def do_import_crontab(self, options: dict[str, Any]) -> None:
        name = options["file"]
        try:
            zone = zone_of(options["timezone"]).name
            raw = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise CommandError(f"{name} cannot be read: {error.strerror}") from None
        except UnknownZone as error:
            raise CommandError(f"--timezone: {error}") from None
        if not options["workflow"] and not options["map"]:
            raise CommandError("Say what runs the commands: --workflow NAME, or --map FILE")
        found = crontab.read(
            raw,
            choose=chooser(options["workflow"], options["map"]),
            label=options["label"] or (Path(name).name if name != "-" else "crontab"),
            timezone=zone,
            is_system=options["system"] or name == "/etc/crontab" or name.startswith("/etc/cron.d/"),
            overlap_policy=options["overlap"],
            catch_up=options["catch_up"],
        )
        self._import(found.rows, found.notes, options)

    def do_import_beat(self, options: dict[str, Any]) -> None:
        if options["take_over"] and options["database_url"]:
            raise CommandError("--take-over is for this deployment's own PeriodicTasks; disable the others over there")
        with beat_database.opened(options["database_url"]) as connection:
            periodic = beat_database.read(connection)
        ours = {periodic_tasks.FIRE, *periodic_tasks.HOUSEKEEPING, *getattr(settings, "HOUSEKEEPING_TASKS", {})}
        now = clock.now()
        rows = [
            celery_beat.translate(each, label=options["label"], queues=settings.WORKFLOW_QUEUES, now=now)
            for each in periodic
            if each.task not in ours
        ]
        with transaction.atomic():
            self._import(rows, [], options)
            if options["take_over"] and not options["dry_run"]:
                ids = [int(row.source.split()[-1]) for row in rows if row.schedule_id and row.action == Action.CREATED]
                disabled = PeriodicTask.objects.filter(pk__in=ids, enabled=True).update(enabled=False)
                periodic_tasks.announce()
                self.stdout.write(f"{disabled} PeriodicTasks were disabled.", self.style.NOTICE)

    def _import(self, rows: list[Row], notes: list[str], options: dict[str, Any]) -> None:
        with bar(self.console, "Importing", len(rows)) as progress:
            report = saving.save(
                rows,
                actor=self.actor,
                is_paused=options["paused"],
                dry_run=options["dry_run"],
                progress=progress,
            )
        report.notes += notes
        if options["json"]:
            self.stdout.write(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
        else:
            show(self.console, report)

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
