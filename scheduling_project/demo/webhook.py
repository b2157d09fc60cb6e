"""A signed delivery to the demo's endpoint: as a line for a shell, or made at once."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from typing import Any

from scheduling_project.common.errors import NotFound
from scheduling_project.demo.schedules import ENDPOINT
from triggers import endpoints, self_delivery
from triggers.models import WebhookEndpoint
from triggers.self_delivery import Sent


def order(now: datetime, *, product: str = "tea", units: int = 2) -> dict[str, Any]:
    """An order of a shop; its number tells when it was written."""
    return {"type": "order.placed", "order_id": f"web-{now:%H%M%S%f}"[:-3], "product": product, "units": units}


def endpoint() -> WebhookEndpoint:
    """The demo's endpoint.

    Raises:
        NotFound: somebody has deleted it.
    """
    found = WebhookEndpoint.objects.filter(slug=ENDPOINT).first()
    if found is None:
        raise NotFound(f"There is no endpoint {ENDPOINT}: manage.py demo seed makes it.")
    return found


def curl_line(base_url: str, *, now: datetime) -> str:
    """One line that delivers an order, signed now. The signature is good for five minutes, and for this order only.

    Raises:
        NotFound: there is no such endpoint.
        Conflict: it has no secret that can sign.
    """
    door = endpoint()
    body = json.dumps(order(now), separators=(",", ":"))
    headers = {"content-type": "application/json", **endpoints.signed_headers(door, body.encode())}
    options = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items())
    return f"curl -sS {options} --data-binary {shlex.quote(body)} {shlex.quote(base_url.rstrip('/') + door.path)}"


def deliver(*, now: datetime) -> Sent:
    """Deliver an order through the same door, from here.

    Raises:
        NotFound, Conflict: as `curl_line`.
    """
    return self_delivery.send(endpoint(), order(now))
