"""What a drill's system has to do meanwhile: schedules every two or three seconds, and signed webhooks."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from execution import creation, workflows
from execution.models import Workflow
from schedules import lifecycle
from schedules.models import Schedule
from scheduling_project.common import clock
from triggers import lifecycle as triggers
from triggers import signatures
from triggers.models import WebhookEndpoint

ACTOR = "drill"
#: Seconds that steps take, in turn.
LENGTHS = (0.1, 0.3, 0.1, 1.0, 0.2, 0.1, 2.0, 0.1, 0.5, 5.0)
#: Executions that wait while a server or its messages are taken away.
BACKLOG = 200
ANSWER_TIMEOUT = 5.0
REPEAT_PAUSE = 0.5


def unique_name() -> str:
    """A name for something of a drill's."""
    return f"drill-{uuid4().hex[:12]}"


def workflow_of(path: Path, seconds: float) -> Workflow:
    """One step that works for some seconds and notes its effect in `path`."""
    steps = {"work": {"task": "drill.effect", "with": {"path": str(path), "seconds": seconds}}}
    return workflows.create(unique_name(), {"steps": steps}, actor=ACTOR)


def start_backlog(path: Path, seconds: float = 0.05, count: int = BACKLOG) -> None:
    """Start executions that wait for their turn."""
    workflow = workflow_of(path, seconds)
    for _ in range(count):
        creation.start(workflow)


def make_schedules(path: Path, count: int, **given: Any) -> list[Schedule]:
    """Schedules that fire every two or three seconds, from the next second on."""
    by_length = {seconds: workflow_of(path, seconds) for seconds in LENGTHS[:count]}
    anchor = clock.now() + timedelta(seconds=1)
    return [
        lifecycle.create(
            actor=ACTOR,
            name=unique_name(),
            workflow=by_length[LENGTHS[number % len(LENGTHS)]],
            # A run of five seconds cannot keep up with an instant every two: that one fires less often.
            spec={"timetables": [{"kind": "interval", "every": _every(number), "anchor": anchor.isoformat()}]},
            **{"overlap_policy": "allow_all", **given},
        )
        for number in range(count)
    ]


def _every(number: int) -> int:
    return 2 + number % 2 if LENGTHS[number % len(LENGTHS)] < 2 else 12


@dataclass
class Webhooks:
    """A sender that repeats each delivery until it is accepted, as senders do."""

    port: int
    endpoint: WebhookEndpoint
    secret: str
    per_second: float = 2.0
    #: Delivery id → what the first acceptance said.
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    refusals: int = 0
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send_all, args=(n,), daemon=True) for n in range(2)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no new delivery, and wait until those under way have been accepted."""
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def _send_all(self, lane: int) -> None:
        number = 0
        pause = len(self._threads) / self.per_second
        while not self._over.wait(pause):
            number += 1
            self._deliver(f"msg-{lane}-{number}", json.dumps({"lane": lane, "number": number}).encode())

    def _deliver(self, delivery_id: str, body: bytes) -> None:
        """Send until it is accepted, and once more: the repeat must get the same ids."""
        answers: list[dict[str, Any]] = []
        deadline = time.monotonic() + 300
        while len(answers) < 2:
            if time.monotonic() > deadline:
                self.problems.append(f"{delivery_id} was not accepted within five minutes")
                return
            began = time.monotonic()
            status, answer = self._post(delivery_id, body)
            if status in (200, 202):
                if not answers:
                    self.accepted[delivery_id] = answer
                    self.seconds.append(time.monotonic() - began)
                answers.append({name: answer[name] for name in ("event_id", "activation_ids", "execution_ids")})
            else:
                self.refusals += 1
                time.sleep(REPEAT_PAUSE)
        if answers[0] != answers[1]:
            self.problems.append(f"the repeat of {delivery_id} got other ids")

    def _post(self, delivery_id: str, body: bytes) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_TIMEOUT)
        try:
            # Signed without the database: it may be the one that is away.
            headers = signatures.sign(
                self.endpoint.scheme,
                body=body,
                secrets=[self.secret],
                now=datetime.now(UTC),
                delivery_id=delivery_id,
                config=self.endpoint.scheme_config,
            )
            path = self.endpoint.path
            connection.request("POST", path, body, {**headers, "content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()


def make_endpoint(path: Path, seconds: float = 0.1) -> tuple[WebhookEndpoint, str]:
    """An endpoint whose events each start an execution that works for some seconds, and its secret."""
    workflow = workflow_of(path, seconds)
    made = triggers.subscribe(unique_name(), workflow=workflow, actor=ACTOR)
    return made.endpoint, made.secret
