"""`manage.py drill kill-worker|flush-redis|two-beats|all`: break something on purpose and count what was lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.table import Table

from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
from scheduling_project.environment import PROJECT_ROOT

INSIDE = "SCHEDULING_DRILL_SERVERS"
APP = "scheduling_project.drills"
NAMES = ("kill-worker", "flush-redis", "two-beats")


class Command(BaseCommand):
    help = "Run fault drills on servers, workers and beats of their own. Example: manage.py drill flush-redis"
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("drill", choices=[*NAMES, "all"])
        parser.add_argument("--short", action="store_true", help="the form that the test suite runs")
        parser.add_argument("--json", type=Path, help="also write the verdicts to this file")

    def handle(self, *args: Any, **options: Any) -> None:
        names = list(NAMES) if options["drill"] == "all" else [options["drill"]]
        if os.environ.get(INSIDE):
            self.run_inside(names, short=options["short"], report=options["json"])
        else:
            sys.exit(self.run_on_own_servers(sys.argv[1:]))

    def run_on_own_servers(self, arguments: list[str]) -> int:
        """Start servers for the drill alone and run this command again on them: a drill must not touch real data."""
        with tempfile.TemporaryDirectory(prefix="drill-") as name:
            folder = Path(name)
            folder.chmod(0o711)
            postgres = EmbeddedPostgres(folder / "postgres", durable=False)
            redis = EmbeddedRedis(folder / "redis", durable=False)
            self.stdout.write("starting Postgres and Redis for the drill …")
            with postgres, redis:
                env = {
                    **os.environ,
                    "DATABASE_URL": str(postgres.url),
                    "REDIS_URL": str(redis.url),
                    "EXTRA_APPS": APP,
                    "DEMO": "0",
                    "LOG_LEVEL": "ERROR",
                    INSIDE: "1",
                }
                manage = [sys.executable, "manage.py"]
                subprocess.run([*manage, "migrate", "-v", "0"], check=True, cwd=PROJECT_ROOT, env=env)
                return subprocess.run([*manage, *arguments], cwd=PROJECT_ROOT, env=env, check=False).returncode

    def run_inside(self, names: list[str], *, short: bool, report: Path | None) -> None:
        from scheduling_project.drills.drills import DRILLS, SHORT
        from scheduling_project.drills.processes import Processes, environment

        verdicts = []
        for name in names:
            self.stdout.write(f"{name}: {(DRILLS[name].__doc__ or '').strip()}")
            with tempfile.TemporaryDirectory(prefix="drill-") as folder:
                processes = Processes(Path(folder), environment(LOG_LEVEL="INFO"))
                try:
                    verdicts.append(DRILLS[name](processes, **(SHORT[name] if short else {})))
                finally:
                    processes.stop()
        Console().print(self.table(verdicts))
        if report is not None:
            report.write_text(json.dumps([verdict.as_json() for verdict in verdicts], indent=2, default=str))
        for verdict in verdicts:
            for problem in verdict.problems:
                self.stderr.write(f"{verdict.drill}: {problem}")
        if not all(verdict.passed for verdict in verdicts):
            sys.exit(1)

    def table(self, verdicts: list[Any]) -> Table:
        table = Table(title="Drills")
        columns = ("drill", "expected", "lost", "doubled", "stale commits", "repeated effects", "recovery", "verdict")
        for column in columns:
            table.add_column(column, justify="left" if column in {"drill", "verdict"} else "right")
        for verdict in verdicts:
            table.add_row(
                verdict.drill,
                str(verdict.figures.get("instants", verdict.expected)),
                str(verdict.lost + verdict.figures.get("instants_lost", 0)),
                str(verdict.doubled + verdict.figures.get("instants_doubled", 0)),
                str(verdict.stale_commits),
                str(verdict.repeated_effects),
                "–" if verdict.recovery_seconds is None else f"{verdict.recovery_seconds:.1f} s",
                "pass" if verdict.passed else "FAIL",
            )
        return table
