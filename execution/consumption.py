"""What a worker consumes: from which queues, and how urgent a hint must be.

Celery's consumer is changed in its own thread only (`call_soon`). A less urgent hint is not refused but not even
fetched: the worker asks Redis for the lists of the urgent levels alone. A hint that was on its way at that moment is
given back by the process that receives it (`pressure.is_refused`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from execution import pressure
from execution.models.worker import Wanted
from execution.priority import LEVELS
from execution.process_reports import Orders
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)


class Consumption:
    """The queues and levels that one worker takes hints from."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self.own: list[str] = self.served()
        self.ceiling = pressure.EVERYTHING

    def served(self) -> list[str]:
        """The queues that are consumed from now."""
        return sorted(self.consumer.app.amqp.queues.consume_from)

    @property
    def is_whole(self) -> bool:
        """Whether hints of every priority are taken."""
        return self.ceiling == pressure.EVERYTHING

    def follow(self, orders: Orders, under: pressure.Pressure) -> None:
        """Consume as is wanted of this worker and as its host allows. Does nothing where that is so already."""
        stopped = orders.wanted is not Wanted.NOTHING
        ceiling = pressure.ceiling_of(under, stopped=stopped)
        pressure.set_ceiling(ceiling)
        known = self.consumer.app.amqp.queues
        lent = {name for name in orders.extra_queues if name in known}
        queues = set() if ceiling == pressure.NOTHING else {*self.own, *lent}
        if ceiling != self.ceiling:
            log.info("worker.ceiling", priority=ceiling, wanted=orders.wanted.value, pressure=under.value)
        self.ceiling = ceiling
        if queues != set(self.served()) or self._levels() not in (None, self._wanted_levels()):
            self.consumer.call_soon(self._change, queues)

    def _wanted_levels(self) -> list[int]:
        return [level for level in LEVELS if level <= self.ceiling] or list(LEVELS)

    def _channel(self) -> Any:
        return getattr(getattr(self.consumer, "task_consumer", None), "channel", None)

    def _levels(self) -> list[int] | None:
        """The levels that the consumer's channel asks for; None where it has no such thing (reconnecting)."""
        levels: Iterable[int] | None = getattr(self._channel(), "priority_steps", None)
        return None if levels is None else list(levels)

    def _change(self, queues: set[str]) -> None:
        """In the consumer's own thread. What the broker's absence prevents is tried again after the next report."""
        if self.consumer.task_consumer is None:
            return
        try:
            if self._levels() is not None:
                self._channel().priority_steps = self._wanted_levels()
            for name in sorted(set(self.served()) - queues):
                self.consumer.cancel_task_queue(name)
            for name in sorted(queues - set(self.served())):
                self.consumer.add_task_queue(name)
        except (*self.consumer.connection_errors, *self.consumer.channel_errors) as error:
            log.warning("worker.consumption_not_changed", queues=sorted(queues), error=str(error))
        else:
            log.info("worker.consumes", queues=self.served(), levels=self._levels())
