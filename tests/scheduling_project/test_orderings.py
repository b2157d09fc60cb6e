"""Every list in pages can be ordered, by what its description names and nothing else, and pages stay whole."""

from __future__ import annotations

from typing import Any

import pytest

from tests import api_world
from tests.api_client import Api
from tests.api_world import World
from tests.scheduling_project.test_conventions import assert_refused, operations, send
from tests.scheduling_project.test_lists import one_more

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    made = api_world.build()
    for number in range(3):
        one_more(number)
    return made


def ordered_lists() -> dict[str, list[str]]:
    """Path → the orderings that it takes."""
    found = {}
    for method, path, operation in operations():
        parameters = {one["name"]: one for one in operation.get("parameters", [])}
        if method == "get" and "cursor" in parameters and "history" not in path.rpartition("schedules")[2]:
            found[path] = parameters["ordering"]["schema"]["enum"] if "ordering" in parameters else []
    return found


def test_every_list_in_pages_can_be_ordered_and_refuses_what_it_does_not_know(world: World) -> None:
    api = Api()
    assert len(ordered_lists()) > 25
    for path, choices in ordered_lists().items():
        assert choices, path
        for bad in ("nonsense", "", "-", "--created_at", "pk", "-id", f"{choices[0]},{choices[0]}", "workflow__name"):
            problem = assert_refused(send(api, "get", f"{world.url(path)}?ordering={bad}"), (path, bad))
            assert "ordering" in problem["errors"], (path, bad)


def test_every_ordering_orders_and_its_pages_hold_every_row_once(world: World) -> None:
    api = Api()
    for path, choices in ordered_lists().items():
        for choice in choices:
            whole = api.ok("get", f"{world.url(path)}?ordering={choice}&limit=200")["results"]
            values = [one.get(choice.removeprefix("-")) for one in whole if choice.removeprefix("-") in one]
            known: list[Any] = [value for value in values if value is not None]
            assert known == sorted(known, reverse=choice.startswith("-")), (path, choice)
            paged: list[Any] = []
            url = f"{world.url(path)}?ordering={choice}&limit=2"
            while url:
                page = api.ok("get", url)
                paged += page["results"]
                url = page["next"]
            assert paged == whole, (path, choice)


def test_schedules_that_never_fire_come_last_and_the_next_one_first(world: World) -> None:
    api = Api()
    never = {"name": "over", "workflow": "daily-report", "cron_expression": "0 0 30 2 *"}
    api.ok("post", "/api/schedules", never, status=201)
    due = [one["next_fire_at"] for one in api.ok("get", "/api/schedules?ordering=next_fire_at")["results"]]
    assert due[-1] is None
    assert due[:-1] == sorted(due[:-1])
    assert api.ok("get", "/api/schedules?ordering=-next_fire_at")["results"][0]["name"] == "over"
