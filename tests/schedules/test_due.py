"""From a watermark to now, without a database: backlogs, jitter, exclusions, versions that follow each other."""

from __future__ import annotations

from uuid import UUID

import pytest

from schedules import due
from schedules.due import Segment, collect, next_wake
from schedules.policies import CatchUp
from schedules.timing.occurrences import compile, normalise

A, B = UUID(int=1), UUID(int=2)
ALL = CatchUp("all", 86_400, 100, 5)


def segment(every=60, *, until=None, version=A, **spec):
    timing = compile(normalise({"timetables": [{"kind": "interval", "every": every}], **spec}), seed="s")
    return Segment(version, timing, until)


def shown(batch):
    return [(e.first, e.last, e.instants, e.outcome, e.reason) for e in batch.entries]


def test_one_due_instant():
    batch = collect([segment()], after=0, now=60, catch_up=ALL, cap=10)
    assert shown(batch) == [(60, 60, 1, "started", "")]
    assert (batch.reached, batch.wake, batch.more, batch.candidates) == (60, 120, False, 1)


def test_nothing_due_moves_the_watermark():
    batch = collect([segment()], after=0, now=59, catch_up=ALL, cap=10)
    assert (batch.entries, batch.reached, batch.wake) == ([], 59, 60)


def test_a_clock_before_the_watermark_finds_nothing():
    batch = collect([segment()], after=600, now=60, catch_up=ALL, cap=10)
    assert (batch.entries, batch.reached, batch.wake) == ([], 600, 660)


def test_a_capped_visit_wakes_at_once():
    batch = collect([segment(1)], after=0, now=1000, catch_up=ALL, cap=10)
    assert (batch.reached, batch.wake, batch.more) == (10, 1000, True)
    assert shown(batch) == [(1, 10, 10, "missed", "catch_up_limit")]


@pytest.mark.parametrize("window", [50, 100_000, 10_000_000])
def test_the_latest_of_a_long_backlog_are_found_without_reading_it(window):
    now = 2_000_000
    found = due._latest([segment(1)], [], 0, now, CatchUp("all", window, 100, 5), True)
    wanted = min(101, window + 1)
    assert [i.nominal for i in found] == list(range(now - wanted + 1, now + 1))


def test_the_latest_of_a_backlog_in_bursts_are_found():
    # Every second of one hour a day, then a long silence: doubling steps overshoot and are halved again.
    burst = compile(normalise({"timetables": [{"kind": "cron", "expression": "* * 3 * * *"}]}), seed="s")
    now = 3 * 86_400 + 20 * 3600
    found = due._latest([Segment(A, burst, None)], [], 0, now, CatchUp("all", 10_000_000, 10, 5), True)
    assert [i.nominal for i in found] == list(range(3 * 86_400 + 4 * 3600 - 11, 3 * 86_400 + 4 * 3600))


def test_a_backlog_across_versions_is_read_across_versions():
    chain = [segment(10, until=995), segment(1, version=B)]
    found = due._latest(chain, [], 0, 1000, CatchUp("all", 10_000, 7, 5), True)
    assert [i.nominal for i in found] == [970, 980, 990, 996, 997, 998, 999, 1000]


def test_versions_follow_each_other():
    batch = collect([segment(60, until=150), segment(40, version=B)], after=0, now=200, catch_up=ALL, cap=99)
    assert [(e.version_id, e.first) for e in batch.entries] == [(A, 60), (A, 120), (B, 160), (B, 200)]
    assert next_wake([segment(60, until=50), segment(40, version=B)], 0) == 80


def test_a_version_that_ended_before_the_watermark_is_passed_over():
    batch = collect([segment(60, until=50), segment(40, version=B)], after=70, now=90, catch_up=ALL, cap=99)
    assert shown(batch) == [(80, 80, 1, "started", "")]


def test_a_pause_that_was_skipped_is_missed():
    batch = collect([segment()], after=0, now=240, catch_up=ALL, cap=99, missed_through=130)
    assert shown(batch)[0] == (60, 120, 2, "missed", "paused")
    assert batch.candidates == 2


def test_excluded_instants_are_looked_through(monkeypatch):
    blackout = {"blackouts": [{"from": "1970-01-01T00:02:00Z", "until": "1970-01-01T00:10:00Z"}]}
    assert next_wake([segment(**blackout)], 60) == 600
    monkeypatch.setattr(due, "LOOK_AHEAD", 3)
    assert next_wake([segment(**blackout)], 60) == 240
    batch = collect([segment(**blackout)], after=60, now=600, catch_up=ALL, cap=99)
    assert shown(batch)[0] == (120, 540, 8, "skipped", "blackout")


def test_never_is_never():
    once = compile(normalise({"timetables": [{"kind": "once", "at": "1970-01-01T00:01:00Z"}]}), seed="s")
    assert next_wake([Segment(A, once, None)], 60) is None


def test_a_jittered_instant_holds_the_watermark_back():
    jittered = segment(600, jitter=300)
    first = jittered.timing.next_after(0)
    batch = collect([jittered], after=0, now=first.due - 1, catch_up=ALL, cap=9)
    assert (batch.entries, batch.wake) == ([], first.due)
    assert batch.reached < first.nominal or first.due - 1 < first.nominal
    batch = collect([jittered], after=0, now=first.due, catch_up=ALL, cap=9)
    assert shown(batch) == [(600, 600, 1, "started", "")]
