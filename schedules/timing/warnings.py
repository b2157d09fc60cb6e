"""What may surprise the people who wrote a schedule: pure, from a compiled timing and a moment to look from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Final

from schedules.timing.cron import preview as cron_preview
from schedules.timing.cron.preview import Warned
from schedules.timing.local_times import instants_of, local_day
from schedules.timing.occurrences import Timing
from schedules.timing.rrules import Recurrence
from schedules.timing.spec_reading import EPOCH, LAST_INSTANT, write_instant
from schedules.timing.timetables import DAY, CalendarInterval, CronTimetable, Merged

YEAR: Final = 366 * DAY
_MINUTE: Final = 60
_HORIZON: Final = 3_653
"""Days; data that last ten years are no reason to warn."""
_NAMED: Final = 3
_SAMPLED: Final = 200


def warnings_about(timing: Timing, now: int) -> list[Warned]:
    """Everything worth a word, seen from `now` (epoch seconds); clock changes within a year of it."""
    if timing.next_after(now) is None:
        return list(_about_nothing(timing, now))
    found = [*_about_timetables(timing, now), *_about_calendars(timing, now), *_about_load(timing, now)]
    return list(dict.fromkeys(found))


def _about_nothing(timing: Timing, now: int) -> Iterator[Warned]:
    if timing.next_after(-1) is not None:
        yield Warned("ended", "Does not fire again: every instant lies in the past.")
    elif timing.base.next_after(-1) is not None:
        yield Warned("never", "Never fires: no instant lies between its start and its end.")
    else:
        yield Warned("never", "Never fires: no date from 1970 to 2199 matches.")


def _about_timetables(timing: Timing, now: int) -> Iterator[Warned]:
    for timetable in timing.timetables:
        if isinstance(timetable, CronTimetable):
            yield from cron_preview.warnings_about(
                timetable.cron,
                timetable.zone,
                now=datetime.fromtimestamp(now, UTC),
                gap=timetable.gap,
                overlap=timetable.overlap,
            )
            continue
        if timetable.next_after(now) is None:
            yield Warned("ended", f"{timetable.describe()}: does not fire after {write_instant(now)}.")
        for member in timetable.timetables if isinstance(timetable, Merged) else (timetable,):
            if isinstance(member, CalendarInterval | Recurrence):
                yield from _clock_changes(member, now, min(now + YEAR, timing.end))


def _clock_changes(timetable: CalendarInterval | Recurrence, after: int, until: int) -> Iterator[Warned]:
    """The clock changes in (`after`, `until`] that touch a timetable of local times, and what it will do."""
    if timetable.is_interval_like:
        return  # follows real time
    for change in timetable.zone.transitions(after, until):
        first, end = change.missing_or_repeated
        touched = list(islice(timetable.locals_between(first, end), _NAMED + 1))
        if not touched:
            continue
        what = ", ".join(_clock(local) for local in touched[:_NAMED]) + (" and more" if len(touched) > _NAMED else "")
        day = datetime.fromtimestamp(change.at + change.before, UTC).strftime("%Y-%m-%d")
        one = len(touched) == 1
        if change.is_gap:
            jumps = f"{day}: the clock jumps from {_clock(first)} to {_clock(end)}"
            told = f"{jumps}; {what} {'does' if one else 'do'} not exist"
            at = instants_of(timetable.zone, touched[0], gap=timetable.lost, overlap="first")
            then = (
                f"fires {'at' if one else 'from'} {_clock(at[0] + change.after)}{'' if one else ' on'}"
                if at
                else "no fire"
            )
            yield Warned("gap", f"{told}: {then}.", change.at)
        else:
            goes = f"{day}: the clock goes back from {_clock(end)} to {_clock(first)}"
            told = f"{goes}; {what} {'comes' if one else 'come'} twice"
            passes = "both passes" if timetable.overlap == "both" else f"the {timetable.overlap} pass only"
            yield Warned("overlap", f"{told}: fires in {passes}.", change.at)


def _about_calendars(timing: Timing, now: int) -> Iterator[Warned]:
    if timing.days is not None and (known := timing.days.known_until()) is not None:
        name, day = known
        end = min(local_day(timing.zone, timing.end), local_day(timing.zone, now) + _HORIZON)
        if day < end:
            last = (EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")
            yield Warned("calendar_ends", f"The calendar {name} has no data after {last}, but the schedule goes on.")
    if timing.days is None and timing.blackouts is None:
        return
    fire = timing.next_fire(now)
    if fire is None:
        yield Warned("all_skipped", "Never fires: calendars and blackouts exclude every instant.")
    elif fire.nominal > now + YEAR:
        yield Warned(
            "all_skipped", f"Calendars and blackouts exclude every instant before {write_instant(fire.nominal)}."
        )


def _about_load(timing: Timing, now: int) -> Iterator[Warned]:
    instants = list(islice(timing.base.between(now, LAST_INSTANT), _SAMPLED))
    shortest = min((later - earlier for earlier, later in pairwise(instants)), default=DAY)
    crons = [timetable for timetable in timing.timetables if isinstance(timetable, CronTimetable)]
    if shortest < _MINUTE and len(crons) < len(timing.timetables):
        per_day = timing.base.count(instants[0] - 1, instants[0] - 1 + DAY)
        seconds = "second" if shortest == 1 else f"{shortest} seconds"
        yield Warned("sub_minute", f"Fires as often as every {seconds}, {per_day:,} times in a day.")
    if timing.jitter >= shortest:
        yield Warned(
            "jitter_cut",
            f"The jitter of {timing.jitter} seconds is cut where the next instant comes earlier "
            f"(here after {shortest} seconds): no fire overtakes the next.",
        )


def _clock(local: int) -> str:
    shown = datetime.fromtimestamp(local, UTC)
    return shown.strftime("%H:%M:%S" if shown.second else "%H:%M")
