"""Why isn't it running? The exact blocker of every open step of an execution."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from execution.api.serializers import WhySerializer
from execution.models import Execution
from execution.why import why
from scheduling_project.common.console import ConsoleCommand, id_argument


class Command(ConsoleCommand):
    help = "Say why an execution does not go on: the exact blocker of every open step, and when it may start."
    examples = """
why 019a5e0c-0b5f-7c5e-8d6a-3f1e2d4c5b6a
why 019a5e0c-0b5f-7c5e-8d6a-3f1e2d4c5b6a --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="an execution's id, or that of one of its step runs")
        parser.add_argument("--json", action="store_true", help="JSON instead of a table")

    def run(self, options: dict[str, Any]) -> None:
        found = _execution(options["id"])
        answer = why(found)
        if self.as_json:
            self.print_json({"execution": found.pk, **WhySerializer(answer).data})
            return
        self.stdout.write(f"{found.workflow.name} {found.pk} is {found.state}. {answer['summary']}")
        if answer["blockers"]:
            self.console.print()
            self.show(answer["blockers"], ("step", "code", "message", "until"))
        if answer["estimated_start"] is not None:
            self.stdout.write(f"\nIt may start at {answer['estimated_start']:%Y-%m-%d %H:%M:%S} UTC.")


def _execution(text: str) -> Execution:
    given = id_argument(text, what="execution")
    executions = Execution.objects.select_related("workflow", "version")
    found = executions.filter(pk=given).first()
    if found is None:
        found = executions.filter(step_runs__pk=given).first()
    if found is None:
        raise CommandError(f"There is no execution {text!r}.")
    return found
