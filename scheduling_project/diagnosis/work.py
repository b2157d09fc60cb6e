"""What is under way: processes, queues that nobody serves, rows that stand still, the ledger, news, dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, Min, QuerySet

from execution import queues
from execution.models import DeadLetter, Execution, News, ProcessReport, StepRun
from execution.states import DeadLetterState, ExecutionState, StepState, WaitingFor
from schedules import audit, statistics, switch
from schedules.models import Schedule
from scheduling_project.common.console import ago
from scheduling_project.diagnosis.finding import Finding, error, hint, ok, warning

#: Seconds after which the sweeps, rescues and timers, which run each second, must have seen to a row.
STUCK_SECONDS: Final = 60.0
#: Seconds between the two looks at rows that do not say since when they could go on.
LOOK_AGAIN_SECONDS: Final = 2.0
#: How long what is due may wait in a served queue, and a ledger go without an audit.
LONG_WAIT: Final = timedelta(minutes=15)
AUDIT_WITHIN: Final = timedelta(hours=3)
DAY: Final = timedelta(days=1)
MOST: Final = 1_000


def processes(now: datetime) -> Iterator[Finding]:
    """Beats and workers: alive, and of one version."""
    reports = list(ProcessReport.objects.filter(seen_at__gt=now - DAY, stopped_at=None).order_by("name"))
    alive_after = now - timedelta(seconds=queues.ALIVE_SECONDS)
    for kind in ("beat", "worker"):
        alive = [one for one in reports if one.kind == kind and one.seen_at > alive_after]
        silent = [one for one in reports if one.kind == kind and one.seen_at <= alive_after]
        if not alive:
            what = "nothing fires on time" if kind == "beat" else "nothing is run"
            yield error(f"{kind}s", f"none is alive: {what}", f"start one: celery -A scheduling_project {kind}")
        else:
            slots = f", {sum(one.slots for one in alive)} slots" if kind == "worker" else ""
            yield ok(f"{kind}s", f"{len(alive)} alive{slots}")
        for one in silent:
            yield warning(
                f"{kind}s",
                f"{one.name} on {one.host} was last seen {ago(one.seen_at, now)} ago and has not said that it stopped",
                "look whether its host is well; what it held is taken back by itself",
            )
        versions = {tuple(sorted(one.versions.items())) for one in alive}
        if len(versions) > 1:
            yield warning(f"{kind}s", "they run different versions of their libraries", "deploy the same everywhere")


def lanes(now: datetime) -> Iterator[Finding]:
    """Queues with work that nobody takes."""
    found = queues.stats()
    for state in found:
        due = state.total("waiting") + state.total("in_flight")
        named = f"{due} step runs are due in queue {state.name}"
        if state.name not in settings.WORKFLOW_QUEUES and due:
            yield error(
                "queues", f"{named}, which this installation lacks", "name it in WORKFLOW_QUEUES, or cancel them"
            )
        elif state.paused_at is not None:
            long = due and now - state.paused_at > DAY
            told = f"{state.name} is {state.status} for {ago(state.paused_at, now)}, {due} step runs wait"
            yield (warning if long else hint)("queues", told, f"manage.py queues resume {state.name}")
        elif due and not state.workers:
            todo = f"start a worker: celery -A scheduling_project worker -Q {state.name}"
            yield error("queues", f"{named} and no worker serves it", todo)
        elif state.oldest_at is not None and now - state.oldest_at > LONG_WAIT:
            yield warning(
                "queues",
                f"what is due in queue {state.name} waits for up to {ago(state.oldest_at, now)}",
                "start more workers, or see manage.py queues list --levels",
            )
    waiting = sum(state.total("waiting") + state.total("in_flight") for state in found)
    yield ok("queues", f"{len(found)} queues, {waiting} due, {sum(state.total('running') for state in found)} running")


def standing_still(now: datetime, *, pause: Callable[[float], object] = time.sleep) -> Iterator[Finding]:
    """Rows that a sweep should have moved on long ago."""
    before = now - timedelta(seconds=STUCK_SECONDS)
    steps = StepRun.objects.order_by()
    timed = steps.filter(state=StepState.WAITING, waiting_for__in=[WaitingFor.TIMER, WaitingFor.APPROVAL])
    # Nobody may be there to see to them; then that is what is wrong, and the processes' findings say so as well.
    kinds: tuple[tuple[str, QuerySet[Any], str], ...] = (
        (
            "step runs are running though their lease has long ended",
            steps.filter(state=StepState.RUNNING, lease_until__lt=before),
            "a live worker rescues them: see workers above",
        ),
        (
            "sleeping steps are past their time",
            timed.filter(available_at__lt=before).exclude(execution__state=ExecutionState.PAUSED),
            "a live worker wakes them: see workers above",
        ),
        (
            "executions run past their deadline",
            Execution.objects.order_by().filter(deadline_at__lt=before, finished_at__isnull=True),
            "a live worker cancels them: see workers above",
        ),
    )
    found = False
    for what, rows, todo in kinds:
        count = rows[:MOST].count()
        if count:
            found = True
            yield error("stuck", f"{_at_most(count)} {what}", todo)
    ripe = steps.filter(state=StepState.WAITING, waiting_for=WaitingFor.NEEDS, needs_open=0)
    twice: tuple[tuple[str, QuerySet[Any], str], ...] = (
        (
            "steps wait for needs that have all ended",
            ripe.exclude(execution__state=ExecutionState.PAUSED),
            "a live worker decides them each second; if one is alive, its log says why it cannot",
        ),
        (
            "executions are open without an open step",
            Execution.objects.order_by().open().filter(open_steps=0),
            "cancel them (manage.py executions cancel) and report it: this must not happen",
        ),
    )
    first = [set(rows.values_list("pk", flat=True)[:MOST]) for _, rows, _ in twice]
    if any(first):
        pause(LOOK_AGAIN_SECONDS)
    for (what, rows, todo), seen in zip(twice, first, strict=True):
        still = rows.filter(pk__in=seen).count() if seen else 0
        if still:
            found = True
            yield error("stuck", f"{_at_most(still)} {what}", todo)
    if not found:
        yield ok("stuck", "no row stands still")


def firing(now: datetime) -> Iterator[Finding]:
    """Whether schedules fire, and the ledger agrees with their timings."""
    stopped = switch.state().stopped_at
    if stopped is not None:
        yield warning("firing", f"all firing is stopped for {ago(stopped, now)}", "manage.py schedules start")
    else:
        late = Schedule.objects.filter(enabled=True, next_fire_at__lt=now - timedelta(seconds=statistics.LATE_SECONDS))
        worst = late.aggregate(count=Count("pk"), first=Min("next_fire_at"))
        if worst["count"]:
            told = f"{worst['count']} schedules are overdue, the first for {ago(worst['first'], now)}"
            yield error("firing", told, "start a beat: celery -A scheduling_project beat; its log says what hinders it")
        else:
            yield ok("firing", "no schedule is overdue")
    latest = audit.latest()
    if latest is None or now - latest.finished_at > AUDIT_WITHIN:
        told = "was never audited" if latest is None else f"was last audited {ago(latest.finished_at, now)} ago"
        yield hint("ledger", f"it {told}", "manage.py schedules audit, or let a worker run the housekeeping")
    elif latest.differences or latest.unreadable:
        yield error(
            "ledger",
            f"{latest.differences} differences in {latest.findings} schedules, {latest.unreadable} not computable",
            "see manage.py schedules audit; run what is missing by manage.py schedules backfill",
        )
    else:
        yield ok("ledger", f"{latest.schedules} schedules agree, {ago(latest.finished_at, now)} ago")


def news(now: datetime) -> Iterator[Finding]:
    """News that somebody subscribed to and nobody has taken."""
    old = News.objects.order_by().filter(created_at__lt=now - timedelta(seconds=STUCK_SECONDS))
    waiting = old.values("topic").annotate(count=Count("pk"), first=Min("created_at"))
    rows = list(waiting.order_by("topic"))
    for row in rows:
        told = f"{row['count']} of topic {row['topic']} wait for up to {ago(row['first'], now)}"
        yield warning("news", told, "their consumers run in beats and workers: see above")
    if not rows:
        yield ok("news", "all are delivered")


def letters(now: datetime) -> Iterator[Finding]:
    """Failures that wait for a decision."""
    found = DeadLetter.objects.filter(state=DeadLetterState.OPEN).aggregate(count=Count("pk"), first=Min("created_at"))
    if not found["count"]:
        yield ok("dead letters", "none is open")
        return
    told = f"{found['count']} are open, the first for {ago(found['first'], now)}"
    yield hint("dead letters", told, "manage.py deadletters groups")


def _at_most(count: int) -> str:
    return f"{count}" if count < MOST else f"at least {count}"
