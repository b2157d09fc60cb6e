"""`manage.py triggers`."""

from __future__ import annotations

from io import StringIO
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from execution.models import Execution
from tests.factories import make_workflow
from triggers import event_bus, ingest, lifecycle
from triggers.event_bus import RedisStreamsBus
from triggers.models import Event, Trigger, WebhookEndpoint

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("triggers", *arguments, stdout=out)
    return out.getvalue()


def test_triggers_are_listed_paused_and_resumed() -> None:
    lifecycle.create("on-paid", workflow=make_workflow(), event_types=["order.*"], actor="x")
    assert "order.*" in run("list")
    run("pause", "on-paid", "--note", "n")
    assert not Trigger.objects.get().enabled
    run("resume", "on-paid")
    assert Trigger.objects.get().enabled
    with pytest.raises(CommandError, match="no trigger"):
        run("pause", "other")


def test_endpoints_are_made_rotated_and_retired() -> None:
    assert "secret: whsec_" in run("add-webhook", "shop")
    assert "/hooks/" in run("webhooks")
    assert "secret: whsec_" in run("rotate", "shop", "--overlap", "0")
    assert run("encrypt-again").strip() == "1 secrets"
    run("retire", "shop")
    assert WebhookEndpoint.objects.get().state == "retired"
    for arguments in (["rotate", "none"], ["add-webhook", "NO"], ["retire", "none"]):
        with pytest.raises(CommandError):
            run(*arguments)


def test_events_are_replayed_flushed_and_pruned() -> None:
    lifecycle.create("t", workflow=make_workflow(), event_types=["a"], actor="x", debounce={"period": 0.001})
    receipt = ingest.publish_event("a")
    run("replay", str(receipt.event_id))
    assert Event.objects.filter(replay_of=receipt.event_id).exists()
    assert run("flush").startswith(("1 groups", "0 groups"))
    assert run("prune").startswith("0 events")
    for text in ("x", str(uuid4())):
        with pytest.raises(CommandError, match="no such event"):
            run("replay", text)


def test_a_stream_is_read() -> None:
    event_bus.disconnect()
    stream = f"s-{uuid4().hex}"
    lifecycle.create("t", workflow=make_workflow(), event_types=["a"], actor="x")
    RedisStreamsBus(settings.REDIS_URL, stream=stream).publish(
        {"specversion": "1.0", "id": "1", "source": "/s", "type": "a"}
    )
    assert "1 stored" in run("bus", stream, "--types", "a,b.*", "--once")
    assert Execution.objects.count() == 1
    event_bus.disconnect()
