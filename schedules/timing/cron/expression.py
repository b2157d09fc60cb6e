"""A compiled expression: the next fire, the one before, all of a range, in any zone; and reading one from its text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime, tzinfo
from functools import lru_cache
from math import floor
from typing import Final, Literal, overload
from uuid import UUID

from schedules.timing.cron.describe import describe
from schedules.timing.cron.dialects import from_vixie
from schedules.timing.cron.fields import Fields
from schedules.timing.cron.instants import (
    GAPS,
    OVERLAPS,
    Gap,
    Overlap,
    instants_between,
    next_instant,
    previous_instant,
)
from schedules.timing.cron.parser import (
    REBOOT,
    Seed,
    check_text,
    nickname,
    parse_fields,
)
from schedules.timing.cron.search import FIRST_SECOND, LocalSearch, search_of
from schedules.timing.cron.text import canonical
from schedules.timing.zones import Zone, zone_of

Dialect = Literal["ocps", "vixie"]
Zoned = str | tzinfo

DIALECTS: Final = ("ocps", "vixie")


class Cron:
    """A parsed cron expression. Immutable; equal when two expressions fire at the same times in every zone.

    `source` is the text as given, `notes` what the `vixie` dialect changed in it. `str()` is the canonical text.

    Instants are aware datetimes or integer UTC seconds. A day has 86 400 seconds, fractions of a second do not
    count: `matches` asks about the second that has begun. `gap` and `overlap` say what a fixed-time job does when
    the clock jumps (see `instants`); interval-like jobs follow real time whatever they say.
    """

    __slots__ = ("_fields", "_hashed", "_search", "_text", "notes", "source")

    def __init__(
        self, fields: Fields | None, *, source: str, notes: tuple[str, ...] = (), hashed: tuple[str, ...] = ()
    ) -> None:
        """Made by `parse`. `fields` is None for `@reboot`; `hashed` are the texts of the fields that have `H`."""
        self._fields = fields
        self._hashed = hashed
        self._search: LocalSearch | None = None
        self._text = ""
        self.source = source
        self.notes = notes

    # Facts

    @property
    def fields(self) -> Fields | None:
        """The bitmasks; None for `@reboot`, which is not about time."""
        return self._fields

    @property
    def is_reboot(self) -> bool:
        """`@reboot`: fires when the system starts, never by the clock."""
        return self._fields is None

    @property
    def is_interval_like(self) -> bool:
        """The minute or hour is a wildcard: the job follows real time through clock changes."""
        return self._fields is not None and (self._fields.minute_star or self._fields.hour_star)

    @property
    def is_never(self) -> bool:
        """No local time from 1970 to 2199 matches (an impossible date, such as 30 February)."""
        return self._searching().next(FIRST_SECOND - 1) is None if self._fields is not None else True

    def describe(self) -> str:
        """What the expression says, in plain English: "At 02:30, Monday to Friday"."""
        return describe(self._fields)

    def __str__(self) -> str:
        if not self._text:
            self._text = REBOOT if self._fields is None else canonical(self._fields, self._hashed)
        return self._text

    def __repr__(self) -> str:
        return f"Cron({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cron):
            return NotImplemented
        return str(self) == str(other) and self._resolved() == other._resolved()

    def __hash__(self) -> int:
        return hash(str(self))

    # Integer UTC seconds: the fast path

    def next_epoch(
        self, after: int, zone: Zoned | Zone = "UTC", *, gap: Gap = "fire_at_end", overlap: Overlap = "first"
    ) -> int | None:
        """The first instant strictly after `after` (UTC seconds), or None when there is none to the end of 2199.

        Raises UnknownZone (a ValueError), and ValueError for an unknown policy.
        """
        search = self._search or self._searching()
        windows = zone if type(zone) is Zone else zone_of(zone)  # type: ignore[arg-type]
        if gap == "fire_at_end" and overlap == "first":
            fields = self._fields
            if fields is None:
                return None
            if not (fields.minute_star or fields.hour_star):
                # The common case, spelled out: neither the start nor the match is near a change of the clock.
                index = bisect_right(windows.starts, after, 1) - 1
                local = after + windows.offsets[index]
                if not index or local >= windows.reached[index - 1]:
                    found = search.next(local)
                    if found is not None and found < windows.local_ends[index]:
                        return found - windows.offsets[index]
                return next_instant(search, windows, after, fires_gaps=True, overlap="first")
            index = bisect_right(windows.starts, after, 1) - 1
            found = search.next(after + windows.offsets[index])
            if found is not None and found < windows.local_ends[index]:
                return found - windows.offsets[index]
            return next_instant(search, windows, after, fires_gaps=False, overlap="both")
        fires_gaps, passes = self._policy(gap, overlap)
        if self._fields is None:
            return None
        return next_instant(search, windows, after, fires_gaps=fires_gaps, overlap=passes)

    def previous_epoch(
        self, before: int, zone: Zoned | Zone = "UTC", *, gap: Gap = "fire_at_end", overlap: Overlap = "first"
    ) -> int | None:
        """The last instant strictly before `before` (UTC seconds), or None when there is none since 1970."""
        windows = zone if isinstance(zone, Zone) else zone_of(zone)
        fires_gaps, passes = self._policy(gap, overlap)
        if self._fields is None:
            return None
        return previous_instant(self._searching(), windows, before, fires_gaps=fires_gaps, overlap=passes)

    def between_epoch(
        self,
        after: int,
        until: int,
        zone: Zoned | Zone = "UTC",
        *,
        gap: Gap = "fire_at_end",
        overlap: Overlap = "first",
    ) -> Iterator[int]:
        """The instants in (`after`, `until`] (UTC seconds), lazily and in order."""
        windows = zone if isinstance(zone, Zone) else zone_of(zone)
        fires_gaps, passes = self._policy(gap, overlap)
        if self._fields is None or until <= after:
            return iter(())
        return instants_between(self._searching(), windows, after, until, fires_gaps=fires_gaps, overlap=passes)

    def matches_epoch(
        self, instant: int, zone: Zoned | Zone = "UTC", *, gap: Gap = "fire_at_end", overlap: Overlap = "first"
    ) -> bool:
        """Whether the schedule fires at this UTC second."""
        return self.next_epoch(instant - 1, zone, gap=gap, overlap=overlap) == instant

    # Datetimes

    @overload
    def next(
        self, after: datetime, tz: Zoned | None = None, *, gap: Gap = ..., overlap: Overlap = ...
    ) -> datetime | None: ...
    @overload
    def next(self, after: int, tz: Zoned | None = None, *, gap: Gap = ..., overlap: Overlap = ...) -> int | None: ...
    def next(
        self,
        after: datetime | int,
        tz: Zoned | None = None,
        *,
        gap: Gap = "fire_at_end",
        overlap: Overlap = "first",
    ) -> datetime | int | None:
        """The first instant strictly after `after`, as an aware datetime in `tz`; None for never.

        `tz` is an IANA name or a ZoneInfo; without one, the zone of `after` counts. Integer UTC seconds in give
        integer UTC seconds back. Raises ValueError for a naive datetime, UnknownZone (a ValueError) for the zone.
        """
        if isinstance(after, int):
            return self.next_epoch(after, tz or "UTC", gap=gap, overlap=overlap)
        second, zone, info = _edge(after, tz)
        found = self.next_epoch(second, zone, gap=gap, overlap=overlap)
        return None if found is None else datetime.fromtimestamp(found, info)

    @overload
    def previous(
        self, before: datetime, tz: Zoned | None = None, *, gap: Gap = ..., overlap: Overlap = ...
    ) -> datetime | None: ...
    @overload
    def previous(
        self, before: int, tz: Zoned | None = None, *, gap: Gap = ..., overlap: Overlap = ...
    ) -> int | None: ...
    def previous(
        self,
        before: datetime | int,
        tz: Zoned | None = None,
        *,
        gap: Gap = "fire_at_end",
        overlap: Overlap = "first",
    ) -> datetime | int | None:
        """The last instant strictly before `before`, as an aware datetime in `tz`; None for never. See `next`."""
        if isinstance(before, int):
            return self.previous_epoch(before, tz or "UTC", gap=gap, overlap=overlap)
        second, zone, info = _edge(before, tz)
        if before.microsecond:
            second += 1  # the second that has begun lies before
        found = self.previous_epoch(second, zone, gap=gap, overlap=overlap)
        return None if found is None else datetime.fromtimestamp(found, info)

    def between(
        self,
        start: datetime,
        end: datetime,
        tz: Zoned | None = None,
        *,
        gap: Gap = "fire_at_end",
        overlap: Overlap = "first",
    ) -> Iterator[datetime]:
        """The instants after `start` up to and including `end`, lazily, as aware datetimes in `tz`. See `next`."""
        first, zone, info = _edge(start, tz)
        last, _, _ = _edge(end, tz)
        instants = self.between_epoch(first, last, zone, gap=gap, overlap=overlap)
        return (datetime.fromtimestamp(instant, info) for instant in instants)

    def matches(
        self,
        instant: datetime | int,
        tz: Zoned | None = None,
        *,
        gap: Gap = "fire_at_end",
        overlap: Overlap = "first",
    ) -> bool:
        """Whether the schedule fires in the second in which `instant` lies. See `next`."""
        if isinstance(instant, int):
            return self.matches_epoch(instant, tz or "UTC", gap=gap, overlap=overlap)
        second, zone, _ = _edge(instant, tz)
        return self.matches_epoch(second, zone, gap=gap, overlap=overlap)

    # Inside

    def _resolved(self) -> tuple[object, ...]:
        """The values that `H` took: with another seed, the same text is another schedule."""
        return self._fields[:6] if self._hashed and self._fields is not None else ()

    def _searching(self) -> LocalSearch:
        if self._search is None:
            self._search = search_of(self._fields or _NOTHING)
        return self._search

    def _policy(self, gap: str, overlap: str) -> tuple[bool, str]:
        """(whether local times lost in a gap fire at its end, which pass of an overlap fires)."""
        if gap not in GAPS:
            raise ValueError(f"gap is one of {', '.join(GAPS)}, not {gap!r}")
        if overlap not in OVERLAPS:
            raise ValueError(f"overlap is one of {', '.join(OVERLAPS)}, not {overlap!r}")
        if self.is_interval_like:
            return False, "both"
        return gap == "fire_at_end", overlap


def parse(expression: str, *, dialect: Dialect = "ocps", seed: Seed | None = None) -> Cron:
    """Parse a cron expression.

    `dialect`: `ocps` is strict; `vixie` also takes what crontabs in the wild contain and rewrites it (the result's
    `notes` say how). `seed` is the schedule's identity, needed only for `H`. Raises CronError (a ValueError) with
    the field, the text, its position, the rule and perhaps a suggestion.

    >>> parse("0 9 * * FRI-MON")
    Traceback (most recent call last):
    schedules.timing.cron.parser.CronError: day-of-week 'FRI-MON' at position 8: a range ascends and does not wrap \
around. Try 'FRI,SAT,SUN,MON'.
    """
    text = check_text(expression)
    if dialect not in DIALECTS:
        raise ValueError(f"the dialect is one of {', '.join(DIALECTS)}, not {dialect!r}")
    if seed is not None and not isinstance(seed, str | int | UUID):
        raise ValueError(f"a seed is text, a whole number or a UUID, not {type(seed).__name__}")
    return _parse(text, expression, dialect, None if seed is None else str(seed))


@lru_cache(maxsize=8192)
def _parse(text: str, source: str, dialect: str, seed: str | None) -> Cron:
    notes: tuple[str, ...] = ()
    if dialect == "vixie":
        text, notes = from_vixie(text)
    if text[0] == "@":
        text = nickname(text)
        if text == REBOOT:
            return Cron(None, source=source, notes=notes)
    fields = parse_fields(text, seed)
    hashed = _hashed_texts(text) if seed is not None and ("H" in text or "h" in text) else ()
    return Cron(fields, source=source, notes=notes, hashed=hashed)


def _hashed_texts(text: str) -> tuple[str, ...]:
    """For each of the seven fields, its text if it has `H` (then the text must be kept), else an empty one."""
    texts = text.upper().split()
    kept = [text if any(item.startswith("H") for item in text.split(",")) else "" for text in texts]
    if not any(kept):
        return ()
    return tuple(["", *kept] if len(kept) == 5 else kept)


def _edge(instant: datetime, tz: Zoned | None) -> tuple[int, Zone, tzinfo]:
    """(UTC second that has begun, windows, tzinfo of the answers) for an aware datetime."""
    info = instant.tzinfo
    if info is None:
        raise ValueError("a datetime without a time zone names no instant; use an aware one")
    zone = zone_of(info if tz is None else tz)
    return floor(instant.timestamp()), zone, zone.tzinfo if tz is None or isinstance(tz, str) else tz


_NOTHING: Final = Fields(1, 1, 1, 0, (1 << 13) - 2, 0, None, 0, 0, 0, False, False, False, False, False)
