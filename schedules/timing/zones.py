"""Time zones as constant-offset windows: plain integers that a search can walk without a datetime.

A zone is a run of windows `[start, next start)` in UTC seconds, each with one UTC offset. Two windows meet in a
*gap* (the clock jumps forward, local times are missing) or an *overlap* (it jumps back, local times come twice);
why it jumps (summer time, Ramadan, a new meridian, the date line) makes no difference here.

The windows are read from the TZif files (RFC 9636) of the pinned `tzdata` distribution, the POSIX rule in their
footer carrying them to the end of 2200. Importing this module makes that distribution the only source of
`zoneinfo` in the process, so that the same schedule fires at the same instants on every host.
"""

from __future__ import annotations

import importlib
import importlib.resources
import zoneinfo
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from struct import unpack
from typing import Final, NamedTuple


def use_pinned_tzdata() -> None:
    """Make the `tzdata` distribution the only source of `zoneinfo` in this process, whatever the host has.

    Zones that were made from the host's files before are forgotten by `zoneinfo` (whoever holds one keeps it).
    """
    if zoneinfo.TZPATH:
        zoneinfo.reset_tzpath(to=())
        zoneinfo.ZoneInfo.clear_cache()


use_pinned_tzdata()

TZDATA_VERSION: Final[str] = importlib.import_module("tzdata").IANA_VERSION
"""The release of the IANA database in use, e.g. `2026a`."""

FOREVER: Final = 1 << 60
"""Stands for "no end" and, negated, "no beginning", in seconds."""

_FIRST_INSTANT: Final = -2 * 86400  # no local clock reads 1970 before this
_LAST_YEAR: Final = 2200
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_CACHE_LIMIT: Final = 4096


class UnknownZone(ValueError):
    """The time zone is not in the IANA database."""


class Zone:
    """One time zone as parallel tuples, one entry per window.

    `starts`: first UTC second (the first window has none: -FOREVER). `offsets`: seconds east of UTC.
    `local_starts`, `local_ends`: the local clock, in seconds since 1970-01-01 00:00 local, at the window's start
    and at its (exclusive) end. `reached`: the furthest that the local clock has shown by the window's end.
    """

    __slots__ = ("local_ends", "local_starts", "name", "offsets", "reached", "starts", "tzinfo")

    def __init__(self, name: str, zone_info: tzinfo, windows: list[tuple[int, int]]) -> None:
        """`windows` are (first UTC second, offset) in order, neighbours differing in offset."""
        self.name = name
        self.tzinfo = zone_info
        self.starts = (-FOREVER, *(start for start, _ in windows[1:]))
        self.offsets = tuple(offset for _, offset in windows)
        ends = (*self.starts[1:], FOREVER)
        self.local_starts = tuple(
            start if start == -FOREVER else start + offset
            for start, offset in zip(self.starts, self.offsets, strict=True)
        )
        self.local_ends = tuple(
            end if end == FOREVER else end + offset for end, offset in zip(ends, self.offsets, strict=True)
        )
        furthest, reached = -FOREVER, []
        for end in self.local_ends:
            furthest = max(furthest, end)
            reached.append(furthest)
        self.reached = tuple(reached)

    def window(self, instant: int) -> int:
        """The index of the window in which the UTC second `instant` lies."""
        return bisect_right(self.starts, instant, 1) - 1

    def offset(self, instant: int) -> int:
        """Seconds east of UTC at the UTC second `instant`."""
        return self.offsets[bisect_right(self.starts, instant, 1) - 1]

    def transitions(self, after: int, until: int) -> list[Transition]:
        """The changes of offset in (`after`, `until`], in UTC seconds."""
        first = bisect_right(self.starts, after, 1)
        last = bisect_right(self.starts, until, 1)
        return [
            Transition(self.starts[index], self.offsets[index - 1], self.offsets[index]) for index in range(first, last)
        ]

    def __repr__(self) -> str:
        return f"Zone({self.name!r}, {len(self.starts)} windows)"


class Transition(NamedTuple):
    """A change of offset: from the UTC second `at`, `after` holds instead of `before` (seconds east of UTC)."""

    at: int
    before: int
    after: int

    @property
    def is_gap(self) -> bool:
        """The clock jumps forward: the local times `missing_or_repeated` never come."""
        return self.after > self.before

    @property
    def missing_or_repeated(self) -> tuple[int, int]:
        """Local seconds [from, to) that are missing (gap) or come twice (overlap)."""
        return self.at + min(self.before, self.after), self.at + max(self.before, self.after)


_zones: dict[str | tzinfo, Zone] = {}


def zone_of(tz: str | tzinfo) -> Zone:
    """The windows of a zone given as an IANA name, a `ZoneInfo`, or a fixed `datetime.timezone`; cached.

    Raises UnknownZone (a ValueError) for a name that is not in the IANA database, and for tzinfo objects of other
    kinds, whose rules cannot be read.
    """
    try:
        found = _zones.get(tz)
    except TypeError:
        found = None
    if found is not None:
        return found
    zone = _load(tz)
    if len(_zones) >= _CACHE_LIMIT:  # hostile or generated zone objects must not fill the memory
        _zones.clear()
    _zones[tz] = zone
    return zone


def _load(tz: str | tzinfo) -> Zone:
    if isinstance(tz, timezone):
        return Zone(str(tz), tz, [(-FOREVER, _seconds(tz.utcoffset(None)))])
    if isinstance(tz, zoneinfo.ZoneInfo):
        if tz.key is None:
            raise UnknownZone("a ZoneInfo made without a key has no name to look up; give it one, or pass a name")
        return Zone(tz.key, tz, _windows(tz.key))
    if isinstance(tz, str):
        try:
            known = zoneinfo.ZoneInfo(tz)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise UnknownZone(f"{tz[:80]!r} is not a time zone of the IANA database {TZDATA_VERSION}") from None
        return Zone(tz, known, _windows(tz))
    raise UnknownZone(f"a time zone is an IANA name or a ZoneInfo, not {type(tz).__name__}")


def _seconds(offset: timedelta) -> int:
    return offset.days * 86400 + offset.seconds


def _windows(key: str) -> list[tuple[int, int]]:
    """The (start, offset) pairs of a zone from its TZif file, neighbours with equal offsets merged."""
    try:
        source = importlib.resources.files("tzdata").joinpath("zoneinfo", *key.split("/"))
        data = source.read_bytes()
    except (OSError, ValueError):
        raise UnknownZone(f"{key!r} is not a time zone of the IANA database {TZDATA_VERSION}") from None
    offset, changes, footer = parse_tzif(data)
    changes = [*changes, *footer_changes(footer, changes[-1][0] if changes else -FOREVER)]
    windows = [(-FOREVER, offset)]
    for start, new in changes:
        if start <= _FIRST_INSTANT:
            windows = [(-FOREVER, new)]
        elif new != windows[-1][1]:
            windows.append((start, new))
    return windows


def parse_tzif(data: bytes) -> tuple[int, list[tuple[int, int]], str]:
    """The content of a TZif file of version 2 or later: (first offset, [(UTC second, new offset)], footer).

    Raises ValueError when the data are not such a file. Layout: RFC 9636, section 3.
    """
    if data[:4] != b"TZif" or data[4:5] < b"2":
        raise ValueError("not a TZif file of version 2 or later")

    def counts(at: int) -> tuple[int, int, int, int, int, int]:
        isut, isstd, leap, time, kind, char = unpack(">6l", data[at + 20 : at + 44])
        return isut, isstd, leap, time, kind, char

    isut, isstd, leap, time, kind, char = counts(0)
    second = 44 + time * 5 + kind * 6 + char + leap * 8 + isstd + isut  # the 32-bit block is skipped
    isut, isstd, leap, time, kind, char = counts(second)
    at = second + 44
    instants = unpack(f">{time}q", data[at : at + 8 * time])
    kinds = data[at + 8 * time : at + 9 * time]
    at += 9 * time
    offsets = [unpack(">l", data[at + 6 * index : at + 6 * index + 4])[0] for index in range(kind)]
    at += 6 * kind + char + 12 * leap + isstd + isut
    footer = data[at:].strip(b"\n").decode("ascii")
    return offsets[0], [(instant, offsets[k]) for instant, k in zip(instants, kinds, strict=True)], footer


def footer_changes(footer: str, after: int) -> list[tuple[int, int]]:
    """The (UTC second, new offset) pairs, later than `after`, of a POSIX TZ rule, to the end of 2200.

    An empty rule, or one without summer time, changes nothing. Format: POSIX `TZ` with the extensions of RFC 9636
    (hours from -167 to 167, e.g. `<-02>2<-01>,M3.5.0/-1,M10.5.0/0`).
    """
    names, _, rules = footer.partition(",")
    if not rules:
        return []
    standard, rest = _posix_offset(_after_name(names))
    rest = _after_name(rest)
    summer = _posix_offset(rest)[0] if rest else standard + 3600
    begin, end = (_parse_rule(rule) for rule in rules.split(","))
    first_year = 1970 if after < 0 else datetime.fromtimestamp(after, tz=UTC).year
    changes = []
    for year in range(first_year, _LAST_YEAR + 1):
        changes.append((_rule_second(begin, year) - standard, summer))
        changes.append((_rule_second(end, year) - summer, standard))
    return sorted(change for change in changes if change[0] > after)


def _after_name(text: str) -> str:
    """What follows a zone abbreviation: `<+03>-3` and `EST5EDT` begin with one."""
    if text.startswith("<"):
        return text.partition(">")[2]
    return text.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def _posix_offset(text: str) -> tuple[int, str]:
    """Read `[+-]hh[:mm[:ss]]`, which counts westwards: (seconds east of UTC, the rest of the text)."""
    length = 0
    while length < len(text) and text[length] in "+-0123456789:":
        length += 1
    return -_clock(text[:length]), text[length:]


def _clock(text: str) -> int:
    """Seconds of `[+-]h[:mm[:ss]]`."""
    sign = -1 if text.startswith("-") else 1
    hours, minutes, seconds = ([int(part) for part in text.lstrip("+-").split(":")] + [0, 0])[:3]
    return sign * (hours * 3600 + minutes * 60 + seconds)


class _Rule(NamedTuple):
    """A day of the year and the second within it at which the clock changes."""

    kind: str
    month: int
    week: int
    day: int
    second: int


def _parse_rule(rule: str) -> _Rule:
    """Read `Mm.w.d/time` (weekday d of week w of month m, 5 being the last), `Jn/time` or `n/time`."""
    day, _, time = rule.partition("/")
    second = _clock(time) if time else 7200
    if day.startswith("M"):
        month, week, weekday = (int(part) for part in day[1:].split("."))
        return _Rule("M", month, week, weekday, second)
    if day.startswith("J"):
        return _Rule("J", 1, 1, int(day[1:]), second)
    return _Rule("n", 1, 1, int(day), second)


def _rule_second(rule: _Rule, year: int) -> int:
    """The local second (since 1970-01-01 00:00) at which a rule falls in a year."""
    first = date(year, rule.month, 1).toordinal()
    if rule.kind == "M":
        ordinal = first + (rule.day - first) % 7 + 7 * (rule.week - 1)
        if rule.week == 5 and date.fromordinal(ordinal).month != rule.month:
            ordinal -= 7
    elif rule.kind == "J":  # 1 to 365, February 29 is never counted
        ordinal = first + rule.day - 1 + (rule.day >= 60 and date(year, 3, 1).toordinal() - first == 60)
    else:  # 0 to 365, February 29 is counted
        ordinal = first + rule.day
    return (ordinal - _EPOCH_ORDINAL) * 86400 + rule.second
