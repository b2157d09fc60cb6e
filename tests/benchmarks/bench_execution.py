"""What the engine costs on top of Celery: the way from a committed call into a step's body, and steps per second.

    python -m tests.benchmarks.bench_execution [--calls 300] [--executions 2000] [--json PATH] [--no-fsync] [--profile]
                                               [--only-throughput]

Postgres and Redis are started for the run, on free ports. A commit waits for the disk (fsync), as it must for the
promises to hold; `--no-fsync` shows what is left of the time where the disk costs nothing. All sides run the
same body in two processes of one worker (procrastinate: two workers), one side after the other, and log warnings only:

- latency: calls one at a time, on an idle worker. "call" counts from before the call, "commit" from the commit.
- throughput: everything is queued first, then the worker starts; from the first body to the last, in bodies a second.
  Beside it stands what one execution costs in processor time, in Postgres, in the worker's parent and in its pool
  processes: on a machine that does other things as well, this is the figure to compare. Peers that record something
  too, Celery with django-celery-results and procrastinate, are measured in the same run (`peer_processes`).

`--profile` runs executions in this process instead, under cProfile, and prints where `runner.run` spends its time.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
from scheduling_project.environment import PROJECT_ROOT
from tests.benchmarks import peer_processes
from tests.benchmarks.execution_app import stamp

if TYPE_CHECKING:
    from execution.models import Workflow
    from scheduling_project.drills.processes import Processes
    from scheduling_project.supervisor.process import GuardedProcess

SLOTS = 2
WARM_UP = 30
PAUSE = 0.01  # seconds between calls, so that the worker is idle again
BATCH = 200
QUIET = ("-l", "WARNING")


@contextmanager
def servers(folder: Path, *, durable: bool) -> Iterator[int]:
    """Servers for this run alone, and a Django that is set up for them; yields the pid of Postgres."""
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "postgres", durable=durable)
    with postgres as database, EmbeddedRedis(folder / "redis", durable=False) as redis:
        os.environ |= {
            "DATABASE_URL": database,
            "REDIS_URL": redis,
            "BARE_BROKER_URL": redis,
            "DJANGO_SETTINGS_MODULE": "scheduling_project.settings",
            "EXTRA_APPS": "scheduling_project.drills,tests.benchmarks.execution_app",
            "DEMO": "0",
            "LOG_LEVEL": "WARNING",
        }
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        call_command("migrate", verbosity=0)
        try:
            assert postgres.process is not None
            yield postgres.process.pid
        finally:
            connections.close_all()


def processor_time(*processes: psutil.Process) -> float:
    """Seconds that these processes have used so far, with the ended children that they have waited for."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)


class Usage:
    """Processor time of Postgres and of workers from now on."""

    def __init__(self, postgres: int, workers: Sequence[int]) -> None:
        self.postgres = psutil.Process(postgres)
        self.workers = [psutil.Process(worker) for worker in workers]
        self.began = self._now()

    def _now(self) -> dict[str, float]:
        children = [child for worker in self.workers for child in worker.children(recursive=True)]
        return {
            "postgres": processor_time(self.postgres, *self.postgres.children(recursive=True)),
            "worker_parent": processor_time(*self.workers),
            "worker_processes": processor_time(*children),
        }

    def per_run(self, count: int) -> dict[str, float]:
        """Milliseconds for each of `count` runs."""
        return {name: round((value - self.began[name]) / count * 1000, 3) for name, value in self._now().items()}


def percentiles(values: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 3)

    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}


def make_workflow() -> Workflow:
    from execution import workflows

    return workflows.create("bench", {"steps": {"stamp": {"task": "bench.stamp"}}}, actor="bench")


def call_engine(workflow: Workflow) -> tuple[float, float]:
    """Start an execution. Returns when the call began and when it was committed."""
    from django.db import transaction

    from execution import creation

    committed: list[float] = []
    began = time.time()
    with transaction.atomic():
        transaction.on_commit(lambda: committed.append(time.time()))
        creation.start(workflow)
    return began, committed[0]


def call_bare() -> tuple[float, float]:
    from tests.benchmarks.execution_app import bare

    began = time.time()
    bare.task.apply_async()
    return began, began


def latency(call: Callable[[], tuple[float, float]], stamps: Path, calls: int) -> dict[str, dict[str, float]]:
    """One call at a time until its body has run."""
    from_call, from_commit = [], []
    for number in range(WARM_UP + calls):
        expected = stamp.count(stamps) + 1
        began, committed = call()
        deadline = time.monotonic() + 30
        while stamp.count(stamps) < expected:
            if time.monotonic() > deadline:
                raise TimeoutError(f"call {number} never reached its body")
            time.sleep(0.0005)
        ran = stamp.read(stamps)[-1]
        if number >= WARM_UP:
            from_call.append(ran - began)
            from_commit.append(ran - committed)
        time.sleep(PAUSE)
    return {"call_to_body_ms": percentiles(from_call), "commit_to_body_ms": percentiles(from_commit)}


def throughput(start_worker: Callable[[], list[int]], postgres: int, stamps: Path, count: int) -> dict[str, Any]:
    """Bodies per second, from the first to the last, with everything queued before the worker starts.

    What a run costs in processor time is counted from when the first has run: a worker's start is not part of it.
    """
    before = stamp.count(stamps)
    workers = start_worker()
    deadline = time.monotonic() + 300

    def wait_for(runs: int) -> None:
        while stamp.count(stamps) < before + runs:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{stamp.count(stamps) - before} of {count} ran")
            time.sleep(0.02)

    wait_for(1)
    usage = Usage(postgres, workers)
    counted_from = stamp.count(stamps)
    wait_for(count)
    cost = usage.per_run(max(1, before + count - counted_from))
    ran = sorted(stamp.read(stamps)[before:])
    return {"per_second": round((len(ran) - 1) / (ran[-1] - ran[0]), 1), "cpu_ms_per_run": cost}


def queue_executions(workflow: Workflow, count: int) -> float:
    """Create executions in batches, as a beat does. Returns how many a second."""
    from django.db import transaction

    from execution import creation, engine

    assert workflow.published is not None
    began = time.monotonic()
    for _ in range(count // BATCH):
        with transaction.atomic():
            starts = [creation.Start(version=workflow.published, source=creation.API) for _ in range(BATCH)]
            creation.start_many(starts, now=engine.now(using="default"), using="default")
    return count / (time.monotonic() - began)


def start_bare(processes: Processes) -> GuardedProcess:
    """Start the bare worker."""
    from scheduling_project.drills.processes import wait_until
    from scheduling_project.supervisor.process import GuardedProcess
    from tests.benchmarks.execution_app import bare

    command = [sys.executable, "-m", "celery", "-A", "tests.benchmarks.execution_app.bare", "worker"]
    with (processes.folder / "bare.log").open("ab") as output:
        process = GuardedProcess.start(
            [*command, "-Q", "bare", "-c", str(SLOTS), "-n", "bare@bench", "-l", "WARNING"],
            output=output,
            env=processes.environment,
            cwd=PROJECT_ROOT,
            plan="TERM:10,KILL:2",
        )
    wait_until("the bare worker answers", lambda: bare.app.control.ping(timeout=0.5), timeout=60)
    return process


def measure_peers(folder: Path, postgres: int, executions: int) -> dict[str, Any]:
    """The throughput of each peer; nothing where their environment is missing."""
    found: dict[str, Any] = {}
    python = peer_processes.interpreter()
    for name in peer_processes.PEERS if python is not None else ():
        assert python is not None
        peer = peer_processes.Peer(name, python, folder)
        peer.prepare(executions)
        with peer.workers(SLOTS) as start:
            found[name] = throughput(start, postgres, peer.stamps, executions)
    return found


def measure(folder: Path, postgres: int, *, calls: int, executions: int) -> dict[str, Any]:
    from scheduling_project.drills.processes import Processes, environment
    from tests.benchmarks.execution_app import bare

    workflow = make_workflow()
    executions -= executions % BATCH
    stamps = {side: folder / f"{side}.stamps" for side in ("engine", "bare")}
    sides = {
        side: Processes(
            folder,
            environment(
                EXTRA_APPS=os.environ["EXTRA_APPS"],
                BARE_BROKER_URL=os.environ["BARE_BROKER_URL"],
                **{stamp.VARIABLE: str(path)},
            ),
        )
        for side, path in stamps.items()
    }
    result: dict[str, Any] = {"engine": {}, "bare": {}}
    try:
        if calls:
            worker = start_bare(sides["bare"])
            result["bare"] |= latency(call_bare, stamps["bare"], calls)
            worker.stop()
            sides["engine"].worker(slots=SLOTS, options=QUIET)
            result["engine"] |= latency(lambda: call_engine(workflow), stamps["engine"], calls)
            sides["engine"].stop()

        for _ in range(executions):
            bare.task.apply_async()
        started: list[GuardedProcess] = []

        def start_bare_worker() -> list[int]:
            started.append(start_bare(sides["bare"]))
            return [started[0].pid]

        result["bare"] |= throughput(start_bare_worker, postgres, stamps["bare"], executions)
        started[0].stop()
        result["engine"]["created_per_second"] = round(queue_executions(workflow, executions), 1)
        result["engine"] |= throughput(
            lambda: [sides["engine"].worker(slots=SLOTS, options=QUIET).pid], postgres, stamps["engine"], executions
        )
        sides["engine"].stop()
        result["peers"] = measure_peers(folder, postgres, executions)
        result["ratio_to_bare"] = round(result["engine"]["per_second"] / result["bare"]["per_second"], 3)
    finally:
        for processes in sides.values():
            processes.stop()
    return result


def profile(count: int) -> pstats.Stats:
    """`runner.run` for `count` executions in this process."""
    from execution import runner
    from execution.models import StepRun

    workflow = make_workflow()
    os.environ[stamp.VARIABLE] = os.devnull
    queue_executions(workflow, count + BATCH)
    ids = list(StepRun.objects.values_list("id", flat=True))
    for run_id in ids[:BATCH]:  # caches fill, statements get prepared
        runner.run(run_id, worker="bench@here/1")
    profiler = cProfile.Profile()
    began = time.perf_counter()
    profiler.enable()
    for run_id in ids[BATCH:]:
        runner.run(run_id, worker="bench@here/1")
    profiler.disable()
    print(f"{(time.perf_counter() - began) / len(ids[BATCH:]) * 1000:.2f} ms a run, under the profiler")
    return pstats.Stats(profiler)


def show(result: dict[str, Any]) -> None:
    engine, bare = result["engine"], result["bare"]
    if "call_to_body_ms" in bare:
        print(f"{'':<28}{'p50':>9}{'p90':>9}{'p99':>9}   ms, one call at a time on an idle worker")
        for label, row in (
            ("bare Celery, call → body", bare["call_to_body_ms"]),
            ("engine, call → body", engine["call_to_body_ms"]),
            ("engine, commit → body", engine["commit_to_body_ms"]),
        ):
            print(f"{label:<28}{row['p50']:>9.2f}{row['p90']:>9.2f}{row['p99']:>9.2f}")
        print()
    print(f"{'':<18}{'a second':>9}   ms of processor time each: Postgres, worker's parent, its {SLOTS} processes, all")
    peers = [(peer_processes.TITLES[name], row) for name, row in result["peers"].items()]
    for label, row in [("bare Celery", bare), *peers, ("engine", engine)]:
        cost = row["cpu_ms_per_run"]
        print(
            f"{label:<18}{row['per_second']:>9.0f}{cost['postgres']:>12.2f}{cost['worker_parent']:>8.2f}"
            f"{cost['worker_processes']:>8.2f}{sum(cost.values()):>8.2f}"
        )
    if not peers:
        print("The peers are not installed: make bench does that.")
    print(f"{'ratio to bare':<18}{result['ratio_to_bare']:>9.2f}")
    print(f"{'created':<18}{engine['created_per_second']:>9.0f}   (in batches of {BATCH})")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--executions", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-fsync", action="store_true", help="Postgres does not wait for the disk")
    parser.add_argument("--only-throughput", action="store_true", help="no calls one at a time")
    parser.add_argument("--profile", action="store_true", help="profile runner.run in this process instead")
    options = parser.parse_args()
    durable = not options.no_fsync
    with tempfile.TemporaryDirectory(prefix="bench-") as name, servers(Path(name), durable=durable) as postgres:
        if options.profile:
            stats = profile(options.executions)
            stats.sort_stats("tottime").print_stats(25)
            stats.sort_stats("cumtime").print_stats(45)
            return 0
        result = measure(
            Path(name), postgres, calls=0 if options.only_throughput else options.calls, executions=options.executions
        )
    show(result)
    if options.json:
        facts = {"python": platform.python_version(), "cpus": os.cpu_count(), "slots": SLOTS, "fsync": durable}
        options.json.write_text(json.dumps(facts | result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
