"""Recurrence sets (RFC 5545), against tables, dateutil and zoneinfo."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedules.timing.rrule_text import RuleError, canonical, parse_rules
from schedules.timing.rrules import LocalRule, RecurrenceSet
from schedules.timing.spec_reading import LAST_INSTANT
from schedules.timing.timetables import DAY
from schedules.timing.zones import zone_of
from tests.patience import PATIENCE
from tests.schedules.timing.instants import EPOCH, UTC_ZONE, ZONES, at, check_coherent, first, shown


def recurrence(text: str, zone: str = "UTC", **policy: str) -> RecurrenceSet:
    chosen = {"gap": "fire_at_end", "overlap": "first", **policy}
    return RecurrenceSet(parse_rules(text, zone_of(zone)), **chosen)  # type: ignore[arg-type]


class TestRecurrenceRules:
    @pytest.mark.parametrize(
        ("rule", "expected"),
        [  # from the examples of RFC 5545, section 3.8.5.3
            ("FREQ=DAILY;COUNT=3", ["1997-09-02", "1997-09-03", "1997-09-04"]),
            ("FREQ=YEARLY;INTERVAL=2;COUNT=2;BYMONTH=1;BYDAY=SU;BYHOUR=8,9", ["1999-01-03", "1999-01-03"]),
            (
                "FREQ=WEEKLY;INTERVAL=2;WKST=SU;BYDAY=TU,TH;COUNT=4",
                ["1997-09-02", "1997-09-04", "1997-09-16", "1997-09-18"],
            ),
            ("FREQ=MONTHLY;COUNT=3;BYDAY=1FR", ["1997-09-05", "1997-10-03", "1997-11-07"]),
            ("FREQ=MONTHLY;COUNT=3;BYMONTHDAY=-3", ["1997-09-28", "1997-10-29", "1997-11-28"]),
            ("FREQ=YEARLY;BYDAY=20MO;COUNT=2", ["1998-05-18", "1999-05-17"]),
            ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO;COUNT=2", ["1998-05-11", "1999-05-17"]),
            ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13;COUNT=2", ["1998-02-13", "1998-03-13"]),
            ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2;COUNT=2", ["1997-09-29", "1997-10-30"]),
            ("FREQ=MONTHLY;BYDAY=TU,WE,TH;BYSETPOS=3;COUNT=2", ["1997-09-04", "1997-10-07"]),
            (
                "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO",
                ["1997-09-02", "1997-09-07", "1997-09-16", "1997-09-21"],
            ),
            (
                "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU",
                ["1997-09-02", "1997-09-14", "1997-09-16", "1997-09-28"],
            ),
            ("FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=4", ["1997-09-15", "1997-09-30", "1997-10-15", "1997-10-30"]),
            ("FREQ=YEARLY;INTERVAL=3;COUNT=3;BYYEARDAY=1,100,200", ["2000-01-01", "2000-04-09", "2000-07-18"]),
        ],
    )
    def test_the_examples_of_the_rfc_hold(self, rule: str, expected: list[str]) -> None:
        found = first(recurrence(f"DTSTART:19970902T090000\nRRULE:{rule}"), 0, 50)
        assert [text[:10] for text in shown(found)] == expected

    def test_plain_and_numbered_weekdays_are_a_union(self) -> None:
        found = first(recurrence("DTSTART:20260101T000000\nFREQ=MONTHLY;BYDAY=1MO,FR"), at("2026-01-01"), 3)
        assert [text[:10] for text in shown(found)] == ["2026-01-02", "2026-01-05", "2026-01-09"]

    def test_sets_unite_rules_and_dates_and_drop_exceptions(self) -> None:
        text = (
            "DTSTART;TZID=Europe/Berlin:20260105T090000\n"
            "RRULE:FREQ=WEEKLY;BYDAY=MO;UNTIL=20260126T080000Z\n"
            "RDATE:20260107T100000,20260113T070000Z\n"
            "EXDATE;TZID=Europe/London:20260112T080000\n"
        )
        found = shown(first(recurrence(text), at("2026-01-01"), 9), "Europe/Berlin")
        assert [text[5:16] for text in found] == [
            "01-05T09:00",
            "01-07T10:00",
            "01-13T08:00",
            "01-19T09:00",
            "01-26T09:00",
        ]
        assert recurrence(text).describe() == (
            "Every week on Monday at 09:00, until 2026-01-26 09:00:00; and On 2 dates, except at 1 times"
        )

    def test_a_lost_local_time_is_read_as_before_the_gap(self) -> None:
        text = "DTSTART;TZID=America/New_York:20260307T023000\nRRULE:FREQ=DAILY;COUNT=3"
        found = shown(first(recurrence(text), 0, 9), "America/New_York")
        assert [text[5:16] for text in found] == ["03-07T02:30", "03-08T03:30", "03-09T02:30"]
        assert len(first(recurrence(text, gap="skip"), 0, 9)) == 2

    def test_rules_of_hours_follow_real_time(self) -> None:
        hourly = recurrence("DTSTART:20260101T000000\nRRULE:FREQ=HOURLY", "Europe/Berlin")
        for change in (at("2026-03-29T00:30"), at("2026-10-25T00:30")):
            found = first(hourly, change - 2 * 3600, 6)
            assert [later - earlier for earlier, later in pairwise(found)] == [3600] * 5

    def test_a_start_in_utc_moves_the_set_to_utc(self) -> None:
        found = first(recurrence("DTSTART:20260105T090000Z\nRRULE:FREQ=DAILY;COUNT=1", "Asia/Tokyo"), 0, 2)
        assert shown(found) == ["2026-01-05T09:00:00+00:00"]

    def test_without_a_start_the_phase_is_midnight_of_1970(self) -> None:
        found = first(recurrence("FREQ=DAILY;BYHOUR=9", "Europe/Berlin"), at("2026-01-05"), 1)
        assert shown(found, "Europe/Berlin") == ["2026-01-05T09:00:00+01:00"]

    def test_all_day_starts_are_midnight(self) -> None:
        text = "DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=DAILY\nEXDATE;VALUE=DATE:20260106"
        assert [t[:10] for t in shown(first(recurrence(text), 0, 2))] == ["2026-01-05", "2026-01-07"]

    def test_a_month_without_a_fifth_monday_is_passed_over(self) -> None:
        found = first(recurrence("FREQ=MONTHLY;BYDAY=5MO"), at("2026-01-01"), 2)
        assert [text[:10] for text in shown(found)] == ["2026-03-30", "2026-06-29"]

    def test_a_lost_time_that_meets_another_is_one(self) -> None:
        text = "FREQ=DAILY;BYHOUR=2,3;BYMINUTE=30"
        found = first(recurrence(text, "Europe/Berlin"), at("2026-03-29T00:00"), 2)
        assert [text[5:16] for text in shown(found, "Europe/Berlin")] == ["03-29T03:30", "03-30T02:30"]

    def test_a_rule_ends_with_2199(self) -> None:
        rule = LocalRule(parse_rules("FREQ=DAILY", UTC_ZONE).rules[0])
        assert rule.next(LAST_INSTANT) is None
        assert rule.next(LAST_INSTANT + DAY) is None

    def test_folded_lines_are_unfolded(self) -> None:
        assert canonical("DTSTART:2026\r\n 0105T090000\n\nRRULE:X \n") == "DTSTART:20260105T090000\nRRULE:X"
        assert canonical("a\\nb\n") == "a\nb"

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("", "at least one RRULE"),
            ("DTSTART:20260105T090000", "at least one RRULE"),
            ("x" * 10_001, "at most 10000 characters"),
            ("FREQ=FORTNIGHTLY", "needs a FREQ"),
            ("INTERVAL=2", "needs a FREQ"),
            ("FREQ=DAILY;FREQ=DAILY", "stands twice"),
            ("FREQ=DAILY;BYDAYS=MO", "'BYDAYS' is not known (did you mean 'BYDAY'?)"),
            ("FREQ=DAILY;BYDAY=", "needs a value"),
            ("FREQ=DAILY;BYDAY", "needs a value"),
            ("FREQ=DAILY;BYDAY=XX", "BYDAY 'XX'"),
            ("FREQ=MONTHLY;BYDAY=0MO", "BYDAY '0MO'"),
            ("FREQ=YEARLY;BYDAY=54MO", "BYDAY '54MO'"),
            ("FREQ=WEEKLY;BYDAY=2MO", "goes with FREQ=MONTHLY or YEARLY"),
            ("FREQ=YEARLY;BYWEEKNO=3;BYDAY=2MO", "goes with FREQ=MONTHLY or YEARLY"),
            ("FREQ=MONTHLY;BYWEEKNO=3", "BYWEEKNO goes with FREQ=YEARLY only"),
            ("FREQ=DAILY;BYYEARDAY=3", "BYYEARDAY does not go"),
            ("FREQ=WEEKLY;BYMONTHDAY=3", "BYMONTHDAY does not go"),
            ("FREQ=DAILY;BYSETPOS=1", "BYSETPOS needs another"),
            ("FREQ=DAILY;BYHOUR=24", "BYHOUR '24' is not a number from 0 to 23"),
            ("FREQ=DAILY;BYSECOND=60", "BYSECOND '60'"),
            ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY '0' is not a number from 1 to 31 or -31 to -1"),
            ("FREQ=DAILY;BYMONTH=-1", "BYMONTH '-1'"),
            ("FREQ=DAILY;BYHOUR=x", "BYHOUR 'X'"),
            ("FREQ=DAILY;INTERVAL=0", "INTERVAL is a whole number"),
            ("FREQ=DAILY;INTERVAL=10000000", "INTERVAL is a whole number"),
            ("FREQ=DAILY;WKST=XX", "WKST is one of"),
            ("FREQ=DAILY;COUNT=5", "COUNT counts from DTSTART"),
            ("DTSTART:20260105T090000\nFREQ=DAILY;COUNT=999999999", "COUNT is a whole number from 1 to 100000"),
            ("DTSTART:20260105T090000\nFREQ=DAILY;COUNT=5;UNTIL=20270101", "exclude each other"),
            ("DTSTART:00010101T000000\nFREQ=DAILY", "1970 to 2199"),
            ("DTSTART:20260230T000000\nFREQ=DAILY", "is not a date"),
            ("DTSTART:tomorrow\nFREQ=DAILY", "is not a date"),
            ("DTSTART:20260101\nDTSTART:20260101\nFREQ=DAILY", "only once"),
            ("DTSTART;TZID=Mars/Olympus:20260105T090000\nFREQ=DAILY", "not a time zone"),
            ("DTSTART;TZID=Europe/Berlin:20260105T090000Z\nFREQ=DAILY", "both a TZID and a time in UTC"),
            ("DTSTART;X=1:20260105T090000\nFREQ=DAILY", "does not take X"),
            ("DTSTART;VALUE=PERIOD:20260105T090000\nFREQ=DAILY", "VALUE=DATE"),
            ("EXRULE:FREQ=DAILY", "deprecated"),
            ("SUMMARY:hi", "'SUMMARY' is not known"),
            ("DTSTART:20260105T090000\nFREQ=DAILY\nEXDATE:20260106", "needs a time"),
            ("RDATE:" + ",".join(["20260106T000000"] * 1001), "characters"),
            ("DTSTART:20260105\nRDATE:" + ",".join(["20260106"] * 1001), "at most 1000 dates"),
            ("FREQ=DAILY\n" * 17, "at most 16 RRULE"),
        ],
    )
    def test_what_cannot_be_accepted_is_refused_with_the_rule(self, text: str, rule: str) -> None:
        with pytest.raises(RuleError, match="(?s)" + re.escape(rule)):
            parse_rules(text, UTC_ZONE)

    @pytest.mark.parametrize(
        "rule",
        [
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=31",
            "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=SECONDLY;INTERVAL=2;BYSECOND=1",
            "FREQ=MINUTELY;INTERVAL=1440;BYHOUR=5",
            "FREQ=HOURLY;INTERVAL=24;BYHOUR=5",
            "FREQ=HOURLY;BYSETPOS=2;BYMINUTE=0",
            "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=6",
            "FREQ=YEARLY;INTERVAL=1000000;BYMONTH=2;BYMONTHDAY=29",
            "FREQ=DAILY;INTERVAL=7;BYDAY=TU",
            "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6",
        ],
    )
    def test_rules_that_never_match_say_so_quickly(self, rule: str) -> None:
        timetable = recurrence(f"DTSTART:20260105T000000\nRRULE:{rule}")
        start = time.perf_counter()
        assert timetable.next_after(at("2026-01-06")) is None
        assert time.perf_counter() - start < PATIENCE

    @pytest.mark.parametrize(
        "rule",
        [
            "FREQ=SECONDLY;INTERVAL=999983;BYMONTH=2;BYMONTHDAY=29;BYHOUR=3;BYMINUTE=3",
            "FREQ=MINUTELY;INTERVAL=77777;BYDAY=FR;BYMONTHDAY=13",
            "FREQ=SECONDLY;INTERVAL=86399;BYSECOND=59;BYMINUTE=59;BYHOUR=23",
            "FREQ=SECONDLY;INTERVAL=7;BYSECOND=" + ",".join(map(str, range(60))),
            "FREQ=YEARLY;BYHOUR=" + ",".join(map(str, range(24))) + ";BYMINUTE=" + ",".join(map(str, range(60))),
            "FREQ=SECONDLY;COUNT=100000",
        ],
    )
    def test_hostile_rules_take_bounded_work(self, rule: str) -> None:
        start = time.perf_counter()
        timetable = recurrence(f"DTSTART:20260105T000000\nRRULE:{rule}")
        timetable.next_after(at("2026-02-06"))
        assert time.perf_counter() - start < PATIENCE

    @pytest.mark.parametrize(
        ("rule", "text"),
        [
            ("FREQ=DAILY;COUNT=1", "Every day at 09:00, once"),
            ("FREQ=DAILY;COUNT=9", "Every day at 09:00, 9 times"),
            ("FREQ=MONTHLY;BYDAY=-1FR,2MO", "Every month on the 2nd Monday and the last Friday at 09:00"),
            ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "Every month on Friday that is day 13 at 09:00"),
            ("FREQ=MONTHLY;BYMONTHDAY=1,-2", "Every month on day 2nd to last and 1 at 09:00"),
            ("FREQ=YEARLY;BYYEARDAY=100", "Every year on day 100 of the year at 09:00"),
            ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "Every year on Monday in week 20 at 09:00"),
            ("FREQ=YEARLY;INTERVAL=2;BYMONTH=1,6", "Every 2 years on day 2 in January and June at 09:00"),
            ("FREQ=HOURLY;BYMINUTE=0,30", "Every hour at minute 0 and 30"),
            ("FREQ=MINUTELY;INTERVAL=15;BYHOUR=9,10;BYSECOND=5", "Every 15 minutes at second 5 of hour 9 and 10"),
            ("FREQ=SECONDLY", "Every second"),
            (
                "FREQ=MONTHLY;BYDAY=MO,TU;BYSETPOS=3,-1",
                "Every month on Monday and Tuesday at 09:00, only the last and 3rd of each month",
            ),
            ("FREQ=DAILY;BYHOUR=1,2,3;BYMINUTE=0,20,40", "Every day at minute 0, 20 and 40 of hour 1, 2 and 3"),
            ("FREQ=MONTHLY;BYDAY=11MO", "Every month on the 11th Monday at 09:00"),
        ],
    )
    def test_rules_describe_themselves(self, rule: str, text: str) -> None:
        assert recurrence(f"DTSTART:19970902T090000\nRRULE:{rule}").describe() == text

    def test_a_single_date_describes_itself(self) -> None:
        assert recurrence("RDATE:20260105T090000").describe() == "On one date"

    def test_interval_slots_that_vary_by_day_are_found(self) -> None:
        rule = LocalRule(parse_rules("DTSTART:20260101T000000\nFREQ=MINUTELY;INTERVAL=7", UTC_ZONE).rules[0])
        start = at("2026-01-01")
        found = list(rule.between(start + 90 * DAY, start + 91 * DAY))
        assert found == [s for s in range(start, start + 91 * DAY + 1, 420) if s > start + 90 * DAY]
        assert len({tuple(rule.between(start + d * DAY, start + d * DAY + 3600)) for d in range(80)}) == 80


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Rules that RFC 5545 allows, without those for which dateutil differs from it."""
    frequency = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"]))
    start = EPOCH + timedelta(seconds=draw(st.integers(at("1998-01-01"), at("2030-12-31"))))
    parts = [f"FREQ={frequency}", f"INTERVAL={draw(st.sampled_from([1, 1, 2, 3, 5, 7, 12, 60]))}"]

    def some(low: int, high: int, most: int = 3) -> str:
        return ",".join(map(str, draw(st.lists(st.integers(low, high), min_size=1, max_size=most, unique=True))))

    if draw(st.booleans()) and frequency != "SECONDLY":
        parts.append(f"BYMONTH={some(1, 12)}")
    day = draw(st.sampled_from(["", "month", "weekday", "nth", "year", "week"]))
    if day == "month" and frequency != "WEEKLY":
        parts.append(f"BYMONTHDAY={some(1, 28)}" if draw(st.booleans()) else f"BYMONTHDAY={some(-28, -1)}")
    elif day == "weekday":
        parts.append(
            "BYDAY=" + ",".join(draw(st.lists(st.sampled_from(["MO", "TH", "SA", "SU"]), min_size=1, unique=True)))
        )
    elif day == "nth" and frequency in ("YEARLY", "MONTHLY"):
        parts.append(
            "BYDAY="
            + ",".join(draw(st.lists(st.sampled_from(["1MO", "-1FR", "4SU", "-2WE"]), min_size=1, unique=True)))
        )
    elif day == "year" and frequency == "YEARLY":
        parts = [part for part in parts if not part.startswith("BYMONTH")] + [
            f"BYYEARDAY={some(-365, -1)},{some(1, 366)}"
        ]
    elif day == "week" and frequency == "YEARLY":
        weeks = draw(st.lists(st.sampled_from([2, 20, 40]), min_size=1, unique=True))
        parts = [part for part in parts if not part.startswith("BYMONTH")] + ["BYWEEKNO=" + ",".join(map(str, weeks))]
    if draw(st.booleans()) and frequency not in ("HOURLY", "MINUTELY", "SECONDLY"):
        parts.append(f"BYHOUR={some(0, 23)}")
    if draw(st.booleans()) and frequency not in ("MINUTELY", "SECONDLY"):
        parts.append(f"BYMINUTE={some(0, 59)}")
    if any(part.startswith("BY") for part in parts) and frequency != "WEEKLY" and draw(st.booleans()):
        parts.append(f"BYSETPOS={draw(st.sampled_from(['1', '-1', '1,2', '2,-1']))}")
    return f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:{';'.join(parts)}"


@settings(max_examples=250, deadline=None)
@given(rules())
def test_recurrence_rules_agree_with_dateutil(text: str) -> None:
    ours = first(recurrence(text), -1, 12)
    assume(len(ours) == 12)  # dateutil may search for ever where there is nothing to find
    theirs = [int(moment.replace(tzinfo=UTC).timestamp()) for moment in islice(rrulestr(text), 12)]
    assert ours == theirs
    middle = recurrence(text).next_after(ours[5])
    assert middle == ours[6]


@pytest.mark.parametrize("week_start", ["MO", "TU", "WE", "TH", "FR", "SA", "SU"])
@pytest.mark.parametrize("number", [1, 9, 52, 53, -1, -52, -53])
def test_week_numbers_follow_the_definition(week_start: str, number: int) -> None:
    """A week belongs to the year of its fourth day (dateutil is wrong at some turns of the year)."""
    timetable = recurrence(f"DTSTART:20200101T000000\nFREQ=YEARLY;BYWEEKNO={number};WKST={week_start}")
    offset = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"].index(week_start)
    expected = []
    for day in range(at("2020-01-01") // DAY, at("2048-01-01") // DAY):
        fourth = date(1970, 1, 1) + timedelta(days=day - (day + 3 - offset) % 7 + 3)
        week = (fourth.timetuple().tm_yday - 1) // 7 + 1
        last = (date(fourth.year, 12, 31).timetuple().tm_yday - fourth.timetuple().tm_yday) // 7 + week
        if number in (week, week - last - 1):
            expected.append(day * DAY)
    assert list(timetable.between(at("2020-01-01") - 1, at("2048-01-01") - 1)) == expected


@settings(max_examples=80, deadline=None)
@given(rules(), st.sampled_from(ZONES), st.integers(0, 400), st.sampled_from(["first", "last"]))
def test_recurrences_in_a_zone_agree_with_zoneinfo(text: str, zone: str, day: int, overlap: str) -> None:
    assume("LY;" in text and not any(f"FREQ={f}" in text for f in ("HOURLY", "MINUTELY", "SECONDLY")))
    ruled = parse_rules(text, zone_of(zone))
    after = ruled.rules[0].start + day * DAY
    until = after + 300 * DAY
    local = LocalRule(ruled.rules[0])
    expected = set()
    for second in local.between(after - 3 * DAY, until + 3 * DAY):
        naive = EPOCH + timedelta(seconds=second)
        info = ZoneInfo(zone)
        one, two = naive.replace(tzinfo=info), naive.replace(tzinfo=info, fold=1)
        lost = datetime.fromtimestamp(one.timestamp(), info).replace(tzinfo=None) != naive
        expected.add(int((two if overlap == "last" and not lost else one).timestamp()))
    found = list(recurrence(text, zone, overlap=overlap).between(after, until))
    assert found == sorted(instant for instant in expected if after < instant <= until)
    check_coherent(recurrence(text, zone, overlap="both"), after, after + 20 * DAY)
