"""`manage.py drill …`: break something on purpose, on servers of the drill's own, and count what was lost."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.table import Table

from scheduling_project.drills.environment import DISK_FULL, INSIDE
from scheduling_project.drills.runs import Runs
from scheduling_project.drills.sabotage import SABOTAGES

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
    "permanent-failures",
    "messages-doubled",
    "beats-down-ten-minutes",
    "clock-jumps",
    "watermarks-set-back",
    "warm-restarts",
    "cold-restarts",
    "disk-full",
    "random",
)
#: The same for stock Celery and django-celery-beat (`drills.stock`): a comparison, which fails nothing.
STOCK = ("stock-redis-flushed", "stock-worker-killed", "stock-beat-killed", "stock-two-beats")
CHECK_THE_CHECKER = "check-the-checker"
EVERYTHING = "Twelve of the faults one after the other, drawn by --seed."
EXAMPLES = """examples:
  manage.py drill list
  manage.py drill kill-worker
  manage.py drill redis-killed postgres-down --short
  manage.py drill random --seed 42
  manage.py drill all --json verdicts.json       every drill, about an hour
  manage.py drill stock                          the same faults, stock Celery and django-celery-beat
  manage.py drill redis-flushed --sabotage re-dispatch
  manage.py drill check-the-checker --short      each safeguard taken away: each drill must notice
"""


class Command(BaseCommand):
    help = "Run fault drills on servers, workers and beats of their own, and hold what happened against the promises."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
        choices = [*PLAIN, *FAULTS, *STOCK, "all", "stock", "list", CHECK_THE_CHECKER]
        parser.add_argument("drill", nargs="+", choices=choices, metavar="drill")
        parser.add_argument("--short", action="store_true", help="short leases and outages: half a minute each")
        parser.add_argument("--seed", type=int, default=1, help="of the random sequence")
        parser.add_argument("--sabotage", choices=list(SABOTAGES), help="take this safeguard away: the drill must fail")
        parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for what must end (300)")
        parser.add_argument("--logs", type=Path, help="keep the logs of the drills' processes below this folder")
        parser.add_argument("--json", type=Path, help="also write the verdicts to this file")

    def handle(self, *args: Any, **options: Any) -> None:
        groups = {"all": (*PLAIN, *FAULTS), "stock": STOCK}
        names = list(dict.fromkeys(name for given in options["drill"] for name in groups.get(given, (given,))))
        if "list" in names:
            self.list_all()
        elif os.environ.get(INSIDE):
            self.run_inside(names, options)
        elif CHECK_THE_CHECKER in names:
            sys.exit(self.check_the_checker(options))
        else:
            sys.exit(self.run_on_own_servers(names, options))

    def list_all(self) -> None:
        from scheduling_project.drills import stock
        from scheduling_project.drills.drills import DRILLS
        from scheduling_project.drills.faults import FAULTS as faults

        table = Table("Drill", "What happens", box=None)
        for name, act in {**DRILLS, **{name: fault.inject for name, fault in faults.items()}}.items():
            table.add_row(name, (act.__doc__ or "").strip())
        for name, compare in stock.STOCK.items():
            table.add_row(name, (compare.__doc__ or "").strip())
        table.add_row("random", EVERYTHING)
        table.add_section()
        for name, sabotage in SABOTAGES.items():
            table.add_row(f"--sabotage {name}", (sabotage.remove.__doc__ or "").strip())
        Console(file=self.stdout, width=150).print(table)  # type: ignore[arg-type]

    def run_on_own_servers(self, names: list[str], options: dict[str, Any]) -> int:
        with self.runs(options) as runs:
            for name in names:
                runs.run(name, sabotage=options["sabotage"])
                self.write_json(runs.verdicts, options)  # after each: all of them take an hour
        if len(names) > 1:
            print_table(table_of(runs.verdicts))
        return 0 if all(verdict["passed"] for verdict in runs.verdicts if verdict["drill"] not in STOCK) else 1

    def check_the_checker(self, options: dict[str, Any]) -> int:
        """Take each safeguard away (or the one that is named) and see whether its drill notices."""
        names = list(SABOTAGES) if options["sabotage"] is None else [options["sabotage"]]
        with self.runs(options) as runs:
            for name in names:
                sabotage = SABOTAGES[name]
                verdict = runs.run(sabotage.noticed_by, sabotage=name)
                verdict |= {"sabotage": name, "noticed": sabotage.is_noticed(verdict["problems"])}
                self.write_json(runs.verdicts, options)
        print_table(table_of_sabotages(runs.verdicts))
        return 0 if all(verdict["noticed"] for verdict in runs.verdicts) else 1

    def runs(self, options: dict[str, Any]) -> Any:
        return Runs.on_own_servers(short=options["short"], seed=options["seed"], logs=options["logs"])

    def write_json(self, verdicts: list[dict[str, Any]], options: dict[str, Any]) -> None:
        if options["json"] is not None:
            options["json"].write_text(json.dumps(verdicts, indent=2, default=str))

    def run_inside(self, names: list[str], options: dict[str, Any]) -> None:
        verdicts = [self.run_one(name, options).as_json() for name in names]
        print_table(table_of(verdicts))
        self.write_json(verdicts, options)
        for verdict in verdicts:
            for problem in verdict["problems"]:
                self.stderr.write(f"{verdict['drill']}: {problem}")
        if not all(verdict["passed"] for verdict in verdicts):
            sys.exit(1)

    def run_one(self, name: str, options: dict[str, Any]) -> Any:
        from scheduling_project.drills import faults, stock
        from scheduling_project.drills.drills import DRILLS, SHORT
        from scheduling_project.drills.processes import Processes, environment
        from scheduling_project.drills.servers import Orders

        acts = {**DRILLS, **stock.STOCK, **{key: fault.inject for key, fault in faults.FAULTS.items()}}
        self.stdout.write(f"{name}: {(acts[name].__doc__ or '').strip() if name in acts else EVERYTHING}")
        short = options["short"]
        with tempfile.TemporaryDirectory(prefix="drill-") as folder:
            flag = Path(folder) / "disk-full"
            processes = Processes(Path(folder), environment(LOG_LEVEL="INFO", **{DISK_FULL: str(flag)}))
            try:
                if name in DRILLS:
                    return DRILLS[name](processes, **(SHORT[name] if short else {}))
                if name in STOCK:
                    return stock.STOCK[name](processes)
                return faults.drill(
                    name, processes, Orders(), seed=options["seed"], short=short, patience=options["patience"]
                )
            finally:
                processes.stop()
                if options["logs"] is not None:
                    shutil.copytree(folder, options["logs"] / name, dirs_exist_ok=True)


def print_table(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 150).print(table)


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


def table_of_sabotages(verdicts: list[dict[str, Any]]) -> Table:
    table = Table("safeguard taken away", "drill", "what it says", "noticed", title="The checker is checked")
    for verdict in verdicts:
        said = "\n".join(verdict["problems"]) or "nothing"
        table.add_row(verdict["sabotage"], verdict["drill"], said, "yes" if verdict["noticed"] else "NO")
    return table
