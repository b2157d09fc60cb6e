from __future__ import annotations

from typing import Any

import pytest

from schedules.placement import DEFAULT_SHIFT, Placement, moved, moved_cron, placement_of
from schedules.timing import occurrences
from scheduling_project.common.errors import InvalidInput


@pytest.mark.parametrize(
    ("expression", "minutes", "expected"),
    [
        ("0 2 * * *", 17, "17 2 * * *"),
        ("50 2 * * 1", 20, "10 3 * * 1"),
        ("50 23 * * *", 20, None),
        ("0,30 * * * *", 10, "10,40 * * * *"),
        ("0,30 * * * *", 31, None),
        ("50 */2 * * *", 20, None),
        ("*/15 * * * *", 4, "4-59/15 * * * *"),
        ("*/15 * * * *", 15, None),
        ("*/7 * * * *", 2, None),
        ("*/15 * * * *", 0, "*/15 * * * *"),
        ("0 0 2 * * *", 5, "0 5 2 * * *"),
        ("@daily", 5, "5 0 * * *"),
        ("@hourly", 5, "5 * * * *"),
        ("H 2 * * *", 5, None),
        ("* * * * *", 1, None),
        ("10-20 * * * *", 1, None),
    ],
)
def test_a_cron_expression_moves_within_its_day_or_not_at_all(
    expression: str, minutes: int, expected: str | None
) -> None:
    assert moved_cron(expression, minutes) == expected


@pytest.mark.parametrize(
    ("timetable", "minutes"),
    [
        ({"kind": "cron", "expression": "0 2 * * *"}, 45),
        ({"kind": "cron", "expression": "30 4 1 * *"}, 45),
        ({"kind": "cron", "expression": "*/20 6 * * mon-fri"}, 3),
        ({"kind": "interval", "every": 3600}, 12),
        ({"kind": "interval", "every": 900, "anchor": "2026-01-01T00:05:00Z"}, 4),
    ],
)
def test_every_fire_of_a_moved_spec_is_later_by_just_that(timetable: dict[str, Any], minutes: int) -> None:
    spec = occurrences.normalise({"timezone": "Europe/Berlin", "timetables": [timetable]})
    later = moved(spec, minutes)
    assert later is not None
    assert occurrences.normalise(later) == later
    begin, end = 1_767_225_600, 1_767_225_600 + 40 * 86_400
    was = list(occurrences.compile(spec, seed="").fires(begin, end))
    will = list(occurrences.compile(later, seed="").fires(begin + minutes * 60, end + minutes * 60))
    assert will == [fire + minutes * 60 for fire in was]
    assert was


@pytest.mark.parametrize(
    "timetable",
    [
        {"kind": "once", "at": "2026-05-01T08:00:00Z"},
        {"kind": "interval", "every": {"months": 1}, "anchor": "2026-01-31T09:00:00Z"},
        {"kind": "interval", "every": 300},
        {"kind": "rrule", "rules": "DTSTART:20260105T090000\nRRULE:FREQ=WEEKLY;BYDAY=MO"},
    ],
)
def test_what_says_what_it_means_is_not_moved(timetable: dict[str, Any]) -> None:
    assert moved(occurrences.normalise({"timetables": [timetable]}), 5) is None


def test_one_timetable_that_cannot_be_moved_keeps_the_others() -> None:
    timetables = [{"kind": "cron", "expression": "0 2 * * *"}, {"kind": "once", "at": "2026-05-01T08:00:00Z"}]
    assert moved(occurrences.normalise({"timetables": timetables}), 5) is None


def test_without_a_word_a_schedule_may_be_moved_within_the_hour() -> None:
    assert placement_of({}) == Placement(max_shift=DEFAULT_SHIFT)


def test_all_that_metadata_can_say() -> None:
    given = {"fixed": True, "max_shift": 60, "window": {"from": "22:00", "to": "06:00"}, "after": ["load"]}
    placement = placement_of({"placement": given})
    assert placement == Placement(True, 60, (22 * 3600, 6 * 3600), ("load",))
    assert [placement.allows(hour * 3600) for hour in (21, 22, 3, 6, 7)] == [False, True, True, True, False]


def test_a_window_within_a_day() -> None:
    placement = placement_of({"placement": {"window": {"from": "09:00", "to": "17:30"}}})
    assert [placement.allows(second) for second in (0, 9 * 3600, 17 * 3600 + 1800, 18 * 3600)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("no", "metadata.placement"),
        ({"fixed": "yes"}, "metadata.placement.fixed"),
        ({"max_shift": -1}, "metadata.placement.max_shift"),
        ({"max_shift": True}, "metadata.placement.max_shift"),
        ({"max_shift": 86_400}, "metadata.placement.max_shift"),
        ({"after": "load"}, "metadata.placement.after"),
        ({"after": [1]}, "metadata.placement.after"),
        ({"window": {"from": "25:00", "to": "06:00"}}, "metadata.placement.window.from"),
        ({"window": {"from": "22:00"}}, "metadata.placement.window.to"),
        ({"window": []}, "metadata.placement.window.from"),
        ({"flexible": True}, "metadata.placement.flexible"),
    ],
)
def test_a_wrong_placement_is_named(given: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        placement_of({"placement": given})
    assert field in caught.value.fields
