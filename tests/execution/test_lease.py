"""Keeping a lease: renewals in the background, the news that it is lost, and the self-fence."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError

from execution import lease, queue
from execution.steps.context import LeaseLost, StepContext
from scheduling_project.common.ids import uuid7
from tests.patience import PATIENCE

# The stand-in for the end of the process ends the keeper's thread, which pytest would report.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(autouse=True)
def quick(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short times, and a keeper that begins with them."""
    settings.WORKFLOW_LEASE_SECONDS = 0.3
    settings.WORKFLOW_HEARTBEAT_SECONDS = 0.02
    monkeypatch.setattr(lease, "TERMINATION_GRACE", 0.1)
    monkeypatch.setattr(lease.engine, "close", lambda: None)
    lease._forget()
    yield
    lease._keeper().stop()
    lease._forget()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have ended."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(lease.os, "_exit", leave)
    return codes


@pytest.fixture(autouse=True)
def has_a_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "is_terminated", lambda token: False)


def context() -> StepContext:
    return StepContext(
        step_run_id=uuid7(), execution_id=uuid7(), name="s", label="w.s", attempt=1, idempotency_key="k",
        scheduled_for=None, token=uuid7(),
    )  # fmt: skip


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], bool]) -> list[float]:
    """Let Postgres answer heartbeats so; returns the times at which it was asked."""
    asked: list[float] = []

    def heartbeat(*_: Any, **__: Any) -> bool:
        asked.append(time.monotonic())
        return answer()

    monkeypatch.setattr(queue, "heartbeat", heartbeat)
    return asked


def away() -> bool:
    raise OperationalError("gone")


def work(seconds: float) -> None:
    """What a step does: many small things, between any two of which it can be told."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.005)


def test_a_lease_is_renewed_for_as_long_as_the_step_runs(monkeypatch: pytest.MonkeyPatch, exits: list[int]) -> None:
    asked = answering(monkeypatch, lambda: True)
    with lease.kept(context(), may_exit=True):
        work(0.5)
    assert len(asked) > 4
    seen = len(asked)
    time.sleep(0.1)
    assert len(asked) <= seen + 1
    assert exits == []


def test_a_step_that_ends_before_the_first_heartbeat_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, lambda: True)
    with lease.kept(context(), may_exit=True):
        pass
    time.sleep(0.05)
    assert asked == []


def test_a_step_that_lost_its_lease_is_told_in_its_thread(monkeypatch: pytest.MonkeyPatch, exits: list[int]) -> None:
    answering(monkeypatch, lambda: False)
    running = context()
    began = time.monotonic()
    with pytest.raises(LeaseLost), lease.kept(running, may_exit=True):
        work(5)
    assert time.monotonic() - began < PATIENCE
    assert running.lost
    time.sleep(0.2)
    assert exits == []


def test_a_step_that_will_not_listen_is_ended_with_its_process(
    monkeypatch: pytest.MonkeyPatch, exits: list[int]
) -> None:
    answering(monkeypatch, lambda: False)
    with lease.kept(context(), may_exit=True):
        for _ in range(2):
            try:
                work(0.4)
            except LeaseLost:
                continue
    assert exits == [lease.FENCE_EXIT_CODE]


def test_in_a_thread_pool_nobody_else_is_ended(monkeypatch: pytest.MonkeyPatch, exits: list[int]) -> None:
    answering(monkeypatch, lambda: False)
    with lease.kept(context(), may_exit=False):
        for _ in range(2):
            try:
                work(0.3)
            except LeaseLost:
                continue
    assert exits == []


def test_a_process_that_cannot_renew_ends_itself_before_the_lease_does(
    monkeypatch: pytest.MonkeyPatch, exits: list[int]
) -> None:
    asked = answering(monkeypatch, away)
    began = time.monotonic()
    with lease.kept(context(), may_exit=True):
        work(0.4)
    assert exits == [lease.FENCE_EXIT_CODE]
    assert 0.2 <= asked[-1] - began <= 0.3


def test_a_thread_that_cannot_renew_goes_on_and_is_fenced(monkeypatch: pytest.MonkeyPatch, exits: list[int]) -> None:
    asked = answering(monkeypatch, away)
    with lease.kept(context(), may_exit=False):
        work(0.4)
    assert exits == []
    assert len(asked) > 4


def test_a_short_outage_is_forgiven(monkeypatch: pytest.MonkeyPatch, exits: list[int]) -> None:
    answers = iter([True, False])
    asked = answering(monkeypatch, lambda: next(answers, True) or away())
    with lease.kept(context(), may_exit=True):
        work(0.3)
    assert exits == []
    assert len(asked) > 3


def test_news_that_come_with_the_very_end_do_not_outlive_the_step(
    monkeypatch: pytest.MonkeyPatch, exits: list[int]
) -> None:
    """The lease is lost in the moment in which the step ends: told or not, the process is not ended."""
    for _ in range(20):
        lost = threading.Event()
        answering(monkeypatch, lambda: lost.set() or False)  # noqa: B023
        try:
            with lease.kept(context(), may_exit=True):
                lost.wait(1)
        except LeaseLost:
            pass
    time.sleep(0.3)
    assert exits == []


def test_the_step_ended_before_it_could_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    held = lease._Lease(context(), thread_id=threading.get_ident(), may_exit=False)
    held.stop()
    held._tell_lost()
    assert not held.context.lost


def test_a_step_that_ended_within_its_grace_does_not_end_the_process(exits: list[int]) -> None:
    held = lease._Lease(context(), thread_id=threading.get_ident(), may_exit=True)
    held.is_lost = True
    held.stop()
    held.look()
    assert exits == []


def test_one_thread_keeps_the_leases_of_all_steps_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[Any] = set()
    everything_asked = threading.Event()

    def heartbeat(step_run_id: Any, *_: Any, **__: Any) -> bool:
        asked.add(step_run_id)
        if len(asked) == 3:
            everything_asked.set()
        return True

    monkeypatch.setattr(queue, "heartbeat", heartbeat)
    before = threading.active_count()
    with (
        lease.kept(context(), may_exit=False),
        lease.kept(context(), may_exit=False),
        lease.kept(context(), may_exit=False),
    ):
        assert everything_asked.wait(PATIENCE)
        assert threading.active_count() == before + 1
    assert lease._keeper().leases == {}


def test_a_lease_that_was_left_behind_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, lambda: True)
    held = lease._Lease(context(), thread_id=threading.get_ident(), may_exit=False)
    held.stop()
    keeper = lease._keeper()
    keeper.keep(held)
    deadline = time.monotonic() + PATIENCE
    while keeper.leases and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (keeper.leases, asked) == ({}, [])


def test_postgres_is_asked_once_for_all_leases_while_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question might wait for a connection: those behind it would be asked too late."""
    asked = answering(monkeypatch, away)
    keeper = lease.Keeper()
    held = [lease._Lease(context(), thread_id=threading.get_ident(), may_exit=False) for _ in range(3)]
    for one in held:
        one.look_at = 0.0
        keeper.keep(one)
    keeper.turn()
    assert len(asked) == 1
    assert all(one.look_at > time.monotonic() for one in held)
    keeper.turn()
    assert len(asked) == 1


def test_the_keeper_has_a_connection_only_while_a_step_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda: True)
    closed: list[bool] = []
    monkeypatch.setattr(lease.engine, "close", lambda: closed.append(True))
    keeper = lease.Keeper()
    held = lease._Lease(context(), thread_id=threading.get_ident(), may_exit=False)
    held.look_at = 0.0
    keeper.keep(held)
    keeper.turn()
    assert closed == []
    held.stop()
    keeper.turn()
    keeper.turn()
    assert closed == [True]


def test_a_forked_process_begins_without_leases() -> None:
    with lease.kept(context(), may_exit=False):
        child = os.fork()
        if child == 0:
            os._exit(len(lease._keeper().leases) if lease._keeper().is_alive() else 99)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_step_that_is_terminated_is_not_told(monkeypatch: pytest.MonkeyPatch, exits: list[int]) -> None:
    answering(monkeypatch, lambda: False)
    monkeypatch.setattr(queue, "is_terminated", lambda token: True)
    one = context()
    with lease.kept(one, may_exit=True):
        deadline = time.monotonic() + PATIENCE
        while not exits and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (exits, one.lost) == ([lease.FENCE_EXIT_CODE], False)


def test_whether_it_is_terminated_is_not_known_without_postgres(
    monkeypatch: pytest.MonkeyPatch, exits: list[int]
) -> None:
    def away(token: Any) -> bool:
        raise OperationalError("away")

    answering(monkeypatch, lambda: False)
    monkeypatch.setattr(queue, "is_terminated", away)

    def work() -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.01)

    with pytest.raises(LeaseLost), lease.kept(context(), may_exit=True):
        work()
    assert exits == []
