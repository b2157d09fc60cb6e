"""Every error of the API is a problem document that names what is wrong; none is a 500."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation, ValidationError
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404
from django.test import Client, RequestFactory
from rest_framework import exceptions
from rest_framework.test import APIRequestFactory

from scheduling_project.common import problems
from scheduling_project.common.errors import Conflict, DomainError, InvalidInput, StaleVersion, Unavailable
from tests import factories
from tests.api_client import Api

PATHS = [
    "/api/workflows",
    "/api/executions",
    "/api/dead-letters",
    "/api/queues",
    "/api/processes",
    "/api/audit",
    "/api/schedules",
    "/api/schedules/stats",
    "/api/schema",
]


@pytest.fixture
def api(db: None) -> Api:
    return Api()


# ── Who may come in ──


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.django_db
def test_nobody_comes_in_without_a_credential(path: str) -> None:
    problem = Api(anonymous=True).refused("get", path, status=401)
    assert problem["code"] == "not_authenticated"
    assert Api(anonymous=True).answer("get", path)["WWW-Authenticate"].startswith("Bearer")
    bad = Api(anonymous=True).refused("get", path, status=401, HTTP_AUTHORIZATION="Bearer nonsense")
    assert bad["code"] == "token_not_valid"


@pytest.mark.django_db
def test_a_token_opens_the_api_and_is_renewed_and_revoked() -> None:
    User.objects.create_superuser("ada", password="correct horse")
    client = Api(anonymous=True)
    problem = client.refused("post", "/api/token", {"username": "ada", "password": "wrong"}, status=401)
    assert problem["code"] == "authentication_failed"
    client.refused("post", "/api/token", {"username": "ada"}, status=400, field="password")
    tokens = client.ok("post", "/api/token/", {"username": "ada", "password": "correct horse"})
    bearer = {"HTTP_AUTHORIZATION": f"Bearer {tokens['access']}"}
    assert client.ok("get", "/api/workflows", **bearer)["results"] == []
    renewed = client.ok("post", "/api/token/refresh", {"refresh": tokens["refresh"]})
    client.refused("post", "/api/token/refresh", {"refresh": tokens["refresh"]}, status=401)
    client.ok("post", "/api/token/blacklist/", {"refresh": renewed["refresh"]})
    client.refused("post", "/api/token/refresh", {"refresh": renewed["refresh"]}, status=401)


@pytest.mark.django_db
def test_the_documentation_asks_for_a_login() -> None:
    client = Client()
    assert client.get("/api/docs/")["Location"].startswith("/admin/login/")
    client.force_login(User.objects.create_superuser("ada"))
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert b"http" not in page.content.split(b"<script", 1)[1].split(b"</script>")[0]
    schema = client.get("/api/schema", headers={"accept": "application/json"})
    assert json.loads(schema.content)["openapi"].startswith("3.1")


# ── What is asked in the wrong way ──


def test_each_address_works_with_and_without_its_last_slash(api: Api) -> None:
    for path in PATHS[:-1]:
        assert api.ok("get", path) == api.ok("get", f"{path}/")


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/workflows/a/b/c/d", "/api/executions//"])
def test_an_unknown_address_is_a_problem_too(api: Api, path: str) -> None:
    api.refused("get", path, status=404)


@pytest.mark.parametrize(
    ("method", "path"), [("delete", "/api/workflows"), ("put", "/api/executions"), ("post", "/api/audit")]
)
def test_a_wrong_method_is_named(api: Api, method: str, path: str) -> None:
    assert api.refused(method, path, {}, status=405)["code"] == "method_not_allowed"
    assert "GET" in api.answer(method, path, {})["Allow"]


def test_only_json_is_taken_and_given(api: Api) -> None:
    answer = api.post("/api/workflows", "a=1", content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    api.refused("get", "/api/workflows", status=406, HTTP_ACCEPT="text/html")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[1]",
        b'"x"',
        b"null",
        b"5",
        b"NaN",
        b'{"name": "a", "name": "b"}',
        b'{"name": "\\u0000"}',
        b"[" * 5000,
    ],
)
def test_a_body_that_is_no_json_object_is_refused(api: Api, body: bytes) -> None:
    answer = api.post("/api/workflows", body, content_type="application/json")
    assert answer.status_code == 400, answer.content
    assert answer["Content-Type"] == problems.MEDIA_TYPE
    assert answer.json()["code"] in {"malformed", "invalid"}


def test_an_empty_body_is_an_empty_object(api: Api) -> None:
    answer = api.post("/api/workflows", b"", content_type="application/json")
    assert (answer.status_code, sorted(answer.json()["errors"])) == (400, ["definition", "name"])


def test_a_body_that_is_too_large_is_refused(api: Api, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    answer = api.post("/api/token", b'{"username": "' + b"x" * 100 + b'"}', content_type="application/json")
    assert answer.status_code in {400, 413}


def test_a_name_with_strange_characters_is_just_not_found(api: Api) -> None:
    factories.make_workflow("etl")
    for name in ("%00", "etl%00", "%F0%9F%98%80", "%ED%A0%80", "a" * 5000, "..", "%2e%2e"):
        assert api.answer("get", f"/api/workflows/{name}").status_code == 404, name
        assert api.answer("get", f"/api/executions/{name}").status_code == 404, name
    for query in ("name=%00", "search=%00", "label=%00", "cursor=%00", "limit=%00", "name=" + "x" * 5000):
        assert api.answer("get", f"/api/workflows?{query}").status_code in {200, 400}, query


# ── Errors and their documents ──


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidInput(fields={"a": ["b"]}), 400, "invalid"),
        (Conflict("no", state="x"), 409, "conflict"),
        (StaleVersion(), 412, "stale_version"),
        (Unavailable(), 503, "unavailable"),
        (DomainError(), 400, "error"),
        (Http404(), 404, "not_found"),
        (PermissionDenied(), 403, "permission_denied"),
        (RequestDataTooBig(), 413, "too_large"),
        (SuspiciousOperation(), 400, "malformed"),
        (ValidationError({"a": ["b"]}), 400, "invalid"),
        (ValidationError("b"), 400, "invalid"),
        (OperationalError("secret host"), 503, "unavailable"),
        (InterfaceError(), 503, "unavailable"),
        (IntegrityError("secret value"), 409, "conflict"),
        (DataError(), 400, "invalid"),
        (RuntimeError("secret"), 500, "internal"),
        (exceptions.Throttled(wait=2.4), 429, "throttled"),
        (exceptions.Throttled(), 429, "throttled"),
        (exceptions.PermissionDenied(), 403, "permission_denied"),
        (exceptions.ValidationError({"a": {"b": ["c"]}, "d": [{"e": ["f"]}]}), 400, "invalid"),
        (exceptions.ValidationError(["c"]), 400, "invalid"),
        (exceptions.APIException(), 500, "error"),
    ],
)
def test_an_error_becomes_its_document(error: Exception, status: int, code: str) -> None:
    document, headers = problems.describe(error)
    assert (document["status"], document["code"]) == (status, code)
    assert "secret" not in str(document)
    assert document["title"]
    assert ("Retry-After" in headers) == (status == 503 or getattr(error, "wait", None) is not None)


def test_nested_errors_are_told_by_dotted_path() -> None:
    error = exceptions.ValidationError({"a": {"b": ["c"], "non_field_errors": ["n"]}, "d": [{}, {"e": ["f"]}]})
    assert problems.describe(error)[0]["errors"] == {"a.b": ["c"], "a": ["n"], "d.1.e": ["f"]}


@pytest.mark.django_db
def test_a_database_that_is_away_is_told_with_retry_after(api: Api) -> None:
    with patch("execution.api.operations.queues.stats", side_effect=OperationalError("connection refused")):
        answer = api.answer("get", "/api/queues")
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert "refused" not in answer.content.decode()


@pytest.mark.django_db
def test_a_bug_is_told_without_its_details(api: Api) -> None:
    with patch("execution.api.operations.queues.stats", side_effect=RuntimeError("secret")):
        problem = api.refused("get", "/api/queues", status=500)
    assert problem["code"] == "internal"
    assert "secret" not in str(problem)


def test_errors_outside_of_the_framework_are_problems_below_api_only() -> None:
    inside, outside = RequestFactory().get("/api/x"), RequestFactory().get("/admin/x")
    assert problems.bad_request(inside, SuspiciousOperation())["Content-Type"] == problems.MEDIA_TYPE
    assert problems.server_error(inside).status_code == 500
    assert "html" in problems.bad_request(outside, SuspiciousOperation())["Content-Type"]
    assert "html" in problems.server_error(outside)["Content-Type"]


def test_an_error_without_a_request_is_handled() -> None:
    assert problems.exception_handler(RuntimeError(), {}).status_code == 500
    request = APIRequestFactory().get("/api/x")
    assert problems.exception_handler(Conflict(), {"request": request}).status_code == 409
