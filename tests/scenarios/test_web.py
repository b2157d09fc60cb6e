"""The web process dies between the commit and the message: nothing is lost, and a repeat finds what was made."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from execution import workflows
from execution.models import Execution, StepRun
from scheduling_project.drills import effects
from scheduling_project.drills.processes import Processes, wait_until
from scheduling_project.embedded.ports import free_port
from scheduling_project.environment import PROJECT_ROOT
from tests.patience import PATIENCE
from triggers import endpoints, lifecycle
from triggers.models import Activation, Event, WebhookEndpoint

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A Redis that takes connections and never answers: whoever sends a message waits for it."""
    listening = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                taken.append(listening.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(PATIENCE)
    for connection in taken:
        connection.close()


@contextmanager
def web(environment: dict[str, str], log: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A web process: its port, and the process."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "scheduling_project.asgi:application", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**environment, "DATABASE_POOL_SIZE": "4"}, cwd=PROJECT_ROOT, stdout=output, stderr=output
        )
    try:
        wait_until("the web process answers", lambda: _answers(port), timeout=2 * PATIENCE)
        yield port, process
    finally:
        process.kill()
        process.wait(PATIENCE)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def send(port: int, endpoint: WebhookEndpoint) -> tuple[int, dict[str, object]]:
    """The same delivery each time, signed anew, as senders repeat it.

    Raises:
        OSError, http.client.HTTPException: there was no answer.
    """
    body = b'{"order": 4711}'
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {**endpoints.signed_headers(endpoint, body, delivery_id="msg_4711"), "content-type": "application/json"}
    try:
        connection.request("POST", endpoint.path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_kill_9_between_commit_and_send_loses_nothing_and_the_repeat_gets_the_same_ids(
    processes: Processes, black_hole: str, tmp_path: Path
) -> None:
    path = tmp_path / "effects"
    steps = {"steps": {"work": {"task": "drill.effect", "with": {"path": str(path)}}}}
    workflow = workflows.create("ship", steps, actor="test")
    endpoint = lifecycle.subscribe("shop", workflow=workflow, actor="test").endpoint
    unanswered: list[BaseException] = []

    def deliver(port: int) -> None:
        try:
            send(port, endpoint)
        except (OSError, http.client.HTTPException) as error:
            unanswered.append(error)

    with web({**processes.environment, "REDIS_URL": black_hole}, tmp_path / "dying.log") as (port, process):
        sender = threading.Thread(target=deliver, args=[port])
        sender.start()
        # Committed, and now it waits for a broker that does not answer: the moment to die.
        wait_until("the event is committed", Event.objects.exists, timeout=PATIENCE, pause=0.01)
        os.kill(process.pid, signal.SIGKILL)
        sender.join(PATIENCE)
    assert len(unanswered) == 1, "the sender was answered before the process died"
    run = StepRun.objects.get()
    assert (run.state, run.dispatches, run.dispatched_at is not None) == ("queued", 1, True)

    processes.worker()  # its sweep finds what was marked as sent and is claimed by nobody
    wait_until("the step has run", lambda: effects.ended(path), timeout=2 * PATIENCE)
    wait_until("it is over", lambda: Execution.objects.get().state == "succeeded", timeout=PATIENCE)
    with web(dict(processes.environment), tmp_path / "living.log") as (port, _):
        status, receipt = send(port, endpoint)
    event, activation, execution = Event.objects.get(), Activation.objects.get(), Execution.objects.get()
    assert status == 200
    assert receipt == {
        "event_id": str(event.pk),
        "activation_ids": [str(activation.pk)],
        "execution_ids": [str(execution.pk)],
        "duplicate": True,
    }
    assert set(effects.ended(path).values()) == {1}
