"""The door: its order, its codes, and that a 2xx answer stands for exactly one event and its executions."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError
from django.test import Client

from execution.models import AuditEntry, Execution
from scheduling_project.common import clock, rate_limits
from tests.factories import make_workflow
from tests.triggers.conftest import SECRET, deliver, make_endpoint
from triggers import delivery_log, endpoints, ingest, inspection, lifecycle, signatures, webhooks
from triggers.arrivals import instant_text
from triggers.auth import keys
from triggers.models import Activation, Delivery, Event, WebhookEndpoint
from triggers.states import ActivationState, DeliveryOutcome

pytestmark = pytest.mark.django_db


def make_trigger(endpoint: WebhookEndpoint | None, name: str = "on-order", **values: Any) -> Any:
    workflow = values.pop("workflow", None) or make_workflow()
    return lifecycle.create(name, workflow=workflow, endpoint=endpoint, actor="tests", **values)


def test_a_signed_delivery_becomes_one_event_one_activation_and_one_execution() -> None:
    endpoint = make_endpoint()
    trigger = make_trigger(endpoint, pattern={"data": {"total": [{"numeric": [">", 100]}]}})
    response = deliver(endpoint, {"type": "order.paid", "total": 250}, delivery_id="msg_1")
    assert response.status_code == 202
    answer = response.json()
    event = Event.objects.get()
    activation = Activation.objects.get()
    execution = Execution.objects.get()
    assert answer["event_id"] == str(event.pk)
    assert answer["activation_ids"] == [str(activation.pk)]
    assert answer["execution_ids"] == [str(execution.pk)]
    assert (event.type, event.delivery_id) == ("order.paid", "msg_1")
    assert bytes(event.raw) == b'{"type": "order.paid", "total": 250}'
    assert execution.input == {"type": "order.paid", "total": 250}
    assert (execution.source_kind, execution.source_id, execution.source_label) == (
        "trigger",
        str(trigger.pk),
        "on-order",
    )
    assert event.headers["webhook-signature"] == "[redacted]"
    delivery = Delivery.objects.get()
    assert delivery.outcome == DeliveryOutcome.ACCEPTED
    assert delivery.verdicts[0]["matched"] is True


def test_a_repeat_gets_200_and_the_same_ids() -> None:
    endpoint = make_endpoint()
    make_trigger(endpoint)
    first = deliver(endpoint, {"a": 1}, delivery_id="msg_1")
    second = deliver(endpoint, {"a": 1}, delivery_id="msg_1")
    assert (first.status_code, second.status_code) == (202, 200)
    assert {**first.json(), "duplicate": True} == second.json()
    assert Event.objects.count() == Execution.objects.count() == 1


def test_the_delivery_log_names_the_first_field_that_failed() -> None:
    endpoint = make_endpoint()
    make_trigger(endpoint, pattern={"data": {"total": [{"numeric": [">", 100]}]}})
    response = deliver(endpoint, {"total": 5})
    assert response.json()["activation_ids"] == []
    verdict = Delivery.objects.get().verdicts[0]
    assert verdict["matched"] is False
    assert verdict["reason"] == '$.data.total: expected {"numeric": [">", 100]}, got 5'


def test_the_delivery_log_says_when_a_trigger_has_not_begun_or_has_ended() -> None:
    endpoint = make_endpoint()
    now = clock.now().replace(microsecond=0)
    make_trigger(endpoint, "begins", start_at=now + timedelta(days=1))
    make_trigger(endpoint, "ended", start_at=now - timedelta(days=2), end_at=now - timedelta(days=1))
    assert deliver(endpoint, {"total": 5}).json()["activation_ids"] == []
    said = {verdict["name"]: verdict for verdict in Delivery.objects.get().verdicts}
    assert {verdict["matched"] for verdict in said.values()} == {False}
    assert said["begins"]["reason"] == f"begins at {instant_text(now + timedelta(days=1))}"
    assert said["ended"]["reason"] == f"ended at {instant_text(now - timedelta(days=1))}"
    now_said = {verdict["name"]: verdict for verdict in inspection.verdicts_now(Event.objects.get())}
    assert {name: verdict["reason"] for name, verdict in said.items()} == {
        name: verdict["reason"] for name, verdict in now_said.items()
    }


def test_the_delivery_log_says_of_the_event_that_completes_a_batch_that_it_started_one() -> None:
    endpoint = make_endpoint()
    make_trigger(endpoint, batch={"size": 2, "timeout": 60})
    answers = [deliver(endpoint, {"n": number}).json() for number in range(2)]
    assert [len(answer["execution_ids"]) for answer in answers] == [0, 1]
    verdicts = [delivery.verdicts[0] for delivery in Delivery.objects.order_by("pk")]
    assert [verdict["state"] for verdict in verdicts] == ["waiting", "started"]
    assert verdicts[1]["execution"] == answers[1]["execution_ids"][0]


def test_a_batch_that_cannot_be_started_is_told_so_too() -> None:
    endpoint = make_endpoint()
    make_trigger(
        endpoint,
        batch={"size": 1, "timeout": 60},
        input={"n": "${{ to_number(event.data) }}", "x": "${{ abs(event.data.n) }}"},
    )
    assert deliver(endpoint, {"n": "a"}).json()["execution_ids"] == []
    (verdict,) = Delivery.objects.get().verdicts
    assert (verdict["state"], verdict["execution"]) == ("failed", None)
    assert verdict["reason"]


def test_what_is_no_event_stands_in_the_delivery_log_with_its_verdict() -> None:
    endpoint = make_endpoint(scheme="slack", allowed_networks=["127.0.0.0/8"])
    deliver(endpoint, {"type": "url_verification", "challenge": "abc"})
    Client().options(endpoint.path, headers={"webhook-request-origin": "events.example.org"})
    Client().put(endpoint.path, b"{}", content_type="application/json")
    endpoints.update(endpoint, {"allowed_networks": ["192.0.2.0/24"]}, actor="tests")
    deliver(endpoint)
    endpoints.pause(endpoint, actor="tests")
    deliver(endpoint)
    endpoints.retire(endpoint, actor="tests")
    deliver(endpoint)
    said = list(Delivery.objects.order_by("pk").values_list("outcome", "status"))
    assert said == [
        ("handshake", 200),
        ("handshake", 204),
        ("malformed", 405),
        ("forbidden", 403),
        ("unavailable", 503),
        ("gone", 410),
    ]


def test_figures_of_an_endpoint_count_what_the_sample_left_out() -> None:
    endpoint = make_endpoint(max_body_bytes=100)
    make_trigger(endpoint)
    for number in range(3):
        deliver(endpoint, {"type": "order.paid"}, delivery_id=f"m{number % 2}")
    for _ in range(30):
        deliver(endpoint, b"x" * 101)
    tally = delivery_log._tallies[endpoint.pk, DeliveryOutcome.TOO_LARGE]
    tally.since -= delivery_log.WINDOW  # a minute later
    deliver(endpoint, b"x" * 101)
    assert Delivery.objects.filter(outcome="too_large").count() == 21
    figures = inspection.endpoint_stats_of(endpoint, now=clock.now(), window=timedelta(hours=1))
    assert figures["deliveries_by_outcome"] == {"accepted": 2, "duplicate": 1, "too_large": 31}
    assert (figures["deliveries"], figures["per_minute"]) == (34, pytest.approx(34 / 60))
    assert figures["events_by_type"] == {"order.paid": 2}
    assert figures["activations_by_state"] == {"started": 2}
    assert 0 <= figures["p50_duration_ms"] <= figures["p95_duration_ms"] <= figures["p99_duration_ms"]
    assert figures["p99_duration_ms"] <= figures["max_duration_ms"]


def test_figures_of_an_endpoint_that_nothing_came_to() -> None:
    figures = inspection.endpoint_stats_of(make_endpoint(), now=clock.now(), window=timedelta(hours=1))
    assert (figures["deliveries"], figures["deliveries_by_outcome"], figures["p50_duration_ms"]) == (0, {}, None)


def test_unknown_paused_and_retired_endpoints() -> None:
    assert Client().post("/hooks/nothing", b"{}", content_type="application/json").status_code == 404
    endpoint = make_endpoint()
    endpoints.pause(endpoint, actor="tests")
    response = deliver(endpoint)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "60")
    endpoints.resume(endpoint, actor="tests")
    assert deliver(endpoint).status_code == 202
    endpoints.retire(endpoint, actor="tests")
    assert deliver(endpoint).status_code == 410


def test_the_slash_at_the_end_is_optional() -> None:
    endpoint = make_endpoint()
    body = b"{}"
    headers = endpoints.signed_headers(endpoint, body)
    response = Client().post(endpoint.path + "/", body, content_type="application/json", headers=headers)
    assert response.status_code == 202


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"webhook-signature": "v1,AAAA"}, b"{}"),
        ({"webhook-signature": "ünïcode"}, b"{}"),
        ({"webhook-signature": ""}, b"{}"),
        ({"webhook-timestamp": "1"}, b"{}"),
        ({"webhook-timestamp": "99999999999999999999"}, b"{}"),
        ({"webhook-id": "x" * 10_000}, b"{}"),
    ],
)
def test_a_bad_signature_of_any_shape_gets_401(headers: dict[str, str], body: bytes) -> None:
    endpoint = make_endpoint()
    signed = endpoints.signed_headers(endpoint, body)
    response = Client().post(endpoint.path, body, content_type="application/json", headers={**signed, **headers})
    assert response.status_code == 401
    assert Event.objects.count() == 0
    assert Delivery.objects.get().outcome == DeliveryOutcome.UNAUTHENTICATED
    assert AuditEntry.objects.filter(action="endpoint.refused").count() == 1


def test_an_altered_body_gets_401_before_it_is_parsed() -> None:
    endpoint = make_endpoint()
    signed = endpoints.signed_headers(endpoint, b"{}")
    response = Client().post(endpoint.path, b"not json", content_type="application/json", headers=signed)
    assert response.status_code == 401


def test_many_failed_authentications_are_limited_and_sampled() -> None:
    endpoint = make_endpoint()
    statuses = [deliver(endpoint, sign=False).status_code for _ in range(40)]
    assert statuses == [401] * 30 + [429] * 10
    assert Delivery.objects.filter(outcome=DeliveryOutcome.UNAUTHENTICATED).count() == 20
    assert AuditEntry.objects.filter(action="endpoint.refused").count() == 1
    response = deliver(endpoint)
    assert response.status_code == 429
    assert 1 <= int(response.headers["Retry-After"]) <= 60


def test_a_body_beyond_the_cap_gets_413() -> None:
    endpoint = make_endpoint(max_body_bytes=100)
    assert deliver(endpoint, b"x" * 101).status_code == 413
    assert deliver(endpoint, json.dumps("x" * 98).encode()).status_code == 202


def test_a_body_of_a_megabyte_is_taken_byte_for_byte() -> None:
    endpoint = make_endpoint()
    body = json.dumps({"text": "x" * 1_000_000}).encode()
    assert deliver(endpoint, body).status_code == 202
    assert bytes(Event.objects.get().raw) == body


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\\u0000"}',
        b'{"a": "\\ud800"}',
        b'{"a": 1e999}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b"\xff\xfe{}",
        b"1" * 5_000,
    ],
)
def test_hostile_json_gets_400(body: bytes) -> None:
    endpoint = make_endpoint()
    response = deliver(endpoint, body)
    assert response.status_code == 400
    assert response.json()["code"] == "malformed"
    assert Event.objects.count() == 0
    assert Delivery.objects.get().outcome == DeliveryOutcome.MALFORMED


def test_other_content_types() -> None:
    endpoint = make_endpoint()
    cases = {
        "image/png": 415,
        "application/xml": 415,
        "text/plain": 202,
        "application/x-www-form-urlencoded": 202,
        "application/vnd.api+json": 400,
        "": 202,
    }
    for content_type, status in cases.items():
        assert deliver(endpoint, b"a=1&a=2&b=x", content_type=content_type).status_code == status, content_type
    assert deliver(endpoint, b"{}", headers={"content-encoding": "gzip"}).status_code == 415
    form = Event.objects.get(content_type="application/x-www-form-urlencoded")
    assert form.data == {"a": ["1", "2"], "b": "x"}
    assert Event.objects.get(content_type="text/plain").data == "a=1&a=2&b=x"


def test_methods_and_addresses() -> None:
    endpoint = make_endpoint(allowed_networks=["192.0.2.0/24"])
    assert deliver(endpoint).status_code == 403
    endpoints.update(endpoint, {"allowed_networks": ["127.0.0.0/8"]}, actor="tests")
    assert deliver(endpoint).status_code == 202
    response = Client().put(endpoint.path, b"{}", content_type="application/json")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


def test_a_delivery_by_get_has_its_query_as_data() -> None:
    made = endpoints.create("sms", actor="tests", scheme="bearer", methods=["GET", "POST"])
    response = Client().get(made.endpoint.path + "?from=1&text=hi", headers={"authorization": f"Bearer {made.secret}"})
    assert response.status_code == 202
    assert Event.objects.get().data == {"from": "1", "text": "hi"}


def test_the_rate_of_an_endpoint_is_exact_and_says_when_to_come_again() -> None:
    endpoint = make_endpoint(rate_per_minute=60, burst=3)
    statuses = [deliver(endpoint).status_code for _ in range(4)]
    assert statuses == [202, 202, 202, 429]
    assert int(deliver(endpoint).headers["Retry-After"]) == 1


def test_each_caller_has_a_rate_of_its_own() -> None:
    endpoint = make_endpoint(caller_rate_per_minute=10)
    first = Client(REMOTE_ADDR="192.0.2.1")
    second = Client(REMOTE_ADDR="192.0.2.2")
    assert [deliver(endpoint, client=first).status_code for _ in range(2)] == [202, 429]
    assert deliver(endpoint, client=second).status_code == 202


@pytest.mark.parametrize(("choice", "status"), [("open", 202), ("closed", 503)])
def test_without_redis_an_endpoint_does_what_it_says(monkeypatch: pytest.MonkeyPatch, choice: str, status: int) -> None:
    endpoint = make_endpoint(when_redis_is_away=choice, rate_per_minute=1)
    with monkeypatch.context() as patch:
        patch.setattr(rate_limits, "_client", rate_limits.client_of("redis://127.0.0.1:1/0", timeout=0.2))
        patch.setattr(rate_limits, "_script", None)
        assert [deliver(endpoint).status_code for _ in range(2)] == [status, status]


def test_without_postgres_nothing_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = make_endpoint()

    def away(*args: object, **options: object) -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(ingest, "ingest", away)
    response = deliver(endpoint)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "2"


def test_a_key_and_a_signature_together(admin: Any) -> None:
    endpoint = make_endpoint(require_api_key=True)
    assert deliver(endpoint).status_code == 401
    _, reader = keys.create("reader", user=admin, actor="tests", scopes=["read"])
    _, sender = keys.create("sender", user=admin, actor="tests", scopes=["webhooks"])
    assert deliver(endpoint, headers={"x-api-key": reader}).status_code == 403
    assert deliver(endpoint, headers={"x-api-key": sender}).status_code == 202
    assert deliver(endpoint, headers={"authorization": f"Bearer {sender}"}).status_code == 202
    assert deliver(endpoint, headers={"x-api-key": sender}, sign=False).status_code == 401
    admin.is_active = False
    admin.save()
    assert deliver(endpoint, headers={"x-api-key": sender}).status_code == 401


def test_secrets_overlap_while_one_replaces_another() -> None:
    endpoint = make_endpoint()
    old = endpoints.signed_headers(endpoint, b"{}", delivery_id="a")
    new = endpoints.rotate(endpoint, actor="tests", overlap=60)
    post = lambda headers: Client().post(  # noqa: E731
        endpoint.path, b"{}", content_type="application/json", headers=headers
    )
    assert post(old).status_code == 202
    assert deliver(endpoint, {}).status_code == 202
    assert new.secret not in str(list(endpoint.secrets.values()))
    endpoints.rotate(endpoint, actor="tests", overlap=0)
    assert post(old).status_code == 401
    assert endpoint.secrets.count() == 1


def test_the_challenge_of_slack_is_answered_when_it_is_signed() -> None:
    endpoint = make_endpoint(scheme="slack")
    body = {"type": "url_verification", "challenge": "abc"}
    response = deliver(endpoint, body)
    assert (response.status_code, response.json()) == (200, {"challenge": "abc"})
    assert deliver(endpoint, body, sign=False).status_code == 401
    assert Event.objects.count() == 0


def test_what_names_a_delivery() -> None:
    endpoint = make_endpoint("path", dedup_path="order.id")
    assert deliver(endpoint, {"order": {"id": 7}}).status_code == 202
    assert deliver(endpoint, {"order": {"id": 7}, "other": 1}).status_code == 200
    assert deliver(endpoint, {"order": {"id": 8}}).status_code == 202
    body = make_endpoint("body", scheme="bearer", dedup="body")
    assert [deliver(body, {"a": 1}).status_code for _ in range(2)] == [202, 200]
    never = make_endpoint("never", dedup="none")
    assert [deliver(never, {}, delivery_id="m1").status_code for _ in range(2)] == [202, 202]
    keyed = make_endpoint("keyed", scheme="bearer")
    assert [deliver(keyed, {}, headers={"idempotency-key": "k"}).status_code for _ in range(2)] == [202, 200]
    assert [deliver(keyed, {}).status_code for _ in range(2)] == [202, 202]


def test_after_the_window_the_same_key_is_a_new_event() -> None:
    endpoint = make_endpoint(dedup_window=60)
    assert deliver(endpoint, {}, delivery_id="m1").status_code == 202
    assert deliver(endpoint, {}, delivery_id="m1").status_code == 200
    Event.objects.update(received_at=clock.now() - timedelta(seconds=61))
    assert deliver(endpoint, {}, delivery_id="m1").status_code == 202
    assert deliver(endpoint, {}, delivery_id="m1").status_code == 200
    assert Event.objects.count() == 2


def test_the_type_comes_from_where_the_endpoint_says() -> None:
    def type_of(body: Any, headers: dict[str, str] | None = None, **values: Any) -> str:
        endpoint = make_endpoint(f"e{WebhookEndpoint.objects.count()}", **values)
        response = deliver(endpoint, body, headers=headers)
        assert response.status_code == 202, response.content
        return Event.objects.get(pk=UUID(response.json()["event_id"])).type

    assert type_of({"type": "a.b"}) == "a.b"
    assert type_of({"event": "push"}) == "push"
    assert type_of({"type": {"not": "text"}}) == "webhook.received"
    assert type_of([1]) == "webhook.received"
    assert type_of({"action": "opened"}, {"x-github-event": "issues"}, scheme="github") == "issues"
    assert type_of({"kind": {"name": "x"}}, type_from="path:kind.name") == "x"
    assert type_of({}, {"x-kind": "y"}, type_from="header:X-Kind") == "y"
    assert type_of({}, type_from="fixed:z") == "z"


@pytest.mark.parametrize("scheme", [name for name in signatures.SCHEMES if name != "hmac"])
def test_every_scheme_takes_what_the_server_signs_itself(scheme: str) -> None:
    endpoint = make_endpoint(scheme=scheme)
    assert deliver(endpoint, {"a": 1}, delivery_id="d1").status_code == 202
    assert deliver(endpoint, {"a": 1}, sign=False).status_code == 401


def test_an_endpoint_may_answer_with_nothing() -> None:
    endpoint = make_endpoint(response_mode="empty")
    response = deliver(endpoint)
    assert (response.status_code, response.content) == (202, b"")


def test_a_failed_mapping_is_kept_and_can_be_tried_again() -> None:
    endpoint = make_endpoint()
    workflow = make_workflow(
        definition={
            "input": {"type": "object", "required": ["day"], "properties": {"day": {"type": "string"}}},
            "steps": {"work": {"http": {"url": "https://example.org/"}}},
        }
    )
    trigger = make_trigger(endpoint, workflow=workflow, input={"day": "${{ event.data.date }}"})
    response = deliver(endpoint, {"day": "monday"})
    assert response.status_code == 202
    activation = Activation.objects.get()
    assert (activation.state, activation.execution_id) == (ActivationState.FAILED, None)
    assert "input.day" in activation.reason
    lifecycle.update(trigger, {"input": {"day": "${{ event.data.day }}"}}, actor="tests")
    from triggers import activation as activations

    retried = activations.retry(activation.pk, now=clock.now())
    assert retried.state == ActivationState.STARTED
    assert Execution.objects.get().input == {"day": "monday"}


def test_the_door_has_no_other_way_to_fail() -> None:
    endpoint = make_endpoint()

    def unreadable(limit: int) -> bytes:
        raise OSError("the sender went away")

    reply = webhooks.receive(
        webhooks.Delivery(endpoint.token, "POST", {"content-type": "application/json"}, "127.0.0.1", 5, unreadable)
    )
    assert reply.status == 400
    assert SECRET not in str(reply)
