"""Task events in bundles: one flush for many, on every new connection, and none over a lost one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from execution.worker_events import BUNDLE, FLUSH_SECONDS, EventBundles
from scheduling_project.celery import app


class Hub:
    """An event loop that only notes what it is to call later."""

    def __init__(self) -> None:
        self.planned: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.planned.append((delay, callback))

    def turn(self) -> None:
        due, self.planned = self.planned, []
        for _, callback in due:
            callback()


class Events(SimpleNamespace):
    """A real dispatcher without a broker: what it would publish is kept."""

    @classmethod
    def of(cls, consumer: Any, **options: Any) -> Any:
        dispatcher = app.events.Dispatcher(
            connection=SimpleNamespace(transport=SimpleNamespace(driver_type="")),
            channel=object(),
            enabled=False,
            on_send_buffered=lambda: None,
            **options,
        )
        dispatcher.enabled = True
        dispatcher.published = []
        dispatcher._publish = lambda event, *_, **__: dispatcher.published.append(event)
        consumer.event_dispatcher = dispatcher
        return dispatcher


@pytest.fixture
def consumer() -> Any:
    return SimpleNamespace(hub=Hub(), event_dispatcher=None)


def test_the_worker_of_this_project_bundles_its_events() -> None:
    assert EventBundles in app.steps["consumer"]


def test_many_events_are_one_message_a_little_later(consumer: Any) -> None:
    dispatcher = Events.of(consumer, buffer_group=["task"])
    EventBundles(consumer).start(consumer)
    for number in range(5):
        dispatcher.send("task-received", uuid=str(number))

    assert [delay for delay, _ in consumer.hub.planned] == [FLUSH_SECONDS]
    assert dispatcher.published == []
    consumer.hub.turn()
    assert [[event["uuid"] for event in bundle] for bundle in dispatcher.published] == [["0", "1", "2", "3", "4"]]

    dispatcher.send("task-succeeded", uuid="0")
    assert len(consumer.hub.planned) == 1


def test_a_full_bundle_does_not_wait(consumer: Any) -> None:
    dispatcher = Events.of(consumer, buffer_group=["task"])
    EventBundles(consumer).start(consumer)
    for number in range(BUNDLE):
        dispatcher.send("task-received", uuid=str(number))
    assert [len(bundle) for bundle in dispatcher.published] == [BUNDLE]


def test_what_is_buffered_leaves_before_the_worker_does(consumer: Any) -> None:
    dispatcher = Events.of(consumer, buffer_group=["task"])
    step = EventBundles(consumer)
    step.start(consumer)
    dispatcher.send("task-succeeded", uuid="last")
    step.stop(consumer)
    assert [event["uuid"] for bundle in dispatcher.published for event in bundle] == ["last"]


def test_a_flush_that_was_planned_on_a_lost_connection_sends_nothing(consumer: Any) -> None:
    dispatcher = Events.of(consumer, buffer_group=["task"])
    EventBundles(consumer).start(consumer)
    dispatcher.send("task-received", uuid="1")
    dispatcher.enabled = False
    consumer.hub.turn()
    assert dispatcher.published == []


def test_a_worker_without_an_event_loop_sends_as_celery_does(consumer: Any) -> None:
    dispatcher = Events.of(consumer)
    before = dispatcher.on_send_buffered
    consumer.hub = None
    EventBundles(consumer).start(consumer)
    assert dispatcher.on_send_buffered is before


def test_a_worker_without_events_has_nothing_to_bundle(consumer: Any) -> None:
    step = EventBundles(consumer)
    step.start(consumer)
    step.stop(consumer)
    assert consumer.hub.planned == []
