"""A real Flower beside a real worker: it shows steps under their names, and a failed one never as a success."""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from execution import creation, workflows
from execution.models import Attempt, Execution, StepRun
from execution.states import EXECUTION_TERMINAL
from scheduling_project.drills.processes import Processes, wait_until
from scheduling_project.embedded.ports import free_port
from scheduling_project.environment import PROJECT_ROOT
from scheduling_project.supervisor.process import GuardedProcess

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]

USER, PASSWORD = "ada", "correct horse"


@dataclass
class Flower:
    """One Flower process, asked over its own HTTP API."""

    port: int
    seen: dict[str, set[str]] = field(default_factory=dict)

    def post(self, path: str) -> Any:
        return self.get(path, data=b"")

    def get(self, path: str, *, password: str | None = PASSWORD, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data)
        if password is not None:
            credentials = base64.b64encode(f"{USER}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer) if "json" in answer.headers["Content-Type"] else answer.read().decode()

    def status(self, path: str, *, password: str | None) -> int:
        try:
            self.get(path, password=password)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return 200

    def is_up(self) -> bool:
        try:
            return self.get("/healthcheck", password=None) == "OK"
        except OSError:
            return False

    def tasks(self, name: str) -> dict[str, dict[str, Any]]:
        """Flower's tasks of that name, by id. Every state that it ever showed is kept in `seen`."""
        found = {key: task for key, task in self.get("/api/tasks?limit=1000").items() if task["name"] == name}
        for key, task in found.items():
            self.seen.setdefault(key, set()).add(task["state"])
        return found

    def states(self, name: str) -> list[str]:
        """The states of that name's tasks, in the order of their attempts."""
        found = self.tasks(name)
        return [found[key]["state"] for key in sorted(found, key=lambda key: int(key.rpartition("-")[2]))]


@pytest.fixture
def flower(processes: Processes) -> Iterator[Flower]:
    port = free_port()
    log = processes.folder / "flower.log"
    arguments = ("--address=127.0.0.1", f"--port={port}", f"--basic-auth={USER}:{PASSWORD}")
    with log.open("wb") as output:
        process = GuardedProcess.start(
            [sys.executable, "-m", "celery", "-A", "scheduling_project", "flower", *arguments],
            output=output,
            env=processes.environment,
            cwd=PROJECT_ROOT,
            plan="TERM:5,KILL:1",
        )
    try:
        found = Flower(port)
        wait_until("Flower answers", found.is_up, timeout=60)
        yield found
    finally:
        process.stop()
        print(log.read_text(errors="replace")[-3000:])


def run(name: str, steps: dict[str, Any]) -> Execution:
    return creation.start(workflows.create(name, {"steps": steps}, actor="test"))


def has_ended(execution: Execution) -> bool:
    execution.refresh_from_db()
    return execution.state in EXECUTION_TERMINAL


def test_flower_shows_steps_by_name_and_every_attempt_as_it_ended(
    flower: Flower, processes: Processes, tmp_path: Path
) -> None:
    processes.worker()
    wait_until("Flower sees the worker", lambda: "w1@drill" in flower.get("/api/workers?refresh=1"), timeout=30)
    path = str(tmp_path / "effects")

    executions = {
        "good": run("good", {"work": {"task": "drill.effect", "with": {"path": path}}}),
        "flaky": run("flaky", {"work": {"task": "drill.flaky", "with": {"path": path, "failures": 2}}}),
        "asking": run("asking", {"work": {"task": "drill.ask_again", "with": {"countdown": 0.2}}}),
        "poisoned": run("poisoned", {"work": {"task": "drill.misbehave", "with": {"how": "poisoned"}}}),
        "exhausted": run(
            "exhausted",
            {
                "work": {
                    "task": "drill.flaky",
                    "with": {"path": path, "failures": 9},
                    "retry": {"max_attempts": 2, "backoff": 0},
                }
            },
        ),
        "killed": run("killed", {"work": {"task": "drill.misbehave", "with": {"how": "kill once"}}}),
    }
    expected = {
        "good": ["SUCCESS"],
        "flaky": ["RETRY", "RETRY", "SUCCESS"],
        "asking": ["RETRY", "SUCCESS"],
        "poisoned": ["FAILURE"],
        "exhausted": ["RETRY", "FAILURE"],
        "killed": ["FAILURE", "SUCCESS"],
    }

    def shown() -> dict[str, list[str]]:
        return {name: flower.states(f"{name}.work") for name in executions}

    def is_over() -> bool:
        shown()  # also what Flower shows on the way counts
        return all(has_ended(execution) for execution in executions.values())

    wait_until("the executions end", is_over, timeout=60)
    wait_until(f"Flower shows {expected}", lambda: shown() == expected, timeout=20)

    # Never, at no moment, was an attempt that did not succeed shown as a success.
    for attempt in Attempt.objects.exclude(state="succeeded").select_related("step_run"):
        states = flower.seen[f"{attempt.step_run_id}-{attempt.number}"]
        assert "SUCCESS" not in states, (attempt.step_run.label, attempt.number, states)

    failed = next(iter(flower.tasks("poisoned.work").values()))
    assert "Poisoned" in failed["exception"]
    assert "fails for good" in failed["exception"]
    assert failed["worker"] == "w1@drill"


def test_flower_knows_the_queues_of_a_worker(flower: Flower, processes: Processes) -> None:
    processes.worker("io-only", queues="io")

    def queues() -> list[str]:
        worker = flower.get("/api/workers?refresh=1").get("io-only@drill", {})
        return [queue["name"] for queue in worker.get("active_queues", [])]

    wait_until("Flower knows the worker's queue", lambda: queues() == ["io"], timeout=30)


def test_nobody_gets_in_without_the_password(flower: Flower) -> None:
    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/queues/length"):
        assert flower.status(path, password=None) == 401, path
        assert flower.status(path, password="wrong") == 401, path
    assert flower.status("/api/tasks", password=PASSWORD) == 200
    assert flower.status("/healthcheck", password=None) == 200, "the supervisor's question needs no password"


def test_what_flowers_buttons_do_to_a_step_is_made_good(flower: Flower, processes: Processes, tmp_path: Path) -> None:
    """Terminate ends a process, and the step runs again; Revoke of a message that waits has no effect."""
    path = tmp_path / "effects"
    processes.worker(slots=1)
    busy = run("busy", {"work": {"task": "drill.effect", "with": {"path": str(path), "seconds": 4}}})
    wait_until("the step runs", path.exists, timeout=30)
    waiting = run("waiting", {"work": {"task": "drill.effect", "with": {"path": str(path)}}})
    step = StepRun.objects.get(execution=waiting)
    wait_until("Flower shows the busy step", lambda: flower.states("busy.work") == ["STARTED"], timeout=20)

    flower.post(f"/api/task/revoke/{step.pk}-1")
    flower.post(f"/api/task/revoke/{StepRun.objects.get(execution=busy).pk}-1?terminate=true&signal=SIGKILL")

    wait_until("both end", lambda: has_ended(busy) and has_ended(waiting), timeout=40)
    assert (busy.state, waiting.state) == ("succeeded", "succeeded")
    attempts = Attempt.objects.filter(step_run__execution=busy).order_by("number")
    assert list(attempts.values_list("state", flat=True)) == ["lost", "succeeded"]
