"""The whole system on servers of its own, under a load that is known: web, beats, workers, schedules, signed webhooks.

What a measurement starts once and looks at from outside: the memory and processor time of each role, and what the
database says about what ran. Needs Django to be set up (`bench_execution.servers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.benchmarks.bench_beat import memory
from tests.benchmarks.bench_execution import processor_time

if TYPE_CHECKING:
    from schedules.models import Schedule
    from scheduling_project.drills.load import Webhooks
    from scheduling_project.drills.processes import Processes, Service


@dataclass
class Fleet:
    """The running processes by role; `effects` is the file in which each step notes what it did."""

    processes: Processes
    postgres: psutil.Process
    effects: Path
    services: dict[str, list[Service]] = field(default_factory=dict)
    schedules: list[Schedule] = field(default_factory=list)
    webhooks: Webhooks | None = None
    port: int = 0

    def members(self, role: str) -> list[psutil.Process]:
        """All processes of a role, with what they started; the servers are ``postgres`` and ``redis``."""
        if role == "postgres":
            heads = [self.postgres]
        elif role == "redis":
            heads = [child for child in psutil.Process().children(recursive=True) if "redis" in child.name()]
        else:
            heads = [psutil.Process(service.pid) for service in self.services[role]]
        return [process for head in heads for process in (head, *head.children(recursive=True))]

    @property
    def roles(self) -> list[str]:
        return [*self.services, "postgres", "redis"]

    def processor_seconds(self) -> dict[str, float]:
        """What each role has used so far."""
        return {role: processor_time(*self.members(role)) for role in self.roles}

    def memory_mb(self) -> dict[str, float]:
        """Each role's share of the memory (PSS): what several processes have in common counts once."""
        return {role: round(sum(memory(process.pid)[1] for process in self.members(role)), 1) for role in self.roles}

    def add_schedules(self, count: int, *, every: int, seconds: float = 0.0) -> None:
        """`count` schedules that each fire every `every` seconds, spread evenly; their step takes `seconds`."""
        from schedules import lifecycle
        from scheduling_project.common import clock
        from scheduling_project.drills import load

        workflow = load.workflow_of(self.effects, seconds)
        first = clock.now() + timedelta(seconds=1)
        for number in range(count):
            anchor = first + timedelta(seconds=number % every)
            timetable = {"kind": "interval", "every": every, "anchor": anchor.isoformat()}
            made = lifecycle.create(
                actor="bench",
                name=load.unique_name(),
                workflow=workflow,
                spec={"timetables": [timetable]},
                overlap_policy="allow_all",
            )
            self.schedules.append(made)

    def stop_schedules(self) -> None:
        """Nothing becomes due from now on."""
        from schedules import bulk
        from schedules.models import Schedule

        bulk.pause(Schedule.objects.filter(pk__in=[one.pk for one in self.schedules]), actor="bench")

    def send_webhooks(self, per_second: float, *, seconds: float = 0.0) -> Webhooks:
        """Signed deliveries at this rate, each repeated once, until `Webhooks.stop`; their step takes `seconds`."""
        from scheduling_project.drills import load

        endpoint, secret = load.make_endpoint(self.effects, seconds)
        self.webhooks = load.Webhooks(self.port, endpoint, secret, per_second=per_second)
        self.webhooks.start()
        return self.webhooks

    def verdict(self, name: str) -> Any:
        """Everything that ran, held against the promises (`scheduling_project.drills.verdict`)."""
        from execution.models import Execution
        from scheduling_project.drills import effects
        from scheduling_project.drills.verdict import judge, judge_ledger, judge_webhooks

        executions = list(Execution.objects.values_list("pk", flat=True))
        verdict = judge(name, executions=executions, effects=effects.ended(self.effects), recovery_seconds=None)
        judge_ledger(verdict, self.schedules)
        if self.webhooks is not None:
            judge_webhooks(verdict, self.webhooks)
        return verdict


@contextmanager
def started(folder: Path, postgres: int, *, beats: int = 1, workers: int = 1, slots: int = 2) -> Iterator[Fleet]:
    """A fleet that is up; everything is ended afterwards."""
    from scheduling_project.drills.processes import Processes, environment
    from scheduling_project.embedded.ports import free_port

    processes = Processes(folder, environment(EXTRA_APPS="scheduling_project.drills"))
    fleet = Fleet(processes, psutil.Process(postgres), folder / "effects", port=free_port())
    try:
        fleet.services["web"] = [processes.web(fleet.port)]
        fleet.services["beat"] = [processes.beat(f"b{number}") for number in range(beats)]
        fleet.services["worker"] = [processes.worker(f"w{number}", slots=slots) for number in range(workers)]
        yield fleet
    finally:
        if fleet.webhooks is not None:
            fleet.webhooks.stop()
        processes.stop()
