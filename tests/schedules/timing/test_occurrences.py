"""A schedule's instants as a pure function of its spec and its identity."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.states import FireReason
from schedules.timing.occurrences import Instant, SpecError, Timing, calendar_names, compile, normalise
from schedules.timing.spec_reading import LAST_INSTANT
from tests.patience import PATIENCE
from tests.schedules.timing.test_timetables import ZONES, at, shown

DAY = 86400
HOURLY = {"kind": "interval", "every": 3600}
WEEKEND = {"kind": "weekly", "days": ["sat", "sun"]}


def timing(seed: str = "nightly", **spec: Any) -> Timing:
    canonical = normalise({"timetables": [HOURLY], **spec})
    assert normalise(canonical) == canonical
    return compile(canonical, seed=seed)


def fields(**spec: Any) -> dict[str, Any]:
    with pytest.raises(SpecError) as caught:
        normalise({"timetables": [HOURLY], **spec})
    return caught.value.fields


class TestNormalise:
    @pytest.mark.parametrize(
        ("entry", "canonical"),
        [
            ({"kind": "cron", "expression": " 0   2 * * * "}, {"kind": "cron", "expression": "0 2 * * *"}),
            (
                {"kind": "cron", "expression": "0 9 * * FRI-MON", "dialect": "vixie"},
                {"kind": "cron", "expression": "0 9 * * 0,1,5,6"},
            ),
            ({"kind": "cron", "expression": "H H * * *"}, {"kind": "cron", "expression": "H H * * *"}),
            ({"kind": "interval", "every": 300}, {"kind": "interval", "every": 300}),
            ({"kind": "interval", "every": 300.0, "anchor": "1970-01-01T00:00Z"}, {"kind": "interval", "every": 300}),
            ({"kind": "interval", "every": "PT5M"}, {"kind": "interval", "every": 300}),
            ({"kind": "interval", "every": "p1m"}, {"kind": "interval", "every": {"months": 1}}),
            ({"kind": "interval", "every": {"hours": 2}}, {"kind": "interval", "every": 7200}),
            ({"kind": "interval", "every": {"years": 1}}, {"kind": "interval", "every": {"months": 12}}),
            (
                {"kind": "interval", "every": {"weeks": 2.0}, "anchor": "2026-01-05T09:00"},
                {"kind": "interval", "every": {"weeks": 2}, "anchor": "2026-01-05T08:00:00Z"},
            ),
            ({"kind": "once", "at": "2026-01-05T09:00:00.750+02:00"}, {"kind": "once", "at": "2026-01-05T07:00:00Z"}),
            ({"kind": "rrule", "rules": ["FREQ=DAILY", ""]}, {"kind": "rrule", "rules": "FREQ=DAILY"}),
            (
                {"kind": "solar", "event": "sunset", "latitude": 52, "longitude": 13.4},
                {"kind": "solar", "event": "sunset", "latitude": 52.0, "longitude": 13.4},
            ),
        ],
    )
    def test_a_timetable_has_one_canonical_form(self, entry: dict[str, Any], canonical: dict[str, Any]) -> None:
        spec = normalise({"timezone": "Europe/Berlin", "timetables": [entry, dict(entry)]})
        assert spec == {"timezone": "Europe/Berlin", "timetables": [canonical]}
        assert normalise(spec) == spec

    def test_defaults_are_absent_and_the_order_is_fixed(self) -> None:
        spec = normalise(
            {
                "blackouts": [],
                "calendars": {"exclude": [], "data": {"unused": WEEKEND}},
                "jitter": 0,
                "end": None,
                "overlap": "first",
                "gap": "fire_at_end",
                "timetables": (HOURLY,),
            }
        )
        assert spec == {"timezone": "UTC", "timetables": [HOURLY]}
        full = normalise(
            {"jitter": 5, "end": "2027-01-01", "start": "2026-01-01", "timetables": [HOURLY], "gap": "skip"}
        )
        assert list(full) == ["timezone", "timetables", "gap", "start", "end", "jitter"]

    @pytest.mark.parametrize(
        ("spec", "path", "rule"),
        [
            ({"timezone": "Europe/Berln"}, "timezone", "not a time zone"),
            ({"timezone": 3}, "timezone", "must be the name"),
            ({"timetables": []}, "timetables", "at least one"),
            ({"timetables": "0 2 * * *"}, "timetables", "must be a list"),
            ({"timetables": [HOURLY] * 51}, "timetables", "at most 50"),
            ({"timetables": ["0 2 * * *"]}, "timetables.0", "must be an object"),
            ({"timetables": [{"kind": "crno"}]}, "timetables.0.kind", "did you mean 'cron'"),
            ({"timetables": [{"kind": "cron"}]}, "timetables.0.expression", "is required"),
            ({"timetables": [{"kind": "cron", "expression": "61 * * * *"}]}, "timetables.0.expression", "minute"),
            ({"timetables": [{"kind": "cron", "expression": "@reboot"}]}, "timetables.0.expression", "reboot"),
            (
                {"timetables": [{"kind": "cron", "expression": "* * * * *", "dialect": "x"}]},
                "timetables.0.dialect",
                "ocps",
            ),
            ({"timetables": [{"kind": "interval"}]}, "timetables.0.every", "whole seconds"),
            ({"timetables": [{"kind": "interval", "every": True}]}, "timetables.0.every", "whole seconds"),
            ({"timetables": [{"kind": "interval", "every": 0.5}]}, "timetables.0.every", "whole seconds"),
            ({"timetables": [{"kind": "interval", "every": 0}]}, "timetables.0.every", "at least one second"),
            ({"timetables": [{"kind": "interval", "every": {"days": 99999}}]}, "timetables.0.every", "hundred years"),
            ({"timetables": [{"kind": "interval", "every": {"moons": 1}}]}, "timetables.0.every", "seconds, minutes"),
            (
                {"timetables": [{"kind": "interval", "every": {"days": 1, "hours": 1}}]},
                "timetables.0.every",
                "one unit",
            ),
            ({"timetables": [{"kind": "once"}]}, "timetables.0.at", "is required"),
            ({"timetables": [{"kind": "once", "at": "soon"}]}, "timetables.0.at", "ISO 8601"),
            ({"timetables": [{"kind": "once", "at": "1969-12-31"}]}, "timetables.0.at", "1970 to 2199"),
            ({"timetables": [{"kind": "rrule"}]}, "timetables.0.rules", "is required"),
            ({"timetables": [{"kind": "rrule", "rules": "FREQ=X"}]}, "timetables.0.rules", "needs a FREQ"),
            ({"timetables": [{"kind": "solar", "event": "moonrise"}]}, "timetables.0.event", "one of dawn_"),
            (
                {"timetables": [{"kind": "solar", "event": "sunrise", "latitude": 91, "longitude": "x"}]},
                "timetables.0.latitude",
                "-90 to 90",
            ),
            ({"gap": "jump"}, "gap", "one of fire_at_end"),
            ({"overlap": 5}, "overlap", "one of first"),
            ({"jitter": -1}, "jitter", "whole number from 0"),
            ({"jitter": "5"}, "jitter", "whole number"),
            ({"jitter": 5.5}, "jitter", "whole number"),
            (
                {"calendars": {"exclude": [{"kind": "holidays", "country": "GERMANY"}]}},
                "calendars.exclude.0.country",
                "at most 3",
            ),
            (
                {"calendars": {"exclude": [{"kind": "holidays", "country": " "}]}},
                "calendars.exclude.0.country",
                "not empty",
            ),
            ({"start": "2027-01-01", "end": "2026-01-01"}, "end", "before the start"),
            ({"colour": "red"}, "colour", "is not known here"),
            ({"calendars": []}, "calendars", "must be an object"),
            ({"calendars": {"exclude": ["holidays"]}}, "calendars.exclude.0", "no calendar 'holidays'"),
            ({"calendars": {"only": [5]}}, "calendars.only.0", "must be the name"),
            ({"calendars": {"shift": "next"}}, "calendars.shift", "needs calendars"),
            ({"calendars": {"exclude": [WEEKEND], "shift": "up"}}, "calendars.shift", "one of next"),
            ({"calendars": {"data": {"x": {"kind": "y"}}}}, "calendars.data.x.kind", "one of"),
            ({"calendars": {"data": {"x": 5}}}, "calendars.data.x", "must be an object"),
        ],
    )
    def test_what_is_wrong_is_named_by_its_path(self, spec: dict[str, Any], path: str, rule: str) -> None:
        assert rule in " ".join(fields(**spec)[path])

    def test_all_problems_show_at_once(self) -> None:
        assert set(fields(timezone="X", jitter=-1, timetables=[HOURLY, {"kind": "once"}], foo=1)) == {
            "timezone",
            "jitter",
            "timetables.1.at",
            "foo",
        }

    def test_a_spec_that_is_not_an_object_is_refused(self) -> None:
        with pytest.raises(SpecError):
            normalise([])  # type: ignore[arg-type]

    def test_it_names_the_calendars_to_be_pinned(self) -> None:
        spec = {"calendars": {"exclude": ["b", {"kind": "union", "of": ["a", "b"]}], "only": ["c"]}}
        assert calendar_names(spec) == ["a", "b", "c"]
        assert calendar_names({}) == calendar_names({"calendars": {"exclude": 5}}) == []

    def test_datetimes_and_whole_floats_are_taken(self) -> None:
        spec = normalise({"timetables": [HOURLY], "start": datetime(2026, 1, 1, tzinfo=UTC), "jitter": 5.0})
        assert spec == {"timezone": "UTC", "timetables": [HOURLY], "start": "2026-01-01T00:00:00Z", "jitter": 5}

    def test_only_calendars_in_use_are_pinned(self) -> None:
        data = {"off": {"kind": "union", "of": ["weekend"]}, "weekend": WEEKEND, "unused": WEEKEND}
        spec = normalise({"timetables": [HOURLY], "calendars": {"exclude": ["off", "off"], "data": data}})
        assert list(spec["calendars"]["data"]) == ["off", "weekend"]
        assert spec["calendars"]["exclude"] == ["off"]


class TestInstants:
    def test_every_kind_compiles(self) -> None:
        found = timing(
            timezone="Europe/Berlin",
            timetables=[
                {"kind": "cron", "expression": "0 9 1 1 *"},
                {"kind": "interval", "every": {"months": 12}, "anchor": "2026-01-01T10:00"},
                {"kind": "interval", "every": {"weeks": 1}},
                {"kind": "interval", "every": 86400 * 3, "anchor": "1970-01-02T00:00Z"},
                {"kind": "once", "at": "2026-01-01T11:00"},
                {"kind": "rrule", "rules": "DTSTART:20260101T120000\nRRULE:FREQ=YEARLY"},
                {"kind": "solar", "event": "sunrise", "latitude": 52.5, "longitude": 13.4},
            ],
        )
        instants = list(found.between(at("2025-12-31T23:00"), at("2026-01-01T22:00")))
        texts = [text[11:16] for text in shown([i.nominal for i in instants], "Europe/Berlin")]
        assert texts == ["08:17", "09:00", "10:00", "11:00", "12:00"]
        assert found.describe().endswith("(Europe/Berlin)")

    def test_weekly_intervals_without_an_anchor_fall_on_mondays(self) -> None:
        weekly = timing(timezone="Asia/Tokyo", timetables=[{"kind": "interval", "every": {"weeks": 1}}])
        assert weekly.next_after(at("2026-01-01")).nominal == at("2026-01-05", "Asia/Tokyo")  # type: ignore[union-attr]

    def test_start_and_end_are_both_included(self) -> None:
        bounded = timing(start="2026-01-01T01:00:00Z", end="2026-01-01T03:00:00Z")
        hours = [at("2026-01-01T00:00") + 3600 * n for n in (1, 2, 3)]
        assert [i.nominal for i in bounded.between(0, LAST_INSTANT)] == hours
        assert bounded.next_after(0) == Instant(hours[0], hours[0], "")
        assert bounded.next_after(hours[-1]) is None
        assert bounded.count(0, LAST_INSTANT) == 3
        assert bounded.count(hours[0], hours[1]) == 1
        assert bounded.count(hours[-1], LAST_INSTANT) == 0
        assert list(bounded.fires(0, LAST_INSTANT)) == hours

    def test_the_clock_policies_reach_every_timetable(self) -> None:
        both = timing(
            timezone="Europe/Berlin",
            overlap="both",
            gap="skip",
            timetables=[
                {"kind": "cron", "expression": "30 2 * * *"},
                {"kind": "interval", "every": {"days": 1}, "anchor": "2026-01-01T02:40"},
                {"kind": "rrule", "rules": "FREQ=DAILY;BYHOUR=2;BYMINUTE=50"},
            ],
        )
        assert both.count(at("2026-10-24T22:00"), at("2026-10-25T12:00")) == 6
        assert both.count(at("2026-03-28T23:00"), at("2026-03-29T12:00")) == 0

    def test_compiling_is_cached_by_content(self) -> None:
        spec = normalise({"timetables": [HOURLY]})
        assert compile(spec, seed="a") is compile(dict(spec), seed="a")
        assert compile(spec, seed="a") is not compile(spec, seed="b")

    def test_a_million_instants_are_counted_at_once(self) -> None:
        secondly = timing(timetables=[{"kind": "interval", "every": 1}])
        start = time.perf_counter()
        assert secondly.count(0, LAST_INSTANT) == LAST_INSTANT
        assert time.perf_counter() - start < PATIENCE


class TestJitter:
    def test_it_is_deterministic_per_schedule_and_instant(self) -> None:
        spec = normalise({"timetables": [HOURLY], "jitter": 600})
        one, same, other = (compile(spec, seed=seed) for seed in ("a", "a", "b"))
        dues = [[i.due for i in islice(t.between(0, LAST_INSTANT), 50)] for t in (one, same, other)]
        assert dues[0] == dues[1] != dues[2]
        assert compile(spec, seed="a").next_after(3600 * 20).due == dues[0][20]  # type: ignore[union-attr]

    def test_it_spreads_evenly_over_its_bound(self) -> None:
        delays = [i.due - i.nominal for i in islice(timing(jitter=599).between(0, LAST_INSTANT), 2000)]
        assert min(delays) < 10
        assert max(delays) > 589
        assert 280 < sum(delays) / len(delays) < 320

    def test_it_never_reaches_the_next_instant(self) -> None:
        dense = timing(timetables=[{"kind": "interval", "every": 10}], jitter=86400)
        instants = list(islice(dense.between(0, LAST_INSTANT), 500))
        assert all(a.due < b.nominal for a, b in pairwise(instants))
        assert len({i.due - i.nominal for i in instants}) == 10

    def test_a_single_instant_has_the_whole_bound(self) -> None:
        single = timing(timetables=[{"kind": "once", "at": "2026-01-01"}], jitter=86400)
        assert single.next_after(0).due - at("2026-01-01") > 100  # type: ignore[union-attr]

    def test_it_does_not_reach_into_a_blackout(self) -> None:
        found = timing(
            jitter=3599,
            blackouts=[{"from": f"2026-01-01T{h:02d}:00:05Z", "until": f"2026-01-01T{h:02d}:30Z"} for h in range(24)],
        )
        instants = list(found.between(at("2026-01-01") - 1, at("2026-01-01T23:59")))
        assert len(instants) == 24
        assert all(i.due - i.nominal < 5 for i in instants)


class TestExclusions:
    def test_the_reason_is_one_of_the_ledgers(self) -> None:
        found = timing(calendars={"exclude": [WEEKEND]})
        assert found.next_after(at("2026-01-03T10:30")).skip == FireReason.BLACKOUT  # type: ignore[union-attr]

    def test_instants_on_excluded_days_are_there_with_a_reason(self) -> None:
        daily = timing(
            timezone="Europe/Berlin",
            timetables=[{"kind": "cron", "expression": "0 9 * * *"}],
            calendars={"exclude": ["off"], "data": {"off": WEEKEND}},
        )
        week = list(daily.between(at("2026-01-02T00:00"), at("2026-01-05T12:00")))
        assert [bool(i.skip) for i in week] == [False, True, True, False]
        assert [daily.why_skipped(i.nominal) for i in week] == ["", "Calendar off: Sat", "Calendar off: Sun", ""]
        assert daily.next_fire(week[0].nominal) == week[3]
        assert list(daily.fires(at("2026-01-02"), at("2026-01-05T12:00"))) == [week[0].nominal, week[3].nominal]
        assert daily.count(at("2026-01-02"), at("2026-01-05T12:00")) == 4

    def test_only_on_keeps_the_days_of_any_of_its_calendars(self) -> None:
        daily = timing(
            timetables=[{"kind": "cron", "expression": "0 9 * * *"}],
            calendars={"only": [WEEKEND, {"kind": "dates", "dates": ["2026-01-07"]}]},
        )
        found = [text[:10] for text in shown(list(daily.fires(at("2026-01-02"), at("2026-01-11"))))]
        assert found == ["2026-01-03", "2026-01-04", "2026-01-07", "2026-01-10"]
        assert daily.why_skipped(at("2026-01-05T09:00")) == "Calendar weekly or dates: not one of its days"

    def test_business_day_shifts_replace_skips(self) -> None:
        monthly = timing(
            timetables=[{"kind": "interval", "every": {"months": 1}, "anchor": "2026-01-31T09:00:00Z"}],
            calendars={"exclude": [WEEKEND], "shift": "previous"},
        )
        found = list(monthly.between(at("2026-01-01"), at("2026-03-05")))
        assert [(text[:10]) for text in shown([i.nominal for i in found])] == ["2026-01-30", "2026-02-27"]
        assert not any(i.skip for i in found)

    def test_a_skipping_blackout_drops_what_falls_into_it(self) -> None:
        found = timing(blackouts=[{"from": "2026-01-01T02:00:00Z", "until": "2026-01-01T04:00:00Z"}])
        instants = list(found.between(at("2026-01-01T00:30"), at("2026-01-01T04:30")))
        assert [i.skip for i in instants] == ["", "blackout", "blackout", ""]
        assert found.why_skipped(at("2026-01-01T02:00")) == "A blackout window"
        assert found.next_fire(at("2026-01-01T01:00")) == instants[3]

    def test_a_postponing_blackout_runs_its_last_fire_at_the_end(self) -> None:
        found = timing(blackouts=[{"from": "2026-01-01T02:00Z", "until": "2026-01-01T04:30Z", "action": "postpone"}])
        instants = list(found.between(at("2026-01-01T01:30"), at("2026-01-01T05:30")))
        end = at("2026-01-01T04:30")
        assert instants == [
            Instant(at("2026-01-01T02:00"), at("2026-01-01T02:00"), "blackout"),
            Instant(at("2026-01-01T03:00"), at("2026-01-01T03:00"), "blackout"),
            Instant(at("2026-01-01T04:00"), end, ""),
            Instant(at("2026-01-01T05:00"), at("2026-01-01T05:00"), ""),
        ]
        assert found.why_skipped(instants[0].nominal) == "A later fire is postponed instead"
        assert list(found.due_between(at("2026-01-01T04:10"), end)) == [instants[2]]
        assert list(found.due_between(end, at("2026-01-01T05:00"))) == [instants[3]]

    def test_a_fire_right_at_the_end_of_a_blackout_stands_for_the_postponed(self) -> None:
        found = timing(blackouts=[{"from": "2026-01-01T02:00Z", "until": "2026-01-01T04:00Z", "action": "postpone"}])
        instants = list(found.between(at("2026-01-01T01:30"), at("2026-01-01T04:30")))
        assert [i.skip for i in instants] == ["blackout", "blackout", ""]

    def test_nothing_is_postponed_in_favour_of_what_does_not_fire(self) -> None:
        found = timing(
            timetables=[{"kind": "cron", "expression": "0 12 * * *"}],
            calendars={"exclude": [WEEKEND]},
            blackouts=[
                {"from": "2026-01-02T06:00Z", "until": "2026-01-05T06:00Z", "action": "postpone"},
                {"from": "2026-01-05T06:00Z", "until": "2026-01-05T13:00Z"},
            ],
        )
        instants = list(found.between(at("2026-01-02"), at("2026-01-06")))
        assert [i.skip for i in instants] == ["", "blackout", "blackout", "blackout"]
        assert instants[0].due == at("2026-01-05T13:00")

    def test_nothing_is_postponed_in_favour_of_what_lies_behind_the_end(self) -> None:
        found = timing(
            end="2026-01-01T03:30Z",
            blackouts=[{"from": "2026-01-01T02:30Z", "until": "2026-01-01T06:00Z", "action": "postpone"}],
        )
        assert found.next_after(at("2026-01-01T02:00")) == Instant(at("2026-01-01T03:00"), at("2026-01-01T06:00"), "")

    def test_nothing_falls_in_favour_of_a_blackout_without_later_instants(self) -> None:
        found = timing(
            timetables=[{"kind": "once", "at": "2026-01-01T03:00Z"}],
            blackouts=[{"from": "2026-01-01T02:30Z", "until": "2026-01-01T06:00Z", "action": "postpone"}],
        )
        assert found.next_after(0) == Instant(at("2026-01-01T03:00"), at("2026-01-01T06:00"), "")

    def test_a_blackout_without_end_skips(self) -> None:
        always = [
            {
                "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
                "from": "00:00",
                "until": "24:00",
                "action": "postpone",
            }
        ]
        found = timing(blackouts=always)
        assert found.next_after(at("2026-01-01")).skip == "blackout"  # type: ignore[union-attr]
        assert found.why_skipped(at("2026-01-01")) == "A blackout window"

    @pytest.mark.parametrize(
        "spec",
        [
            {"calendars": {"only": [{"kind": "dates", "dates": ["2025-01-01"]}]}},
            {"calendars": {"exclude": [{"kind": "complement", "of": [{"kind": "dates", "dates": ["2025-01-01"]}]}]}},
            {
                "blackouts": [
                    {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "until": "24:00"},
                ]
            },
        ],
    )
    def test_excluding_everything_answers_never_in_bounded_time(self, spec: dict[str, Any]) -> None:
        for every in (1, 86400):
            start = time.perf_counter()
            found = timing(timetables=[{"kind": "interval", "every": every}], **spec)
            assert found.next_fire(at("2026-01-01")) is None
            assert list(found.fires(at("2026-01-01"), at("2026-02-01"))) == []
            assert time.perf_counter() - start < PATIENCE


WINDOWS = [
    {"from": "fri 18:00", "until": "mon 06:00"},
    {"from": "tue 02:00", "until": "tue 05:00", "action": "postpone"},
    {"from": "wed 22:00", "until": "thu 03:00", "action": "postpone"},
    {"from": "2026-03-28T20:00", "until": "2026-03-29T09:00", "action": "postpone"},
]
ENTRIES = [
    {"kind": "cron", "expression": "*/20 * * * *"},
    {"kind": "cron", "expression": "30 2 * * *"},
    {"kind": "cron", "expression": "H H * * MON-FRI"},
    {"kind": "interval", "every": 1234},
    {"kind": "interval", "every": {"days": 1}, "anchor": "2026-01-01T02:15"},
    {"kind": "rrule", "rules": "DTSTART:20260101T013000\nRRULE:FREQ=HOURLY;INTERVAL=5"},
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=3),
    st.sampled_from(ZONES),
    st.lists(st.sampled_from(WINDOWS), max_size=3),
    st.sampled_from([None, "next", "previous", "exclude", "only"]),
    st.sampled_from([0, 30, 5000]),
    st.integers(at("2026-01-01"), at("2026-12-20")),
)
def test_instants_are_coherent(
    entries: list[dict[str, Any]],
    zone: str,
    blackouts: list[dict[str, Any]],
    calendars: str | None,
    jitter: int,
    after: int,
) -> None:
    spec: dict[str, Any] = {"timezone": zone, "timetables": entries, "blackouts": blackouts, "jitter": jitter}
    if calendars == "only":
        spec["calendars"] = {"only": [WEEKEND]}
    elif calendars:
        spec["calendars"] = {"exclude": [WEEKEND]} | ({} if calendars == "exclude" else {"shift": calendars})
    found = timing(**spec)
    until = after + 4 * DAY
    instants = list(found.between(after, until))
    repeated = []
    position = after
    while (instant := found.next_after(position)) is not None and instant.nominal <= until:
        repeated.append(instant)
        position = instant.nominal
    assert instants == repeated
    assert found.count(after, until) == len(instants)
    assert list(found.fires(after, until)) == [i.nominal for i in instants if not i.skip]
    assert all(a.nominal < b.nominal and a.due < b.due for a, b in pairwise(instants))
    for instant in instants:
        assert instant.nominal <= instant.due
        assert instant.skip in ("", "blackout")
        assert (found.why_skipped(instant.nominal) != "") == (instant.skip != "")
        if instant.skip or not blackouts:
            assert instant.due - instant.nominal <= (0 if instant.skip else jitter)
        assert instant.skip or found.blackouts is None or found.blackouts.at(instant.due) is None
    middle = after + 2 * DAY
    due = list(found.due_between(after + DAY, middle))
    assert due == [i for i in found.between(after - 10 * DAY, middle) if after + DAY < i.due <= middle]
