"""The document's own examples, sent: each works; each is done once per Idempotency-Key; none is done to what somebody
else has changed; and each value of each of them, when it is wrong, is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema
import pytest
from django.db import transaction
from drf_spectacular.validation import validate_schema

from execution.notifications import sending
from execution.notifications.kinds import NotificationKind
from scheduling_project.api_description import webhooks
from scheduling_project.api_description.examples import REQUESTS
from tests import api_world
from tests.api_client import Api
from tests.api_world import World
from tests.scheduling_project.test_conventions import document, operations

#: What is about something that nothing can change.
NEVER_CHANGED = {"POST /api/events/{id}/replay"}
Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture
def world(db: None) -> World:
    return api_world.build()


@contextmanager
def undone(world: World) -> Iterator[None]:
    """What happens inside has not happened."""
    kept = dict(world.ids)
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    world.ids = kept


def changing() -> list[Operation]:
    return [(method, path, operation) for method, path, operation in operations() if method != "get"]


def send(api: Api, method: str, url: str, body: Any, **headers: str) -> Any:
    api.raise_request_exception = False
    content = b"" if body is None else json.dumps(body).encode()
    return api.generic(method.upper(), url, content, content_type="application/json", headers=headers)


def named(method: str, path: str) -> str:
    return f"{method.upper()} {path}"


def parameters(operation: dict[str, Any]) -> set[str]:
    return {parameter["name"] for parameter in operation.get("parameters", [])}


def test_every_body_has_an_example_that_fits_its_schema() -> None:
    found = {
        named(method, path): operation["requestBody"]["content"]["application/json"]
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }
    assert set(found) == set(REQUESTS)
    for name, media in found.items():
        assert media["example"] == REQUESTS[name]
        schema = {**media["schema"], "components": document()["components"]}
        jsonschema.Draft202012Validator(schema).validate(REQUESTS[name])


def test_the_document_is_valid_openapi_and_tells_of_every_webhook_that_is_sent(world: World) -> None:
    validate_schema(document())
    assert set(document()["webhooks"]) == {f"notification.{kind.value}" for kind in NotificationKind}
    from execution.models import Notification
    from execution.notifications import rules

    (message, *_) = rules.test(rules.create({"name": "r", "kind": "failed", "emails": ["a@b.org"]}, actor="a").rule,
                               actor="ada")  # fmt: skip
    sent = sending.payload_of(Notification.objects.select_related("rule").get(pk=message.pk))
    components = {"components": document()["components"]}
    for payload in (sent, webhooks.EXAMPLE):
        schema = document()["webhooks"][payload["type"]]["post"]["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, **components}).validate(payload)


def test_every_error_is_documented_with_an_example() -> None:
    for method, path, operation in operations():
        for status, answer in operation["responses"].items():
            if not status.startswith("2"):
                assert answer["content"]["application/problem+json"]["examples"], (method, path, status)


def test_every_example_works_and_is_answered_as_the_document_says(world: World) -> None:
    api, wrong = Api(), {}
    components = {"components": document()["components"]}
    for method, path, operation in operations():
        name = named(method, path)
        with undone(world):
            world.prepare(name)
            answer = send(api, method, world.url(path) + world.query(name), world.body(name))
            if str(answer.status_code) not in operation["responses"] or answer.status_code >= 300:
                wrong[name] = (answer.status_code, answer.content[:300])
                continue
            media = operation["responses"][str(answer.status_code)].get("content", {}).get("application/json")
            if (media is not None) != bool(answer.content):
                wrong[name] = "an answer with content that the document does not know, or the other way round"
            elif media is not None:
                found = jsonschema.Draft202012Validator({**media["schema"], **components}).iter_errors(answer.json())
                if mistakes := [(error.json_path, error.message[:200]) for error in found]:
                    wrong[name] = mistakes
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def test_nothing_is_done_to_what_somebody_else_has_changed(world: World) -> None:
    api, wrong = Api(), {}
    for method, path, operation in changing():
        name = named(method, path)
        if "{" in path and "If-Match" not in parameters(operation) and name not in NEVER_CHANGED:
            wrong[name] = "does not take If-Match"
        if "If-Match" not in parameters(operation):
            continue
        with undone(world):
            world.prepare(name)
            url, body = world.url(path), world.body(name)
            shown = send(api, "get", world.shown_at(path), None)
            tag = shown.headers.get("ETag")
            if tag is None:
                wrong[name] = f"{world.shown_at(path)} has no ETag"
                continue
            refused = send(api, method, url, body, **{"If-Match": '"another", W/"and-another"'})
            if (refused.status_code, refused.json()["code"]) != (412, "stale_version"):
                wrong[name] = refused.status_code
            if send(api, "get", world.shown_at(path), None).content != shown.content and "queues" not in path:
                wrong[name] = "it was changed"
            done = send(api, method, url, body, **{"If-Match": f'"another", {tag}'})
            if done.status_code >= 300:
                wrong[name] = (done.status_code, done.content[:200])
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def test_what_was_done_once_is_not_done_again_with_the_same_key(world: World) -> None:
    api, wrong = Api(), {}
    for method, path, operation in changing():
        name = named(method, path)
        if "Idempotency-Key" not in parameters(operation):
            continue
        with undone(world):
            world.prepare(name)
            url, body = world.url(path), world.body(name)
            key = {"Idempotency-Key": "k-1"}
            tag = send(api, "get", world.shown_at(path), None).headers.get("ETag") if "{" in path else None
            if tag is not None:
                key["If-Match"] = tag
            first, second = send(api, method, url, body, **key), send(api, method, url, body, **key)
            if first.status_code >= 300 or (first.status_code, first.json()) != (second.status_code, second.json()):
                wrong[name] = (first.status_code, second.status_code, second.content[:200])
            elif second.headers.get("Idempotency-Replayed") != "true":
                wrong[name] = "not told that it was replayed"
            other = send(api, method, url, {**(body or {}), "another": 1}, **key)
            if (other.status_code, other.json()["code"]) != (422, "idempotency_key_reused"):
                wrong[name] = (other.status_code, other.content[:200])
            for bad in ("", "x" * 256, "schlüssel"):
                refused = send(api, method, url, body, **{"Idempotency-Key": bad})
                if "Idempotency-Key" not in refused.json().get("errors", {}):
                    wrong[name] = (bad[:5], refused.status_code)
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


@pytest.mark.parametrize("header", ["nonsense", '"', "1", '"1", nonsense', '""', 'W/"2"'])
def test_what_is_no_tag_of_ours_is_not_the_present_one(world: World, header: str) -> None:
    api, path = Api(), "/api/workflows/daily-report"
    api.refused("patch", path, {"description": "x"}, status=412, headers={"If-Match": header})
    assert api.ok("get", path)["revision"] == 1


@pytest.mark.parametrize("header", ["*", '"1"', 'W/"1"', '"0","1"'])
def test_the_present_tag_is_taken_however_it_is_sent(world: World, header: str) -> None:
    path = "/api/workflows/daily-report"
    assert Api().ok("patch", path, {"description": "x"}, headers={"If-Match": header})["revision"] == 2


def test_a_method_that_is_not_there_is_refused_whatever_the_tag(world: World) -> None:
    for method in ("TRACE", "DELETE"):
        answer = Api().generic(method, world.url("/api/executions/{id}"), headers={"If-Match": '"1"'})
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def test_what_is_not_there_is_not_found_whatever_the_tag(world: World) -> None:
    Api().refused("patch", "/api/pools/nowhere", {"slots": 1}, status=404, headers={"If-Match": '"1"'})


def test_one_who_repeats_a_change_by_its_key_gets_the_first_answer_though_the_tag_has_changed(world: World) -> None:
    api = Api()
    path = world.url("/api/webhooks/{id}")
    headers = {"If-Match": api.get(path)["ETag"], "Idempotency-Key": "rotate-1"}
    first = api.ok("post", f"{path}/rotate", {}, headers=headers)
    assert api.get(path)["ETag"] != headers["If-Match"]
    assert api.ok("post", f"{path}/rotate", {}, headers=headers) == first
    api.refused("post", f"{path}/rotate", {}, status=412, headers={**headers, "Idempotency-Key": "rotate-2"})
