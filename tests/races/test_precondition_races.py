"""Two changes of one thing at once, both by people who have read the same state of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from execution import pools
from schedules import lifecycle as schedules
from tests import factories
from tests.api_client import Api

pytestmark = [
    pytest.mark.race,
    pytest.mark.django_db(transaction=True, databases=["default", "engine"]),
    pytest.mark.usefixtures("engine_connection"),
]

Race = Callable[..., list[Any]]


def statuses(race: Race, path: str, *requests: tuple[str, str, dict[str, Any]]) -> list[int]:
    tag = Api().get(path)["ETag"]

    def send(method: str, verb: str, body: dict[str, Any]) -> int:
        return Api().answer(method, path + verb, body, headers={"If-Match": tag}).status_code

    return sorted(race(*[lambda request=request: send(*request) for request in requests]))


@pytest.mark.parametrize("round", range(3))
def test_of_two_changes_with_one_tag_one_is_made(race: Race, round: int) -> None:
    Api()
    pools.create("p", slots=1, actor="ada")
    assert statuses(race, "/api/pools/p", *[("patch", "", {"slots": slots}) for slots in (2, 3)]) == [200, 412]


@pytest.mark.parametrize("round", range(3))
def test_a_pause_and_an_edit_with_one_tag_are_not_both_made(race: Race, round: int) -> None:
    Api()
    factories.make_workflow("w")
    spec = {"timetables": [{"kind": "interval", "every": 3600}]}
    schedule = schedules.create(name="s", workflow="w", spec=spec, actor="ada")
    path = f"/api/schedules/{schedule.pk}"
    assert statuses(race, path, ("post", "/pause", {}), ("patch", "", {"owner": "bob"})) == [200, 412]


def test_a_deletion_of_what_was_just_changed_is_refused(race: Race) -> None:
    Api()
    factories.make_workflow("w")
    answers = statuses(race, "/api/workflows/w", ("delete", "", {}), ("patch", "", {"description": "x"}))
    assert answers in ([204, 404], [200, 412], [204, 412])


def test_an_execution_is_cancelled_once_by_one_tag(race: Race) -> None:
    """Nothing locks its row outside of the engine's own connection: each transition names the state it leaves."""
    Api()
    execution = factories.make_execution(with_steps=True)
    path = f"/api/executions/{execution.pk}"
    answers = statuses(race, path, ("post", "/cancel", {}), ("post", "/cancel", {}))
    assert answers[0] == 200
    assert answers[1] in {409, 412}
