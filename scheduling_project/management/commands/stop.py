"""``manage.py stop``: end the ``up`` that runs with this data folder."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scheduling_project.environment import Environment
from scheduling_project.supervisor.data_folder import DataFolder, DataFolderError


class Command(BaseCommand):
    """Stop what ``manage.py up`` started, from another terminal."""

    help = "Stop the `manage.py up` that runs with DATA_DIR; the data stay."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        folder = DataFolder(Environment.read().DATA_DIR)
        try:
            pid = folder.stop_running()
        except DataFolderError as error:
            raise CommandError(str(error)) from error
        if pid is None:
            self.stdout.write(f"Nothing runs with {folder.path}.")
        else:
            self.stdout.write(f"Stopped (process {pid}).")
