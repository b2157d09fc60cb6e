"""The drills. Each starts its processes, loads the system, injects one fault, waits until all is clear, and judges."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import redis
from django.conf import settings

from execution import creation, workflows
from execution.models import Attempt, Execution, Workflow
from execution.states import EXECUTION_OPEN
from schedules import lifecycle
from schedules.models import Schedule
from scheduling_project.common import clock
from scheduling_project.drills import effects
from scheduling_project.drills.processes import NotInTime, Processes, wait_until
from scheduling_project.drills.verdict import Verdict, judge, judge_ledger

ACTOR = "drill"
CLEAR_TIMEOUT = 180.0


def effect_workflow(path: Path, seconds: float) -> Workflow:
    """One step that works for some seconds and notes its effect in `path`."""
    steps = {"work": {"task": "drill.effect", "with": {"path": str(path), "seconds": seconds}}}
    return workflows.create(f"drill-{uuid4().hex[:12]}", {"steps": steps}, actor=ACTOR)


def all_clear(executions: list[UUID]) -> bool:
    """Whether none of these executions is open any more."""
    return not Execution.objects.filter(pk__in=executions, state__in=EXECUTION_OPEN).exists()


def kill_worker(processes: Processes, *, kills: int = 5, load: int = 40) -> Verdict:
    """kill -9 of a worker's pool process in the middle of a step, several times under load."""
    path = processes.folder / "effects"
    workflow = effect_workflow(path, 1.0)
    worker = processes.worker("w1", slots=2)
    executions = [creation.start(workflow).pk for _ in range(load)]
    killed: list[str] = []
    recoveries: list[float] = []
    for _ in range(kills):
        wait_until("a step runs", lambda: fresh(effects.running(path), killed), timeout=60, pause=0.05)
        key, pid = fresh(effects.running(path), killed)[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(key)
        began = time.monotonic()
        wait_until(f"{key} is taken back", partial(taken_back, key), timeout=CLEAR_TIMEOUT, pause=0.05)
        recoveries.append(time.monotonic() - began)
    wait_until("all is clear", lambda: all_clear(executions), timeout=CLEAR_TIMEOUT)
    lost = Attempt.objects.filter(step_run__execution__in=executions, state="lost").count()
    verdict = judge(
        "kill-worker",
        executions=executions,
        effects=effects.ended(path),
        repeats_allowed=kills,
        recovery_seconds=round(max(recoveries), 2),
        recovery_limit=recovery_limit(),
        kills=kills,
        attempts_lost=lost,
        worker_lived=worker.pid in [service.pid for service in processes.services],
    )
    if lost < kills:
        verdict.problems.append(f"{kills} processes were killed, but only {lost} attempts say so")
    return verdict


def fresh(running: dict[str, int], killed: list[str]) -> list[tuple[str, int]]:
    """What runs and was not killed yet; a killed step that runs again has a new process, but one kill is enough."""
    return [(key, pid) for key, pid in running.items() if key not in killed]


def taken_back(key: str) -> bool:
    """Whether the attempt that was killed is closed as lost."""
    execution_id, _, name = key.partition(":")
    found = Attempt.objects.filter(step_run__execution=UUID(execution_id), step_run__name=name, state="lost")
    return found.exists()


def recovery_limit() -> float:
    """The promise: lease + rescue + sweep, and a second for the drill's own polling."""
    lease, rescue, sweep = (
        float(os.environ.get(name) or getattr(settings, name))
        for name in ("WORKFLOW_LEASE_SECONDS", "WORKFLOW_RESCUE_SECONDS", "WORKFLOW_SWEEP_SECONDS")
    )
    return lease + rescue + sweep + 1.0


def flush_redis(
    processes: Processes, *, backlog: int = 200, whole_server: bool = True, patience: float = CLEAR_TIMEOUT
) -> Verdict:
    """FLUSHALL with a backlog of executions: all complete, none twice."""
    path = processes.folder / "effects"
    workflow = effect_workflow(path, 0.05)  # so that some are left
    processes.worker("w1", slots=2)
    executions = [creation.start(workflow).pk for _ in range(backlog)]
    client = redis.Redis.from_url(settings.REDIS_URL)
    wait_until("some have run", lambda: len(effects.ended(path)) >= min(10, backlog), timeout=60, pause=0.02)
    left = Execution.objects.filter(pk__in=executions, state__in=EXECUTION_OPEN).count()
    if whole_server:
        client.flushall()
    else:  # somebody else uses the server's other databases
        client.flushdb()
    began = time.monotonic()
    done = len(effects.ended(path))
    never: list[str] = []
    # What a pool process held already may still end: recovery is the first hint that came after those.

    def flows() -> bool:
        return len(effects.ended(path)) > done + 4 or all_clear(executions)

    recovery = None
    try:
        wait_until("work flows again", flows, timeout=min(60.0, patience))
        recovery = time.monotonic() - began
        wait_until("all is clear", lambda: all_clear(executions), timeout=patience)
    except NotInTime as finding:
        never.append(str(finding))
    verdict = judge(
        "flush-redis",
        executions=executions,
        effects=effects.ended(path),
        recovery_seconds=None if recovery is None else round(recovery, 2),
        recovery_limit=10.0,
        backlog_at_flush=left,
    )
    verdict.problems += never
    if not left:
        verdict.problems.append("the backlog was gone before the flush: the drill proves nothing")
    return verdict


def two_beats(processes: Processes, *, seconds: float = 120.0, schedules: int = 10) -> Verdict:
    """Two beats at once: each (schedule, instant) exactly once."""
    path = processes.folder / "effects"
    workflow = effect_workflow(path, 0.0)
    processes.worker("w1", slots=2)
    anchor = clock.now() + timedelta(seconds=1)
    made = [
        lifecycle.create(
            actor=ACTOR,
            name=f"drill-{uuid4().hex[:8]}",
            workflow=workflow,
            overlap_policy="allow_all",
            spec={"timetables": [{"kind": "interval", "every": 2 + number % 2, "anchor": anchor.isoformat()}]},
        )
        for number in range(schedules)
    ]
    processes.beat("b1")
    processes.beat("b2")
    time.sleep(seconds)
    for schedule in made:
        lifecycle.pause(schedule.pk, actor=ACTOR)
    started = Execution.objects.filter(source_kind="schedule", source_id__in=[str(s.pk) for s in made])
    wait_until("all is clear", lambda: not started.filter(state__in=EXECUTION_OPEN).exists(), timeout=CLEAR_TIMEOUT)
    verdict = judge(
        "two-beats",
        executions=list(started.values_list("pk", flat=True)),
        effects=effects.ended(path),
        recovery_seconds=None,
        seconds=seconds,
    )
    judge_ledger(verdict, made)
    due = Schedule.objects.filter(pk__in=[s.pk for s in made]).count()
    verdict.figures["schedules"] = due
    return verdict


Drill = Callable[..., Verdict]

DRILLS: dict[str, Drill] = {"kill-worker": kill_worker, "flush-redis": flush_redis, "two-beats": two_beats}

#: The short forms that the test suite runs.
SHORT: dict[str, dict[str, Any]] = {
    "kill-worker": {"kills": 2, "load": 8},
    "flush-redis": {"backlog": 200, "whole_server": False},
    "two-beats": {"seconds": 8.0, "schedules": 6},
}
