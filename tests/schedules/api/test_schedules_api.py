"""`/api/schedules`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from execution.models import Execution
from schedules import firing
from schedules.models import Calendar, Schedule, ScheduleFire
from tests import factories
from tests.api_client import Api

FLAT: dict[str, Any] = {
    "workflow": "etl",
    "name": "nightly",
    "cron_expression": "0 2 * * *",
    "timezone": "Europe/Berlin",
    "enabled": True,
    "start_date": "2026-01-01T00:00:00Z",
    "end_date": "2199-01-01T00:00:00Z",
    "max_executions": 5,
    "retry_policy": {"max_attempts": 3, "backoff": 2},
    "metadata": {"ticket": 4711},
}


@pytest.fixture(autouse=True)
def etl(db: None) -> Any:
    return factories.make_workflow("etl")


def make(api: Api, **change: Any) -> Any:
    return api.ok("post", "/api/schedules", {**FLAT, **change}, status=201)


def test_the_flat_form_comes_back_as_it_was_given(api: Api, etl: Any) -> None:
    made = make(api)
    assert made | {"workflow": "etl"} | FLAT == made | {"workflow": "etl"}
    assert made.pop("warnings") == []
    assert made["workflow"] == str(etl.pk)
    assert made["workflow_name"] == "etl"
    assert made["next_fire_at"] is not None
    assert made["timing"]
    assert made["spec"]["timetables"] == [{"kind": "cron", "expression": "0 2 * * *"}]
    assert api.ok("get", f"/api/schedules/{made['id']}/") == made
    assert api.ok("get", "/api/schedules/")["results"] == [made]
    assert make(api, name="by id", workflow=str(etl.pk))["workflow_name"] == "etl"


def test_the_life_of_a_schedule(api: Api) -> None:
    made = make(api)
    path = f"/api/schedules/{made['id']}"
    changed = api.ok("patch", path, {"cron_expression": "*/5 * * * *"})
    assert (changed["cron_expression"], changed["timezone"], changed["version"]) == ("*/5 * * * *", "Europe/Berlin", 2)
    paused = api.ok("post", f"{path}/pause", {"note": "holiday"})
    assert (paused["enabled"], paused["pause"]["note"], paused["pause"]["kind"]) == (False, "holiday", "manual")
    assert api.ok("get", f"{path}/status")["state"] == "paused"
    assert api.ok("post", f"{path}/resume/")["enabled"] is True
    off = api.ok("patch", path, {"enabled": False, "note": "off"})
    assert (off["enabled"], off["pause"]["note"]) == (False, "off")
    assert api.ok("patch", path, {"enabled": True})["enabled"] is True
    replaced = api.ok("put", path, {"workflow": "etl", "name": "daily", "cron_expression": "@daily"})
    assert (replaced["timezone"], replaced["end_date"], replaced["max_executions"]) == ("UTC", None, None)
    actions = [entry["action"] for entry in api.ok("get", f"{path}/audit")["results"]]
    assert {"schedule.create", "schedule.update", "schedule.pause", "schedule.resume"} <= set(actions)
    assert len(api.ok("get", f"{path}/versions")["results"]) == 3
    api.ok("delete", path, status=204)
    api.refused("get", path, status=404)
    assert api.ok("get", f"{path}/audit")["results"][0]["action"] == "schedule.delete"


def test_a_trigger_starts_an_execution_beside_the_timetable(api: Api) -> None:
    made = make(api, input={"n": 1}, priority="high", queue="io")
    path = f"/api/schedules/{made['id']}"
    api.ok("post", f"{path}/pause")
    started = api.ok("post", f"{path}/trigger", status=201)
    assert started["source"] == {"kind": "schedule", "id": made["id"], "label": "nightly", "scheduled_for": None}
    assert (started["input"], started["priority"], started["queue"]) == ({"n": 1}, 3, "io")
    edited = api.ok("post", f"{path}/trigger", {"input": {"n": 2}, "idempotency_key": "k", "priority": 0}, status=201)
    assert edited["input"] == {"n": 2}
    again = api.ok("post", f"{path}/trigger", {"input": {"n": 2}, "idempotency_key": "k", "priority": 0})
    assert again["id"] == edited["id"]
    assert [e["id"] for e in api.ok("get", f"{path}/executions")["results"]] == [edited["id"], started["id"]]
    assert api.ok("get", f"{path}/executions?state=failed")["results"] == []
    rows = api.ok("get", f"{path}/history")["results"]
    assert [(row["kind"], row["execution"]) for row in rows] == [("manual", edited["id"]), ("manual", started["id"])]
    status = api.ok("get", f"{path}/status")
    assert (status["open_executions"], status["last_execution"]["id"]) == (2, edited["id"])


def test_history_tells_how_each_instant_ended(api: Api) -> None:
    made = make(api, cron_expression="* * * * *", start_date=None, overlap_policy="allow_all")
    schedule = Schedule.objects.get(pk=made["id"])
    now = factories.now()
    past = now - timedelta(minutes=5)
    Schedule.objects.filter(pk=schedule.pk).update(fired_through=past, next_fire_at=past)
    schedule.versions.update(effective_from=past)
    firing.fire_due(now=now)
    path = f"/api/schedules/{made['id']}"
    rows, following = [], f"{path}/history?limit=2"
    while following:
        page = api.ok("get", following)
        rows += page["results"]
        following = page["next"]
    assert len(rows) == ScheduleFire.objects.count() == 5
    assert [row["scheduled_for"] for row in rows] == sorted((row["scheduled_for"] for row in rows), reverse=True)
    assert {row["outcome"] for row in rows} == {"started"}
    assert {row["execution"] for row in rows} == {str(pk) for pk in Execution.objects.values_list("pk", flat=True)}
    assert api.ok("get", f"{path}/history?outcome=missed")["results"] == []
    status = api.ok("get", f"{path}/status")
    assert (status["started_count"], status["remaining"], status["last_day"]["started"]) == (5, 0, 5)
    stats = api.ok("get", "/api/schedules/stats")
    assert (stats["total"], stats["last_day"]["executions"]) == (1, {"queued": 5})
    for bad in ("outcome=odd", "cursor=xyz", "cursor=IjIwMjYi", "limit=0"):
        api.refused("get", f"{path}/history?{bad}", status=400, field=bad.split("=")[0])


def test_stats_count_schedules_by_state(api: Api) -> None:
    make(api)
    other = make(api, name="other", enabled=False)
    assert other["pause"]["kind"] == "manual"
    make(api, name="over", cron_expression="0 0 30 2 *")
    stats = api.ok("get", "/api/schedules/stats/")
    assert stats["total"] == 3
    assert stats["by_state"]["paused"] == 1
    assert stats["firing_stopped"] is False
    assert len(api.ok("get", "/api/schedules?state=active")["results"]) >= 1
    assert [s["name"] for s in api.ok("get", "/api/schedules?state=paused")["results"]] == ["other"]
    assert [s["name"] for s in api.ok("get", "/api/schedules?enabled=false&search=oth")["results"]] == ["other"]
    assert api.ok("get", "/api/schedules?workflow=etl&state=finished")["results"] is not None
    assert api.ok("get", f"/api/schedules?workflow={uuid4()}")["results"] == []


def test_a_preview_shows_the_next_fires_and_what_the_clocks_do(api: Api) -> None:
    body = {
        "cron_expression": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "count": 2,
        "after": "2026-03-28T12:00:00Z",
    }
    shown = api.ok("post", "/api/schedules/preview", body)
    assert shown["next"][0]["change"] == "moved"
    assert len(shown["next"]) == 2
    made = make(api)
    assert len(api.ok("get", f"/api/schedules/{made['id']}/preview?count=3")["next"]) == 3
    api.refused("get", f"/api/schedules/{made['id']}/preview?count=0", status=400, field="count")
    api.refused("post", "/api/schedules/preview", {"cron_expression": "x"}, status=400, field="cron_expression")
    api.refused("post", "/api/schedules/preview", {}, status=400, field="cron_expression")


def test_other_timetables_than_cron(api: Api) -> None:
    every = make(api, cron_expression=None, interval=300)
    assert (every["interval"], every["cron_expression"]) == (300, None)
    merged = [{"kind": "cron", "expression": "0 1 * * *"}, {"kind": "once", "at": "2199-01-01T00:00:00Z"}]
    both = make(api, name="both", cron_expression=None, timetables=merged, end_date=None, jitter=60, dst_gap="skip")
    assert (both["timetables"], both["jitter"], both["dst_gap"]) == (merged, 60, "skip")
    spec = {"timetables": [{"kind": "interval", "every": 60}]}
    whole = make(api, name="whole", cron_expression=None, spec=spec, timezone="UTC", start_date=None, end_date=None)
    assert whole["interval"] == 60


def test_an_etag_guards_against_changes_of_others(api: Api) -> None:
    made = make(api)
    path = f"/api/schedules/{made['id']}"
    tag = api.get(path)["ETag"]
    api.ok("patch", path, {"description": "x"}, HTTP_IF_MATCH=tag)
    api.refused("patch", path, {"description": "y"}, status=412, HTTP_IF_MATCH=tag)
    api.refused("delete", path, status=412, HTTP_IF_MATCH=tag)


def test_all_firing_can_be_stopped_and_started(api: Api) -> None:
    assert api.ok("get", "/api/schedules/switch")["stopped"] is False
    assert api.ok("put", "/api/schedules/switch", {"stopped": True, "note": "deploy"})["stopped_by"] == "ada"
    again = api.ok("put", "/api/schedules/switch", {"stopped": True, "note": "still"})
    assert (again["stopped"], again["note"]) == (True, "still")
    made = make(api)
    assert api.ok("get", f"/api/schedules/{made['id']}/status")["state"] == "stopped"
    assert api.ok("put", "/api/schedules/switch", {"stopped": False})["stopped_at"] is None


def test_many_at_once(api: Api) -> None:
    ids = [make(api, name=f"s{n}", labels={"team": "data"})["id"] for n in range(3)]
    done = api.ok("post", "/api/schedules/bulk", {"action": "pause", "label": "team:data"})["done"]
    assert sorted(done) == sorted(ids)
    unknown = str(uuid4())
    assert api.ok("post", "/api/schedules/bulk", {"action": "resume", "ids": [ids[0], unknown]})["done"] == [ids[0]]
    tried = api.ok("post", "/api/schedules/bulk", {"action": "delete", "search": "s", "dry_run": True})
    assert ([row["name"] for row in tried["changed"]], tried["done"]) == (["s0", "s1", "s2"], [])
    change = {"action": "update", "ids": ids, "changes": {"priority": "high", "cron_expression": "5 4 * * *"}}
    assert len(api.ok("post", "/api/schedules/bulk", change)["done"]) == 3
    assert len(api.ok("post", "/api/schedules/bulk", change)["unchanged"]) == 3
    assert api.ok("get", f"/api/schedules/{ids[2]}")["cron_expression"] == "5 4 * * *"
    assert len(api.ok("post", "/api/schedules/bulk", {"action": "delete", "workflow": "etl"})["done"]) == 3
    api.refused("post", "/api/schedules/bulk", {"action": "delete"}, status=400, field="body")


def test_a_copy_has_its_own_history(api: Api) -> None:
    made = make(api)
    copy = api.ok("post", f"/api/schedules/{made['id']}/clone", {"name": "copy"}, status=201)
    assert (copy["cron_expression"], copy["name"]) == ("0 2 * * *", "copy")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "name"),
    ({"name": ""}, "name"),
    ({"name": 5}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"workflow": "nope"}, "workflow"),
    ({"workflow": None}, "workflow"),
    ({"workflow": 5}, "workflow"),
    ({"workflow": str(uuid4())}, "workflow"),
    ({"cron_expression": "61 * * * *"}, "cron_expression"),
    ({"cron_expression": ""}, "cron_expression"),
    ({"cron_expression": None}, "cron_expression"),
    ({"cron_expression": 5}, "cron_expression"),
    ({"cron_expression": "* * * * *" * 500}, "cron_expression"),
    ({"timezone": "Mars/Base"}, "timezone"),
    ({"timezone": None}, "timezone"),
    ({"enabled": "yes"}, "enabled"),
    ({"enabled": None}, "enabled"),
    ({"start_date": "soon"}, "start_date"),
    ({"start_date": 5}, "start_date"),
    ({"start_date": "2027-01-01", "end_date": "2026-01-01"}, "end_date"),
    ({"max_executions": 0}, "max_executions"),
    ({"max_executions": "5"}, "max_executions"),
    ({"max_executions": 1.5}, "max_executions"),
    ({"max_executions": 10**12}, "max_executions"),
    ({"retry_policy": {"max_attempts": "many"}}, "retry_policy.max_attempts"),
    ({"retry_policy": {"tries": 1}}, "retry_policy.tries"),
    ({"metadata": []}, "metadata"),
    ({"priority": 10}, "priority"),
    ({"queue": "nowhere"}, "queue"),
    ({"overlap_policy": "maybe"}, "overlap_policy"),
    ({"catch_up": 5}, "catch_up"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"jitter": -1}, "jitter"),
    ({"labels": {"a": 1}}, "labels"),
    ({"input": []}, "input"),
    ({"interval": 60}, "interval"),
    ({"surprise": 1}, "surprise"),
    ({"cron_expression": None, "timetables": [{"kind": "odd"}]}, "timetables.0.kind"),
    ({"cron_expression": None, "spec": {"timetables": [{"kind": "odd"}]}}, "spec.timetables.0.kind"),
    ({"calendars": {"exclude": ["unknown"]}}, "calendars.exclude.0"),
]


@pytest.mark.parametrize(("change", "field"), BAD, ids=range(len(BAD)))
def test_a_bad_field_is_named_and_nothing_is_made(api: Api, change: dict[str, Any], field: str) -> None:
    api.refused("post", "/api/schedules", {**FLAT, **change}, status=400, field=field)
    assert not Schedule.objects.exists()


def test_what_is_missing_is_named(api: Api) -> None:
    problem = api.refused("post", "/api/schedules", {}, status=400, field="name")
    assert "workflow" in problem["errors"]
    api.refused("post", "/api/schedules", {"name": "x", "workflow": "etl"}, status=400, field="cron_expression")


def test_a_name_is_used_once_and_unknown_ids_are_not_found(api: Api) -> None:
    made = make(api)
    api.refused("post", "/api/schedules", FLAT, status=409, field="name")
    for verb in ("pause", "resume", "trigger", "clone"):
        api.refused("post", f"/api/schedules/{uuid4()}/{verb}", {}, status=404)
        api.refused("post", f"/api/schedules/nonsense/{verb}", {}, status=404)
    for part in ("", "/history", "/status", "/preview", "/versions", "/executions"):
        api.refused("get", f"/api/schedules/{uuid4()}{part}", status=404)
    api.refused("post", f"/api/schedules/{made['id']}/trigger", {"input": 5}, status=400, field="input")
    api.refused(
        "post", f"/api/schedules/{made['id']}/pause", {"until": "2020-01-01T00:00:00Z"}, status=400, field="until"
    )
    api.refused("post", f"/api/schedules/{made['id']}/pause", {"until": "soon"}, status=400, field="until")


def test_a_calendar_is_pinned_and_found_by_previews(api: Api) -> None:
    Calendar.objects.create(name="closed", definition={"kind": "dates", "dates": ["2027-01-01"]})
    calendars = {"exclude": ["closed"]}
    body = {"cron_expression": "0 0 * * *", "calendars": calendars, "after": "2026-12-31T12:00:00Z", "count": 1}
    shown = api.ok("post", "/api/schedules/preview", body)
    assert shown["next"][0]["utc"] == "2027-01-02T00:00:00Z"
    made = make(api, calendars=calendars)
    assert made["calendars"]["exclude"] == ["closed"]
    bare = api.ok("patch", f"/api/schedules/{made['id']}", {"calendars": None})
    assert bare["calendars"] is None
    api.refused("patch", f"/api/schedules/{made['id']}", {"timetables": []}, status=400)
    api.refused("put", f"/api/schedules/{made['id']}", {"name": "x", "workflow": "etl"}, status=400)
    api.refused("get", "/api/schedules/nonsense/executions", status=404)


def test_what_cannot_be_done_in_bulk_is_named(api: Api) -> None:
    made = make(api)
    Schedule.objects.update(
        enabled=False, paused_at=factories.now(), pause_kind="finished", max_executions=1, started_count=1
    )
    result = api.ok("post", "/api/schedules/bulk", {"action": "resume", "label": "x", "ids": [made["id"]]})
    assert result["done"] == result["unchanged"] == []
    result = api.ok("post", "/api/schedules/bulk", {"action": "resume", "ids": [made["id"]]})
    assert result["unchanged"] == [{"id": made["id"], "name": "nightly"}]
    pause = {"action": "pause", "ids": [made["id"]]}
    assert api.ok("post", "/api/schedules/bulk", pause)["done"] == []
    assert api.ok("get", f"/api/schedules/{made['id']}/status")["state"] == "finished"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"action": "update", "search": "n"}, "changes"),
        ({"action": "pause", "search": "n", "changes": {"priority": 1}}, "changes"),
        ({"action": "update", "search": "n", "changes": {"priority": 77}}, "changes.priority"),
        ({"action": "update", "search": "n", "changes": {"enabled": False}}, "changes.enabled"),
        ({"action": "update", "search": "n", "changes": {"note": "x"}}, "changes.note"),
        ({"action": "update", "search": "n", "changes": {"timezone": "Asia/Tokyo"}}, "changes.timezone"),
        ({"action": "update", "search": "n", "changes": {"cron_expression": "x"}}, "changes.cron_expression"),
        ({"action": "update", "search": "n", "changes": {"name": "same"}}, "changes.name"),
        (
            {"action": "update", "search": "n", "changes": {"interval": 5, "cron_expression": "x"}},
            "changes.interval",
        ),
        ({"action": "explode", "search": "n"}, "action"),
    ],
)
def test_what_cannot_be_the_same_for_many_is_named(api: Api, asked: dict[str, Any], field: str) -> None:
    make(api)
    before = api.ok("get", "/api/schedules")
    api.refused("post", "/api/schedules/bulk", asked, status=400, field=field)
    assert api.ok("get", "/api/schedules") == before


def test_one_that_refuses_stops_the_change_of_all(api: Api) -> None:
    strict = factories.make_workflow(
        "strict", definition={"input": {"required": ["day"]}, "steps": {"s": {"task": "demo.tasks.noop"}}}
    )
    make(api)
    make(api, name="strict", workflow=str(strict.pk), input={"day": 1})
    Schedule.objects.update(labels={"x": "1"})
    change = {"action": "update", "label": "x:1", "changes": {"input": {"n": 1}}}
    problem = api.refused("post", "/api/schedules/bulk", change, status=409)
    assert [row["name"] for row in problem["refused"]] == ["strict"]
    tried = api.ok("post", "/api/schedules/bulk", change | {"dry_run": True})
    assert ([row["name"] for row in tried["changed"]], [row["name"] for row in tried["refused"]]) == (
        ["nightly"],
        ["strict"],
    )
    assert not Schedule.objects.filter(input={"n": 1}).exists()
