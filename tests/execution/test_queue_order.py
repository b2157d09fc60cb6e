"""What people move in a queue, and what rises because it has waited."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from execution import broker, concurrency, creation, dispatch, engine, handoff, queue_order, queues
from execution.models import AuditEntry, Execution, Pool, QueueSettings, StepRun
from execution.states import StepState
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests import factories
from tests.execution.flow import begin, claim, http, step, succeed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def empty_broker() -> None:
    broker.client().flushdb()


def waiting(count: int, **options: Any) -> list[StepRun]:
    return [step(begin({"a": http()}, options=options), "a") for _ in range(count)]


def order(name: str = "default") -> list[UUID]:
    return queues.peek(name)


def sent(priority: int = 6) -> list[str]:
    """Step runs in the broker, in the order in which workers receive them."""
    return [
        dispatch._step_run_of(raw)
        for raw in reversed(broker.client().lrange(broker.key_of("default", priority), 0, -1))
    ]


def test_what_waits_is_moved_first_last_before_and_after() -> None:
    a, b, c, d = waiting(4)
    queue_order.reorder("default", d.pk, "first", actor="ada")
    assert order() == [d.pk, a.pk, b.pk, c.pk]
    queue_order.reorder("default", a.execution_id, "last", actor="ada")
    assert order() == [d.pk, b.pk, c.pk, a.pk]
    queue_order.reorder("default", a.pk, "before", other=c.pk, actor="ada")
    assert order() == [d.pk, b.pk, a.pk, c.pk]
    queue_order.reorder("default", d.pk, "after", other=a.execution_id, actor="ada")
    assert order() == [b.pk, a.pk, d.pk, c.pk]
    assert sent() == [str(pk) for pk in order()]
    entry = AuditEntry.objects.filter(action="queue.reorder").first()
    assert entry is not None
    assert (entry.actor, entry.subject_id, entry.changes["step_run"]["after"]) == ("ada", "default", str(d.pk))
    claimed = queues.dequeue("default", worker="w@h/1", lease=30)
    assert claimed is not None
    assert claimed.id == b.pk


def test_the_neighbours_priority_is_taken_over_and_rows_of_one_instant_make_room() -> None:
    urgent = waiting(1, priority=0)[0]
    rows = waiting(4)
    StepRun.objects.filter(pk__in=[row.pk for row in rows]).update(available_at=engine.now())
    queue_order.reorder("default", urgent.pk, "before", other=rows[2].pk, actor="ada")
    ids = [row.pk for row in rows]
    assert order() == [*ids[:2], urgent.pk, *ids[2:]]
    assert (sent(0), sent()) == ([], [str(pk) for pk in order()])
    queue_order.reorder("default", ids[3], "first", actor="ada")
    assert order()[0] == ids[3]


def test_only_our_hints_are_taken_back_and_a_broker_that_is_away_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = waiting(2)
    broker.client().lpush(broker.key_of("default", 6), b'{"headers": {"task": "other", "id": "x-1"}}', b"{}")
    queue_order.reorder("default", b.pk, "first", actor="ada")
    assert [name for name in sent() if name] == [str(b.pk), str(a.pk)]
    assert broker.client().llen(broker.key_of("default", 6)) == 4

    def away(*_: Any) -> int:
        raise ConnectionError("away")

    monkeypatch.setattr(dispatch, "withdraw", away)
    queue_order.reorder("default", a.pk, "first", actor="ada")
    assert order() == [a.pk, b.pk]


def test_moving_the_only_one_changes_nothing() -> None:
    (only,) = waiting(1)
    before = only.available_at
    for place in ("first", "last"):
        queue_order.reorder("default", only.pk, place, actor="ada")
    only.refresh_from_db()
    assert only.available_at == before


def test_what_cannot_be_moved() -> None:
    a, b, running = waiting(3)
    assert claim(running.execution, "a") is not None
    later = waiting(1, start_at=engine.now() + timedelta(hours=1))[0]
    for options, field in (
        ({"place": "middle"}, "place"),
        ({"place": "before"}, "other"),
        ({"place": "first", "other": b.pk}, "other"),
        ({"place": "after", "other": a.pk}, "other"),
    ):
        with pytest.raises(InvalidInput) as refused:
            queue_order.reorder("default", a.pk, actor="ada", **options)
        assert field in refused.value.fields
    for item in (running, later):
        with pytest.raises(Conflict, match="does not wait"):
            queue_order.reorder("default", item.pk, "first", actor="ada")
    for name, item, place, other in (
        ("default", uuid4(), "first", None), ("default", a.pk, "before", uuid4()), ("odd", a.pk, "first", None),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            queue_order.reorder(name, item, place, other=other, actor="ada")
    assert order()[:2] == [a.pk, b.pk]


def age(run: StepRun, seconds: float) -> None:
    StepRun.objects.filter(pk=run.pk).update(available_at=engine.now() - timedelta(seconds=seconds))


def test_due_work_gains_a_level_each_time_it_has_waited_so_long() -> None:
    low, young = waiting(2, priority=9)
    age(low, 650)
    assert queue_order.age() == 1
    low.refresh_from_db()
    assert (low.priority, low.aged, low.dispatched_at) == (8, 1, None)
    assert claim(low.execution, "a", priority=9) is None  # the old hint finds nothing
    assert [queue_order.age() for _ in range(3)] == [1, 0, 0]
    age(low, 100_000)
    while queue_order.age():
        pass
    low.refresh_from_db()
    young.refresh_from_db()
    assert (low.priority, low.aged, young.priority) == (0, 9, 9)
    dispatch.sweep()
    assert sent(0) == [str(low.pk)]


def test_what_does_not_wait_for_its_turn_does_not_age(settings: Any) -> None:
    paused, later = waiting(2, priority=9)
    age(paused, 10_000)
    Execution.objects.filter(pk=paused.execution_id).update(state="paused")
    StepRun.objects.filter(pk=later.pk).update(available_at=engine.now() + timedelta(hours=1))
    io = step(begin({"a": http(queue="io")}, options={"priority": 9}), "a")
    age(io, 10_000)
    queues.pause("io", actor="ada")
    assert queue_order.age() == 0
    queues.resume("io", actor="ada")
    settings.WORKFLOW_AGING_SECONDS = 0
    assert queue_order.age() == 0
    settings.WORKFLOW_AGING_SECONDS = 300
    assert queue_order.age() == 1


def test_what_waits_for_a_pool_or_a_key_ages_too(settings: Any) -> None:
    Pool.objects.create(name="db", slots=1)
    pooled = {"a": http(pool={"name": "db"})}
    holder = begin(pooled)
    assert claim(holder, "a") is not None
    low = begin(pooled, options={"priority": 9})
    assert claim(low, "a") is None
    age(step(low, "a"), 400)
    assert queue_order.age() == 1
    assert (step(low, "a").priority, step(low, "a").waiting_for) == (8, "pool")
    workflow = factories.make_workflow(definition={"steps": {"a": http()}})
    first, old, new = (creation.start(workflow, concurrency_key="k", priority=p) for p in (6, 9, 5))
    Execution.objects.filter(pk=old.pk).update(created_at=engine.now() - timedelta(seconds=301 * 5))
    succeed(first, "a")
    concurrency.release()
    assert (step(old, "a").state, step(new, "a").state) == (StepState.QUEUED, StepState.WAITING)


def test_a_busy_key_does_not_hold_up_another() -> None:
    workflow = factories.make_workflow(definition={"steps": {"a": http()}})
    crowd = [creation.start(workflow, concurrency_key="crowd") for _ in range(5)]
    alone = creation.start(workflow, concurrency_key="alone")
    assert order() == [step(crowd[0], "a").pk, step(alone, "a").pk]


def test_queues_are_counted_filled_and_emptied() -> None:
    workflow = factories.make_workflow(definition={"steps": {"a": http()}})
    with pytest.raises(NotFound):
        queues.enqueue(workflow, queue="odd")
    first = queues.enqueue(workflow, queue="io", priority=9)
    second = queues.enqueue(workflow, queue="io", priority=0)
    queues.enqueue(workflow, queue="io", start_at=engine.now() + timedelta(hours=1))
    handoff.unmark([step(first, "a").pk])
    assert queues.size("io") == 3
    (state,) = queues.stats(["io"])
    assert [(level.priority, level.waiting, level.in_flight, level.later) for level in state.levels] == [
        (0, 0, 1, 0), (6, 0, 0, 1), (9, 1, 0, 0),
    ]  # fmt: skip
    taken = [queues.dequeue("io", worker="w@h/1", lease=30) for _ in range(3)]
    assert [None if found is None else found.execution_id for found in taken] == [second.pk, first.pk, None]


def test_a_queue_is_drained_when_the_last_step_that_ran_in_it_has_ended() -> None:
    running, queued = begin({"a": http()}), begin({"a": http()})
    assert claim(running, "a") is not None
    queues.pause("default", actor="ada")
    queues.drain("default", actor="ada", note="deploy")
    with pytest.raises(Conflict, match="being drained"):
        queues.drain("default", actor="ada")
    (state,) = queues.stats(["default"])
    assert (state.status, state.pause_note) == ("draining", "deploy")
    assert claim(queued, "a") is None
    drained = StepRun.objects.filter(pk=step(running, "a").pk)
    QueueSettings.objects.update(draining_at=engine.now() - timedelta(seconds=2))
    assert queues.report_drained() == []
    drained.update(state=StepState.QUEUED, lease_token=None, lease_until=None)
    assert queues.report_drained() == ["default"]
    assert queues.report_drained() == []
    (state,) = queues.stats(["default"])
    assert (state.status, state.drained_at is not None) == ("drained", True)
    assert AuditEntry.objects.filter(action="queue.drained", actor="system").count() == 1
    queues.resume("default", actor="ada")
    (state,) = queues.stats(["default"])
    assert (state.status, state.draining_at, state.drained_at) == ("active", None, None)
