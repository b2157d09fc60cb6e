"""Conflicts, previews of changes, upsert, clones that differ, and schedules as documents, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User

from execution.models import AuditEntry
from schedules.models import Schedule
from tests import factories
from tests.api_client import Api

BODY: dict[str, Any] = {"workflow": "etl", "name": "nightly", "cron_expression": "0 2 * * *"}


@pytest.fixture(autouse=True)
def _etl(db: None) -> None:
    factories.make_workflow("etl")


def make(api: Api, **change: Any) -> Any:
    return api.ok("post", "/api/schedules", {**BODY, **change}, status=201)


# ── Conflicts ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_saved_comes_back_with_its_conflicts(api: Api) -> None:
    first = make(api)
    assert first["warnings"] == []
    second = make(api, name="again", cron_expression="00 02 * * *")
    (warning,) = second["warnings"]
    assert (warning["code"], warning["severity"]) == ("duplicate", "warning")
    assert warning["schedules"] == [{"id": first["id"], "name": "nightly"}]
    assert "the same timing and the workflow etl" in warning["message"]
    path = f"/api/schedules/{second['id']}"
    assert api.ok("patch", path, {"cron_expression": "0 3 * * *"})["warnings"] == []
    assert len(api.ok("put", path, {**BODY, "name": "again"})["warnings"]) == 1
    assert api.ok("patch", path, {"on_conflict": "ignore"})["warnings"] == []
    assert "warnings" not in api.ok("get", path)


def test_conflicts_on_demand_of_one_and_of_all(api: Api) -> None:
    first = make(api)
    second = make(api, name="again")
    make(api, name="never", cron_expression="0 0 30 2 *")
    found = api.ok("get", f"/api/schedules/{first['id']}/conflicts")
    assert [conflict["code"] for conflict in found["conflicts"]] == ["duplicate"]
    assert (found["considered"], found["truncated"]) == (1, False)
    every = api.ok("get", "/api/schedules/conflicts")
    assert sorted(conflict["code"] for conflict in every["conflicts"]) == ["duplicate", "never_fires"]
    assert api.ok("get", "/api/schedules/conflicts?code=blackout&hours=48")["conflicts"] == []
    assert api.ok("get", "/api/schedules/conflicts?severity=warning&search=again")["conflicts"] == []
    api.refused("get", "/api/schedules/conflicts?hours=0", status=400, field="hours")
    api.refused("get", "/api/schedules/conflicts?code=what", status=400, field="code")
    assert second["id"]


def test_a_schedule_may_refuse_its_conflicts(api: Api) -> None:
    make(api)
    problem = api.refused("post", "/api/schedules", {**BODY, "name": "b", "on_conflict": "reject"}, status=409)
    assert problem["code"] == "schedule_conflicts"
    assert problem["conflicts"][0]["severity"] == "error"
    assert "on_conflict" in problem["errors"]
    never = {**BODY, "name": "c", "cron_expression": "0 0 30 2 *", "on_conflict": {"never_fires": "reject"}}
    assert api.refused("post", "/api/schedules", never, status=409)["conflicts"][0]["code"] == "never_fires"
    assert Schedule.objects.count() == 1
    made = make(api, name="d", on_conflict={"duplicate": "warn", "default": "reject"})
    assert made["on_conflict"] == {"duplicate": "warn", "default": "reject"}
    api.refused("patch", f"/api/schedules/{made['id']}", {"on_conflict": "reject"}, status=409)
    assert api.ok("get", f"/api/schedules/{made['id']}")["revision"] == 1
    api.refused("patch", f"/api/schedules/{made['id']}", {"on_conflict": "maybe"}, status=400, field="on_conflict")


# ── Changes before they are made ─────────────────────────────────────────────────────────────────────────────


def test_a_change_is_seen_before_it_is_made(api: Api) -> None:
    made = make(api)
    entries = AuditEntry.objects.count()
    path = f"/api/schedules/{made['id']}/preview-change"
    seen = api.ok("post", path, {"changes": {"cron_expression": "0 3 * * *", "priority": "high"}})
    assert seen["changes"]["priority"] == {"before": 6, "after": 3}
    assert (seen["fires"]["moved_count"], seen["fires"]["added"], seen["fires"]["removed"]) == (30, [], [])
    assert seen["fires"]["moved"][0]["from"].endswith("T02:00:00Z")
    assert seen["fires"]["moved"][0]["to"].endswith("T03:00:00Z")
    more = api.ok("post", path, {"changes": {"cron_expression": "0 2,14 * * *"}})["fires"]
    assert (more["added_count"], more["kept_count"]) == (30, 30)
    once = api.ok("post", path, {"changes": {"max_executions": 1}})["fires"]
    assert (once["removed_count"], once["kept_count"]) == (29, 1)
    off = api.ok("post", path, {"changes": {"enabled": False}})
    assert (off["fires"]["removed_count"], off["changes"]["enabled"]) == (30, {"before": True, "after": False})
    assert api.ok("get", f"/api/schedules/{made['id']}") == {k: v for k, v in made.items() if k != "warnings"}
    assert AuditEntry.objects.count() == entries


def test_pause_resume_and_delete_are_seen_before_they_are_done(api: Api) -> None:
    made = make(api)
    path = f"/api/schedules/{made['id']}"
    seen = api.ok("post", f"{path}/preview-change", {"action": "delete"})
    assert (seen["fires"]["removed_count"], seen["changes"]["name"]["after"], seen["warnings"]) == (30, None, [])
    assert api.ok("post", f"{path}/preview-change", {"action": "pause"})["fires"]["kept_count"] == 0
    until = (factories.now() + factories.timedelta(days=10)).isoformat()
    shorter = api.ok("post", f"{path}/preview-change", {"action": "pause", "until": until})["fires"]
    assert (shorter["removed_count"], shorter["kept_count"]) == (10, 20)
    api.ok("post", f"{path}/pause", {"note": "x"})
    assert api.ok("post", f"{path}/preview-change", {"action": "resume"})["fires"]["added_count"] == 30
    Schedule.objects.update(pause_kind="finished", paused_until=None)
    assert api.ok("post", f"{path}/preview-change", {"action": "delete"})["fires"]["removed_count"] == 0
    api.refused("post", f"{path}/preview-change", {"action": "pause"}, status=409)


@pytest.mark.parametrize(
    ("asked", "status", "field"),
    [
        ({"changes": {"cron_expression": "x"}}, 400, "changes.cron_expression"),
        ({"changes": {"what": 1}}, 400, "changes.what"),
        ({"changes": {"priority": "soon"}}, 400, "changes.priority"),
        ({"changes": {"retry_policy": {"max_attempts": 0}}}, 400, "changes.retry_policy.max_attempts"),
        ({"action": "pause", "until": "2020-01-01T00:00:00Z"}, 400, "until"),
        ({"action": "explode"}, 400, "action"),
    ],
)
def test_a_preview_refuses_what_the_change_would(api: Api, asked: Any, status: int, field: str) -> None:
    made = make(api)
    api.refused("post", f"/api/schedules/{made['id']}/preview-change", asked, status=status, field=field)


# ── Upsert, clone ────────────────────────────────────────────────────────────────────────────────────────────


def test_upsert_is_safe_to_repeat(api: Api) -> None:
    body = {**BODY, "external_id": "crm-7", "note": "sync", "enabled": False}
    made = api.ok("post", "/api/schedules/upsert", body, status=201)
    assert api.ok("post", "/api/schedules/upsert", body)["revision"] == made["revision"]
    renamed = api.ok("post", "/api/schedules/upsert", {**body, "name": "renamed", "enabled": True})
    assert (renamed["id"], renamed["name"], renamed["enabled"]) == (made["id"], "renamed", True)
    by_name = api.ok("post", "/api/schedules/upsert", {"name": "renamed", "workflow": "etl", "priority": "low"})
    assert (by_name["id"], by_name["cron_expression"], by_name["priority"]) == (made["id"], "0 2 * * *", 9)
    missing = {"name": "new", "workflow": "etl"}
    api.refused("post", "/api/schedules/upsert", missing, status=400, field="spec")
    assert AuditEntry.objects.filter(action="schedule.update", note="sync").count() == 1


def test_a_clone_may_differ(api: Api) -> None:
    made = make(api, labels={"a": "b"})
    path = f"/api/schedules/{made['id']}/clone"
    copy = api.ok("post", path, {"name": "b", "changes": {"timezone": "Asia/Tokyo", "enabled": False}}, status=201)
    assert (copy["timezone"], copy["cron_expression"], copy["enabled"]) == ("Asia/Tokyo", "0 2 * * *", False)
    assert copy["labels"] == {"a": "b"}
    api.refused("post", path, {"name": "c", "changes": {"name": "d"}}, status=400, field="changes.name")
    api.refused("post", path, {"name": "c", "changes": {"timezone": "Moon"}}, status=400, field="changes.timezone")
    api.refused("post", path, {"name": "nightly"}, status=409, field="name")
    assert Schedule.objects.count() == 2


# ── As code ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_exported_can_be_applied(api: Api) -> None:
    make(api, labels={"team": "data"})
    make(api, name="other")
    documents = api.ok("get", "/api/schedules/export?label=team:data")["schedules"]
    assert [document["name"] for document in documents] == ["nightly"]
    changed = [{**documents[0], "priority": 1}, {**documents[0], "name": "new"}]
    tried = api.ok("post", "/api/schedules/apply", {"schedules": changed, "dry_run": True})
    assert (tried["created"], tried["updated"][0]["changes"]["priority"]) == (["new"], {"before": 6, "after": 1})
    assert Schedule.objects.count() == 2
    done = api.ok("post", "/api/schedules/apply", {"schedules": changed})
    assert (done["created"], [row["name"] for row in done["updated"]], done["dry_run"]) == (["new"], ["nightly"], False)
    again = api.ok("post", "/api/schedules/apply", {"schedules": changed[:1], "prune": True})
    assert (again["unchanged"], again["pruned"]) == (["nightly"], ["new"])
    assert Schedule.objects.filter(name="other").exists()


def test_one_wrong_document_applies_none(api: Api) -> None:
    wrong = [{"name": "a", "workflow": "etl", "spec": {"timetables": []}}, 5, {"name": "b", "workflow": "nobody"}]
    problem = api.refused("post", "/api/schedules/apply", {"schedules": wrong}, status=400, field="schedules.1")
    assert {"schedules.0.timetables", "schedules.2.workflow"} <= problem["errors"].keys()
    assert not Schedule.objects.exists()
    api.refused("post", "/api/schedules/apply", {}, status=400, field="schedules")


def test_each_asks_for_the_permissions_of_what_it_does(api: Api) -> None:
    make(api)
    user = User.objects.create_user("eve")
    names = ("view_schedule", "change_schedule", "add_schedule")
    document = {"name": "nightly", "workflow": "etl", "spec": {"timetables": [{"kind": "interval", "every": 60}]}}

    def eve(*allowed: str) -> Api:
        user.user_permissions.set(Permission.objects.filter(codename__in=allowed))
        return Api(user=User.objects.get(pk=user.pk))

    eve("view_schedule").ok("get", "/api/schedules/export")
    update = {"action": "update", "search": "n", "changes": {"priority": 1}}
    eve("view_schedule").refused("post", "/api/schedules/bulk", update, status=403)
    eve("change_schedule").refused("post", "/api/schedules/upsert", BODY, status=403)
    eve("change_schedule").refused("post", "/api/schedules/apply", {"schedules": [document]}, status=403)
    prune = {"schedules": [document], "prune": True}
    assert (
        eve(*names).refused("post", "/api/schedules/apply", prune, status=403)["permission"].endswith("delete_schedule")
    )
    assert eve(*names).ok("post", "/api/schedules/apply", {"schedules": [document]})["created"] == []
