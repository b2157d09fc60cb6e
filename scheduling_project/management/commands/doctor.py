"""Is everything well? Servers, installation and work, each finding with what to do about it."""

from __future__ import annotations

from typing import Any, Final

from django.core.management.base import CommandParser
from rich.text import Text

from scheduling_project.common.console import ConsoleCommand
from scheduling_project.diagnosis.examination import examine
from scheduling_project.diagnosis.finding import Finding, Severity

COLOURS: Final = {"ok": "green", "hint": "cyan", "warning": "yellow", "error": "bold red"}


class Command(ConsoleCommand):
    help = (
        "Examine Postgres, Redis, migrations, settings, time zone data, beats, workers, queues, stuck rows and the "
        "ledger, and say what to do. Exit code 0: all is well; 1: a warning; 2: something is wrong now."
    )
    examples = """
doctor
doctor --problems                 without what is well
doctor --json | jq '.findings[] | select(.severity == "error")'
"""
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--problems", action="store_true", help="leave out what is well")
        parser.add_argument("--json", action="store_true", help="JSON instead of lines")

    def run(self, options: dict[str, Any]) -> None:
        found = []
        for finding in examine():
            if options["problems"] and finding.severity is Severity.OK:
                continue
            found.append(finding)
            if not self.as_json:
                self._tell(finding)
        worst = max((finding.severity.exit_code for finding in found), default=0)
        if self.as_json:
            self.print_json({"exit_code": worst, "findings": [finding.as_json() for finding in found]})
        else:
            counts = [sum(one.severity is severity for one in found) for severity in (Severity.ERROR, Severity.WARNING)]
            self.console.print(f"\n{counts[0]} errors, {counts[1]} warnings")
        raise SystemExit(worst)

    def _tell(self, finding: Finding) -> None:
        line = Text.assemble(
            (f"{finding.severity.value:8}", COLOURS[finding.severity.value]), f"{finding.check}: {finding.message}"
        )
        self.console.print(line, soft_wrap=True)
        if finding.todo:
            self.console.print(Text(f"        → {finding.todo}"), soft_wrap=True)
