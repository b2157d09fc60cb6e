"""Make workflows, schedules and triggers what one document says."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from scheduling_project.as_code import apply
from scheduling_project.common.console import ConsoleCommand, read_document


class Command(ConsoleCommand):
    help = "Make workflows, schedules and triggers what a document says: all of it, or nothing when one value is wrong."
    examples = """
apply everything.yaml --dry-run
apply everything.yaml
export | ssh other manage.py apply -
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="YAML or JSON as `export` prints it, - for the standard input")
        parser.add_argument("--dry-run", action="store_true", help="only show what would change")
        parser.add_argument("--prune", action="store_true", help="delete applied schedules that the file lacks")
        parser.add_argument("--json", action="store_true", help="JSON instead of lines")

    def run(self, options: dict[str, Any]) -> None:
        document = read_document(options["file"])
        total = (
            sum(len(part) for part in document.values() if isinstance(part, list)) if isinstance(document, dict) else 0
        )
        done = 0
        with self.progress() as bar:

            def told() -> None:
                nonlocal done
                done += 1
                if bar is not None:
                    bar("applying", done, total)

            applied = apply(
                document, actor=self.actor, dry_run=options["dry_run"], prune=options["prune"], progress=told
            )
        if self.as_json:
            self.print_json({name: section.as_json() for name, section in applied.items()})
            return
        for name, section in applied.items():
            self.stdout.write(f"{name}:\n{section.as_text(dry_run=options['dry_run'])}")
