"""What would make schedules wait less: moves, jitter, policies, pool sizes, workers. Pure.

Spreading is a greedy descent. Every schedule's expected load (its workflow's worker seconds, laid over the minutes
that it runs in) is added up per minute of the horizon; then those that take part in overfull minutes are taken in
turn, the heaviest first, and moved to the allowed minute where the fullest of their minutes is lowest. Only what
lowers its own peak is proposed, so what is in nobody's way stays where people put it. Whether the whole is worth it
is then measured by `execution.simulation`, before and after.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import Any, Final

from execution.simulation import Capacity, Group, Outcome, Profile
from schedules.placement import Placement, moved

MINUTE: Final = 60
#: Fires of one schedule that a move is judged by, and minutes of one run.
SAMPLED: Final = 30
LONGEST_RUN: Final = 10
#: A schedule that cannot be moved is offered so much jitter (seconds), less where its placement says so.
JITTER: Final = 900
#: What waits longer (seconds, 95 of 100) than this is waiting.
TOLERATED: Final = 5.0
#: A minute is full when its load reaches this part of the slots.
FULL: Final = 0.9
#: A move must lower the peak of the minutes it is about by this part.
WORTH: Final = 0.1


@dataclass(frozen=True, slots=True)
class Fact:
    """A schedule as the optimiser sees it. `fires` are epoch seconds, ascending; `offset` seconds east of UTC."""

    id: str
    name: str
    workflow: str
    spec: Mapping[str, Any]
    fires: Sequence[int]
    profile: Profile
    placement: Placement
    p95: float
    p99: float
    priority: int
    overlap: str
    timeout: float | None
    revision: int
    offset: int = 0


@dataclass(slots=True)
class Suggestion:
    """One proposal. `changes` are the fields it would set; empty for advice that only people can follow.

    `subject_kind`: schedule, pool or workers. `effect`: figures before and after, of what the change is about.
    """

    kind: str
    subject_kind: str
    subject: str
    label: str
    reason: str
    changes: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    effect: dict[str, Any] = field(default_factory=dict)
    revision: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Minutes:
    """Expected busy slots per minute of a horizon."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.load = [0.0] * max(1, ceil((end - start) / MINUTE))

    def place(self, instant: float) -> int:
        return int(instant - self.start) // MINUTE

    def add(self, fires: Iterable[int], shape: tuple[int, float], *, sign: int = 1, shift: int = 0) -> None:
        """Lay runs over the minutes. `shape` is (minutes that a run takes, busy slots in each)."""
        load, (length, height), most = self.load, shape, len(self.load)
        for fire in fires:
            place = (fire - self.start) // MINUTE + shift
            for minute in range(max(place, 0), min(place + length, most)):
                load[minute] += sign * height

    def peak(self, fires: Iterable[int], length: int, shift: int = 0) -> float:
        """The fullest minute among those in which these runs lie."""
        load, found, most = self.load, 0.0, len(self.load)
        for fire in fires:
            place = (fire - self.start) // MINUTE + shift
            for minute in range(max(place, 0), min(place + length, most)):
                if load[minute] > found:
                    found = load[minute]
        return found


def shape_of(profile: Profile) -> tuple[int, float]:
    """How a run lies over minutes: (how many, busy slots in each); longer runs are cut at `LONGEST_RUN`."""
    elapsed = sum(
        max((sum(stage.durations) / len(stage.durations) if stage.durations else 0.0 for stage in level), default=0.0)
        for level in profile.levels
    )
    length = max(1, min(LONGEST_RUN, ceil(elapsed / MINUTE)))
    return length, profile.work / max(elapsed, MINUTE)


def optimize_schedule_distribution(
    facts: Sequence[Fact],
    capacity: Capacity,
    *,
    start: int,
    end: int,
    outcome: Outcome | None = None,
    tolerated: float = TOLERATED,
    progress: Callable[[float], None] | None = None,
) -> list[Suggestion]:
    """Moves (or jitter) that flatten the fullest minutes of all these schedules.

    Args:
        outcome: the simulation as things are; those who wait in it are looked at even where no minute is full.
        progress: called with the part that is done.
    """
    minutes = Minutes(start, end)
    shapes = [shape_of(fact.profile) for fact in facts]
    for fact, shape in zip(facts, shapes, strict=True):
        minutes.add(fact.fires, shape)
    full = FULL * max(1, capacity.slots)
    samples = [_sample(fact.fires) for fact in facts]
    crowded = [minutes.peak(sample, shape[0]) > full for sample, shape in zip(samples, shapes, strict=True)]
    order = sorted(range(len(facts)), key=lambda i: (-facts[i].profile.work, facts[i].name))
    limits = _ordering_limits(facts)
    found = []
    for done, index in enumerate(order):
        fact, shape, sample = facts[index], shapes[index], samples[index]
        if progress is not None and done % 100 == 0:
            progress(done / len(order))
        if fact.placement.fixed or not sample:
            continue
        peak = minutes.peak(sample, shape[0])
        waits = outcome.waits_of(fact.id, 0.95)[0] if outcome is not None else 0.0
        if peak <= full and (crowded[index] or waits <= tolerated or peak <= shape[1]):
            continue  # others made way, or nobody is in its way
        suggestion = _move(fact, minutes, shape, sample, peak, limits.get(fact.name)) or _jitter(fact, peak)
        if suggestion is not None:
            suggestion.effect |= {"wait_p95_before": waits}
            found.append(suggestion)
    return found


def _sample(fires: Sequence[int]) -> Sequence[int]:
    """Fires spread over the whole horizon, at most `SAMPLED`."""
    step = ceil(len(fires) / SAMPLED) if fires else 1
    return fires[::step]


def _ordering_limits(facts: Sequence[Fact]) -> dict[str, float]:
    """How far (seconds) schedules that others come after may move: they must have ended before those fire."""
    by_name = {fact.name: fact for fact in facts}
    limits: dict[str, float] = {}
    for follower in facts:
        for name in follower.placement.after:
            leader = by_name.get(name)
            if leader is None or not follower.fires:
                continue
            for fire in _sample(leader.fires):
                place = bisect_right(follower.fires, fire)
                if place < len(follower.fires):
                    gap = follower.fires[place] - fire - leader.p95
                    limits[name] = max(0.0, min(limits.get(name, gap), gap))
    return limits


def _move(
    fact: Fact,
    minutes: Minutes,
    shape: tuple[int, float],
    sample: Sequence[int],
    peak: float,
    limit: float | None,
) -> Suggestion | None:
    """The move to where its fullest minute is lowest; of equals the shortest."""
    most = min(fact.placement.max_shift, limit if limit is not None else fact.placement.max_shift)
    minutes.add(fact.fires, shape, sign=-1)
    best, best_peak = 0, minutes.peak(sample, shape[0]) + shape[1]
    for shift in range(1, int(most) // MINUTE + 1):
        if not all(fact.placement.allows((fire + fact.offset + shift * MINUTE) % 86_400) for fire in sample):
            continue
        reached = minutes.peak(sample, shape[0], shift) + shape[1]
        if reached < best_peak - 1e-9 and moved(fact.spec, shift) is not None:
            best, best_peak = shift, reached
    spec = moved(fact.spec, best) if best else None
    if spec is None or best_peak > peak * (1 - WORTH):
        minutes.add(fact.fires, shape)
        return None
    minutes.add(fact.fires, shape, shift=best)
    return Suggestion(
        kind="move",
        subject_kind="schedule",
        subject=fact.id,
        label=fact.name,
        reason=f"Its fires meet others: {peak:.1f} slots are wanted in the fullest minute. {best} minutes later it "
        f"is {best_peak:.1f}.",
        changes={"spec": spec},
        before={"spec": dict(fact.spec)},
        effect={"peak_before": round(peak, 3), "peak_after": round(best_peak, 3), "shift_seconds": best * MINUTE},
        revision=fact.revision,
    )


def _jitter(fact: Fact, peak: float) -> Suggestion | None:
    """Jitter for what cannot be moved, where a later fire is allowed at all."""
    kinds = {timetable["kind"] for timetable in fact.spec["timetables"]}
    jitter = min(JITTER, fact.placement.max_shift, _shortest_gap(fact.fires) // 2)
    if (
        kinds <= {"once"}
        or fact.placement.window is not None
        or jitter < MINUTE
        or fact.spec.get("jitter", 0) >= jitter
    ):
        return None
    return Suggestion(
        kind="jitter",
        subject_kind="schedule",
        subject=fact.id,
        label=fact.name,
        reason=f"Its fires meet others ({peak:.1f} slots wanted in the fullest minute) and its timing cannot be "
        f"moved: up to {jitter // MINUTE} minutes of jitter spread them.",
        changes={"spec": {**fact.spec, "jitter": jitter}},
        before={"spec": dict(fact.spec)},
        effect={"peak_before": round(peak, 3)},
        revision=fact.revision,
    )


def _shortest_gap(fires: Sequence[int]) -> int:
    return min((b - a for a, b in zip(fires, islice(fires, 1, None), strict=False)), default=86_400)


def suggest_schedule_adjustments(facts: Sequence[Fact], outcome: Outcome) -> list[Suggestion]:
    """Changes of policy: overlap, timeout and priority, for each schedule that the figures speak against."""
    found = []
    for fact in facts:
        if fact.placement.fixed:
            continue
        share = outcome.shares.get(fact.id)
        if share is None:
            continue
        gap = _shortest_gap(fact.fires)
        if fact.overlap == "skip" and share.skipped and fact.p95 > gap:
            found.append(_longer_than_its_interval(fact, share.skipped, gap))
        if fact.timeout is not None and fact.p99 > fact.timeout:
            found.append(_timeout(fact))
        if share.late and fact.priority > 0:
            found.append(_priority(fact, share.late, share.started))
    return found


def _longer_than_its_interval(fact: Fact, skipped: int, gap: int) -> Suggestion:
    every = ceil(fact.p95 * 1.2 / MINUTE) * MINUTE
    reason = f"A run takes {fact.p95:.0f} s (95 of 100) and the next is due after {gap} s: {skipped} are skipped."
    timetables = fact.spec["timetables"]
    if len(timetables) == 1 and timetables[0]["kind"] == "interval" and isinstance(timetables[0]["every"], int):
        changes: dict[str, Any] = {"spec": {**fact.spec, "timetables": [{**timetables[0], "every": every}]}}
        kind = "interval"
        before: dict[str, Any] = {"spec": dict(fact.spec)}
        effect = {"every_before": timetables[0]["every"], "every_after": every, "skipped_before": skipped}
    else:
        changes = {"overlap_policy": "buffer_one"}
        kind, before = "overlap_policy", {"overlap_policy": fact.overlap}
        effect = {"skipped_before": skipped}
    return Suggestion(kind, "schedule", fact.id, fact.name, reason, changes, before, effect, fact.revision)


def _timeout(fact: Fact) -> Suggestion:
    timeout = float(ceil(fact.p99 * 2))
    return Suggestion(
        "timeout",
        "schedule",
        fact.id,
        fact.name,
        f"One run in a hundred takes longer than {fact.p99:.0f} s, and after {fact.timeout:.0f} s it is stopped.",
        {"timeout": timeout},
        {"timeout": fact.timeout},
        {"p99": fact.p99},
        fact.revision,
    )


def _priority(fact: Fact, late: int, started: int) -> Suggestion:
    higher = 0 if fact.priority <= 3 else 3 if fact.priority <= 6 else 6
    return Suggestion(
        "priority",
        "schedule",
        fact.id,
        fact.name,
        f"{late} of {started} runs end after their deadline.",
        {"priority": higher},
        {"priority": fact.priority},
        {"missed_deadlines_before": late},
        fact.revision,
    )


def suggest_capacity(
    outcome: Outcome,
    capacity: Capacity,
    simulate: Callable[[Capacity], Outcome],
    *,
    tolerated: float = TOLERATED,
    tries: int = 4,
) -> list[Suggestion]:
    """Larger pools and more slots, where that is what work waits for, each tried out by `simulate`.

    Pools are grown by halves, groups of workers by a quarter, until the wait is tolerated or `tries` are used up.
    """
    found = []
    before = outcome.waits(0.95)[0]
    for name in sorted(outcome.pool_waits):
        if outcome.pool_waits[name] / max(1, outcome.started) < tolerated / 10:
            continue
        grown, best = capacity.pools[name], None
        for _ in range(tries):
            grown += max(1, grown // 2)
            after = simulate(Capacity(capacity.groups, {**capacity.pools, name: grown}))
            waited = after.pool_waits.get(name, 0.0)
            if best is None or waited < best[1] * 0.8:
                best = (grown, waited, after)
            if waited <= outcome.pool_waits[name] * 0.1:
                break
        if best is not None and best[1] < outcome.pool_waits[name] * 0.8:
            found.append(_pool(name, capacity.pools[name], best, outcome, before))
    if before > tolerated:
        found += _workers(outcome, capacity, simulate, before, tolerated, tries)
    return found


def _pool(name: str, slots: int, best: tuple[int, float, Outcome], outcome: Outcome, before: float) -> Suggestion:
    grown, waited, after = best
    return Suggestion(
        "pool_size",
        "pool",
        name,
        name,
        f"Steps wait {outcome.pool_waits[name]:.0f} s in all for its {slots} slots.",
        {"slots": grown},
        {"slots": slots},
        {
            "waited_before": round(outcome.pool_waits[name], 1),
            "waited_after": round(waited, 1),
            "wait_p95_before": before,
            "wait_p95_after": after.waits(0.95)[0],
        },
    )


def _workers(
    outcome: Outcome,
    capacity: Capacity,
    simulate: Callable[[Capacity], Outcome],
    before: float,
    tolerated: float,
    tries: int,
) -> list[Suggestion]:
    """More slots for the group whose queues wait the longest; advice, since nobody starts a machine from here."""
    worst = max(
        range(len(capacity.groups)),
        key=lambda i: sum(outcome.queue_waits.get(queue, 0.0) for queue in capacity.groups[i].queues),
        default=None,
    )
    if worst is None or not any(outcome.queue_waits.get(queue) for queue in capacity.groups[worst].queues):
        return []
    group, grown = capacity.groups[worst], capacity.groups[worst].slots
    wait = before
    for _ in range(tries):
        grown += max(1, ceil(grown / 4))
        groups = [*capacity.groups]
        groups[worst] = Group(group.queues, grown)
        wait = simulate(Capacity(tuple(groups), capacity.pools)).waits(0.95)[0]
        if wait <= tolerated:
            break
    if wait >= before * 0.8:
        return []
    names = ", ".join(sorted(group.queues))
    return [
        Suggestion(
            "workers",
            "workers",
            names,
            names,
            f"The {group.slots} slots for {names} are too few at the peak: runs wait {before:.0f} s (95 of 100).",
            {},
            {"slots": group.slots},
            {"slots": grown, "wait_p95_before": before, "wait_p95_after": wait},
        )
    ]
