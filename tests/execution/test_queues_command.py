"""`manage.py queues`: queues, pools and concurrency keys."""

from __future__ import annotations

import pytest

from execution.models import ConcurrencyKey, Pool
from execution.states import StepState
from tests import factories
from tests.commands import ends, read, run
from tests.execution.flow import begin, http, step

pytestmark = pytest.mark.django_db
NOBODY = "00000000-0000-7000-8000-000000000000"


def test_queues_are_listed_with_what_waits_by_level() -> None:
    begin({"a": http()})
    factories.make_step_run(state=StepState.RUNNING)
    found = {one["name"]: one for one in read("queues", "list")}
    assert (found["default"]["running"], found["default"]["status"]) == (1, "active")
    assert "default" in run("queues", "list")
    assert len(run("queues", "list", "--levels").splitlines()) == 2


def test_a_queue_is_paused_drained_and_resumed() -> None:
    run("queues", "pause", "io", "--note", "away")
    assert "away" in run("queues", "list")
    run("queues", "resume", "io")
    run("queues", "drain", "io")
    assert {one["name"]: one["status"] for one in read("queues", "list")}["io"] == "drained"


def test_what_comes_next_is_peeked_and_reordered() -> None:
    first, second = begin({"a": http()}), begin({"a": http()})
    assert [one["id"] for one in read("queues", "peek", "default")] == [
        str(step(one, "a").pk) for one in (first, second)
    ]
    run("queues", "reorder", "default", second.pk, "first")
    assert [one["id"] for one in read("queues", "peek", "default", "--limit", 1)] == [str(step(second, "a").pk)]
    run("queues", "reorder", "default", second.pk, "after", first.pk)
    assert str(first.pk) in run("queues", "peek", "default").splitlines()[1]


def test_pools_are_made_sized_shown_and_deleted() -> None:
    run("queues", "set-pool", "db", 4, "--description", "the warehouse")
    run("queues", "set-pool", "db", 2)
    assert (Pool.objects.get().slots, Pool.objects.get().description) == (2, "the warehouse")
    begin({"a": http(pool={"name": "db"})})
    assert read("queues", "pools")[0]["free"] == 2
    assert "db" in run("queues", "pools")
    assert read("queues", "pool", "db")["holders"] == []
    assert "warehouse" in run("queues", "pool", "db")
    Pool.objects.update(used=0)
    run("queues", "set-pool", "other", 1)
    run("queues", "delete-pool", "other")
    assert Pool.objects.count() == 1


def test_keys_are_listed_with_their_holders() -> None:
    begin({"a": http()}, concurrency={"key": "k"})
    assert ConcurrencyKey.objects.get().used == 1
    assert read("queues", "keys") == [{**read("queues", "keys")[0], "key": "k", "used": 1}]
    assert len(read("queues", "key", "k")["holders"]) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["pause", "none"], "There is no queue none"),
        (["resume", "io"], "is not paused"),
        (["peek", "none"], "There is no queue none"),
        (["reorder", "default", "x", "first"], "no step run or execution 'x'"),
        (["reorder", "default", NOBODY, "first"], "Nothing in queue default"),
        (["reorder", "default", NOBODY, "before"], "other: is needed"),
        (["pool", "none"], "no pool"),
        (["set-pool", "db", "-1"], "slots: "),
        (["key", "none"], "none"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_named(arguments: list[str], error: str) -> None:
    code, _, said = ends("queues", *arguments)
    assert (code, error in said) == (1, True), said
