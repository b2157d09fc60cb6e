"""The agenda: hours and days of what is coming, hot hours, and lists of fires."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from schedules import agenda as module
from schedules.agenda import Cell, agenda, listing, mark, midnight
from schedules.timing.zones import UnknownZone
from tests.schedules.builders import MINUTELY, T0, at, schedule

pytestmark = pytest.mark.django_db

DAY = date(2026, 3, 5)


def cron(expression: str, **more: Any) -> dict[str, Any]:
    return {"timetables": [{"kind": "cron", "expression": expression}], **more}


def crowd(count: int = 6) -> None:
    for index in range(count):
        schedule(cron("0 2 * * *"), name=f"night-{index}")


def test_a_crowd_in_one_minute_makes_its_hour_hot_although_other_hours_have_more_fires() -> None:
    crowd()
    schedule(MINUTELY, name="steady")
    seen = agenda(DAY, 2, now=T0)
    assert seen.moment == timedelta(minutes=1)
    two, three = seen.days[DAY][2], seen.days[DAY][3]
    assert (two.total, two.peak, two.level, two.is_hot) == (66, 7, 5, True)
    assert (three.total, three.peak, three.level, three.is_hot) == (60, 1, 1, False)
    assert [(cell.day, cell.hour) for cell in seen.hot] == [(DAY, 2), (DAY + timedelta(days=1), 2)]
    assert (seen.total_of(DAY), seen.peak_of(DAY), seen.total, seen.schedules) == (1446, 7, 2892, 7)


def test_hours_are_those_of_the_zone_and_what_is_past_is_left_out() -> None:
    crowd(1)
    seen = agenda(DAY, 1, timezone="Asia/Kolkata", now=T0)
    assert {hour: cell.total for hour, cell in seen.days[DAY].items() if cell.total} == {7: 1}
    assert agenda(DAY, 1, now=at(days=3)).days == {DAY: {}}
    assert agenda(T0.date(), 1, now=T0).days[T0.date()].keys() == set(range(12, 24))


def test_an_hour_that_comes_twice_is_one_cell_and_one_that_is_missing_is_none() -> None:
    schedule(cron("30 * * * *"), name="half")
    autumn = agenda(date(2026, 10, 25), 1, timezone="Europe/Berlin", now=datetime(2026, 10, 24, tzinfo=UTC))
    assert autumn.days[date(2026, 10, 25)][2].total == 2
    spring = agenda(date(2026, 3, 29), 1, timezone="Europe/Berlin", now=T0)
    assert 2 not in spring.days[date(2026, 3, 29)]
    assert midnight(date(2026, 3, 29), "Europe/Berlin") == datetime(2026, 3, 28, 23, tzinfo=UTC)


def test_many_schedules_and_long_ranges_are_looked_at_by_quarters(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(3)
    assert agenda(DAY, 9, now=T0).moment == timedelta(minutes=15)
    monkeypatch.setattr(module, "MANY", 2)
    assert agenda(DAY, 1, now=T0).moment == timedelta(minutes=15)


def test_a_range_is_refused_that_is_none_or_too_long() -> None:
    for days in (0, 43):
        with pytest.raises(ValueError, match="1 to 42"):
            agenda(DAY, days, now=T0)
    with pytest.raises(UnknownZone):
        agenda(DAY, 1, timezone="Mars/Base", now=T0)


def test_nothing_is_hot_where_nothing_stands_out() -> None:
    hours = [Cell(DAY, hour, at(hours=hour), 60, 9) for hour in range(24)]
    assert not any(cell.is_hot for cell in mark(hours))
    assert not mark([])
    few = [Cell(DAY, 1, T0, 2, 2), Cell(DAY, 2, T0, 1, 1)]
    assert not any(cell.is_hot for cell in mark(few))


def test_a_list_names_the_fires_of_an_hour_in_order_and_says_how_many_there_are() -> None:
    crowd(2)
    schedule(cron("*/20 * * * *"), name="often")
    start = datetime(2026, 3, 5, 2, tzinfo=UTC)
    found = listing(start, start + timedelta(hours=1), now=T0)
    assert [(f"{when:%H:%M}", name) for when, _, name in found.fires] == [
        ("02:00", "night-0"),
        ("02:00", "night-1"),
        ("02:00", "often"),
        ("02:20", "often"),
        ("02:40", "often"),
    ]
    assert found.total == 5


def test_a_list_keeps_the_earliest_and_what_a_schedule_may_still_start() -> None:
    schedule(MINUTELY, name="minutely")
    schedule(cron("30 2 * * *"), name="half")
    schedule(cron("*/10 * * * *"), name="limited", max_executions=1)
    start = datetime(2026, 3, 5, 2, tzinfo=UTC)
    found = listing(start, start + timedelta(hours=1), most=3, now=start)
    assert [f"{when:%M} {name}" for when, _, name in found.fires] == ["00 limited", "00 minutely", "01 minutely"]
    assert found.total == 63  # what is up to now is not counted against the maximum
