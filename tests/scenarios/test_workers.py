"""Real workers: one of two is paused, a queue borrows one, a step uses too much memory, a drained worker ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from execution import creation, queues, workers, workflows
from execution.models import Attempt, DeadLetter, Execution, ProcessReport
from execution.states import EXECUTION_TERMINAL
from scheduling_project.drills.processes import Processes, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]


def run(step: dict[str, Any], **options: Any) -> Execution:
    workflow = workflows.create(f"workers-{time.monotonic_ns()}", {"steps": {"a": step}}, actor="test")
    return creation.start(workflow, **options)


def ended(*executions: Execution) -> None:
    for execution in executions:

        def is_over(one: Execution = execution) -> bool:
            one.refresh_from_db()
            return one.state in EXECUTION_TERMINAL

        wait_until(f"execution {execution.pk} ends", is_over, timeout=30)


def serves(name: str, *names: str) -> None:
    def said() -> bool:
        return sorted(ProcessReport.objects.get(pk=f"{name}@drill").queues) == sorted(names)

    wait_until(f"{name} serves {names}", said, timeout=15)


def workers_of(executions: list[Execution]) -> set[str]:
    found = Attempt.objects.filter(step_run__execution__in=executions).values_list("worker", flat=True)
    return {worker.partition("@")[0] for worker in found}


def test_workers_are_steered_one_by_one(processes: Processes, tmp_path: Path) -> None:
    first = processes.worker("w1", queues="default", slots=1, WORKFLOW_REPORT_SECONDS="0.3")
    processes.worker("w2", queues="io", slots=1, WORKFLOW_REPORT_SECONDS="0.3")
    stamp = {"task": "drill.effect", "with": {"path": str(tmp_path / "effects"), "seconds": 0}}

    workers.pause("w1@drill", actor="ada")
    serves("w1")
    stuck = [run(stamp) for _ in range(3)]
    other = run({**stamp, "queue": "io"})
    ended(other)
    assert {Execution.objects.get(pk=one.pk).state for one in stuck} == {"queued"}

    queues.set_age_limit("default", 1, actor="ada")  # nobody else serves it, and its items are older than that
    serves("w2", "default", "io")
    ended(*stuck)
    assert workers_of(stuck) == {"w2"}

    workers.resume("w1@drill", actor="ada")
    serves("w1", "default")
    workers.pause("w2@drill", actor="ada")
    serves("w2")
    eats = {"task": "drill.eat_memory", "with": {"megabytes": 300}, "limits": {"memory": "250MB"}}
    hungry = run({**eats, "retry": {"max_attempts": 2, "backoff": 0, "retry_on": ["memory"]}})
    after = run(stamp)
    ended(hungry, after)
    assert (hungry.state, after.state) == ("failed", "succeeded")
    letter = DeadLetter.objects.get()
    assert letter.error_type == "MemoryLimitExceeded"
    assert letter.error.endswith("its limit is 250 MB")
    states = Attempt.objects.filter(step_run__execution=hungry).order_by("number").values_list("state", flat=True)
    assert list(states) == ["retryable", "failed"]
    assert workers_of([hungry, after]) == {"w1"}

    workers.drain("w1@drill", actor="ada", ends=True)
    wait_until("w1 ends", lambda: not psutil.pid_exists(first.pid) or _is_zombie(first.pid), timeout=15)
    report = ProcessReport.objects.get(pk="w1@drill")
    assert report.drained_at is not None
    assert report.stopped_at is not None


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
