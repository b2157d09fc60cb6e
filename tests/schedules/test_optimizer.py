"""Proposals for schedules that are known to be bad, and none for those that are not."""

from __future__ import annotations

from typing import Any

import pytest

from execution.simulation import Capacity, Group, Load, Outcome, Profile, Stage, simulate
from schedules import optimizer
from schedules.load_model import fires_of
from schedules.optimizer import Fact, Suggestion
from schedules.placement import Placement, placement_of
from schedules.timing import occurrences

DAY = 86_400
START = 1_767_225_600
END = START + 7 * DAY


def profile(seconds: float = 60.0, *, pool: str = "") -> Profile:
    return Profile("work", ((Stage("only", (seconds,), queue="default", pool=pool),),))


def fact(name: str, timetable: dict[str, Any], **given: Any) -> Fact:
    spec = occurrences.normalise({"timetables": [timetable]})
    placement: Placement = placement_of({"placement": given.pop("placement", {})})
    work: Profile = given.pop("profile", profile())
    values = {"p95": 60.0, "p99": 60.0, "priority": 6, "overlap": "allow_all", "timeout": None} | given
    fires = fires_of(occurrences.compile(spec, seed=name), START - 1, END - 1)
    return Fact(name, name, "work", spec, fires, work, placement, revision=1, **values)


def at_two(name: str, **given: Any) -> Fact:
    return fact(name, {"kind": "cron", "expression": "0 2 * * *"}, **given)


def capacity(slots: int = 2, **pools: int) -> Capacity:
    return Capacity((Group(frozenset({"default"}), slots),), pools)


def outcome_of(facts: list[Fact], given: Capacity) -> Outcome:
    arrivals = sorted((float(fire), index) for index, one in enumerate(facts) for fire in one.fires)
    loads = [Load(one.id, one.profile, one.priority, one.overlap, one.timeout) for one in facts]
    return simulate(arrivals, loads, given, start=START, end=END)


def spread(facts: list[Fact], given: Capacity) -> list[Suggestion]:
    return optimizer.optimize_schedule_distribution(
        facts, given, start=START, end=END, outcome=outcome_of(facts, given)
    )


def applied(facts: list[Fact], found: list[Suggestion]) -> list[Fact]:
    specs = {one.subject: one.changes["spec"] for one in found if "spec" in one.changes}
    changed = []
    for one in facts:
        spec = specs.get(one.id, one.spec)
        fires = fires_of(occurrences.compile(spec, seed=one.id), START - 1, END - 1)
        changed.append(
            Fact(**{name: getattr(one, name) for name in one.__dataclass_fields__} | {"spec": spec, "fires": fires})
        )
    return changed


def test_schedules_that_all_fire_at_two_are_spread_and_then_nobody_waits() -> None:
    facts = [at_two(f"s{i:02}") for i in range(40)]
    found = spread(facts, capacity())
    assert {one.kind for one in found} == {"move"}
    before, after = outcome_of(facts, capacity()), outcome_of(applied(facts, found), capacity())
    assert before.waits(0.95)[0] > 600
    assert after.waits(0.95)[0] <= 5
    assert after.started == before.started


def test_what_fits_is_left_alone() -> None:
    assert spread([at_two("a"), at_two("b")], capacity(4)) == []


def test_a_fixed_schedule_stays_and_the_others_make_way() -> None:
    facts = [at_two("fixed", placement={"fixed": True}), *(at_two(f"s{i}") for i in range(6))]
    found = spread(facts, capacity(1))
    assert "fixed" not in {one.subject for one in found}
    assert found


def test_moves_keep_to_the_window_and_to_the_longest_shift() -> None:
    window = {"from": "02:00", "to": "02:10"}
    facts = [at_two(f"w{i:02}", placement={"window": window}) for i in range(30)]
    facts += [at_two(f"m{i:02}", placement={"max_shift": 300}) for i in range(30)]
    for one in spread(facts, capacity(1)):
        assert one.effect["shift_seconds"] <= (600 if one.subject.startswith("w") else 300)


def test_what_others_come_after_does_not_move_past_them() -> None:
    leaders = [at_two(f"load{i}", p95=600.0) for i in range(8)]
    follower = fact(
        "report", {"kind": "cron", "expression": "30 2 * * *"}, placement={"after": [one.name for one in leaders]}
    )
    for one in spread([*leaders, follower], capacity(1)):
        if one.kind == "move" and one.subject != "report":
            assert one.effect["shift_seconds"] <= 30 * 60 - 600


def test_what_cannot_be_moved_is_offered_jitter_unless_its_window_or_kind_forbids() -> None:
    rules = "DTSTART:20260101T020000\nRRULE:FREQ=DAILY"
    facts = [fact(f"r{i}", {"kind": "rrule", "rules": rules}) for i in range(8)]
    facts.append(fact("w", {"kind": "rrule", "rules": rules}, placement={"window": {"from": "01:00", "to": "03:00"}}))
    facts += [fact(f"o{i}", {"kind": "once", "at": "2026-01-02T02:00:00Z"}) for i in range(4)]
    found = spread(facts, capacity(1))
    assert {one.kind for one in found} == {"jitter"}
    assert {one.subject[0] for one in found} == {"r"}
    assert all(one.changes["spec"]["jitter"] == optimizer.JITTER for one in found)


def test_minutes_of_long_runs_are_all_counted() -> None:
    minutes = optimizer.Minutes(START, START + 3600)
    shape = optimizer.shape_of(profile(180))
    assert shape == (3, 1.0)
    minutes.add([START + 60], shape)
    assert minutes.load[:6] == [0, 1, 1, 1, 0, 0]
    minutes.add([START + 60], shape, sign=-1)
    assert not any(minutes.load)
    assert minutes.place(START + 125) == 2


def test_a_run_longer_than_its_interval_is_given_more_room() -> None:
    slow = fact("slow", {"kind": "interval", "every": 300}, p95=400.0, overlap="skip", profile=profile(400))
    (one,) = optimizer.suggest_schedule_adjustments([slow], outcome_of([slow], capacity()))
    assert one.kind == "interval"
    assert one.changes["spec"]["timetables"][0]["every"] == 480
    occurrences.normalise(one.changes["spec"])


def test_where_the_interval_is_no_number_the_next_run_is_buffered() -> None:
    slow = fact("slow", {"kind": "cron", "expression": "*/5 * * * *"}, p95=400.0, overlap="skip", profile=profile(400))
    (one,) = optimizer.suggest_schedule_adjustments([slow], outcome_of([slow], capacity()))
    assert one.changes == {"overlap_policy": "buffer_one"}
    assert one.before == {"overlap_policy": "skip"}


def test_a_timeout_that_stops_ordinary_runs_is_raised_and_late_runs_are_made_urgent() -> None:
    tight = at_two("tight", timeout=30.0, p99=55.0, profile=profile(40))
    found = optimizer.suggest_schedule_adjustments([tight], outcome_of([tight], capacity()))
    assert {one.kind: one.changes for one in found} == {"timeout": {"timeout": 110.0}, "priority": {"priority": 3}}


@pytest.mark.parametrize(("present", "proposed"), [(9, 6), (6, 3), (3, 0), (1, 0)])
def test_priorities_rise_by_one_name(present: int, proposed: int) -> None:
    late = at_two("late", timeout=70.0, profile=profile(80), priority=present)
    (one,) = optimizer.suggest_schedule_adjustments([late], outcome_of([late], capacity()))
    assert one.changes == {"priority": proposed}


def test_what_is_fixed_or_did_nothing_gets_no_advice() -> None:
    fixed = at_two("fixed", placement={"fixed": True}, timeout=30.0, p99=55.0)
    unseen = at_two("unseen", timeout=30.0, p99=55.0)
    assert optimizer.suggest_schedule_adjustments([fixed, unseen], outcome_of([fixed], capacity())) == []


def test_a_pool_that_is_too_small_is_grown_as_far_as_it_helps() -> None:
    facts = [at_two(f"p{i}", profile=profile(60, pool="db")) for i in range(12)]
    given = capacity(12, db=1)
    before = outcome_of(facts, given)
    (one,) = optimizer.suggest_capacity(before, given, lambda c: outcome_of(facts, c))
    assert (one.kind, one.subject, one.before) == ("pool_size", "db", {"slots": 1})
    assert one.changes["slots"] > 1
    assert one.effect["waited_after"] < one.effect["waited_before"] * 0.5
    assert one.effect["wait_p95_after"] < one.effect["wait_p95_before"]


def test_too_few_workers_are_advice_without_a_change() -> None:
    facts = [at_two(f"s{i:02}", placement={"fixed": True}) for i in range(20)]
    before = outcome_of(facts, capacity(2))
    (one,) = optimizer.suggest_capacity(before, capacity(2), lambda c: outcome_of(facts, c))
    assert (one.kind, one.changes) == ("workers", {})
    assert one.effect["slots"] > 2
    assert one.effect["wait_p95_after"] < one.effect["wait_p95_before"]


def test_enough_of_everything_needs_no_advice() -> None:
    facts = [at_two("a")]
    assert optimizer.suggest_capacity(outcome_of(facts, capacity()), capacity(), lambda c: outcome_of(facts, c)) == []
    none = Capacity(())
    assert optimizer.suggest_capacity(outcome_of([], none), none, lambda c: outcome_of([], c)) == []
