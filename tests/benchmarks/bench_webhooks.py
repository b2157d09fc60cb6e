"""How long a webhook takes, from the first byte sent to the answer: verified, event and execution committed.

    python -m tests.benchmarks.bench_webhooks [--json PATH] [--quick]

Starts its own Postgres (with fsync), Redis, web process and worker; the client is this process, on the same cores.
One client and the closed loop are measured under the ASGI application, whose door stands beside Django, and then
under Django's WSGI handler in the threads of the same web server: that is how the default was chosen. The open loop
and the way from an event's commit to its step's body run against the default, with a worker that runs the steps.

Bars: one client p50 ≤ 8 ms and p99 ≤ 25 ms; open loop of 6,000 a minute with 20 % repeats and 5 % bad signatures
p95 ≤ 25 ms, every event, execution and step body exactly once; closed loop ≥ 300 a second; committed event to step
body p50 ≤ 12 ms and p95 ≤ 30 ms; authentication ≤ 1 ms; rate check ≤ 0.5 ms.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import queue
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
from scheduling_project.embedded.ports import free_port
from tests.benchmarks.execution_app import stamp
from triggers import signatures

if TYPE_CHECKING:
    from triggers.models import WebhookEndpoint

DEFINITION = {"steps": {"stamp": {"task": "bench.stamp"}}}
BODY = {"type": "order.paid", "order": {"id": 4711, "total": 250, "items": [{"sku": "a-1", "n": 2}] * 10}}
QUIET = ("--no-access-log", "--log-level", "warning")
BARS = {
    "p50_ms": 8.0,
    "p99_ms": 25.0,
    "open_p95_ms": 25.0,
    "closed_per_second": 300.0,
    "commit_to_body_p50_ms": 12.0,
    "commit_to_body_p95_ms": 30.0,
    "auth_ms": 1.0,
    "rate_ms": 0.5,
}
DEFAULT_SERVER = "asgi"
SERVERS = (DEFAULT_SERVER, "wsgi")
TAIL = 60.0  # seconds for a worker to run what is left


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Door:
    """One connection to the web process that signs and sends."""

    def __init__(self, port: int, path: str, secret: str, prefix: str) -> None:
        self.path, self.secret, self.prefix = path, secret, prefix
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def send(self, delivery_id: str, *, good: bool = True) -> tuple[int, float]:
        """Status, and milliseconds until the whole answer is there."""
        delivery_id = f"{self.prefix}-{delivery_id}"
        body = json.dumps({**BODY, "id": delivery_id}).encode()
        headers = signatures.sign(
            "standard", body=body, secrets=[self.secret], now=time.time(), delivery_id=delivery_id
        )
        if not good:
            headers["webhook-signature"] = "v1,AAAA"
        begun = time.perf_counter()
        self.connection.request("POST", self.path, body, {**headers, "content-type": "application/json"})
        answer = self.connection.getresponse()
        answer.read()
        return answer.status, (time.perf_counter() - begun) * 1000


def one_client(door: Door, count: int) -> dict[str, float]:
    times = [door.send(str(number))[1] for number in range(count + 50)][50:]
    return {"p50_ms": statistics.median(times), "p99_ms": percentile(times, 0.99), "mean_ms": statistics.fmean(times)}


def open_loop(make: Callable[[], Door], *, per_second: float, seconds: float, repeats: int = 20, bad: int = 5) -> Any:
    """Send at fixed moments, whatever the server does; latency counts from the moment that was planned."""
    planned: queue.Queue[tuple[float, str, bool]] = queue.Queue()
    results: list[tuple[int, float]] = []
    dice = random.Random(7)
    fresh = 0
    for number in range(int(per_second * seconds)):
        roll = dice.randrange(100)
        if roll >= repeats + bad or not fresh:
            fresh += 1
            planned.put((number / per_second, str(fresh), True))
        else:
            planned.put((number / per_second, str(dice.randrange(fresh) + 1), roll >= bad))
    begun = time.perf_counter() + 0.2

    def run() -> None:
        door = make()
        while True:
            try:
                due, delivery_id, good = planned.get_nowait()
            except queue.Empty:
                return
            time.sleep(max(0.0, begun + due - time.perf_counter()))
            status, _ = door.send(delivery_id, good=good)
            results.append((status, (time.perf_counter() - begun - due) * 1000))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [latency for _, latency in results]
    return {
        "open_p50_ms": statistics.median(times),
        "open_p95_ms": percentile(times, 0.95),
        "open_p99_ms": percentile(times, 0.99),
        "open_statuses": dict(Counter(status for status, _ in results)),
        "open_fresh": fresh,
    }


def closed_loop(make: Callable[[], Door], *, seconds: float, clients: int) -> dict[str, float]:
    until = time.perf_counter() + seconds
    counts = [0] * clients

    def run(place: int) -> None:
        door = make()
        while time.perf_counter() < until:
            status, _ = door.send(f"{place}-{counts[place]}")
            assert status == 202, status
            counts[place] += 1

    threads = [threading.Thread(target=run, args=[place]) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"closed_per_second": sum(counts) / seconds}


def parts(count: int) -> dict[str, float]:
    """Milliseconds for recognising an API key and for one rate check, in this process."""
    from django.contrib.auth.models import User

    from scheduling_project.common import clock, rate_limits
    from triggers.auth import keys

    user = User.objects.create_user("machine", is_superuser=True)
    _, text = keys.create("bench", user=user, actor="bench", scopes=["webhooks"])
    rate = rate_limits.Rate(1_000_000, 60, 1_000_000)
    keys.recognise(text, now=clock.now())
    rate_limits.take("bench", rate)
    now = clock.now()
    begun = time.perf_counter()
    for _ in range(count):
        assert keys.recognise(text, now=now) is not None
    auth = (time.perf_counter() - begun) / count * 1000
    begun = time.perf_counter()
    for _ in range(count):
        rate_limits.take("bench", rate)
    return {"auth_ms": auth, "rate_ms": (time.perf_counter() - begun) / count * 1000}


def web_cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that the web process has taken: what load beside it changes least."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def wait_until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "the web process has ended"
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=2).request("GET", "/healthz")
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the web process does not answer")


@contextmanager
def web_server(kind: str, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A web process: its port, and the process."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"scheduling_project.{kind}:application", "--port", str(port), *QUIET]
    command += ["--interface", "wsgi"] if kind == "wsgi" else []
    with (folder / f"{kind}.log").open("wb") as log:
        web = subprocess.Popen(command, env={**os.environ, "DATABASE_POOL_SIZE": "10"}, stdout=log, stderr=log)
    try:
        wait_until_up(port, web)
        yield port, web
    finally:
        web.terminate()
        web.wait(10)


def measure_server(kind: str, endpoint: WebhookEndpoint, secret: str, folder: Path, *, quick: bool) -> dict[str, Any]:
    """One client, then a closed loop of four; nothing runs the steps."""
    with web_server(kind, folder) as (port, web):

        def door(prefix: str) -> Door:
            return Door(port, endpoint.path, secret, f"{kind}-{prefix}")

        figures: dict[str, Any] = one_client(door("one"), 100 if quick else 500)
        spent, seconds = web_cpu(web), 2 if quick else 8
        figures |= closed_loop(lambda: door("closed"), seconds=seconds, clients=4)
        figures["web_cpu_ms"] = (web_cpu(web) - spent) * 1000 / (figures["closed_per_second"] * seconds)
    return figures


def measure_with_worker(endpoint: WebhookEndpoint, secret: str, folder: Path, *, quick: bool) -> dict[str, Any]:
    """The open loop, with a worker on the same cores, and from commit to body once it is idle."""
    from execution.models import Execution, StepRun
    from scheduling_project.drills.processes import Processes, wait_until
    from triggers.models import Event

    Execution.objects.all().delete()
    Event.objects.all().delete()
    stamps = folder / "stamps"
    os.environ[stamp.VARIABLE] = str(stamps)
    processes = Processes(folder, dict(os.environ))
    try:
        processes.worker(slots=2)
        with web_server(DEFAULT_SERVER, folder) as (port, _):
            figures: dict[str, Any] = open_loop(
                lambda: Door(port, endpoint.path, secret, "open"), per_second=100, seconds=3 if quick else 20
            )
        fresh = figures["open_fresh"]
        wait_until("every step has run", lambda: not StepRun.objects.exclude(state="succeeded").exists(), timeout=TAIL)
        made = Event.objects.count(), Execution.objects.count(), stamp.count(stamps)
        assert made == (fresh,) * 3, f"{fresh} events became {made} events, executions and bodies"
        return figures | commit_to_body(stamps, 50 if quick else 200)
    finally:
        processes.stop()


def commit_to_body(stamps: Path, count: int) -> dict[str, float]:
    """Milliseconds from the commit of an event to the body of the step that it starts, one event at a time."""
    from django.db import transaction

    from triggers.ingest import publish_event

    times: list[float] = []
    for number in range(count + 20):
        expected, committed = stamp.count(stamps) + 1, []
        with transaction.atomic():
            transaction.on_commit(lambda: committed.append(time.time()))  # noqa: B023 - called in this turn
            publish_event("bench.internal", {"number": number})
        deadline = time.monotonic() + TAIL
        while stamp.count(stamps) < expected:
            assert time.monotonic() < deadline, "an event never reached its step's body"
            time.sleep(0.0005)
        times.append((stamp.read(stamps)[-1] - committed[0]) * 1000)
        time.sleep(0.01)
    return {
        "commit_to_body_p50_ms": statistics.median(times[20:]),
        "commit_to_body_p95_ms": percentile(times[20:], 0.95),
    }


@contextmanager
def servers(folder: Path) -> Iterator[None]:
    """Servers for this run alone, and a Django that is set up for them."""
    folder.chmod(0o711)
    postgres, redis = (
        EmbeddedPostgres(folder / "postgres", durable=True),
        EmbeddedRedis(folder / "redis", durable=False),
    )
    with postgres as database, redis as broker:
        os.environ |= {
            "DATABASE_URL": database,
            "REDIS_URL": broker,
            "LOG_LEVEL": "ERROR",
            "DEBUG": "true",
            "DEMO": "0",
            "EXTRA_APPS": "scheduling_project.drills,tests.benchmarks.execution_app",
            "DJANGO_SETTINGS_MODULE": "scheduling_project.settings",
        }
        import django
        from django.conf import settings
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        settings.DEBUG = False  # statements are not collected in this process
        call_command("migrate", verbosity=0)
        try:
            yield
        finally:
            connections.close_all()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"python": platform.python_version(), "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="bench-webhooks-") as name, servers(Path(name)):
        from execution import workflows
        from triggers import lifecycle

        workflow = workflows.create("bench", DEFINITION, actor="bench")
        made = lifecycle.subscribe(
            "bench",
            workflow=workflow,
            actor="bench",
            events=["order.*"],
            filters={"order": {"total": [{"numeric": [">", 9]}]}},
        )
        lifecycle.create("inside", workflow=workflow, actor="bench", event_types=["bench.internal"])
        folder, quick = Path(name), chosen.quick
        for kind in SERVERS:
            found = measure_server(kind, made.endpoint, made.secret, folder, quick=quick)
            figures |= found if kind == DEFAULT_SERVER else {f"{kind}_{name}": value for name, value in found.items()}
        figures |= measure_with_worker(made.endpoint, made.secret, folder, quick=quick)
        figures["load_average"] = os.getloadavg()[0]
        figures |= parts(200 if quick else 2_000)
    for name, value in figures.items():
        bar = BARS.get(name)
        held = "" if bar is None else f"   bar {bar:g} {'held' if holds(name, value) else 'BROKEN'}"
        print(f"{name:24} {value:10.3f}{held}" if isinstance(value, float) else f"{name:24} {value}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(holds(name, figures[name]) for name in BARS) else 1


def holds(name: str, value: float) -> bool:
    return value >= BARS[name] if name.endswith("per_second") else value <= BARS[name]


if __name__ == "__main__":
    sys.exit(main())
