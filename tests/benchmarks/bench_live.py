"""Two hundred sockets on one web process: how soon each hears of a change, and what a socket weighs.

    python -m tests.benchmarks.bench_live [--json PATH] [--quick]

Starts its own Postgres (with fsync), Redis and web process; the sockets are this process's, on the same cores. Each
subscribes to executions; then executions are paused and resumed one after the other, each in a transaction of its own,
and every socket notes when it hears of it. The time of a change is that of its commit. Workers gather announcements
for 50 ms and the web process reads each row once for all sockets, so less than that is not to be had.

Bars: every socket hears every change; p50 ≤ 150 ms and p99 ≤ 500 ms over all sockets; ≤ 300 kB a socket.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_beat import memory
from tests.benchmarks.bench_webhooks import percentile, servers, web_cpu, web_server

BARS = {"p50_ms": 150.0, "p99_ms": 500.0, "socket_kb": 300.0, "missed": 0.0}
SOCKETS = 200
LISTEN_SECONDS = 10.0


class Listener:
    """One socket, and when it heard of each change: execution and its state → the clock of this process."""

    def __init__(self) -> None:
        self.heard: dict[tuple[str, str], float] = {}
        self.subscribed = asyncio.Event()

    async def follow(self, port: int, ticket: str) -> None:
        import websockets

        async with websockets.connect(f"ws://127.0.0.1:{port}/ws/?ticket={ticket}") as socket:
            await socket.send(json.dumps({"subscribe": "executions"}))
            async for text in socket:
                now = time.perf_counter()
                message = json.loads(text)
                if message["type"] == "subscribed":
                    self.subscribed.set()
                for row in message.get("rows", ()):
                    self.heard.setdefault((row["id"], row["state"]), now)


def tickets(port: int, count: int) -> list[str]:
    """So many tickets; each opens one socket, within half a minute."""
    import httpx
    from django.contrib.auth.models import User
    from rest_framework_simplejwt.tokens import AccessToken

    token = AccessToken.for_user(User.objects.get_or_create(username="bench", is_superuser=True)[0])
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}) as client:
        return [client.post("/api/live/ticket").raise_for_status().json()["ticket"] for _ in range(count)]


def change(executions: list[Any], each_seconds: float) -> dict[tuple[str, str], float]:
    """Pause every execution in turn; returns when each was committed."""
    from django.db import connections

    from execution import lifecycle

    done = {}
    for execution in executions:
        lifecycle.pause(execution.pk, actor="bench")
        done[str(execution.pk), "paused"] = time.perf_counter()
        time.sleep(each_seconds)
    connections.close_all()
    return done


async def measure(port: int, pid: int, executions: list[Any], sockets: int) -> dict[str, Any]:
    given = await asyncio.to_thread(tickets, port, sockets)
    before = memory(pid)[0]
    listeners = [Listener() for _ in given]
    tasks = [asyncio.create_task(one.follow(port, ticket)) for one, ticket in zip(listeners, given, strict=True)]
    async with asyncio.timeout(60):
        await asyncio.gather(*[one.subscribed.wait() for one in listeners])
    weight = (memory(pid)[0] - before) * 1024 / sockets
    made = await asyncio.to_thread(change, executions, 0.1)
    deadline = time.perf_counter() + LISTEN_SECONDS
    while time.perf_counter() < deadline and any(made.keys() - one.heard.keys() for one in listeners):
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    late = [(one.heard[key] - at) * 1000 for one in listeners for key, at in made.items() if key in one.heard]
    return {
        "sockets": sockets,
        "changes": len(made),
        "missed": float(sockets * len(made) - len(late)),
        "p50_ms": percentile(late, 0.50),
        "p99_ms": percentile(late, 0.99),
        "worst_ms": max(late),
        "socket_kb": weight,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"python": platform.python_version(), "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="bench-live-") as name, servers(Path(name)):
        from execution import creation, workflows

        steps = {"steps": {"later": {"wait": "1d"}}}
        workflow = workflows.create("bench", steps, actor="bench")
        executions = [creation.start(workflow) for _ in range(20 if chosen.quick else 100)]
        with web_server("asgi", Path(name)) as (port, web):
            figures |= asyncio.run(measure(port, web.pid, executions, SOCKETS))
            figures["web_cpu_ms_per_change"] = web_cpu(web) * 1000 / len(executions)
        figures["load_average"] = os.getloadavg()[0]
    for key, value in figures.items():
        bar = BARS.get(key)
        held = "" if bar is None else f"   bar {bar:g} {'held' if value <= bar else 'BROKEN'}"
        print(f"{key:24} {value:10.3f}{held}" if isinstance(value, float) else f"{key:24} {value}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figures[key] <= bar for key, bar in BARS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
