"""What people are told about a schedule before it exists."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from schedules.timing.occurrences import SpecError, compile, normalise
from schedules.timing.preview import MOST_FIRES, preview, spec_of
from schedules.timing.warnings import warnings_about
from tests.patience import PATIENCE
from tests.schedules.timing.test_timetables import at

WEEKEND = {"kind": "weekly", "days": ["sat", "sun"]}
NOW = at("2026-03-27T12:00")


def codes(spec: dict[str, Any], now: int = NOW) -> list[str]:
    return [warning.code for warning in warnings_about(compile(normalise(spec), seed="x"), now)]


def messages(spec: dict[str, Any], now: int = NOW) -> str:
    return "\n".join(warning.message for warning in warnings_about(compile(normalise(spec), seed="x"), now))


class TestPreview:
    def test_it_shows_local_time_with_offset_and_utc(self) -> None:
        shown = preview(spec_of("30 2 * * *", timezone="Europe/Berlin"), now=NOW, count=3).as_dict()
        assert shown["description"] == "At 02:30 (Europe/Berlin)"
        assert shown["timezone"] == "Europe/Berlin"
        assert shown["next"] == [
            {"local": "2026-03-28T02:30:00+01:00", "utc": "2026-03-28T01:30:00Z"},
            {"local": "2026-03-29T03:00:00+02:00", "utc": "2026-03-29T01:00:00Z", "change": "moved"},
            {"local": "2026-03-30T02:30:00+02:00", "utc": "2026-03-30T00:30:00Z"},
        ]
        assert [warning["code"] for warning in shown["warnings"]] == ["gap", "overlap", "gap"]
        assert shown["warnings"][0]["at"] == "2026-03-29T01:00:00Z"
        assert json.loads(json.dumps(shown)) == shown

    def test_it_accepts_the_lenient_dialect(self) -> None:
        shown = preview(spec_of("0 9 * * FRI-MON", dialect="vixie"), now=NOW, count=1).as_dict()
        assert shown["spec"]["timetables"] == [{"kind": "cron", "expression": "0 9 * * 0,1,5,6"}]

    def test_a_wrong_spec_is_refused_with_its_path(self) -> None:
        with pytest.raises(SpecError) as caught:
            preview(spec_of("61 * * * *"), now=NOW)
        assert list(caught.value.fields) == ["timetables.0.expression"]

    def test_jitter_shows_as_due(self) -> None:
        shown = preview(
            {"timetables": [{"kind": "interval", "every": 3600}], "jitter": 3000}, now=NOW, seed="a"
        ).as_dict()
        assert len(shown["next"]) == 10
        assert all(fire["due"] > fire["utc"] for fire in shown["next"])

    def test_skipped_instants_say_why(self) -> None:
        spec = {"timetables": [{"kind": "cron", "expression": "0 9 * * *"}], "calendars": {"exclude": [WEEKEND]}}
        shown = preview(spec, now=NOW, count=1).as_dict()
        assert [fire["utc"] for fire in shown["next"]] == ["2026-03-30T09:00:00Z"]
        assert shown["skipped"] == [
            {"local": "2026-03-28T09:00:00+00:00", "utc": "2026-03-28T09:00:00Z", "reason": "Calendar weekly: Sat"},
            {"local": "2026-03-29T09:00:00+00:00", "utc": "2026-03-29T09:00:00Z", "reason": "Calendar weekly: Sun"},
        ]

    @pytest.mark.parametrize(
        ("entry", "expected"),
        [
            (
                {"kind": "interval", "every": {"days": 1}, "anchor": "2026-01-01T02:30"},
                ["first pass", "second pass", ""],
            ),
            ({"kind": "rrule", "rules": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30"}, ["first pass", "second pass", ""]),
            ({"kind": "cron", "expression": "30 2 * * *"}, ["first pass", "second pass", ""]),
            ({"kind": "interval", "every": 86400}, ["", "", ""]),
        ],
    )
    def test_it_marks_both_passes_of_an_overlap(self, entry: dict[str, Any], expected: list[str]) -> None:
        spec = {"timezone": "Europe/Berlin", "overlap": "both", "timetables": [entry]}
        fires = preview(spec, now=at("2026-10-24T12:00"), count=3).fires
        assert [fire.change for fire in fires] == expected

    @pytest.mark.parametrize(
        ("entry", "local"),
        [
            ({"kind": "interval", "every": {"days": 1}, "anchor": "2026-01-01T02:30"}, "T03:00:00+02:00"),
            ({"kind": "rrule", "rules": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30"}, "T03:30:00+02:00"),
        ],
    )
    def test_it_marks_what_a_gap_moved(self, entry: dict[str, Any], local: str) -> None:
        spec = {"timezone": "Europe/Berlin", "timetables": [{"kind": "once", "at": "2026-01-01"}, entry]}
        (fire,) = preview(spec, now=at("2026-03-28T12:00"), count=1).as_dict()["next"]
        assert fire["local"].endswith(local)
        assert fire["change"] == "moved"

    def test_hostile_questions_take_bounded_work(self) -> None:
        specs: list[dict[str, Any]] = [
            {
                "timetables": [{"kind": "interval", "every": 1}],
                "calendars": {"only": [{"kind": "dates", "dates": ["2020-01-01"]}]},
            },
            {"timetables": [{"kind": "rrule", "rules": "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30"}]},
            {"timetables": [{"kind": "cron", "expression": "0 0 30 2 *"}]},
            {"timetables": [{"kind": "solar", "event": "sunrise", "latitude": 90, "longitude": 0}]},
        ]
        for spec in specs:
            start = time.perf_counter()
            assert preview(spec, now=NOW, count=10**9).fires == []
            assert time.perf_counter() - start < PATIENCE
        assert (
            len(preview({"timetables": [{"kind": "interval", "every": 1}]}, now=NOW, count=10**9).fires) == MOST_FIRES
        )


class TestWarnings:
    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ({"timetables": [{"kind": "cron", "expression": "0 9 * * *"}]}, []),
            ({"timetables": [{"kind": "cron", "expression": "0 0 30 2 *"}]}, ["never"]),
            ({"timetables": [{"kind": "once", "at": "2026-01-01"}]}, ["ended"]),
            (
                {
                    "timetables": [{"kind": "cron", "expression": "0 9 1 1 *"}],
                    "start": "2026-02-01",
                    "end": "2026-12-01",
                },
                ["never"],
            ),
            ({"timetables": [{"kind": "cron", "expression": "0 9 1 * 1"}]}, ["either_day"]),
            ({"timetables": [{"kind": "cron", "expression": "*/10 * * * * *"}]}, ["sub_minute"]),
            ({"timetables": [{"kind": "interval", "every": 1}]}, ["sub_minute"]),
            ({"timetables": [{"kind": "interval", "every": 20}]}, ["sub_minute"]),
            ({"timetables": [{"kind": "interval", "every": 300}], "jitter": 299}, []),
            ({"timetables": [{"kind": "interval", "every": 300}], "jitter": 300}, ["jitter_cut"]),
            (
                {"timetables": [{"kind": "once", "at": "2026-01-01"}, {"kind": "interval", "every": 3600}]},
                ["ended"],
            ),
            (
                {
                    "timetables": [{"kind": "interval", "every": 3600}],
                    "calendars": {"only": [{"kind": "dates", "dates": ["2026-05-01"]}]},
                },
                ["calendar_ends"],
            ),
            (
                {
                    "timetables": [{"kind": "interval", "every": 3600}],
                    "end": "2026-04-30T23:00Z",
                    "calendars": {"exclude": [{"kind": "dates", "dates": ["2026-05-01"]}]},
                },
                [],
            ),
            (
                {
                    "timetables": [{"kind": "interval", "every": 3600}],
                    "calendars": {"exclude": [{"kind": "holidays", "country": "DE"}]},
                },
                [],
            ),
            (
                {
                    "timetables": [{"kind": "interval", "every": 3600}],
                    "calendars": {"only": [{"kind": "dates", "dates": ["2025-05-01"]}]},
                },
                ["calendar_ends", "all_skipped"],
            ),
            (
                {
                    "timetables": [{"kind": "interval", "every": 3600}],
                    "blackouts": [{"from": "2026-01-01", "until": "2028-01-01"}],
                },
                ["all_skipped"],
            ),
        ],
    )
    def test_what_may_surprise_has_a_code(self, spec: dict[str, Any], expected: list[str]) -> None:
        assert codes(spec) == expected

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            (
                {"gap": "fire_at_end"},
                ["02:30 does not exist: fires at 03:00.", "02:30 comes twice: fires in the first pass only."],
            ),
            (
                {"gap": "skip", "overlap": "both"},
                ["02:30 does not exist: no fire.", "02:30 comes twice: fires in both passes."],
            ),
            ({"overlap": "last"}, ["fires at 03:00", "fires in the last pass only"]),
        ],
    )
    def test_clock_changes_of_the_next_year_say_what_will_happen(
        self, spec: dict[str, Any], expected: list[str]
    ) -> None:
        daily = {"kind": "interval", "every": {"days": 1}, "anchor": "2026-01-01T02:30"}
        said = messages({"timezone": "Europe/Berlin", "timetables": [daily], **spec})
        assert [text for text in expected if text not in said] == []
        assert "2026-03-29: the clock jumps from 02:00 to 03:00" in said
        assert "2026-10-25: the clock goes back from 03:00 to 02:00" in said

    def test_recurrences_are_told_apart(self) -> None:
        rules = "FREQ=DAILY;BYHOUR=2;BYMINUTE=0,10,20,30,45"
        said = messages({"timezone": "Europe/Berlin", "timetables": [{"kind": "rrule", "rules": rules}]})
        assert "02:00, 02:10, 02:20 and more do not exist: fires from 03:00 on." in said
        assert "02:00, 02:10, 02:20 and more come twice" in said
        hourly = {"kind": "rrule", "rules": "FREQ=HOURLY"}
        weekly = {"kind": "rrule", "rules": "FREQ=WEEKLY;BYDAY=WE;BYHOUR=2"}
        assert codes({"timezone": "Europe/Berlin", "timetables": [hourly, weekly]}) == []
