"""Keeping the lease of the step that this process runs: heartbeats, the news that it is lost, the self-fence."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator

from django.conf import settings

from execution import engine, queue
from execution.steps.context import LeaseLost, StepContext
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

FENCE_EXIT_CODE = 75  # EX_TEMPFAIL: the step is taken back by its lease
TERMINATION_GRACE = 10.0  # seconds a step that is no longer wanted has to end before its process does


@contextlib.contextmanager
def kept(context: StepContext, *, may_exit: bool) -> Iterator[None]:
    """Renew the step's lease in the background for as long as the block runs.

    When the lease is lost the block is told by `LeaseLost` in its thread. A process that could not renew for two
    thirds of the lease can no longer know that it holds the step; if `may_exit` (it runs nothing else, as a prefork
    child) it ends itself before somebody else starts the step, else its writes are refused by the fence.
    """
    keeper = _Keeper(context, thread_id=threading.get_ident(), may_exit=may_exit)
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


class _Keeper(threading.Thread):
    def __init__(self, context: StepContext, *, thread_id: int, may_exit: bool) -> None:
        super().__init__(name=f"lease-{context.step_run_id}", daemon=True)
        self.context = context
        self.thread_id = thread_id
        self.may_exit = may_exit
        self.renewed_at = time.monotonic()
        self.over = threading.Event()
        self.telling = threading.Lock()

    def stop(self) -> None:
        try:
            with self.telling:  # not between the decision to tell the step's thread and the telling
                self.over.set()
        finally:  # told at the last moment: the news is raised right here, and the step has ended all the same
            self.over.set()

    def run(self) -> None:
        period, lease = settings.WORKFLOW_HEARTBEAT_SECONDS, settings.WORKFLOW_LEASE_SECONDS
        opened = False
        try:
            while not self.over.wait(period):
                opened = True
                if not self._renew(lease):
                    self._tell_lost()
                    return
                if time.monotonic() - self.renewed_at > lease * 2 / 3:
                    self._fence()
        finally:
            if opened:
                engine.close()  # this thread's own connection

    def _renew(self, lease: float) -> bool:
        """Whether the lease is still ours as far as we know: an absent Postgres says nothing about it."""
        asked_at = time.monotonic()
        try:
            if not queue.heartbeat(self.context.step_run_id, self.context.token, lease=lease):
                return False
        except engine.DatabaseAway as error:
            log.warning("lease.not_renewed", step_run_id=str(self.context.step_run_id), error=str(error))
            engine.close()
        else:
            self.renewed_at = asked_at
        return True

    def _tell_lost(self) -> None:
        log.warning("lease.lost", step_run_id=str(self.context.step_run_id), label=self.context.label)
        at_once = self.may_exit and self._is_terminated()
        with self.telling:
            if self.over.is_set():
                return
            if at_once:
                log.warning("lease.terminated", step_run_id=str(self.context.step_run_id), label=self.context.label)
                os._exit(FENCE_EXIT_CODE)
            self.context.lost = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), ctypes.py_object(LeaseLost))
        if not self.over.wait(TERMINATION_GRACE) and self.may_exit:
            log.error("lease.step_did_not_stop", step_run_id=str(self.context.step_run_id))
            os._exit(FENCE_EXIT_CODE)

    def _is_terminated(self) -> bool:
        """Whether the step is to end without a grace; an absent Postgres grants it one."""
        try:
            return queue.is_terminated(self.context.token)
        except engine.DatabaseAway:
            engine.close()
            return False

    def _fence(self) -> None:
        if self.may_exit:
            log.error("lease.self_fence", step_run_id=str(self.context.step_run_id))
            os._exit(FENCE_EXIT_CODE)
        log.error("lease.expired_in_thread_pool", step_run_id=str(self.context.step_run_id))
