"""A worker's task events (what Flower shows) go out in bundles.

Celery flushes its buffer at every turn of the event loop, which is two to three messages for every task: under load
that was a third of what a worker's parent process does. Nobody needs them sooner than several times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps
from kombu.asynchronous.hub import Hub

FLUSH_SECONDS = 0.1
BUNDLE = 200  # events after which a bundle goes out at once


class EventBundles(bootsteps.StartStopStep):
    """A consumer step: every new connection's event dispatcher is told to flush later, and once."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, consumer: Any) -> None:
        """Wait a while before flushing, where an event loop can wake us (not in thread pools, which do not buffer)."""
        dispatcher = consumer.event_dispatcher
        if consumer.hub is not None and dispatcher is not None and dispatcher.on_send_buffered:
            dispatcher.on_send_buffered = flush_later(consumer.hub, dispatcher)
            dispatcher.buffer_limit = BUNDLE

    def stop(self, consumer: Any) -> None:
        """What is still buffered is sent with the goodbye of a worker that ends."""
        dispatcher = consumer.event_dispatcher
        if dispatcher is not None and dispatcher.enabled and dispatcher.on_send_buffered:
            dispatcher.flush()


def flush_later(hub: Hub, dispatcher: Any) -> Callable[[], None]:
    """What the dispatcher calls for each buffered event: one flush for all events of the next `FLUSH_SECONDS`."""
    planned = False

    def flush() -> None:
        nonlocal planned
        planned = False
        if dispatcher.enabled:  # it is disabled when its connection is lost; the next one takes over its buffer
            dispatcher.flush()

    def plan() -> None:
        nonlocal planned
        if not planned:
            planned = True
            hub.call_later(FLUSH_SECONDS, flush)

    return plan
