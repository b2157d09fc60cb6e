"""A discrete-event simulation of workers, pools and priorities: what waits, where, and for how long. Pure.

Arrivals (one per execution) meet the capacity of the deployment: groups of worker slots that serve some queues, and
pools. A workflow is a sequence of levels; the stages of a level run side by side and the next level begins when all
of them have ended, which is what `needs` amounts to in a layered graph. Durations are drawn from the quantiles that
were measured, by a fixed sequence, so the same call gives the same answer.

It is the plain event-scheduling method (Law, "Simulation Modeling and Analysis", chapter 1): the only state is what
runs and what waits, the only events are arrivals and ends. Work waits per queue by priority, then by age, as the
dispatcher orders it; work that a pool has no units for waits beside the queue and holds no slot. Times are epoch
seconds (floats), durations are seconds.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

#: Policies under which a fire does not run beside the previous one.
SKIPS: Final = frozenset({"skip"})
BUFFERS: Final = frozenset({"buffer_one", "buffer_all"})
REPLACES: Final = frozenset({"cancel_other", "terminate_other"})

NEVER: Final = math.inf
MULTIPLIER: Final = 6364136223846793005
INCREMENT: Final = 1442695040888963407
"""Knuth's linear congruential generator modulo 2^64 (MMIX; TAOCP 2, section 3.3.4): one fixed sequence."""
MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: `durations` are equally likely seconds of work; `queue` "" takes no worker (a sleep, an approval).

    `width` items run side by side; `share` is how often the step runs at all, from 0 to 1.
    """

    name: str
    durations: tuple[float, ...]
    queue: str = ""
    pool: str = ""
    units: int = 1
    width: int = 1
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Profile:
    """A workflow as the simulation sees it: levels that follow one another, each with stages side by side."""

    name: str
    levels: tuple[tuple[Stage, ...], ...]

    @property
    def work(self) -> float:
        """Worker seconds that one execution takes on average."""
        return sum(
            stage.share * stage.width * sum(stage.durations) / len(stage.durations)
            for level in self.levels
            for stage in level
            if stage.queue and stage.durations
        )


@dataclass(frozen=True, slots=True)
class Load:
    """Something that starts executions: a schedule. `deadline` is in seconds after the instant."""

    key: str
    profile: Profile
    priority: int = 6
    overlap: str = "allow_all"
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Workers that serve the same queues, with their slots together."""

    queues: frozenset[str]
    slots: int


@dataclass(frozen=True, slots=True)
class Capacity:
    groups: tuple[Group, ...]
    pools: Mapping[str, int] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        return sum(group.slots for group in self.groups)

    def serves(self, queue: str) -> bool:
        return any(queue in group.queues and group.slots for group in self.groups)


@dataclass(slots=True)
class Bucket:
    """A stretch of time. `busy` worker seconds; `waited` seconds that what arrived in it waited for its first start."""

    start: float
    arrivals: int = 0
    busy: float = 0.0
    waited: float = 0.0
    longest: float = 0.0
    queued: int = 0


@dataclass(slots=True)
class Share:
    """What one load met with. `waits` has the waits above zero only."""

    started: int = 0
    skipped: int = 0
    late: int = 0
    waits: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class Outcome:
    """What the simulation saw. Waits are seconds from an instant to the start of its execution's first step.

    `blocked` executions could never go on: no worker serves a queue, or a pool is smaller than what a step needs.
    `pool_waits` and `queue_waits` are seconds that step runs waited for units and for slots.
    """

    start: float
    end: float
    width: float
    slots: int
    buckets: list[Bucket]
    shares: dict[str, Share]
    queue_waits: dict[str, float] = field(default_factory=dict)
    pool_waits: dict[str, float] = field(default_factory=dict)
    pool_busy: dict[str, float] = field(default_factory=dict)
    queue_busy: dict[str, float] = field(default_factory=dict)
    blocked: int = 0
    peak_running: int = 0
    drained_at: float = 0.0

    @property
    def started(self) -> int:
        return sum(share.started for share in self.shares.values())

    @property
    def skipped(self) -> int:
        return sum(share.skipped for share in self.shares.values())

    @property
    def late(self) -> int:
        """Executions that ended after their deadline."""
        return sum(share.late for share in self.shares.values())

    @property
    def peak_arrivals(self) -> int:
        return max((bucket.arrivals for bucket in self.buckets), default=0)

    def waits(self, *quantiles: float) -> list[float]:
        """Quantiles (0 to 1, nearest rank) of every execution's wait."""
        positive = sorted(wait for share in self.shares.values() for wait in share.waits)
        return [_rank(positive, self.started, quantile) for quantile in quantiles]

    def waits_of(self, key: str, *quantiles: float) -> list[float]:
        share = self.shares.get(key, Share())
        positive = sorted(share.waits)
        return [_rank(positive, share.started, quantile) for quantile in quantiles]

    def utilisation(self, bucket: Bucket) -> float:
        """Of the slots in a bucket, how much was busy: 0 to 1."""
        width = min(self.width, self.end - bucket.start)
        return bucket.busy / (self.slots * width) if self.slots and width > 0 else 0.0

    def hot_spots(self, most: int = 10) -> list[Bucket]:
        """The buckets in which the most seconds were waited, the worst first."""
        waited = [bucket for bucket in self.buckets if bucket.waited > 0]
        return sorted(waited, key=lambda bucket: (-bucket.waited, bucket.start))[:most]


def _rank(positive: Sequence[float], total: int, quantile: float) -> float:
    """The nearest rank among `total` values of which those above zero are given, ascending."""
    if not total:
        return 0.0
    place = max(1, math.ceil(quantile * total)) - (total - len(positive))
    return positive[place - 1] if place > 0 else 0.0


class _Run:
    """One execution under way."""

    __slots__ = ("arrived", "gone", "level", "load", "number", "open", "started")

    def __init__(self, load: int, arrived: float, number: int) -> None:
        self.load = load
        self.arrived = arrived
        self.number = number
        self.level = -1
        self.open = 0
        self.started = False
        self.gone = False


def _sure_width(level: Sequence[Stage]) -> int:
    return sum(stage.width for stage in level) if all(stage.share >= 1 for stage in level) else 0


def simulate(
    arrivals: Iterable[tuple[float, int]],
    loads: Sequence[Load],
    capacity: Capacity,
    *,
    start: float,
    end: float,
    width: float = 3600.0,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Run every arrival (instant, place in `loads`; ascending) until nothing is left.

    Args:
        start, end: what the buckets cover; arrivals lie in [start, end).
        width: of a bucket, in seconds.
        progress: called with the part of the time that is over, some hundred times.
    """
    return _Simulation(loads, capacity, start, end, width).run(arrivals, progress)


class _Simulation:
    def __init__(self, loads: Sequence[Load], capacity: Capacity, start: float, end: float, width: float) -> None:
        count = max(1, math.ceil((end - start) / width))
        self.loads = loads
        # Per load its levels, each with its step runs where every stage is sure to run, else 0.
        self.levels = [[(level, _sure_width(level)) for level in load.profile.levels] for load in loads]
        self.shares = [Share() for _ in loads]
        self.outcome = Outcome(
            start=start,
            end=end,
            width=width,
            slots=capacity.slots,
            buckets=[Bucket(start + i * width) for i in range(count)],
            shares={load.key: share for load, share in zip(loads, self.shares, strict=True)},
        )
        self.free = [group.slots for group in capacity.groups]
        self.groups = [group.queues for group in capacity.groups]
        self.serving: dict[str, list[int]] = {}
        for index, group in enumerate(capacity.groups):
            for queue in group.queues if group.slots else ():
                self.serving.setdefault(queue, []).append(index)
        self.pool_sizes = dict(capacity.pools)
        self.pool_free = dict(capacity.pools)
        # Heaps of (priority, since, number, run, stage): what waits for a slot, and for units.
        self.waiting: dict[str, list[tuple[int, float, int, _Run, Stage]]] = {}
        self.parked: dict[str, list[tuple[int, float, int, _Run, Stage]]] = {}
        self.ends: list[tuple[float, int, _Run, Stage, int]] = []
        self.number = 0
        self.chance = 0
        self.running = 0
        self.open: dict[int, list[_Run]] = defaultdict(list)
        self.buffered: dict[int, deque[float]] = defaultdict(deque)

    def run(self, arrivals: Iterable[tuple[float, int]], progress: Callable[[float], None] | None) -> Outcome:
        outcome, ends = self.outcome, self.ends
        step = (outcome.end - outcome.start) / 100
        tell_at = outcome.start + step
        for at, load in arrivals:
            while ends and ends[0][0] <= at:
                self._end(heappop(ends))
            if progress is not None and at >= tell_at:
                progress((at - outcome.start) / (outcome.end - outcome.start))
                tell_at = max(tell_at + step, at)
            self._arrive(at, load)
        while ends:
            self._end(heappop(ends))
        outcome.blocked += sum(len(heap) for heap in (*self.waiting.values(), *self.parked.values()))
        return outcome

    def _bucket(self, at: float) -> Bucket:
        buckets = self.outcome.buckets
        return buckets[min(int((at - self.outcome.start) / self.outcome.width), len(buckets) - 1)]

    def _arrive(self, at: float, load: int) -> None:
        overlap = self.loads[load].overlap
        self._bucket(at).arrivals += 1
        if overlap != "allow_all" and self.open[load]:
            if overlap in SKIPS or (overlap == "buffer_one" and self.buffered[load]):
                self.shares[load].skipped += 1
                return
            if overlap in BUFFERS:
                self.buffered[load].append(at)
                return
            for run in self.open[load]:
                run.gone = True  # what it still runs ends when it would have; nothing follows from it
            self.open[load].clear()
        self._begin(at, at, load)

    def _begin(self, at: float, arrived: float, load: int) -> None:
        self.number += 1
        run = _Run(load, arrived, self.number)
        if self.loads[load].overlap != "allow_all":
            self.open[load].append(run)
        self._next_level(run, at)

    def _next_level(self, run: _Run, now: float) -> None:
        levels = self.levels[run.load]
        while True:
            run.level += 1
            if run.level == len(levels):
                self._finish(run, now)
                return
            wanted, run.open = levels[run.level]
            if not run.open:
                wanted = tuple(one for one in wanted if self._draw(1_000_000) < one.share * 1_000_000)
                run.open = sum(stage.width for stage in wanted)
            if run.open:
                break
        for stage in wanted:
            for _ in range(stage.width):
                self._ask(run, stage, now)

    def _draw(self, below: int) -> int:
        """The next number of the fixed sequence that stands for chance, from 0 to `below` - 1."""
        self.chance = (self.chance * MULTIPLIER + INCREMENT) & MASK
        return self.chance * below >> 64

    def _ask(self, run: _Run, stage: Stage, now: float) -> None:
        """Start a step run if there is room, else let it wait."""
        if not stage.queue:
            self._start(run, stage, now, now, -1)
            return
        self.number += 1
        entry = (self.loads[run.load].priority, now, self.number, run, stage)
        if stage.pool in self.pool_free and self.pool_free[stage.pool] < stage.units:
            heappush(self.parked.setdefault(stage.pool, []), entry)
            self._bucket(now).queued += 1
            return
        if not self.waiting.get(stage.queue):
            for group in self.serving.get(stage.queue, ()):
                if self.free[group]:
                    self._start(run, stage, now, now, group)
                    return
        heappush(self.waiting.setdefault(stage.queue, []), entry)
        self._bucket(now).queued += 1

    def _start(self, run: _Run, stage: Stage, since: float, now: float, group: int) -> None:
        self.number += 1
        durations = stage.durations
        several = len(durations) > 1
        duration = durations[self._draw(len(durations)) if several else 0] if durations else 0.0
        if not run.started:
            run.started = True
            self._record_wait(run, now - run.arrived)
        if group >= 0:
            self.free[group] -= 1
            self.running += 1
            outcome = self.outcome
            if self.running > outcome.peak_running:
                outcome.peak_running = self.running
            outcome.queue_busy[stage.queue] = outcome.queue_busy.get(stage.queue, 0.0) + duration
            if now > since:
                outcome.queue_waits[stage.queue] = outcome.queue_waits.get(stage.queue, 0.0) + now - since
            self._add_busy(now, now + duration)
            if stage.pool in self.pool_free:
                self.pool_free[stage.pool] -= stage.units
                outcome.pool_busy[stage.pool] = outcome.pool_busy.get(stage.pool, 0.0) + duration * stage.units
        heappush(self.ends, (now + duration, self.number, run, stage, group))

    def _record_wait(self, run: _Run, wait: float) -> None:
        share = self.shares[run.load]
        share.started += 1
        if wait > 0:
            share.waits.append(wait)
            bucket = self._bucket(run.arrived)
            bucket.waited += wait
            bucket.longest = max(bucket.longest, wait)

    def _add_busy(self, begin: float, end: float) -> None:
        outcome = self.outcome
        bucket = self._bucket(begin)
        if bucket.start <= begin and end <= min(bucket.start + outcome.width, outcome.end):
            bucket.busy += end - begin
            return
        end = min(end, outcome.end)
        while begin < end:
            bucket = self._bucket(begin)
            edge = min(bucket.start + outcome.width, outcome.end)
            if edge <= begin:
                return
            bucket.busy += min(end, edge) - begin
            begin = edge

    def _end(self, event: tuple[float, int, _Run, Stage, int]) -> None:
        now, _, run, stage, group = event
        self.outcome.drained_at = now
        run.open -= 1
        if not run.open and not run.gone:
            self._next_level(run, now)
        if group < 0:
            return
        self.free[group] += 1
        self.running -= 1
        if stage.pool in self.pool_free:
            self.pool_free[stage.pool] += stage.units
            self._release(stage.pool, now)
        self._fill(group, now)

    def _release(self, pool: str, now: float) -> None:
        """Units came back: what waits for them goes to its queue, as far as they reach."""
        parked, left = self.parked.get(pool), self.pool_free[pool]
        waits = self.outcome.pool_waits
        while parked and parked[0][4].units <= left:
            entry = heappop(parked)
            left -= entry[4].units
            waits[pool] = waits.get(pool, 0.0) + now - entry[1]
            queue = entry[4].queue
            heappush(self.waiting.setdefault(queue, []), (entry[0], now, *entry[2:]))
            for group in self.serving.get(queue, ()):
                if self.free[group]:
                    self._fill(group, now)
                    break

    def _fill(self, group: int, now: float) -> None:
        """Free slots of a group take what waits in its queues, the most urgent and oldest first."""
        while self.free[group]:
            heaps = [heap for queue in self.groups[group] if (heap := self.waiting.get(queue))]
            if not heaps:
                return
            heap = min(heaps, key=lambda each: each[0][:3]) if len(heaps) > 1 else heaps[0]
            entry = heappop(heap)
            _, since, _, run, stage = entry
            if run.gone:
                continue
            if stage.pool in self.pool_free and self.pool_free[stage.pool] < stage.units:
                heappush(self.parked.setdefault(stage.pool, []), entry)
                continue
            self._start(run, stage, since, now, group)

    def _finish(self, run: _Run, now: float) -> None:
        load = self.loads[run.load]
        if not run.started:
            run.started = True
            self._record_wait(run, 0.0)
        if load.deadline is not None and now - run.arrived > load.deadline:
            self.shares[run.load].late += 1
        if load.overlap == "allow_all":
            return
        if run in self.open[run.load]:
            self.open[run.load].remove(run)
        waiting = self.buffered[run.load]
        if waiting and not self.open[run.load]:
            self._begin(now, waiting.popleft(), run.load)


def summary(outcome: Outcome) -> dict[str, Any]:
    """The figures that two outcomes are compared by. Seconds, and parts of one."""
    p50, p95, p99, longest = outcome.waits(0.5, 0.95, 0.99, 1.0)
    busiest = max(outcome.buckets, key=outcome.utilisation, default=None)
    busy = sum(bucket.busy for bucket in outcome.buckets)
    span = outcome.slots * (outcome.end - outcome.start)
    return {
        "executions": outcome.started,
        "skipped": outcome.skipped,
        "missed_deadlines": outcome.late,
        "blocked": outcome.blocked,
        "peak_arrivals": outcome.peak_arrivals,
        "peak_running": outcome.peak_running,
        "utilisation": busy / span if span else 0.0,
        "peak_utilisation": outcome.utilisation(busiest) if busiest is not None else 0.0,
        "wait_p50": p50,
        "wait_p95": p95,
        "wait_p99": p99,
        "wait_max": longest,
    }
