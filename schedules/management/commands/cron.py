"""`manage.py cron "30 2 * * *" --tz Europe/Berlin`: what a cron expression means and when it fires."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import IO, Any, cast

from django.core.management.base import CommandError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schedules.timing import cron
from schedules.timing.cron.instants import GAPS, OVERLAPS
from schedules.timing.cron.preview import Fire, Warned, next_fires, warnings_about
from scheduling_project.common.console import ExampleCommand

MOST_FIRES = 1000


class Command(ExampleCommand):
    """Explain a cron expression: description, next fires with offsets and clock-change marks, warnings."""

    help = "Explain a cron expression: what it says, when it fires next, and what may surprise."
    examples = """
cron "30 2 * * MON-FRI" --tz Europe/Berlin
cron "0 0 L * *" --next 5 --json
cron "H H * * *" --seed nightly
"""
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """One expression; everything else has a default."""
        parser.add_argument("expression", help='the cron expression, quoted: "30 2 * * MON-FRI"')
        parser.add_argument("--tz", default="UTC", help="IANA time zone (default UTC)")
        parser.add_argument("--next", type=int, default=10, dest="count", help="how many fires (default 10)")
        parser.add_argument("--after", help="start after this ISO 8601 time (local unless it has an offset), not now")
        parser.add_argument("--dialect", choices=cron.DIALECTS, default="ocps")
        parser.add_argument("--seed", help="the identity from which H takes its values")
        parser.add_argument("--gap", choices=GAPS, default="fire_at_end", help="a fixed time lost in a clock change")
        parser.add_argument("--overlap", choices=OVERLAPS, default="first", help="a fixed time that comes twice")
        parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises CommandError, with the field and the rule, for what is not a cron expression or a zone."""
        count = options["count"]
        if not 0 <= count <= MOST_FIRES:
            raise CommandError(f"--next takes 0 to {MOST_FIRES}, not {count}")
        try:
            parsed = cron.parse(options["expression"], dialect=options["dialect"], seed=options["seed"])
            zone = cron.zone_of(options["tz"])
            after = _after(options["after"], zone)
        except ValueError as error:
            raise CommandError(str(error)) from None
        policy = {"gap": options["gap"], "overlap": options["overlap"]}
        fires = next_fires(parsed, zone, after=int(after.timestamp()), count=count, **policy)
        warnings = warnings_about(parsed, zone, now=after, **policy)
        if options["as_json"]:
            self.stdout.write(json.dumps(_as_dict(parsed, zone, fires, warnings), indent=2, ensure_ascii=False))
        else:
            self._show(parsed, zone, fires, warnings)

    def _show(self, parsed: cron.Cron, zone: cron.Zone, fires: list[Fire], warnings: list[Warned]) -> None:
        console = Console(file=cast(IO[str], self.stdout), no_color=not self.stdout.isatty(), highlight=False)
        console.print(Text(parsed.describe(), style="bold"), soft_wrap=True)
        console.print(Text(f"{parsed}   {zone.name}, tzdata {cron.TZDATA_VERSION}", style="dim"), soft_wrap=True)
        for note in parsed.notes:
            console.print(Text(f"changed: {note}"), soft_wrap=True)
        if fires:
            table = Table("local time", "UTC", "clock change", box=None, pad_edge=False)
            for fire in fires:
                local, utc = _times(fire.instant, zone)
                table.add_row(f"{local:%a} {_iso(local)}", _iso(utc), fire.mark)
            console.print(table)
        for warning in warnings:
            console.print(Text(f"! {warning.message}", style="yellow"), soft_wrap=True)


def _after(text: str | None, zone: cron.Zone) -> datetime:
    """The moment to start from. Raises ValueError for what is not ISO 8601."""
    if text is None:
        return datetime.now(UTC)
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--after takes an ISO 8601 time such as 2026-03-28T12:00, not {text!r}") from None
    return given if given.tzinfo is not None else given.replace(tzinfo=zone.tzinfo)


def _times(instant: int, zone: cron.Zone) -> tuple[datetime, datetime]:
    return datetime.fromtimestamp(instant, zone.tzinfo), datetime.fromtimestamp(instant, UTC)


def _iso(moment: datetime) -> str:
    text = moment.isoformat(sep=" ")
    return text.removesuffix("+00:00") + "Z" if moment.tzinfo is UTC else text


def _as_dict(parsed: cron.Cron, zone: cron.Zone, fires: list[Fire], warnings: list[Warned]) -> dict[str, Any]:
    shown = []
    for fire in fires:
        local, utc = _times(fire.instant, zone)
        shown.append({"local": local.isoformat(), "utc": utc.isoformat(), "clock_change": fire.mark or None})
    return {
        "expression": str(parsed),
        "source": parsed.source,
        "description": parsed.describe(),
        "timezone": zone.name,
        "tzdata": cron.TZDATA_VERSION,
        "notes": list(parsed.notes),
        "next": shown,
        "warnings": [
            {
                "code": warning.code,
                "message": warning.message,
                "at": None if warning.at is None else datetime.fromtimestamp(warning.at, UTC).isoformat(),
            }
            for warning in warnings
        ],
    }
