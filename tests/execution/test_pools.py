"""Pools are made, resized and deleted; pools and keys tell who holds them and who waits."""

from __future__ import annotations

from typing import Any

import pytest

from execution import creation, pools
from execution.models import AuditEntry, Pool
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests import factories
from tests.api_client import Api
from tests.execution.flow import begin, claim, http, step, succeed

pytestmark = pytest.mark.django_db(transaction=True)
POOLED = {"a": http(pool={"name": "db", "units": 2})}


@pytest.fixture
def api(db: None) -> Api:
    return Api()


def test_a_pool_is_made_used_resized_and_deleted(api: Api) -> None:
    made = api.ok("post", "/api/pools", {"name": "db", "slots": 2, "description": "d"}, status=201)
    assert (made["id"], made["slots"], made["used"], made["free"], made["holders"]) == ("db", 2, 0, 2, [])
    first, second = begin(POOLED), begin(POOLED)
    assert claim(first, "a") is not None
    assert claim(second, "a") is None
    read = api.ok("get", "/api/pools/db")
    assert (read["used"], read["waiting"]) == (2, 1)
    assert [(h["execution"], h["units"], h["step_run"]) for h in read["holders"]] == [
        (str(first.pk), 2, str(step(first, "a").pk))
    ]
    assert [w["execution"] for w in read["waiters"]] == [str(second.pk)]
    assert api.ok("get", "/api/pools/")["results"][0]["waiting"] == 1
    api.refused("delete", "/api/pools/db", status=409)
    assert api.ok("patch", "/api/pools/db", {"slots": 4})["slots"] == 4
    assert step(second, "a").state == "queued"  # at once
    assert claim(second, "a") is not None
    assert api.ok("patch", "/api/pools/db", {"description": "smaller", "slots": 1})["free"] == 0
    Pool.objects.update(used=0)
    api.ok("delete", "/api/pools/db", status=204)
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True)) == [
        "pool.create", "pool.update", "pool.update", "pool.delete",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"slots": 1}, "name"),
        ({"name": "a b", "slots": 1}, "name"),
        ({"name": "x", "slots": -1}, "slots"),
        ({"name": "x", "slots": "4"}, "slots"),
        ({"name": "x", "slots": 1, "used": 1}, "used"),
    ],
)
def test_a_bad_pool_names_the_field(api: Api, body: dict[str, Any], field: str) -> None:
    api.refused("post", "/api/pools", body, status=400, field=field)
    assert not Pool.objects.exists()


def test_what_is_not_there_or_taken(api: Api) -> None:
    pools.create("db", slots=1, actor="ada")
    api.refused("post", "/api/pools", {"name": "db", "slots": 1}, status=409, field="name")
    api.refused("patch", "/api/pools/db", {"slots": -1}, status=400, field="slots")
    with pytest.raises(InvalidInput):
        pools.update("db", slots=-1, actor="ada")
    with pytest.raises(Conflict):
        pools.create("db", slots=1, actor="ada")
    for verb in (
        lambda: pools.update("x", actor="ada"),
        lambda: pools.delete("x", actor="ada"),
        lambda: pools.get_key("x"),
    ):
        with pytest.raises(NotFound):
            verb()
    for path in ("/api/pools/x", "/api/concurrency-keys/x"):
        api.refused("get", path, status=404)


def test_a_key_tells_who_holds_it_and_who_waits(api: Api) -> None:
    workflow = factories.make_workflow(definition={"steps": {"a": http()}})
    first, low, high = (creation.start(workflow, concurrency_key="eu/customer 1", priority=p) for p in (6, 9, 0))
    assert [key["id"] for key in api.ok("get", "/api/concurrency-keys")["results"]] == ["eu/customer 1"]
    found = pools.key_waiters("eu/customer 1")
    assert [user.execution for user in found] == [high.pk, low.pk]
    creation.start(workflow, concurrency_key="plain")
    read = api.ok("get", "/api/concurrency-keys/plain")
    assert (read["limit"], read["used"], len(read["holders"]), read["waiters"]) == (1, 1, 1, [])
    succeed(first, "a")
    assert [user.execution for user in pools.key_holders("eu/customer 1")] == [high.pk]


def test_a_queue_is_drained_and_reordered_over_the_api(api: Api) -> None:
    a, b = (step(begin({"a": http()}), "a") for _ in range(2))
    api.ok("post", "/api/queues/default/reorder", {"item": str(b.pk), "place": "before", "other": str(a.pk)})
    assert [run["id"] for run in api.ok("get", "/api/queues/default/peek")["results"]] == [str(b.pk), str(a.pk)]
    api.refused("post", "/api/queues/default/reorder", {"item": str(b.pk), "place": "up"}, status=400, field="place")
    assert api.ok("post", "/api/queues/default/drain", {"note": "x"})["status"] == "drained"
    assert api.ok("post", "/api/queues/default/resume", {})["status"] == "active"
