"""`GET /api/schedules/forecast`."""

from __future__ import annotations

from typing import Any

import pytest

from tests import factories
from tests.api_client import Api

RANGE = "from=2150-01-01T00:00:00Z&to=2150-01-02T00:00:00Z"


@pytest.fixture(autouse=True)
def schedules(api: Api) -> None:
    factories.make_workflow("etl")
    factories.make_workflow("mail")
    for name, workflow, cron in (("a", "etl", "0 * * * *"), ("b", "mail", "30 2 * * *")):
        body: dict[str, Any] = {"name": name, "workflow": workflow, "cron_expression": cron, "labels": {"of": name}}
        api.ok("post", "/api/schedules", body, status=201)


def test_a_day_by_hours(api: Api) -> None:
    found = api.ok("get", f"/api/schedules/forecast?{RANGE}&bucket=hour")
    assert (found["from"], found["to"]) == ("2150-01-01T00:00:00Z", "2150-01-02T00:00:00Z")
    assert (found["bucket"], found["timezone"], found["schedules"], found["failed"]) == ("hour", "UTC", 2, 0)
    assert [row["count"] for row in found["buckets"]] == [1, 1, 2, *[1] * 21]
    assert found["total"] == 25
    assert found["busiest"][0] == {"start": "2150-01-01T02:00:00Z", "end": "2150-01-01T03:00:00Z", "count": 2}
    assert [row["at"] for row in found["peaks"]] == ["2150-01-01T02:00:00Z", "2150-01-01T02:30:00Z"]
    assert [(row["workflow_name"], row["count"]) for row in found["by_workflow"]] == [("etl", 24), ("mail", 1)]
    assert found["by_queue"] == [{"queue": "default", "count": 25}]
    assert [row["name"] for row in found["by_schedule"]] == ["a", "b"]


def test_it_is_narrowed_as_the_list_is(api: Api) -> None:
    assert api.ok("get", f"/api/schedules/forecast/?{RANGE}&workflow=mail&bucket=day")["total"] == 1
    assert api.ok("get", f"/api/schedules/forecast?{RANGE}&label=of:a&bucket=30")["total"] == 24
    assert len(api.ok("get", "/api/schedules/forecast")["buckets"]) in {24, 25}


def test_paused_ones_count_when_asked(api: Api) -> None:
    for row in api.ok("get", "/api/schedules")["results"]:
        api.ok("post", f"/api/schedules/{row['id']}/pause")
    assert api.ok("get", f"/api/schedules/forecast?{RANGE}")["total"] == 0
    assert api.ok("get", f"/api/schedules/forecast?{RANGE}&paused=true")["total"] == 25


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("from=2150-01-02T00:00:00Z&to=2150-01-01T00:00:00Z", "to"),
        ("from=2150-01-01T00:00:00Z&to=2152-01-01T00:00:00Z", "to"),
        ("from=2250-01-01T00:00:00Z", "from"),
        ("to=", "to"),
        (f"{RANGE}&bucket=week", "bucket"),
        (f"{RANGE}&bucket=", "bucket"),
        (f"{RANGE}&timezone=Mars/Base", "timezone"),
        (f"{RANGE}&paused=perhaps", "paused"),
    ],
)
def test_what_it_cannot_read_is_named(api: Api, query: str, field: str) -> None:
    api.refused("get", f"/api/schedules/forecast?{query}", status=400, field=field)
