"""A worker keeps no receipt in Redis for the hints that it takes.

For every message that it fetches, kombu writes a copy into a hash and an index in Redis, and deletes both when the
message is acknowledged: two more round trips a message, which were a third of what a worker's parent process did. They
are to save a message whose worker dies before it begins. A hint that is lost so is sent again by the sweep, and long
before a copy would be (`WORKFLOW_REDISPATCH_SECONDS` against Celery's visibility timeout). Other people's tasks in the
same queues keep their receipts.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from kombu.transport import redis, virtual

from execution.dispatch import DOOR


class HintQoS(redis.QoS):
    """What a channel has fetched and not acknowledged: hints in memory alone, the rest as kombu does it."""

    _delivered: Any  # messages by their tag
    channel: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        if _is_hint(message):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        if _is_hint(self._delivered.get(delivery_tag)):
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put back what was fetched and is not wanted: at a shutdown, say. A hint goes back from memory."""
        message: Any = self._delivered.get(tag)
        if not _is_hint(message):
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
            return
        info = message.delivery_info
        with self.channel.conn_or_acquire(client) as connection:
            self.channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], connection, leftmost)


def _is_hint(message: Any) -> bool:
    return message is not None and message.headers.get("task") == DOOR


class WithoutReceipts(bootsteps.StartStopStep):
    """A consumer step: the channel of every new connection keeps no receipts of hints."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Nothing has been fetched yet: the event loop begins after all steps."""
        qos = consumer.task_consumer.channel.qos
        if type(qos) is redis.QoS:  # the channel made it long ago, and Celery has changed it too (disable_prefetch)
            qos.__class__ = HintQoS
