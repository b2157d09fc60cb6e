"""What a drill found: counts from the tables and the effects file, and whether they keep the promises."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Count, F, Q

from execution.models import Attempt, DeadLetter, Execution, StepOutput, StepRun
from execution.states import AttemptState, ExecutionState, StepState
from schedules.models import Schedule, ScheduleFire
from schedules.states import FireOutcome
from schedules.timing.occurrences import compile as compile_timing
from triggers.models import Activation, Event

if TYPE_CHECKING:
    from scheduling_project.drills.load import Webhooks


@dataclass(slots=True)
class Verdict:
    """The figures of one drill. `problems` is empty when every promise was kept."""

    drill: str
    expected: int
    succeeded: int
    lost: int
    doubled: int
    stale_commits: int
    repeated_effects: int
    recovery_seconds: float | None
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


def judge(
    drill: str,
    *,
    executions: list[UUID],
    effects: Counter[str],
    recovery_seconds: float | None,
    recovery_limit: float | None = None,
    repeats_allowed: int = 0,
    **figures: Any,
) -> Verdict:
    """Hold the given executions against the promises.

    Lost: did not succeed. Doubled: a step run with more than one attempt that succeeded. Stale: a success that is
    not its step run's last attempt, or an output that an earlier attempt has left. An effect may repeat where its
    process was killed (a step runs at least once), `repeats_allowed` times.
    """
    runs = StepRun.objects.filter(execution__in=executions)
    succeeded = Execution.objects.filter(pk__in=executions, state="succeeded").count()
    doubled = runs.annotate(wins=Count("attempts", filter=Q(attempts__state=AttemptState.SUCCEEDED))).filter(wins__gt=1)
    stale = (
        Attempt.objects.filter(step_run__in=runs, state=AttemptState.SUCCEEDED)
        .exclude(number=F("step_run__attempt"))
        .count()
    )
    stale += sum(
        data.get("attempt", last) != last
        for data, last in StepOutput.objects.filter(step_run__in=runs).values_list("data", "step_run__attempt")
        if isinstance(data, dict)
    )
    verdict = Verdict(
        drill=drill,
        expected=len(executions),
        succeeded=succeeded,
        lost=len(executions) - succeeded,
        doubled=doubled.count(),
        stale_commits=stale,
        repeated_effects=sum(count - 1 for count in effects.values() if count > 1),
        recovery_seconds=recovery_seconds,
        figures=figures,
    )
    if verdict.lost:
        verdict.problems.append(f"{verdict.lost} of {verdict.expected} executions did not succeed")
    if verdict.doubled:
        verdict.problems.append(f"{verdict.doubled} step runs were committed twice")
    if verdict.stale_commits:
        verdict.problems.append(f"{verdict.stale_commits} stale attempts committed")
    if verdict.repeated_effects > repeats_allowed:
        verdict.problems.append(f"{verdict.repeated_effects} effects were repeated, {repeats_allowed} could be")
    missing = runs.filter(state=StepState.SUCCEEDED).count() - len(effects)
    if missing > 0:
        verdict.problems.append(f"{missing} steps succeeded without their effect")
    if recovery_limit is not None and (recovery_seconds is None or recovery_seconds > recovery_limit):
        verdict.problems.append(f"recovery took {recovery_seconds} s, at most {recovery_limit:g} s are promised")
    letters = DeadLetter.objects.filter(execution__in=executions).count()
    if letters:
        verdict.problems.append(f"{letters} dead letters, where nothing failed for good")
    return verdict


def judge_ledger(verdict: Verdict, schedules: list[Schedule]) -> None:
    """Hold the ledger of these schedules against their timetables: each instant up to the watermark exactly once,
    each started one with exactly one execution."""
    instants = lost = doubled = 0
    for schedule in Schedule.objects.filter(pk__in=[schedule.pk for schedule in schedules]).select_related("version"):
        assert schedule.version is not None
        timing = compile_timing(schedule.version.spec, seed=str(schedule.pk))
        began = int(schedule.version.effective_from.timestamp())
        due = set(timing.fires(began, int(schedule.fired_through.timestamp())))
        covered: Counter[int] = Counter()
        for begin, end in ScheduleFire.objects.filter(schedule=schedule).values_list("scheduled_for", "until"):
            first = int(begin.timestamp())
            if end is None:
                covered[first] += 1
            else:  # a run of instants in one entry
                covered.update(instant for instant in due if first <= instant <= int(end.timestamp()))
        instants += len(due)
        lost += len(due - covered.keys())
        doubled += sum(count - 1 for count in covered.values()) + len(covered.keys() - due)
        orphans = ScheduleFire.objects.filter(schedule=schedule, outcome=FireOutcome.STARTED, execution=None).count()
        if orphans:
            verdict.problems.append(f"{schedule.name}: {orphans} instants started without an execution")
        started = Execution.objects.filter(source_kind="schedule", source_id=str(schedule.pk))
        twice = started.values("scheduled_for").annotate(n=Count("id")).filter(n__gt=1).count()
        doubled += twice
    verdict.figures |= {"instants": instants, "instants_lost": lost, "instants_doubled": doubled}
    late = sorted(
        (recorded - due_at).total_seconds() * 1000
        for recorded, due_at in ScheduleFire.objects.filter(
            schedule__in=schedules, outcome=FireOutcome.STARTED, due_at__isnull=False
        ).values_list("recorded_at", "due_at")
    )
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        verdict.figures[f"late_{name}_ms"] = round(late[min(len(late) - 1, int(len(late) * share))]) if late else None
    if instants == 0:
        verdict.problems.append("nothing was due: the drill proves nothing")
    if lost:
        verdict.problems.append(f"{lost} due instants are not in the ledger")
    if doubled:
        verdict.problems.append(f"{doubled} instants are in the ledger or ran more than once")


def judge_webhooks(verdict: Verdict, sender: Webhooks) -> None:
    """Each accepted delivery is one event with one activation and the execution that was told; nothing is twice."""
    verdict.problems += sender.problems
    told = {str(answer["event_id"]) for answer in sender.accepted.values()}
    stored = {str(key) for key in Event.objects.filter(endpoint=sender.endpoint).values_list("pk", flat=True)}
    lost, doubled = len(told - stored), len(sender.accepted) - len(told)
    executions = Counter(
        str(key)
        for key in Activation.objects.filter(event__endpoint=sender.endpoint).values_list("execution_id", flat=True)
    )
    doubled += sum(count - 1 for count in executions.values())
    started = Activation.objects.filter(event_id__in=told, execution__isnull=False).count()
    if lost or started != len(told):
        verdict.problems.append(f"{lost} accepted webhooks have no event, {len(told) - started} no execution")
    if doubled:
        verdict.problems.append(f"{doubled} accepted webhooks are there twice")
    verdict.lost += lost
    verdict.doubled += doubled
    answered = sorted(sender.seconds)
    verdict.figures |= {
        "webhooks": len(sender.accepted),
        "webhooks_refused": sender.refusals,
        "webhook_p99_ms": round(answered[int(len(answered) * 0.99)] * 1000) if answered else None,
    }


def judge_failures(verdict: Verdict, executions: list[UUID]) -> None:
    """Each of these has failed and has exactly one letter."""
    failed = Execution.objects.filter(pk__in=executions, state=ExecutionState.FAILED).count()
    letters = Counter(DeadLetter.objects.filter(execution__in=executions).values_list("execution_id", flat=True))
    without, twice = len(executions) - len(letters), sum(count - 1 for count in letters.values())
    verdict.figures |= {"to_fail": len(executions), "failed": failed, "dead_letters": sum(letters.values())}
    if failed != len(executions):
        verdict.problems.append(f"{len(executions) - failed} executions should have failed for good and have not")
    if without:
        verdict.problems.append(f"{without} executions that failed for good have no dead letter")
    if twice:
        verdict.problems.append(f"{twice} dead letters too many")
    verdict.lost += without
    verdict.doubled += twice
