from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.apps import AppConfig

from scheduling_project.drills import sabotage
from scheduling_project.drills.environment import DISK_FULL

READING = ("SELECT", "SHOW", "SET", "BEGIN", "ROLLBACK", "SAVEPOINT", "RELEASE", "LISTEN")


class DrillsConfig(AppConfig):
    name = "scheduling_project.drills"
    label = "drills"

    def ready(self) -> None:
        sabotage.apply()
        flag = os.environ.get(DISK_FULL)
        if flag:
            _fill_the_disk_on_demand(Path(flag))


def _fill_the_disk_on_demand(flag: Path) -> None:
    """Let the driver answer writes with SQLSTATE 53100 as long as `flag` is there."""
    import psycopg

    plain = psycopg.Cursor.execute

    def execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        if flag.exists() and not str(query).lstrip().upper().startswith(READING):
            raise psycopg.errors.DiskFull("could not extend file: No space left on device (injected)")
        return plain(self, query, *args, **kwargs)

    psycopg.Cursor.execute = execute  # type: ignore[method-assign]
