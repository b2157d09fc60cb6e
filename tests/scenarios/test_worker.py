"""One real worker: what it does with every kind of step, good and bad."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from django.conf import settings

from execution import creation, lifecycle, workflows
from execution.models import Attempt, DeadLetter, Execution, StepRun
from execution.states import EXECUTION_TERMINAL
from scheduling_project.drills.processes import Processes, Service, wait_until
from scheduling_project.drills.tasks import NO_JSON

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]


def run(steps: dict[str, Any], *, input: Any = None, name: str = "scenario", **options: Any) -> Execution:
    workflow = workflows.create(f"{name}-{time.monotonic_ns()}", {"steps": steps}, actor="test")
    return creation.start(workflow, input=input, **options)


def ended(execution: Execution, timeout: float = 30) -> Execution:
    def is_over() -> bool:
        execution.refresh_from_db()
        return execution.state in EXECUTION_TERMINAL

    wait_until(f"execution {execution.pk} ends", is_over, timeout=timeout)
    return execution


def attempts(execution: Execution) -> list[tuple[int, str]]:
    found = Attempt.objects.filter(step_run__execution=execution).order_by("number")
    return list(found.values_list("number", "state"))


@pytest.fixture
def worker(processes: Processes) -> Iterator[Service]:
    service = processes.worker()
    yield service
    print(service.tail(60))


BEHAVIOUR = {
    # how: (state of the execution, states of the attempts, error type of the dead letter)
    "poisoned": ("failed", ["failed"], "Poisoned"),
    "ignore": ("succeeded", ["cancelled"], None),
    "reject": ("failed", ["failed"], "Reject"),
    "requeue": ("succeeded", ["snoozed", "succeeded"], None),
    "snooze": ("succeeded", ["snoozed", "succeeded"], None),
    "exit": ("failed", ["failed"], "SystemExit"),
    "memory": ("failed", ["failed"], "MemoryError"),
    "base": ("failed", ["failed"], "BaseException"),
    "unpicklable": ("failed", ["failed"], "Poisoned"),
    "not json": ("failed", ["failed"], "OutputNotKept"),
    "nan": ("failed", ["failed"], "OutputNotKept"),
    "huge": ("failed", ["failed"], "OutputNotKept"),
    "recursion": ("failed", ["failed"], "OutputNotKept"),
    "kill once": ("succeeded", ["lost", "succeeded"], None),
    "nothing": ("succeeded", ["succeeded"], None),
    "deep recursion": ("failed", ["failed"], "RecursionError"),
    "keyboard": ("failed", ["failed"], "KeyboardInterrupt"),
    "shutdown": ("failed", ["failed"], "WorkerShutdown"),
    "group": ("failed", ["failed"], "ExceptionGroup"),
    "unspeakable": ("failed", ["failed"], "Unspeakable"),
    "closes the database": ("succeeded", ["succeeded"], None),
    "gone once": ("succeeded", ["lost", "succeeded"], None),
    **dict.fromkeys(NO_JSON, ("failed", ["failed"], "OutputNotKept")),
}


def test_whatever_a_step_does_leaves_a_record_and_a_living_worker(worker: Service) -> None:
    executions = {how: run({"bad": {"task": "drill.misbehave", "with": {"how": how}}}) for how in BEHAVIOUR}
    found = {}
    for how, execution in executions.items():
        state = ended(execution).state
        letter = DeadLetter.objects.filter(execution=execution).values_list("error_type", flat=True).first()
        found[how] = (state, [state for _, state in attempts(execution)], letter)
    assert found == BEHAVIOUR
    assert psutil.pid_exists(worker.pid)
    # What runs steps gives way to who waits for an answer; what watches over them does not.
    parent = psutil.Process(worker.pid)
    assert {child.nice() - parent.nice() for child in parent.children()} == {5}


def test_retries_limits_and_quarantine_on_one_worker(worker: Service, tmp_path: Path) -> None:
    path = str(tmp_path / "effects")
    killer = run({"bad": {"task": "drill.misbehave", "with": {"how": "kill", "path": path}}})
    named = run(
        {
            "bad": {
                "task": "drill.misbehave",
                "with": {"how": "kill", "path": path},
                "retry": {"max_attempts": 2, "backoff": 0, "retry_on": ["worker_death"]},
            }
        }
    )
    flaky = run({"flaky": {"task": "drill.flaky", "with": {"path": path, "failures": 2}}})
    exhausted = run(
        {
            "flaky": {
                "task": "drill.flaky",
                "with": {"path": path, "failures": 9},
                "retry": {"max_attempts": 2, "backoff": 0.1, "jitter": False},
            }
        }
    )
    asking = run({"ask": {"task": "drill.ask_again", "with": {"countdown": 1.0}}})
    timed = run(
        {
            "slow": {
                "task": "drill.effect",
                "with": {"path": path, "seconds": 20},
                "timeout": 0.5,
                "retry": {"max_attempts": 2, "backoff": 0, "retry_on": ["timeout"]},
            }
        }
    )

    # Its time limit has no say in it: only the hard limit, ten seconds later, ends it. No worker died.
    stubborn = run({"slow": {"task": "drill.misbehave", "with": {"how": "forever"}, "timeout": 1}})

    assert ended(killer).state == "failed"
    assert [state for _, state in attempts(killer)] == ["lost", "lost", "failed"]
    assert DeadLetter.objects.get(execution=killer).reason == "quarantined"

    # A policy that names worker deaths counts them, in place of the quarantine.
    assert ended(named).state == "failed"
    assert [state for _, state in attempts(named)] == ["lost", "failed"]
    assert StepRun.objects.get(execution=named).failures == 2

    assert ended(flaky).state == "succeeded"
    assert [state for _, state in attempts(flaky)] == ["retryable", "retryable", "succeeded"]
    first, second = Attempt.objects.filter(step_run__execution=flaky, state="retryable").order_by("number")
    assert first.decision["policy"]["origin"] == "task"
    assert second.decision["reason"] == "attempt 2 of 4 failed with scheduling_project.drills.tasks.Flaky"

    assert ended(exhausted).state == "failed"
    assert [state for _, state in attempts(exhausted)] == ["retryable", "failed"]
    assert DeadLetter.objects.get(execution=exhausted).attempts == 2

    assert ended(asking).state == "succeeded"
    asked, done = Attempt.objects.filter(step_run__execution=asking).order_by("number")
    assert (asked.state, done.state) == ("retryable", "succeeded")
    assert asked.finished_at is not None
    assert (done.started_at - asked.finished_at).total_seconds() >= 0.95

    assert ended(timed).state == "failed"
    assert [state for _, state in attempts(timed)] == ["retryable", "failed"]

    assert ended(stubborn, timeout=40).state == "failed"
    letter = DeadLetter.objects.get(execution=stubborn)
    assert (letter.reason, letter.error_type) == ("timed_out", "TimeLimitExceeded")
    assert no_eta_was_sent()

    # The main process and its pool processes go on to say what they do after the first step and the first rescue.
    lines = worker.log.read_text()
    assert (lines.count("step.rescued"), lines.count("step.quarantined")) == (3, 3)
    assert lines.count("step.succeeded") == 2


def no_eta_was_sent() -> bool:
    """Nothing waits in the worker with an ETA (kombu keeps such messages in `unacked`), nor in a queue."""
    client = redis.Redis.from_url(settings.REDIS_URL)
    held = [value.decode() for value in client.hvals("unacked")]
    return all('"eta": null' in message for message in held)


def test_a_cancelled_step_is_told_and_its_late_outcome_refused(worker: Service, tmp_path: Path) -> None:
    path = tmp_path / "effects"
    execution = run({"slow": {"task": "drill.effect", "with": {"path": str(path), "seconds": 30}}})
    wait_until("the step runs", path.exists, timeout=20)
    lifecycle.cancel(execution.pk, actor="test", reason="changed my mind")
    after = run({"good": {"task": "drill.misbehave", "with": {"how": "nothing"}}})
    other = run({"good": {"task": "drill.misbehave", "with": {"how": "nothing"}}})
    assert ended(after).state == ended(other).state == "succeeded"
    execution.refresh_from_db()
    assert execution.state == "cancelled"
    assert [state for _, state in attempts(execution)] == ["cancelled"]


def test_a_frozen_worker_that_comes_back_commits_nothing(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "effects"
    frozen = processes.worker("frozen", slots=1)
    execution = run({"slow": {"task": "drill.effect", "with": {"path": str(path), "seconds": 2}}})
    wait_until("the step runs", path.exists, timeout=20)
    pids = [frozen.pid, *(child.pid for child in frozen.children())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    processes.worker("healthy", slots=1)
    try:
        assert ended(execution).state == "succeeded"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    time.sleep(3)
    assert [state for _, state in attempts(execution)] == ["lost", "succeeded"]
    execution.refresh_from_db()
    assert execution.state == "succeeded"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_shutdown_gives_back_what_it_cannot_finish(
    processes: Processes, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "effects"
    leaving = processes.worker("leaving", slots=1)
    execution = run({"slow": {"task": "drill.effect", "with": {"path": str(path), "seconds": 8}}})
    wait_until("the step runs", path.exists, timeout=20)
    began = time.monotonic()
    leaving.signal(number)
    wait_until("it is given back", lambda: attempts(execution)[0][1] == "released", timeout=15)
    assert time.monotonic() - began < 10
    run_ = StepRun.objects.get(execution=execution)
    assert (run_.state, run_.failures, run_.worker_deaths) == ("queued", 0, 0)
    assert not DeadLetter.objects.exists()


def test_a_critical_message_overtakes_a_hundred_that_were_sent_before(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "effects"
    steps = {"s": {"task": "drill.effect", "with": {"path": str(path), "seconds": 0.05}}}
    normal = workflows.create("normal", {"steps": steps}, actor="test")
    for _ in range(100):
        creation.start(normal)
    critical = creation.start(normal, priority=0)
    assert redis.Redis.from_url(settings.REDIS_URL).llen("default\x06\x166") == 100
    processes.worker(slots=1)
    wait_until("all have run", lambda: not Execution.objects.exclude(state="succeeded").exists(), timeout=60)
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines() if '"end"' in line]
    assert str(critical.pk) in keys[0]
    assert len(keys) == 101
