"""Hints are taken from the broker without a receipt, other messages with one; both go back when they are not wanted."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Consumer, Producer, Queue
from kombu.transport.redis import QoS

from execution import broker
from execution.dispatch import publish
from execution.queue import Hint
from execution.worker_hints import HintQoS, WithoutReceipts
from scheduling_project.celery import app


@pytest.fixture
def lane() -> str:
    return f"receipts-{uuid4().hex[:8]}"


@pytest.fixture
def connection() -> Any:
    with app.connection_for_read() as opened:
        yield opened


class Reader:
    """A consumer's channel on one queue, with our step, as a worker has it."""

    def __init__(self, connection: Connection, lane: str) -> None:
        self.received: list[Any] = []
        channel = connection.default_channel
        self.consumer = Consumer(
            channel, [Queue(lane, routing_key=lane)], callbacks=[lambda _, message: self.received.append(message)]
        )
        self.consumer.qos(prefetch_count=10)
        consumer = SimpleNamespace(task_consumer=SimpleNamespace(channel=channel))
        WithoutReceipts(consumer).start(consumer)
        self.connection = connection

    def receive(self) -> Any:
        with self.consumer:
            self.connection.drain_events(timeout=5)
        return self.received[-1]


def hint(lane: str) -> Hint:
    return Hint(uuid4(), "w.s", lane, 6, None, 0)


def receipts() -> int:
    return int(broker.client().hlen("unacked"))


def depth(lane: str, priority: int = 6) -> int:
    return int(broker.client().llen(broker.key_of(lane, priority)))


def test_the_worker_of_this_project_keeps_no_receipts_of_hints() -> None:
    assert WithoutReceipts in app.steps["consumer"]


def test_a_hint_leaves_no_receipt(connection: Any, lane: str) -> None:
    before = receipts()
    publish([hint(lane)])
    message = Reader(connection, lane).receive()
    assert (receipts(), depth(lane)) == (before, 0)
    message.ack()
    assert (receipts(), depth(lane)) == (before, 0)


def test_other_messages_have_a_receipt_until_they_are_acknowledged(connection: Any, lane: str) -> None:
    before = receipts()
    Producer(connection.channel()).publish({"any": "thing"}, routing_key=lane, priority=6)
    message = Reader(connection, lane).receive()
    assert receipts() == before + 1
    message.ack()
    assert (receipts(), depth(lane)) == (before, 0)


@pytest.mark.parametrize("shuts_down", [False, True], ids=["requeued", "at a shutdown"])
def test_a_hint_that_is_not_wanted_goes_back(connection: Any, lane: str, shuts_down: bool) -> None:
    sent = hint(lane)
    publish([sent])
    message = Reader(connection, lane).receive()
    if shuts_down:
        connection.default_channel.qos.restore_unacked_once()
    else:
        message.requeue()
    (again,) = broker.client().lrange(broker.key_of(lane, 6), 0, -1)
    content = json.loads(again)
    assert content["headers"]["id"] == f"{sent.id}-1"
    assert content["headers"]["redelivered"]


def test_an_acknowledged_hint_does_not_come_back(connection: Any, lane: str) -> None:
    publish([hint(lane)])
    Reader(connection, lane).receive().ack()
    connection.default_channel.qos.restore_unacked_once()
    assert depth(lane) == 0


def test_a_rejected_message_of_others_goes_back_as_before(connection: Any, lane: str) -> None:
    before = receipts()
    Producer(connection.channel()).publish({"any": "thing"}, routing_key=lane, priority=6)
    Reader(connection, lane).receive().requeue()
    assert (receipts(), depth(lane)) == (before, 1)


def test_a_channel_of_another_kind_is_left_alone() -> None:
    class Other(QoS):
        """Somebody else's."""

    other = SimpleNamespace(task_consumer=SimpleNamespace(channel=SimpleNamespace(qos=Other.__new__(Other))))
    WithoutReceipts(other).start(other)
    assert type(other.task_consumer.channel.qos) is Other
    assert issubclass(HintQoS, QoS)
