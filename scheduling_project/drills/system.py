"""The whole system under load: web, two beats, two workers, schedules and webhooks. Faults are injected into it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, connections

from execution.models import Attempt, Execution
from execution.states import EXECUTION_OPEN
from schedules import lifecycle
from schedules.models import Schedule
from scheduling_project.common.errors import NotFound
from scheduling_project.drills import effects, load
from scheduling_project.drills.load import ACTOR, Webhooks
from scheduling_project.drills.processes import Processes, Service, wait_until
from scheduling_project.drills.servers import Orders
from scheduling_project.drills.verdict import Verdict, judge, judge_failures, judge_ledger, judge_webhooks
from scheduling_project.embedded.ports import free_port

SLOTS: Final = 2
#: Beside what is promised: the longest step, and what a queue of such steps takes on few slots.
WORK_SECONDS: Final = 20.0


def tolerant(condition: Callable[[], object]) -> Callable[[], object]:
    """The condition, false as long as the database is away."""

    def asked() -> object:
        try:
            return condition()
        except (OperationalError, InterfaceError):
            connections.close_all()
            return False

    return asked


@dataclass
class System:
    """Everything that runs, and what a fault needs to get at it."""

    processes: Processes
    orders: Orders
    path: Path
    short: bool
    #: Seconds within which all that is open must have ended.
    patience: float
    schedules: list[Schedule] = field(default_factory=list)
    workers: list[Service] = field(default_factory=list)
    beats: list[Service] = field(default_factory=list)
    webhooks: Webhooks | None = None
    web: Service | None = None
    port: int = 0
    #: Executions that fail for good, on purpose.
    to_fail: list[UUID] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    _names: int = 0

    @classmethod
    def start(
        cls,
        processes: Processes,
        orders: Orders,
        *,
        schedules: int = 10,
        short: bool = False,
        patience: float,
    ) -> System:
        """Start the processes and the load, and wait until work flows."""
        system = cls(processes, orders, processes.folder / "effects", short, patience, port=free_port())
        for _ in range(2):
            system.add_worker()
        system.start_web()
        endpoint, secret = load.make_endpoint(system.path)
        for _ in range(2):
            system.add_beat()
        system.schedules = load.make_schedules(system.path, schedules)
        system.webhooks = Webhooks(system.port, endpoint, secret)
        system.webhooks.start()
        wait_until("work flows", lambda: len(effects.ended(system.path)) >= 10, timeout=60)
        return system

    def seconds(self, full: float, short: float) -> float:
        """How long a fault lasts: in earnest, or in the short form whose leases are short, too."""
        return short if self.short else full

    @property
    def lease(self) -> float:
        return float(self.processes.environment.get("WORKFLOW_LEASE_SECONDS") or settings.WORKFLOW_LEASE_SECONDS)

    @property
    def promised(self) -> float:
        """Seconds from a worker's death until its steps run again: lease, rescue and sweep."""
        return self.lease + sum(
            float(self.processes.environment.get(name) or getattr(settings, name))
            for name in ("WORKFLOW_RESCUE_SECONDS", "WORKFLOW_SWEEP_SECONDS")
        )

    def add_worker(self) -> Service:
        self._names += 1
        service = self.processes.worker(f"w{self._names}", slots=SLOTS)
        self.workers.append(service)
        return service

    def add_beat(self) -> Service:
        self._names += 1
        service = self.processes.beat(f"b{self._names}")
        self.beats.append(service)
        return service

    def start_web(self) -> None:
        self.web = self.processes.web(self.port)

    def run_for(self, seconds: float) -> None:
        """Let the load run on."""
        time.sleep(seconds)

    def open_executions(self) -> list[UUID]:
        return list(Execution.objects.filter(state__in=EXECUTION_OPEN).values_list("pk", flat=True))

    def recover(self) -> float:
        """Seconds from now, when the fault is over, until all that is open now has ended."""
        began = time.monotonic()
        found: list[UUID] = []

        def read() -> bool:
            found[:] = self.open_executions()
            return True

        wait_until("the database answers", tolerant(read), timeout=self.patience)
        wait_until(
            "what was open has ended",
            tolerant(lambda: not Execution.objects.filter(pk__in=found, state__in=EXECUTION_OPEN).exists()),
            timeout=self.patience,
        )
        return time.monotonic() - began

    def end_load(self) -> None:
        """Nothing new from now on; wait until all is clear."""
        self.stop_load()
        wait_until("all is clear", tolerant(lambda: not self.open_executions()), timeout=self.patience)

    def stop_load(self) -> None:
        """Nothing new from now on."""
        if self.webhooks is not None:
            self.webhooks.stop()
        for schedule in self.schedules:
            try:
                lifecycle.pause(schedule.pk, actor=ACTOR)
            except NotFound as gone:
                self.problems.append(f"{gone} It was committed before the fault.")

    def listens(self, worker: Service, since: Any) -> bool:
        """Whether a worker has begun something since an instant: it is not deaf."""
        return Attempt.objects.filter(worker__startswith=f"{worker.name}@", started_at__gt=since).exists()

    def verdict(self, drill: str, *, recovery: float | None, limit: float | None, may_repeat: bool) -> Verdict:
        """Hold everything that ran against the promises."""
        due = Execution.objects.exclude(pk__in=self.to_fail)
        verdict = judge(
            drill,
            executions=list(due.values_list("pk", flat=True)),
            effects=effects.ended(self.path),
            recovery_seconds=None if recovery is None else round(recovery, 2),
            recovery_limit=limit,
            repeats_allowed=10**9 if may_repeat else 0,
            **self.figures,
        )
        judge_ledger(verdict, self.schedules)
        if self.webhooks is not None:
            judge_webhooks(verdict, self.webhooks)
        if self.to_fail:
            judge_failures(verdict, self.to_fail)
        verdict.problems += self.problems
        return verdict
