"""How long a webhook takes, from the first byte sent to the answer: verified, event and execution committed.

    python -m tests.benchmarks.bench_webhooks [--json PATH] [--quick] [--server asgi|wsgi]

Starts its own Postgres (with fsync), Redis and web process; the client is this process, on the same cores. With
``--server wsgi`` the same web server runs Django's WSGI handler in threads instead of the ASGI application.
Bars: one client p50 ≤ 8 ms and p99 ≤ 25 ms; open loop of 6,000 a minute with 20 % repeats and 5 % bad signatures
p95 ≤ 25 ms, every event exactly once; closed loop ≥ 300 a second; authentication ≤ 1 ms; rate check ≤ 0.5 ms.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import queue
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
from scheduling_project.embedded.ports import free_port
from triggers import signatures

DEFINITION = {"steps": {"only": {"http": {"url": "https://example.org/"}}}}
BODY = {"type": "order.paid", "order": {"id": 4711, "total": 250, "items": [{"sku": "a-1", "n": 2}] * 10}}
QUIET = ("--no-access-log", "--log-level", "warning")
BARS = {"p50_ms": 8.0, "p99_ms": 25.0, "open_p95_ms": 25.0, "closed_per_second": 300.0, "auth_ms": 1.0, "rate_ms": 0.5}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Door:
    """One connection to the web process that signs and sends."""

    def __init__(self, port: int, path: str, secret: str) -> None:
        self.path, self.secret = path, secret
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def send(self, delivery_id: str, *, good: bool = True) -> tuple[int, float]:
        """Status, and milliseconds until the whole answer is there."""
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
    times = [door.send(f"one-{number}")[1] for number in range(count + 50)][50:]
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
            planned.put((number / per_second, f"open-{fresh}", True))
        else:
            planned.put((number / per_second, f"open-{dice.randrange(fresh) + 1}", roll >= bad))
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
            status, _ = door.send(f"closed-{place}-{counts[place]}")
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--server", choices=["asgi", "wsgi"], default="asgi")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-webhooks-"))
    folder.chmod(0o711)
    postgres, redis = (
        EmbeddedPostgres(folder / "postgres", durable=True),
        EmbeddedRedis(folder / "redis", durable=False),
    )
    web: subprocess.Popen[bytes] | None = None
    try:
        os.environ |= {
            "DATABASE_URL": postgres.start(),
            "REDIS_URL": redis.start(),
            "LOG_LEVEL": "ERROR",
            "DJANGO_SETTINGS_MODULE": "scheduling_project.settings",
        }
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        from execution import workflows
        from execution.models import Execution
        from triggers import lifecycle
        from triggers.models import Event

        workflow = workflows.create("bench", DEFINITION, actor="bench")
        made = lifecycle.subscribe(
            "bench",
            workflow=workflow,
            actor="bench",
            events=["order.*"],
            filters={"order": {"total": [{"numeric": [">", 9]}]}},
        )
        port = free_port()
        application = f"scheduling_project.{chosen.server}:application"
        command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), *QUIET]
        command += ["--interface", "wsgi"] if chosen.server == "wsgi" else []
        web = subprocess.Popen(command, env={**os.environ, "DATABASE_POOL_SIZE": "10", "DEBUG": "true"})
        wait_until_up(port, web)

        def door() -> Door:
            return Door(port, made.endpoint.path, made.secret)

        quick = chosen.quick
        figures: dict[str, Any] = {"server": chosen.server, "python": platform.python_version(), "cpus": os.cpu_count()}
        figures |= one_client(door(), 100 if quick else 500)
        before = Event.objects.count()
        figures |= open_loop(door, per_second=100, seconds=3 if quick else 15)
        assert Event.objects.count() - before == figures["open_fresh"], "an event was lost or doubled"
        assert Execution.objects.count() == Event.objects.count(), "an execution was lost or doubled"
        spent = web_cpu(web)
        figures |= closed_loop(door, seconds=2 if quick else 8, clients=4)
        requests = figures["closed_per_second"] * (2 if quick else 8)
        figures["web_cpu_ms"] = (web_cpu(web) - spent) * 1000 / requests
        figures["load_average"] = os.getloadavg()[0]
        figures |= parts(200 if quick else 2_000)
    finally:
        if web is not None:
            web.terminate()
            web.wait(10)
        redis.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in figures.items():
        bar = BARS.get(name)
        held = "" if bar is None else f"   bar {bar:g} {'held' if holds(name, value) else 'BROKEN'}"
        print(f"{name:20} {value:10.3f}{held}" if isinstance(value, float) else f"{name:20} {value}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(holds(name, figures[name]) for name in BARS) else 1


def holds(name: str, value: float) -> bool:
    return value >= BARS[name] if name.endswith("per_second") else value <= BARS[name]


if __name__ == "__main__":
    sys.exit(main())
