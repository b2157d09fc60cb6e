"""What holds for every operation of the API, whoever wrote it: bad input is refused by name, and nothing breaks."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Final

import pytest
from drf_spectacular import drainage
from drf_spectacular.generators import SchemaGenerator

from scheduling_project.common import queries
from scheduling_project.common.problems import MEDIA_TYPE
from tests import factories
from tests.api_client import Api

TOKENS: Final = ("/api/token",)
#: Creates or starts nothing that a repeat would double, or answers with a secret that must not be kept.
NO_KEY: Final = {
    "POST /api/api-keys": "its answer holds a secret that is not kept",
    "POST /api/live/ticket": "its answer is a secret; nothing is created",
}


@functools.cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    return found


@functools.cache
def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
        if not path.startswith(TOKENS)
    ]


def filled(path: str) -> str:
    path = path.replace("{number}", "1")
    return re.sub(r"\{\w+\}", "00000000-0000-0000-0000-000000000000", path)


def send(api: Api, method: str, path: str, body: Any = b"{}", content_type: str = "application/json") -> Any:
    api.raise_request_exception = False
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.generic(method.upper(), path, content, content_type=content_type)


def assert_refused(answer: Any, what: Any) -> dict[str, Any]:
    assert 400 <= answer.status_code < 500, (what, answer.status_code, answer.content[:300])
    assert answer["Content-Type"] == MEDIA_TYPE, what
    problem: dict[str, Any] = answer.json()
    assert problem["code"], what
    return problem


@pytest.fixture
def api(db: None) -> Api:
    return Api()


def test_a_parameter_that_nobody_knows_is_refused_by_its_name(api: Api) -> None:
    for method, path, _ in operations():
        answer = send(api, method, f"{filled(path)}?limmit=5")
        problem = assert_refused(answer, (method, path))
        assert problem["errors"] == {"limmit": ["is not a known parameter"]}, (method, path)


def test_bodies_that_are_no_object_of_json_are_refused_everywhere(api: Api) -> None:
    deep = b'{"a":' * 200 + b"1" + b"}" * 200
    bodies = [b"{", b"[1]", b"null", b'"x"', b"5", deep, b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":"\\u0000"}']
    bodies += [b'{"a":1,"a":2}', b'{"a":NaN}', b'{"no such member":1}']
    for method, path, operation in operations():
        if "requestBody" not in operation:
            continue
        for body in bodies:
            assert_refused(send(api, method, filled(path), body), (method, path, body[:30]))
        for kind in ("text/plain", "application/xml", "multipart/form-data", "nonsense"):
            answer = send(api, method, filled(path), b"<x/>", kind)
            assert assert_refused(answer, (method, path, kind))["code"] in {"unsupported_media_type", "not_found"}


def test_methods_that_are_not_there_are_refused(api: Api) -> None:
    for path, methods in document()["paths"].items():
        for method in {"get", "post", "put", "patch", "delete"} - set(methods):
            answer = send(api, method, filled(path))
            assert assert_refused(answer, (method, path))["code"] == "method_not_allowed", (method, path)


def test_ids_that_are_none_are_refused(api: Api) -> None:
    for method, path, _ in operations():
        for strange in ("%00", "a" * 300, "%F0%9F%92%A9", "'", "-1", "..%2F.."):
            if "{" in path:
                assert_refused(send(api, method, re.sub(r"\{\w+\}", strange, path)), (method, path, strange))


WRONG: Final[tuple[Any, ...]] = (None, True, -1, 1.5, "x" * 70_000, [], [[]], {}, {"a": [None]}, "\u202e", 10**30)


def test_no_value_of_any_member_breaks_an_operation(api: Api) -> None:
    turn = 0
    for method, path, operation in operations():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        name = str(content.get("schema", {}).get("$ref", "")).rpartition("/")[2]
        for member in document()["components"]["schemas"].get(name, {}).get("properties", {}):
            for value in (WRONG[turn % len(WRONG)], WRONG[(turn + 1) % len(WRONG)]):
                answer = send(api, method, filled(path), {member: value})
                assert answer.status_code < 500, (method, path, member, str(value)[:40], answer.content[:300])
            turn += 2


def test_every_list_gives_pages_of_the_same_shape(api: Api) -> None:
    for method, path, operation in operations():
        names = {parameter["name"] for parameter in operation.get("parameters", [])}
        if method == "get" and {"cursor", "limit"} <= names and "{" not in path:
            page = api.ok("get", f"{path}?limit=1")
            assert {"results", "next", "previous"} <= page.keys(), path
            for bad in ("cursor=nonsense", "limit=0", "limit=501", "limit=x"):
                problem = assert_refused(send(api, "get", f"{path}?{bad}"), (path, bad))
                assert problem["errors"].keys() == {bad.partition("=")[0]}


def test_an_answer_can_be_asked_for_with_some_members_only(api: Api) -> None:
    execution = factories.make_execution()
    rows = api.ok("get", "/api/executions?fields=id,state")["results"]
    assert rows == [{"id": str(execution.pk), "state": execution.state}]
    assert api.ok("get", f"/api/executions/{execution.pk}?fields=state") == {"state": execution.state}
    assert api.ok("get", "/api/workflows?fields=name&limit=1")["results"] == [{"name": execution.workflow.name}]
    tagged = api.get(f"/api/workflows/{execution.workflow.pk}?fields=name")
    assert (tagged.json(), tagged["ETag"]) == ({"name": execution.workflow.name}, '"1"')
    for bad in ("", "id,", "id,nonsense", ",".join(f"f{number}" for number in range(300))):
        api.refused("get", f"/api/executions?fields={bad}", status=400, field="fields")
    api.refused("post", "/api/executions?fields=id", {}, status=400, field="fields")


def test_where_the_shape_is_not_known_fields_is_no_parameter(api: Api) -> None:
    api.refused("get", "/api/workflows/definition-schema?fields=a", status=400, field="fields")


def test_every_post_that_creates_or_starts_takes_an_idempotency_key() -> None:
    missing = []
    for method, path, operation in operations():
        created = {"201", "202"} & operation["responses"].keys()
        names = {parameter["name"] for parameter in operation.get("parameters", [])}
        if method == "post" and created and "Idempotency-Key" not in names and f"POST {path}" not in NO_KEY:
            missing.append(path)
    assert not missing


def test_sparse_answers_of_other_shapes() -> None:
    assert queries.sparse([{"a": 1, "b": 2}], frozenset({"a"})) == [{"a": 1}]


def test_the_document_is_made_without_a_warning() -> None:
    with drainage.GENERATOR_STATS.silence():
        drainage.reset_generator_stats()
        SchemaGenerator().get_schema(public=True)
        said = drainage.GENERATOR_STATS
        assert (list(said._warn_cache), list(said._error_cache)) == ([], [])


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_whatever_is_read_with_whatever_query_is_answered(
    api: Api, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_known", {})  # as in a process that this very request is the first for
    answers = {
        f"{method} {path}{query}": send(api, method, filled(path) + query).status_code
        for path in (path for each, path, _ in operations() if each == "get")
        for query in ("", "?page_size=2", "?surely=unknown")
    }
    assert {request: status for request, status in answers.items() if status >= 500} == {}
