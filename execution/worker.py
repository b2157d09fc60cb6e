"""What a Celery worker's parent process does for the engine beside receiving hints.

One thread sweeps, rescues, rings timers and reports life. The request class tells the engine at once when a pool
process died or was stopped by a hard time limit; on shutdown what is still held is given back, uncharged.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from typing import Any
from uuid import UUID

import psutil
from billiard.exceptions import Terminated, WorkerLostError
from celery.worker import state as worker_state
from celery.worker.request import Request
from django.conf import settings

from execution import (
    alerts,
    allocations,
    balancing,
    children,
    concurrency,
    dispatch,
    engine,
    handoff,
    lost_workers,
    maintenance,
    pressure,
    process_reports,
    queue_order,
    queues,
    redrives,
    workers,
)
from execution.background import Background
from execution.broker import BrokerAway
from execution.consumption import Consumption
from execution.models.worker import Wanted
from execution.notifications.courier import Courier
from execution.rescuer import Rescuer
from execution.resources import Monitor
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

ORDER_SECONDS = 5.0
TIMER_SECONDS = 1.0
REDRIVE_SECONDS = 0.5
SLOW_SECONDS = 30.0
BACKLOG_PAUSE = 0.05  # least seconds between fillings of the in-flight windows while more work waits than they hold
LONGEST_BACKLOG_PAUSE = 0.25
SHORTEST_PAUSE = 0.005  # seconds between fillings for what is due at instants of its own
COLD_SHUTDOWN_SECONDS = 5.0  # what Celery may take for a cold shutdown after its soft one
DEAF_SECONDS = 20.0  # with free slots, hints in its queues and none received for so long, a worker is deaf


class StepRequest(Request):
    """A received hint. Tells the engine when the process that ran it is gone."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, WorkerLostError | SystemExit | Terminated):
            self._mark_gone(timed_out=False)
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def revoked(self) -> bool:
        """Never: what is wanted stands in Postgres (cancel). A revoked id would also bar the sweep's next hint."""
        return False

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._mark_gone(timed_out=True)
        return super().on_timeout(soft, timeout)

    def _mark_gone(self, *, timed_out: bool) -> None:
        step_run_id, _, attempt = str(self.id).rpartition("-")
        try:
            lost_workers.mark_gone(UUID(step_run_id), attempt=int(attempt), worker=self.hostname, timed_out=timed_out)
        except ValueError:
            log.warning("worker.loss_of_unknown_hint", task_id=self.id)  # not one that `dispatch` has sent
        except engine.DatabaseAway as error:
            log.warning("worker.loss_not_noted", task_id=self.id, error=str(error))  # its lease will run out
        finally:
            engine.close()  # the next pool process is forked from here


class Housekeeper(Background):
    """The periodic duties of one worker, in one thread with its own connection."""

    area = "worker"

    def __init__(self, consumer: Any) -> None:
        super().__init__("workflow-housekeeper")
        self.consumption = Consumption(consumer)
        self.monitor = Monitor()
        self.rescuer = Rescuer()
        self.pressure = pressure.Pressure.NONE
        self.sampled_at = -math.inf
        self.name_of_worker: str = consumer.hostname
        self.duties: list[_Duty] = [
            _Duty("sweep", settings.WORKFLOW_SWEEP_SECONDS, self._sweep),
            _Duty("fill", settings.WORKFLOW_SWEEP_SECONDS, self._fill),
            _Duty("timers", TIMER_SECONDS, _timers),
            _Duty("redrives", REDRIVE_SECONDS, _redrives),
            _Duty("rescue", settings.WORKFLOW_RESCUE_SECONDS, self._rescue),
            _Duty("report", settings.WORKFLOW_REPORT_SECONDS, self._report),
            _Duty("order", ORDER_SECONDS, _order),
            _Duty("forgotten", SLOW_SECONDS, _forgotten),
            _Duty("hearing", ORDER_SECONDS, self._listen_to_itself),
        ]
        self.backlog = False
        self.backlog_pause = BACKLOG_PAUSE
        self.awaited = False
        self.received = 0
        self.silent_since: float | None = None

    def turn(self) -> float:
        """Do every duty whose time has come."""
        return min(duty.turn() for duty in self.duties)

    def _sweep(self) -> None:
        self.backlog = dispatch.sweep().backlog

    def _fill(self) -> float | None:
        """Between sweeps, as long as more waits than the windows hold, and at the instant when something is due."""
        if self.backlog or self.awaited:
            sent = dispatch.fill()
            self.backlog = sent > 0
            self.backlog_pause = backlog_pause(
                sent, window=settings.WORKFLOW_IN_FLIGHT_PER_LEVEL, last=self.backlog_pause
            )
        due_in = handoff.next_due(queues=settings.WORKFLOW_QUEUES, within=settings.WORKFLOW_SWEEP_SECONDS)
        self.awaited = due_in is not None
        if self.backlog:
            return self.backlog_pause if due_in is None else min(self.backlog_pause, max(due_in, BACKLOG_PAUSE))
        return None if due_in is None else max(due_in, SHORTEST_PAUSE)

    def _rescue(self) -> None:
        self.rescuer.rescue()

    @cached_property
    def _versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("celery", "django", "kombu", "redis")}

    @property
    def consumer(self) -> Any:
        """Celery's consumer; another one after a reconnect."""
        return self.consumption.consumer

    @consumer.setter
    def consumer(self, consumer: Any) -> None:
        self.consumption.consumer = consumer

    def _report(self) -> None:
        """Say what this worker does and uses, learn what is wanted of it, and consume accordingly."""
        usage = self.monitor.measure()
        self.pressure = pressure.pressure_of(
            cpu=usage.host.cpu_percent,
            memory=usage.host.memory_percent,
            limits=pressure.Limits(
                cpu_high=settings.WORKFLOW_HOST_CPU_HIGH,
                cpu_full=settings.WORKFLOW_HOST_CPU_FULL,
                memory_high=settings.WORKFLOW_HOST_MEMORY_HIGH,
                memory_full=settings.WORKFLOW_HOST_MEMORY_FULL,
            ),
            before=self.pressure,
        )
        now, busy = time.monotonic(), len(worker_state.active_requests)
        is_sample = now - self.sampled_at >= settings.WORKFLOW_RESOURCE_SAMPLE_SECONDS
        orders = process_reports.report_process(
            self.name_of_worker,
            kind="worker",
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self.consumption.served(),
            own_queues=self.consumption.own,
            slots=self.consumer.pool.num_processes or 0,
            busy=busy,
            versions=self._versions,
            resources=usage.as_json(),
            pressure=self.pressure.value,
            sample=is_sample,
        )
        self.sampled_at = now if is_sample else self.sampled_at
        self.consumption.follow(orders, self.pressure)
        is_idle = not busy and not worker_state.reserved_requests and not self.consumption.served()
        if orders.wanted is Wanted.DRAINING and is_idle and workers.report_drained(self.name_of_worker):
            log.info("worker.ends_drained", worker=self.name_of_worker)
            os.kill(os.getpid(), signal.SIGTERM)

    def _listen_to_itself(self) -> None:
        """End a worker that is alive and deaf: free slots, hints in its queues, and none received for long."""
        received = sum(worker_state.total_count.values())
        free = (self.consumer.pool.num_processes or 0) - len(worker_state.reserved_requests)
        whole = self.consumption.is_whole
        if received != self.received or free <= 0 or not whole or not self._hints_waiting():
            self.received, self.silent_since = received, None
            return
        now = time.monotonic()
        self.silent_since = self.silent_since or now
        if now - self.silent_since > DEAF_SECONDS:
            log.error("worker.deaf", worker=self.name_of_worker, seconds=round(now - self.silent_since))
            os.kill(os.getpid(), signal.SIGTERM)

    def _hints_waiting(self) -> bool:
        try:
            return dispatch.depth(self.consumption.served()) > 0
        except BrokerAway:
            return False


def backlog_pause(sent: int, *, window: int, last: float) -> float:
    """Seconds until the in-flight windows are filled again: when about half of one will have been used up.

    Every filling costs a look at all windows, however little there is to send.

    Args:
        sent: hints that the filling after the `last` pause has sent.

    >>> backlog_pause(25, window=200, last=0.05), backlog_pause(200, window=200, last=0.2)
    (0.2, 0.1)
    """
    if not sent:
        return BACKLOG_PAUSE
    return min(max(BACKLOG_PAUSE, last * window / 2 / sent), LONGEST_BACKLOG_PAUSE)


class _Duty:
    """Something to be done every `period` seconds; it may ask to be called again sooner."""

    def __init__(self, name: str, period: float, action: Callable[[], float | None]) -> None:
        self.name = name
        self.period = period
        self.action = action
        self.due_at = 0.0

    def turn(self) -> float:
        """Act if it is time; seconds until it is again."""
        now = time.monotonic()
        if now >= self.due_at:
            sooner = self.action()
            self.due_at = time.monotonic() + (self.period if sooner is None else sooner)
        return max(0.0, self.due_at - time.monotonic())


def _timers() -> None:
    maintenance.ring_timers()
    maintenance.cancel_overdue()
    children.settle_ended()
    children.cancel_orphans()
    allocations.expire()
    concurrency.release()
    alerts.tell()


def _redrives() -> float | None:
    """Go on with redrive jobs; again at once as long as there are letters to be taken up."""
    return BACKLOG_PAUSE if redrives.advance() else None


def _order() -> None:
    queue_order.age()
    queues.report_drained()
    workers.mark_lost()
    balancing.balance_execution_load()


def _forgotten() -> None:
    maintenance.decide_forgotten()


_housekeeper: Housekeeper | None = None
_courier: Courier | None = None


def start_housekeeping(sender: Any) -> None:
    """The worker consumes: begin the duties (once; a reconnect sends the signal again)."""
    global _housekeeper, _courier
    if _housekeeper is None:
        _housekeeper, _courier = Housekeeper(sender), Courier()
        _housekeeper.start()
        _courier.start()
    else:
        _housekeeper.consumer = sender


def limit_the_shutdown(sender: Any, how: str) -> None:
    """Celery's warm shutdown waits for running steps however long they take: give it the grace, then take over."""
    grace = settings.WORKFLOW_SHUTDOWN_GRACE_SECONDS + (COLD_SHUTDOWN_SECONDS if how == "Cold" else 0)
    threading.Thread(target=_end_after, args=(str(sender), grace), name="workflow-shutdown", daemon=True).start()


def _end_after(node: str, grace: float) -> None:
    """Give back what this worker's processes still hold once the grace is over, and end them and this process.

    Their later writes would be refused by the fence, so nothing is lost with them.
    """
    time.sleep(grace)
    log.warning("worker.grace_is_over", worker=node, seconds=grace)
    _give_back(node)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(0)


def give_back(sender: Any) -> None:
    """The pool has stopped: whatever its processes still held is queued again, uncharged."""
    global _housekeeper, _courier
    if _housekeeper is not None:
        _housekeeper.stop()
        _housekeeper = None
    if _courier is not None:
        _courier.stop()
        _courier = None
    _give_back(sender.hostname)


def _give_back(node: str) -> None:
    try:
        released = lost_workers.release_worker(node, reason="its worker was shut down")
        process_reports.report_stopped(node)
    except engine.DatabaseAway as error:
        log.warning("worker.not_released", error=str(error))  # the leases will run out
    else:
        if released:
            log.info("worker.released", step_runs=released)
    finally:
        engine.close()
