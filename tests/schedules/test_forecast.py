"""Forecasts: buckets, shares, peaks, and what pauses, ends and maxima do to them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from execution.models import Workflow
from schedules import forecast as module
from schedules.forecast import buckets, count, count_instants, forecast
from schedules.models import Schedule
from schedules.timing import occurrences
from schedules.timing.spec_reading import LAST_INSTANT
from schedules.timing.zones import zone_of
from scheduling_project.common.errors import InvalidInput
from tests.schedules.builders import MINUTELY, SECONDLY, T0, at, schedule, workflow

UTC_ZONE = zone_of("UTC")
BERLIN = zone_of("Europe/Berlin")
HOUR = 3600
DAY = 86_400


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def cron(expression: str, **more: Any) -> dict[str, Any]:
    return {"timetables": [{"kind": "cron", "expression": expression}], **more}


@pytest.mark.parametrize(
    ("start", "end", "bucket", "edges"),
    [
        (0, 2 * HOUR, "hour", [0, HOUR, 2 * HOUR]),
        (1800, 2 * HOUR + 1, "hour", [1800, HOUR, 2 * HOUR, 2 * HOUR + 1]),
        (10, 70, "minute", [10, 60, 70]),
        (0, HOUR, "15", [0, 900, 1800, 2700, HOUR]),
        (5, 6, "day", [5, 6]),
        (0, DAY + 1, "day", [0, DAY, DAY + 1]),
        (0, 1, "1440", [0, 1]),
    ],
)
def test_buckets_tile_the_range(start: int, end: int, bucket: str, edges: list[int]) -> None:
    made = buckets(start, end, bucket, UTC_ZONE)
    assert list(made.edges) == edges
    assert len(made) == len(edges) - 1


def test_days_begin_at_local_midnight_and_may_have_23_hours() -> None:
    made = buckets(seconds("2026-03-28T00:00+01:00"), seconds("2026-03-31T00:00+02:00"), "day", BERLIN)
    assert [high - low for low, high in zip(made.edges, made.edges[1:], strict=False)] == [DAY, 23 * HOUR, DAY]


@pytest.mark.parametrize(
    ("start", "end", "bucket", "field"),
    [
        (-1, 5, "hour", "from"),
        (LAST_INSTANT + 1, LAST_INSTANT + 5, "hour", "from"),
        (5, 5, "hour", "to"),
        (0, 400 * DAY + 1, "day", "to"),
        (0, 400 * DAY, "hour", "bucket"),
        (0, 60, "0", "bucket"),
        (0, 60, "1441", "bucket"),
        (0, 60, "²", "bucket"),
        (0, 60, "week", "bucket"),
        (0, 60, "", "bucket"),
        (0, 60, "9" * 50, "bucket"),
    ],
)
def test_what_makes_no_buckets_names_its_field(start: int, end: int, bucket: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        buckets(start, end, bucket, UTC_ZONE)
    assert list(caught.value.fields) == [field]


def test_instants_on_an_edge_belong_to_the_bucket_that_begins_there() -> None:
    within = buckets(0, 3 * HOUR, "hour", UTC_ZONE)
    assert count_instants(iter([0, HOUR - 1, 2 * HOUR, 3 * HOUR - 1]), within) == ([2, 0, 2], 4)
    assert count_instants(iter([]), within) == ([0, 0, 0], 0)


@pytest.mark.parametrize(
    "spec",
    [
        SECONDLY,
        cron("*/7 * * * *", timezone="Europe/Berlin"),
        {**SECONDLY, "blackouts": [{"from": "1970-01-01T00:10:00Z", "until": "1970-01-01T01:10:00Z"}]},
        {"timetables": [{"kind": "interval", "every": 300}], "start": "1970-01-01T00:30:00Z"},
        cron("0 5 1 1 *"),
    ],
)
@pytest.mark.parametrize("after", [-1, 4000])
def test_counts_agree_with_the_instants_themselves(spec: dict[str, Any], after: int) -> None:
    timing = occurrences.compile(occurrences.normalise(spec), seed="x")
    within = buckets(1000, 3 * HOUR, "15", UTC_ZONE)
    expected = Counter(
        max(i for i, edge in enumerate(within.edges) if edge <= f) for f in timing.fires(max(after, 999), 3 * HOUR - 1)
    )
    assert count(timing, within, after=after)[0] == [expected[i] for i in range(len(within))]


db = pytest.mark.django_db


@db
def test_shares_add_up() -> None:
    report, other = workflow(), workflow("other")
    schedule(MINUTELY, name="a", of=report)
    schedule(MINUTELY, name="b", of=other, queue="io")
    schedule(cron("30 13 * * *"), name="c", of=other)
    found = forecast(at(), at(hours=2), now=T0)
    shown = found.as_dict()
    assert (found.schedules, found.total, found.counts) == (3, 241, [120, 121])
    assert [(row["start"], row["count"]) for row in shown["busiest"]] == [(at(hours=1), 121), (at(), 120)]
    assert shown["peaks"][0] == {"at": at(minutes=90), "count": 3}
    assert shown["peaks"][1] == {"at": at(hours=1), "count": 2}
    assert [(row["workflow_name"], row["count"]) for row in shown["by_workflow"]] == [("other", 121), ("report", 120)]
    assert shown["by_queue"] == [{"queue": "default", "count": 121}, {"queue": "io", "count": 120}]
    assert [(row["name"], row["count"]) for row in shown["by_schedule"]] == [("b", 120), ("a", 120), ("c", 1)]
    assert shown["buckets"][1] == {"start": at(hours=1), "end": at(hours=2), "count": 121}


@db
def test_nothing_to_come_has_no_peaks() -> None:
    schedule(cron("0 0 1 1 *"))
    found = forecast(at(), at(hours=1), now=T0)
    assert (found.schedules, found.total, found.busiest, found.peaks) == (1, 0, [], [])


@db
def test_the_range_is_a_day_from_now_when_left_out() -> None:
    found = forecast(now=T0)
    assert (found.range.start, found.range.end) == (int(T0.timestamp()), int(T0.timestamp()) + DAY)
    assert forecast().range.start > 0


@db
def test_a_zone_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        forecast(timezone="Mars/Base", now=T0)
    assert list(caught.value.fields) == ["timezone"]


@db
def test_paused_schedules_count_when_asked_or_from_the_end_of_their_pause_on() -> None:
    off: dict[str, Any] = {"enabled": False, "paused_at": T0, "pause_kind": "manual"}
    schedule(name="for good", **off)
    schedule(name="until", paused_until=at(minutes=90), **off)
    schedule(name="finished", **{**off, "pause_kind": "finished"})
    assert forecast(at(), at(hours=2), now=T0).counts == [0, 30]
    assert forecast(at(), at(hours=1), now=T0).schedules == 0
    assert forecast(at(), at(hours=2), now=T0, include_paused=True).counts == [120, 120]


@db
@pytest.mark.parametrize(
    ("spec", "start", "counts"),
    [
        (MINUTELY, at(), [60, 11]),  # the one of now is past: the watermark stands there
        (MINUTELY, at(hours=1), [11, 0]),
        (MINUTELY, at(hours=2), [0, 0]),
        ({"timetables": [{"kind": "interval", "every": 60}]}, at(hours=1), [11, 0]),
        (MINUTELY, at(hours=-1), [60, 60]),
        (MINUTELY, at(hours=-3), [60, 60]),
    ],
)
def test_a_maximum_is_used_up_on_the_way(spec: dict[str, Any], start: datetime, counts: list[int]) -> None:
    schedule(spec, max_executions=75, started_count=5)
    found = forecast(start, start + timedelta(hours=2), now=T0)
    assert found.counts == counts
    assert sum(count for _, count in found.peaks) == min(10, found.total)


@db
def test_an_end_calendars_and_blackouts_are_heeded() -> None:
    schedule(cron("* * * * *", end="2026-03-04T12:09:00Z"), name="ends")
    weekend = {"exclude": [{"kind": "weekly", "days": ["wed"]}]}
    schedule(cron("* * * * *", calendars=weekend), name="not today")
    assert forecast(at(), at(hours=1), now=T0).counts == [10]


@db
def test_a_schedule_that_cannot_be_computed_is_counted_as_failed() -> None:
    made = schedule()
    schedule(name="good")
    Schedule.objects.filter(pk=made.pk).update(version=None)
    found = forecast(at(), at(hours=1), now=T0)
    assert (found.schedules, found.failed, found.total) == (1, 1, 60)


@db
def test_chunks_and_shared_timings_change_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        schedule(cron(f"{number % 3} * * * *"), name=f"s{number:02}")
    whole = forecast(at(), at(hours=5), now=T0).as_dict()
    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(module, "KEPT", 1)
    assert forecast(at(), at(hours=5), now=T0).as_dict() == whole
    assert (whole["total"], whole["peaks"][0]["count"], len(whole["by_schedule"])) == (60, 4, 10)
    narrow = forecast(at(), at(hours=5), queryset=Schedule.objects.filter(name="s01"), now=T0)
    assert (narrow.schedules, narrow.total) == (1, 5)


@db
@pytest.mark.parametrize("options", [{}, {"max_executions": 50_000}])
def test_too_much_work_is_refused(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    monkeypatch.setattr(module, "MOST_INSTANTS", 100)
    schedule(**options)
    with pytest.raises(InvalidInput) as caught:
        forecast(at(days=1), at(days=2), now=T0)
    assert list(caught.value.fields) == ["to"]


@db
def test_a_thousand_schedules_over_thirty_days_take_seconds() -> None:
    """Crons of many kinds in a zone with clock changes, also with H, which nobody shares: prints what it took."""
    import time

    of = Workflow.objects.first() or workflow()
    for number in range(1_000):
        kind = number % 4
        text = (
            f"H/{5 + number % 11} * * * *",
            "H H * * *",
            f"{number % 60} * * * *",
            f"*/{2 + number % 9} 8-18 * * 1-5",
        )
        schedule(cron(text[kind], timezone="Europe/Berlin"), name=f"s{number}", of=of)
    began = time.perf_counter()
    found = forecast(at(), at(days=30), now=datetime(2026, 3, 4, 12, tzinfo=UTC))
    took = time.perf_counter() - began
    print(f"\nforecast: {found.schedules} schedules, 30 days, {found.total} instants in {took:.2f} s")
    assert found.schedules == 1_000
    assert took < 30
