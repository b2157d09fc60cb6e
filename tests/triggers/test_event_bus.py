"""Events from a bus: once each, whoever is killed in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings

from execution.models import Execution
from tests.factories import make_workflow
from triggers import event_bus, ingest, lifecycle
from triggers.event_bus import RedisStreamsBus
from triggers.models import Event

pytestmark = pytest.mark.django_db


@pytest.fixture
def stream() -> str:
    return f"events-{uuid4().hex}"


@pytest.fixture(autouse=True)
def disconnected() -> Iterator[None]:
    event_bus.disconnect()
    yield
    event_bus.disconnect()


def bus(stream: str, **options: Any) -> RedisStreamsBus:
    return RedisStreamsBus(settings.REDIS_URL, stream=stream, **options)


def cloud_event(number: int, type: str = "order.paid") -> dict[str, Any]:
    return {"specversion": "1.0", "id": str(number), "source": "/erp", "type": type, "data": {"n": number}}


def test_messages_become_events_and_are_acknowledged(stream: str) -> None:
    lifecycle.create("t", workflow=make_workflow(), event_types=["order.*"], actor="tests")
    ours = bus(stream)
    event_bus.connect_event_bus(ours)
    event_bus.connect_event_bus(ours)
    event_bus.subscribe_to_events(["order.*"])
    for number in range(3):
        ours.publish(cloud_event(number))
    ours.publish(cloud_event(9, "other"))
    ours._client.xadd(stream, {"event": b"not json"})
    ours._client.xadd(stream, {"unknown": b"x"})
    done = event_bus.pump(wait=0.01)
    assert (done.stored, done.skipped, done.rejected, done.repeated) == (3, 1, 2, 0)
    assert Execution.objects.count() == 3
    assert Event.objects.first().producer == f"bus:{stream}/workflow"  # type: ignore[union-attr]
    assert event_bus.pump(wait=0.01).total == 0
    assert ours._client.xpending(stream, "workflow")["pending"] == 0
    assert ours._client.xlen(f"{stream}:rejected") == 2


def test_a_killed_consumer_leaves_its_messages_to_the_next_and_nothing_is_doubled(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, heir = bus(stream, consumer="one"), bus(stream, consumer="two", idle=0)
    for number in range(2):
        killed.publish(cloud_event(number))
    event_bus.connect_event_bus(killed)

    def dies(ids: object) -> None:
        raise SystemExit("killed after the commit, before the acknowledgement")

    monkeypatch.setattr(killed, "acknowledge", dies)
    with pytest.raises(SystemExit):
        event_bus.pump(wait=0.01)
    assert Event.objects.count() == 1
    event_bus.disconnect()
    event_bus.connect_event_bus(heir)
    done = event_bus.pump(wait=0.01)
    assert (done.stored, done.repeated) == (1, 1)
    assert Event.objects.count() == 2


def test_nothing_is_acknowledged_that_postgres_did_not_take(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    ours = bus(stream)
    ours.publish(cloud_event(1))
    event_bus.connect_event_bus(ours)
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "ingest", lambda *args, **options: (_ for _ in ()).throw(OperationalError("away")))
        with pytest.raises(OperationalError):
            event_bus.pump(wait=0.01)
    assert ours._client.xpending(stream, "workflow")["pending"] == 1
    ours.idle = 0
    assert event_bus.pump(wait=0.01).stored == 1


def test_only_cloudevents_may_be_published(stream: str) -> None:
    from triggers.cloudevents import Malformed

    with pytest.raises(Malformed):
        bus(stream).publish({"type": "a"})
