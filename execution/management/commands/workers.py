"""Workers from the command line: who is alive, and pause, drain and resume of one of them."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from rich.console import Console
from rich.table import Table

from execution import usage, workers
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError

EXAMPLES = """examples:
  manage.py workers list
  manage.py workers pause w1@host --note "kernel update"
  manage.py workers drain w1@host --exit
  manage.py workers resume w1@host
"""


class Command(BaseCommand):
    help = "List workers, and pause, drain and resume one of them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
        listing = verbs.add_parser("list", help="workers of the last day, with their hosts")
        listing.add_argument("--host", help="only this one's")
        listing.add_argument("--json", action="store_true", help="for programs")
        for verb, said in (
            ("pause", "let a worker take nothing new"),
            ("drain", "the same, in order to become idle"),
            ("resume", "let it take work again"),
        ):
            one = verbs.add_parser(verb, help=said)
            one.add_argument("name", help="the worker's name, such as w1@host")
            if verb != "resume":
                one.add_argument("--note", default="", help="why, for the audit trail")
            if verb == "drain":
                one.add_argument("--exit", action="store_true", help="it ends itself once it runs nothing any more")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        actor = f"command:{getpass.getuser()}"
        try:
            if verb == "list":
                self._list(options)
            elif verb == "pause":
                workers.pause(options["name"], actor=actor, note=options["note"])
                self.stdout.write(f"{options['name']} takes nothing new once it has reported next.")
            elif verb == "drain":
                workers.drain(options["name"], actor=actor, note=options["note"], ends=options["exit"])
                self.stdout.write(
                    f"{options['name']} is being drained" + (" and then ends." if options["exit"] else ".")
                )
            else:
                workers.resume(options["name"], actor=actor)
                self.stdout.write(f"{options['name']} takes work again once it has reported next.")
        except DomainError as error:
            raise CommandError(str(error)) from None

    def _list(self, options: dict[str, Any]) -> None:
        found = usage.resources(now=clock.now(), host=options["host"])
        if options["json"]:
            shown = {name: found[name] for name in ("hosts", "workers")}
            self.stdout.write(json.dumps(shown, cls=DjangoJSONEncoder, indent=2))
            return
        console = Console(file=cast(IO[str], self.stdout), width=None if sys.stdout.isatty() else 160)
        table = Table("Worker", "Status", "Busy", "CPU", "Memory", "Queues", "Seen", box=None)
        for worker in found["workers"]:
            table.add_row(
                worker["name"],
                worker["status"] + (f", {worker['pressure']} load" if worker["pressure"] else ""),
                f"{worker['busy']}/{worker['slots']}",
                "–" if worker["cpu_percent"] is None else f"{worker['cpu_percent']:.0f} %",
                "–" if worker["memory_bytes"] is None else f"{worker['memory_bytes'] / 1e6:,.0f} MB",
                ", ".join(worker["queues"]) or "–",
                f"{worker['seen_at']:%H:%M:%S}",
            )
        console.print(table)
        if not found["workers"]:
            console.print("No worker has reported in the last day.")
