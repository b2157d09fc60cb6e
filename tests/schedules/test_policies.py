"""Overlap, catch-up and pause-on-failure as tables."""

from __future__ import annotations

import pytest

from schedules.policies import CatchUp, Due, count_failures, cutoff, missed, overlap, starts_alone

NOW = 1_000_000


def ends(plan):
    return [d.reason or d.outcome for d in plan.decisions]


@pytest.mark.parametrize(
    ("policy", "running", "buffered", "candidates", "release", "expected", "stops"),
    [
        ("allow_all", 3, 0, 2, 0, ["started", "started"], False),
        ("allow_all", 0, 2, 1, 2, ["started"], False),
        ("skip", 0, 0, 3, 0, ["started", "overlap", "overlap"], False),
        ("skip", 1, 0, 2, 0, ["overlap", "overlap"], False),
        ("skip", 0, 1, 1, 1, ["overlap"], False),
        ("skip", 0, 0, 0, 0, [], False),
        ("buffer_one", 0, 0, 3, 0, ["started", "buffered", "buffer_full"], False),
        ("buffer_one", 1, 0, 2, 0, ["buffered", "buffer_full"], False),
        ("buffer_one", 1, 1, 1, 0, ["buffer_full"], False),
        ("buffer_one", 0, 1, 1, 1, ["buffered"], False),
        ("buffer_one", 0, 1, 0, 1, [], False),
        ("buffer_all", 0, 0, 3, 0, ["started", "buffered", "buffered"], False),
        ("buffer_all", 0, 2, 1, 1, ["buffered"], False),
        ("buffer_all", 1, 9, 1, 0, ["buffered"], False),
        ("cancel_other", 0, 0, 1, 0, ["started"], False),
        ("cancel_other", 2, 0, 3, 0, ["overlap", "overlap", "started"], True),
        ("terminate_other", 1, 0, 1, 0, ["started"], True),
        ("terminate_other", 1, 0, 0, 0, [], False),
        ("cancel_other", 0, 1, 0, 1, [], False),
    ],
)
def test_overlap(policy, running, buffered, candidates, release, expected, stops):
    plan = overlap(policy, running=running, buffered=buffered, candidates=candidates)
    assert (plan.release, ends(plan), plan.stop_others, plan.expire) == (release, expected, stops, 0)


@pytest.mark.parametrize(
    ("policy", "running", "buffered", "candidates", "allowance", "release", "expected", "expire"),
    [
        ("allow_all", 0, 0, 3, 2, 0, ["started", "started", "max_executions"], 0),
        ("allow_all", 0, 0, 1, 0, 0, ["max_executions"], 0),
        ("allow_all", 0, 3, 1, 2, 2, ["max_executions"], 1),
        ("buffer_all", 0, 0, 3, 2, 0, ["started", "buffered", "max_executions"], 0),
        ("buffer_all", 1, 2, 1, 3, 0, ["buffered"], 0),
        ("buffer_all", 1, 2, 1, 2, 0, ["max_executions"], 0),
        ("buffer_all", 1, 3, 0, 1, 0, [], 2),
        ("skip", 1, 0, 2, 5, 0, ["overlap", "overlap"], 0),
        ("cancel_other", 1, 0, 1, 0, 0, ["max_executions"], 0),
    ],
)
def test_the_maximum_of_executions(policy, running, buffered, candidates, allowance, release, expected, expire):
    plan = overlap(policy, running=running, buffered=buffered, candidates=candidates, allowance=allowance)
    assert (plan.release, ends(plan), plan.expire, plan.stop_others) == (release, expected, expire, False)


def instants(*ages):
    return [Due(NOW - age, NOW - age) for age in ages]


@pytest.mark.parametrize(
    ("policy", "ages", "kept", "reason"),
    [
        ("all", [300, 200, 100], [300, 200, 100], None),
        ("all", [500, 400, 300, 200], [300, 200], "catch_up_limit"),
        ("all", [9000, 100], [100], "outside_window"),
        ("latest", [300, 200, 100], [100], "catch_up_latest"),
        ("latest", [300, 4, 3], [4, 3], "catch_up_latest"),
        ("latest", [4, 3], [4, 3], None),
        ("latest", [9000], [], "outside_window"),
        ("none", [300, 200], [], "catch_up_none"),
        ("none", [300, 4], [4], "catch_up_none"),
        ("none", [4], [4], None),
        ("none", [], [], None),
    ],
)
def test_catch_up(policy, ages, kept, reason):
    limit = 2 if len(ages) == 4 else 100
    cut = cutoff(CatchUp(policy, 3600, limit, 5), instants(*ages), now=NOW)
    decisions = {NOW - instant.nominal: missed(cut, instant) for instant in instants(*ages)}
    assert [age for age, decision in decisions.items() if decision is None] == kept
    assert {d.reason for d in decisions.values() if d} == ({reason} if reason else set())


def test_a_backlog_that_was_cut_off_is_late_whatever_it_shows():
    cut = cutoff(CatchUp("latest", 3600, 2, 5), instants(4, 3, 2), now=NOW, truncated=True)
    assert cut.start_from == NOW - 3


@pytest.mark.parametrize(
    ("before", "ended", "after", "consecutive", "pause"),
    [
        (0, [True], None, 1, False),
        (0, [True, True], 2, 2, True),
        (1, [True], 2, 2, True),
        (5, [False], 2, 0, False),
        (1, [None], 2, 1, False),
        (5, [None], 2, 5, False),
        (0, [True, True, False], 2, 0, True),
        (2, [False, True], 2, 1, False),
    ],
)
def test_failures_in_a_row(before, ended, after, consecutive, pause):
    assert count_failures(before, ended, pause_after=after) == (consecutive, pause)


@pytest.mark.parametrize("policy", ["all", "latest", "none"])
@pytest.mark.parametrize("age", [0, 5, 6, 60, 61])
@pytest.mark.parametrize("limit", [0, 1, 2])
def test_the_short_answer_about_a_single_instant_is_the_long_one(policy, age, limit):
    catch_up = CatchUp(policy, 60, limit, 5)
    cut = cutoff(catch_up, instants(age), now=NOW)
    starts = missed(cut, *instants(age)) is None
    assert starts_alone(catch_up, NOW - age, now=NOW) == (starts and limit > 0)
