"""The admin's pages of this app: they answer, the verbs do what they say, refusals are told."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from execution.admin import shown
from execution.models import Execution
from tests.factories import make_workflow
from tests.triggers.conftest import deliver, make_endpoint
from triggers import lifecycle
from triggers.models import Activation, ApiKey, Delivery, Event, Trigger, WebhookEndpoint

pytestmark = pytest.mark.django_db

MODELS = ("trigger", "webhookendpoint", "event", "activation", "delivery", "apikey")


@pytest.fixture
def site(admin: Any) -> Client:
    client = Client()
    client.force_login(admin)
    return client


def verb(site: Client, subject: Any, name: str, /, **values: Any) -> Any:
    kind = type(subject)._meta.model_name
    url = reverse(f"admin:triggers_{kind}_verb", args=[subject.pk, name])
    return site.post(url, {f"{name}-{field}": value for field, value in values.items()}, follow=True)


def test_every_page_answers(site: Client) -> None:
    endpoint = make_endpoint()
    lifecycle.create("t", workflow=make_workflow(), endpoint=endpoint, actor="x", throttle={"limit": 9, "period": 1})
    deliver(endpoint, {"a": "<script>"})
    deliver(endpoint, sign=False)
    site.post(reverse("admin:triggers_apikey_add"), {"create-name": "k", "create-scopes": ["read"]})
    for name in MODELS:
        listed = site.get(reverse(f"admin:triggers_{name}_changelist"))
        assert listed.status_code == 200, name
        add = site.get(reverse(f"admin:triggers_{name}_add"))
        assert add.status_code == (200 if name in {"trigger", "webhookendpoint", "apikey"} else 403)
    for subject in (
        Trigger.objects.get(),
        endpoint,
        Event.objects.get(),
        Activation.objects.get(),
        Delivery.objects.earliest("pk"),
        ApiKey.objects.get(),
    ):
        page = site.get(shown.page_of(subject))
        assert page.status_code == 200, subject
        assert b"<script>&quot;" not in page.content
    assert site.get(reverse("admin:triggers_activation_changelist") + "?state__exact=started").status_code == 200
    assert site.get(reverse("admin:triggers_delivery_changelist") + "?outcome__exact=accepted").status_code == 200


def test_a_trigger_is_made_changed_paused_tested_and_deleted(site: Client) -> None:
    workflow = make_workflow()
    add = reverse("admin:triggers_trigger_add")
    values = {"create-name": "t", "create-workflow": str(workflow.pk), "create-event_types": ""}
    assert site.post(add, values).status_code == 400
    site.post(add, {**values, "create-event_types": "a.*, b", "create-pattern": '{"data": {"n": [1]}}'})
    trigger = Trigger.objects.get()
    assert trigger.event_types == ["a.*", "b"]
    assert "would not take" in verb(site, trigger, "test", type="a.x", data="{}").content.decode()
    verb(site, trigger, "test", type="a.x", data='{"n": 1}')
    assert Execution.objects.count() == 1
    verb(site, trigger, "edit", workflow=str(workflow.pk), event_types="c", pattern="")
    verb(site, trigger, "flow", throttle='{"limit": 1, "period": 60}', description="x")
    verb(site, trigger, "pause", note="loud")
    trigger.refresh_from_db()
    assert (trigger.event_types, trigger.pattern, trigger.enabled) == (["c"], {}, False)
    assert trigger.throttle == {"limit": 1, "period": 60}
    assert b"loud" in site.get(shown.page_of(trigger)).content
    verb(site, trigger, "resume")
    verb(site, trigger, "delete", name="other")
    assert Trigger.objects.exists()
    verb(site, trigger, "delete", name="t")
    assert not Trigger.objects.exists()


def test_an_endpoint_is_made_and_its_secret_shown_once(site: Client) -> None:
    add = reverse("admin:triggers_webhookendpoint_add")
    assert site.post(add, {"create-slug": "NO", "create-scheme": "github"}).status_code == 400
    page = site.post(add, {"create-slug": "repo", "create-scheme": "github"}, follow=True)
    assert b"Its secret is" in page.content
    endpoint = WebhookEndpoint.objects.get()
    assert b"Its secret is" not in site.get(shown.page_of(endpoint)).content
    assert b"new secret is" in verb(site, endpoint, "rotate", overlap=60).content
    verb(site, endpoint, "settings", description="d", rate_per_minute=5, max_body_bytes=10)
    verb(site, endpoint, "pause", note="")
    endpoint.refresh_from_db()
    assert (endpoint.state, endpoint.rate_per_minute, endpoint.max_body_bytes) == ("paused", 5, 10)
    verb(site, endpoint, "resume")
    verb(site, endpoint, "retire", note="gone")
    endpoint.refresh_from_db()
    assert endpoint.state == "retired"


def test_events_are_replayed_and_failed_activations_decided(site: Client) -> None:
    workflow = make_workflow(
        definition={
            "input": {"type": "object", "required": ["day"]},
            "steps": {"work": {"http": {"url": "https://example.org/"}}},
        }
    )
    trigger = lifecycle.create("t", workflow=workflow, endpoint=make_endpoint(), actor="x")
    deliver(WebhookEndpoint.objects.get(), {})
    verb(site, Event.objects.get(), "replay")
    first, second = Activation.objects.order_by("pk")
    assert b"is required" in verb(site, first, "retry").content
    lifecycle.update(trigger, {"input": {"day": "${{ sum(event.type) }}"}}, actor="x")
    assert b"It fails again" in verb(site, first, "retry").content
    lifecycle.update(trigger, {"input": {"day": "monday"}}, actor="x")
    verb(site, first, "retry")
    verb(site, second, "discard", note="n")
    assert list(Activation.objects.order_by("pk").values_list("state", flat=True)) == ["started", "discarded"]


def test_keys_are_made_and_revoked(site: Client) -> None:
    add = reverse("admin:triggers_apikey_add")
    page = site.post(add, {"create-name": "ci", "create-scopes": ["read", "events"]}, follow=True)
    assert b"The key is wk_" in page.content
    key = ApiKey.objects.get()
    verb(site, key, "revoke", note="")
    key.refresh_from_db()
    assert key.revoked_at is not None
