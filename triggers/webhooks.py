"""The door for webhook deliveries: one function from a request to an answer, in a fixed order.

Route, size, limiter on failed authentication, signature and key, rate, parse, store. Nothing is parsed before it is
known who sent it, and no answer is 2xx before what it stands for is committed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db import DatabaseError, InterfaceError

from execution import engine
from scheduling_project.common import rate_limits
from scheduling_project.common.errors import DomainError
from scheduling_project.common.problems import RETRY_AFTER_SECONDS, problem
from scheduling_project.common.rate_limits import Answer, Rate
from triggers import addresses, catalog, delivery_log, ingest, payloads, signatures
from triggers.arrivals import Arrival, Sender
from triggers.auth import failures, keys
from triggers.catalog import Endpoint, Key
from triggers.event_rows import Receipt
from triggers.states import DeliveryOutcome, EndpointState, ResponseMode

PAUSED_RETRY_SECONDS: Final = 60
TOO_MANY_FAILURES: Final = "too many failed authentications"
DATABASE_AWAY: Final = (DatabaseError, InterfaceError)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request, as the web server tells it. `headers`: names in small letters. `read`: up to so many bytes."""

    token: str
    method: str
    headers: Mapping[str, str]
    address: str
    length: int
    read: Callable[[int], bytes]
    query: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered; `body` None means none at all."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The delivery becomes no event; `reply` says so to the sender, `reason` to the delivery log."""

    def __init__(self, reply: Reply, outcome: DeliveryOutcome | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.reply = reply
        self.outcome = outcome
        self.reason = reason


def receive(delivery: Delivery) -> Reply:
    """Take a delivery. Every way it can end is a reply; only a bug is an exception."""
    endpoint: Endpoint | None = None
    body = b""
    using = engine.alias()
    try:
        endpoint = catalog.current(using=using).endpoints.get(delivery.token)
        if endpoint is None:
            return _problem(404, "not_found", "There is nothing at this address.")
        _admit(endpoint, delivery)
        if delivery.method == "OPTIONS":
            raise Refused(_handshake(endpoint, delivery), DeliveryOutcome.HANDSHAKE, "asked whether it may deliver")
        body = _read(endpoint, delivery)
        now = catalog.moment(using=using)
        sender, delivery_id = _authenticate(endpoint, delivery, body, now)
        _limit(endpoint, sender)
        arrivals = _parse(endpoint, delivery, body, delivery_id)
        challenge = _challenge(endpoint, arrivals)
        if challenge is not None:
            raise Refused(challenge, DeliveryOutcome.HANDSHAKE, "the sender's challenge was answered")
        receipts = [
            receipt
            for arrival in arrivals
            if (receipt := ingest.ingest(arrival, sender=sender, endpoint=endpoint, now=now, using=using)) is not None
        ]
        return _accepted(endpoint, receipts, is_batch=_is_batch(delivery))
    except Refused as refusal:
        if endpoint is not None and refusal.outcome is not None:
            _note(endpoint, refusal, delivery, len(body))
        return refusal.reply
    except DATABASE_AWAY:
        return _problem(503, "unavailable", "The database is away or busy; send it again.", RETRY_AFTER_SECONDS)


def _admit(endpoint: Endpoint, delivery: Delivery) -> None:
    """What can be said before the body is read."""
    if endpoint.state == EndpointState.RETIRED:
        raise Refused(_problem(410, "gone", "This endpoint is retired."), DeliveryOutcome.GONE, "retired")
    if endpoint.state == EndpointState.PAUSED:
        reply = _problem(503, "paused", "This endpoint is paused; send it later.", PAUSED_RETRY_SECONDS)
        raise Refused(reply, DeliveryOutcome.UNAVAILABLE, "paused")
    if endpoint.networks and not addresses.is_in(delivery.address, endpoint.networks):
        reply = _problem(403, "forbidden", "Deliveries from this address are not taken.")
        raise Refused(reply, DeliveryOutcome.FORBIDDEN, "address not allowed")
    if delivery.method not in endpoint.methods and delivery.method != "OPTIONS":
        allow = ", ".join(endpoint.methods)
        reply = _problem(405, "method_not_allowed", f"Deliveries come by {allow}.")
        reply = Reply(reply.status, reply.body, {"Allow": allow})
        raise Refused(reply, DeliveryOutcome.MALFORMED, f"came by {delivery.method[:20]}")


def _handshake(endpoint: Endpoint, delivery: Delivery) -> Reply:
    """CloudEvents' abuse protection: an origin asks whether it may deliver (HTTP 1.1 Web Hooks 1.0.2, section 4)."""
    headers = {"Allow": ", ".join(endpoint.methods)}
    if delivery.headers.get("webhook-request-origin"):
        headers["WebHook-Allowed-Origin"] = "*"
        headers["WebHook-Allowed-Rate"] = str(endpoint.rate_per_minute or "*")
    return Reply(204, None, headers)


def _read(endpoint: Endpoint, delivery: Delivery) -> bytes:
    limit = endpoint.max_body_bytes
    if delivery.length <= limit:
        try:
            body = delivery.read(limit + 1)
        except OSError:  # the sender went away, or Django's UnreadablePostError
            reply = _problem(400, "malformed", "The body could not be read.")
            raise Refused(reply, DeliveryOutcome.MALFORMED, "the body could not be read") from None
        if len(body) <= limit:
            return body
    reply = _problem(413, "too_large", f"Deliveries have at most {limit} bytes.")
    raise Refused(reply, DeliveryOutcome.TOO_LARGE, f"more than {limit} bytes")


def _authenticate(endpoint: Endpoint, delivery: Delivery, body: bytes, now: datetime) -> tuple[Sender, str | None]:
    """Who it is from, and the delivery id if the signature covers it."""
    limiter = f"auth:{endpoint.id}:{delivery.address}"
    _hold(endpoint, lambda: failures.look(limiter, may_remember=endpoint.fails_open), TOO_MANY_FAILURES)
    verdict = signatures.verify(
        endpoint.scheme,
        headers=delivery.headers,
        body=body,
        secrets=endpoint.valid_secrets(now),
        now=now,
        config=endpoint.config,
    )
    key = _key(endpoint, delivery, now) if endpoint.require_api_key and verdict.ok else None
    if not verdict.ok or (endpoint.require_api_key and key is None):
        _hold(endpoint, lambda: failures.count(limiter), TOO_MANY_FAILURES)
        reason = verdict.reason.value if not verdict.ok else "no valid API key"
        reply = _problem(401, "not_authenticated", "The delivery could not be authenticated.")
        raise Refused(reply, DeliveryOutcome.UNAUTHENTICATED, reason)
    if key is not None and not keys.allows(key, "webhooks"):
        reply = _problem(403, "forbidden", "The API key lacks the scope webhooks.")
        raise Refused(reply, DeliveryOutcome.FORBIDDEN, f"key {key.prefix} lacks the scope webhooks")
    sender = Sender(
        name=delivery.address or endpoint.slug,
        method="signature",
        key_prefix="" if key is None else key.prefix,
        scopes=frozenset() if key is None else key.scopes,
        endpoint=endpoint.slug,
    )
    return sender, verdict.delivery_id


def _key(endpoint: Endpoint, delivery: Delivery, now: datetime) -> Key | None:
    text = delivery.headers.get("x-api-key", "").strip()
    if not text:
        kind, _, rest = delivery.headers.get("authorization", "").partition(" ")
        text = rest.strip() if kind.lower() in {"bearer", "api-key"} else ""
    using = engine.alias()
    key = keys.recognise(text, now=now, address=delivery.address, using=using)
    if key is None or not keys.has_active_user(key, using=using):
        return None
    keys.touch(key, now=now, using=using)
    return key


def _limit(endpoint: Endpoint, sender: Sender) -> None:
    if endpoint.caller_rate_per_minute is not None:
        per_minute = endpoint.caller_rate_per_minute
        rate = Rate(per_minute, 60, max(1, per_minute // 10))
        caller = sender.key_prefix or sender.name
        _hold(endpoint, lambda: rate_limits.take(f"hook:{endpoint.id}:{caller}", rate), "the caller's rate is used up")
    if endpoint.rate_per_minute is not None:
        whole = Rate(endpoint.rate_per_minute, 60, endpoint.burst)
        _hold(endpoint, lambda: rate_limits.take(f"hook:{endpoint.id}", whole), "the endpoint's rate is used up")


def _hold(endpoint: Endpoint, ask: Callable[[], Answer], what: str) -> None:
    """Let it pass if the limiter that is asked allows it."""
    try:
        answer = ask()
    except rate_limits.RedisAway:
        if endpoint.fails_open:
            return
        reply = _problem(503, "unavailable", "Limits cannot be counted at the moment.", RETRY_AFTER_SECONDS)
        raise Refused(reply, DeliveryOutcome.UNAVAILABLE, "Redis is away, and the endpoint fails closed") from None
    if not answer.allowed:
        wait = max(1, math.ceil(answer.retry_after))
        raise Refused(_problem(429, "throttled", f"Too many requests: {what}.", wait), DeliveryOutcome.LIMITED, what)


def _parse(endpoint: Endpoint, delivery: Delivery, body: bytes, delivery_id: str | None) -> list[Arrival]:
    try:
        arrivals = payloads.read(
            body,
            headers=delivery.headers,
            reading=endpoint.reading,
            delivery_id=delivery_id,
            query=delivery.query,
            secret_headers=endpoint.credential_headers,
        )
    except DomainError as error:
        reply = Reply(error.status, problem(error.status, error.code, error.message, errors=error.fields))
        raise Refused(reply, DeliveryOutcome.MALFORMED, str(error)) from None
    return arrivals


def _challenge(endpoint: Endpoint, arrivals: list[Arrival]) -> Reply | None:
    """Slack's handshake (docs.slack.dev/reference/events/url_verification): signed, answered, not an event."""
    if endpoint.scheme != "slack" or len(arrivals) != 1:
        return None
    data = arrivals[0].data
    if not isinstance(data, dict) or data.get("type") != "url_verification":
        return None
    challenge = data.get("challenge")
    return Reply(200, {"challenge": challenge if isinstance(challenge, str) else ""})


def _is_batch(delivery: Delivery) -> bool:
    return delivery.headers.get("content-type", "").lower().startswith("application/cloudevents-batch")


def _accepted(endpoint: Endpoint, receipts: list[Receipt], *, is_batch: bool) -> Reply:
    status = 202 if not receipts or any(not receipt.duplicate for receipt in receipts) else 200
    if endpoint.response_mode == ResponseMode.EMPTY:
        return Reply(status)
    if not is_batch:
        return Reply(status, receipts[0].as_json())
    found = [receipt.as_json() for receipt in receipts]
    return Reply(
        status,
        {
            "events": found,
            "event_ids": [one["event_id"] for one in found],
            "activation_ids": [name for one in found for name in one["activation_ids"]],
            "execution_ids": [name for one in found for name in one["execution_ids"]],
        },
    )


def _note(endpoint: Endpoint, refusal: Refused, delivery: Delivery, size: int) -> None:
    assert refusal.outcome is not None
    try:
        delivery_log.note(
            endpoint.id,
            endpoint.slug,
            refusal.outcome,
            status=refusal.reply.status,
            reason=refusal.reason,
            sender=delivery.address,
            now=catalog.moment(using=engine.alias()),
            size=size or max(0, delivery.length),
        )
    except DATABASE_AWAY:
        return  # the sender is answered all the same


def _problem(status: int, code: str, detail: str, retry_after: int | None = None) -> Reply:
    return Reply(
        status, problem(status, code, detail), {} if retry_after is None else {"Retry-After": str(retry_after)}
    )
