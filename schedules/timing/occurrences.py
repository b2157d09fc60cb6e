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

from schedules.states import FireReason
from schedules.timing import cron
from schedules.timing.blackouts import Blackouts, compile_blackouts
from schedules.timing.business_days import Shifted
from schedules.timing.calendars import DayRule, Days, compile_days
from schedules.timing.local_times import local_day, start_of_day
from schedules.timing.rrule_text import parse_rules
from schedules.timing.rrules import RecurrenceSet
from schedules.timing.solar import Solar
from schedules.timing.spec_reading import EPOCH, LAST_INSTANT, SpecError, read_instant
from schedules.timing.specs import calendar_names, normalise
from schedules.timing.timetables import (
    DAY,
    LAST_LOCAL_DAY,
    CalendarInterval,
    CronTimetable,
    Interval,
    Merged,
    Once,
    Timetable,
)
from schedules.timing.zones import Zone, zone_of

BLACKOUT: Final = FireReason.BLACKOUT.value
MOST_SKIPS: Final = 10_000

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

    def __init__(
        self,
        base: Timetable,
        *,
        timetables: tuple[Timetable, ...],
        spec: Mapping[str, Any],
        zone: Zone,
        start: int,
        end: int,
        seed: str,
        days: DayRule | None = None,
        blackouts: Blackouts | None = None,
    ) -> None:
        """`base` has the instants of all `timetables`, moved to business days where that is asked for.

        `start` and `end` (epoch seconds, both included) bound nominal instants; `seed` is the schedule's identity.
        """
        self.base = base
        self.timetables = timetables
        self.spec = spec
        self.zone = zone
        self.start = start
        self.end = end
        self.jitter: int = spec.get("jitter", 0)
        self.days = days
        self.blackouts = blackouts
        self._key = blake2b(seed.encode(), digest_size=32).digest()
        self._plain = not (self.jitter or days or blackouts)

    def next_after(self, after: int) -> Instant | None:
        """The first instant whose nominal time is strictly later than `after`, skipped ones included."""
        nominal = self.base.next_after(max(after, self.start - 1))
        return None if nominal is None or nominal > self.end else self._instant(nominal)

    def between(self, after: int, until: int) -> Iterator[Instant]:
        """The instants whose nominal time lies in (`after`, `until`], lazily and in order, skipped ones included."""
        nominals = self.base.between(max(after, self.start - 1), min(until, self.end))
        if self._plain:
            return (Instant(nominal, nominal, "") for nominal in nominals)
        return map(self._instant, nominals)

    def due_between(self, after: int, until: int) -> Iterator[Instant]:
        """The instants that are due in (`after`, `until`], lazily and in order, skipped ones included."""
        earliest = after - self.jitter
        if self.blackouts is not None and (began := self.blackouts.began(earliest)) is not None:
            earliest = began  # what was postponed lies nominally before
        for instant in self.between(earliest - 1, until):
            if instant.due > until:
                return
            if instant.due > after:
                yield instant

    def next_fire(self, after: int) -> Instant | None:
        """The first instant with a nominal time later than `after` that is not skipped.

        Bounded: after MOST_SKIPS leaps over excluded days and windows the answer is None.
        """
        if self.blackouts is not None and self.blackouts.never_ends:
            return None
        for _ in range(MOST_SKIPS):
            instant = self.next_after(after)
            if instant is None or not instant.skip:
                return instant
            after = max(instant.nominal, self._blocked_until(instant.nominal) - 1)
        return None

    def fires(self, after: int, until: int) -> Iterator[int]:
        """The nominal times in (`after`, `until`] of the instants that are not skipped: the fast way to count many."""
        if self.days is None and self.blackouts is None:
            yield from self.base.between(max(after, self.start - 1), min(until, self.end))
            return
        while (first := self.next_fire(after)) is not None and first.nominal <= until:
            after = until
            for instant in self.between(first.nominal - 1, until):
                if instant.skip:
                    after = instant.nominal  # leap over what follows
                    break
                yield instant.nominal

    def count(self, after: int, until: int) -> int:
        """How many instants, skipped ones included, have their nominal time in (`after`, `until`]."""
        first, last = max(after, self.start - 1), min(until, self.end)
        return self.base.count(first, last) if last > first else 0

    def describe(self) -> str:
        """In plain English, with the time zone: "At 02:30 (Europe/Berlin)"."""
        return f"{self.base.describe()} ({self.zone.name})"

    def why_skipped(self, nominal: int) -> str:
        """What keeps an instant from firing, for a person; "" when nothing does."""
        if self.days is not None and (why := self.days.why_not(local_day(self.zone, nominal))) is not None:
            return f"Calendar {why.calendar}" + (f": {why.label}" if why.label else "")
        if self._instant(nominal).skip:
            return "A blackout window" if self._is_dropped(nominal) else "A later fire is postponed instead"
        return ""

    def _instant(self, nominal: int) -> Instant:
        if self._is_excluded(nominal):
            return Instant(nominal, nominal, BLACKOUT)
        begin = nominal
        if self.blackouts is not None and (hit := self.blackouts.at(nominal)) is not None:
            if hit.end is None or self._is_superseded(nominal, hit.end):
                return Instant(nominal, nominal, BLACKOUT)
            begin = hit.end
        return Instant(nominal, begin + self._delay(nominal, begin), "")

    def _delay(self, nominal: int, begin: int) -> int:
        """The jitter of an instant that may fire from `begin` on.

        Evenly spread over [0, jitter], but it reaches neither the next instant nor the next blackout.
        """
        if not self.jitter:
            return 0
        span = self.jitter + 1
        following = self.base.next_after(begin)
        if following is not None:
            span = min(span, following - begin)
        if self.blackouts is not None and (blackout := self.blackouts.next_start(begin)) is not None:
            span = min(span, blackout - begin)
        return _fraction(self._key, nominal, span)

    def _is_excluded(self, nominal: int) -> bool:
        return self.days is not None and not self.days.allows(local_day(self.zone, nominal))

    def _is_superseded(self, nominal: int, end: int) -> bool:
        """Whether a later instant, up to the blackout's end, fires or is postponed in place of this one."""
        limit = min(end, self.end)
        later = self.base.next_after(nominal)
        while later is not None and later <= limit:
            if not self._is_excluded(later) and not self._is_dropped(later):
                return True
            later = self.base.next_after(max(later, self._blocked_until(later) - 1))
        return False

    def _is_dropped(self, nominal: int) -> bool:
        hit = None if self.blackouts is None else self.blackouts.at(nominal)
        return hit is not None and hit.end is None

    def _blocked_until(self, nominal: int) -> int:
        """Up to where (exclusive) whatever keeps an instant from firing lasts at least."""
        day = local_day(self.zone, nominal)
        if self.days is not None and not self.days.allows(day):
            while not self.days.allows(day + 1) and day < LAST_LOCAL_DAY:
                day += 1
            return start_of_day(self.zone, day + 1)
        return nominal + 1 if self.blackouts is None else self.blackouts.skips_until(nominal)


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
    base = timetables[0] if len(timetables) == 1 else Merged(timetables)
    calendars = spec.get("calendars", {})
    days = _day_rule(calendars)
    if days is not None and "shift" in calendars:
        base = Shifted(base, days, zone, direction=calendars["shift"], **_policy(spec))
    return Timing(
        base,
        timetables=timetables,
        spec=spec,
        zone=zone,
        start=read_instant(spec["start"], zone) if "start" in spec else 0,
        end=read_instant(spec["end"], zone) if "end" in spec else LAST_INSTANT,
        seed=seed,
        days=days,
        blackouts=compile_blackouts(spec.get("blackouts", ()), zone),
    )


def _day_rule(calendars: Mapping[str, Any]) -> DayRule | None:
    data, seen = calendars.get("data", {}), dict[str, Days]()
    exclude, only = (
        [
            (reference if isinstance(reference, str) else reference["kind"], compile_days(reference, data, seen))
            for reference in calendars.get(use, ())
        ]
        for use in ("exclude", "only")
    )
    return DayRule(exclude, only) if exclude or only else None


def _policy(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"gap": spec.get("gap", "fire_at_end"), "overlap": spec.get("overlap", "first")}


def _timetable(entry: Mapping[str, Any], spec: Mapping[str, Any], zone: Zone, seed: str) -> Timetable:
    policy = _policy(spec)
    kind = entry["kind"]
    if kind == "cron":
        return CronTimetable(cron.parse(entry["expression"], seed=seed), zone, **policy)
    if kind == "once":
        return Once(read_instant(entry["at"], zone))
    if kind == "rrule":
        return RecurrenceSet(parse_rules(entry["rules"], zone), **policy)
    if kind == "solar":
        return Solar(entry["event"], entry["latitude"], entry["longitude"])
    every, anchor = entry["every"], entry.get("anchor")
    instant = None if anchor is None else read_instant(anchor, zone)
    if isinstance(every, int):
        return Interval(every, instant or 0)
    ((unit, number),) = every.items()
    if instant is None:
        local = _MONDAY if unit == "weeks" else 0
    else:
        local = instant + zone.offset(instant)
    return CalendarInterval(unit, number, local, zone, **policy)


__all__ = ["EPOCH", "Instant", "SpecError", "Timing", "calendar_names", "compile", "normalise"]
