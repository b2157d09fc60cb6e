"""CloudEvents over HTTP: the handshake, structured, binary and batch, and what breaks a rule."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.factories import make_workflow
from tests.triggers.conftest import deliver, make_endpoint
from triggers import lifecycle
from triggers.models import Event, WebhookEndpoint

pytestmark = pytest.mark.django_db


def make_trigger(endpoint: WebhookEndpoint | None, name: str = "on-order", **values: Any) -> Any:
    workflow = values.pop("workflow", None) or make_workflow()
    return lifecycle.create(name, workflow=workflow, endpoint=endpoint, actor="tests", **values)


def test_cloudevents_ask_whether_they_may_deliver() -> None:
    endpoint = make_endpoint(rate_per_minute=120)
    response = Client().options(endpoint.path, headers={"webhook-request-origin": "events.example.org"})
    assert response.status_code == 204
    assert response.headers["WebHook-Allowed-Origin"] == "*"
    assert response.headers["WebHook-Allowed-Rate"] == "120"


CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "A1",
    "source": "/shop",
    "type": "order.paid",
    "subject": "42",
    "time": "2026-03-01T09:00:00Z",
    "tenant": "blue",
    "data": {"total": 5},
}


def test_a_structured_cloudevent_keeps_its_attributes() -> None:
    endpoint = make_endpoint()
    make_trigger(endpoint, pattern={"extensions": {"tenant": ["blue"]}, "source": ["/shop"]})
    response = deliver(endpoint, CLOUD_EVENT, content_type="application/cloudevents+json")
    assert response.status_code == 202
    event = Event.objects.get()
    assert (event.type, event.source, event.subject, event.data) == ("order.paid", "/shop", "42", {"total": 5})
    assert event.time.isoformat() == "2026-03-01T09:00:00+00:00"
    assert event.extensions == {"tenant": "blue"}
    assert len(response.json()["execution_ids"]) == 1
    repeat = deliver(endpoint, CLOUD_EVENT, content_type="application/cloudevents+json; charset=utf-8")
    assert repeat.status_code == 200


def test_a_binary_cloudevent_has_its_attributes_in_headers() -> None:
    endpoint = make_endpoint()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/shop",
        "ce-type": "order.paid",
        "ce-subject": "%C3%A4",
    }
    assert deliver(endpoint, {"a": 1}, headers=headers).status_code == 202
    event = Event.objects.get()
    assert (event.type, event.subject, event.data) == ("order.paid", "ä", {"a": 1})
    assert deliver(endpoint, {"a": 1}, headers={**headers, "ce-specversion": "0.3"}).status_code == 400


def test_a_batch_of_cloudevents_is_one_delivery_of_several_events() -> None:
    endpoint = make_endpoint()
    make_trigger(endpoint)
    batch = [{**CLOUD_EVENT, "id": str(number)} for number in range(3)]
    response = deliver(endpoint, batch, content_type="application/cloudevents-batch+json")
    assert response.status_code == 202
    assert len(response.json()["event_ids"]) == len(set(response.json()["execution_ids"])) == 3
    again = deliver(endpoint, batch, content_type="application/cloudevents-batch+json")
    assert again.status_code == 200
    assert again.json()["execution_ids"] == response.json()["execution_ids"]
    assert deliver(endpoint, [], content_type="application/cloudevents-batch+json").status_code == 202


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"source": 5}, "source"),
        ({"type": "x" * 300}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-02-30T09:00:00Z"}, "time"),
        ({"Bad-Name": "x"}, "Bad-Name"),
        ({"tenant": {"a": 1}}, "tenant"),
        ({"data_base64": "AAAA"}, "data_base64"),
        ({"subject": "a\nb"}, "subject"),
    ],
)
def test_a_cloudevent_that_breaks_a_rule_gets_400_with_the_field(change: dict[str, Any], field: str) -> None:
    endpoint = make_endpoint()
    response = deliver(endpoint, {**CLOUD_EVENT, **change}, content_type="application/cloudevents+json")
    assert response.status_code == 400
    assert field in response.json()["errors"]
