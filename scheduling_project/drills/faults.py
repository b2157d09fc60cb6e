"""The faults that are injected into a system under load. Each returns when the fault itself is over."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis
from django.conf import settings
from django.db import connections

from execution import creation, workflows
from execution.models import Attempt, StepRun
from execution.states import AttemptState, StepState
from scheduling_project.common import clock
from scheduling_project.drills import effects, load
from scheduling_project.drills.environment import DISK_FULL
from scheduling_project.drills.failure_faults import permanent_failures
from scheduling_project.drills.load import ACTOR
from scheduling_project.drills.message_faults import messages_doubled
from scheduling_project.drills.processes import NotInTime, Processes, Service, wait_until
from scheduling_project.drills.servers import Orders
from scheduling_project.drills.system import WORK_SECONDS, System, tolerant
from scheduling_project.drills.time_faults import beats_down_for_ten_minutes, clock_jumps, watermarks_set_back
from scheduling_project.drills.verdict import Verdict

#: Seconds that a drill waits for what is open to end.
PATIENCE: Final = 300.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `may_repeat`: steps may be cut off after their effect and run again (at least once).

    `limit` is the recovery that is promised beside the work itself: "lease" (lease, rescue and sweep) or seconds.
    """

    inject: Callable[[System], None]
    limit: str | float = "lease"
    may_repeat: bool = False


def _freeze(service: Service, seconds: float) -> None:
    """SIGSTOP for the process and its children, then SIGCONT."""
    pids = [service.pid, *(child.pid for child in service.children())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def _kill(service: Service) -> None:
    service.kill_all()
    service.process.stop()


def worker_child_killed(system: System) -> None:
    """kill -9 of a worker's pool process in the middle of a step, five times."""
    killed: set[str] = set()

    def victims() -> list[tuple[str, int]]:
        """What runs and was not hit before: a step whose processes die three times is taken for the cause."""
        return [(key, pid) for key, pid in effects.running(system.path).items() if key not in killed]

    for _ in range(5):
        wait_until("a step runs", victims, timeout=60, pause=0.02)
        key, pid = victims()[-1]  # the latest to begin has the most before it
        killed.add(key)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it had just ended by itself
        system.run_for(1)


def worker_killed(system: System) -> None:
    """kill -9 of a worker with all its processes; another is started, as an orchestrator would."""
    _kill(system.workers.pop(0))
    system.add_worker()


def holds(worker: Service) -> bool:
    """Whether a worker holds a lease."""
    return StepRun.objects.filter(worker__startswith=f"{worker.name}@", state=StepState.RUNNING).exists()


def worker_frozen(system: System) -> None:
    """SIGSTOP of a worker for one and a half leases, then SIGCONT: its late writes must be refused."""
    worker = system.workers[0]
    load.start_backlog(system.path, seconds=0.9 * system.lease, count=4)
    wait_until("it runs a step", tolerant(lambda: holds(worker)), timeout=60, pause=0.02)
    _freeze(worker, 1.5 * system.lease)
    lost = Attempt.objects.filter(worker__startswith=f"{worker.name}@", state=AttemptState.LOST).count()
    system.figures["attempts_lost"] = lost
    if not lost:
        system.problems.append("no attempt of the frozen worker was taken back: the drill proves nothing")


def beats_killed(system: System) -> None:
    """kill -9 of all beats for half a minute."""
    for beat in system.beats:
        _kill(beat)
    system.beats.clear()
    system.run_for(system.seconds(30, 5))
    for _ in range(2):
        system.add_beat()


def beat_frozen(system: System) -> None:
    """SIGSTOP of one beat for half a minute, then SIGCONT."""
    _freeze(system.beats[0], system.seconds(30, 5))


def four_beats(system: System) -> None:
    """Two more beats beside the two."""
    for _ in range(2):
        system.add_beat()
    system.run_for(system.seconds(30, 6))


def web_killed(system: System) -> None:
    """kill -9 of the web process under webhooks, three times."""
    for _ in range(3):
        assert system.web is not None
        _kill(system.web)
        system.start_web()
        system.run_for(2)


def redis_killed(system: System) -> None:
    """SIGKILL of Redis and a restart that comes up empty, with a backlog of 200."""
    load.start_backlog(system.path)
    system.orders.kill("redis")
    system.orders.start("redis")


def redis_flushed(system: System) -> None:
    """FLUSHALL with a backlog of 200."""
    load.start_backlog(system.path)
    redis.Redis.from_url(settings.REDIS_URL).flushall()


def redis_down(system: System) -> None:
    """Redis away for half a minute."""
    system.orders.stop("redis")
    system.run_for(system.seconds(30, 6))
    system.orders.start("redis")


def redis_down_while_busy(system: System) -> None:
    """Redis away for 15 s while every worker slot is busy: no worker may stay deaf."""
    load.start_backlog(system.path, seconds=4.0, count=12)
    wait_until("all slots are busy", lambda: len(effects.running(system.path)) >= 4, timeout=60, pause=0.05)
    system.orders.stop("redis")
    system.run_for(15)
    system.orders.start("redis")
    since = clock.now()
    for worker in system.workers:
        wait_until(f"{worker.name} listens", lambda w=worker: system.listens(w, since), timeout=60)  # type: ignore[misc]


def _start_postgres(system: System) -> None:
    """Start it again, and let this process forget the connections that it had to the one before."""
    system.orders.start("postgres")
    connections.close_all()


def postgres_restarted(system: System) -> None:
    """Postgres ends at once (immediate) and recovers from its log."""
    system.orders.kill("postgres")
    _start_postgres(system)


def postgres_down(system: System) -> None:
    """Postgres away for 20 s."""
    system.orders.stop("postgres")
    system.run_for(system.seconds(20, 2))
    _start_postgres(system)


def retries_survive(system: System) -> None:
    """All workers and Redis are killed while 200 retries wait for their time."""
    steps = {
        "flaky": {
            "task": "drill.flaky",
            "with": {"path": str(system.path)},
            "retry": {"max_attempts": 5, "backoff": system.seconds(60, 20), "jitter": False},
        }
    }
    workflow = workflows.create(load.unique_name(), {"steps": steps}, actor=ACTOR)
    ids = [creation.start(workflow).pk for _ in range(load.BACKLOG)]
    waiting = StepRun.objects.filter(execution__in=ids, state=StepState.RETRYABLE)
    wait_until("all retries wait", lambda: waiting.count() == load.BACKLOG, timeout=120, pause=0.2)
    system.figures["retries_waiting"] = waiting.count()
    for worker in system.workers:
        _kill(worker)
    system.workers.clear()
    system.orders.kill("redis")
    system.orders.start("redis")
    for _ in range(2):
        system.add_worker()


def warm_restarts(system: System) -> None:
    """SIGTERM for one worker after the other, as a deploy does, each replaced."""
    _restart(system, signal.SIGTERM)


def cold_restarts(system: System) -> None:
    """SIGQUIT for one worker after the other, each replaced."""
    _restart(system, signal.SIGQUIT)


def _restart(system: System, number: signal.Signals) -> None:
    for _ in range(2):
        old = system.workers.pop(0)
        system.add_worker()
        old.signal(number)
        old.process.wait(90)
        old.process.stop()


def disk_full(system: System) -> None:
    """Postgres answers every write with "disk full" (53100) for a while, injected at the driver."""
    flag = Path(system.processes.environment[DISK_FULL])
    flag.touch()
    system.run_for(system.seconds(10, 3))
    flag.unlink()


FAULTS: Final[dict[str, Fault]] = {
    "worker-child-killed": Fault(worker_child_killed, may_repeat=True),
    "worker-killed": Fault(worker_killed, may_repeat=True),
    "worker-frozen": Fault(worker_frozen, may_repeat=True),
    "beats-killed": Fault(beats_killed, 5.0),
    "beat-frozen": Fault(beat_frozen, 5.0),
    "four-beats": Fault(four_beats, 5.0),
    "web-killed": Fault(web_killed, 5.0),
    "redis-killed": Fault(redis_killed, 10.0),
    "redis-flushed": Fault(redis_flushed, 10.0),
    "redis-down": Fault(redis_down, 10.0),
    "redis-down-while-busy": Fault(redis_down_while_busy, 10.0),
    "postgres-restarted": Fault(postgres_restarted, may_repeat=True),
    "postgres-down": Fault(postgres_down, may_repeat=True),
    "retries-survive": Fault(retries_survive, 90.0, may_repeat=True),  # the retries wait for a minute by themselves
    "permanent-failures": Fault(permanent_failures, may_repeat=True),
    "messages-doubled": Fault(messages_doubled, 10.0),
    "beats-down-ten-minutes": Fault(beats_down_for_ten_minutes, 60.0),
    "clock-jumps": Fault(clock_jumps, 60.0),
    "watermarks-set-back": Fault(watermarks_set_back, 10.0),
    "warm-restarts": Fault(warm_restarts),
    "cold-restarts": Fault(cold_restarts, may_repeat=True),
    "disk-full": Fault(disk_full, may_repeat=True),
}

RANDOM: Final = "random"

#: What a random sequence is drawn from: everything that leaves the load as it was.
ANY_TIME: Final = tuple(name for name in FAULTS if name not in {"clock-jumps", "beats-down-ten-minutes"})


def random_sequence(seed: int, count: int = 12) -> Fault:
    """`count` faults one after the other, drawn by `seed`."""
    dice = random.Random(seed)
    names = [dice.choice(ANY_TIME) for _ in range(count)]

    def inject(system: System) -> None:
        system.figures["sequence"] = names
        for name in names:
            FAULTS[name].inject(system)
            system.run_for(dice.uniform(0, 3))

    return Fault(inject, may_repeat=True)


def drill(
    name: str,
    processes: Processes,
    orders: Orders,
    *,
    seed: int = 0,
    short: bool = False,
    schedules: int = 10,
    patience: float = PATIENCE,
) -> Verdict:
    """Start the system, inject the fault, wait until all is clear, and judge."""
    fault = random_sequence(seed) if name == RANDOM else FAULTS[name]
    system = System.start(processes, orders, schedules=schedules, short=short, patience=patience)
    recovery = None
    try:
        system.run_for(system.seconds(10, 1))
        fault.inject(system)
        recovery = system.recover()
        system.run_for(system.seconds(5, 1))
        system.end_load()
    except NotInTime as never:  # the drill's finding, not its failure
        system.problems.append(str(never))
        system.stop_load()
    limit = None if name == RANDOM or recovery is None else limit_of(fault, system)
    return system.verdict(name, recovery=recovery, limit=limit, may_repeat=fault.may_repeat)


def limit_of(fault: Fault, system: System) -> float:
    """Seconds within which all that was open at the end of the fault must have ended."""
    promised = system.promised if fault.limit == "lease" else float(fault.limit)
    return promised + WORK_SECONDS
