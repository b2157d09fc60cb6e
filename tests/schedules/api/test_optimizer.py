"""`/api/optimizer`."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from execution.models import ProcessReport
from schedules import lifecycle
from schedules.models import OptimizationReport
from tests.api_client import Api
from tests.factories import make_workflow


@pytest.fixture
def crowd(db: None) -> None:
    ProcessReport.objects.create(name="w", kind="worker", host="h1", pid=1, queues=["default"], slots=1)
    workflow = make_workflow("nightly")
    spec = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}
    for number in range(20):
        lifecycle.create(actor="test", name=f"s{number}", workflow=workflow, spec=spec, overlap_policy="allow_all")


def test_a_report_is_made_read_applied_and_reverted(api: Api, crowd: None) -> None:
    made = api.ok("post", "/api/optimizer", {"days": 1, "tolerated": 2, "note": "why"}, status=201)
    path = f"/api/optimizer/{made['id']}"
    assert api.ok("get", path) == made
    assert made["changes"]
    assert made["before"]["wait_p95"] > made["after"]["wait_p95"]
    (listed,) = api.ok("get", "/api/optimizer")["results"]
    assert listed["id"] == made["id"]
    assert "curve" not in listed
    first = made["changes"][0]["id"]
    applied = api.ok("post", f"{path}/apply", {"changes": [first]})["changes"]
    assert [(one["id"], one["state"], one["decided_by"]) for one in applied] == [(first, "applied", "ada")]
    assert len(api.ok("post", f"{path}/apply", {})["changes"]) == len(made["changes"]) - 1
    reverted = api.ok("post", f"{path}/revert", {"note": "no"})["changes"]
    assert {one["state"] for one in reverted} == {"reverted"}


def test_a_repeated_request_makes_one_report(api: Api, crowd: None) -> None:
    body = {"days": 1}
    first = api.ok("post", "/api/optimizer", body, status=201, headers={"Idempotency-Key": "k"})
    again = api.ok("post", "/api/optimizer", body, status=201, headers={"Idempotency-Key": "k"})
    assert first["id"] == again["id"]
    assert OptimizationReport.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"days": 0}, "days"),
        ({"days": "3"}, "days"),
        ({"tolerated": -1}, "tolerated"),
        ({"horizon": 3}, "horizon"),
        ({"days": None}, "days"),
    ],
)
def test_wrong_requests_name_the_field_and_make_nothing(api: Api, crowd: None, body: Any, field: str) -> None:
    api.refused("post", "/api/optimizer", body, status=400, field=field)
    assert not OptimizationReport.objects.exists()


def test_what_is_not_there_is_not_found(api: Api, crowd: None) -> None:
    for name in (uuid4(), "nonsense"):
        api.refused("get", f"/api/optimizer/{name}", status=404)
        api.refused("post", f"/api/optimizer/{name}/apply", {}, status=404)


def test_what_if(api: Api, crowd: None) -> None:
    body = {"days": 1, "add": [{"cron_expression": "0 2 * * *", "count": 5, "seconds": 30}], "slots": {"default": 3}}
    found = api.ok("post", "/api/optimizer/what-if", body)
    assert found["after"]["executions"] == found["before"]["executions"] + 5
    assert found["after"]["slots"] == 3
    assert found["curve"]
    api.refused("post", "/api/optimizer/what-if", {"lose_hosts": ["h9"]}, status=400, field="lose_hosts")
    lost = api.ok("post", "/api/optimizer/what-if", {"days": 1, "lose_hosts": ["h1"]})
    assert lost["after"]["blocked"] == lost["before"]["executions"]


def test_patterns(api: Api, crowd: None) -> None:
    assert api.ok("get", "/api/optimizer/patterns?days=7")["workflows"] == []
    for days in ("0", "x", "1000"):
        api.refused("get", f"/api/optimizer/patterns?days={days}", status=400, field="days")
