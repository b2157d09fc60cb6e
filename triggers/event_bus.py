"""Events from a bus: what another system publishes there starts workflows here.

A bus is anything that keeps `EventBus`; `RedisStreamsBus` is one on Redis Streams with a consumer group. A message
is acknowledged after its event is committed, and the event is deduplicated by the bus and the message's id: a
consumer that is killed in between leaves a message that another one takes over, and nothing is stored twice.

>>> connect_event_bus(RedisStreamsBus("redis://…", stream="events"))  # doctest: +SKIP
>>> subscribe_to_events(["order.*"])                                   # doctest: +SKIP
>>> pump(limit=100)                                                    # doctest: +SKIP
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import redis

from execution import engine
from scheduling_project.common import json_values
from scheduling_project.common.errors import DomainError
from scheduling_project.common.json_values import JSONProblem
from scheduling_project.common.logs import get_logger
from scheduling_project.common.rate_limits import client_of
from triggers import cloudevents, ingest
from triggers.arrivals import Arrival, Sender, dedup_key
from triggers.cloudevents import Malformed
from triggers.matching import type_fits

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BusMessage:
    """A message as the bus has it. `content` is a CloudEvent in JSON format."""

    id: str
    content: bytes


class EventBus(Protocol):
    """What a bus must be able to do."""

    @property
    def name(self) -> str:
        """The same for every consumer of the bus; part of what an event is deduplicated by."""
        ...

    def read(self, *, limit: int, wait: float) -> Sequence[BusMessage]:
        """Up to `limit` messages that nobody has acknowledged; waits up to `wait` seconds for the first."""
        ...

    def acknowledge(self, ids: Iterable[str]) -> None:
        """These are done with, for every consumer."""
        ...

    def reject(self, message: BusMessage, reason: str) -> None:
        """This one can never be read; put it aside."""
        ...


_buses: list[EventBus] = []
_types: list[str] = []


def connect_event_bus(bus: EventBus) -> None:
    """Read this bus, too, from the next `pump` on."""
    if bus not in _buses:
        _buses.append(bus)


def subscribe_to_events(types: Iterable[str]) -> None:
    """Take events of these types (``*`` at the end: a prefix) from buses; without any subscription, all."""
    _types.extend(name for name in types if name not in _types)


def disconnect() -> None:
    """Forget all buses and subscriptions."""
    _buses.clear()
    _types.clear()


@dataclass(slots=True)
class Pumped:
    """What one turn came to, in messages."""

    stored: int = 0
    repeated: int = 0
    skipped: int = 0
    rejected: int = 0

    @property
    def total(self) -> int:
        return self.stored + self.repeated + self.skipped + self.rejected


def pump(*, limit: int = 100, wait: float = 1.0, using: str = "default") -> Pumped:
    """Take what the connected buses have. Each event is committed before its message is acknowledged.

    Raises:
        django.db.DatabaseError: Postgres is away; nothing unstored is acknowledged.
    """
    done = Pumped()
    for bus in _buses:
        for message in bus.read(limit=limit, wait=wait):
            _take(bus, message, done, using)
            bus.acknowledge([message.id])
    return done


def _take(bus: EventBus, message: BusMessage, done: Pumped, using: str) -> None:
    try:
        arrival = read_message(message)
    except DomainError as error:
        log.warning("event_bus.rejected", bus=bus.name, message=message.id, error=str(error))
        bus.reject(message, str(error))
        done.rejected += 1
        return
    if _types and not any(type_fits(wanted, arrival.type) for wanted in _types):
        done.skipped += 1
        return
    own = dedup_key("bus", bus.name, arrival.delivery_id or message.id)
    receipt = ingest.ingest(replace(arrival, dedup_key=own), sender=Sender(f"bus:{bus.name}"), using=using)
    if receipt is not None and receipt.duplicate:
        done.repeated += 1
    else:
        done.stored += 1


def read_message(message: BusMessage) -> Arrival:
    """The event of a message.

    Raises:
        Malformed: it is not a CloudEvent that can be kept.
    """
    try:
        value = json_values.parse(message.content)
    except JSONProblem as error:
        raise Malformed(f"The message {error}.") from None
    event = cloudevents.structured(value)
    return Arrival(
        type=event.type,
        source=event.source,
        subject=event.subject,
        time=event.time,
        data=event.data,
        extensions=event.extensions,
        content_type=event.content_type,
        raw=message.content,
        delivery_id=event.id[:256],
    )


# ── Redis Streams ────────────────────────────────────────────────────────────────────────────────────────────

FIELD: Final = "event"
IDLE_MILLISECONDS: Final = 30_000


class RedisStreamsBus:
    """A Redis stream read by a consumer group; each message has its CloudEvent in the field ``event``.

    What a consumer took and did not acknowledge for `idle` milliseconds is taken over by another (XAUTOCLAIM).
    Messages that cannot be read are moved to the stream ``<stream>:rejected`` with the reason.
    """

    def __init__(
        self, url: str, *, stream: str, group: str = "workflow", consumer: str = "", idle: int = IDLE_MILLISECONDS
    ) -> None:
        self.stream = stream
        self.group = group
        self.consumer = consumer or f"{socket.gethostname()}-{os.getpid()}"
        self.idle = idle
        self._client = client_of(url, timeout=None)
        self._has_group = False

    @property
    def name(self) -> str:
        return f"{self.stream}/{self.group}"

    def publish(self, event: Mapping[str, Any]) -> str:
        """Put a CloudEvent (as a JSON-ready mapping) onto the stream; returns the message's id.

        Raises:
            Malformed: it breaks CloudEvents' rules.
        """
        cloudevents.structured(dict(event))
        added: Any = self._client.xadd(self.stream, {FIELD: _dumped(event)})
        return _decoded(added)

    def read(self, *, limit: int, wait: float) -> Sequence[BusMessage]:
        self._make_group()
        _, stale, *_ = self._client.xautoclaim(
            self.stream, self.group, self.consumer, min_idle_time=self.idle, count=limit
        )
        if stale:
            return [_message(row) for row in stale]
        found: Any = self._client.xreadgroup(
            self.group, self.consumer, {self.stream: ">"}, count=limit, block=max(1, int(wait * 1000))
        )
        return [_message(row) for _, rows in found or () for row in rows]

    def acknowledge(self, ids: Iterable[str]) -> None:
        self._client.xack(self.stream, self.group, *ids)

    def reject(self, message: BusMessage, reason: str) -> None:
        self._client.xadd(
            f"{self.stream}:rejected",
            {FIELD: message.content, "reason": reason, "id": message.id},
            maxlen=10_000,
            approximate=True,
        )

    def _make_group(self) -> None:
        if self._has_group:
            return
        try:
            self._client.xgroup_create(self.stream, self.group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._has_group = True


def _message(row: Any) -> BusMessage:
    message_id, fields = row
    content = (fields or {}).get(FIELD.encode(), b"")
    return BusMessage(_decoded(message_id), content)


def _decoded(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _dumped(event: Mapping[str, Any]) -> bytes:
    return engine.dump_json(dict(event)).encode()
