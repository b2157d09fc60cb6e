"""A delivery that the server makes to one of its own endpoints, signed as the sender would, through the same door."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triggers import endpoints, webhooks
from triggers.models import WebhookEndpoint
from triggers.webhooks import Reply


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent (`headers`, names in small letters, the signature among them) and what the door answered."""

    headers: dict[str, str]
    reply: Reply


def send(
    endpoint: WebhookEndpoint,
    body: Any,
    *,
    headers: Mapping[str, Any] | None = None,
    delivery_id: str | None = None,
    address: str = "127.0.0.1",
) -> Sent:
    """Deliver a JSON value. It really happens: the event is stored, and what takes it starts.

    Args:
        headers: further ones; those of the signature win.
        delivery_id: a fresh one when left out.
        address: from where it is said to come, for `allowed_networks`.

    Raises:
        Conflict: the endpoint has no secret that can sign.
    """
    raw = json.dumps(body).encode()
    signed = endpoints.signed_headers(endpoint, raw, delivery_id=delivery_id)
    sent = {str(name).lower(): str(value) for name, value in (headers or {}).items()}
    sent |= {name.lower(): value for name, value in signed.items()} | {"content-type": "application/json"}
    delivery = webhooks.Delivery(
        token=endpoint.token,
        method=endpoint.methods[0],
        headers=sent,
        address=address,
        length=len(raw),
        read=io.BytesIO(raw).read,
    )
    return Sent(sent, webhooks.receive(delivery))
