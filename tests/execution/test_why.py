"""Why isn't it running? Each blocker by its name, and by whom."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import creation, engine, expected_start, lifecycle, queues
from execution.models import Attempt, Execution, Pool, ProcessReport, StepRun
from execution.plans import plan_by_id
from execution.steps import workflow as call
from execution.why import why
from scheduling_project.common.ids import uuid7
from tests import factories
from tests.execution.flow import begin, claim, fresh, held, http, step, succeed

pytestmark = pytest.mark.django_db(transaction=True)


def first(execution: Execution) -> dict[str, Any]:
    loaded = Execution.objects.select_related("workflow", "version").get(pk=execution.pk)
    found: dict[str, Any] = why(loaded)["blockers"][0]
    return found


def test_a_pool_and_a_key_name_those_who_hold_them() -> None:
    Pool.objects.create(name="db", slots=4)
    pooled = {"a": http(pool={"name": "db"})}
    holders = [begin(pooled) for _ in range(4)]
    waits = begin(pooled)
    for execution in holders:
        held(execution, "a")
    assert claim(waits, "a") is None
    blocker = first(waits)
    assert blocker["code"] == "pool"
    assert "0 of 4 slots free" in blocker["message"]
    assert str(holders[0].pk) in blocker["message"]
    assert "and others" in blocker["message"]
    Pool.objects.all().delete()
    assert "is gone" in first(waits)["message"]
    workflow = factories.make_workflow(definition={"steps": {"a": http()}})
    one, two = (creation.start(workflow, concurrency_key="k") for _ in range(2))
    assert (first(two)["code"], str(one.pk) in first(two)["message"]) == ("key", True)
    Execution.objects.filter(pk=one.pk).update(key_held=False)
    assert "nobody any more" in first(two)["message"]


def test_a_rate_and_a_drained_queue_are_named() -> None:
    execution = begin({"a": http()})
    later = engine.now() + timedelta(minutes=1)
    StepRun.objects.update(available_at=later, rate_slot_at=later, state_reason="rate limit k: 1 per 60 s")
    blocker = first(execution)
    assert (blocker["code"], blocker["until"]) == ("rate", later)
    assert "rate limit k" in blocker["message"]
    StepRun.objects.update(available_at=engine.now(), rate_slot_at=None)
    queues.drain("default", actor="ada", note="deploy")
    assert (first(execution)["code"], first(execution)["message"]) == (
        "queue_drained", "Queue default was drained by ada (deploy).",
    )  # fmt: skip


def test_the_start_is_estimated_from_what_began_lately() -> None:
    ProcessReport.objects.create(name="w", kind="worker", host="h", pid=1, queues=["default"], slots=2)
    for _ in range(3):
        succeed(begin({"a": http()}), "a")
    ahead = begin({"a": http()})
    waits = begin({"a": http()})
    assert first(ahead)["code"] == "next"
    blocker = first(waits)
    assert (blocker["code"], "behind 1 others" in blocker["message"]) == ("behind", True)
    assert blocker["until"] is not None
    assert step(waits, "a").state == "queued"


def test_the_place_in_a_pool_or_key_is_estimated_from_how_long_its_users_took() -> None:
    Pool.objects.create(name="db", slots=2)
    pooled = {"a": http(pool={"name": "db", "units": 2})}
    begun = engine.now()
    done = begin(pooled)
    succeed(done, "a")
    Attempt.objects.update(started_at=begun - timedelta(seconds=60), finished_at=begun)
    held(begin(pooled), "a")
    ahead, waits = begin(pooled), begin(pooled)
    assert claim(ahead, "a") is None
    assert claim(waits, "a") is None
    one, two = first(ahead)["until"] - engine.now(), first(waits)["until"] - engine.now()
    assert timedelta(seconds=50) < one < timedelta(seconds=61)  # two units of two: a minute each
    assert timedelta(seconds=110) < two < timedelta(seconds=121)

    workflow = factories.make_workflow(definition={"steps": {"a": http()}})
    ended = creation.start(workflow)
    succeed(ended, "a")
    Execution.objects.filter(pk=ended.pk).update(started_at=begun - timedelta(hours=1), finished_at=begun)
    holder, second, third = (creation.start(workflow, concurrency_key="k") for _ in range(3))
    held(holder, "a")
    left, later = first(second)["until"] - engine.now(), first(third)["until"] - engine.now()
    assert timedelta(minutes=59) < left < timedelta(minutes=61)
    assert timedelta(minutes=119) < later < timedelta(minutes=121)


def test_a_wide_step_that_waits_for_a_pool_costs_no_more_than_a_narrow_one(
    django_assert_max_num_queries: Any,
) -> None:
    Pool.objects.create(name="db", slots=1)
    held(begin({"a": http(pool={"name": "db"})}), "a")
    waits = begin({"a": http(pool={"name": "db"}, for_each=list(range(20)))})
    for index in range(20):
        assert claim(waits, "a", index) is None
    with django_assert_max_num_queries(8):
        codes = [blocker["code"] for blocker in answer(waits)["blockers"]]
    assert codes == ["child", *["pool"] * 20]
    workflow = factories.make_workflow(definition={"steps": {"a": http(), "b": http()}})
    _, second = (creation.start(workflow, concurrency_key="k") for _ in range(2))
    assert [blocker["code"] for blocker in answer(second)["blockers"]] == ["key", "key"]


def test_nothing_is_estimated_where_nothing_has_happened() -> None:
    now = engine.now()
    nobody = factories.make_workflow()
    assert expected_start.in_queue("default", ahead=1, now=now) is None
    assert expected_start.of_pool("none", step_run=uuid7(), priority=6, units=1, now=now) is None
    key = expected_start.of_key("none", execution=uuid7(), workflow=nobody.pk, priority=6, now=now)
    assert key is None


def test_every_other_blocker_is_named() -> None:
    ProcessReport.objects.create(name="w", kind="worker", host="h", pid=1, queues=["default"], slots=1)
    execution = begin({"a": http(), "b": http("a"), "sign": {"approval": {"expires": "1h"}, "needs": ["b"]}})
    assert first(execution)["code"] == "next"
    assert first(execution)["until"] is not None  # at once: a slot is free
    codes = {blocker["step"]: blocker for blocker in answer(execution)["blockers"]}
    assert (codes["b"]["code"], codes["b"]["message"]) == ("needs", "b waits for a (queued).")
    succeed(execution, "a")
    succeed(execution, "b")
    assert (first(execution)["code"], "at most until" in first(execution)["message"]) == ("approval", True)
    queues.pause("default", actor="ada", note="deploy")
    paused = begin({"a": http()})
    assert first(paused)["message"] == "Queue default was paused by ada (deploy)."
    unserved = begin({"a": http(queue="io")})
    assert first(unserved)["code"] == "no_worker"
    limited = begin({"a": {"wait": 60}}, options={"timeout": 5})
    assert (first(limited)["code"], answer(limited)["deadline_at"]) == ("timer", fresh(limited).deadline_at)
    lifecycle.pause(limited.pk, actor="eve", note="stop")
    assert answer(limited)["summary"] == "It is paused by eve: stop; resume it."
    queues.resume("default", actor="ada")
    factories.make_workflow("called", {"steps": {"work": http()}})
    caller = begin({"call": {"workflow": "called"}})
    taken = held(caller, "call")
    assert call.hand_over(taken, call.perform(taken, plan_by_id(taken.version_id).steps["call"], {"name": "called"}))
    told = f"call waits for execution {taken.token} of workflow called, which is queued."
    assert (first(caller)["code"], first(caller)["message"]) == ("child", told)
    Execution.objects.filter(pk=taken.token).delete()
    assert "which is gone" in first(caller)["message"]


def answer(execution: Execution) -> dict[str, Any]:
    return why(Execution.objects.select_related("workflow", "version").get(pk=execution.pk))
