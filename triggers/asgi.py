"""The door for webhooks under an ASGI server, beside Django's own handler.

Django's middleware costs a hop between threads for each of its steps, several milliseconds in all, and takes a body
of any size to the disk before a view sees it. This application reads no more than an endpoint takes, gives up on
senders that are too slow, and hands the rest to `triggers.webhooks.receive` in one of a few threads that keep to
Django's rules for database connections.
"""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from django.conf import settings
from django.db import close_old_connections, reset_queries

from execution import engine
from scheduling_project.common.logs import get_logger
from scheduling_project.common.problems import MEDIA_TYPE, problem
from triggers import ingest, webhooks
from triggers.addresses import of_request
from triggers.webhooks import Reply

log = get_logger(__name__)

PREFIX: Final = "/hooks/"
THREADS: Final = 8
#: No endpoint takes more (`WebhookEndpoint.max_body_bytes`).
MAX_BODY: Final = 5_242_880
BODY_SECONDS: Final = 20.0
REHEARSAL_SECONDS: Final = 10.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="hooks")


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request below ``/hooks/``."""
    headers = _headers(scope)
    try:
        reply = _refused_transport(scope, headers)
        if reply is None:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(headers, receive)
            loop = asyncio.get_running_loop()
            reply = await loop.run_in_executor(_threads, _receive, scope, headers, body)
    except TimeoutError:
        reply = Reply(408, problem(408, "timeout", "The body did not come in time."))
    except ConnectionError:
        return  # the sender went away
    await _send(send, reply)


def warm_up() -> list[Future[None]]:
    """Have every thread open its connection and plan its statement before the first deliveries come."""
    together = threading.Barrier(THREADS)
    return [_threads.submit(_rehearse, together) for _ in range(THREADS)]


def _rehearse(together: threading.Barrier) -> None:
    try:
        together.wait(REHEARSAL_SECONDS)  # each in a thread of its own
        ingest.rehearse(using=engine.alias())
    except (threading.BrokenBarrierError, *webhooks.DATABASE_AWAY) as error:
        log.warning("webhook.not_warm", error=str(error).strip())
    finally:
        close_old_connections()


def _receive(scope: Scope, headers: dict[str, str], body: bytes | None) -> Reply:
    reset_queries()
    close_old_connections()
    token = scope["path"][len(PREFIX) :].removesuffix("/")
    client = scope.get("client") or ("",)
    meta = {"REMOTE_ADDR": client[0], "HTTP_X_FORWARDED_FOR": headers.get("x-forwarded-for", "")}
    delivery = webhooks.Delivery(
        token=token,
        method=scope["method"],
        headers=headers,
        address=of_request(meta, behind_proxy=settings.SECURE_PROXY_SSL_HEADER is not None),
        length=MAX_BODY + 1 if body is None else len(body),
        read=io.BytesIO(body or b"").read,
        query=scope.get("query_string", b"").decode("latin-1"),
    )
    try:
        return webhooks.receive(delivery)
    except Exception as error:
        log.error("webhook.failed", exc_info=error)
        return Reply(500, problem(500, "internal", "This should not have happened; it has been logged."))
    finally:
        close_old_connections()


async def _body(headers: dict[str, str], receive: Receive) -> bytes | None:
    """The body; None as soon as it is known to be larger than any endpoint takes."""
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 10 or int(length) > MAX_BODY):
        return None
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the sender went away")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _refused_transport(scope: Scope, headers: dict[str, str]) -> Reply | None:
    """Deployments that redirect to HTTPS take no deliveries without it: a redirect would lose the body."""
    if not settings.SECURE_SSL_REDIRECT:
        return None
    scheme = scope.get("scheme", "http")
    if settings.SECURE_PROXY_SSL_HEADER is not None:
        scheme = headers.get("x-forwarded-proto", scheme)
    if scheme == "https":
        return None
    return Reply(403, problem(403, "forbidden", "Deliveries come over HTTPS."))


def _headers(scope: Scope) -> dict[str, str]:
    """Names in small letters; several of one name joined by commas, as HTTP does (RFC 9110, section 5.3)."""
    found: dict[str, str] = {"content-type": ""}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]},{value}" if found.get(name) else value
    return found


async def _send(send: Send, reply: Reply) -> None:
    body = b"" if reply.body is None else json.dumps(reply.body).encode()
    media = MEDIA_TYPE if reply.status >= 400 else "application/json"
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    headers.append((b"x-content-type-options", b"nosniff"))
    if reply.status != 204:
        headers.append((b"content-length", str(len(body)).encode()))
    if body:
        headers.append((b"content-type", media.encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
