"""What the author of a schedule is shown: marks at clock changes, and warnings."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schedules.timing.cron import parse, zone_of
from schedules.timing.cron.preview import Fire, clock_changes, next_fires, warnings_about
from tests.schedules.timing.cron_oracle import utc

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW_YORK = zone_of("America/New_York")
SPRING = "2026-03-08: the clock jumps from 02:00 to 03:00; "
AUTUMN = "2026-11-01: the clock goes back from 02:00 to 01:00; "


def codes(expression: str, zone: str = "UTC", **policy: str) -> list[str]:
    found = warnings_about(parse(expression), zone_of(zone), now=NOW, **policy)  # type: ignore[arg-type]
    return [warning.code for warning in found]


def test_fires_carry_the_mark_of_a_clock_change() -> None:
    spring = next_fires(parse("30 2 * * *"), NEW_YORK, after=utc(2026, 3, 7, 8), count=2)
    assert spring == [Fire(utc(2026, 3, 8, 7), "moved"), Fire(utc(2026, 3, 9, 6, 30), "")]
    exact = next_fires(parse("0 3 * * *"), NEW_YORK, after=utc(2026, 3, 7, 9), count=1)
    assert exact == [Fire(utc(2026, 3, 8, 7), "")]
    autumn = next_fires(parse("30 1 * * *"), NEW_YORK, after=utc(2026, 11, 1), count=3, overlap="both")
    assert [fire.mark for fire in autumn] == ["first pass", "second pass", ""]
    hourly = next_fires(parse("0 * * * *"), NEW_YORK, after=utc(2026, 3, 8, 6, 30), count=1)
    assert hourly == [Fire(utc(2026, 3, 8, 7), "")]
    assert next_fires(parse("@reboot"), NEW_YORK, after=0, count=3) == []
    assert next_fires(parse("0 0 * * *"), NEW_YORK, after=0, count=0) == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 9 * * 1-5", []),
        ("@reboot", ["reboot"]),
        ("0 0 30 2 *", ["never"]),
        ("0 0 0 1 1 * 2025", ["ended"]),
        ("0 0 13 * 5", ["either_day"]),
        ("30 0 0 13 * 5 2030", ["either_day"]),
        ("0 0 13 * +5", []),
        ("* * * * * *", ["sub_minute"]),
        ("*/40 * * * *", ["uneven_step"]),
        ("0 */5 * * *", ["uneven_step"]),
        ("*/15 */6 * * *", []),
        ("*/40,1 * * * *", []),
        ("0 0 31 * *", ["short_month"]),
        ("0 0 30,31 * *", ["short_month"]),
        ("0 0 31,L * *", []),
        ("0 0 31 * +5", []),
    ],
)
def test_surprises_in_the_expression_are_pointed_out(expression: str, expected: list[str]) -> None:
    assert codes(expression) == expected


@pytest.mark.parametrize(
    ("expression", "policy", "told"),
    [
        ("30 2 * * *", {}, [SPRING + "02:30 does not exist: fires at 03:00."]),
        ("30 2 * * *", {"gap": "skip"}, [SPRING + "02:30 does not exist: no fire."]),
        ("0,30 2 * * *", {}, [SPRING + "02:00, 02:30 do not exist: fires once, at 03:00."]),
        ("*/10 2 * * *", {}, [SPRING + "02:00, 02:10, 02:20 and more do not exist: no fire."]),
        ("30 1 * * *", {}, [AUTUMN + "01:30 comes twice: fires in the first pass only."]),
        ("30 1 * * *", {"overlap": "last"}, [AUTUMN + "01:30 comes twice: fires in the last pass only."]),
        ("30 1 * * *", {"overlap": "both"}, [AUTUMN + "01:30 comes twice: fires in both passes."]),
        ("0,30 1 * * *", {}, [AUTUMN + "01:00, 01:30 come twice: fires in the first pass only."]),
        ("*/30 1 * * *", {}, [AUTUMN + "01:00, 01:30 come twice: fires in both passes."]),
        ("30 * * * *", {}, []),
        ("0 12 * * *", {}, []),
        ("15 30 2 8 3 *", {}, [SPRING + "02:30:15 does not exist: fires at 03:00."]),
    ],
)  # fmt: skip
def test_clock_changes_of_the_next_year_are_told_with_what_will_happen(
    expression: str, policy: dict[str, str], told: list[str]
) -> None:
    found = warnings_about(parse(expression), NEW_YORK, now=NOW, **policy)  # type: ignore[arg-type]
    assert [warning.message for warning in found] == told
    assert all(warning.at in (utc(2026, 3, 8, 7), utc(2026, 11, 1, 6)) for warning in found)


def test_reboot_has_no_clock_changes() -> None:
    assert clock_changes(parse("@reboot"), NEW_YORK, after=0, until=10**9) == []


def test_a_jump_over_a_whole_day_is_told_with_its_dates() -> None:
    (told,) = clock_changes(
        parse("0 9 30 12 *"), zone_of("Pacific/Apia"), after=utc(2011, 12, 1), until=utc(2012, 1, 15)
    )
    assert told.message == (
        "2011-12-30: the clock jumps from 2011-12-30 00:00 to 2011-12-31 00:00; "
        "2011-12-30 09:00 does not exist: fires at 2011-12-31 00:00."
    )
