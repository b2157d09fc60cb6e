"""`/api/calendars`."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError

from schedules import shared_calendars
from schedules.models import ScheduleVersion
from tests import factories
from tests.api_client import Api

WEEKEND: dict[str, Any] = {"kind": "weekly", "days": ["sat", "sun"]}


def make(api: Api, name: str = "weekend", definition: Any = WEEKEND) -> Any:
    return api.ok("post", "/api/calendars", {"name": name, "definition": definition}, status=201)


def schedule(api: Api, calendar: str, name: str = "nightly", *, status: int = 201) -> Any:
    factories.make_workflow(f"etl of {name}")
    body = {"name": name, "workflow": f"etl of {name}", "cron_expression": "0 2 * * *"}
    return api.ok("post", "/api/schedules", {**body, "calendars": {"exclude": [calendar]}}, status=status)


def test_the_life_of_a_calendar(api: Api) -> None:
    made = make(api, definition={"kind": "weekly", "days": ["Sunday", "SAT"]})
    path = f"/api/calendars/{made['id']}"
    assert (made["definition"], made["kind"], made["revision"], made["description"]) == (WEEKEND, "weekly", 1, "")
    assert api.ok("get", f"{path}/") == made
    assert api.ok("get", "/api/calendars?kind=weekly&search=week")["results"] == [made]
    assert api.ok("get", "/api/calendars?kind=dates")["results"] == []
    changed = api.ok("patch", path, {"description": "ours", "name": "days off"})
    assert (changed["description"], changed["name"], changed["revision"]) == ("ours", "days off", 2)
    assert api.ok("patch", path, {"description": "ours"})["revision"] == 2
    replaced = api.ok("put", path, {"name": "days off", "definition": {"kind": "weekly", "days": ["fri"]}})
    assert (replaced["description"], replaced["definition"]["days"]) == ("", ["fri"])
    api.ok("delete", path, status=204)
    api.refused("get", path, status=404)
    actions = [entry["action"] for entry in api.ok("get", f"{path}/audit")["results"]]
    assert actions == ["calendar.delete", "calendar.update", "calendar.update", "calendar.create"]


def test_a_stale_revision_is_refused(api: Api) -> None:
    made = make(api)
    path = f"/api/calendars/{made['id']}"
    assert api.answer("get", path)["ETag"] == '"1"'
    api.ok("patch", path, {"description": "x"}, HTTP_IF_MATCH='"1"')
    api.refused("patch", path, {"description": "y"}, status=412, HTTP_IF_MATCH='"1"')
    api.refused("delete", path, status=412, HTTP_IF_MATCH='"1"')
    api.ok("delete", path, status=204, HTTP_IF_MATCH='"2"')


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"definition": WEEKEND}, 400, "name"),
        ({"name": "x"}, 400, "definition"),
        ({"name": "x", "definition": []}, 400, "definition"),
        ({"name": "", "definition": WEEKEND}, 400, "name"),
        ({"name": "x", "definition": {"kind": "moon"}}, 400, "definition.kind"),
        ({"name": "x", "definition": {"kind": "union", "of": ["nowhere"]}}, 400, "definition"),
        ({"name": "x", "definition": {"kind": "union", "of": ["x"]}}, 400, "definition"),
        ({"name": "x", "definition": WEEKEND, "colour": "red"}, 400, "colour"),
        ({"name": "weekend", "definition": WEEKEND}, 409, "name"),
    ],
)
def test_what_cannot_be_meant_is_refused(api: Api, body: dict[str, Any], status: int, field: str) -> None:
    make(api)
    api.refused("post", "/api/calendars", body, status=status, field=field)


@pytest.mark.parametrize("id", ["0", "9" * 18, "9" * 30, "x", "²", "-1"])
@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_what_is_not_there_is_not_found(api: Api, id: str, method: str) -> None:
    api.refused(method, f"/api/calendars/{id}", {} if method == "patch" else None, status=404)


def test_a_calendar_in_use_stays_and_keeps_its_name(api: Api) -> None:
    inner, outer = make(api), make(api, "off", {"kind": "union", "of": ["weekend"]})
    users = [schedule(api, "off", name=f"s{number}") for number in range(6)]
    refusal = api.refused("delete", f"/api/calendars/{inner['id']}", status=409)
    assert "calendar off" in refusal["detail"]
    assert "and 2 more" in refusal["detail"]
    api.refused("patch", f"/api/calendars/{outer['id']}", {"name": "other"}, status=409)
    listed = api.ok("get", f"/api/calendars/{inner['id']}/schedules")["results"]
    assert {row["id"] for row in listed} == {user["id"] for user in users}
    for user in users:
        api.ok("patch", f"/api/schedules/{user['id']}", {"calendars": None})
    api.ok("delete", f"/api/calendars/{outer['id']}", status=204)
    api.ok("delete", f"/api/calendars/{inner['id']}", status=204)


def test_a_schedule_pins_what_it_names_until_it_is_applied(api: Api) -> None:
    made = make(api)
    path = f"/api/calendars/{made['id']}"
    user = schedule(api, "weekend")
    assert user["spec"]["calendars"]["data"] == {"weekend": WEEKEND}
    fridays = {"kind": "weekly", "days": ["fri"]}
    api.ok("patch", path, {"definition": fridays})
    assert api.ok("get", f"/api/schedules/{user['id']}")["spec"] == user["spec"]
    assert api.ok("post", f"{path}/apply") == {"updated": [user["id"]], "refused": []}
    now = api.ok("get", f"/api/schedules/{user['id']}")
    assert (now["version"], now["spec"]["calendars"]["data"]) == (2, {"weekend": fridays})
    assert api.ok("post", f"{path}/apply") == {"updated": [], "refused": []}
    api.refused("post", "/api/calendars/0/apply", status=404)


def test_a_schedule_that_cannot_take_it_is_named(api: Api) -> None:
    made = make(api)
    user = schedule(api, "weekend")
    for version in ScheduleVersion.objects.all():
        version.spec["timezone"] = "Mars/Base"
        version.save()
    found = api.ok("post", f"/api/calendars/{made['id']}/apply")
    assert (found["updated"], found["refused"][0]["id"]) == ([], user["id"])
    assert "Mars/Base" in found["refused"][0]["reason"]


def test_a_calendar_has_a_name(api: Api) -> None:
    with pytest.raises(IntegrityError):
        shared_calendars.create(actor="ada", name="", definition=WEEKEND)


@pytest.mark.parametrize("use", ["weekent", {"kind": "union", "of": ["weekent"]}])
def test_a_name_that_no_calendar_has_is_named(api: Api, use: Any) -> None:
    make(api)
    factories.make_workflow("etl")
    body = {"name": "n", "workflow": "etl", "cron_expression": "0 2 * * *", "calendars": {"exclude": [use]}}
    refusal = api.refused("post", "/api/schedules", body, status=400, field="calendars.exclude.0")
    assert "there is no calendar 'weekent'" in refusal["errors"]["calendars.exclude.0"][0]


@pytest.mark.parametrize("calendars", [{"exclude": ["weekend"], "data": 5}, {"exclude": ["a\x00b"]}])
def test_calendars_that_make_no_sense_are_refused(api: Api, calendars: Any) -> None:
    factories.make_workflow("etl")
    body = {"name": "n", "workflow": "etl", "cron_expression": "0 2 * * *", "calendars": calendars}
    api.refused("post", "/api/schedules", body, status=400)
    api.refused("post", "/api/schedules/preview", {"cron_expression": "0 2 * * *", "calendars": calendars}, status=400)
