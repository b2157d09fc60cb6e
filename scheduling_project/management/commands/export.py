"""Workflows, schedules and triggers as one YAML or JSON document."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from scheduling_project.as_code import SECTIONS, export
from scheduling_project.common.console import ConsoleCommand, write_yaml


class Command(ConsoleCommand):
    help = "Print workflows, schedules and triggers as one document that `apply` takes."
    examples = """
export > everything.yaml
export --only workflows --only schedules
export --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--only", action="append", choices=SECTIONS, help="this section (repeatable)")
        parser.add_argument("--json", action="store_true", help="JSON instead of YAML")

    def run(self, options: dict[str, Any]) -> None:
        document = export(options["only"] or SECTIONS)
        if self.as_json:
            self.print_json(document)
        else:
            self.stdout.write(write_yaml(document), ending="")
