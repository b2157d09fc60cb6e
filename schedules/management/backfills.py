"""The part of ``manage.py schedules`` that runs past instants: ``backfill``, ``backfills`` and ``cancel-backfill``."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.core.management.base import CommandError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from schedules import backfill
from schedules.backfill_plan import Estimate, Share
from schedules.models import Backfill, Schedule
from schedules.states import BackfillOrder, BackfillState

LISTED: Final = 50
#: Seconds between looks at a backfill that is followed.
FOLLOW_SECONDS: Final = 0.5


def add_arguments(verbs: Any) -> None:
    """The subcommands' own arguments."""
    one = verbs.add_parser("backfill", help="run past instants after all; without --yes only show what that would be")
    one.add_argument("name", help="the schedule's name or id")
    for name in ("since", "until"):
        one.add_argument(f"--{name}", required=True, type=_instant, help="ISO 8601; UTC without an offset; included")
    one.add_argument("--all", action="store_true", help="also instants that started before")
    one.add_argument("--ignore-calendars", action="store_true", help="also what calendars and blackouts leave out")
    one.add_argument("--order", choices=BackfillOrder.values, default=BackfillOrder.OLDEST.value)
    one.add_argument("--max-running", type=int, default=1, help="executions at once (1)")
    one.add_argument("--per-minute", type=int, help="starts in a minute")
    one.add_argument("--priority", help="0 (first) to 9, or its name; lower than the schedule's if left out")
    one.add_argument("--input", help="JSON, instead of the schedule's input")
    one.add_argument("--note", default="", help="why, for the audit trail")
    one.add_argument("--yes", action="store_true", help="begin it")
    one.add_argument("--follow", action="store_true", help="show its progress until it is over")
    verbs.add_parser("backfills", help="list backfills")
    cancelling = verbs.add_parser("cancel-backfill", help="start nothing more of a backfill")
    cancelling.add_argument("id", type=UUID)
    cancelling.add_argument("--stop-running", action="store_true", help="also cancel its executions that still run")
    cancelling.add_argument("--note", default="", help="why, for the audit trail")


def begin(schedule: Schedule, options: dict[str, Any], *, actor: str, console: Console) -> None:
    """Show what the backfill would do; with ``--yes`` begin it.

    Raises:
        CommandError: ``--input`` is no JSON.
        DomainError: as for `schedules.backfill.create`.
    """
    level = options["priority"]
    try:
        data = None if options["input"] is None else json.loads(options["input"])
    except ValueError as error:
        raise CommandError(f"--input must be JSON: {error}") from None
    given = {
        "since": options["since"],
        "until": options["until"],
        "gaps_only": not options["all"],
        "ignore_calendars": options["ignore_calendars"],
        "order": options["order"],
        "max_running": options["max_running"],
        "per_minute": options["per_minute"],
        "priority": int(level) if level is not None and level.isdigit() else level,
        "input": data,
    }
    for line in _told(backfill.plan(schedule.pk, **given)):
        console.print(line, highlight=False)
    if not options["yes"]:
        console.print("Nothing was started: --yes begins it.")
        return
    made = backfill.create(schedule.pk, actor=actor, note=options["note"], **given)
    console.print(str(made.pk), highlight=False)
    if options["follow"]:
        follow(made, console)


def follow(made: Backfill, console: Console) -> None:
    """Show a progress bar until the backfill is over and what it started has ended."""
    with Progress(console=console) as bar:
        task = bar.add_task(made.schedule.name, total=made.total)
        while True:
            made = backfill.get(made.pk)
            running = backfill.progress(made.pk).running
            bar.update(task, completed=made.started - running)
            if made.state != BackfillState.RUNNING and not running:
                break
            time.sleep(FOLLOW_SECONDS)
    console.print(f"{made.state}: {made.started} started", highlight=False)


def show(console: Console) -> None:
    """List the latest backfills."""
    table = Table("Id", "Schedule", "State", "From", "To", "Started", "Total", box=None)
    for one in Backfill.objects.select_related("schedule").order_by("-pk")[:LISTED]:
        span = [f"{instant:%Y-%m-%d %H:%M:%SZ}" for instant in (one.since, one.until)]
        table.add_row(str(one.pk), one.schedule.name, one.state, *span, str(one.started), str(one.total))
    console.print(table)


def cancel(options: dict[str, Any], *, actor: str, console: Console) -> None:
    """Cancel a backfill.

    Raises:
        DomainError: as for `schedules.backfill.cancel`.
    """
    backfill.cancel(options["id"], actor=actor, stop_running=options["stop_running"], note=options["note"])
    console.print("cancelled")


def _told(found: Estimate) -> list[str]:
    lines = [f"{found.instants} executions, {found.step_runs} steps, priority {found.priority}"]
    if found.first and found.last:
        lines.append(f"from {found.first:%Y-%m-%dT%H:%M:%SZ} to {found.last:%Y-%m-%dT%H:%M:%SZ}")
    lines.append(f"{found.ran} instants started before, {found.excluded} are left out by calendars and blackouts")
    if found.seconds is not None:
        usual = "" if found.run_seconds is None else f" ({found.run_seconds:g} s each, {found.max_running} at once)"
        lines.append(f"takes {found.seconds:g} s at least{usual}")
    lines += [_share("queue", share) for share in found.queues] + [_share("pool", share) for share in found.pools]
    return lines


def _share(kind: str, share: Share) -> str:
    taken = "no slots now" if share.share is None else f"{share.share:.0%} of {share.slots} slots"
    return f"{kind} {share.name}: {taken}"


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO 8601 instant") from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
