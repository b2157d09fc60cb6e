"""Workflows that follow on workflows: state events, emitted events, loops."""

from __future__ import annotations

from typing import Any

import pytest

from execution import creation, engine
from execution.creation import Source
from execution.models import DeadLetter, Execution, News
from execution.states import ExecutionState
from tests.factories import make_execution, make_workflow
from triggers import catalog, chaining, ingest, lifecycle, tasks
from triggers.models import Activation, Event

pytestmark = pytest.mark.django_db


def finish(execution: Execution, state: ExecutionState = ExecutionState.SUCCEEDED) -> None:
    Execution.objects.filter(pk=execution.pk).update(
        state=state, finished_at=engine.now(), open_steps=0, started_at=engine.now()
    )


def test_nothing_is_stored_that_no_trigger_asks_for() -> None:
    finish(make_execution())
    assert News.objects.count() == 0
    lifecycle.create("all", workflow=make_workflow(), event_types=["*"], actor="tests")
    lifecycle.create("failures", workflow=make_workflow(), event_types=["execution.failed"], actor="tests")
    finish(make_execution())
    assert News.objects.count() == 0


def test_a_success_starts_what_follows_on_it() -> None:
    first, second = make_workflow("first"), make_workflow("second")
    trigger = lifecycle.create(
        "then",
        workflow=second,
        event_types=["execution.succeeded"],
        pattern={"data": {"workflow": ["first"]}},
        input={"from": "${{ event.data.execution }}"},
        actor="tests",
    )
    execution = make_execution(first)
    finish(execution)
    finish(make_execution(second))
    assert News.objects.count() == 2
    assert chaining.consume() == 2
    event = Event.objects.get()
    assert (event.type, event.source, event.cause) == ("execution.succeeded", "/workflows/first", execution.pk)
    started = Execution.objects.get(source_kind="trigger")
    assert (started.workflow, started.input) == (second, {"from": str(execution.pk)})
    assert Activation.objects.get().trigger == trigger
    assert News.objects.count() == 0
    assert chaining.consume() == 0


def test_every_change_of_state_has_a_type_of_its_own() -> None:
    lifecycle.create("watch", workflow=make_workflow(), event_types=["execution.*"], actor="tests")
    execution = make_execution()

    def move(state: str, **fields: Any) -> None:
        Execution.objects.filter(pk=execution.pk).update(state=state, **fields)

    move("running", started_at=engine.now())
    move("paused")
    move("running")
    move("failed", finished_at=engine.now())
    move("queued", finished_at=None)
    move("cancelled", finished_at=engine.now())
    DeadLetter.objects.create(execution=execution, workflow=execution.workflow, reason="failed", fingerprint="x")
    types = list(News.objects.order_by("pk").values_list("data__type", flat=True))
    assert [name.removeprefix("execution.") for name in types] == [
        "started",
        "paused",
        "resumed",
        "failed",
        "reopened",
        "cancelled",
        "dead_lettered",
    ]
    assert chaining.consume() == 7
    letter = Event.objects.get(type="execution.dead_lettered")
    assert letter.data["dead_letter"] == str(DeadLetter.objects.get().pk)


def test_a_paused_trigger_watches_nothing() -> None:
    trigger = lifecycle.create("watch", workflow=make_workflow(), event_types=["execution.*"], actor="tests")
    trigger.refresh_from_db()
    assert trigger.watches
    assert catalog.current().watching
    lifecycle.pause(trigger, actor="tests")
    finish(make_execution())
    assert News.objects.count() == 0
    assert not catalog.current().watching


def test_what_a_step_emits_becomes_an_event() -> None:
    lifecycle.create("on-part", workflow=make_workflow(), event_types=["load.partial"], actor="tests")
    execution = make_execution(make_workflow("loader"))
    data = {"type": "load.partial", "subject": "eu", "data": {"rows": 3}}
    News.objects.create(topic="emit", execution_id=execution.pk, data=data)
    News.objects.create(topic="emit", data={"type": "nobody.asks"})
    News.objects.create(topic="emit", data={"type": ""})
    tasks.flush()
    event = Event.objects.get(type="load.partial")
    assert (event.source, event.subject, event.data) == ("/workflows/loader", "eu", {"rows": 3})
    assert event.cause == execution.pk
    assert Event.objects.filter(type="nobody.asks").exists()
    assert News.objects.count() == 0


def test_a_loop_is_cut_with_the_reason(settings: Any) -> None:
    settings.WORKFLOW_MAX_EVENT_DEPTH = 4
    again = make_workflow("again")
    lifecycle.create("loop", workflow=again, event_types=["execution.succeeded"], actor="tests")
    finish(creation.start(again))
    for _ in range(10):
        chaining.consume()
        for execution in Execution.objects.filter(finished_at__isnull=True):
            finish(execution)
    assert Execution.objects.count() == 1 + 4
    cut = Activation.objects.get(state="cut")
    assert cut.reason == "4 activations led to this event; a longer chain is taken for a loop"
    assert list(Event.objects.order_by("pk").values_list("depth", flat=True)) == [0, 1, 2, 3, 4]


def test_a_loop_through_a_child_is_still_a_loop() -> None:
    lifecycle.create("t", workflow=make_workflow(), event_types=["a"], actor="tests")
    receipt = ingest.publish_event("a")
    parent = Execution.objects.get(pk=receipt.execution_ids[0])
    child = creation.start(make_workflow(), source=Source("child", str(parent.pk)))
    assert chaining.depth_after(child, using="default") == 1
    assert chaining.depth_after(creation.start(make_workflow(), source=Source("child", "x")), using="default") == 0
    assert chaining.depth_after(make_execution(), using="default") == 0


def test_the_end_of_an_execution_hastens_what_follows() -> None:
    finish(make_execution())
    chaining.hasten()
    lifecycle.create("then", workflow=make_workflow(), event_types=["execution.succeeded"], actor="tests")
    finish(make_execution())
    chaining.hasten(execution_id=None, state="succeeded")
    assert Activation.objects.count() == 1


def test_publishing_joins_the_callers_transaction() -> None:
    from django.db import transaction

    lifecycle.create("t", workflow=make_workflow(), event_types=["order.paid"], actor="tests")
    with transaction.atomic():
        ingest.publish_event("order.paid", {"order": 1})
        transaction.set_rollback(True)
    assert Event.objects.count() == Execution.objects.count() == 0
    first = ingest.publish_event("order.paid", {"order": 1}, source="/shop", id="1", subject="1")
    again = ingest.publish_event("order.paid", {"order": 1}, source="/shop", id="1")
    assert again.event_id == first.event_id
    assert again.duplicate


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": ""}, "type"),
        ({"type": "a\nb"}, "type"),
        ({"source": "x" * 501}, "source"),
        ({"subject": "\x00"}, "subject"),
        ({"data": {"a": "\x00"}}, "data"),
        ({"data": {"a": "\ud800"}}, "data"),
        ({"data": {"a": float("nan")}}, "data"),
        ({"data": {1, 2}}, "data"),
        ({"time": __import__("datetime").datetime(2026, 1, 1)}, "time"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_field(change: dict[str, Any], field: str) -> None:
    from scheduling_project.common.errors import InvalidInput

    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    for values in ({"type": "a", **change}, {"type": "a", "data": deep}):
        with pytest.raises(InvalidInput) as refused:
            ingest.publish_event(values.pop("type"), values.pop("data", None), **values)
        assert refused.value.fields
        if "data" not in values and values != {}:
            assert field in refused.value.fields
