"""The instants of a schedule, as a pure function of its spec and its identity.

    >>> timing = compile(normalise({"timetables": [{"kind": "interval", "every": 300}]}), seed="nightly")
    >>> timing.next_after(0)
    Instant(nominal=300, due=300, skip='')

Everything that bears on "when" meets here: several timetables merged, start and end, calendars, blackout windows,
jitter. No clock, no database; the same spec and seed give the same instants on every host and at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from schedules import cron
from schedules.spec_reading import EPOCH, LAST_INSTANT, SpecError, read_instant
from schedules.specs import normalise
from schedules.timetables import (
    DAY,
    CalendarInterval,
    CronTimetable,
    Interval,
    Merged,
    Once,
    Timetable,
)
from schedules.zones import Zone, zone_of

_MONDAY: Final = 4 * DAY
"""Weekly intervals without an anchor fall on Mondays: 1970-01-05."""


class Instant(NamedTuple):
    """One instant of a schedule, in epoch seconds.

    `nominal` is what the timetable says and identifies the instant; `due` is when it is to fire: later by the
    jitter, or at the end of a blackout that postpones. Both ascend strictly. `skip` is empty, or the FireReason
    for which it must not fire.
    """

    nominal: int
    due: int
    skip: str


class Timing:
    """A compiled spec. Made by `compile`; immutable and safe to share."""

    def __init__(self, base: Timetable, *, zone: Zone, start: int, end: int, jitter: int, seed: str) -> None:
        """`start` and `end` (both included) and `jitter` in seconds; `seed` is the identity of the schedule."""
        self.base = base
        self.zone = zone
        self.start = start
        self.end = end
        self.jitter = jitter
        self._key = blake2b(seed.encode(), digest_size=32).digest()

    def next_after(self, after: int) -> Instant | None:
        """The first instant whose nominal time is strictly later than `after`, skipped ones included."""
        nominal = self.base.next_after(max(after, self.start - 1))
        return None if nominal is None or nominal > self.end else self._instant(nominal)

    def between(self, after: int, until: int) -> Iterator[Instant]:
        """The instants whose nominal time lies in (`after`, `until`], lazily and in order."""
        nominals = self.base.between(max(after, self.start - 1), min(until, self.end))
        if not self.jitter:
            return (Instant(nominal, nominal, "") for nominal in nominals)
        return map(self._instant, nominals)

    def count(self, after: int, until: int) -> int:
        """How many instants, skipped ones included, have their nominal time in (`after`, `until`]."""
        return self.base.count(max(after, self.start - 1), min(until, self.end))

    def describe(self) -> str:
        """In plain English, with the time zone."""
        return self.base.describe()

    def _instant(self, nominal: int) -> Instant:
        return Instant(nominal, nominal + self._delay(nominal), "")

    def _delay(self, nominal: int) -> int:
        """The jitter of an instant: evenly spread over [0, jitter], but never reaching the next instant."""
        if not self.jitter:
            return 0
        following = self.base.next_after(nominal)
        span = self.jitter + 1 if following is None else min(self.jitter + 1, following - nominal)
        return _fraction(self._key, nominal, span)


def _fraction(key: bytes, nominal: int, span: int) -> int:
    """A number from 0 to `span` - 1, evenly spread, always the same for a key and an instant."""
    digest = blake2b(nominal.to_bytes(8, "big", signed=True), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "big") * span >> 64


def compile(spec: Mapping[str, Any], *, seed: str) -> Timing:
    """The timing of a canonical spec; `seed` is the identity of the schedule (for jitter and `H`). Cached."""
    return _compile(json.dumps(spec, sort_keys=True, separators=(",", ":")), seed)


@lru_cache(maxsize=4096)
def _compile(text: str, seed: str) -> Timing:
    spec = json.loads(text)
    zone = zone_of(spec["timezone"])
    timetables = tuple(_timetable(entry, spec, zone, seed) for entry in spec["timetables"])
    return Timing(
        timetables[0] if len(timetables) == 1 else Merged(timetables),
        zone=zone,
        start=read_instant(spec["start"], zone) if "start" in spec else 0,
        end=read_instant(spec["end"], zone) if "end" in spec else LAST_INSTANT,
        jitter=spec.get("jitter", 0),
        seed=seed,
    )


def _timetable(entry: Mapping[str, Any], spec: Mapping[str, Any], zone: Zone, seed: str) -> Timetable:
    gap, overlap = spec.get("gap", "fire_at_end"), spec.get("overlap", "first")
    kind = entry["kind"]
    if kind == "cron":
        return CronTimetable(cron.parse(entry["expression"], seed=seed), zone, gap=gap, overlap=overlap)
    if kind == "once":
        return Once(read_instant(entry["at"], zone))
    every, anchor = entry["every"], entry.get("anchor")
    instant = None if anchor is None else read_instant(anchor, zone)
    if isinstance(every, int):
        return Interval(every, instant or 0)
    ((unit, number),) = every.items()
    if instant is None:
        local = _MONDAY if unit == "weeks" else 0
    else:
        local = instant + zone.offset(instant)
    return CalendarInterval(unit, number, local, zone, gap=gap, overlap=overlap)


__all__ = ["EPOCH", "Instant", "SpecError", "Timing", "compile", "normalise"]
