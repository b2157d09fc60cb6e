"""`manage.py demo seed`: the demo's workflows and schedules, made once; what you changed since is left alone."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand

from execution import workflows
from execution.models import Workflow
from schedules import lifecycle
from schedules.models import Schedule
from scheduling_project.common import clock
from scheduling_project.demo.workflows import SHOWCASE, WORKFLOWS, schedules

ACTOR = "demo"
FIRST_FIRE = timedelta(seconds=5)


class Command(BaseCommand):
    help = "Make the demo's workflows and schedules. Example: manage.py demo seed"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["seed"])

    def handle(self, *args: Any, **options: Any) -> None:
        known = set(Workflow.objects.values_list("name", flat=True))
        for name, definition in WORKFLOWS.items():
            if name not in known:
                labels = {"demo": "yes", **({"showcase": "yes"} if name == SHOWCASE else {})}
                workflows.create(name, definition, actor=ACTOR, description=definition["description"], labels=labels)
        seeded = 0
        scheduled = set(Schedule.objects.values_list("name", flat=True))
        for wanted in schedules(first=clock.now() + FIRST_FIRE):
            if wanted["name"] not in scheduled:
                workflow = Workflow.objects.get(name=wanted.pop("workflow"))
                lifecycle.create(actor=ACTOR, workflow=workflow, **wanted)
                seeded += 1
        self.stdout.write(f"demo: {len(set(WORKFLOWS) - known)} workflows and {seeded} schedules made")
