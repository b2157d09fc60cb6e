"""The simulation against queues whose answer is known, and against laws that hold for every queue."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.simulation import Capacity, Group, Load, Outcome, Profile, Stage, simulate, summary

HOUR = 3600.0


def one_step(seconds: float, *, queue: str = "default", pool: str = "", units: int = 1, width: int = 1) -> Profile:
    return Profile("work", ((Stage("only", (seconds,), queue=queue, pool=pool, units=units, width=width),),))


def slots(number: int, *queues: str, **pools: int) -> Capacity:
    return Capacity((Group(frozenset(queues or ("default",)), number),), pools)


def run(
    arrivals: Sequence[tuple[float, int]], loads: Sequence[Load], capacity: Capacity, *, end: float = HOUR
) -> Outcome:
    return simulate(arrivals, loads, capacity, start=0, end=end)


def test_what_meets_a_free_slot_does_not_wait() -> None:
    outcome = run([(0, 0), (20, 0)], [Load("a", one_step(10))], slots(1))
    assert outcome.started == 2
    assert outcome.waits(0.5, 1.0) == [0, 0]
    assert outcome.buckets[0].busy == 20


def test_three_at_once_on_one_slot_wait_for_each_other() -> None:
    outcome = run([(0, 0)] * 3, [Load("a", one_step(10))], slots(1))
    assert sorted(outcome.shares["a"].waits) == [10, 20]
    assert outcome.waits(0.5, 1.0) == [10, 20]
    assert outcome.drained_at == 30


def test_what_is_more_urgent_starts_first_whenever_it_came() -> None:
    loads = [Load("low", one_step(10), priority=9), Load("critical", one_step(10), priority=0)]
    outcome = run([(0, 0), (1, 0), (2, 0), (3, 1)], loads, slots(1))
    assert outcome.waits_of("critical", 1.0) == [7]
    assert outcome.waits_of("low", 1.0) == [28]


def test_a_pool_holds_back_its_own_users_and_nobody_else() -> None:
    loads = [Load("pooled", one_step(10, pool="db")), Load("free", one_step(10))]
    outcome = run([(0, 0), (0, 0), (0, 1)], loads, slots(3, db=1))
    assert outcome.waits_of("pooled", 1.0) == [10]
    assert outcome.waits_of("free", 1.0) == [0]
    assert outcome.pool_waits == {"db": 10}
    assert outcome.pool_busy == {"db": 20}
    assert not outcome.queue_waits


def test_what_wants_more_units_than_a_pool_has_or_a_queue_without_workers_is_blocked() -> None:
    loads = [Load("greedy", one_step(1, pool="db", units=3)), Load("lost", one_step(1, queue="nobody"))]
    outcome = run([(0, 0), (0, 1)], loads, slots(2, db=2))
    assert outcome.blocked == 2
    assert outcome.started == 0


def test_steps_of_one_level_run_side_by_side_and_the_next_waits_for_all() -> None:
    profile = Profile(
        "graph",
        (
            (Stage("a", (5,), queue="default"), Stage("b", (9,), queue="default")),
            (Stage("sleep", (30,)),),
            (Stage("c", (1,), queue="default"),),
        ),
    )
    outcome = run([(0, 0)], [Load("g", profile, deadline=39)], slots(2))
    assert outcome.drained_at == 40
    assert outcome.late == 1
    assert outcome.peak_running == 2


def test_a_fan_out_takes_a_slot_for_each_item() -> None:
    outcome = run([(0, 0)], [Load("f", one_step(10, width=5))], slots(2))
    assert outcome.drained_at == 30
    assert outcome.started == 1


@pytest.mark.parametrize(
    ("overlap", "started", "skipped", "drained"),
    [
        ("skip", 1, 2, 10),
        ("buffer_one", 2, 1, 20),
        ("buffer_all", 3, 0, 30),
        ("allow_all", 3, 0, 12),
        ("cancel_other", 3, 0, 12),
        ("terminate_other", 3, 0, 12),
    ],
)
def test_overlap_policies(overlap: str, started: int, skipped: int, drained: float) -> None:
    outcome = run([(0, 0), (1, 0), (2, 0)], [Load("a", one_step(10), overlap=overlap)], slots(3))
    assert (outcome.started, outcome.skipped, outcome.drained_at) == (started, skipped, drained)


def test_a_replaced_run_that_still_waits_never_starts() -> None:
    loads = [Load("other", one_step(100)), Load("a", one_step(10), overlap="cancel_other")]
    outcome = run([(0, 0), (1, 1), (2, 1)], loads, slots(1))
    assert outcome.shares["a"].started == 1
    assert outcome.drained_at == 110


def test_a_step_that_runs_half_of_the_time_is_drawn_half_of_the_time() -> None:
    profile = Profile("maybe", ((Stage("x", (1.0,), queue="default", share=0.5),),))
    outcome = run([(float(i), 0) for i in range(1000)], [Load("m", profile)], slots(4))
    assert outcome.started == 1000
    assert 400 < outcome.queue_busy["default"] < 600


def test_durations_are_drawn_from_all_quantiles_alike() -> None:
    profile = Profile("varied", ((Stage("x", tuple(float(i) for i in range(10)), queue="default"),),))
    outcome = run([(i * 10.0, 0) for i in range(300)], [Load("v", profile)], slots(1))
    assert outcome.queue_busy["default"] == pytest.approx(300 * 4.5, rel=0.05)


def test_busy_time_is_laid_over_the_buckets_it_lies_in_and_cut_at_the_end() -> None:
    outcome = run([(HOUR - 10, 0), (2 * HOUR - 10, 0)], [Load("a", one_step(30))], slots(1), end=2 * HOUR)
    assert [bucket.busy for bucket in outcome.buckets] == [10, 30]
    assert outcome.utilisation(outcome.buckets[0]) == pytest.approx(10 / HOUR)


def test_two_groups_share_a_queue_and_the_free_one_takes_the_work() -> None:
    capacity = Capacity((Group(frozenset({"default"}), 1), Group(frozenset({"default", "io"}), 1)))
    loads = [Load("a", one_step(10)), Load("i", one_step(10, queue="io"))]
    outcome = run([(0, 0), (0, 0), (0, 1)], loads, capacity)
    assert outcome.waits_of("a", 1.0) == [0]
    assert outcome.waits_of("i", 1.0) == [10]


def test_hot_spots_are_where_most_is_waited() -> None:
    arrivals = [(0.0, 0)] * 2 + [(HOUR, 0)] * 5
    outcome = run(arrivals, [Load("a", one_step(10))], slots(1), end=2 * HOUR)
    assert [spot.start for spot in outcome.hot_spots()] == [HOUR, 0]
    assert summary(outcome)["peak_arrivals"] == 5


def test_progress_is_told_and_ascends() -> None:
    told: list[float] = []
    arrivals = [(float(i * 10), 0) for i in range(360)]
    simulate(arrivals, [Load("a", one_step(1))], slots(1), start=0, end=HOUR, progress=told.append)
    assert told == sorted(told)
    assert 90 <= len(told) <= 100


def test_nothing_to_do() -> None:
    outcome = run([], [], Capacity(()))
    assert summary(outcome)["executions"] == 0
    assert outcome.waits(0.95) == [0]
    assert outcome.utilisation(outcome.buckets[0]) == 0


ARRIVALS = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 2)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(ARRIVALS, st.integers(1, 4), st.integers(1, 3))
def test_nothing_is_lost_no_slot_is_used_twice_and_more_slots_never_hurt_the_whole(
    raw: list[tuple[int, int]], number: int, units: int
) -> None:
    arrivals = sorted((float(at), load) for at, load in raw)
    loads = [
        Load("a", one_step(7), priority=3),
        Load("b", one_step(13, pool="p", units=units), priority=6),
        Load("c", one_step(29), priority=0),
    ]
    few = run(arrivals, loads, slots(number, p=3))
    assert few.started == len(arrivals)
    assert few.blocked == 0
    assert few.peak_running <= number
    work = sum({0: 7, 1: 13, 2: 29}[load] for _, load in arrivals)
    assert sum(few.queue_busy.values()) == pytest.approx(work)
    if arrivals:
        # Work is never refused while slots are idle and no pool stands in the way: the end is bounded by both.
        assert few.drained_at <= arrivals[-1][0] + work + 1e-6
        assert few.drained_at >= work / number
