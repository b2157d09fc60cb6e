"""The worker registry: signs of life, lost workers, and pause, drain and resume of one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import Ignore
from celery.worker import state as worker_state
from django.core.management import CommandError, call_command
from django.db import OperationalError

from execution import engine, handoff, pressure, process_reports, queues, retention, tasks, usage, workers
from execution.consumption import Consumption
from execution.models import AuditEntry, ProcessReport, ResourceSample, StepRun
from execution.models.worker import Wanted
from execution.pressure import Pressure
from execution.process_reports import Orders
from execution.worker import Housekeeper
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests.execution import flow

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def whole_ceiling() -> Iterator[None]:
    yield
    pressure.set_ceiling(pressure.EVERYTHING)


class Consumer:
    """What of Celery's consumer is changed; calls are made at once."""

    hostname = "w@h"
    connection_errors = (OSError,)
    channel_errors = ()

    def __init__(self) -> None:
        self.known = {"default": 1, "io": 1, "bulk": 1}
        self.serving = {"default": 1, "io": 1}
        own = self

        class Queues(dict[str, int]):
            @property
            def consume_from(self) -> dict[str, int]:
                return own.serving

        self.app = SimpleNamespace(amqp=SimpleNamespace(queues=Queues(self.known)))
        self.pool = SimpleNamespace(num_processes=2)
        self.task_consumer = SimpleNamespace(channel=SimpleNamespace(priority_steps=list(range(10))))
        self.broken = False

    def call_soon(self, action: Any, *arguments: Any) -> None:
        action(*arguments)

    def cancel_task_queue(self, name: str) -> None:
        if self.broken:
            raise OSError("the broker is away")
        del self.serving[name]

    def add_task_queue(self, name: str) -> None:
        self.serving[name] = 1


def report(name: str = "w@h", *, pid: int = 1, sample: bool = False, **values: Any) -> Orders:
    return process_reports.report_process(
        name,
        kind="worker",
        host="h",
        pid=pid,
        queues=["default"],
        own_queues=["default"],
        slots=2,
        sample=sample,
        **values,
    )


def actions() -> list[str]:
    return list(AuditEntry.objects.filter(subject_kind="worker").order_by("id").values_list("action", flat=True))


def test_a_wish_is_learned_with_the_next_report_and_taken_back_by_resume() -> None:
    assert report() == Orders()
    workers.pause("w@h", actor="ada", note="kernel")
    assert report().wanted is Wanted.PAUSED
    assert workers.status_of(workers.get("w@h"), engine.now()) == "paused"
    with pytest.raises(Conflict, match="w@h is paused"):
        workers.pause("w@h", actor="ada")
    workers.drain("w@h", actor="ada")
    assert report() == Orders(wanted=Wanted.DRAINING)
    with pytest.raises(Conflict, match="draining"):
        workers.pause("w@h", actor="ada")
    assert workers.report_drained("w@h") is False
    assert workers.report_drained("w@h") is False
    assert workers.status_of(workers.get("w@h"), engine.now()) == "drained"
    workers.resume("w@h", actor="ada")
    assert report() == Orders()
    assert workers.report_drained("w@h") is False  # it was resumed in between
    with pytest.raises(Conflict, match="not paused"):
        workers.resume("w@h", actor="ada")
    assert actions() == ["worker.pause", "worker.drain", "worker.drained", "worker.resume"]


@pytest.mark.parametrize("verb", [workers.pause, workers.drain, workers.resume])
def test_what_is_no_worker_has_no_verbs(verb: Any) -> None:
    process_reports.report_process("b@h", kind="beat", host="h", pid=1)
    for name in ("nobody@h", "b@h"):
        with pytest.raises(NotFound):
            verb(name, actor="ada")


def test_a_worker_that_is_gone_cannot_be_paused() -> None:
    report()
    ProcessReport.objects.update(seen_at=engine.now() - timedelta(minutes=5))
    with pytest.raises(Conflict, match="is lost"):
        workers.pause("w@h", actor="ada")
    process_reports.report_stopped("w@h")
    with pytest.raises(Conflict, match="is stopped"):
        workers.drain("w@h", actor="ada")


def test_a_new_start_forgets_a_drain_that_ended_it_but_not_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    report()
    workers.drain("w@h", actor="ada", ends=True)
    assert report().ends_when_drained
    assert workers.report_drained("w@h") is True
    assert report(pid=2) == Orders()
    workers.pause("w@h", actor="ada")
    ProcessReport.objects.update(extra_queues=["io"])
    assert report(pid=2).extra_queues == ("io",)
    monkeypatch.setattr(process_reports, "INCARNATION", uuid4())  # the same pid, in another container
    assert report(pid=2) == Orders(wanted=Wanted.PAUSED)


def test_a_lost_worker_is_noted_once_and_its_slots_leave(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ALIVE_SECONDS", 0)  # Postgres of the tests may have started just now
    report()
    assert queues.service(["default"])["default"].slots == 2
    ProcessReport.objects.update(seen_at=engine.now() - timedelta(seconds=20), extra_queues=["io"])
    assert workers.mark_lost() == ["w@h"]
    assert workers.mark_lost() == []
    assert actions() == ["worker.lost"]
    assert queues.service(["default"])["default"].slots == 0
    assert report() == Orders()  # it was only away
    assert ProcessReport.objects.get().lost_at is None


def test_nobody_is_lost_while_postgres_has_just_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ALIVE_SECONDS", 10_000_000)
    report()
    ProcessReport.objects.update(seen_at=engine.now() - timedelta(days=300))
    assert workers.mark_lost() == []


def test_a_measurement_is_kept_when_asked_for_and_pruned(settings: Any) -> None:
    measured = {
        "cpu_percent": 12.5,
        "memory_bytes": 1_000,
        "processes": 3,
        "host": {"cpu_percent": 50.0, "memory_used": 5, "memory_total": 10, "load": [1.5, 1, 1]},
    }
    report(resources=measured)
    report(sample=True)  # nothing was measured
    assert not ResourceSample.objects.exists()
    report(resources=measured, sample=True)
    kept = ResourceSample.objects.get()
    assert (kept.cpu_percent, kept.host_load, kept.host_memory_total, kept.slots) == (12.5, 1.5, 10, 2)
    assert str(kept).startswith("w@h at ")
    (point,) = usage.history(since=engine.now() - timedelta(hours=1), now=engine.now())
    assert (point["name"], point["cpu_percent"], point["memory_bytes"]) == ("w@h", 12.5, 1_000)
    assert usage.history(since=engine.now() - timedelta(hours=1), now=engine.now(), host="other") == []
    ResourceSample.objects.update(at=engine.now() - timedelta(days=8))
    assert retention.prune().resource_samples == 1


@pytest.mark.parametrize("days", [-1, 40])
def test_a_history_has_its_bounds(days: int) -> None:
    now = engine.now()
    with pytest.raises(InvalidInput):
        usage.resources(now=now, since=now - timedelta(days=days))


# ── What the worker does with it ──


def test_a_paused_worker_consumes_nothing_and_what_was_on_its_way_is_given_back() -> None:
    consumer = Consumer()
    consumption = Consumption(consumer)
    assert consumption.ceiling == pressure.EVERYTHING
    consumption.follow(Orders(wanted=Wanted.PAUSED), Pressure.NONE)
    assert consumption.served() == []
    assert consumption.ceiling == pressure.NOTHING
    execution = flow.begin({"a": flow.http()})
    StepRun.objects.update(dispatched_at=engine.now(), dispatches=1)
    run = flow.step(execution, "a")
    with pytest.raises(Ignore):
        tasks.run_step.run(str(run.pk), run.priority)
    run.refresh_from_db()
    assert (run.state, run.dispatched_at) == ("queued", None)
    consumption.follow(Orders(), Pressure.NONE)
    assert consumption.served() == ["default", "io"]
    assert not pressure.is_refused(9)


def test_what_cannot_be_given_back_is_left_to_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(handoff, "unmark", away)
    monkeypatch.setattr(engine, "close", lambda: None)
    pressure.set_ceiling(pressure.NOTHING)
    with pytest.raises(Ignore):
        tasks.run_step.run(str(uuid4()), 0)


def test_under_pressure_only_the_urgent_levels_are_asked_for() -> None:
    consumer = Consumer()
    consumption = Consumption(consumer)
    consumption.follow(Orders(), Pressure.HIGH)
    assert consumer.task_consumer.channel.priority_steps == [0, 1, 2, 3]
    assert consumption.served() == ["default", "io"]
    assert [pressure.is_refused(level) for level in (3, 4, None)] == [False, True, True]
    consumer.task_consumer.channel.priority_steps = list(range(10))  # a reconnect makes another channel
    consumption.follow(Orders(), Pressure.HIGH)
    assert consumer.task_consumer.channel.priority_steps == [0, 1, 2, 3]
    consumption.follow(Orders(), Pressure.FULL)
    assert consumption.served() == []
    consumption.follow(Orders(extra_queues=("bulk", "unknown")), Pressure.NONE)
    assert consumption.served() == ["bulk", "default", "io"]
    assert consumer.task_consumer.channel.priority_steps == list(range(10))


def test_a_change_that_fails_is_made_after_the_next_report() -> None:
    consumer = Consumer()
    consumption = Consumption(consumer)
    consumer.broken = True
    consumption.follow(Orders(wanted=Wanted.PAUSED), Pressure.NONE)
    assert consumption.served() == ["default", "io"]
    consumer.broken = False
    consumption.follow(Orders(wanted=Wanted.PAUSED), Pressure.NONE)
    assert consumption.served() == []


def test_a_drained_worker_says_so_and_ends_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    keeper = Housekeeper(Consumer())
    keeper._report()
    assert ProcessReport.objects.get().resources["memory_bytes"] > 1_000_000
    assert ResourceSample.objects.count() == 1
    workers.drain("w@h", actor="ada", ends=True)

    class Busy:
        """A request, as far as it is counted."""

    busy = Busy()
    worker_state.active_requests.add(busy)
    try:
        keeper._report()
    finally:
        worker_state.active_requests.discard(busy)
    assert sent == []
    assert keeper.consumption.served() == []
    keeper._report()
    keeper._report()
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert ResourceSample.objects.count() == 1
    assert ProcessReport.objects.get().own_queues == ["default", "io"]


def test_the_command_lists_and_steers(capsys: pytest.CaptureFixture[str]) -> None:
    def command(*words: str) -> str:
        out = StringIO()
        call_command("workers", *words, stdout=out)
        return out.getvalue()

    assert "No worker has reported" in command("list")
    report(resources={"cpu_percent": 3.0, "memory_bytes": 2_000_000, "processes": 1, "host": {}}, pressure="high")
    report("v@h")
    assert "takes nothing new" in command("pause", "w@h", "--note", "x")
    assert "paused, high load" in command("list")
    assert "then ends" in command("drain", "w@h", "--exit")
    assert "is being drained." in command("drain", "v@h")
    assert "takes work again" in command("resume", "w@h")
    assert '"status": "draining"' in command("list", "--json", "--host", "h")
    with pytest.raises(CommandError, match="There is no worker"):
        command("pause", "nobody@h")
