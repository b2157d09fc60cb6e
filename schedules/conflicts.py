"""What gets in each other's way: schedules that are the same, overlap, or want more at once than there is. Pure.

    >>> find(contender, others, {("pool", "warehouse"): 1}, now=1_774_738_800).findings[0].code
    'exclusive'

One schedule is compared with the `others` around its own next instants (`find`); many are compared with each other by
one sweep over the starts and ends of all their runs (`survey`). Both are bounded by `Bounds` and say when a bound was
reached. A run is taken to last as long as 95 of 100 runs did; one that was never seen, a second.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any, Final

from schedules.conflict_sweep import Peak, Run, overfull, windows_of
from schedules.states import ConflictCode, ConflictSeverity, OnConflict, OverlapPolicy
from schedules.timing.occurrences import BLACKOUT, Timing
from schedules.timing.spec_reading import LAST_INSTANT, write_instant
from schedules.timing.warnings import warnings_about

DAY: Final = 86_400
#: Schedules and instants that a finding names.
NAMED: Final = 20
NAMED_INSTANTS: Final = 5
#: Fires that two timings must have in common to be taken for the same.
ALIKE: Final = 60
#: Runs from which on a duration is more than a hint.
ENOUGH_RUNS: Final = 5

#: What runs want: ("queue" | "pool" | "key", its name).
Resource = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a check looks: seconds ahead, instants per schedule, other schedules, instants in all."""

    horizon: int
    instants: int
    others: int
    looks: int


#: On every create and update: a few hundredths of a second, however many schedules there are.
ON_SAVE: Final = Bounds(horizon=7 * DAY, instants=100, others=300, looks=30_000)
ON_DEMAND: Final = Bounds(horizon=30 * DAY, instants=1_000, others=5_000, looks=500_000)
SURVEY: Final = Bounds(horizon=DAY, instants=1_500, others=5_000, looks=1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A schedule as far as conflicts go.

    Args:
        wants: what one run takes at once: first steps per queue, units per pool, one place of a key.
        duration: what 95 of 100 runs do not exceed, in seconds; None: no run was seen. `runs`: how many were.
        remaining: how many more executions it may start; None: any number.
    """

    id: str
    name: str
    workflow: str
    timing: Timing
    input: Mapping[str, Any] = field(default_factory=dict)
    overlap_policy: str = OverlapPolicy.SKIP.value
    wants: Mapping[Resource, int] = field(default_factory=dict)
    duration: float | None = None
    runs: int = 0
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One conflict. `schedule` is (id, name) of the one that has it, None where several share it."""

    code: str
    severity: str
    message: str
    schedule: tuple[str, str] | None = None
    others: tuple[tuple[str, str], ...] = ()
    instants: tuple[int, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; instants as UTC texts."""
        return {
            "code": str(self.code),
            "severity": str(self.severity),
            "message": self.message,
            "schedule": None if self.schedule is None else {"id": self.schedule[0], "name": self.schedule[1]},
            "schedules": [{"id": key, "name": name} for key, name in self.others],
            "instants": [write_instant(instant) for instant in self.instants],
            "figures": dict(self.figures),
        }


@dataclass(slots=True)
class Found:
    """What a check found in (`start`, `until`], epoch seconds.

    `truncated`: a bound was reached. `failed`: how many schedules could not be computed.
    """

    start: int
    until: int
    findings: list[Finding] = field(default_factory=list)
    considered: int = 0
    truncated: bool = False
    failed: int = 0


# ── What is asked for ────────────────────────────────────────────────────────────────────────────────────────


def effect(policy: Any, code: str) -> str:
    """``ignore``, ``warn`` or ``reject``: what a schedule wants done about a kind of conflict.

    >>> effect({"blackout": "ignore", "default": "reject"}, "duplicate")
    'reject'
    """
    if isinstance(policy, Mapping):
        return str(policy.get(code, policy.get("default", OnConflict.WARN.value)))
    return str(policy or OnConflict.WARN.value)


def judged(findings: Iterable[Finding], policy: Any) -> list[Finding]:
    """The findings as a schedule's `on_conflict` ranks them: ignored ones left out, refused ones errors.

    A notice is never refused.
    """
    ranked = []
    for finding in findings:
        wanted = effect(policy, finding.code)
        if wanted == OnConflict.IGNORE:
            continue
        if wanted == OnConflict.REJECT and finding.severity != ConflictSeverity.NOTICE:
            ranked.append(replace(finding, severity=ConflictSeverity.ERROR.value))
            continue
        ranked.append(finding)
    return ranked


# ── One schedule, and many ───────────────────────────────────────────────────────────────────────────────────


def find(
    subject: Contender,
    others: Sequence[Contender],
    limits: Mapping[Resource, int],
    *,
    now: int,
    bounds: Bounds = ON_DEMAND,
) -> Found:
    """The conflicts of `subject`, alone and with `others`. `limits` says how much there is of what they want."""
    found = Found(now, min(now + bounds.horizon, LAST_INSTANT), considered=len(others))
    found.findings += alone(subject, found, bounds)
    same = [other for other in others if other.workflow == subject.workflow]
    fires = _next_fires(subject, now) if same else ()
    twins = [other for other in same if _is_alike(subject, other, fires, now)]
    if twins:
        found.findings.append(_duplicate(subject, twins, now))
    own = runs_of(subject, now, found.until, bounds.instants, found)
    wanted = [resource for resource in subject.wants if resource in limits]
    windows = windows_of(own)
    looks = _Looks(bounds.looks, found)
    near: dict[str, list[Run]] = {}
    for other in others:
        if any(resource in other.wants for resource in wanted):
            near[other.id] = list(_near(other, windows, now, looks))
    known = {other.id: other for other in others} | {subject.id: subject}
    for resource in wanted:
        runs = [run._replace(units=subject.wants[resource]) for run in own]
        for key, theirs in near.items():
            if units := known[key].wants.get(resource):
                runs += [run._replace(units=units) for run in theirs]
        peaks = overfull(runs, limits[resource], owner=subject.id)
        if peaks:
            found.findings.append(_contention(resource, limits[resource], peaks, known, subject))
    return found


def survey(
    contenders: Sequence[Contender], limits: Mapping[Resource, int], *, now: int, bounds: Bounds = SURVEY
) -> Found:
    """The conflicts of all these with each other: duplicates and shared shortages once, not once for each."""
    found = Found(now, min(now + bounds.horizon, LAST_INSTANT), considered=len(contenders))
    for contender in contenders:
        found.findings += alone(contender, found, bounds)
    found.findings += [_duplicate(group[0], group[1:], now) for group in _twins(contenders, now)]
    known = {contender.id: contender for contender in contenders}
    looks = _Looks(bounds.looks, found)
    runs: dict[Resource, list[Run]] = {}
    for contender in contenders:
        wanted = [resource for resource in contender.wants if resource in limits]
        if not wanted:
            continue
        theirs = list(looks.counted(runs_of(contender, now, found.until, bounds.instants, found)))
        for resource in wanted:
            units = contender.wants[resource]
            runs.setdefault(resource, []).extend(run._replace(units=units) for run in theirs)
    for resource, wanted_by in sorted(runs.items()):
        peaks = overfull(wanted_by, limits[resource])
        if peaks:
            found.findings.append(_contention(resource, limits[resource], peaks, known, None))
    return found


def alone(subject: Contender, found: Found, bounds: Bounds) -> Iterator[Finding]:
    """What is wrong with a schedule all by itself."""
    now, until = found.start, found.until
    whose = (subject.id, subject.name)
    first = subject.timing.next_fire(now)
    if first is None or subject.remaining == 0:
        why = (
            f"{subject.name} never fires again: it has started its most executions."
            if subject.remaining == 0
            else f"{subject.name} never fires. {_why_never(subject.timing, now)}".rstrip()
        )
        yield Finding(ConflictCode.NEVER_FIRES.value, ConflictSeverity.WARNING.value, why, whose)
        return
    yield from _blackouts(subject, now, until, bounds)
    yield from _overlaps(subject, now, until, bounds)


# ── Each kind ────────────────────────────────────────────────────────────────────────────────────────────────


def _why_never(timing: Timing, now: int) -> str:
    told = [
        warning.message for warning in warnings_about(timing, now) if warning.code in {"never", "ended", "all_skipped"}
    ]
    return told[0] if told else ""


def _blackouts(subject: Contender, now: int, until: int, bounds: Bounds) -> Iterator[Finding]:
    """Instants that blackout windows drop or postpone are worth a warning; those that calendars exclude, a notice."""
    timing = subject.timing
    if timing.days is None and timing.blackouts is None:
        return
    looked, dropped, postponed, excluded = 0, list[int](), list[int](), list[int]()
    for instant in islice(timing.between(now, until), bounds.instants):
        looked += 1
        in_window = timing.blackouts is not None and timing.blackouts.at(instant.nominal) is not None
        if in_window:
            (dropped if instant.skip else postponed).append(instant.nominal)
        elif instant.skip == BLACKOUT:
            excluded.append(instant.nominal)
    hit = sorted(dropped + postponed + excluded)
    if not hit:
        return
    in_windows = len(dropped) + len(postponed)
    parts = [
        f"{len(dropped)} dropped by a blackout window" if dropped else "",
        f"{len(postponed)} postponed by one" if postponed else "",
        f"{len(excluded)} excluded by a calendar" if excluded else "",
    ]
    yield Finding(
        ConflictCode.BLACKOUT.value,
        (ConflictSeverity.WARNING if in_windows else ConflictSeverity.NOTICE).value,
        f"{len(hit)} of the next {looked} instants of {subject.name} fall into a blackout: "
        f"{', '.join(part for part in parts if part)}; the first on {_told(hit[0])}.",
        (subject.id, subject.name),
        instants=tuple(hit[:NAMED_INSTANTS]),
        figures={
            "instants": looked,
            "dropped": len(dropped),
            "postponed": len(postponed),
            "excluded": len(excluded),
        },
    )


def _overlaps(subject: Contender, now: int, until: int, bounds: Bounds) -> Iterator[Finding]:
    """Runs that take longer than the time to the next one, where the overlap policy does something about it."""
    if subject.duration is None or subject.overlap_policy == OverlapPolicy.ALLOW_ALL:
        return
    starts = list(islice(_dues(subject, now, until), bounds.instants))
    shortest = min((later - earlier for earlier, later in pairwise(starts)), default=None)
    if shortest is None or subject.duration <= shortest:
        return
    hit = collisions(starts, subject.duration, subject.overlap_policy)
    takes = f"Runs of {subject.name} take {subject.duration:g} s (95th percentile of {subject.runs})"
    yield Finding(
        ConflictCode.OVERLAPPING_RUNS.value,
        (ConflictSeverity.WARNING if subject.runs >= ENOUGH_RUNS else ConflictSeverity.NOTICE).value,
        f"{takes}, but the next one is due after {shortest} s: {len(hit)} of the next {len(starts)} "
        f"{_FATES[subject.overlap_policy]}.",
        (subject.id, subject.name),
        instants=tuple(hit[:NAMED_INSTANTS]),
        figures={
            "p95_seconds": subject.duration,
            "runs": subject.runs,
            "interval_seconds": shortest,
            "instants": len(starts),
            "affected": len(hit),
        },
    )


_FATES: Final[Mapping[str, str]] = {
    OverlapPolicy.SKIP.value: "would be skipped",
    OverlapPolicy.BUFFER_ONE.value: "would wait or be skipped",
    OverlapPolicy.BUFFER_ALL.value: "would wait for those before, later and later",
    OverlapPolicy.CANCEL_OTHER.value: "would cancel the run before",
    OverlapPolicy.TERMINATE_OTHER.value: "would end the run before by force",
}


def collisions(starts: Sequence[int], duration: float, policy: str) -> list[int]:
    """Which of these starts, in order, meet a run that still goes when each takes `duration` seconds.

    >>> collisions([0, 60, 120, 180], 90, "skip")
    [60, 180]
    >>> collisions([0, 60, 120, 180], 90, "cancel_other")
    [60, 120, 180]
    """
    hit = []
    busy_until = float("-inf")
    for start in starts:
        meets = start < busy_until
        if meets:
            hit.append(start)
        if meets and policy in {OverlapPolicy.BUFFER_ALL, OverlapPolicy.BUFFER_ONE}:
            # One that waits starts at the end of the one before; a second waits only where all do.
            if policy == OverlapPolicy.BUFFER_ALL or busy_until - start <= duration:
                busy_until += duration
        elif not meets or policy != OverlapPolicy.SKIP:
            busy_until = start + duration
    return hit


def _is_alike(one: Contender, other: Contender, fires: tuple[int, ...], now: int) -> bool:
    """Whether two schedules say the same about time: in the same words, or with the same next `fires`."""
    if one.timing is other.timing or one.timing.spec == other.timing.spec:
        return True
    if not fires or one.timing.jitter or other.timing.jitter:
        return False
    return fires[:1] == _next_fires(other, now, 1) and fires == _next_fires(other, now)


def _next_fires(contender: Contender, now: int, most: int = ALIKE) -> tuple[int, ...]:
    return tuple(islice(contender.timing.fires(now, LAST_INSTANT), most))


def _twins(contenders: Sequence[Contender], now: int) -> Iterator[list[Contender]]:
    """Groups of at least two with one workflow and one timing, in the order of their first."""
    by_words: dict[tuple[str, str], list[Contender]] = {}
    for contender in contenders:
        words = json.dumps(contender.timing.spec, sort_keys=True)
        by_words.setdefault((contender.workflow, words), []).append(contender)
    groups: dict[tuple[str, object], list[Contender]] = {}
    for (workflow, words), group in by_words.items():
        plain = not group[0].timing.jitter
        fires = _next_fires(group[0], now) if plain else ()
        groups.setdefault((workflow, fires or words), []).extend(group)
    return (group for group in groups.values() if len(group) > 1)


def _duplicate(subject: Contender, twins: Sequence[Contender], now: int) -> Finding:
    same_input = sum(1 for twin in twins if twin.input == subject.input)
    fires = tuple(instant.due for instant in _first_instants(subject, now, NAMED_INSTANTS))
    one = "schedule does" if len(twins) == 1 else "schedules do"
    input_told = "with the same input" if same_input else "with another input"
    return Finding(
        ConflictCode.DUPLICATE.value,
        (ConflictSeverity.WARNING if same_input else ConflictSeverity.NOTICE).value,
        f"{len(twins)} other {one} what {subject.name} does, {input_told}: the same timing and the workflow "
        f"{subject.workflow} ({_names(twins)}).",
        (subject.id, subject.name),
        tuple((twin.id, twin.name) for twin in twins[:NAMED]),
        fires,
        {"schedules": len(twins), "same_input": same_input},
    )


def _first_instants(subject: Contender, now: int, most: int) -> list[Any]:
    found: list[Any] = []
    position = now
    while len(found) < most and (instant := subject.timing.next_fire(position)) is not None:
        found.append(instant)
        position = instant.nominal
    return found


def _contention(
    resource: Resource,
    limit: int,
    peaks: Sequence[Peak],
    known: Mapping[str, Contender],
    subject: Contender | None,
) -> Finding:
    kind, name = resource
    worst = max(peaks, key=lambda peak: (peak.demand, -peak.at))
    met = set[str]().union(*(peak.owners for peak in peaks)) - ({subject.id} if subject else set())
    others = sorted((known[key] for key in met), key=lambda other: other.name)
    code, has = _SHORTAGES["exclusive" if kind == "pool" and limit == 1 else kind]
    when = f"{len(peaks)} times, first at {_told(peaks[0].at)}" if len(peaks) > 1 else f"at {_told(peaks[0].at)}"
    what = f"{'concurrency key' if kind == 'key' else kind} {name}"
    who = f" ({_names(others)})" if others else ""
    with_whom = f"{subject.name}{' and others want' if others else ' alone wants'}" if subject else "Schedules want"
    return Finding(
        code.value,
        ConflictSeverity.WARNING.value,
        f"{with_whom} {worst.demand} of {what} at once, {has.format(limit=limit)}: {when}{who}.",
        (subject.id, subject.name) if subject else None,
        tuple((other.id, other.name) for other in others[:NAMED]),
        tuple(peak.at for peak in peaks[:NAMED_INSTANTS]),
        {
            "resource": {"kind": kind, "name": name},
            "limit": limit,
            "demand": worst.demand,
            "worst_at": write_instant(worst.at),
            "times": len(peaks),
            "schedules": len(others),
        },
    )


_SHORTAGES: Final[Mapping[str, tuple[ConflictCode, str]]] = {
    "queue": (ConflictCode.QUEUE_FULL, "whose workers run {limit} at a time"),
    "pool": (ConflictCode.POOL_FULL, "which has {limit}"),
    "key": (ConflictCode.EXCLUSIVE, "which admits {limit}"),
    "exclusive": (ConflictCode.EXCLUSIVE, "which has {limit}"),
}


# ── Runs to come ─────────────────────────────────────────────────────────────────────────────────────────────


def _dues(contender: Contender, after: int, until: int) -> Iterator[int]:
    """When it fires in (`after`, `until`], at most as often as it may."""
    dues = (instant.due for instant in contender.timing.due_between(after, until) if not instant.skip)
    return dues if contender.remaining is None else islice(dues, contender.remaining)


def runs_of(contender: Contender, now: int, until: int, most: int, found: Found) -> list[Run]:
    """Its first `most` runs in (`now`, `until`]. They follow each other, unless its policy lets them overlap."""
    length = _length(contender)
    runs: list[Run] = []
    dues = _dues(contender, now, until)
    for due in islice(dues, most):
        if runs and due < runs[-1].end and contender.overlap_policy != OverlapPolicy.ALLOW_ALL:
            continue  # it is skipped or waits, or the one before is ended: never two at once
        runs.append(Run(due, due + length, 1, contender.id))
    if next(dues, None) is not None:
        found.truncated = True
    return runs


def _length(contender: Contender) -> int:
    """Whole seconds of a run, at least one."""
    return max(1, -int(-(contender.duration or 0) // 1))


def _near(other: Contender, windows: Sequence[tuple[int, int]], now: int, looks: _Looks) -> Iterator[Run]:
    """The runs of another schedule that touch the windows. Windows without any are leapt over."""
    length = _length(other)
    ends = [end for _, end in windows]
    index, last = 0, now
    overlaps = other.overlap_policy == OverlapPolicy.ALLOW_ALL
    while index < len(windows) and looks.left > 0:
        start, end = windows[index]
        low = max(start - length, last)
        for due in looks.counted(_dues(other, low, end - 1)):
            if due > last:
                yield Run(due, due + length, 1, other.id)
                last = due if overlaps else due + length - 1
        index += 1
        if other.timing.blackouts is None and index < len(windows):
            following = other.timing.next_after(end - 1 - other.timing.jitter)
            looks.left -= 1
            if following is None:
                return
            index = max(index, bisect_right(ends, following.nominal))
    if index < len(windows):
        looks.found.truncated = True


class _Looks:
    """Instants that may still be looked at."""

    def __init__(self, left: int, found: Found) -> None:
        self.left = left
        self.found = found

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Pass items on until none may be looked at any more."""
        for item in items:
            if self.left <= 0:
                self.found.truncated = True
                return
            self.left -= 1
            yield item


def _names(contenders: Sequence[Contender]) -> str:
    shown = ", ".join(contender.name for contender in contenders[:3])
    return shown + (f" and {len(contenders) - 3} more" if len(contenders) > 3 else "")


def _told(instant: int) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
