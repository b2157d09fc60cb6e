"""Reading what people write about time, member by member, with every problem named by its dotted path."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schedules.timing.cron.search import LAST_SECOND
from schedules.timing.local_times import FIRE_AT_END, instants_of
from schedules.timing.zones import Zone
from scheduling_project.common.errors import InvalidInput

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST_INSTANT: Final = LAST_SECOND
"""No timetable has an instant before 1970-01-01T00:00:00Z (0) or after this, 2199-12-31T23:59:59Z."""


class SpecError(InvalidInput):
    """What the schedule says about time is not acceptable."""


class Problems:
    """What is wrong with a spec: per dotted path (`timetables.0.expression`) the rules that its value breaks."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}

    def add(self, path: str, rule: str) -> None:
        self.fields.setdefault(path, []).append(rule)

    def raise_if_any(self) -> None:
        """Raises SpecError when something was found."""
        if self.fields:
            raise SpecError(fields=self.fields)


class Reader:
    """One JSON object of a spec. Members are taken by name; what nobody took is a problem.

    Reading never raises: a wrong value is noted and its default is returned, so that all problems show at once.
    """

    def __init__(self, value: object, path: str, problems: Problems) -> None:
        self.path = path
        self.problems = problems
        self._taken: set[str] = set()
        self._members: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            self._members = value
        else:
            problems.add(path, "must be an object")

    def at(self, name: object) -> str:
        """The dotted path of a member."""
        return f"{self.path}.{name}" if self.path else str(name)

    def add(self, name: object, rule: str) -> None:
        """Note a problem of a member."""
        self.problems.add(self.at(name), rule)

    def take(self, name: str) -> Any:
        """The raw value of a member; None when it is absent."""
        self._taken.add(name)
        return self._members.get(name)

    def text(self, name: str, *, longest: int, required: bool = False) -> str:
        """A non-empty string of at most `longest` characters, or "" when it is absent or wrong."""
        value = self.take(name)
        if value is None:
            if required:
                self.add(name, "is required")
            return ""
        if not isinstance(value, str) or not value.strip():
            self.add(name, "must be a text that is not empty")
        elif len(value) > longest:
            self.add(name, f"must have at most {longest} characters")
        else:
            return value.strip()
        return ""

    def choice(self, name: str, options: Sequence[str], *, default: str | None) -> str:
        """One of `options`; `default` when absent (None: it is required), the first option when wrong."""
        value = self.take(name)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and value in options:
            return value
        given = "is required: " if value is None else f"cannot be {str(value)[:40]!r}{suggest(value, options)}, only "
        self.add(name, given + "one of " + ", ".join(options))
        return options[0]

    def integer(self, name: str, *, low: int, high: int, default: int) -> int:
        """A whole number from `low` to `high`; `default` when absent or wrong."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.add(name, f"must be a whole number from {low} to {high}")
            return default
        return value

    def number(self, name: str, *, low: float, high: float) -> float:
        """A required number from `low` to `high`; 0 when wrong."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.add(name, f"must be a number from {low:g} to {high:g}")
            return 0.0
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.add(name, "must be true or false")
            return default
        return value

    def items(self, name: str, *, most: int) -> list[Any]:
        """A list of at most `most` entries; [] when absent or wrong."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.add(name, "must be a list")
            return []
        if len(value) > most:
            self.add(name, f"must have at most {most} entries, this has {len(value)}")
            return []
        return list(value)

    def instant(self, name: str, zone: Zone, *, required: bool = False) -> int | None:
        """An instant in epoch seconds, or None when absent or wrong; without an offset it is local in `zone`."""
        value = self.take(name)
        if value is None:
            if required:
                self.add(name, "is required")
            return None
        try:
            return read_instant(value, zone)
        except ValueError as error:
            self.add(name, str(error))
            return None

    def finish(self) -> None:
        """Note the members that nobody took."""
        for name in self._members:
            if name not in self._taken:
                self.add(name, f"is not known here{suggest(name, sorted(self._taken))}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)


def suggest(given: object, options: Sequence[str]) -> str:
    """` (did you mean …?)`, or nothing when no option is close."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(str(given)[:60].lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def read_instant(value: object, zone: Zone) -> int:
    """Epoch seconds of an ISO 8601 text or datetime, fractions cut off; without an offset it is local in `zone`.

    A local time that a gap swallowed is the gap's end, one that comes twice is the first. Raises ValueError.
    """
    moment = value
    if isinstance(value, str) and len(value) <= 40:
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    if not isinstance(moment, datetime):
        raise ValueError("must be an instant in ISO 8601, such as 2026-03-29T02:30:00Z")
    if moment.tzinfo is None:
        local = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(seconds=1)
        instant = instants_of(zone, local, gap=FIRE_AT_END, overlap="first")[0]
    else:
        instant = (moment - EPOCH) // timedelta(seconds=1)
    if not 0 <= instant <= LAST_INSTANT:
        raise ValueError("must lie in the years 1970 to 2199")
    return instant


def write_instant(instant: int) -> str:
    """The canonical text of an instant: `2026-03-29T01:00:00Z`."""
    return (EPOCH + timedelta(seconds=instant)).strftime("%Y-%m-%dT%H:%M:%SZ")
