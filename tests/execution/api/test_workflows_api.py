"""`/api/workflows`."""

from __future__ import annotations

from typing import Any

import pytest

from tests import factories
from tests.api_client import Api

ONE, TWO = factories.ONE_STEP, factories.CHAIN


def test_the_life_of_a_workflow(api: Api) -> None:
    made = api.ok("post", "/api/workflows", {"name": "etl", "definition": ONE, "priority": "high"}, status=201)
    assert (made["name"], made["version"], made["priority"], made["revision"]) == ("etl", 1, 3, 1)
    by_name = api.ok("get", "/api/workflows/etl")
    assert by_name == api.ok("get", f"/api/workflows/{made['id']}/")
    assert by_name["definition"] == ONE
    changed = api.ok("patch", "/api/workflows/etl", {"description": "x", "definition": TWO, "note": "chain"})
    assert (changed["version"], changed["description"]) == (2, "x")
    replaced = api.ok("put", "/api/workflows/etl", {"name": "etl2", "definition": ONE})
    assert (replaced["version"], replaced["name"]) == (3, "etl2")
    assert [v["number"] for v in api.ok("get", "/api/workflows/etl2/versions")["results"]] == [3, 2, 1]
    assert api.ok("get", "/api/workflows/etl2/versions/2")["definition"] == TWO
    diff = api.ok("get", "/api/workflows/etl2/diff?before=1&after=2")["results"]
    assert {"path": "steps.work", "kind": "removed"}.items() <= diff[0].items()
    assert api.ok("post", "/api/workflows/etl2/versions/1/publish", {"note": "back"})["number"] == 1
    api.ok("delete", "/api/workflows/etl2", status=204)
    api.refused("get", "/api/workflows/etl2", status=404)


def test_a_draft_is_started_only_once_it_is_published(api: Api) -> None:
    made = api.ok("post", "/api/workflows", {"name": "etl", "definition": ONE, "draft": True}, status=201)
    assert (made["version"], made["definition"]) == (None, ONE)
    api.refused("post", "/api/workflows/etl/start", {}, status=409, field="workflow")
    draft = api.ok("post", "/api/workflows/etl/versions", {"definition": TWO}, status=201)
    assert draft["published_at"] is None
    api.ok("post", "/api/workflows/etl/versions/2/publish", {})
    api.ok("post", "/api/workflows/etl/start", {}, status=201)
    api.refused("post", "/api/workflows/etl/versions/9/publish", {}, status=404)
    api.refused("get", "/api/workflows/etl/versions/9", status=404)


def test_lists_are_pages_with_filters(api: Api) -> None:
    for name in ("alpha", "beta", "gamma"):
        factories.make_workflow(name, labels={"team": name})
    page = api.ok("get", "/api/workflows?limit=2")
    assert [w["name"] for w in page["results"]] == ["alpha", "beta"]
    assert [w["name"] for w in api.ok("get", page["next"])["results"]] == ["gamma"]
    assert [w["name"] for w in api.ok("get", "/api/workflows?search=ET")["results"]] == ["beta"]
    assert [w["name"] for w in api.ok("get", "/api/workflows?label=team:gamma")["results"]] == ["gamma"]
    assert len(api.ok("get", "/api/workflows?label=team")["results"]) == 3
    for bad in ("limit=0", "limit=x", "limit=9999", "cursor=nonsense", "cursor=cD1ub3BlJTAw"):
        api.refused("get", f"/api/workflows?{bad}", status=400, field=bad.split("=")[0])


def test_starting_answers_with_the_execution(api: Api) -> None:
    schema = {"required": ["day"], "properties": {"day": {"type": "string"}}}
    factories.make_workflow("etl", {**ONE, "input": schema})
    started = api.ok(
        "post", "/api/workflows/etl/start", {"input": {"day": "mon"}, "priority": 0, "queue": "io"}, status=201
    )
    assert (started["state"], started["workflow_name"], started["priority"]) == ("queued", "etl", 0)
    assert started["source"] == {"kind": "api", "id": "", "label": "ada", "scheduled_for": None}
    assert started["steps"][0]["queue"] == "io"
    api.refused("post", "/api/workflows/etl/start", {"input": {}}, status=400, field="input.day")
    api.refused("post", "/api/workflows/etl/start", {"input": {"day": 5}}, status=400, field="input.day")


def test_an_etag_guards_against_changes_of_others(api: Api) -> None:
    factories.make_workflow("etl")
    tag = api.get("/api/workflows/etl")["ETag"]
    api.ok("patch", "/api/workflows/etl", {"description": "x"}, HTTP_IF_MATCH=tag)
    problem = api.refused("patch", "/api/workflows/etl", {"description": "y"}, status=412, HTTP_IF_MATCH=tag)
    assert (problem["code"], problem["revision"]) == ("stale_version", 2)
    api.refused("delete", "/api/workflows/etl", status=412, HTTP_IF_MATCH=tag)
    api.refused("delete", "/api/workflows/etl", status=412, HTTP_IF_MATCH="nonsense")
    api.ok("delete", "/api/workflows/etl", status=204, HTTP_IF_MATCH="*")


def test_a_workflow_in_use_is_kept(api: Api) -> None:
    workflow = factories.make_workflow("etl")
    execution = factories.make_execution(workflow)
    api.refused("delete", "/api/workflows/etl?history=delete", status=409)
    execution.delete()
    factories.make_execution(workflow, state=factories.ExecutionState.SUCCEEDED)
    api.refused("delete", "/api/workflows/etl", status=409)
    api.refused("delete", "/api/workflows/etl?history=maybe", status=400, field="history")
    api.ok("delete", "/api/workflows/etl?history=delete", status=204)


def test_what_definitions_are_made_of(api: Api) -> None:
    assert api.ok("get", "/api/workflows/definition-schema")["title"] == "Workflow definition"
    assert isinstance(api.ok("get", "/api/workflows/tasks")["results"], list)


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "name"),
    ({}, "definition"),
    ({"name": None}, "name"),
    ({"name": 5}, "name"),
    ({"name": ["x"]}, "name"),
    ({"name": ""}, "name"),
    ({"name": "has space"}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"definition": None}, "definition"),
    ({"definition": "text"}, "definition"),
    ({"definition": []}, "definition"),
    ({"definition": {}}, "definition.steps"),
    ({"definition": {"steps": {"a": {"wait": 1, "needs": ["b"]}}}}, "definition.steps.a.needs.0"),
    ({"definition": {"steps": {"a": {"task": "no.such.task"}}}}, "definition.steps.a.task"),
    ({"priority": 10}, "priority"),
    ({"priority": "soon"}, "priority"),
    ({"priority": None}, "priority"),
    ({"queue": "nowhere"}, "queue"),
    ({"labels": []}, "labels"),
    ({"labels": {"a": 1}}, "labels.a"),
    ({"retry_policy": {"max_attempts": 0}}, "retry_policy.max_attempts"),
    ({"retry_policy": []}, "retry_policy"),
    ({"draft": "yes"}, "draft"),
    ({"unknown": 1}, "unknown"),
    ({"description": 5}, "description"),
]


@pytest.mark.parametrize(("change", "field"), BAD, ids=range(len(BAD)))
def test_a_bad_field_is_named(api: Api, change: dict[str, Any], field: str) -> None:
    values = {"name": "etl", "definition": ONE} if change else {}
    api.refused("post", "/api/workflows", {**values, **change}, status=400, field=field)
    assert api.ok("get", "/api/workflows")["results"] == []


def test_a_name_is_used_once(api: Api) -> None:
    factories.make_workflow("etl")
    api.refused("post", "/api/workflows", {"name": "etl", "definition": ONE}, status=409, field="name")


def test_a_repeated_request_with_one_key_creates_one_workflow(api: Api) -> None:
    body = {"name": "etl", "definition": ONE}
    first = api.answer("post", "/api/workflows", body, HTTP_IDEMPOTENCY_KEY="k1")
    again = api.answer("post", "/api/workflows/", body, HTTP_IDEMPOTENCY_KEY="k1")
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert again["Idempotency-Replayed"] == "true"
    other = {"name": "other", "definition": ONE}
    api.refused("post", "/api/workflows", other, status=422, HTTP_IDEMPOTENCY_KEY="k1")
    api.refused("post", "/api/workflows", other, status=400, field="Idempotency-Key", HTTP_IDEMPOTENCY_KEY="")
    api.refused("post", "/api/workflows", {"name": "bad"}, status=400, HTTP_IDEMPOTENCY_KEY="k2")
    api.ok("post", "/api/workflows", other, status=201, HTTP_IDEMPOTENCY_KEY="k2")
