"""Keeping the leases of the steps that this process runs: heartbeats, the news that one is lost, the self-fence.

One thread a process does it for all of them, and is not woken by steps that begin or end: starting a thread for every
step, or waking one, costs as much as a good part of the step's own statements.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator

from django.conf import settings

from execution import engine, queue
from execution.background import Background
from execution.steps.context import LeaseLost, StepContext
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

FENCE_EXIT_CODE = 75  # EX_TEMPFAIL: the step is taken back by its lease
TERMINATION_GRACE = 10.0  # seconds a step that is no longer wanted has to end before its process does
LONGEST_PAUSE = 1.0  # seconds between two looks at the leases


@contextlib.contextmanager
def kept(context: StepContext, *, may_exit: bool) -> Iterator[None]:
    """Renew the step's lease in the background for as long as the block runs.

    When the lease is lost the block is told by `LeaseLost` in its thread. A process that could not renew for two
    thirds of the lease can no longer know that it holds the step; if `may_exit` (it runs nothing else, as a prefork
    child) it ends itself before somebody else starts the step, else its writes are refused by the fence.
    """
    lease = _Lease(context, thread_id=threading.get_ident(), may_exit=may_exit)
    keeper = _keeper()
    keeper.keep(lease)
    try:
        yield
    finally:
        lease.stop()
        keeper.leases.pop(id(lease), None)


class _Lease:
    """A lease that this process holds, and what it knows of it. Instants are monotonic seconds."""

    def __init__(self, context: StepContext, *, thread_id: int, may_exit: bool) -> None:
        self.context = context
        self.thread_id = thread_id
        self.may_exit = may_exit
        self.renewed_at = time.monotonic()
        self.look_at = self.renewed_at + settings.WORKFLOW_HEARTBEAT_SECONDS
        self.is_lost = False
        self.is_over = False
        self.telling = threading.Lock()

    def stop(self) -> None:
        try:
            with self.telling:  # not between the decision to tell the step's thread and the telling
                self.is_over = True
        finally:  # told at the last moment: the news is raised right here, and the step has ended all the same
            self.is_over = True

    def look(self) -> None:
        """Renew, or see whether a step that is no longer wanted has ended within its grace.

        Raises:
            engine.DatabaseAway: it could not be renewed, which says nothing about whose it is.
        """
        now = time.monotonic()
        if self.is_lost:
            self._end_process("lease.step_did_not_stop")
            self.is_over = True
        elif self._renew():
            self.renewed_at = now
            self.look_at = now + settings.WORKFLOW_HEARTBEAT_SECONDS
        else:
            self._tell_lost()
            self.look_at = time.monotonic() + TERMINATION_GRACE

    def look_again(self) -> None:
        """Postgres is away: wait for the next heartbeat, unless nobody can know any more who holds the step."""
        now = time.monotonic()
        self.look_at = max(self.look_at, now + settings.WORKFLOW_HEARTBEAT_SECONDS)
        if now - self.renewed_at > settings.WORKFLOW_LEASE_SECONDS * 2 / 3:
            self._end_process("lease.self_fence" if self.may_exit else "lease.expired_in_thread_pool")

    def _renew(self) -> bool:
        """Whether the lease is still ours."""
        run_id, token = self.context.step_run_id, self.context.token
        return queue.heartbeat(run_id, token, lease=settings.WORKFLOW_LEASE_SECONDS)

    def _tell_lost(self) -> None:
        self.is_lost = True
        log.warning("lease.lost", step_run_id=str(self.context.step_run_id), label=self.context.label)
        at_once = self.may_exit and self._is_terminated()
        with self.telling:
            if self.is_over:
                return
            if at_once:
                self._end_process("lease.terminated")
            self.context.lost = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), ctypes.py_object(LeaseLost))

    def _is_terminated(self) -> bool:
        """Whether the step is to end without a grace; an absent Postgres grants it one."""
        try:
            return queue.is_terminated(self.context.token)
        except engine.DatabaseAway:
            engine.close()
            return False

    def _end_process(self, why: str) -> None:
        """End the step with its process, if that runs nothing else and the step has not ended meanwhile."""
        if self.is_over:
            return
        log.error(why, step_run_id=str(self.context.step_run_id), label=self.context.label)
        if self.may_exit:
            os._exit(FENCE_EXIT_CODE)


class Keeper(Background):
    """Looks after the leases of this process, each at its time."""

    area = "lease"

    def __init__(self) -> None:
        super().__init__("lease-keeper")
        self.leases: dict[int, _Lease] = {}
        self.is_connected = False

    def keep(self, lease: _Lease) -> None:
        """From now until it is over. What is added is due later than whatever the thread sleeps for."""
        self.leases[id(lease)] = lease

    def turn(self) -> float:
        """Look after what is due; seconds until the next look."""
        longest = min(LONGEST_PAUSE, settings.WORKFLOW_HEARTBEAT_SECONDS)
        held = self._held()
        due = [lease for lease in held if lease.look_at <= time.monotonic()]
        if due:
            self.is_connected = True
            self._look(due)
            held = self._held()
        if self.is_connected and not held:
            self.is_connected = False
            engine.close()  # this thread's own connection: only steps that last need one
        return min([max(0.0, lease.look_at - time.monotonic()) for lease in held] + [longest])

    def _held(self) -> list[_Lease]:
        held = list(self.leases.values())
        for lease in held:
            if lease.is_over:
                self.leases.pop(id(lease), None)
        return [lease for lease in held if not lease.is_over]

    def _look(self, due: list[_Lease]) -> None:
        for place, lease in enumerate(due):
            try:
                lease.look()
            except engine.DatabaseAway as error:
                log.warning("lease.not_renewed", step_run_id=str(lease.context.step_run_id), error=str(error))
                engine.close()
                for waiting in due[place:]:  # not asked one by one: each might wait for a connection
                    waiting.look_again()
                return


_kept_by: Keeper | None = None
_starting = threading.Lock()


def _keeper() -> Keeper:
    """The keeper of this process, which begins with its first step."""
    global _kept_by
    if _kept_by is None or not _kept_by.is_alive():
        with _starting:
            if _kept_by is None or not _kept_by.is_alive():
                _kept_by = Keeper()
                _kept_by.start()
    return _kept_by


def _forget() -> None:
    """A forked child has neither the thread nor its parent's leases."""
    global _kept_by, _starting
    _kept_by, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
