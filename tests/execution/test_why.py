"""Why isn't it running? Each blocker by its name, and by whom."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import creation, engine, queues
from execution.models import Execution, Pool, ProcessReport, StepRun
from execution.why import why
from tests import factories
from tests.execution.flow import begin, claim, held, http, step, succeed

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
