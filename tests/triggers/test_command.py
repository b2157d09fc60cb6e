"""`manage.py triggers` and `manage.py events`."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from uuid import UUID, uuid4

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


def events(*arguments: str) -> str:
    out = StringIO()
    call_command("events", *arguments, stdout=out)
    return out.getvalue()


def test_an_endpoint_is_looked_at_changed_tested_and_counted() -> None:
    make_workflow("ship")
    made = json.loads(run("add-webhook", "shop", "--workflow", "ship", "--events", "order.*", "--json"))
    assert made["path"] == WebhookEndpoint.objects.get().path
    run("set-webhook", "shop", "--set", "rate_per_minute=60", "--set", "type_from=path:kind")
    facts = json.loads(run("webhook", "shop", "--json"))
    assert (facts["rate_per_minute"], facts["type_from"]) == (60, "path:kind")
    assert made["secret"] not in json.dumps(facts)
    assert "rate per minute" in run("webhook", "shop")
    sent = json.loads(run("test-send", "shop", "--body", '{"kind": "order.paid"}', "--delivery-id", "t1", "--json"))
    assert (sent["status"], len(sent["answer"]["execution_ids"])) == (202, 1)
    (delivery,) = json.loads(run("deliveries", "shop", "--json"))
    assert (delivery["outcome"], delivery["delivery_id"]) == ("accepted", "t1")
    assert "shop: started" in run("deliveries", "shop", "--outcome", "accepted")
    assert json.loads(run("stats", "shop", "--json"))["deliveries_by_outcome"] == {"accepted": 1}
    assert json.loads(run("show", "shop", "--json"))["state"] == "active"
    assert json.loads(run("list", "--json"))[0]["webhook"] == "shop"
    run("pause-webhook", "shop", "--note", "n")
    with pytest.raises(CommandError, match="answered 503"):
        run("test-send", "shop")
    run("resume-webhook", "shop")
    run("rotate", "shop", "--overlap", "60")
    old = json.loads(run("webhook", "shop", "--json"))["secrets"][1]
    run("end-secret", "shop", old["id"])
    assert len(json.loads(run("webhook", "shop", "--json"))["secrets"]) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["set-webhook", "shop"], "Name what to change"),
        (["set-webhook", "shop", "--set", "rate_per_minute"], "name=value"),
        (["set-webhook", "shop", "--set", "rate_per_minute=many"], "rate_per_minute: must be a whole number"),
        (["set-webhook", "shop", "--set", "colour=1"], "colour: is not something"),
        (["add-webhook", "other", "--events", "a"], "need.* --workflow"),
        (["end-secret", "shop", "none"], "0 secrets"),
        (["test-send", "shop", "--body", "{"], "--body is not JSON"),
        (["test-send", "shop", "--body", "@/nowhere/x.json"], "/nowhere/x.json cannot be read: No such file"),
        (["stats", "shop", "--hours", "0"], "--hours must be"),
        (["show", "none"], "no trigger none"),
        (["webhook", "none"], "no webhook endpoint none"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(arguments: list[str], error: str) -> None:
    run("add-webhook", "shop")
    before = WebhookEndpoint.objects.values().get()
    with pytest.raises(CommandError, match=error):
        run(*arguments)
    assert WebhookEndpoint.objects.values().get() == before


def test_events_are_published_listed_shown_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = lifecycle.create("t", workflow=make_workflow(), event_types=["order.*"], actor="x")
    (tmp_path / "data.json").write_text('{"n": 1}')
    first = json.loads(events("publish", "order.paid", "--data", f"@{tmp_path}/data.json", "--id", "1", "--json"))
    again = json.loads(events("publish", "order.paid", "--data", '{"n": 1}', "--id", "1", "--json"))
    assert (first["duplicate"], again["duplicate"], again["event_id"]) == (False, True, first["event_id"])
    monkeypatch.setattr("sys.stdin", StringIO('"text"'))
    assert "event id" in events("publish", "note", "--data", "-")
    assert {row["type"] for row in json.loads(events("list", "--json"))} == {"order.paid", "note"}
    assert "order.paid" in events("list", "--type", "order.*", "--limit", "5")
    shown = json.loads(events("show", first["event_id"], "--json"))
    assert shown["data"] == {"n": 1}
    assert shown["activations"][0]["state"] == "started"
    assert shown["triggers_of_today"][0]["matched"] is True
    (replayed,) = json.loads(events("replay", first["event_id"], "--trigger", "t", "--json"))
    assert Event.objects.get(pk=replayed["event_id"]).replay_of_id == UUID(first["event_id"])
    ranged = ["--after", "2020-01-01T00:00:00Z", "--before", "2120-01-01T00:00:00Z", "--json"]
    assert len(json.loads(events("replay", *ranged))) == 2
    assert len(json.loads(events("replay", "--type", "order.paid", *ranged))) == 1
    assert trigger.activations.count() == 4


def test_mistakes_about_events_are_named() -> None:
    for arguments, error in (
        (["replay"], "--after and --before"),
        (["replay", "x"], "no such event"),
        (["show", str(uuid4())], "no such event"),
        (["list", "--after", "yesterday"], "--after must be an instant"),
        (["list", "--before", "2026-03-01T09:00:00"], "--before must be an instant"),
        (["list", "--endpoint", "none"], "endpoint: is not the slug"),
        (["publish", " ", "--data", "1"], "type: must be a printable text"),
        (["publish", "a", "--data", "{"], "--data is not JSON"),
    ):
        with pytest.raises(CommandError, match=error):
            events(*arguments)
    assert Event.objects.count() == 0
