"""What happens to a job when the clocks change: real transitions, then everything against the oracle."""

from __future__ import annotations

import os
import random
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedules.timing.cron import Cron, parse
from schedules.timing.cron.instants import GAPS, OVERLAPS
from schedules.timing.zones import Transition, Zone, zone_of
from tests.schedules.timing.cron_oracle import fires, utc

NEW_YORK = "America/New_York"  # 2025-03-09 02:00 EST to 03:00 EDT; 2025-11-02 02:00 EDT to 01:00 EST


def local(expression: str, zone: str, start: str, end: str, **policy: str) -> list[str]:
    """The fires in (start, end], which are local times of the zone, as `MM-DD HH:MM offset`."""
    info = ZoneInfo(zone)
    first, last = (datetime.fromisoformat(text).replace(tzinfo=info) for text in (start, end))
    found = parse(expression).between(first, last, zone, **policy)  # type: ignore[arg-type]
    return [f"{moment:%m-%d %H:%M}" + (f":{moment:%S}" if moment.second else "") + f"{moment:%z}" for moment in found]


GAP_DAY = ("2025-03-09T00:30", "2025-03-09T04:10")
OVERLAP_DAY = ("2025-11-02T00:45", "2025-11-02T03:10")

CASES = [
    # A fixed time in the gap fires at the gap's end, once
    ("30 2 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("0 2 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("0 3 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("30 3 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:30-0400"]),
    ("0 2,3 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("30 1,2,3 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 01:30-0500", "03-09 03:00-0400", "03-09 03:30-0400"]),
    ("0,15,30 2 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("10-50/10 2 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("30 2 9 3 *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("30 2 * * SUN", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("30 2 * * MON", NEW_YORK, *GAP_DAY, {}, []),
    ("15,45 30 2 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    ("* 30 2 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 03:00-0400"]),
    # ... or not at all
    ("30 2 * * *", NEW_YORK, *GAP_DAY, {"gap": "skip"}, []),
    ("0 2,3 * * *", NEW_YORK, *GAP_DAY, {"gap": "skip"}, ["03-09 03:00-0400"]),
    # An interval-like job follows real time
    ("30 * * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 01:30-0500", "03-09 03:30-0400"]),
    ("0 */2 * * *", NEW_YORK, *GAP_DAY, {}, ["03-09 04:00-0400"]),
    ("*/30 2 * * *", NEW_YORK, *GAP_DAY, {}, []),
    ("* 2 * * *", NEW_YORK, *GAP_DAY, {}, []),
    ("*/30 * * * *", NEW_YORK, "2025-03-09T01:10", "2025-03-09T03:40", {},
     ["03-09 01:30-0500", "03-09 03:00-0400", "03-09 03:30-0400"]),
    ("0 0-23 * * *", NEW_YORK, "2025-03-09T01:10", "2025-03-09T04:00", {}, ["03-09 03:00-0400", "03-09 04:00-0400"]),
    # A fixed time that comes twice fires at the first, the last, or both
    ("30 1 * * *", NEW_YORK, *OVERLAP_DAY, {}, ["11-02 01:30-0400"]),
    ("30 1 * * *", NEW_YORK, *OVERLAP_DAY, {"overlap": "last"}, ["11-02 01:30-0500"]),
    ("30 1 * * *", NEW_YORK, *OVERLAP_DAY, {"overlap": "both"}, ["11-02 01:30-0400", "11-02 01:30-0500"]),
    ("0 1,2 * * *", NEW_YORK, *OVERLAP_DAY, {}, ["11-02 01:00-0400", "11-02 02:00-0500"]),
    ("0 1,2 * * *", NEW_YORK, *OVERLAP_DAY, {"overlap": "last"}, ["11-02 01:00-0500", "11-02 02:00-0500"]),
    ("0 2 * * *", NEW_YORK, *OVERLAP_DAY, {}, ["11-02 02:00-0500"]),
    ("0,30 1 * * *", NEW_YORK, *OVERLAP_DAY, {}, ["11-02 01:00-0400", "11-02 01:30-0400"]),
    ("15,45 30 1 * * *", NEW_YORK, *OVERLAP_DAY, {}, ["11-02 01:30:15-0400", "11-02 01:30:45-0400"]),
    ("30 1 2 11 *", NEW_YORK, *OVERLAP_DAY, {"overlap": "both"}, ["11-02 01:30-0400", "11-02 01:30-0500"]),
    # An interval-like job runs through both passes, whatever the policy
    ("30 * * * *", NEW_YORK, *OVERLAP_DAY, {}, ["11-02 01:30-0400", "11-02 01:30-0500", "11-02 02:30-0500"]),
    ("30 * * * *", NEW_YORK, *OVERLAP_DAY, {"overlap": "last"},
     ["11-02 01:30-0400", "11-02 01:30-0500", "11-02 02:30-0500"]),
    ("*/30 1 * * *", NEW_YORK, *OVERLAP_DAY, {},
     ["11-02 01:00-0400", "11-02 01:30-0400", "11-02 01:00-0500", "11-02 01:30-0500"]),
    # Half an hour: Lord Howe, 2025-10-05 02:00 to 02:30 and 2025-04-06 02:00 to 01:30
    ("15 2 * * *", "Australia/Lord_Howe", "2025-10-05T01:00", "2025-10-05T03:00", {}, ["10-05 02:30+1100"]),
    ("30 2 * * *", "Australia/Lord_Howe", "2025-10-05T01:00", "2025-10-05T03:00", {}, ["10-05 02:30+1100"]),
    ("15,30 2 * * *", "Australia/Lord_Howe", "2025-10-05T01:00", "2025-10-05T03:00", {}, ["10-05 02:30+1100"]),
    ("0 * * * *", "Australia/Lord_Howe", "2025-10-05T01:10", "2025-10-05T04:00", {},
     ["10-05 03:00+1100", "10-05 04:00+1100"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2025-04-06T01:00", "2025-04-06T03:00", {}, ["04-06 01:45+1100"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2025-04-06T01:00", "2025-04-06T03:00", {"overlap": "last"},
     ["04-06 01:45+1030"]),
    ("*/15 * * * *", "Australia/Lord_Howe", "2025-04-06T01:20", "2025-04-06T02:00", {},
     ["04-06 01:30+1100", "04-06 01:45+1100", "04-06 01:30+1030", "04-06 01:45+1030", "04-06 02:00+1030"]),
    # Midnight does not exist: São Paulo 2018-11-04, Santiago 2025-09-07, Cairo 2025-04-25
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00", "2018-11-05T00:00", {},
     ["11-04 01:00-0200", "11-05 00:00-0200"]),
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00", "2018-11-05T00:00", {"gap": "skip"}, ["11-05 00:00-0200"]),
    ("0 0 * * *", "America/Sao_Paulo", "2018-02-17T12:00", "2018-02-18T12:00", {}, ["02-18 00:00-0300"]),
    ("30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00", "2018-02-18T12:00", {}, ["02-17 23:30-0200"]),
    ("0 0 * * SUN", "America/Santiago", "2025-09-06T12:00", "2025-09-07T12:00", {}, ["09-07 01:00-0300"]),
    ("@daily", "Africa/Cairo", "2025-04-24T12:00", "2025-04-26T00:00", {}, ["04-25 01:00+0300", "04-26 00:00+0300"]),
    # Apia had no 2011-12-30
    ("0 9 * * *", "Pacific/Apia", "2011-12-29T08:00", "2011-12-31T10:00", {},
     ["12-29 09:00-1000", "12-31 00:00+1400", "12-31 09:00+1400"]),
    ("0 9 * * *", "Pacific/Apia", "2011-12-29T08:00", "2011-12-31T10:00", {"gap": "skip"},
     ["12-29 09:00-1000", "12-31 09:00+1400"]),
    ("0 9 30 12 *", "Pacific/Apia", "2011-12-01T00:00", "2012-02-01T00:00", {}, ["12-31 00:00+1400"]),
    ("0 */12 * * *", "Pacific/Apia", "2011-12-29T08:00", "2011-12-31T10:00", {},
     ["12-29 12:00-1000", "12-31 00:00+1400"]),
    # Ramadan: Casablanca went back on 2025-02-23 03:00 and forward on 2025-04-06 02:00
    ("30 2 * * *", "Africa/Casablanca", "2025-02-22T12:00", "2025-02-23T12:00", {}, ["02-23 02:30+0100"]),
    ("30 2 * * *", "Africa/Casablanca", "2025-02-22T12:00", "2025-02-23T12:00", {"overlap": "last"},
     ["02-23 02:30+0000"]),
    ("30 2 * * *", "Africa/Casablanca", "2025-04-05T12:00", "2025-04-06T12:00", {}, ["04-06 03:00+0100"]),
    # A new standard time, no summer time: Caracas 2016-05-01 02:30 to 03:00, Pyongyang 2018-05-04 23:30 to 00:00
    ("45 2 * * *", "America/Caracas", "2016-04-30T12:00", "2016-05-01T12:00", {}, ["05-01 03:00-0400"]),
    ("45 23 * * *", "Asia/Pyongyang", "2018-05-04T12:00", "2018-05-05T12:00", {}, ["05-05 00:00+0900"]),
    # Dublin counts winter as the exception
    ("30 1 * * *", "Europe/Dublin", "2025-03-30T00:00", "2025-03-30T12:00", {}, ["03-30 02:00+0100"]),
    ("30 1 * * *", "Europe/Dublin", "2025-10-26T00:00", "2025-10-26T12:00", {}, ["10-26 01:30+0100"]),
    # Beyond the explicit transitions, by the rule in the footer
    ("30 2 * * *", NEW_YORK, "2190-03-14T00:00", "2190-03-14T12:00", {}, ["03-14 03:00-0400"]),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "zone", "start", "end", "policy", "expected"), CASES)
def test_a_job_at_a_real_clock_change(
    expression: str, zone: str, start: str, end: str, policy: dict[str, str], expected: list[str]
) -> None:
    assert local(expression, zone, start, end, **policy) == expected


def test_the_second_pass_is_found_from_within_the_first() -> None:
    schedule = parse("30 1 * * *")
    first, second = utc(2025, 11, 2, 5, 30), utc(2025, 11, 2, 6, 30)
    assert schedule.next_epoch(first - 1, NEW_YORK) == first
    assert schedule.next_epoch(first, NEW_YORK) == utc(2025, 11, 3, 6, 30)
    assert schedule.next_epoch(first - 1, NEW_YORK, overlap="last") == second
    assert schedule.next_epoch(first + 600, NEW_YORK, overlap="last") == second
    assert schedule.next_epoch(first, NEW_YORK, overlap="both") == second
    assert schedule.next_epoch(second, NEW_YORK) == utc(2025, 11, 3, 6, 30)
    assert schedule.previous_epoch(second, NEW_YORK) == first
    assert schedule.matches_epoch(first, NEW_YORK)
    assert not schedule.matches_epoch(second, NEW_YORK)
    assert schedule.matches_epoch(second, NEW_YORK, overlap="last")
    assert [moment.fold for moment in local_moments(schedule, first - 1, second)] == [0, 1]


def local_moments(schedule: Cron, after: int, until: int) -> list[datetime]:
    """The instants of both passes as datetimes in New York."""
    start, end = (datetime.fromtimestamp(instant, UTC) for instant in (after, until))
    return list(schedule.between(start, end, NEW_YORK, overlap="both"))


def test_the_last_second_pass_of_a_rare_job_is_not_lost() -> None:
    once = parse("0 */30 1 2 11 * 2025")
    passes = [utc(2025, 11, 2, 5), utc(2025, 11, 2, 5, 30), utc(2025, 11, 2, 6), utc(2025, 11, 2, 6, 30)]
    assert list(once.between_epoch(utc(2020, 1, 1), utc(2040, 1, 1), NEW_YORK)) == passes
    assert once.next_epoch(passes[1], NEW_YORK) == passes[2]
    assert once.next_epoch(passes[3], NEW_YORK) is None
    assert once.previous_epoch(utc(2040, 1, 1), NEW_YORK) == passes[3]
    assert once.previous_epoch(passes[0], NEW_YORK) is None


def test_the_ends_of_the_known_years_are_reached_across_a_clock_change() -> None:
    once = parse("0 30 * 25 10 * 1970")
    second_pass = utc(1970, 10, 25, 6, 30)  # 01:30 EST, after 01:30 EDT
    assert once.previous_epoch(second_pass, NEW_YORK) == second_pass - 3600
    first_only = parse("0 30 1 25 10 * 1970")
    assert first_only.previous_epoch(second_pass, NEW_YORK, overlap="both") == second_pass - 3600
    assert first_only.previous_epoch(second_pass - 3600, NEW_YORK, overlap="both") is None
    assert first_only.next_epoch(second_pass, NEW_YORK, overlap="last") is None
    lost = parse("0 30 2 9 3 * 2025")
    for overlap in OVERLAPS:
        assert lost.next_epoch(0, NEW_YORK, gap="skip", overlap=overlap) is None
        assert lost.next_epoch(0, NEW_YORK, overlap=overlap) == utc(2025, 3, 9, 7)
        assert lost.previous_epoch(utc(2100, 1, 1), NEW_YORK, gap="skip", overlap=overlap) is None


def test_a_match_at_the_gap_end_and_one_lost_in_the_gap_are_one_fire() -> None:
    schedule = parse("0 2,3 * * *")
    end = utc(2025, 3, 9, 7)
    assert schedule.next_epoch(end - 1, NEW_YORK) == end
    assert schedule.next_epoch(end, NEW_YORK) == utc(2025, 3, 10, 6)
    assert schedule.previous_epoch(utc(2025, 3, 10, 6), NEW_YORK) == end
    assert schedule.previous_epoch(end, NEW_YORK) == utc(2025, 3, 8, 8)


# Against the oracle

MINUTES = ["*", "*/15", "*/7", "0", "30", "59", "0,30", "10-20", "0-59/20"]
HOURS = ["*", "*/2", "0", "1", "2", "3", "23", "0,1", "1,2,3", "22-23", "0-6/3"]
DAYS = ["* * *", "L * *", "1-7 * SUN", "1-7 * +SUN", "*/2 * *", "* * SUN#L", "* 3,4,10,11 *"]


def agree(schedule: Cron, zone: Zone, after: int, until: int, *, gap: str, overlap: str) -> None:
    """The four ways of asking, and the oracle, name the same instants in (`after`, `until`]."""
    assert schedule.fields is not None
    policy = {"gap": gap, "overlap": overlap}
    expected = fires(schedule.fields, ZoneInfo(zone.name), after, until, **policy)
    told = (str(schedule), zone.name, datetime.fromtimestamp(after, UTC), gap, overlap)
    assert list(schedule.between_epoch(after, until, zone, **policy)) == expected, told  # type: ignore[arg-type]
    assert list(forwards(schedule, zone, after, until, policy)) == expected, told
    assert list(backwards(schedule, zone, after, until, policy))[::-1] == expected, told


def forwards(schedule: Cron, zone: Zone, after: int, until: int, policy: dict[str, str]) -> Iterator[int]:
    """The instants in (`after`, `until`] by asking for the next again and again."""
    found = schedule.next_epoch(after, zone, **policy)  # type: ignore[arg-type]
    while found is not None and found <= until:
        yield found
        found = schedule.next_epoch(found, zone, **policy)  # type: ignore[arg-type]


def backwards(schedule: Cron, zone: Zone, after: int, until: int, policy: dict[str, str]) -> Iterator[int]:
    """The instants in (`after`, `until`], last first, by asking for the previous again and again."""
    found = schedule.previous_epoch(until + 1, zone, **policy)  # type: ignore[arg-type]
    while found is not None and found > after:
        yield found
        found = schedule.previous_epoch(found, zone, **policy)  # type: ignore[arg-type]


def whole_minutes(change: Transition) -> bool:
    """The oracle looks at whole minutes; a few historical offsets have seconds."""
    return change.at % 60 == 0 and change.before % 60 == 0 and change.after % 60 == 0


NAMES = sorted(zoneinfo.available_timezones())


@settings(max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.integers(0, 10**6),
    st.sampled_from(MINUTES),
    st.sampled_from(HOURS),
    st.sampled_from(DAYS),
    st.sampled_from(GAPS),
    st.sampled_from(OVERLAPS),
    st.integers(-200, 30),
    st.integers(10, 300),
)
def test_minutes_around_a_random_transition_agree_with_the_oracle(
    name: str, pick: int, minute: str, hour: str, days: str, gap: str, overlap: str, before: int, length: int
) -> None:
    zone = zone_of(name)
    changes = zone.transitions(utc(1975, 1, 1), utc(2100, 1, 1))
    assume(changes)
    change = changes[pick % len(changes)]
    assume(whole_minutes(change))
    after = change.at + before * 60
    agree(parse(f"{minute} {hour} {days}"), zone, after, after + length * 60, gap=gap, overlap=overlap)


@settings(max_examples=150)
@given(
    st.sampled_from(MINUTES), st.sampled_from(HOURS), st.sampled_from(DAYS), st.sampled_from(NAMES),
    st.integers(utc(1975, 1, 1), utc(2150, 1, 1)), st.sampled_from(GAPS), st.sampled_from(OVERLAPS),
)  # fmt: skip
def test_next_and_previous_close(
    minute: str, hour: str, days: str, name: str, start: int, gap: str, overlap: str
) -> None:
    schedule, zone = parse(f"{minute} {hour} {days}"), zone_of(name)
    policy = {"gap": gap, "overlap": overlap}
    found = schedule.next_epoch(start, zone, **policy)  # type: ignore[arg-type]
    assume(found is not None)
    assert found is not None
    assert found > start
    assert schedule.matches_epoch(found, zone, **policy)  # type: ignore[arg-type]
    later = schedule.next_epoch(found, zone, **policy)  # type: ignore[arg-type]
    assert later is not None
    assert later > found
    assert schedule.previous_epoch(later, zone, **policy) == found  # type: ignore[arg-type]
    assert list(schedule.between_epoch(start, later, zone, **policy)) == [found, later]  # type: ignore[arg-type]
    if start + 1 < found:
        assert not schedule.matches_epoch(start + 1, zone, **policy)  # type: ignore[arg-type]


def sweep(names: list[str], *, per_zone: int | None, seed: int) -> int:
    """Hold the engine against the oracle around the transitions of 2000 to 2037; the number of comparisons."""
    draw = random.Random(seed)
    done = 0
    for name in names:
        zone = zone_of(name)
        changes = [change for change in zone.transitions(utc(2000, 1, 1), utc(2038, 1, 1)) if whole_minutes(change)]
        if per_zone is not None:
            changes = draw.sample(changes, min(per_zone, len(changes)))
        for change in changes:
            low, high = change.missing_or_repeated
            middle = datetime.fromtimestamp(draw.randrange(low, high), UTC)
            expressions = [
                f"{middle.minute} {middle.hour} * * *",
                f"{draw.choice(MINUTES)} {draw.choice(HOURS)} {draw.choice(DAYS)}",
                f"{draw.randrange(60)},{middle.minute} {draw.randrange(24)},{middle.hour} {middle:%d %m} *",
                f"*/{draw.randrange(2, 40)} * * * *",
            ]
            schedule = parse(draw.choice(expressions))
            after = change.at - draw.randrange(0, 90) * 60
            until = after + draw.randrange(60, 200) * 60
            agree(schedule, zone, after, until, gap=draw.choice(GAPS), overlap=draw.choice(OVERLAPS))
            done += 1
    return done


def test_a_sample_of_zones_agrees_with_the_oracle_around_their_transitions() -> None:
    notable = ["Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/Sao_Paulo", "Europe/Dublin"]
    assert sweep([*notable, *NAMES[::9]], per_zone=3, seed=1) > 80


@pytest.mark.slow
@pytest.mark.skipif("SWEEP_ALL_ZONES" not in os.environ, reason="set SWEEP_ALL_ZONES to sweep every zone")
def test_every_zone_agrees_with_the_oracle_around_every_transition() -> None:
    assert sweep(NAMES, per_zone=None, seed=2) > 10_000


def test_no_day_of_a_fixed_time_job_is_dropped_or_doubled() -> None:
    for name in NAMES[::20]:
        zone = zone_of(name)
        for expression in ["0 0 * * *", "30 1 * * *", "30 2 * * *"]:
            instants = list(parse(expression).between_epoch(utc(2000, 1, 1), utc(2038, 1, 1), zone))
            days = round(timedelta(seconds=utc(2038, 1, 1) - utc(2000, 1, 1)).days)
            assert abs(len(instants) - days) <= 1, (name, expression)
            assert instants == sorted(set(instants))
