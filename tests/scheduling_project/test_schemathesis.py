"""Requests made up from the API's own OpenAPI document: no answer may be a 500, unlisted, or unlike its schema."""

from __future__ import annotations

import functools
from collections.abc import Iterator
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

from tests import factories

load_all_checks()

COVERED = tuple(
    f"/api/{name}" for name in ("workflows", "executions", "dead-letters", "queues", "processes", "audit", "schedules")
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


@schema.parametrize()
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_no_made_up_request_finds_a_fault(db: None, keep_connections: None, case: schemathesis.Case) -> None:
    user, _ = User.objects.get_or_create(username="ada", is_superuser=True)
    if not factories.Workflow.objects.exists():
        letter = factories.make_dead_letter()
        factories.make_step_run(factories.make_execution(letter.workflow))
    case.headers = {**(case.headers or {}), "Authorization": f"Bearer {AccessToken.for_user(user)}"}
    case.call_and_validate(app=application)
