"""`/api/triggers`, `/api/webhooks`, `/api/events`, `/api/activations`, `/api/api-keys` as their users see them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from execution.models import AuditEntry, Execution
from scheduling_project.common import clock
from tests.api_client import Api
from tests.factories import make_workflow
from tests.triggers.conftest import deliver, make_endpoint
from triggers import endpoints, ingest, lifecycle, signatures
from triggers.auth import keys
from triggers.models import Activation, ApiKey, Event, Trigger, WebhookEndpoint

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(db: None) -> Api:
    return Api()


def test_one_call_makes_endpoint_and_trigger_and_a_signed_delivery_starts_the_workflow(api: Api) -> None:
    workflow = make_workflow("ship")
    made = api.ok(
        "post",
        "/api/triggers",
        {
            "endpoint": "orders",
            "secret": "whsec_" + "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g=",
            "events": ["order.created", "order.paid.*"],
            "filters": {"total": [{"numeric": [">", 10]}]},
            "retry_policy": {"max_attempts": 4},
            "workflow": "ship",
        },
        status=201,
    )
    assert made["name"] == made["endpoint_slug"] == "orders"
    assert made["pattern"] == {"data": {"total": [{"numeric": [">", 10]}]}}
    endpoint = WebhookEndpoint.objects.get()
    assert made["webhook_url"].endswith(f"/hooks/{endpoint.token}")
    body = json.dumps({"type": "order.created", "total": 11}).encode()
    headers = signatures.sign("standard", body=body, secrets=[made["secret"]], now=clock.now(), delivery_id="msg_1")
    answer = Client().post(made["webhook_url"], body, content_type="application/json", headers=headers)
    assert answer.status_code == 202
    execution = Execution.objects.get(pk=answer.json()["execution_ids"][0])
    assert (execution.workflow, execution.retry_policy) == (workflow, {"max_attempts": 4})
    assert api.ok("get", f"/api/executions/{execution.pk}")["source"]["kind"] == "trigger"


def test_the_one_call_is_all_or_nothing_and_names_every_field(api: Api) -> None:
    make_workflow("ship")
    problem = api.refused(
        "post",
        "/api/triggers",
        {"endpoint": "Not A Slug", "events": [""], "filters": {"a": [{"nope": 1}]}, "workflow": "ship"},
        status=400,
    )
    assert {"endpoint", "filters.data.a[0].nope", "events.0"} <= set(problem["errors"]) or "errors" in problem
    assert WebhookEndpoint.objects.count() == Trigger.objects.count() == 0


def test_a_webhook_with_a_workflow_makes_the_trigger_too(api: Api) -> None:
    make_workflow("ship")
    made = api.ok("post", "/api/webhooks", {"slug": "shop", "scheme": "github", "workflow": "ship"}, status=201)
    assert Trigger.objects.get(pk=made["trigger"]).endpoint_id is not None
    assert len(made["secret"]) == 64
    assert made["secret"] not in json.dumps(api.ok("get", "/api/webhooks/shop"))


def test_a_trigger_on_types_alone(api: Api) -> None:
    make_workflow("ship")
    made = api.ok(
        "post", "/api/triggers", {"name": "on-paid", "event_types": ["order.*"], "workflow": "ship"}, status=201
    )
    answer = api.ok("post", "/api/events", {"type": "order.paid", "data": {"a": 1}}, status=202)
    assert len(answer["execution_ids"]) == 1
    assert api.ok("post", "/api/events", {"type": "other"}, status=202)["activation_ids"] == []
    history = api.ok("get", f"/api/triggers/{made['id']}/history")
    assert [row["execution"] for row in history["results"]] == answer["execution_ids"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"workflow": "nope"}, "workflow"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["a*b"]}, "event_types.0"),
        ({"pattern": {"total": [1]}}, "pattern.total"),
        ({"pattern": {"data": {"a": [{"wildcard": "**"}]}}}, "pattern.data.a[0].wildcard"),
        ({"input": {"a": "${{ input.b }}"}}, "input.a"),
        ({"input": [1]}, "input"),
        ({"priority": 11}, "priority"),
        ({"queue": "nope"}, "queue"),
        ({"retry_policy": {"max_attempts": 0}}, "retry_policy.max_attempts"),
        ({"throttle": {"limit": 0, "period": 1}}, "throttle.limit"),
        ({"debounce": {"period": 5, "timeout": 1}}, "debounce.timeout"),
        ({"batch": {"size": 2}}, "batch.timeout"),
        ({"batch": {"size": 2, "timeout": 1}, "debounce": {"period": 1}}, "batch"),
        ({"authentication": {"who": []}}, "authentication.who"),
        ({"authentication": {"methods": ["magic"]}}, "authentication.methods"),
        ({"concurrency_key": "${{ nope }}"}, "concurrency_key"),
        ({"max_activations": 0}, "max_activations"),
        ({"start_at": "2026-03-01T00:00:00Z", "end_at": "2026-02-01T00:00:00Z"}, "end_at"),
        ({"endpoint": "no-such", "secret": "x"}, "secret"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_bad_value_is_refused_with_its_field(api: Api, change: dict[str, Any], field: str) -> None:
    make_workflow("ship")
    values = {"name": "t", "event_types": ["a"], "workflow": "ship", **change}
    api.refused("post", "/api/triggers", values, status=400, field=field)
    assert Trigger.objects.count() == 0


def test_pause_resume_change_and_delete(api: Api) -> None:
    make_workflow("ship")
    made = api.ok("post", "/api/triggers/", {"name": "t", "event_types": ["a"], "workflow": "ship"}, status=201)
    path = f"/api/triggers/{made['id']}"
    assert api.ok("post", f"{path}/pause", {"note": "too loud"})["state"] == "paused"
    assert api.ok("post", "/api/events", {"type": "a"}, status=202)["activation_ids"] == []
    assert api.ok("post", f"{path}/resume/")["state"] == "active"
    assert len(api.ok("post", "/api/events", {"type": "a"}, status=202)["activation_ids"]) == 1
    changed = api.ok("patch", path, {"event_types": ["b"]}, headers={"If-Match": '"3"'})
    assert changed["revision"] == 4
    api.refused("patch", path, {"event_types": ["c"]}, headers={"If-Match": '"3"'}, status=412)
    assert api.ok("post", "/api/events", {"type": "a"}, status=202)["activation_ids"] == []
    assert api.ok("get", "/api/triggers/t/status")["state"] == "active"
    assert api.ok("get", f"{path}/stats")["activations"] == 1
    api.ok("delete", path, status=204)
    api.refused("get", path, status=404)
    assert Execution.objects.count() == 1
    actions = set(AuditEntry.objects.filter(subject_kind="trigger").values_list("action", flat=True))
    assert {f"trigger.{verb}" for verb in ("create", "pause", "resume", "update", "delete")} <= actions


def test_a_name_is_used_once(api: Api) -> None:
    make_workflow("ship")
    values = {"name": "t", "event_types": ["a"], "workflow": "ship"}
    api.ok("post", "/api/triggers", values, status=201)
    api.refused("post", "/api/triggers", values, status=409, field="name")
    api.ok("post", "/api/webhooks", {"slug": "s"}, status=201)
    api.refused("post", "/api/webhooks", {"slug": "s"}, status=409, field="slug")


def test_testing_a_trigger_stores_nothing_unless_asked(api: Api) -> None:
    make_workflow("ship")
    api.ok(
        "post",
        "/api/triggers",
        {
            "name": "t",
            "event_types": ["a.*"],
            "workflow": "ship",
            "pattern": {"data": {"n": [{"numeric": [">", 1]}]}},
            "input": {"number": "${{ event.data.n }}"},
        },
        status=201,
    )
    trial = api.ok("post", "/api/triggers/t/test", {"data": {"n": 2}})
    assert (trial["matched"], trial["input"]) == (True, {"number": 2})
    trial = api.ok("post", "/api/triggers/t/test", {"data": {"n": 1}})
    assert (trial["matched"], trial["reason"]) == (False, '$.data.n: expected {"numeric": [">", 1]}, got 1')
    assert Event.objects.count() == 0
    trial = api.ok("post", "/api/triggers/t/test", {"data": {"n": 2}, "dry_run": False})
    assert Execution.objects.get().pk.hex == trial["execution_ids"][0].replace("-", "")


def test_a_pattern_can_be_tried_on_recent_events(api: Api) -> None:
    for number in range(3):
        ingest.publish_event("order.paid", {"total": number})
    tried = api.ok("post", "/api/triggers/try-pattern", {"pattern": {"total": [{"numeric": [">", 0]}]}})
    assert (tried["tried"], tried["matched"]) == (3, 2)
    assert tried["results"][2]["reason"] == '$.data.total: expected {"numeric": [">", 0]}, got 0'
    api.refused("post", "/api/triggers/try-pattern", {"pattern": {"data": []}}, status=400)


def test_secrets_are_rotated_and_ended(api: Api) -> None:
    made = api.ok("post", "/api/webhooks", {"slug": "s"}, status=201)
    path = f"/api/webhooks/{made['id']}"
    rotated = api.ok("post", f"{path}/rotate", {"overlap": 3600})
    assert rotated["secret"] != made["secret"]
    newest, oldest = rotated["secrets"]
    assert (newest["expires_at"], oldest["expires_at"] is None) == (None, False)
    api.ok("delete", f"{path}/secrets/{oldest['id']}", status=204)
    api.refused("delete", f"{path}/secrets/{newest['id']}", status=409)
    api.refused("post", f"{path}/rotate", {"overlap": -1}, status=400, field="overlap")
    api.refused("post", f"{path}/rotate", {"secret": "short"}, status=400, field="secret")


def test_the_server_signs_a_test_delivery(api: Api) -> None:
    make_workflow("ship")
    for scheme in ("standard", "github", "stripe", "slack", "shopify", "gitlab", "bearer", "basic", "api_key"):
        api.ok("post", "/api/webhooks", {"slug": scheme.replace("_", "-"), "scheme": scheme}, status=201)
        tested = api.ok("post", f"/api/webhooks/{scheme.replace('_', '-')}/test", {"body": {"type": "x"}})
        assert tested["status"] == 202, (scheme, tested)
    deliveries = api.ok("get", "/api/webhooks/standard/deliveries")
    assert [row["outcome"] for row in deliveries["results"]] == ["accepted"]
    assert api.ok("get", "/api/webhooks/standard/stats")["deliveries"] == 1


def test_an_endpoint_with_history_is_retired_not_deleted(api: Api) -> None:
    made = api.ok("post", "/api/webhooks", {"slug": "s"}, status=201)
    deliver(WebhookEndpoint.objects.get())
    api.refused("delete", f"/api/webhooks/{made['id']}", status=409)
    assert api.ok("post", "/api/webhooks/s/retire")["state"] == "retired"
    api.refused("post", "/api/webhooks/s/resume", status=409)
    api.ok("post", "/api/webhooks", {"slug": "empty"}, status=201)
    api.ok("delete", "/api/webhooks/empty", status=204)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"slug": "UPPER"}, "slug"),
        ({"scheme": "nope"}, "scheme"),
        ({"scheme": "hmac"}, "scheme_config.header"),
        ({"scheme_config": {"tolerance": 0}}, "scheme_config.tolerance"),
        ({"methods": ["DELETE"]}, "methods"),
        ({"allowed_networks": ["nowhere"]}, "allowed_networks.0"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"rate_per_minute": -1}, "rate_per_minute"),
        ({"type_from": "guess"}, "type_from"),
        ({"dedup_path": "a..b"}, "dedup_path"),
        ({"dedup": "maybe"}, "dedup"),
        ({"secret": "whsec_!!!!"}, "secret"),
    ],
)
def test_a_bad_endpoint_is_refused_with_its_field(api: Api, change: dict[str, Any], field: str) -> None:
    api.refused("post", "/api/webhooks", {"slug": "s", **change}, status=400, field=field)


def test_events_are_published_once_per_source_and_id(api: Api) -> None:
    body = {"type": "a", "source": "/s", "id": "1", "data": {"x": 1}}
    first = api.ok("post", "/api/events", body, status=202)
    again = api.ok("post", "/api/events", body, status=200)
    assert (again["event_id"], again["duplicate"]) == (first["event_id"], True)
    keyed = [api.answer("post", "/api/events/", {"type": "b"}, headers={"Idempotency-Key": "k1"}) for _ in range(2)]
    assert keyed[0].json() == keyed[1].json()
    assert Event.objects.filter(type="b").count() == 1


def test_events_in_the_form_of_cloudevents(api: Api) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}, "tenant": "x"}
    assert api.ok("post", "/api/events", event, status=202)["duplicate"] is False
    answer = api.post("/api/events", json.dumps(event), content_type="application/cloudevents+json")
    assert answer.status_code == 200
    assert Event.objects.get().extensions == {"tenant": "x"}
    api.refused("post", "/api/events", {**event, "specversion": "2"}, status=400, field="specversion")


def test_a_described_type_holds_producers_to_its_schema(api: Api) -> None:
    schema = {"type": "object", "required": ["total"]}
    api.ok("post", "/api/event-types", {"name": "order.paid", "schema": schema, "example": {"total": 1}}, status=201)
    api.refused("post", "/api/events", {"type": "order.paid", "data": {}}, status=400, field="data.total")
    api.ok("post", "/api/events", {"type": "order.paid", "data": {"total": 1}}, status=202)
    api.refused("post", "/api/event-types", {"name": "x", "schema": {"type": "nope"}}, status=400)
    api.refused("post", "/api/event-types", {"name": "order.paid"}, status=409, field="name")
    assert api.ok("patch", "/api/event-types/order.paid", {"schema": None})["schema"] is None
    api.ok("delete", "/api/event-types/order.paid", status=204)


def test_an_event_and_a_range_are_replayed_as_new_events(api: Api) -> None:
    endpoint = make_endpoint()
    trigger = lifecycle.create("t", workflow=make_workflow(), endpoint=endpoint, actor="tests")
    before = clock.now() - timedelta(seconds=1)
    first = deliver(endpoint, {"a": 1}, delivery_id="m1").json()
    again = api.ok("post", f"/api/events/{first['event_id']}/replay", {}, status=202)
    assert again["event_id"] != first["event_id"]
    assert set(again["execution_ids"]).isdisjoint(first["execution_ids"])
    shown = api.ok("get", f"/api/events/{again['event_id']}")
    assert shown["replay_of"] == first["event_id"]
    assert shown["activations"][0]["trigger"] == str(trigger.pk)
    ranged = api.ok(
        "post",
        "/api/events/replay",
        {"after": before.isoformat(), "before": (clock.now() + timedelta(seconds=1)).isoformat(), "endpoint": "shop"},
        status=202,
    )
    assert ranged["replayed"] == 1
    assert Execution.objects.count() == 3
    verdicts = api.ok("get", f"/api/events/{first['event_id']}/verdicts")
    assert verdicts == [{"trigger": str(trigger.pk), "name": "t", "matched": True, "reason": ""}]


def test_failed_activations_are_retried_or_discarded(api: Api) -> None:
    made = make_workflow(
        definition={
            "input": {"type": "object", "required": ["day"]},
            "steps": {"work": {"http": {"url": "https://example.org/"}}},
        }
    )
    trigger = lifecycle.create("t", workflow=made, event_types=["a"], actor="tests")
    for _ in range(2):
        ingest.publish_event("a", {})
    first, second = api.ok("get", "/api/activations?state=failed")["results"]
    api.refused("post", f"/api/activations/{first['id']}/retry", status=400, field="input.day")
    lifecycle.update(trigger, {"input": {"day": "monday"}}, actor="tests")
    assert api.ok("post", f"/api/activations/{first['id']}/retry")["state"] == "started"
    assert api.ok("post", f"/api/activations/{second['id']}/discard", {"note": "test"})["state"] == "discarded"
    api.refused("post", f"/api/activations/{second['id']}/retry", status=409)
    assert Activation.objects.filter(execution__isnull=False).count() == 1


def test_a_key_is_shown_once_works_within_its_scopes_and_ends_when_revoked(api: Api) -> None:
    made = api.ok("post", "/api/api-keys", {"name": "ci", "scopes": ["read"]}, status=201)
    key = made["key"]
    assert key.startswith(f"wk_{made['prefix']}_")
    assert key not in json.dumps(api.ok("get", "/api/api-keys"))
    assert ApiKey.objects.get().digest != key
    machine = Api(anonymous=True)
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Api-Key {key}"}):
        assert machine.ok("get", "/api/triggers", headers=headers)["results"] == []
    machine.refused("post", "/api/events", {"type": "a"}, headers={"X-API-Key": key}, status=403)
    machine.refused("get", "/api/triggers", headers={"X-API-Key": key + "x"}, status=401)
    machine.refused("get", "/api/triggers", status=401)
    _, producer = keys.create("producer", user=api.user, actor="ada", scopes=["events"])
    machine.ok("post", "/api/events", {"type": "a"}, headers={"X-API-Key": producer}, status=202)
    assert Event.objects.get().producer.startswith("key:")
    machine.refused("post", "/api/api-keys", {"name": "x"}, headers={"X-API-Key": producer}, status=403)
    assert ApiKey.objects.get(name="ci").last_used_at is not None
    api.ok("delete", f"/api/api-keys/{made['id']}", status=204)
    machine.refused("get", "/api/triggers", headers={"X-API-Key": key}, status=401)
    api.refused("post", "/api/api-keys", {"name": "", "scopes": ["fly"]}, status=400)


def test_keys_expire_are_bound_to_networks_and_to_their_user(api: Api) -> None:
    user = User.objects.create_user("bob", is_superuser=True)
    machine = Api(anonymous=True)
    _, bound = keys.create("bound", user=user, actor="ada", allowed_networks=["192.0.2.0/24"])
    machine.refused("get", "/api/events", headers={"X-API-Key": bound}, status=401)
    machine.ok("get", "/api/events", headers={"X-API-Key": bound}, REMOTE_ADDR="192.0.2.7")
    row, expiring = keys.create("soon", user=user, actor="ada", expires_at=clock.now() + timedelta(hours=1))
    machine.ok("get", "/api/events", headers={"X-API-Key": expiring})
    ApiKey.objects.filter(pk=row.pk).update(expires_at=clock.now() - timedelta(seconds=1))
    from triggers import catalog

    catalog.expire()
    machine.refused("get", "/api/events", headers={"X-API-Key": expiring}, status=401)
    _, plain = keys.create("plain", user=user, actor="ada")
    user.is_active = False
    user.save()
    machine.refused("get", "/api/events", headers={"X-API-Key": plain}, status=401)


def test_triggers_choose_whom_they_take_events_from(api: Api) -> None:
    make_workflow("ship")
    row, text = keys.create("erp", user=api.user, actor="ada", scopes=["events"])
    lifecycle.create("by-key", workflow="ship", event_types=["a"], actor="x", authentication={"keys": [row.prefix]})
    lifecycle.create("by-scope", workflow="ship", event_types=["a"], actor="x", authentication={"scopes": ["events"]})
    lifecycle.create("signed", workflow="ship", event_types=["a"], actor="x", authentication={"methods": ["signature"]})
    lifecycle.create("shop", workflow="ship", event_types=["a"], actor="x", authentication={"endpoints": ["shop"]})
    machine = Api(anonymous=True)
    by_key = machine.ok("post", "/api/events", {"type": "a"}, headers={"X-API-Key": text}, status=202)
    assert len(by_key["execution_ids"]) == 2
    assert len(api.ok("post", "/api/events", {"type": "a"}, status=202)["execution_ids"]) == 0
    assert len(deliver(make_endpoint(), {"type": "a"}).json()["execution_ids"]) == 2
    refused = Activation.objects.filter(state="refused")
    assert refused.filter(trigger__name="signed").first().reason == (  # type: ignore[union-attr]
        "takes events by signature only, this one came by user"
    )


def test_encryption_keys_are_rotated(api: Api, settings: Any) -> None:
    from cryptography.fernet import Fernet

    from scheduling_project.common import vault

    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.WORKFLOW_ENCRYPTION_KEYS = [old]
    endpoint = make_endpoint()
    settings.WORKFLOW_ENCRYPTION_KEYS = [new, old]
    assert endpoints.encrypt_again(actor="tests") == 1
    settings.WORKFLOW_ENCRYPTION_KEYS = [new]
    assert deliver(endpoint).status_code == 202
    settings.WORKFLOW_ENCRYPTION_KEYS = [old]
    with pytest.raises(vault.VaultError):
        vault.decrypt(endpoint.secrets.get().ciphertext)
    with pytest.raises(vault.VaultError):
        endpoints.encrypt_again(actor="tests")
