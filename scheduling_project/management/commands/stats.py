"""How everything is doing: schedules, executions, queues, lateness."""

from __future__ import annotations

import time
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from rich.live import Live
from rich.table import Table

from schedules import statistics
from scheduling_project.common import clock
from scheduling_project.common.console import ConsoleCommand, span

LEAST_SECONDS: Final = 0.5


class Command(ConsoleCommand):
    help = "Show how schedules, executions and queues are doing, and how late fires are."
    examples = """
stats
stats --json
stats --watch 2          anew every two seconds, until interrupted
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="JSON instead of a table")
        parser.add_argument("--watch", type=float, metavar="SECONDS", help="show it again and again")
        parser.add_argument("--times", type=int, help="with --watch: so many times")

    def run(self, options: dict[str, Any]) -> None:
        watch = options["watch"]
        if watch is None:
            found = statistics.stats(clock.now())
            if self.as_json:
                self.print_json(found)
            else:
                self.console.print(drawn(found))
            return
        if self.as_json:
            raise CommandError("--watch is for people: leave --json out, or call it again.")
        if watch < LEAST_SECONDS:
            raise CommandError(f"--watch takes {LEAST_SECONDS:g} seconds or more.")
        left = options["times"]
        try:
            with Live(drawn(statistics.stats(clock.now())), console=self.console, auto_refresh=False) as live:
                while left is None or left > 1:
                    time.sleep(watch)
                    live.update(drawn(statistics.stats(clock.now())), refresh=True)
                    left = None if left is None else left - 1
        except KeyboardInterrupt:
            return


def drawn(found: dict[str, Any]) -> Table:
    """The figures as one table of tables."""
    whole = Table.grid(padding=(1, 0))
    whole.add_row(_schedules(found))
    whole.add_row(_executions(found["executions"]))
    whole.add_row(_queues(found["queues"]))
    return whole


def _schedules(found: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    states = ", ".join(f"{count} {state}" for state, count in found["by_state"].items() if count)
    stopped = "; all firing is stopped" if found["firing_stopped"] else ""
    table.add_row("Schedules", f"{found['total']:,} ({states or 'none'}), {found['overdue']} overdue{stopped}")
    if found["next_fire_at"] is not None:
        table.add_row("Next fire", f"{found['next_fire_at']:%Y-%m-%d %H:%M:%SZ}")
    fates = ", ".join(f"{count:,} {fate}" for fate, count in found["last_day"]["instants"].items() if count)
    table.add_row("Instants of a day", fates or "none")
    for window, label in (("last_hour", "Lateness, an hour"), ("last_day", "Lateness, a day")):
        late = found["lateness"][window]
        if late["p50"] is not None:
            table.add_row(label, f"p50 {span(late['p50'])}, p95 {span(late['p95'])}, at most {span(late['max'])}")
    if found["backfills"]:
        table.add_row("Backfills", str(found["backfills"]))
    ledger = found["ledger"]
    if ledger:
        table.add_row("Ledger", f"{ledger['differences']} differences in {ledger['schedules']} schedules")
    return table


def _executions(found: dict[str, Any]) -> Table:
    now = ", ".join(f"{count:,} {state}" for state, count in found["by_state"].items() if count)
    table = Table("Executions", "Succeeded", "Failed", "Cancelled", "Success", "A minute", box=None)
    for window, label in (("last_hour", "ended in an hour"), ("last_day", "ended in a day")):
        ended = found[window]
        rate = "" if ended["success_rate"] is None else f"{ended['success_rate']:.1%}"
        counts = [f"{ended[state]:,}" for state in ("succeeded", "failed", "cancelled")]
        table.add_row(label, *counts, rate, f"{ended['per_minute']:g}")
    table.caption, table.caption_justify = f"open: {now or 'none'}", "left"
    return table


def _queues(found: list[dict[str, Any]]) -> Table:
    names = ("waiting", "in_flight", "running", "later", "workers", "slots")
    table = Table("Queue", *[name.replace("_", " ").capitalize() for name in names], box=None)
    for one in found:
        table.add_row(one["queue"] + (" (paused)" if one["paused"] else ""), *[f"{one[name]:,}" for name in names])
    return table
