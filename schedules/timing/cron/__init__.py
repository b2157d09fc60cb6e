"""Cron expressions: when they fire, in any time zone, exactly.

    >>> from datetime import UTC, datetime
    >>> nightly = parse("30 2 * * *")
    >>> nightly.next(datetime(2026, 3, 28, 12, tzinfo=UTC), "Europe/Berlin").isoformat()
    '2026-03-29T03:00:00+02:00'

02:30 does not exist that night, so the job fires when the gap ends. The grammar is the Open Cron Pattern
Specification 1.0 to 1.4 with a few extensions; `docs/reference/cron.md` has all of it. `parser` reads
the text, `search` finds matching local times, `instants` decides what happens when clocks change, `timing.zones` knows
when they do; `expression` is what callers hold.

Expressions are compiled to bitmasks once and kept; the search is integer arithmetic over windows of constant
offset, and datetimes are made only at the edge.
"""

from schedules.timing.cron.expression import (
    DIALECTS,
    Cron,
    Dialect,
    parse,
)
from schedules.timing.cron.instants import Gap, Overlap
from schedules.timing.cron.parser import MAX_LENGTH, CronError
from schedules.timing.zones import TZDATA_VERSION, UnknownZone, Zone, zone_of

__all__ = [
    "DIALECTS",
    "MAX_LENGTH",
    "TZDATA_VERSION",
    "Cron",
    "CronError",
    "Dialect",
    "Gap",
    "Overlap",
    "UnknownZone",
    "Zone",
    "parse",
    "zone_of",
]
