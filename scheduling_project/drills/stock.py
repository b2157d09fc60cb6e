"""The same faults for stock Celery and stock django-celery-beat, with their defaults: what is lost or doubled there.

They show what the safeguards are for; nothing is expected of them, and their verdicts fail nothing.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import redis
from django.conf import settings
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from scheduling_project.drills.processes import Processes, Service, wait_until
from scheduling_project.drills.stock_app import app, effect
from scheduling_project.drills.verdict import Verdict

BACKLOG: Final = 200
EVERY: Final = 2  # seconds between the instants of a schedule
SCHEDULES: Final = 5
QUIET: Final = 6.0  # seconds without any effect after which nothing more is expected


def redis_flushed(processes: Processes) -> Verdict:
    """FLUSHALL with a backlog of 200 (stock Celery)."""
    path = processes.folder / "effects"
    _worker(processes)
    _send(path, BACKLOG, seconds=0.05)
    wait_until("some have run", lambda: len(_effects(path)) >= 10, timeout=60, pause=0.02)
    redis.Redis.from_url(settings.REDIS_URL).flushall()
    return _counted("stock-redis-flushed", path)


def worker_killed(processes: Processes) -> Verdict:
    """kill -9 of a worker with all its processes, and a new one (stock Celery, which acknowledges before it runs)."""
    path = processes.folder / "effects"
    worker = _worker(processes)
    _send(path, 40, seconds=0.5)
    wait_until("some have run", lambda: len(_effects(path)) >= 4, timeout=60, pause=0.02)
    worker.kill_all()
    worker.process.stop()
    _worker(processes)
    verdict = _counted("stock-worker-killed", path, expected=40)
    held = int(redis.Redis.from_url(settings.REDIS_URL).hlen("unacked"))
    verdict.figures["delivered_again_after_an_hour"] = held  # the transport's visibility timeout
    return verdict


def beat_killed(processes: Processes) -> Verdict:
    """kill -9 of the beat for 20 s (stock DatabaseScheduler)."""
    path = processes.folder / "effects"
    _worker(processes)
    _schedules(path)
    beat = _beat(processes, "b1")
    wait_until("it fires", lambda: len(_effects(path)) >= SCHEDULES, timeout=60)
    began = time.time()
    time.sleep(10)
    os.kill(beat.pid, signal.SIGKILL)
    beat.process.stop()
    time.sleep(20)
    _beat(processes, "b2")
    back = len(_effects(path))
    wait_until("it fires again", lambda: len(_effects(path)) > back, timeout=60)
    time.sleep(10)
    return _fired("stock-beat-killed", path, began)


def two_beats(processes: Processes) -> Verdict:
    """Two beats at once for 20 s (stock DatabaseScheduler)."""
    path = processes.folder / "effects"
    _worker(processes)
    _schedules(path)
    for name in ("b1", "b2"):
        _beat(processes, name)
    wait_until("they fire", lambda: len(_effects(path)) >= 2 * SCHEDULES, timeout=60)
    began = time.time()
    time.sleep(20)
    return _fired("stock-two-beats", path, began)


STOCK: Final[dict[str, Callable[[Processes], Verdict]]] = {
    "stock-redis-flushed": redis_flushed,
    "stock-worker-killed": worker_killed,
    "stock-beat-killed": beat_killed,
    "stock-two-beats": two_beats,
}


def _worker(processes: Processes) -> Service:
    command = ["-A", "scheduling_project.drills.stock_app", "worker", "-c", "2", "-n", f"stock{time.time_ns()}@drill"]
    service = processes.celery("stock-worker", command)
    wait_until("the worker is ready", lambda: app.control.inspect(timeout=0.5).ping(), timeout=60)
    return service


def _beat(processes: Processes, name: str) -> Service:
    scheduler = "django_celery_beat.schedulers:DatabaseScheduler"
    file = str(processes.folder / f"{name}.pid")
    command = ["-A", "scheduling_project.drills.stock_app", "beat", "-S", scheduler, "--pidfile", file]
    # Django's checks load every page, which a process that is called a beat here has no apps for.
    return processes.celery(name, [*command, "--max-interval", "1"], CELERY_SKIP_CHECKS="true")


def _send(path: Path, count: int, *, seconds: float) -> None:
    for number in range(count):
        effect.delay(str(path), f"task-{number}", seconds)


def _schedules(path: Path) -> None:
    PeriodicTask.objects.update(enabled=False)  # the project's own
    interval, _ = IntervalSchedule.objects.get_or_create(every=EVERY, period=IntervalSchedule.SECONDS)
    for number in range(SCHEDULES):
        arguments = json.dumps([str(path), f"schedule-{number}"])
        PeriodicTask.objects.create(name=f"stock-{number}", task="stock.effect", interval=interval, args=arguments)


def _effects(path: Path) -> list[tuple[str, float]]:
    """Key and Unix time of every effect so far."""
    if not path.exists():
        return []
    return [(key, float(at)) for key, at in (line.split() for line in path.read_text().splitlines())]


def _wait_until_quiet(path: Path) -> None:
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET:
        found = len(_effects(path))
        if found != seen:
            seen, since = found, time.monotonic()
        time.sleep(0.2)


def _counted(drill: str, path: Path, expected: int = BACKLOG) -> Verdict:
    _wait_until_quiet(path)
    return _verdict(drill, expected, Counter(key for key, _ in _effects(path)))


def _fired(drill: str, path: Path, began: float) -> Verdict:
    """Effects since `began` against the instants that were due, one of each schedule every two seconds."""
    ended = time.time()
    done = Counter(key for key, at in _effects(path) if at >= began)
    due = int((ended - began) / EVERY)
    verdict = Verdict(drill, due * SCHEDULES, 0, 0, 0, 0, 0, None)
    # An instant may fall to either side of both ends: one per schedule is nobody's fault.
    verdict.lost = sum(max(0, due - count - 1) for count in done.values())
    verdict.doubled = sum(max(0, count - due - 1) for count in done.values())
    verdict.succeeded = verdict.expected - verdict.lost
    return _with_problems(verdict)


def _verdict(drill: str, expected: int, done: Counter[str]) -> Verdict:
    twice = sum(count - 1 for count in done.values())
    return _with_problems(Verdict(drill, expected, len(done), expected - len(done), twice, 0, 0, None))


def _with_problems(verdict: Verdict) -> Verdict:
    verdict.problems = [
        f"{count} of {verdict.expected} were {what}"
        for what, count in (("lost", verdict.lost), ("doubled", verdict.doubled))
        if count
    ]
    return verdict
