"""`manage.py drill …`: break something on purpose, on servers of the drill's own, and count what was lost."""

from __future__ import annotations

import argparse
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

from scheduling_project.drills.servers import Keeper
from scheduling_project.environment import PROJECT_ROOT

INSIDE = "SCHEDULING_DRILL_SERVERS"
APP = "scheduling_project.drills"
#: Each of these starts what it needs and nothing else.
PLAIN = ("kill-worker", "flush-redis", "two-beats")
#: These break a whole system under load (`drills.faults`).
FAULTS = (
    "worker-child-killed",
    "worker-killed",
    "worker-frozen",
    "beats-killed",
    "beat-frozen",
    "four-beats",
    "web-killed",
    "redis-killed",
    "redis-flushed",
    "redis-down",
    "redis-down-while-busy",
    "postgres-restarted",
    "postgres-down",
    "retries-survive",
    "beats-down-ten-minutes",
    "clock-jumps",
    "warm-restarts",
    "cold-restarts",
    "disk-full",
    "random",
)
SHORT_SETTINGS = {
    "WORKFLOW_LEASE_SECONDS": "3",
    "WORKFLOW_HEARTBEAT_SECONDS": "1",
    "WORKFLOW_RESCUE_SECONDS": "0.5",
    "WORKFLOW_SWEEP_SECONDS": "0.2",
    "WORKFLOW_REDISPATCH_SECONDS": "2",
    "WORKFLOW_SHUTDOWN_GRACE_SECONDS": "6",
}
EXAMPLES = """examples:
  manage.py drill list
  manage.py drill kill-worker
  manage.py drill redis-killed postgres-down --short
  manage.py drill random --seed 42
  manage.py drill all --json verdicts.json       every drill, some fifty minutes
"""


class Command(BaseCommand):
    help = "Run fault drills on servers, workers and beats of their own, and hold what happened against the promises."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
        parser.add_argument("drill", nargs="+", choices=[*PLAIN, *FAULTS, "all", "list"], metavar="drill")
        parser.add_argument("--short", action="store_true", help="short leases and outages: half a minute each")
        parser.add_argument("--seed", type=int, default=1, help="of the random sequence")
        parser.add_argument("--json", type=Path, help="also write the verdicts to this file")

    def handle(self, *args: Any, **options: Any) -> None:
        names = [*PLAIN, *FAULTS] if "all" in options["drill"] else list(dict.fromkeys(options["drill"]))
        if "list" in names:
            self.list_all()
        elif os.environ.get(INSIDE):
            self.run_inside(names, options)
        else:
            sys.exit(self.run_on_own_servers(names, options))

    def list_all(self) -> None:
        from scheduling_project.drills.drills import DRILLS
        from scheduling_project.drills.faults import FAULTS as faults

        table = Table("Drill", "What happens", box=None)
        for name, act in {**DRILLS, **{name: fault.inject for name, fault in faults.items()}}.items():
            table.add_row(name, (act.__doc__ or "").strip())
        table.add_row("random", "Twelve of these one after the other, drawn by --seed.")
        Console(file=self.stdout, width=120).print(table)  # type: ignore[arg-type]

    def run_on_own_servers(self, names: list[str], options: dict[str, Any]) -> int:
        """One process and fresh servers for each drill: a drill must not touch real data, nor what another left."""
        verdicts: list[dict[str, Any]] = []
        for name in names:
            with tempfile.TemporaryDirectory(prefix="drill-") as folder:
                Path(folder).chmod(0o711)
                report = Path(folder) / "verdict.json"
                with Keeper(Path(folder)) as servers:
                    env = {**os.environ, **servers, "EXTRA_APPS": APP, "DEMO": "0", "LOG_LEVEL": "ERROR", INSIDE: "1"}
                    env |= SHORT_SETTINGS if options["short"] else {}
                    manage = [sys.executable, "manage.py"]
                    subprocess.run([*manage, "migrate", "-v", "0"], check=True, cwd=PROJECT_ROOT, env=env)
                    arguments = ["drill", name, "--json", str(report), "--seed", str(options["seed"])]
                    arguments += ["--short"] if options["short"] else []
                    code = subprocess.run([*manage, *arguments], cwd=PROJECT_ROOT, env=env, check=False).returncode
                if not report.exists():
                    self.stderr.write(f"{name} ended with {code} and without a verdict")
                    return code or 1
                verdicts += json.loads(report.read_text())
        if len(names) > 1:
            print_table(verdicts)
        if options["json"] is not None:
            options["json"].write_text(json.dumps(verdicts, indent=2))
        return 0 if all(verdict["passed"] for verdict in verdicts) else 1

    def run_inside(self, names: list[str], options: dict[str, Any]) -> None:
        verdicts = [self.run_one(name, options).as_json() for name in names]
        print_table(verdicts)
        if options["json"] is not None:
            options["json"].write_text(json.dumps(verdicts, indent=2, default=str))
        for verdict in verdicts:
            for problem in verdict["problems"]:
                self.stderr.write(f"{verdict['drill']}: {problem}")
        if not all(verdict["passed"] for verdict in verdicts):
            sys.exit(1)

    def run_one(self, name: str, options: dict[str, Any]) -> Any:
        from scheduling_project.drills import faults
        from scheduling_project.drills.apps import DISK_FULL
        from scheduling_project.drills.drills import DRILLS, SHORT
        from scheduling_project.drills.processes import Processes, environment
        from scheduling_project.drills.servers import Orders

        act = DRILLS[name] if name in DRILLS else faults.FAULTS[name].inject if name in faults.FAULTS else None
        self.stdout.write(f"{name}: {(act.__doc__ or '').strip() if act else 'twelve faults, drawn by seed'}")
        with tempfile.TemporaryDirectory(prefix="drill-") as folder:
            flag = Path(folder) / "disk-full"
            processes = Processes(Path(folder), environment(LOG_LEVEL="INFO", **{DISK_FULL: str(flag)}))
            try:
                if name in DRILLS:
                    return DRILLS[name](processes, **(SHORT[name] if options["short"] else {}))
                return faults.drill(name, processes, Orders(), seed=options["seed"], short=options["short"])
            finally:
                processes.stop()


def print_table(verdicts: list[dict[str, Any]]) -> None:
    Console(width=None if sys.stdout.isatty() else 150).print(table_of(verdicts))


def table_of(verdicts: list[dict[str, Any]]) -> Table:
    table = Table(title="Drills")
    columns = (
        "drill",
        "due",
        "success",
        "lost",
        "doubled",
        "late p50 / p99 / max",
        "stale",
        "repeated",
        "recovery",
        "verdict",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in {"drill", "verdict"} else "right")
    for verdict in verdicts:
        figures = verdict["figures"]
        late = [figures.get(f"late_{name}_ms") for name in ("p50", "p99", "max")]
        seconds = verdict["recovery_seconds"]
        table.add_row(
            verdict["drill"],
            str(verdict["expected"]),
            f"{verdict['succeeded'] / verdict['expected']:.2%}" if verdict["expected"] else "–",
            str(verdict["lost"] + figures.get("instants_lost", 0)),
            str(verdict["doubled"] + figures.get("instants_doubled", 0)),
            " / ".join("–" if value is None else f"{value:,}" for value in late) + " ms" if any(late) else "–",
            str(verdict["stale_commits"]),
            str(verdict["repeated_effects"]),
            "–" if seconds is None else f"{seconds:.1f} s",
            "pass" if verdict["passed"] else "FAIL",
        )
    return table
