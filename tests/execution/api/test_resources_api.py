"""`/api/resources` and the verbs of one worker."""

from __future__ import annotations

from typing import Any

import pytest

from execution import process_reports
from execution.models import Pool, StepRun
from execution.resources import Monitor
from tests.api_client import Api
from tests.execution import flow

pytestmark = pytest.mark.django_db


def report(name: str = "w@h", **values: Any) -> None:
    measured = Monitor().measure().as_json()
    process_reports.report_process(
        name,
        kind="worker",
        host=name.partition("@")[2],
        pid=1,
        slots=2,
        busy=1,
        resources=measured,
        sample=True,
        **values,
    )


def test_everything_at_once(api: Api, django_assert_max_num_queries: Any) -> None:
    report(queues=["default"], own_queues=["default"], pressure="high")
    report("v@other")
    Pool.objects.create(name="db", slots=3)
    execution = flow.begin({"a": flow.http(pool={"name": "db", "units": 2})})
    held = flow.held(execution, "a")
    StepRun.objects.filter(pk=held.id).update(worker="w@h/17")
    with django_assert_max_num_queries(12):
        found = api.ok("get", "/api/resources")
    assert [(host["name"], host["slots"], host["pressure"]) for host in found["hosts"]] == [
        ("h", 2, "high"),
        ("other", 2, ""),
    ]
    worker = next(worker for worker in found["workers"] if worker["name"] == "w@h")
    assert worker["status"] == "active"
    assert [step["step_run"] for step in worker["steps"]] == [str(held.id)]
    assert found["pools"] == [{"name": "db", "slots": 3, "used": 2, "free": 1}]
    (allocation,) = found["allocations"]
    assert (allocation["kind"], allocation["pool"], allocation["units"]) == ("step", "db", 2)
    assert {point["name"] for point in found["history"]} == {"w@h", "v@other"}
    only = api.ok("get", "/api/resources?host=other&since=2000-01-01T00:00:00Z", status=400)
    assert "since" in only["errors"]
    only = api.ok("get", "/api/resources?host=other")
    assert [worker["name"] for worker in only["workers"]] == ["v@other"]


@pytest.mark.parametrize(
    ("query", "field"), [("since=yesterday", "since"), ("host=", "host"), ("since=2020-01-01T00:00:00Z", "since")]
)
def test_bad_questions_are_refused_with_their_field(api: Api, query: str, field: str) -> None:
    api.refused("get", f"/api/resources?{query}", status=400, field=field)


def test_one_worker_is_paused_drained_and_resumed(api: Api) -> None:
    report()
    assert api.ok("post", "/api/processes/w@h/pause", {"note": "disk"})["status"] == "paused"
    api.refused("post", "/api/processes/w@h/pause", {}, status=409)
    drained = api.ok("post", "/api/processes/w@h/drain", {"ends": True})
    assert (drained["status"], drained["wanted_by"]) == ("draining", "ada")
    assert api.ok("post", "/api/processes/w@h/resume")["status"] == "active"
    assert api.ok("get", "/api/processes/w@h")["alive"] is True
    api.refused("post", "/api/processes/w@h/drain", {"ends": "perhaps"}, status=400, field="ends")
    api.refused("post", "/api/processes/nobody@h/pause", {}, status=404)
    assert [one["status"] for one in api.ok("get", "/api/processes")["results"]] == ["active"]
