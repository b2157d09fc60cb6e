"""All checks, one after the other; what one cannot do without is asked first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from django.db import DatabaseError, InterfaceError

from scheduling_project.common import clock
from scheduling_project.diagnosis import installation, servers, work
from scheduling_project.diagnosis.finding import Finding, Severity, error

Check = Callable[[], Iterable[Finding]]

#: Those that read our tables, by name.
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("settings", installation.configuration),
    ("time zones", installation.time_zones),
    ("periodic tasks", installation.mirror),
    ("processes", lambda: work.processes(clock.now())),
    ("queues", lambda: work.lanes(clock.now())),
    ("stuck", lambda: work.standing_still(clock.now())),
    ("firing", lambda: work.firing(clock.now())),
    ("news", lambda: work.news(clock.now())),
    ("dead letters", lambda: work.letters(clock.now())),
)


def examine() -> Iterator[Finding]:
    """Every finding as it is made. Reads only; without Postgres or its tables, what needs them is left out."""
    there = list(servers.postgres())
    yield from there
    yield from servers.redis()
    if any(finding.severity is Severity.ERROR and "cannot be reached" in finding.message for finding in there):
        return
    migrated = list(installation.migrations())
    yield from migrated
    if any(finding.severity is Severity.ERROR for finding in migrated):
        return
    for name, check in CHECKS:
        try:
            yield from check()
        except (DatabaseError, InterfaceError) as away:
            told = f"it could not be examined ({type(away.__cause__ or away).__name__})"
            yield error(name, told, "see whether Postgres is well, and try again")
