"""``manage.py new_task``: begin an app of your own with a step task."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management.base import CommandError

from scheduling_project import scaffold
from scheduling_project.common.console import ExampleCommand
from scheduling_project.environment import PROJECT_ROOT, Environment

#: Folders that belong to this project.
OWN_FOLDERS = ("scheduling_project", "schedules", "triggers", "execution", "tests", "docs", "docker")


class Command(ExampleCommand):
    """Write an app with one step task, and say how to run it."""

    help = (
        "Make an app with one step task (its folder with apps.py and tasks.py) and print the workflow that runs it "
        "and the EXTRA_APPS line. Nothing that exists is overwritten."
    )
    examples = """
new_task myapp.tasks.greet --path ~/my-steps
"""
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="app, module `tasks` and function, such as myapp.tasks.greet")
        parser.add_argument(
            "--path", type=Path, default=Path(), help="where the app's folder goes (default: the current folder)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            task = scaffold.parse(options["name"])
            own = [PROJECT_ROOT / name for name in OWN_FOLDERS]
            folder = scaffold.folder_of(task, options["path"], packages=own)
            scaffold.check_app(task, labels={config.label for config in apps.get_app_configs()})
            scaffold.write(folder, scaffold.files_of(task))
        except scaffold.ScaffoldError as error:
            raise CommandError(str(error)) from error
        importable = any(Path(entry).resolve() == folder.parent for entry in sys.path)
        text = scaffold.next_steps(task, folder, extra_apps=Environment.read().EXTRA_APPS, importable=importable)
        self.stdout.write(text)
