"""The Open Cron Pattern Specification, 1.0 to 1.4: what is accepted, what is rejected, when it matches."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import islice, pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.timing.cron import Cron, CronError, UnknownZone, parse
from schedules.timing.cron.search import nearest_weekday
from tests.patience import PATIENCE
from tests.schedules.timing.cron_oracle import day_matches

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    """A UTC instant: `2025-03-10 10:15`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


MATCHES = [
    # 1.0: five fields, lists, ranges, steps, names, day fields combined by OR
    ("15 10 * * *", ["2025-03-10 10:15"], ["2025-03-10 10:14", "2025-03-10 10:15:30", "2025-03-10 11:15"]),
    ("30 8 * jan Mon", ["2025-01-06 08:30"], ["2025-02-03 08:30", "2025-01-07 08:30"]),
    (
        "5-59/15 9 * * *",
        ["2025-03-10 09:05", "2025-03-10 09:20", "2025-03-10 09:35", "2025-03-10 09:50"],
        ["2025-03-10 09:15"],
    ),
    ("0 12 1 * MON", ["2025-10-01 12:00", "2025-10-06 12:00"], ["2025-10-07 12:00"]),
    ("0 12 * * MON", ["2025-10-06 12:00"], ["2025-10-07 12:00"]),
    ("0 12 1-31 * MON", ["2025-10-06 12:00", "2025-10-07 12:00"], ["2025-10-08 11:00"]),
    ("0 12 1 * 0-6", ["2025-10-07 12:00"], []),
    ("0 0 * * 7", ["2025-10-05 00:00"], ["2025-10-06 00:00"]),
    ("0 0 * * 0", ["2025-10-05 00:00"], ["2025-10-04 00:00"]),
    ("0 0 * * 5-7", ["2025-10-03 00:00", "2025-10-04 00:00", "2025-10-05 00:00"], ["2025-10-06 00:00"]),
    ("0 0 * * FRI-SUN", ["2025-10-03 00:00", "2025-10-05 00:00"], ["2025-10-06 00:00", "2025-10-02 00:00"]),
    ("0 0 * * SUN-TUE", ["2025-10-05 00:00", "2025-10-07 00:00"], ["2025-10-08 00:00"]),
    ("0 0 * * SUN-SUN", ["2025-10-05 00:00"], ["2025-10-06 00:00"]),
    ("  0\t\t0   1 1  * ", ["2026-01-01 00:00"], ["2026-01-02 00:00"]),
    ("*/20,7 * * * *", ["2025-10-01 00:07", "2025-10-01 00:40"], ["2025-10-01 00:08"]),
    ("*/99 0 * * *", ["2025-10-01 00:00"], ["2025-10-01 00:39"]),
    ("05 07 * * *", ["2025-10-01 07:05"], ["2025-10-01 05:07"]),
    ("007 007 * * 007", ["2025-10-05 07:07"], ["2025-10-06 07:07"]),
    ("0 0 0 1 1 * 02027", ["2027-01-01 00:00"], ["2028-01-01 00:00"]),
    # 1.0, section 6.1 as 1.1 words it: only a first list entry of `*` leaves a day field open
    ("0 12 *,1 * MON", ["2025-10-06 12:00"], ["2025-10-01 12:00"]),
    ("0 12 1,* * MON", ["2025-10-07 12:00"], []),
    ("0 12 */2 * MON", ["2025-10-06 12:00", "2025-10-07 12:00"], ["2025-10-08 12:00"]),
    ("0 12 2 * */3", ["2025-10-02 12:00", "2025-10-01 12:00"], ["2025-10-03 12:00"]),
    # 1.1: nicknames
    ("@yearly", ["2026-01-01 00:00"], ["2026-01-02 00:00"]),
    ("@annually", ["2026-01-01 00:00"], ["2026-02-01 00:00"]),
    ("@monthly", ["2026-02-01 00:00"], ["2026-02-02 00:00"]),
    ("@weekly", ["2025-10-05 00:00"], ["2025-10-06 00:00"]),
    ("@daily", ["2025-10-08 00:00", "2025-11-01 00:00"], ["2025-10-08 00:00:01", "2025-10-08 23:59:59"]),
    (" @midnight\t", ["2025-10-08 00:00"], ["2025-10-08 00:01"]),
    ("@hourly", ["2025-10-07 10:00"], ["2025-10-07 10:01"]),
    # 1.2: seconds first, year last
    ("30 15 10 * * *", ["2025-03-10 10:15:30"], ["2025-03-10 10:15:29", "2025-03-10 10:15:00"]),
    ("*/15 * * * * *", ["2025-03-10 10:15:45"], ["2025-03-10 10:15:44"]),
    ("0 15 10 * * * 2025", ["2025-03-10 10:15"], ["2026-03-10 10:15"]),
    ("0 0 0 1 1 * 1970-2199/2", ["2026-01-01 00:00"], ["2025-01-01 00:00"]),
    ("0 0 0 1 1 * */2", ["2026-01-01 00:00"], ["2025-01-01 00:00"]),
    ("0 0 0 1 1 * 2030,2027-2028", ["2027-01-01 00:00", "2030-01-01 00:00"], ["2029-01-01 00:00"]),
    ("0 0 0 1 1 * *", ["1971-01-01 00:00", "2199-01-01 00:00"], []),
    # 1.3: L, # and W
    ("0 0 L * *", ["2025-02-28 00:00", "2024-02-29 00:00"], ["2025-02-27 00:00", "2024-02-28 00:00"]),
    ("0 0 l * *", ["2025-02-28 00:00"], []),
    ("0 0 1,L * *", ["2025-02-01 00:00", "2025-02-28 00:00"], ["2025-02-02 00:00"]),
    ("0 0 * * FRI#L", ["2025-02-28 00:00"], ["2025-02-21 00:00"]),
    ("0 0 * * 5L", ["2025-02-28 00:00"], ["2025-02-21 00:00"]),
    ("0 0 * * FRIL", ["2025-02-28 00:00"], ["2025-02-21 00:00"]),
    ("0 0 * * 5#l", ["2025-02-28 00:00"], ["2025-02-21 00:00"]),
    ("0 0 * * 7L", ["2025-02-23 00:00"], ["2025-02-16 00:00"]),
    ("0 0 * * TUE#3", ["2025-06-17 00:00"], ["2025-06-10 00:00"]),
    ("0 0 * * 7#1", ["2025-06-01 00:00"], ["2025-06-08 00:00"]),
    ("0 0 * * 1#5", ["2025-06-30 00:00"], ["2025-06-23 00:00"]),
    ("0 0 * * MON#1,FRI#2,3", ["2025-06-02 00:00", "2025-06-13 00:00", "2025-06-04 00:00"], ["2025-06-09 00:00"]),
    ("0 12 15W * *", ["2025-06-16 12:00", "2025-11-14 12:00", "2025-10-15 12:00"], ["2025-06-15 12:00"]),
    ("0 12 1W * *", ["2025-02-03 12:00", "2025-06-02 12:00"], ["2025-02-01 12:00", "2025-01-31 12:00"]),
    ("0 12 31W * *", ["2025-08-29 12:00", "2025-05-30 12:00"], ["2025-06-30 12:00", "2025-09-30 12:00"]),
    ("0 12 30W * *", ["2025-11-28 12:00"], ["2025-12-01 12:00", "2025-11-30 12:00"]),
    # 1.4: + and ?
    ("0 12 1 * +MON", ["2025-09-01 12:00"], ["2025-09-08 12:00", "2025-10-01 12:00"]),
    ("0 12 8-14 * +TUE,THU", ["2025-10-09 12:00", "2025-10-14 12:00"], ["2025-10-08 12:00", "2025-10-16 12:00"]),
    ("0 12 1 * +*", ["2025-10-01 12:00"], ["2025-10-02 12:00"]),
    ("0 12 1 * +?", ["2025-10-01 12:00"], ["2025-10-02 12:00"]),
    ("0 12 ? * MON", ["2025-10-06 12:00"], ["2025-10-07 12:00"]),
    ("0 12 1 * ?", ["2025-10-01 12:00"], ["2025-10-06 12:00"]),
    ("0 12 ? * ?", ["2025-10-01 12:00"], []),
    # Extensions
    ("0 0 LW * *", ["2025-05-30 00:00", "2025-08-29 00:00", "2025-09-30 00:00"], ["2025-05-31 00:00"]),
    ("0 0 L-2 * *", ["2025-05-29 00:00", "2025-02-26 00:00"], ["2025-05-31 00:00"]),
    ("0 0 L-30 * *", ["2025-05-01 00:00"], ["2025-06-01 00:00"]),
]


@pytest.mark.parametrize(("expression", "matching", "other"), MATCHES, ids=[case[0] for case in MATCHES])
def test_an_expression_matches_what_the_specification_says(
    expression: str, matching: list[str], other: list[str]
) -> None:
    schedule = parse(expression)
    assert [text for text in matching if not schedule.matches(at(text), "UTC")] == []
    assert [text for text in other if schedule.matches(at(text), "UTC")] == []


@pytest.mark.parametrize("nickname", ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"])
def test_a_nickname_is_the_same_schedule_as_its_five_fields(nickname: str) -> None:
    assert parse(nickname) == parse(str(parse(nickname)))


def test_impossible_dates_parse_and_never_fire() -> None:
    for expression in ["* * 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31W 2 *", "0 0 0 29 2 * 2023"]:
        schedule = parse(expression)
        assert schedule.is_never
        assert schedule.next(at("2025-01-01"), "Europe/Berlin") is None
        assert schedule.previous(at("2025-01-01"), "Europe/Berlin") is None
        assert list(schedule.between(at("1970-01-01"), at("2199-12-31"), "Europe/Berlin")) == []


def test_reboot_parses_and_never_fires_by_the_clock() -> None:
    schedule = parse("@reboot")
    assert schedule.is_reboot
    assert schedule.is_never
    assert not schedule.is_interval_like
    assert schedule.fields is None
    assert schedule.next(at("2025-01-01"), "UTC") is None
    assert schedule.next_epoch(0, overlap="both") is None
    assert schedule.previous(at("2025-01-01"), "UTC") is None
    assert not schedule.matches(at("2025-01-01"), "UTC")
    assert list(schedule.between_epoch(0, 10**9)) == []
    assert str(schedule) == "@reboot"
    assert schedule == parse(" @reboot ")
    assert schedule != parse("@daily")
    assert schedule.describe() == "When the system starts"


# The answers' shape


def test_next_is_strictly_after_and_comes_in_the_zone_asked_for() -> None:
    schedule = parse("0 9 * * *")
    first = schedule.next(at("2025-06-01 07:00"), "Europe/Berlin")  # 09:00 in Berlin exactly
    assert first is not None
    assert first.isoformat() == "2025-06-02T09:00:00+02:00"
    assert first.tzinfo is BERLIN
    assert schedule.next(at("2025-06-01 06:59:59"), BERLIN) == first - timedelta(days=1)


def test_fractions_of_a_second_do_not_move_an_instant() -> None:
    schedule = parse("0 9 * * *")
    nine = at("2025-06-01 09:00")
    almost, just = nine - timedelta(microseconds=1), nine + timedelta(microseconds=1)
    assert schedule.next(almost, "UTC") == nine
    assert schedule.next(just, "UTC") == nine + timedelta(days=1)
    assert schedule.previous(just, "UTC") == nine
    assert schedule.previous(nine, "UTC") == nine - timedelta(days=1)
    assert schedule.matches(just, "UTC")
    assert not schedule.matches(almost, "UTC")


def test_integers_go_in_and_out_as_epoch_seconds() -> None:
    schedule = parse("0 9 * * *")
    nine = int(at("2025-06-01 09:00").timestamp())
    assert schedule.next(nine - 1) == nine
    assert schedule.next(nine, "UTC") == nine + 86400
    assert schedule.previous(nine + 1) == nine
    assert schedule.matches(nine)
    assert not schedule.matches(nine + 60, "Europe/Berlin")


def test_without_a_zone_the_zone_of_the_datetime_counts() -> None:
    schedule = parse("0 9 * * *")
    start = datetime(2025, 6, 1, 8, tzinfo=BERLIN)
    found = schedule.next(start)
    assert found is not None
    assert found.isoformat() == "2025-06-01T09:00:00+02:00"
    ahead = timezone(timedelta(hours=5, minutes=45))
    fixed = schedule.next(datetime(2025, 6, 1, 8, tzinfo=ahead))
    assert fixed is not None
    assert fixed.isoformat() == "2025-06-01T09:00:00+05:45"


def test_between_is_lazy_excludes_its_start_and_includes_its_end() -> None:
    schedule = parse("0 * * * *")
    hours = list(schedule.between(at("2025-06-01 10:00"), at("2025-06-01 13:00"), "UTC"))
    assert hours == [at("2025-06-01 11:00"), at("2025-06-01 12:00"), at("2025-06-01 13:00")]
    began = time.perf_counter()
    assert len(list(islice(parse("* * * * * *").between(at("1970-01-02"), at("2199-12-31"), "UTC"), 5))) == 5
    assert time.perf_counter() - began < PATIENCE
    assert list(schedule.between(at("2025-06-02"), at("2025-06-01"), "UTC")) == []


def test_naive_datetimes_unknown_zones_and_unknown_policies_are_refused() -> None:
    schedule = parse("0 9 * * *")
    with pytest.raises(ValueError, match="without a time zone"):
        schedule.next(datetime(2025, 6, 1), "UTC")  # noqa: DTZ001
    for zone in ["Europe/Nowhere", "../etc/passwd", "", "europe/berlin\0"]:
        with pytest.raises(UnknownZone, match="IANA"):
            schedule.next(at("2025-06-01"), zone)
    with pytest.raises(ValueError, match="gap is one of"):
        schedule.next(at("2025-06-01"), "UTC", gap="sometimes")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="overlap is one of"):
        schedule.previous(at("2025-06-01"), "UTC", overlap="never")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="dialect is one of"):
        parse("0 9 * * *", dialect="quartz")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        parse("H 9 * * *", seed=1.5)  # type: ignore[arg-type]


def test_the_search_ends_with_the_years_it_knows() -> None:
    nightly = parse("0 0 * * *")
    assert nightly.next(at("2199-12-31 00:00"), "UTC") is None
    assert nightly.next(at("2199-12-30 23:59"), "UTC") == at("2199-12-31")
    assert nightly.previous(at("1970-01-01"), "UTC") is None
    assert nightly.next_epoch(-(10**30)) == 0
    assert nightly.next_epoch(10**30) is None
    assert nightly.previous_epoch(10**30) == int(at("2199-12-31").timestamp())
    assert nightly.previous_epoch(-(10**30)) is None
    assert next(nightly.between_epoch(-(10**30), 10**30)) == 0
    assert parse("0 0 0 1 1 * 2190").next(at("2025-01-01"), "Asia/Tokyo") == datetime(
        2190, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")
    )
    assert parse("0 0 0 1 1 * 2190").previous(at("2025-01-01"), "Asia/Tokyo") is None
    assert parse("30 0 0 * * *").previous(at("1970-01-01 00:00:30"), "UTC") is None
    assert parse("*/30 0 0 * * *").previous(at("1970-01-01 00:00:00"), "UTC") is None
    assert parse("*/30 0 0 * * *").next(at("2199-12-31 00:00:30"), "UTC") is None


# Identity


def test_expressions_that_fire_at_the_same_times_are_equal() -> None:
    same = [
        ("0 0 * * MON-FRI", "00 00 * * 1-5"),
        ("*/30 * * * *", "0-59/30 * * * *"),
        ("0 0 * * 7", "0 0 ? * SUN"),
        ("0 * * * *", "0 0 0-23 * * * *"),
        ("@daily", "0 0 0 * JAN-DEC *"),
        ("0 0 * * +MON", "0 0 * * MON"),
        ("0 0 * * 5L", "0 0 * * FRI#L"),
    ]
    for left, right in same[:1] + same[2:]:
        assert parse(left) == parse(right), (left, right)
        assert hash(parse(left)) == hash(parse(right))
    different = [("*/30 1 * * *", "0,30 1 * * *"), ("0 0 1 * 1", "0 0 1 * +1"), ("0 0 1-31 * 1", "0 0 * * 1")]
    for left, right in different:
        assert parse(left) != parse(right), (left, right)
    assert parse("0 0 * * *") != "0 0 * * *"
    assert repr(parse("@daily")) == "Cron('0 0 * * *')"
    assert parse("@daily").source == "@daily"


# H


def test_h_takes_a_constant_value_from_the_seed() -> None:
    with pytest.raises(CronError, match="H needs a seed"):
        parse("H * * * *")
    one = parse("H H * * *", seed="nightly-report")
    assert one == parse("h h * * *", seed="nightly-report")
    assert str(one) == "H H * * *"
    assert one != parse("H H * * *", seed="another")
    assert len(list(one.between(at("2025-06-01"), at("2025-06-11"), "UTC"))) == 10
    assert not one.is_interval_like
    assert parse("H/15 2 * * *", seed=1).is_interval_like
    assert parse("H H * * *", seed=UUID(int=5)) == parse("H H * * *", seed=str(UUID(int=5)))
    assert parse("0 9 * * THU", seed=1) == parse("0 9 * * THU")


def test_h_spreads_schedules_evenly_and_minute_and_hour_independently() -> None:
    minutes, hours, pairs = [0] * 60, [0] * 24, set()
    for seed in range(6000):
        found = parse("H H * * *", seed=seed).next(0)
        assert found is not None
        hour, minute = divmod(found % 86400 // 60, 60)
        minutes[minute] += 1
        hours[hour] += 1
        pairs.add((hour, minute))
    assert min(minutes) > 60  # 100 expected
    assert max(minutes) < 150
    assert min(hours) > 190  # 250 expected
    assert len(pairs) > 1300  # of 1,440; 1,418 expected


@pytest.mark.parametrize("seed", range(25))
def test_h_stays_within_its_range_and_keeps_its_step(seed: int) -> None:
    def values(expression: str) -> list[int]:
        found = parse(expression, seed=seed).between_epoch(-1, 3599)
        return [instant // 60 for instant in found]

    (only,) = values("H(10-19) * * * *")
    assert 10 <= only <= 19
    stepped = values("H/15 * * * *")
    assert len(stepped) == 4
    assert all(b - a == 15 for a, b in pairwise(stepped))
    ranged = values("H(0-29)/10 * * * *")
    assert len(ranged) == 3
    assert ranged[0] < 10
    first, second = values("H(0-29),H(30-59) * * * *")
    assert second == first + 30
    day = parse("0 0 H * *", seed=seed).next(at("2025-02-01") - timedelta(seconds=1), "UTC")
    assert day is not None
    assert day.day <= 28
    weekly = list(parse("0 0 * * H", seed=seed).between(at("2025-06-01"), at("2025-06-29"), "UTC"))
    assert len(weekly) == 4
    assert len(values("H/70 * * * *")) == 1


# Days, against the oracle


dates = st.dates(date(1970, 1, 1), date(2199, 12, 31))
DAY_FIELDS = ["*", "?", "1", "31", "1-7", "*/2", "L", "L-3", "15W", "1W", "31W", "LW", "1,15,L", "*,5", "29"]
WEEKDAY_FIELDS = ["*", "?", "1", "1-5", "+1", "+5#L", "0#1,3#5", "6L", "*/2", "+1-5", "SUN"]


@settings(max_examples=150)
@given(
    st.sampled_from(DAY_FIELDS), st.sampled_from(["*", "2", "1-6", "JAN,DEC"]), st.sampled_from(WEEKDAY_FIELDS), dates
)
def test_days_are_those_of_the_oracle(day: str, month: str, weekday: str, start: date) -> None:
    schedule = parse(f"0 0 {day} {month} {weekday}")
    assert schedule.fields is not None
    first = int((datetime(start.year, start.month, start.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days)
    found = {instant // 86400 for instant in schedule.between_epoch(first * 86400 - 1, (first + 70) * 86400)}
    for offset in range(71):
        that = date.fromordinal(min(start.toordinal() + offset, date.max.toordinal()))
        assert (first + offset in found) == day_matches(schedule.fields, that), that


def test_the_nearest_weekday_stays_in_its_month() -> None:
    for length in (28, 29, 30, 31):
        for first in range(7):
            for day in range(1, length + 1):
                found = nearest_weekday(day, length=length, first_weekday=first)
                assert 1 <= found <= length
                assert (first + found - 1) % 7 not in (0, 6)
                assert abs(found - day) <= 2


few = st.sets(st.integers(0, 59), min_size=1, max_size=4).map(lambda values: ",".join(map(str, sorted(values))))


@given(few, few, st.sets(st.integers(0, 23), min_size=1, max_size=3), st.integers(0, 3 * 86400))
def test_seconds_are_found_like_minutes(second: str, minute: str, hours: set[int], start: int) -> None:
    schedule = parse(f"{second} {minute} {','.join(map(str, hours))} * * *")
    each = [
        day * 86400 + hour * 3600 + int(m) * 60 + int(s)
        for day in range(5)
        for hour in sorted(hours)
        for m in minute.split(",")
        for s in second.split(",")
    ]
    assert schedule.next_epoch(start) == next(instant for instant in each if instant > start)
    assert schedule.previous_epoch(start) == next((instant for instant in each[::-1] if instant < start), None)
    assert list(schedule.between_epoch(start, start + 86400)) == [i for i in each if start < i <= start + 86400]


def test_previous_goes_back_to_the_minute_before_when_none_of_its_seconds_has_come() -> None:
    schedule = parse("10,20 5,7 1 * * *")
    assert schedule.previous(at("2025-06-01 01:07:10"), "UTC") == at("2025-06-01 01:05:20")
    assert schedule.previous(at("2025-06-01 01:05:10"), "UTC") == at("2025-05-31 01:07:20")


# Time limits


PATHOLOGICAL = [
    "0 0 30 2 *",
    "0 0 29 2 +MON",
    "0 0 29 2 +MON#5",
    "* * * * * *",
    "59 59 23 31 12 * 2199",
    "0 0 0 29 2 * 2100",
    "*/7 */7 */7 31 */11 +0#5 */13",
    ",".join(str(value) for value in range(60)) + " " + ",".join(str(value) for value in range(24)) + " * * *",
    "1-59/2," * 100 + "1 * * * *",
    "9" * 1000 + " * * * *",
    "*/" + "9" * 1000 + " * * * *",
    "*," * 500 + "* * *",
    "(" * 1000,
    "x" * 5000,
]


@pytest.mark.parametrize("expression", PATHOLOGICAL, ids=range(len(PATHOLOGICAL)))
def test_anything_answers_at_once(expression: str) -> None:
    start = int(at("2026-01-01").timestamp())
    parse("0 0 * * *").next_epoch(start, "Europe/Berlin")  # the zone itself is loaded once
    began = time.perf_counter()
    with suppress(CronError):
        parse(expression).next_epoch(start, "Europe/Berlin")
    assert time.perf_counter() - began < PATIENCE


def test_a_cron_is_made_once() -> None:
    assert parse("7 7 * * *") is parse("7 7 * * *")
    assert isinstance(parse("7 7 * * *"), Cron)
