"""What a worker's parent process does beside receiving hints, as far as it can be had without a worker."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.worker import state as worker_state
from celery.worker.request import Request
from django.db import OperationalError

from execution import dispatch, engine, lost_workers, maintenance, worker
from execution.models import Attempt, ProcessReport, StepRun
from execution.worker import Housekeeper, StepRequest
from tests.execution import flow


@pytest.fixture(autouse=True)
def one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "close", lambda: None)


def consumer(slots: int = 2) -> Any:
    """What of Celery's consumer the housekeeper looks at."""
    queues = SimpleNamespace(consume_from={"io": None, "default": None})
    return SimpleNamespace(
        hostname="w@h",
        app=SimpleNamespace(amqp=SimpleNamespace(queues=queues)),
        pool=SimpleNamespace(num_processes=slots),
    )


def error_info(error: BaseException) -> ExceptionInfo:
    try:
        raise error
    except BaseException:  # noqa: BLE001
        return ExceptionInfo()


def request_of(task_id: str, monkeypatch: pytest.MonkeyPatch) -> tuple[StepRequest, list[str]]:
    """A received hint, and what it then told Celery's own request class."""
    told: list[str] = []
    monkeypatch.setattr(Request, "on_failure", lambda self, *_, **__: told.append("failure"))
    monkeypatch.setattr(Request, "on_timeout", lambda self, *_, **__: told.append("timeout"))
    made = StepRequest.__new__(StepRequest)
    made.id = task_id
    made._hostname = "w@h"
    return made, told


# ── A pool process that is gone ──


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("error", "noted"),
    [(WorkerLostError("signal 9"), True), (SystemExit(1), True), (ValueError("a step's own"), False)],
)
def test_a_lost_process_ends_its_lease_at_once(
    settings: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, noted: bool
) -> None:
    settings.WORKFLOW_LEASE_SECONDS = 0.1  # so long has Postgres been up
    execution = flow.begin({"a": flow.http()})
    held = flow.held(execution, "a")
    request, told = request_of(f"{held.id}-1", monkeypatch)
    request.on_failure(error_info(error))
    assert told == ["failure"]
    assert maintenance.rescue().queued == int(noted)
    assert flow.step(execution, "a").worker_deaths == int(noted)


@pytest.mark.django_db
@pytest.mark.parametrize(("soft", "state"), [(True, "running"), (False, "failed")])
def test_a_hard_time_limit_is_noted_as_such(monkeypatch: pytest.MonkeyPatch, soft: bool, state: str) -> None:
    execution = flow.begin({"a": flow.http(timeout=5)})
    held = flow.held(execution, "a")
    request, told = request_of(f"{held.id}-1", monkeypatch)
    request.on_timeout(soft, 5)
    assert told == ["timeout"]
    maintenance.rescue()
    assert flow.step(execution, "a").state == state


@pytest.mark.parametrize("task_id", ["", "not-a-step", "d9428888-122b-11e1-b85c-61cd3cbb3210"])
def test_a_hint_that_somebody_else_made_does_no_harm(monkeypatch: pytest.MonkeyPatch, task_id: str) -> None:
    request, told = request_of(task_id, monkeypatch)
    request.on_failure(error_info(WorkerLostError("x")))
    assert told == ["failure"]


def test_a_loss_that_cannot_be_noted_is_left_to_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(lost_workers, "mark_gone", away)
    request, told = request_of("0190b3a4-0000-7000-8000-000000000000-1", monkeypatch)
    request.on_timeout(False, 5)
    assert told == ["timeout"]


def test_a_revoked_message_is_no_cancel() -> None:
    assert StepRequest.revoked(StepRequest.__new__(StepRequest)) is False


# ── The duties ──


@pytest.mark.django_db
def test_a_worker_reports_life_and_its_end() -> None:
    keeper = Housekeeper(consumer())
    keeper._report()
    keeper._report()
    report = ProcessReport.objects.get()
    assert (report.name, report.kind, report.queues, report.slots) == ("w@h", "worker", ["default", "io"], 2)
    assert set(report.versions) == {"celery", "django", "kombu", "redis"}
    assert report.stopped_at is None
    execution = flow.begin({"a": flow.http()})
    held = flow.held(execution, "a")
    worker._give_back("w@h")
    report.refresh_from_db()
    assert report.stopped_at is not None
    assert Attempt.objects.get(pk=held.token).state == "released"
    worker._give_back("w@h")  # nothing is left
    keeper._report()
    report.refresh_from_db()
    assert report.stopped_at is None


def test_what_cannot_be_given_back_is_left_to_the_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(lost_workers, "release_worker", away)
    worker._give_back("w@h")


@pytest.mark.django_db
def test_a_backlog_is_sent_in_quick_turns_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = [3, 0]
    monkeypatch.setattr(dispatch, "sweep", lambda: dispatch.Sweep(due=5))
    monkeypatch.setattr(dispatch, "fill", lambda: filled.pop(0))
    keeper = Housekeeper(consumer())
    assert keeper._fill() is None
    keeper._sweep()
    assert [keeper._fill(), keeper._fill(), keeper._fill()] == [worker.LONGEST_BACKLOG_PAUSE, None, None]
    assert filled == []


@pytest.mark.parametrize(
    ("sent", "last", "pause"),
    [
        (0, 0.25, worker.BACKLOG_PAUSE),
        (1, 0.05, worker.LONGEST_BACKLOG_PAUSE),
        (50, 0.1, 0.2),
        (100, 0.1, 0.1),
        (200, 0.2, 0.1),
        (4_000, 0.05, worker.BACKLOG_PAUSE),
    ],
)
def test_the_windows_are_filled_when_about_half_of_one_is_used_up(sent: int, last: float, pause: float) -> None:
    assert worker.backlog_pause(sent, window=200, last=last) == pytest.approx(pause)


@pytest.mark.django_db(transaction=True)
def test_what_becomes_due_is_not_late_because_of_a_backlog(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WORKFLOW_SWEEP_SECONDS = 600
    monkeypatch.setattr(worker, "LONGEST_BACKLOG_PAUSE", 600)
    flow.begin({"a": flow.http()})
    keeper = Housekeeper(consumer())
    keeper.backlog_pause = 500
    StepRun.objects.update(dispatched_at=None, dispatches=0, available_at=engine.now())
    flow.begin({"a": flow.http()})
    later = StepRun.objects.order_by("id").last()
    assert later is not None
    due_at = engine.now() + timedelta(seconds=300)
    StepRun.objects.filter(pk=later.pk).update(dispatched_at=None, dispatches=0, available_at=due_at)
    keeper.backlog = True
    pause = keeper._fill()
    assert pause is not None
    assert worker.BACKLOG_PAUSE <= pause <= 300


@pytest.mark.django_db(transaction=True)
def test_what_is_due_at_an_instant_of_its_own_is_sent_at_that_instant(settings: Any) -> None:
    settings.WORKFLOW_SWEEP_SECONDS = 600
    run = flow.step(flow.begin({"a": flow.http()}), "a")
    StepRun.objects.update(dispatched_at=None, dispatches=0, available_at=engine.now() + timedelta(seconds=300))
    keeper = Housekeeper(consumer())
    due_in = keeper._fill()
    assert due_in is not None
    assert worker.SHORTEST_PAUSE <= due_in <= 300
    StepRun.objects.update(available_at=engine.now())
    assert keeper._fill() == worker.LONGEST_BACKLOG_PAUSE
    run.refresh_from_db()
    assert run.dispatched_at is not None


@pytest.mark.django_db
def test_each_duty_does_its_job() -> None:
    execution = flow.begin({"nap": {"wait": 0}, "after": flow.http("nap")}, timeout=0.001)
    time.sleep(0.01)
    worker._timers()
    Housekeeper(consumer())._rescue()
    worker._forgotten()
    worker._order()
    assert worker._redrives() is None
    assert flow.states(execution) == {"nap": "succeeded", "after": "cancelled"}


def test_a_duty_is_done_when_it_is_due() -> None:
    done: list[int] = []
    sooner: list[float | None] = [0.0, None]

    def act() -> float | None:
        done.append(1)
        return sooner.pop(0)

    duty = worker._Duty("x", 60, act)
    assert duty.turn() == 0.0
    assert duty.turn() > 59
    assert duty.turn() > 59
    assert len(done) == 2


@pytest.mark.parametrize("error", [OperationalError("gone"), ValueError("a bug")])
def test_a_duty_that_fails_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(Housekeeper, "pause_after_failure", 0.01)
    keeper = Housekeeper(consumer())
    turns: list[int] = []

    def act() -> float | None:
        turns.append(1)
        if len(turns) < 3:
            raise error
        keeper.over.set()
        return None

    keeper.duties = [worker._Duty("x", 0.0, act)]
    keeper.start()
    keeper.join(timeout=5)
    assert len(turns) == 3
    keeper.stop()


def test_housekeeping_begins_once_and_follows_a_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(Housekeeper, "start", lambda self: started.append(self))
    monkeypatch.setattr(Housekeeper, "stop", lambda self: started.remove(self))
    given_back: list[str] = []
    monkeypatch.setattr(worker, "_give_back", given_back.append)
    monkeypatch.setattr(worker, "_housekeeper", None)
    first, second = consumer(), consumer()
    worker.start_housekeeping(first)
    worker.start_housekeeping(second)
    (keeper,) = started
    assert keeper.consumer is second
    worker.give_back(SimpleNamespace(hostname="w@h"))
    assert started == []
    worker.give_back(SimpleNamespace(hostname="w@h"))
    assert given_back == ["w@h", "w@h"]


# ── A deaf worker ──


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> tuple[Housekeeper, list[int]]:
    killed: list[int] = []
    monkeypatch.setattr(worker.os, "kill", lambda pid, number: killed.append(number))
    monkeypatch.setattr(worker, "DEAF_SECONDS", 0.02)
    monkeypatch.setattr(dispatch, "depth", lambda queues: 5)
    keeper = Housekeeper(consumer())
    keeper.received = sum(worker_state.total_count.values())
    return keeper, killed


def test_a_worker_with_free_slots_that_hears_no_hint_is_ended(deaf: tuple[Housekeeper, list[int]]) -> None:
    keeper, killed = deaf
    keeper._listen_to_itself()
    assert killed == []
    time.sleep(0.03)
    keeper._listen_to_itself()
    assert killed == [signal.SIGTERM]


@pytest.mark.parametrize("why", ["it received", "it is busy", "nothing waits", "the broker is away"])
def test_silence_with_a_reason_is_no_deafness(
    deaf: tuple[Housekeeper, list[int]], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def away(queues: Any) -> int:
        raise OSError("gone")

    keeper, killed = deaf
    keeper._listen_to_itself()
    time.sleep(0.03)
    if why == "it received":
        keeper.received -= 1
    elif why == "it is busy":
        keeper.consumer.pool.num_processes = None
    elif why == "nothing waits":
        monkeypatch.setattr(dispatch, "depth", lambda queues: 0)
    else:
        monkeypatch.setattr(dispatch, "depth", away)
    keeper._listen_to_itself()
    assert killed == []
    assert keeper.silent_since is None


# ── Shutdown ──


def test_a_shutdown_ends_what_is_still_running_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    deeds: list[Any] = []
    child = SimpleNamespace(kill=lambda: deeds.append("killed"))
    monkeypatch.setattr(worker.psutil, "Process", lambda: SimpleNamespace(children=lambda recursive: [child]))
    monkeypatch.setattr(worker, "_give_back", lambda node: deeds.append(f"gave back {node}"))
    monkeypatch.setattr(worker.os, "_exit", lambda code: deeds.append(code))
    worker._end_after("w@h", 0.0)
    assert deeds == ["gave back w@h", "killed", 0]


@pytest.mark.parametrize(("how", "extra"), [("Warm", 0.0), ("Cold", worker.COLD_SHUTDOWN_SECONDS)])
def test_the_grace_is_the_deployments(settings: Any, monkeypatch: pytest.MonkeyPatch, how: str, extra: float) -> None:
    settings.WORKFLOW_SHUTDOWN_GRACE_SECONDS = 7
    waits: list[Any] = []
    monkeypatch.setattr(worker, "_end_after", lambda node, grace: waits.append((node, grace)))
    worker.limit_the_shutdown("w@h", how)
    deadline = time.monotonic() + 5
    while not waits and time.monotonic() < deadline:
        time.sleep(0.01)
    assert waits == [("w@h", 7 + extra)]
