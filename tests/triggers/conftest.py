"""What the tests of triggers share: nothing in memory from the test before, and short ways to rows and requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from scheduling_project.common import rate_limits
from triggers import catalog, delivery_log, endpoints, signatures
from triggers.auth import failures
from triggers.models import WebhookEndpoint


@pytest.fixture(autouse=True)
def fresh_memory() -> Iterator[None]:
    """Forget what the process keeps: a rolled-back test must not be remembered by the next."""
    catalog.expire_now()
    delivery_log.forget()
    failures.forget()
    rate_limits.reset()
    yield
    catalog.expire_now()


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("ada", password="analytical-engine")


@pytest.fixture
def api(admin: User) -> Client:
    """A client that is logged in, by session."""
    client = Client(headers={"content-type": "application/json"})
    client.force_login(admin)
    return client


SECRET = "whsec_" + "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g="


def make_endpoint(slug: str = "shop", **values: Any) -> WebhookEndpoint:
    secret = values.pop("secret", None)
    if secret is None and values.get("scheme", "standard") in {"standard", "svix"}:
        secret = SECRET
    made = endpoints.create(slug, actor="tests", secret=secret, **values)
    return made.endpoint


def deliver(
    endpoint: WebhookEndpoint,
    body: Any = None,
    *,
    delivery_id: str | None = None,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
    sign: bool = True,
    client: Client | None = None,
) -> Any:
    """Deliver as the endpoint's sender would, signed now."""
    raw = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    signed = endpoints.signed_headers(endpoint, raw, delivery_id=delivery_id) if sign else {}
    return (client or Client()).post(
        endpoint.path, raw, content_type=content_type, headers={**signed, **(headers or {})}
    )


__all__ = ["SECRET", "deliver", "make_endpoint", "signatures"]
