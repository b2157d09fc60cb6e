"""The door under an ASGI server: bodies that are too large, too slow or never end; what a bug answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from structlog.testing import capture_logs

from execution import engine
from tests.triggers.conftest import make_endpoint
from triggers import asgi, catalog, endpoints, webhooks
from triggers.models import Delivery, Event, WebhookEndpoint

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def closed_threads() -> Iterator[None]:
    """The door's threads must not keep connections to a database that is about to be flushed."""
    yield
    together = threading.Barrier(asgi.THREADS)  # one deed in each thread

    def close() -> None:
        together.wait()
        connections.close_all()

    for deed in [asgi._threads.submit(close) for _ in range(asgi.THREADS)]:
        deed.result()


def call(
    endpoint: WebhookEndpoint,
    *parts: bytes,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    scheme: str = "http",
    after: str = "",
) -> tuple[int, dict[str, str], Any]:
    """One request in so many parts; `after` is what follows on them: nothing, ``hang`` or ``disconnect``."""
    body = b"".join(parts)
    signed = {**endpoints.signed_headers(endpoint, body), "content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": endpoint.path + "/",
        "query_string": b"",
        "scheme": scheme,
        "client": ("192.0.2.1", 1234),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in signed.items()],
    }
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if not after:
        waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        if after == "hang":
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asgi.application(scope, receive, send))
    if not sent:
        return 0, {}, None
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    content = sent[1]["body"]
    return sent[0]["status"], found, json.loads(content) if content else None


def test_a_delivery_in_parts_is_taken_once() -> None:
    endpoint = make_endpoint()
    status, headers, answer = call(endpoint, b'{"a"', b": 1}")
    assert status == 202
    assert headers["x-content-type-options"] == "nosniff"
    event = Event.objects.get(pk=answer["event_id"])
    assert (event.data, event.producer) == ({"a": 1}, "192.0.2.1")


def test_a_bug_is_logged_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(delivery: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(webhooks, "receive", broken)
    status, _, answer = call(make_endpoint(), b"{}")
    assert (status, answer["code"]) == (500, "internal")
    assert "secret" not in json.dumps(answer)


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    endpoint = make_endpoint()
    assert call(endpoint, b"{}", headers={"content-length": "99999999999999"})[0] == 413
    assert call(endpoint, *[b"x" * 1_000_000] * 6, after="hang")[0] == 413
    assert call(endpoint, b"x" * 2_000_000)[0] == 413


def test_a_sender_that_is_too_slow_or_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    endpoint = make_endpoint()
    assert call(endpoint, b"{", after="hang")[0] == 408
    assert call(endpoint, b"{", after="disconnect")[0] == 0
    assert Event.objects.count() == 0


def test_deployments_with_https_take_nothing_without_it(settings: Any) -> None:
    endpoint = make_endpoint()
    settings.SECURE_SSL_REDIRECT = True
    assert call(endpoint, b"{}")[0] == 403
    assert call(endpoint, b"{}", scheme="https")[0] == 202
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert call(endpoint, b"{}", headers={"x-forwarded-proto": "http"}, scheme="https")[0] == 403
    proxied = {"x-forwarded-proto": "https", "x-forwarded-for": "10.9.9.9, 198.51.100.7"}
    assert call(endpoint, b"{}", headers=proxied)[0] == 202
    assert Event.objects.order_by("pk").last().producer == "198.51.100.7"  # type: ignore[union-attr]


def test_an_endpoint_without_words_and_a_question_by_options() -> None:
    endpoint = make_endpoint(response_mode="empty")
    assert call(endpoint, b"{}")[::2] == (202, None)
    status, headers, _ = call(endpoint, method="OPTIONS", headers={"webhook-request-origin": "x"})
    assert (status, headers["webhook-allowed-origin"]) == (204, "*")


def life(*messages: str) -> list[str]:
    """What the whole application answers to the server's messages about its life."""
    from scheduling_project.asgi import application

    waiting, sent = [{"type": f"lifespan.{message}"} for message in messages], []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(application({"type": "lifespan"}, receive, send))
    return sent


def test_the_threads_are_ready_when_the_first_deliveries_come_and_nothing_is_stored_for_it() -> None:
    assert life("startup", "shutdown") == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    together = threading.Barrier(asgi.THREADS)
    planned = """SELECT count(*) AS n FROM pg_prepared_statements
        WHERE statement LIKE '%%INSERT INTO triggers_event%%' AND statement NOT LIKE '%%pg_prepared_statements%%'"""

    def look() -> tuple[bool, int]:
        together.wait()
        ready = connections["default"].connection is not None
        row = engine.fetch_one(planned, {})
        return ready, 0 if row is None else row.n

    found = [deed.result() for deed in [asgi._threads.submit(look) for _ in range(asgi.THREADS)]]
    assert found == [(True, 1)] * asgi.THREADS
    assert not Event.objects.exists()
    assert not Delivery.objects.exists()


def test_a_database_without_tables_yet_holds_no_process_back() -> None:
    catalog.expire_now()
    engine.fetch_all("ALTER TABLE triggers_catalog RENAME TO triggers_elsewhere", {})
    try:
        with capture_logs() as said:
            assert [deed.result() for deed in asgi.warm_up()] == [None] * asgi.THREADS
    finally:
        engine.fetch_all("ALTER TABLE triggers_elsewhere RENAME TO triggers_catalog", {})
    assert {entry["event"] for entry in said} == {"webhook.not_warm"}
