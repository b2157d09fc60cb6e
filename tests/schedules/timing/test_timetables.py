"""Intervals, one-offs, merged timetables and solar events, against tables and independent oracles."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from celery import Celery
from celery.schedules import solar as celery_solar
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.timing import cron
from schedules.timing.local_times import AS_BEFORE, FIRE_AT_END, SKIP, instants_of, local_day, start_of_day
from schedules.timing.solar import EVENTS, Solar
from schedules.timing.spec_reading import LAST_INSTANT
from schedules.timing.timetables import DAY, CalendarInterval, CronTimetable, Interval, Merged, Once
from schedules.timing.zones import zone_of
from tests.schedules.timing.instants import ZONES, at, check_coherent, first, shown


def calendar_interval(unit: str, every: int, anchor: str, zone: str, **policy: str) -> CalendarInterval:
    local = at(anchor)
    chosen = {"gap": "fire_at_end", "overlap": "first", **policy}
    return CalendarInterval(unit, every, local, zone_of(zone), **chosen)  # type: ignore[arg-type]


class TestLocalTimes:
    @pytest.mark.parametrize(
        ("local", "gap", "overlap", "expected"),
        [
            ("2026-03-29T02:30", FIRE_AT_END, "first", ["2026-03-29T03:00:00+02:00"]),
            ("2026-03-29T02:30", AS_BEFORE, "first", ["2026-03-29T03:30:00+02:00"]),
            ("2026-03-29T02:30", SKIP, "first", []),
            ("2026-10-25T02:30", SKIP, "first", ["2026-10-25T02:30:00+02:00"]),
            ("2026-10-25T02:30", SKIP, "last", ["2026-10-25T02:30:00+01:00"]),
            ("2026-10-25T02:30", SKIP, "both", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]),
            ("2026-06-01T12:00", SKIP, "both", ["2026-06-01T12:00:00+02:00"]),
        ],
    )
    def test_a_local_time_names_instants_by_policy(
        self, local: str, gap: str, overlap: str, expected: list[str]
    ) -> None:
        found = instants_of(zone_of("Europe/Berlin"), at(local), gap=gap, overlap=overlap)
        assert shown(list(found), "Europe/Berlin") == expected

    def test_a_skipped_date_begins_when_the_next_one_does(self) -> None:
        apia = zone_of("Pacific/Apia")
        skipped = at("2011-12-30") // DAY
        assert start_of_day(apia, skipped) == start_of_day(apia, skipped + 1)
        assert local_day(apia, start_of_day(apia, skipped)) == skipped + 1


class TestInterval:
    @pytest.mark.parametrize(
        ("every", "anchor", "after", "expected"),
        [
            (300, 0, 0, 300),
            (300, 0, 299, 300),
            (300, 0, 300, 600),
            (300, 130, 0, 130),
            (7, 3, -50, 3),
            (300, at("2026-01-01T00:01"), at("2020-01-01"), at("2020-01-01T00:01")),
        ],
    )
    def test_it_keeps_the_phase_of_its_anchor_in_both_directions(
        self, every: int, anchor: int, after: int, expected: int
    ) -> None:
        assert Interval(every, anchor).next_after(after) == expected

    def test_it_ends_with_2199(self) -> None:
        assert Interval(3600).next_after(LAST_INSTANT - 60) is None
        assert list(Interval(3600).between(LAST_INSTANT, LAST_INSTANT + DAY)) == []

    def test_it_follows_real_time_when_clocks_change(self) -> None:
        found = first(Interval(3600), at("2026-03-29T00:30", "Europe/Berlin"), 3)
        assert [text[11:16] for text in shown(found, "Europe/Berlin")] == ["01:00", "03:00", "04:00"]

    @given(st.integers(1, 10**6), st.integers(0, 10**9), st.integers(-100, 10**9), st.integers(0, 10**5))
    def test_counting_agrees_with_listing(self, every: int, anchor: int, after: int, length: int) -> None:
        interval = Interval(every, anchor)
        found = list(interval.between(after, after + length))
        assert interval.count(after, after + length) == len(found)
        assert all(after < instant <= after + length and (instant - anchor) % every == 0 for instant in found)

    @pytest.mark.parametrize(
        ("every", "text"),
        [(1, "Every second"), (90, "Every 90 seconds"), (60, "Every minute"), (7200, "Every 2 hours")],
    )
    def test_it_describes_itself(self, every: int, text: str) -> None:
        assert Interval(every).describe() == text


class TestCalendarInterval:
    def test_month_ends_clamp_from_the_anchor_without_drift(self) -> None:
        monthly = calendar_interval("months", 1, "2026-01-31T09:00", "Europe/Berlin")
        assert shown(first(monthly, at("2026-01-01"), 4), "Europe/Berlin") == [
            "2026-01-31T09:00:00+01:00",
            "2026-02-28T09:00:00+01:00",
            "2026-03-31T09:00:00+02:00",
            "2026-04-30T09:00:00+02:00",
        ]

    def test_years_are_twelve_months_and_clamp_the_29th_of_february(self) -> None:
        yearly = calendar_interval("months", 12, "2024-02-29T00:00", "UTC")
        assert [text[:10] for text in shown(first(yearly, at("2024-01-01"), 5))] == [
            "2024-02-29",
            "2025-02-28",
            "2026-02-28",
            "2027-02-28",
            "2028-02-29",
        ]

    def test_days_keep_the_local_time_through_clock_changes(self) -> None:
        daily = calendar_interval("days", 1, "2026-01-01T02:30", "Europe/Berlin")
        found = shown(first(daily, at("2026-03-28T00:00"), 3), "Europe/Berlin")
        assert [text[5:16] for text in found] == ["03-28T02:30", "03-29T03:00", "03-30T02:30"]

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ({"overlap": "last"}, ["10-24T02:30:00+02:00", "10-25T02:30:00+01:00", "10-26T02:30:00+01:00"]),
            ({"overlap": "both"}, ["10-24T02:30:00+02:00", "10-25T02:30:00+02:00", "10-25T02:30:00+01:00"]),
        ],
    )
    def test_the_overlap_policy_chooses_the_pass(self, policy: dict[str, str], expected: list[str]) -> None:
        daily = calendar_interval("days", 1, "2026-01-01T02:30", "Europe/Berlin", **policy)
        assert [text[5:] for text in shown(first(daily, at("2026-10-24"), 3), "Europe/Berlin")] == expected

    def test_a_gap_can_be_skipped(self) -> None:
        daily = calendar_interval("days", 1, "2026-01-01T02:30", "Europe/Berlin", gap="skip")
        assert daily.next_after(at("2026-03-29T00:00")) == at("2026-03-30T02:30", "Europe/Berlin")

    def test_a_skipped_calendar_day_fires_once_where_it_meets_the_next(self) -> None:
        daily = calendar_interval("days", 1, "2011-01-01T00:00", "Pacific/Apia")
        found = shown(first(daily, at("2011-12-29T09:00"), 3), "Pacific/Apia")
        assert [text[:10] for text in found] == ["2011-12-29", "2011-12-31", "2012-01-01"]

    def test_it_ends_with_2199(self) -> None:
        for unit in ("days", "weeks", "months"):
            interval = calendar_interval(unit, 1, "2026-01-05T00:00", "America/New_York")
            assert interval.next_after(LAST_INSTANT) is None
            assert list(interval.between(LAST_INSTANT - 70 * DAY, LAST_INSTANT + 70 * DAY))
            assert list(interval.locals_between(LAST_INSTANT - 70 * DAY, LAST_INSTANT + 70 * DAY))

    @pytest.mark.parametrize(
        ("unit", "every", "text"),
        [
            ("days", 1, "Every day at 02:30"),
            ("weeks", 2, "Every 2 weeks at 02:30"),
            ("months", 3, "Every 3 months at 02:30"),
            ("months", 24, "Every 2 years at 02:30"),
        ],
    )
    def test_it_describes_itself(self, unit: str, every: int, text: str) -> None:
        assert calendar_interval(unit, every, "2026-01-01T02:30", "UTC").describe() == text
        assert calendar_interval(unit, every, "2026-01-01T02:30:05", "UTC").describe() == text + ":05"

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(["days", "weeks", "months"]),
        st.integers(1, 40),
        st.integers(0, 60 * 365 * DAY),
        st.sampled_from(ZONES),
        st.integers(0, 70 * 365 * DAY),
        st.sampled_from(["first", "last", "both"]),
        st.sampled_from(["fire_at_end", "skip"]),
    )
    def test_next_is_later_and_agrees_with_between(
        self, unit: str, every: int, anchor: int, zone: str, after: int, overlap: str, gap: str
    ) -> None:
        interval = CalendarInterval(unit, every, anchor, zone_of(zone), gap=gap, overlap=overlap)  # type: ignore[arg-type]
        check_coherent(interval, after, after + 200 * DAY)


class TestOnceCronAndMerged:
    def test_a_one_off_comes_once(self) -> None:
        once = Once(1000)
        assert once.next_after(999) == 1000
        assert once.next_after(1000) is None
        assert list(once.between(0, 999)) == []
        assert once.describe() == "Once at 1970-01-01T00:16:40Z"

    def test_an_instant_that_several_timetables_name_comes_once(self) -> None:
        merged = Merged((Interval(600), Interval(900), Once(1800)))
        assert list(merged.between(0, 3600)) == [600, 900, 1200, 1800, 2400, 2700, 3000, 3600]
        assert merged.describe() == "Every 10 minutes; and Every 15 minutes; and Once at 1970-01-01T00:30:00Z"
        check_coherent(merged, 0, 9000)

    def test_merging_ends_when_all_have_ended(self) -> None:
        assert Merged((Once(5), Once(9))).next_after(9) is None

    def test_a_cron_line_follows_its_policies(self) -> None:
        line = CronTimetable(cron.parse("30 2 * * *"), zone_of("Europe/Berlin"), gap="skip", overlap="both")
        check_coherent(line, at("2026-03-20"), at("2026-11-01"))
        assert line.describe() == "At 02:30"


class TestSolar:
    @pytest.mark.parametrize("event", EVENTS)
    @pytest.mark.parametrize("place", [(52.5, 13.4), (-33.9, 151.2), (40.7, -74.0), (0.0, 179.9), (64.1, -21.9)])
    def test_it_agrees_with_celery(self, event: str, place: tuple[float, float]) -> None:
        ours = Solar(event, *place)
        moment = datetime(2026, 3, 1, tzinfo=UTC)
        theirs = celery_solar(event, *place, nowfun=lambda: moment, app=Celery(set_as_current=False))
        expected = moment + theirs.remaining_estimate(moment)
        assert abs(ours.next_after(int(moment.timestamp())) - expected.timestamp()) <= 1  # type: ignore[operator]

    @settings(max_examples=25, deadline=None)
    @given(
        st.sampled_from(EVENTS),
        st.floats(-89, 89),
        st.floats(-180, 180),
        st.integers(at("1990-01-01"), at("2060-01-01")),
    )
    def test_an_event_is_the_same_second_whoever_asks(self, event: str, north: float, east: float, after: int) -> None:
        timetable = Solar(event, north, east)
        check_coherent(timetable, after, after + 5 * DAY)
        found = timetable.next_after(after)
        if found is not None:
            assert timetable.next_after(found - 1) == found
            assert timetable.next_after(found - 3600) == found

    def test_the_polar_night_is_passed_over(self) -> None:
        sunrise = Solar("sunrise", 69.6, 18.9)
        assert shown([sunrise.next_after(at("2025-12-01"))])[0].startswith("2026-01-15")  # type: ignore[list-item]

    def test_at_the_pole_the_sun_never_rises_by_the_day(self) -> None:
        assert Solar("sunrise", 90, 0).next_after(at("2026-01-01")) is None

    def test_it_ends_with_2199(self) -> None:
        assert Solar("solar_noon", 0, 0).next_after(LAST_INSTANT) is None
        assert Solar("solar_noon", 0, 0).next_after(LAST_INSTANT + 1) is None

    @pytest.mark.parametrize(
        ("event", "text"),
        [
            ("sunrise", "At sunrise, 52.5°N 13.4°E"),
            ("solar_noon", "At solar noon, 52.5°N 13.4°E"),
            ("dusk_civil", "At civil dusk, 52.5°N 13.4°E"),
        ],
    )
    def test_it_describes_itself(self, event: str, text: str) -> None:
        assert Solar(event, 52.5, 13.4).describe() == text
        assert Solar("sunset", -33.9, -151.2).describe() == "At sunset, 33.9°S 151.2°W"
