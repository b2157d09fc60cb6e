"""Requests made up from the API's own OpenAPI document: no answer may be a 500, unlisted, or unlike its schema."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, settings
from rest_framework_simplejwt.tokens import AccessToken
from schemathesis.checks import load_all_checks

from execution.models import Workflow
from tests import factories
from triggers import catalog, endpoints, event_types, ingest, lifecycle, replay, webhooks
from triggers.auth import keys
from triggers.models import Event

load_all_checks()

COVERED = tuple(
    f"/api/{name}"
    for name in (
        "workflows",
        "executions",
        "dead-letters",
        "queues",
        "processes",
        "resources",
        "audit",
        "schedules",
        "triggers",
        "activations",
        "webhooks",
        "events",
        "event-types",
        "api-keys",
        "notifications",
    )
)


@functools.cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    # Who may come in has tests of its own; made-up credentials would only be refused.
    del found["components"]["securitySchemes"]
    for operations in found["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    found["paths"] = {path: operations for path, operations in found["paths"].items() if path.startswith(COVERED)}
    return found


schema = schemathesis.openapi.from_dict(document())
schema.config.generation.update(modes=[schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
# A document that fits the schema may still name a workflow that is not there, or a cron expression that is none.
schema.config.checks.positive_data_acceptance.expected_statuses = ["2xx", "400", "404", "409", "412", "422"]
application = get_wsgi_application()


@pytest.fixture
def keep_connections() -> Iterator[None]:
    """As Django's own test client does: a request must not close the connection that the test's transaction is on."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def make_events(workflow: Workflow, user: User) -> None:
    """A row of each kind that triggers know, so that lists are held to their shapes."""
    catalog.expire_now()
    made = lifecycle.subscribe("shop", workflow=workflow, actor="ada", events=["order.*"], filters={"n": [1]})
    lifecycle.create("broken", workflow=workflow, actor="ada", event_types=["a"], input="${{ abs(event.data) }}")
    event_types.register("a", actor="ada", schema={"type": "string"}, example="b")
    receipt = ingest.publish_event("a", "b", id="1")
    replay.replay(Event.objects.get(pk=receipt.event_id), actor="ada")
    keys.create("machine", user=user, actor="ada")
    body = b'{"type": "order.paid", "n": 1}'
    headers = {name.lower(): text for name, text in endpoints.signed_headers(made.endpoint, body).items()}
    for length in (len(body), 10**9):
        webhooks.receive(
            webhooks.Delivery(made.endpoint.token, "POST", headers, "127.0.0.1", length, BytesIO(body).read)
        )


@schema.parametrize()
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_no_made_up_request_finds_a_fault(db: None, keep_connections: None, case: schemathesis.Case) -> None:
    user, _ = User.objects.get_or_create(username="ada", is_superuser=True)
    if not factories.Workflow.objects.exists():
        letter = factories.make_dead_letter()
        factories.make_step_run(factories.make_execution(letter.workflow))
        make_events(letter.workflow, user)
    case.headers = {**(case.headers or {}), "Authorization": f"Bearer {AccessToken.for_user(user)}"}
    case.call_and_validate(app=application)
