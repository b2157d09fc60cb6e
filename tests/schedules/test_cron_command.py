"""`manage.py cron`: what a person, or a script, gets to see."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("cron", *arguments, stdout=out)
    return out.getvalue()


def as_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return found


def test_the_table_shows_local_time_with_offset_and_utc_and_marks_the_clock_change() -> None:
    shown = run("30 2 * * *", "--tz", "America/New_York", "--after", "2026-03-07T00:00", "--next", "3")
    assert "At 02:30" in shown
    assert "30 2 * * *   America/New_York, tzdata 20" in shown
    assert "Sat 2026-03-07 02:30:00-05:00  2026-03-07 07:30:00Z" in shown
    assert "Sun 2026-03-08 03:00:00-04:00  2026-03-08 07:00:00Z  moved" in shown
    assert "! 2026-03-08: the clock jumps from 02:00 to 03:00; 02:30 does not exist: fires at 03:00." in shown


def test_json_says_the_same_for_scripts() -> None:
    shown = as_json("0 1-5 * * MON", "--tz", "Europe/Berlin", "--after", "2026-10-25T00:00:00+00:00", "--next", "1")
    assert shown["expression"] == "0 1-5 * * 1"
    assert shown["source"] == "0 1-5 * * MON"
    assert shown["description"] == "At 01:00, 02:00, 03:00, 04:00 and 05:00, Monday"
    assert shown["timezone"] == "Europe/Berlin"
    assert shown["next"] == [
        {"local": "2026-10-26T01:00:00+01:00", "utc": "2026-10-26T00:00:00+00:00", "clock_change": None}
    ]
    assert shown["warnings"] == []


def test_warnings_carry_their_code_and_instant() -> None:
    shown = as_json("30 2 13 * SUN", "--tz", "Europe/Berlin", "--after", "2026-01-01T00:00", "--next", "0")
    assert [(warning["code"], warning["at"]) for warning in shown["warnings"]] == [
        ("either_day", None),
        ("gap", "2026-03-29T01:00:00+00:00"),
        ("overlap", "2026-10-25T01:00:00+00:00"),
    ]
    assert shown["next"] == []


def test_the_next_ten_from_now_are_the_default() -> None:
    assert len(as_json("* * * * *")["next"]) == 10


def test_policies_dialect_and_seed_are_options() -> None:
    start = ["--tz", "Europe/Berlin", "--after", "2026-03-28T12:00", "--next", "1"]
    assert as_json("30 2 * * *", *start)["next"][0]["local"] == "2026-03-29T03:00:00+02:00"
    assert as_json("30 2 * * *", *start, "--gap", "skip")["next"][0]["local"] == "2026-03-30T02:30:00+02:00"
    changed = as_json("0 22-2 * * *", "--dialect", "vixie")
    assert changed["notes"] == ["hour 22-2 wraps around: 22-23,0-2"]
    assert "changed: hour 22-2" in run("0 22-2 * * *", "--dialect", "vixie")
    assert as_json("H H * * *", "--seed", "a")["next"] == as_json("H H * * *", "--seed", "a")["next"]
    assert "Never fires" in run("0 0 30 2 *")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0 0 * * FRI-MON"], "Try 'FRI,SAT,SUN,MON'"),
        (["0 0 * * *", "--tz", "Mars/Olympus"], "IANA"),
        (["0 0 * * *", "--after", "tomorrow"], "ISO 8601"),
        (["0 0 * * *", "--next", "-1"], "0 to 1000"),
        (["0 0 * * *", "--next", "5000"], "0 to 1000"),
        (["H 0 * * *"], "needs a seed"),
    ],
)
def test_what_is_wrong_is_said_plainly(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run(*arguments)
