"""Conflicts between schedules, as decided from values: tables, and the sweep against a count by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules import conflicts
from schedules.conflict_sweep import Run, overfull
from schedules.conflicts import Bounds, Contender, find, judged, survey
from schedules.timing import occurrences

NOW = 1_772_625_600  # 2026-03-04T12:00:00Z
MINUTE, HOUR, DAY = 60, 3600, 86_400
POOL = ("pool", "warehouse")
QUEUE = ("queue", "default")
KEY = ("key", "acme")


def one(
    name: str = "a", expression: str = "0 2 * * *", *, spec: dict[str, Any] | None = None, **more: Any
) -> Contender:
    said = spec or {"timetables": [{"kind": "cron", "expression": expression}]}
    timing = occurrences.compile(occurrences.normalise(said), seed=name)
    more.setdefault("workflow", "etl")
    return Contender(id=name, name=name, timing=timing, **more)


def codes(found: conflicts.Found) -> list[str]:
    return [finding.code for finding in found.findings]


def only(found: conflicts.Found) -> conflicts.Finding:
    assert len(found.findings) == 1, found.findings
    return found.findings[0]


# ── Duplicates ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("expression", "same"),
    [("0 2 * * *", True), ("00 02 * * *", True), ("0 2 * * 0-6", True), ("0 3 * * *", False), ("0 2 * * 1-5", False)],
)
def test_the_same_timing_in_other_words_is_a_duplicate(expression: str, same: bool) -> None:
    found = find(one(), [one("b", expression)], {}, now=NOW)
    assert codes(found) == (["duplicate"] if same else [])
    assert codes(survey([one(), one("b", expression)], {}, now=NOW)) == (["duplicate"] if same else [])


def test_a_duplicate_names_the_others_and_their_first_instants() -> None:
    finding = only(find(one(), [one("b"), one("c"), one("d", workflow="other")], {}, now=NOW))
    assert finding.severity == "warning"
    assert finding.others == (("b", "b"), ("c", "c"))
    assert finding.as_dict()["instants"][0] == "2026-03-05T02:00:00Z"
    assert "2 other schedules do what a does, with the same input" in finding.message


def test_a_duplicate_with_another_input_is_only_a_notice() -> None:
    finding = only(find(one(input={"day": 1}), [one("b", input={"day": 2})], {}, now=NOW))
    assert (finding.severity, finding.figures["same_input"]) == ("notice", False)


def test_jitter_spreads_on_purpose_so_only_the_same_words_are_the_same() -> None:
    spread = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}], "jitter": 60}
    other = {"timetables": [{"kind": "cron", "expression": "@daily"}], "jitter": 60}
    assert codes(find(one(spec=spread), [one("b", spec=spread)], {}, now=NOW)) == ["duplicate"]
    assert codes(find(one(spec=spread), [one("b", spec=other), one("c")], {}, now=NOW)) == []
    assert codes(survey([one(spec=spread), one("b", spec=other)], {}, now=NOW)) == []


# ── Overlapping runs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("policy", "duration", "hit"),
    [
        ("skip", 60, []),
        ("skip", 61, [60, 180]),
        ("skip", 150, [60, 120, 240]),
        ("buffer_one", 90, [60, 120, 180, 240]),
        ("buffer_all", 90, [60, 120, 180, 240]),
        ("cancel_other", 90, [60, 120, 180, 240]),
        ("terminate_other", 30, []),
    ],
)
def test_which_instants_meet_a_run_that_still_goes(policy: str, duration: float, hit: list[int]) -> None:
    assert conflicts.collisions([0, 60, 120, 180, 240], duration, policy) == hit


def test_a_buffer_of_one_drops_what_comes_while_one_waits() -> None:
    # Runs of 150 s each minute: the second waits until 150, what comes meanwhile is dropped.
    assert conflicts.collisions([0, 60, 120, 180], 150, "buffer_one") == [60, 120, 180]


def test_runs_longer_than_the_interval_are_told_with_figures() -> None:
    slow = one(expression="*/5 * * * *", duration=400.0, runs=12)
    finding = only(find(slow, [], {}, now=NOW, bounds=Bounds(HOUR, 100, 10, 1000)))
    assert (finding.code, finding.severity) == ("overlapping_runs", "warning")
    assert finding.figures == {
        "p95_seconds": 400.0,
        "runs": 12,
        "interval_seconds": 300,
        "instants": 12,
        "affected": 6,
    }
    assert "6 of the next 12 would be skipped" in finding.message


@pytest.mark.parametrize(
    "change",
    [{"duration": 300.0}, {"duration": None}, {"duration": 400.0, "overlap_policy": "allow_all"}],
)
def test_runs_that_fit_or_may_overlap_are_no_conflict(change: dict[str, Any]) -> None:
    assert codes(find(one(expression="*/5 * * * *", **change), [], {}, now=NOW)) == []


def test_few_runs_are_only_a_hint() -> None:
    found = find(one(expression="*/5 * * * *", duration=400.0, runs=2), [], {}, now=NOW)
    assert only(found).severity == "notice"


# ── What there is not enough of ──────────────────────────────────────────────────────────────────────────────


def test_more_runs_at_an_instant_than_a_queue_has_workers() -> None:
    crowd = [one(f"s{index}", workflow=f"w{index}", wants={QUEUE: 1}) for index in range(5)]
    finding = only(find(crowd[0], crowd[1:], {QUEUE: 4}, now=NOW))
    assert (finding.code, finding.figures["demand"], finding.figures["limit"]) == ("queue_full", 5, 4)
    assert len(finding.others) == 4
    assert "s1, s2, s3 and 1 more" in finding.message
    assert codes(find(crowd[0], crowd[2:], {QUEUE: 4}, now=NOW)) == []
    assert only(survey(crowd, {QUEUE: 4}, now=NOW)).figures["schedules"] == 5


def test_a_run_that_still_goes_counts() -> None:
    first = one("long", "0 2 * * *", workflow="x", wants={POOL: 2}, duration=1800.0)
    second = one("late", "10 2 * * *", wants={POOL: 2})
    assert only(find(second, [first], {POOL: 3}, now=NOW)).code == "pool_full"
    assert only(find(first, [second], {POOL: 3}, now=NOW)).code == "pool_full"
    assert codes(find(second, [one("short", "0 2 * * *", wants={POOL: 2}, duration=599.0)], {POOL: 3}, now=NOW)) == []
    assert codes(find(second, [first], {POOL: 4}, now=NOW)) == []


@pytest.mark.parametrize("resource", [POOL, KEY])
def test_what_admits_one_at_a_time_is_exclusive(resource: conflicts.Resource) -> None:
    both = [one(wants={resource: 1}), one("b", wants={resource: 1}, workflow="other")]
    finding = only(find(both[0], both[1:], {resource: 1}, now=NOW))
    assert (finding.code, finding.others) == ("exclusive", (("b", "b"),))
    assert finding.figures["resource"] == {"kind": resource[0], "name": resource[1]}
    assert codes(find(both[0], both[1:], {resource: 2}, now=NOW)) == []


def test_a_run_that_wants_more_than_there_is_never_gets_it() -> None:
    finding = only(find(one(wants={POOL: 5}), [], {POOL: 4}, now=NOW))
    assert "alone wants 5 of pool warehouse" in finding.message


def test_runs_of_one_schedule_only_pile_up_where_it_lets_them() -> None:
    slow = {"expression": "* * * * *", "duration": 150.0, "wants": {QUEUE: 1}}
    assert only(find(one(overlap_policy="allow_all", **slow), [], {QUEUE: 2}, now=NOW)).figures["demand"] == 3
    assert "queue_full" not in codes(find(one(**slow), [], {QUEUE: 2}, now=NOW))


def test_others_that_fire_often_and_rarely_are_met() -> None:
    mine = one("mine", "0 2 * * *", wants={POOL: 1})
    often = one("often", "* * * * *", workflow="o", wants={POOL: 1})
    rarely = one("rarely", "0 2 10 * *", workflow="r", wants={POOL: 1})
    never = one("never", "0 3 * * *", workflow="n", wants={POOL: 1})
    gone = one("gone", spec={"timetables": [{"kind": "once", "at": "2026-03-04T13:00:00Z"}]}, wants={POOL: 1})
    finding = only(find(mine, [often, rarely, never, gone], {POOL: 2}, now=NOW))
    assert finding.figures["times"] == 1
    assert finding.as_dict()["instants"] == ["2026-03-10T02:00:00Z"]
    assert [name for _, name in finding.others] == ["often", "rarely"]


def test_postponed_runs_of_others_are_met() -> None:
    window = {"from": "2026-03-05T01:00:00Z", "until": "2026-03-05T02:00:00Z", "action": "postpone"}
    spec = {"timetables": [{"kind": "cron", "expression": "30 1 * * *"}], "blackouts": [window]}
    found = find(one(wants={KEY: 1}), [one("b", spec=spec, wants={KEY: 1})], {KEY: 1}, now=NOW)
    assert only(found).as_dict()["instants"] == ["2026-03-05T02:00:00Z"]


def test_one_that_may_start_only_so_often_wants_no_more() -> None:
    last = one("b", wants={KEY: 1}, remaining=1)
    found = find(one(wants={KEY: 1}), [last], {KEY: 1}, now=NOW)
    assert found.findings[-1].figures["limit"] == 1
    spent = only(find(one(remaining=0), [], {}, now=NOW))
    assert (spent.code, "started its most executions" in spent.message) == ("never_fires", True)


# ── Alone ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_instants_in_a_blackout_are_counted_by_what_becomes_of_them() -> None:
    spec = {
        "timetables": [{"kind": "cron", "expression": "0 2,14 * * *"}],
        "blackouts": [
            {"from": "2026-03-05T00:00:00Z", "until": "2026-03-05T12:00:00Z"},
            {"from": "2026-03-06T00:00:00Z", "until": "2026-03-06T12:00:00Z", "action": "postpone"},
        ],
        "calendars": {"exclude": [{"kind": "weekly", "days": ["sat"]}]},
    }
    finding = only(find(one(spec=spec), [], {}, now=NOW, bounds=Bounds(7 * DAY, 100, 10, 1000)))
    assert (finding.code, finding.severity) == ("blackout", "warning")
    assert finding.figures == {"instants": 14, "dropped": 1, "postponed": 1, "excluded": 2}


def test_a_calendar_that_excludes_is_a_notice_and_one_that_excludes_nothing_is_none() -> None:
    timetables = [{"kind": "cron", "expression": "0 2 * * *"}]
    weekend = {"timetables": timetables, "calendars": {"exclude": [{"kind": "weekly", "days": ["sat", "sun"]}]}}
    assert only(find(one(spec=weekend), [], {}, now=NOW)).severity == "notice"
    elsewhere = {"timetables": timetables, "blackouts": [{"from": "fri 18:00", "until": "fri 19:00"}]}
    assert codes(find(one(spec=elsewhere), [], {}, now=NOW)) == []


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"timetables": [{"kind": "cron", "expression": "0 0 30 2 *"}]}, "no date from 1970 to 2199"),
        ({"timetables": [{"kind": "once", "at": "2020-01-01T00:00:00Z"}]}, "every instant lies in the past"),
        (
            {
                "timetables": [{"kind": "cron", "expression": "0 2 * * *"}],
                "blackouts": [{"from": "mon 00:00", "until": "fri 00:00"}, {"from": "fri 00:00", "until": "mon 00:00"}],
            },
            "exclude every instant",
        ),
    ],
)
def test_what_never_fires_says_why(spec: dict[str, Any], why: str) -> None:
    finding = only(find(one(spec=spec), [], {}, now=NOW))
    assert (finding.code, why in finding.message) == ("never_fires", True), finding.message


# ── What a schedule wants done about it ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("policy", "severities"),
    [
        (None, ["warning"]),
        ("warn", ["warning"]),
        ("ignore", []),
        ("reject", ["error"]),
        ({"duplicate": "reject"}, ["error"]),
        ({"duplicate": "ignore", "default": "reject"}, []),
        ({"blackout": "reject"}, ["warning"]),
        ({"blackout": "warn", "default": "reject"}, ["error"]),
    ],
)
def test_a_schedule_ranks_its_conflicts(policy: Any, severities: list[str]) -> None:
    found = find(one(), [one("b")], {}, now=NOW)
    assert [finding.severity for finding in judged(found.findings, policy)] == severities


def test_a_notice_is_never_refused() -> None:
    found = find(one(input={"a": 1}), [one("b")], {}, now=NOW)
    assert [finding.severity for finding in judged(found.findings, "reject")] == ["notice"]


# ── Bounds, and the sweep ────────────────────────────────────────────────────────────────────────────────────


def test_a_check_stops_at_its_bounds_and_says_so() -> None:
    often = [one(f"s{index}", "* * * * *", workflow=f"w{index}", wants={QUEUE: 1}) for index in range(3)]
    found = find(often[0], often[1:], {QUEUE: 9}, now=NOW, bounds=Bounds(DAY, 10, 5, 10_000))
    assert found.truncated
    rarely = [one(f"s{index}", workflow=f"w{index}", wants={QUEUE: 1}) for index in range(3)]
    assert not find(rarely[0], rarely[1:], {QUEUE: 9}, now=NOW, bounds=Bounds(DAY, 10, 5, 10_000)).truncated
    assert find(often[0], often[1:], {QUEUE: 9}, now=NOW, bounds=Bounds(HOUR, 100, 5, 20)).truncated
    assert survey(often, {QUEUE: 9}, now=NOW, bounds=Bounds(HOUR, 100, 5, 20)).truncated


runs = st.lists(
    st.builds(
        lambda start, length, units, owner: Run(start, start + length, units, owner),
        st.integers(0, 30),
        st.integers(1, 10),
        st.integers(1, 3),
        st.sampled_from("abc"),
    ),
    max_size=12,
)


@given(runs, st.integers(1, 6), st.sampled_from(["a", None]))
def test_the_sweep_finds_what_counting_second_by_second_finds(wanted: list[Run], limit: int, owner: str | None) -> None:
    expected, owners, inside = [], [], False
    for second in range(42):
        active = [run for run in wanted if run.start <= second < run.end]
        demand = sum(run.units for run in active)
        is_over = demand > limit and (owner is None or any(run.owner == owner for run in active))
        if is_over and not inside:
            expected.append([second, demand])
            owners.append(set())
        if is_over:
            expected[-1][1] = max(expected[-1][1], demand)
            owners[-1] |= {run.owner for run in active}
        inside = is_over
    found = overfull(wanted, limit, owner=owner)
    assert [[peak.at, peak.demand] for peak in found] == expected
    assert [peak.owners for peak in found] == owners


@given(
    st.lists(st.integers(0, 23), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 23), min_size=1, max_size=4, unique=True),
    st.integers(0, 7200),
    st.integers(0, 7200),
)
def test_one_against_another_finds_the_same_as_both_together(
    mine: list[int], theirs: list[int], long: int, longer: int
) -> None:
    def hours(name: str, of: list[int], duration: int) -> Contender:
        expression = f"0 {','.join(map(str, of))} * * *"
        return one(name, expression, workflow=name, wants={KEY: 1}, duration=float(duration))

    first, second = hours("a", mine, long), hours("b", theirs, longer)
    bounds = Bounds(3 * DAY, 1000, 10, 100_000)
    one_way = [f for f in find(first, [second], {KEY: 1}, now=NOW, bounds=bounds).findings if f.code == "exclusive"]
    together = [f for f in survey([first, second], {KEY: 1}, now=NOW, bounds=bounds).findings if f.code == "exclusive"]
    assert [f.figures["times"] for f in one_way] == [f.figures["times"] for f in together]
    assert [f.instants for f in one_way] == [f.instants for f in together]
