"""Delete what is kept no longer, of all apps; or count it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from scheduling_project.common import clock
from scheduling_project.common.console import ConsoleCommand
from scheduling_project.pruning import PARTS


class Command(ConsoleCommand):
    help = (
        "Delete what is kept no longer: ended executions, decided dead letters, ledger entries, events, audit entries, "
        "expired sign-ins. The housekeeping does the same every hour; the settings say what is kept how long."
    )
    examples = """
prune --dry-run          counts only
prune
prune --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count what would be deleted")
        parser.add_argument("--json", action="store_true", help="JSON instead of a table")

    def run(self, options: dict[str, Any]) -> None:
        now = clock.now()
        rows: list[dict[str, Any]] = []
        with self.progress() as bar:
            for position, part in enumerate(PARTS):
                if bar is not None:
                    bar("counting" if options["dry_run"] else "pruning", position, len(PARTS))
                found = part.count(now) if options["dry_run"] else part.prune(now)
                rows += [
                    {"of": part.name, "what": what.replace("_", " "), "rows": count} for what, count in found.items()
                ]
        if self.as_json:
            self.print_json({"dry_run": options["dry_run"], "pruned": rows})
            return
        self.show([row for row in rows if row["rows"]], ("of", "what", "rows"))
        total = sum(row["rows"] for row in rows)
        self.stdout.write(f"{total} {'would be' if options['dry_run'] else 'were'} deleted")
