"""``manage.py reset``: back to the state after a fresh clone."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scheduling_project.embedded import EmbeddedServerError
from scheduling_project.environment import Environment
from scheduling_project.supervisor.data_folder import DataFolder, DataFolderError


class Command(BaseCommand):
    """Stop what runs and delete the embedded servers' data and the generated secrets."""

    help = "Stop the `manage.py up` that runs with DATA_DIR and delete its data. Servers of yours are not touched."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        folder = DataFolder(Environment.read().DATA_DIR)
        try:
            folder.stop_running()
            gone = folder.remove()
        except (DataFolderError, EmbeddedServerError) as error:
            raise CommandError(str(error)) from error
        for path in gone:
            self.stdout.write(f"deleted {path}")
        if not gone:
            self.stdout.write(f"Nothing to delete in {folder.path}.")
