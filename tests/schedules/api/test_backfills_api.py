"""`POST /api/schedules/{id}/backfill` and `/api/backfills`."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from pytest_django import DjangoAssertNumQueries

from execution.models import Execution
from schedules import backfill, firing, versions
from schedules.models import Backfill, Schedule
from tests.api_client import Api
from tests.schedules.builders import MINUTELY, at, schedule, workflow

pytestmark = pytest.mark.django_db

RANGE = {"since": at(1).isoformat(), "until": at(9_999).isoformat()}


@pytest.fixture
def missed() -> Schedule:
    """Nine minutes missed, the tenth started."""
    versions.forget()
    workflow()
    made = schedule(MINUTELY, catch_up="latest")
    firing.fire_due(at(600))
    return made


def path(of: Schedule) -> str:
    return f"/api/schedules/{of.pk}/backfill"


def begin(api: Api, of: Schedule, **given: Any) -> Any:
    return api.ok("post", path(of), {**RANGE, "max_running": 4, **given}, status=201)


def test_a_dry_run_counts_and_estimates_and_starts_nothing(api: Api, missed: Schedule) -> None:
    found = api.ok("post", path(missed), {**RANGE, "dry_run": True, "per_minute": 3})
    assert (found["instants"], found["ran"], found["excluded"], found["step_runs"]) == (9, 1, 0, 9)
    assert (found["seconds"], found["run_seconds"], found["priority"]) == (120, None, 9)
    assert found["until"] == at(600).isoformat().replace("+00:00", "Z")
    assert found["queues"] == [{"name": "default", "steps": ["only"], "used": 1, "slots": 0, "share": None}]
    assert not Backfill.objects.exists()


def test_the_life_of_a_backfill(api: Api, missed: Schedule) -> None:
    made = begin(api, missed, note="the outage", priority="high", input={"again": True})
    assert (made["state"], made["total"], made["started"], made["remaining"]) == ("running", 9, 0, 9)
    assert (made["priority"], made["created_by"], made["schedule_name"]) == (3, "ada", "nightly")
    backfill.advance_all()
    seen = api.ok("get", f"/api/backfills/{made['id']}")
    assert (seen["started"], seen["remaining"], seen["executions"]["running"]) == (4, 5, 4)
    assert api.ok("get", f"/api/schedules/{missed.pk}/backfills/")["results"][0]["id"] == made["id"]
    assert api.ok("get", f"/api/schedules/{missed.pk}/status")["backfills"] == [made["id"]]
    assert api.ok("get", f"/api/backfills?schedule={missed.pk}&state=running")["results"][0]["id"] == made["id"]
    assert api.ok("get", "/api/backfills?state=finished")["results"] == []
    fires = api.ok("get", f"/api/backfills/{made['id']}/fires")["results"]
    assert [fire["execution_state"] for fire in fires] == ["queued"] * 4
    execution = Execution.objects.get(pk=fires[0]["execution"])
    assert (execution.input, execution.priority) == ({"again": True}, 3)
    over = api.ok("post", f"/api/backfills/{made['id']}/cancel", {"stop_running": True, "note": "enough"})
    assert (over["state"], over["executions"]) == (
        "cancelled",
        {"running": 0, "succeeded": 0, "failed": 0, "cancelled": 4},
    )
    api.refused("post", f"/api/backfills/{made['id']}/cancel", {}, status=409)


def test_a_repeat_with_the_same_key_begins_nothing_new(api: Api, missed: Schedule) -> None:
    first = begin(api, missed)
    Backfill.objects.all().delete()
    answers = [api.answer("post", path(missed), {**RANGE}, headers={"Idempotency-Key": "outage-1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] == answers[1].json()["id"] != first["id"]
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    assert Backfill.objects.count() == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"since": None}, "since"),
        ({"until": at(-1).isoformat()}, "until"),
        ({"since": at(5_000).isoformat()}, "since"),
        ({"max_running": 0}, "max_running"),
        ({"per_minute": -1}, "per_minute"),
        ({"order": "random"}, "order"),
        ({"priority": 12}, "priority"),
        ({"input": []}, "input"),
        ({"dry_run": "maybe"}, "dry_run"),
        ({"speed": 9}, "speed"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_bad_values_are_named_and_nothing_changes(
    api: Api, missed: Schedule, given: dict[str, Any], field: str, dry_run: bool
) -> None:
    api.refused("post", path(missed), {**RANGE, "dry_run": dry_run, **given}, status=400, field=field)
    assert not Backfill.objects.exists()


def test_what_does_not_exist_is_not_found(api: Api, missed: Schedule) -> None:
    for unknown in (str(uuid4()), "nothing"):
        api.refused("post", f"/api/schedules/{unknown}/backfill", RANGE, status=404)
        for part in ("", "/fires"):
            api.refused("get", f"/api/backfills/{unknown}{part}", status=404)
        api.refused("post", f"/api/backfills/{unknown}/cancel", {}, status=404)


def test_a_list_costs_the_same_for_one_and_for_many(
    api: Api, missed: Schedule, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for minute in range(5):
        begin(api, missed, since=at(60 * minute + 1).isoformat())
    with django_assert_max_num_queries(8):
        assert len(api.ok("get", "/api/backfills")["results"]) == 5
