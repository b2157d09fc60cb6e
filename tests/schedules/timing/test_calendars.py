"""Calendars as sets of days, business-day shifts and blackout windows."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.timing.blackouts import WEEK, Blackouts, Once, Weekly
from schedules.timing.business_days import FURTHEST, Shifted
from schedules.timing.calendars import (
    DEEPEST,
    DayRule,
    Days,
    check_names,
    compile_days,
    names_in,
    normalise_definition,
    normalise_reference,
)
from schedules.timing.occurrences import SpecError, normalise
from schedules.timing.spec_reading import LAST_INSTANT, Problems
from schedules.timing.timetables import DAY, Interval
from schedules.timing.zones import zone_of
from tests.schedules.timing.test_timetables import at, calendar_interval, check_coherent, shown

BERLIN = zone_of("Europe/Berlin")
WEEKEND = {"kind": "weekly", "days": ["sat", "sun"]}
GERMANY = {"kind": "holidays", "country": "DE"}


def day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def days(definition: dict[str, Any], data: dict[str, Any] | None = None) -> Days:
    problems = Problems()
    canonical = normalise_definition(definition, problems=problems, path="definition")
    assert problems.fields == {}
    assert normalise_definition(canonical, problems=problems, path="definition") == canonical
    return compile_days(canonical, data or {})


def problems_of(definition: object) -> dict[str, list[str]]:
    problems = Problems()
    normalise_definition(definition, problems=problems, path="definition")
    return problems.fields


class TestDefinitions:
    @pytest.mark.parametrize(
        ("definition", "inside", "outside"),
        [
            (WEEKEND, ["2026-03-28", "2026-03-29"], ["2026-03-27", "2026-03-30"]),
            ({"kind": "weekly", "days": ["Sunday", "MON"]}, ["2026-03-29", "2026-03-30"], ["2026-03-28"]),
            (GERMANY, ["2026-04-03", "2026-12-25"], ["2026-01-06", "2026-12-24"]),
            (GERMANY | {"subdivision": "BY"}, ["2026-01-06"], ["2026-01-07"]),
            (GERMANY | {"subdivision": "BY", "categories": ["catholic"]}, ["2026-08-15"], ["2026-12-25"]),
            ({"kind": "holidays", "country": "us"}, ["2026-07-03", "2026-07-04"], ["2026-07-02"]),
            ({"kind": "holidays", "country": "US", "observed": False}, ["2026-07-04"], ["2026-07-03"]),
            ({"kind": "dates", "dates": ["2026-05-02"]}, ["2026-05-02"], ["2027-05-02"]),
            (
                {"kind": "dates", "dates": [{"from": "2026-12-24", "until": "2027-01-01"}, date(2026, 5, 2)]},
                ["2026-12-24", "2027-01-01", "2026-05-02"],
                ["2026-12-23", "2027-01-02"],
            ),
            ({"kind": "dates", "yearly": ["12-24", "02-29"]}, ["2024-02-29", "2099-12-24"], ["2026-12-25"]),
            ({"kind": "union", "of": [WEEKEND, GERMANY]}, ["2026-03-28", "2026-04-03"], ["2026-04-02"]),
            ({"kind": "intersection", "of": [WEEKEND, GERMANY]}, ["2026-12-26"], ["2026-12-25", "2026-12-27"]),
            ({"kind": "difference", "of": [WEEKEND, GERMANY]}, ["2026-12-27"], ["2026-12-26", "2026-12-28"]),
            ({"kind": "complement", "of": [WEEKEND]}, ["2026-03-30"], ["2026-03-29"]),
        ],
    )
    def test_a_definition_is_a_set_of_days(
        self, definition: dict[str, Any], inside: list[str], outside: list[str]
    ) -> None:
        found = days(definition)
        assert [text for text in inside if day(text) not in found] == []
        assert [text for text in outside if day(text) in found] == []

    @pytest.mark.parametrize(
        ("definition", "known_until"),
        [
            (WEEKEND, None),
            (GERMANY, "2100-12-31"),
            ({"kind": "dates", "dates": ["2026-05-02", "2026-01-01"]}, "2026-05-02"),
            ({"kind": "dates", "dates": ["2026-05-02"], "yearly": ["12-24"]}, None),
            ({"kind": "union", "of": [WEEKEND, GERMANY, {"kind": "dates", "dates": ["2030-01-01"]}]}, "2030-01-01"),
            ({"kind": "union", "of": [WEEKEND]}, None),
        ],
    )
    def test_it_knows_where_its_data_end(self, definition: dict[str, Any], known_until: str | None) -> None:
        assert days(definition).known_until == (None if known_until is None else day(known_until))

    def test_days_have_names_where_something_is_known_about_them(self) -> None:
        both = days({"kind": "union", "of": [WEEKEND, GERMANY]})
        assert both.label(day("2026-03-28")) == "Sat"
        assert "freitag" in both.label(day("2026-04-03")).lower() or "friday" in both.label(day("2026-04-03")).lower()
        assert both.label(day("2026-04-02")) == ""
        assert days({"kind": "dates", "dates": ["2026-05-02"]}).label(day("2026-05-02")) == ""

    @pytest.mark.parametrize(
        ("definition", "path", "rule"),
        [
            (3, "definition", "must be an object"),
            ({}, "definition.kind", "is required"),
            ({"kind": "weekyl"}, "definition.kind", "did you mean 'weekly'"),
            ({"kind": "weekly"}, "definition.days", "at least one weekday"),
            ({"kind": "weekly", "days": ["someday"]}, "definition.days", "'someday' is not one of"),
            ({"kind": "weekly", "days": "mon"}, "definition.days", "must be a list"),
            ({"kind": "weekly", "days": ["mon"], "day": 1}, "definition.day", "did you mean 'days'"),
            ({"kind": "holidays"}, "definition.country", "is required"),
            ({"kind": "holidays", "country": "XX"}, "definition.country", "not a country"),
            ({"kind": "holidays", "country": "DE", "subdivision": "QQ"}, "definition.subdivision", "BB, BE"),
            ({"kind": "holidays", "country": "DE", "categories": ["bank"]}, "definition.categories", "not bank"),
            ({"kind": "holidays", "country": "DE", "observed": "yes"}, "definition.observed", "true or false"),
            ({"kind": "dates"}, "definition.dates", "at least one date"),
            ({"kind": "dates", "dates": ["2026-02-30"]}, "definition.dates.0", "must be a date"),
            ({"kind": "dates", "dates": ["0001-01-01"]}, "definition.dates.0", "must be a date"),
            ({"kind": "dates", "dates": [5]}, "definition.dates.0", "must be a date"),
            ({"kind": "dates", "dates": [{"from": "2026-01-02"}]}, "definition.dates.0.until", "must be a date"),
            (
                {"kind": "dates", "dates": [{"from": "2026-01-02", "until": "2026-01-01"}]},
                "definition.dates.0",
                "not end before",
            ),
            ({"kind": "dates", "yearly": ["13-01"]}, "definition.yearly", "'13-01' is not"),
            ({"kind": "dates", "yearly": [7]}, "definition.yearly", "'7' is not"),
            ({"kind": "union", "of": []}, "definition.of", "at least one calendar"),
            ({"kind": "complement", "of": ["a", "b"]}, "definition.of", "exactly one calendar"),
            ({"kind": "union", "of": [""]}, "definition.of.0", "must be the name"),
            ({"kind": "union", "of": [{"kind": "x"}]}, "definition.of.0.kind", "one of"),
        ],
    )
    def test_what_is_wrong_is_named_by_its_path(self, definition: object, path: str, rule: str) -> None:
        assert rule in " ".join(problems_of(definition)[path])

    def test_definitions_nest_only_so_deep(self) -> None:
        definition: dict[str, Any] = WEEKEND
        for _ in range(DEEPEST + 1):
            definition = {"kind": "union", "of": [definition]}
        assert "nest at most" in str(problems_of(definition))


class TestNames:
    def test_names_are_followed_through_all_definitions(self) -> None:
        data = {
            "off": {"kind": "union", "of": ["weekend", "weekend", {"kind": "difference", "of": ["public", "bridge"]}]},
            "weekend": WEEKEND,
            "public": GERMANY,
            "bridge": {"kind": "dates", "dates": ["2026-12-25"]},
            "unused": WEEKEND,
        }
        problems = Problems()
        assert check_names([("x", "off"), ("y", "weekend")], data, problems=problems) == [
            "bridge",
            "off",
            "public",
            "weekend",
        ]
        assert problems.fields == {}
        off = compile_days("off", data)
        assert day("2026-12-26") in off
        assert day("2026-12-25") not in off
        assert off.known_until == day("2026-12-25")

    @pytest.mark.parametrize(
        ("data", "rule"),
        [
            ({"a": {"kind": "union", "of": ["a"]}}, "a → a"),
            (
                {"a": {"kind": "union", "of": ["b"]}, "b": {"kind": "complement", "of": ["c"]}, "c": {"of": ["b"]}},
                "b → c → b",
            ),
            ({"a": {"kind": "union", "of": ["b"]}}, "no calendar 'b' (used by 'a')"),
            ({"aa": WEEKEND}, "no calendar 'a' (did you mean 'aa'?)"),
            ({"a": {"of": ["a0"]}} | {f"a{n}": {"of": [f"a{n + 1}"]} for n in range(90)}, "deep"),
        ],
    )
    def test_circles_and_unknown_names_are_refused(self, data: dict[str, Any], rule: str) -> None:
        problems = Problems()
        check_names([("calendars.exclude.0", "a")], data, problems=problems)
        assert rule in str(problems.fields["calendars.exclude.0"])

    def test_nonsense_has_no_names(self) -> None:
        assert list(names_in(5)) == list(names_in({"of": 5})) == []

    def test_a_reference_is_a_name_or_a_definition(self) -> None:
        problems = Problems()
        assert normalise_reference(" holidays ", problems=problems, path="x") == "holidays"
        assert normalise_reference(WEEKEND, problems=problems, path="x") == WEEKEND
        assert normalise_reference(7, problems=problems, path="y") == ""
        assert list(problems.fields) == ["y"]


class TestDayRule:
    def test_excluded_days_and_days_outside_of_only_say_why(self) -> None:
        rule = DayRule([("holidays", days(GERMANY))], [("office", days({"kind": "complement", "of": [WEEKEND]}))])
        assert rule.allows(day("2026-04-02"))
        assert not rule.allows(day("2026-04-03"))
        assert rule.why_not(day("2026-04-03")).calendar == "holidays"  # type: ignore[union-attr]
        assert rule.why_not(day("2026-04-04")) == ("office", "not one of its days")
        assert rule.why_not(day("2026-04-02")) is None
        assert rule.known_until() == ("holidays", day("2100-12-31"))
        assert DayRule([("weekend", days(WEEKEND))], []).known_until() is None

    def test_what_it_remembers_is_bounded(self) -> None:
        rule = DayRule([("weekend", days(WEEKEND))], [])
        for number in range(25_000):
            rule.allows(number)
        assert len(rule._allowed) < 25_000


def shifted(direction: str, definition: dict[str, Any] = WEEKEND, anchor: str = "2026-01-01T09:00") -> Shifted:
    rule = DayRule([("off", days(definition))], [])
    inner = calendar_interval("days", 1, anchor, "Europe/Berlin")
    return Shifted(inner, rule, BERLIN, direction=direction, gap="fire_at_end", overlap="first")


class TestShift:
    @pytest.mark.parametrize(("direction", "expected"), [("next", "2026-02-02"), ("previous", "2026-01-30")])
    def test_an_excluded_month_end_moves_to_a_business_day(self, direction: str, expected: str) -> None:
        rule = DayRule([("weekend", days(WEEKEND))], [])
        inner = calendar_interval("months", 1, "2025-12-31T09:00", "Europe/Berlin")
        moved = Shifted(inner, rule, BERLIN, direction=direction, gap="fire_at_end", overlap="first")
        found = shown(list(moved.between(at("2026-01-02"), at("2026-02-20"))), "Europe/Berlin")
        assert found == [f"{expected}T09:00:00+01:00"]
        assert moved.describe() == f"Every month at 09:00, moved to the {direction} business day"

    def test_instants_that_meet_are_one_and_stay_in_order(self) -> None:
        rule = DayRule([("weekend", days(WEEKEND))], [])
        moved = Shifted(Interval(6 * 3600), rule, BERLIN, direction="next", gap="fire_at_end", overlap="first")
        found = list(moved.between(at("2026-01-09T20:00"), at("2026-01-13T00:00")))
        local = [text[5:16] for text in shown(found, "Europe/Berlin")]
        assert local == ["01-12T01:00", "01-12T07:00", "01-12T13:00", "01-12T19:00", "01-13T01:00"]

    def test_a_moved_instant_keeps_its_local_time_where_it_can(self) -> None:
        definition = {"kind": "dates", "dates": ["2026-03-28"]}
        moved = shifted("next", definition, "2026-01-01T02:30")
        found = shown(list(moved.between(at("2026-03-28T00:00"), at("2026-03-29T12:00"))), "Europe/Berlin")
        assert found == ["2026-03-29T03:00:00+02:00"]

    @pytest.mark.parametrize("direction", ["next", "previous"])
    def test_without_any_allowed_day_nothing_moves(self, direction: str) -> None:
        never = {"kind": "union", "of": [WEEKEND, {"kind": "complement", "of": [WEEKEND]}]}
        moved = shifted(direction, never)
        assert moved.next_after(at("2026-01-01T12:00")) == at("2026-01-02T09:00", "Europe/Berlin")

    def test_a_long_exclusion_gathers_at_its_end(self) -> None:
        closed = {"kind": "dates", "dates": [{"from": "2026-01-02", "until": "2026-11-30"}]}
        assert FURTHEST > 332
        found = list(shifted("next", closed).between(at("2026-01-02"), at("2026-12-02T12:00")))
        assert [text[:10] for text in shown(found)] == ["2026-12-01", "2026-12-02"]

    def test_it_ends_where_the_timetable_ends(self) -> None:
        assert shifted("next").next_after(LAST_INSTANT) is None
        assert len(list(shifted("next").between(LAST_INSTANT - 7 * DAY, LAST_INSTANT + DAY))) == 5

    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(["next", "previous"]),
        st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1),
        st.integers(at("2026-01-01"), at("2027-12-31")),
        st.sampled_from(["2026-01-01T02:30", "2026-01-01T00:00", "2026-01-01T23:59"]),
    )
    def test_next_is_later_lands_on_allowed_days_and_agrees_with_between(
        self, direction: str, off: set[str], after: int, anchor: str
    ) -> None:
        moved = shifted(direction, {"kind": "weekly", "days": sorted(off)}, anchor)
        check_coherent(moved, after, after + 20 * DAY)
        for instant in moved.between(after, after + 20 * DAY):
            local = (instant + BERLIN.offset(instant)) // DAY
            assert moved.rule.allows(local) or len(off) == 7


def windows(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    spec = {
        "timezone": "Europe/Berlin",
        "timetables": [{"kind": "once", "at": "2026-01-01"}],
        "blackouts": list(entries),
    }
    canonical = normalise(spec)
    assert normalise(canonical) == canonical
    return canonical["blackouts"]  # type: ignore[no-any-return]


class TestBlackouts:
    @pytest.mark.parametrize(
        ("entry", "canonical"),
        [
            (
                {"from": "2026-12-24T12:00", "until": "2026-12-27T00:00Z"},
                {"kind": "once", "from": "2026-12-24T11:00:00Z", "until": "2026-12-27T00:00:00Z", "action": "skip"},
            ),
            (
                {"from": "Friday 18:00", "until": "mon 06:00", "action": "postpone"},
                {"kind": "weekly", "days": ["fri"], "from": "18:00", "length": 60 * 3600, "action": "postpone"},
            ),
            (
                {"days": ["tue", "mon"], "from": "22:00", "until": "6:00"},
                {"kind": "weekly", "days": ["mon", "tue"], "from": "22:00", "length": 8 * 3600, "action": "skip"},
            ),
            (
                {"kind": "weekly", "days": ["sun"], "from": "00:00", "until": "24:00"},
                {"kind": "weekly", "days": ["sun"], "from": "00:00", "length": DAY, "action": "skip"},
            ),
            (
                {"from": "sat 24:00", "until": "sun 01:30"},
                {"kind": "weekly", "days": ["sun"], "from": "00:00", "length": 5400, "action": "skip"},
            ),
        ],
    )
    def test_a_window_has_one_canonical_form(self, entry: dict[str, Any], canonical: dict[str, Any]) -> None:
        assert windows(entry) == [canonical]

    @pytest.mark.parametrize(
        ("entry", "path", "rule"),
        [
            (5, "blackouts.0", "must be an object"),
            ({}, "blackouts.0.from", "is required"),
            ({"from": "2026-01-01", "until": "2026-01-01"}, "blackouts.0.until", "after the beginning"),
            ({"from": "2026-01-01"}, "blackouts.0.until", "is required"),
            ({"from": "2026-01-01", "until": "2027-01-01", "action": "stop"}, "blackouts.0.action", "one of skip"),
            ({"from": "fri 18:00", "until": "fri 18:00"}, "blackouts.0.until", "not be the beginning"),
            ({"from": "fri 18:00", "until": "18:61"}, "blackouts.0.until", "must be a local time"),
            ({"from": "fri 25:00", "until": "sat 18:00"}, "blackouts.0.from", "must be a local time"),
            ({"from": "xyz 18:00", "until": "sat 18:00"}, "blackouts.0.from", "must be a local time"),
            ({"from": "18:00", "until": "sat 18:00", "days": ["fri"]}, "blackouts.0.until", "must be a time of day"),
            ({"from": "18:00", "until": "19:00"}, "blackouts.0.days", "at least one weekday"),
            ({"from": "fri 18:00", "length": WEEK}, "blackouts.0.length", "whole number"),
        ],
    )
    def test_what_is_wrong_is_named_by_its_path(self, entry: object, path: str, rule: str) -> None:
        with pytest.raises(SpecError) as caught:
            normalise({"timetables": [{"kind": "once", "at": "2026-01-01"}], "blackouts": [entry]})
        assert rule in " ".join(caught.value.fields[path])

    def test_windows_that_touch_are_one(self) -> None:
        found = Blackouts([Once(10, 20, "postpone"), Once(20, 30, "skip"), Once(15, 25, "postpone")])
        assert found.at(9) is None
        assert found.at(12) == (30,)
        assert found.at(22) == (None,)
        assert found.at(30) is None
        assert found.skips_until(22) == 30
        assert found.skips_until(12) == 13
        assert found.began(26) == 10
        assert found.began(30) is None
        assert found.next_start(10) == 15
        assert found.next_start(20) is None

    def test_windows_that_cover_every_week_never_end(self) -> None:
        halves = [Weekly(0, WEEK // 2, "postpone", BERLIN), Weekly(WEEK // 2, WEEK // 2, "postpone", BERLIN)]
        hit = Blackouts(halves).at(at("2026-01-01"))
        assert hit == (None,)
        assert Blackouts(halves).began(at("2026-01-01")) is not None
        assert Blackouts([Once(0, LAST_INSTANT + 10, "postpone")]).at(5) == (LAST_INSTANT + 10,)

    @pytest.mark.parametrize(
        ("spans", "covers"),
        [
            ([], False),
            ([(0, WEEK)], True),
            ([(5 * DAY, WEEK - 60)], False),
            ([(5 * DAY, 3 * DAY), (DAY, 4 * DAY)], True),
            ([(5 * DAY, 3 * DAY), (DAY + 60, 4 * DAY)], False),
            ([(0, 5 * DAY), (2 * DAY, DAY), (4 * DAY, 3 * DAY)], True),
            ([(0, 5 * DAY), (5 * DAY, DAY)], False),
        ],
    )
    def test_windows_that_leave_no_gap_are_known(self, spans: list[tuple[int, int]], covers: bool) -> None:
        weekly = [Weekly(start, length, "skip", BERLIN) for start, length in spans]
        assert Blackouts(weekly).never_ends is covers

    def test_a_weekly_window_is_read_on_the_local_clock(self) -> None:
        friday_evening = Weekly(4 * DAY + 18 * 3600, 60 * 3600, "skip", BERLIN)  # over the change of 29 March
        inside = at("2026-03-28T12:00", "Europe/Berlin")
        assert friday_evening.end_after(inside) == at("2026-03-30T06:00", "Europe/Berlin")
        assert friday_evening.end_after(at("2026-03-30T06:00", "Europe/Berlin")) is None
        assert friday_evening.next_start(inside) == at("2026-04-03T18:00", "Europe/Berlin")
        assert friday_evening.began(inside) <= at("2026-03-27T18:00", "Europe/Berlin")  # type: ignore[operator]
        assert friday_evening.began(at("2026-03-30T06:00", "Europe/Berlin")) is None

    @settings(max_examples=100, deadline=None)
    @given(
        st.integers(0, WEEK // 60 - 1),
        st.integers(1, WEEK // 60 - 1),
        st.integers(at("2026-01-01"), at("2026-12-31")),
    )
    def test_the_end_of_a_window_lies_ahead_and_outside(self, start: int, length: int, instant: int) -> None:
        window = Weekly(start * 60, length * 60, "skip", BERLIN)
        end = window.end_after(instant)
        began = window.next_start(instant)
        assert instant < began <= instant + WEEK + 3600
        assert window.end_after(began) is not None or began == end
        if end is not None:
            assert instant < end <= instant + WEEK + 3600
            assert window.began(instant) is not None
