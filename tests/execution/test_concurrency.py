"""Concurrency keys and pools: who waits, who is next, and nothing overbooked or forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from execution import concurrency, creation, queue
from execution.models import ConcurrencyKey, Execution, Pool, StepRun
from tests.execution.test_engine_flow import TASK, begin, claim, fail, fresh, states, step, succeed, workflow

pytestmark = pytest.mark.django_db(transaction=True)


def key(limit: int = 1, on_conflict: str = "queue") -> dict[str, Any]:
    return {"key": "${{ input.customer }}", "limit": limit, "on_conflict": on_conflict}


def test_a_second_execution_of_a_key_waits_and_goes_on_when_the_first_ends() -> None:
    made = workflow({"a": TASK}, concurrency=key())
    first, second, other = (creation.start(made, input={"customer": name}) for name in ("x", "x", "y"))
    assert [states(e) for e in (first, second, other)] == [{"a": "queued"}, {"a": "waiting"}, {"a": "queued"}]
    assert step(second, "a").waiting_for == "key"
    succeed(first, "a")
    assert states(second) == {"a": "queued"}
    succeed(second, "a")
    succeed(other, "a")
    assert set(ConcurrencyKey.objects.values_list("used", flat=True)) == {0}


def test_a_key_may_have_several_places_and_the_next_is_chosen_by_priority() -> None:
    made = workflow({"a": TASK}, concurrency=key(limit=2))
    runs = [creation.start(made, input={"customer": "x"}, priority=p) for p in (6, 6, 9, 0)]
    assert [states(e)["a"] for e in runs] == ["queued", "queued", "waiting", "waiting"]
    succeed(runs[0], "a")
    assert [states(e)["a"] for e in runs] == ["succeeded", "queued", "waiting", "queued"]


def test_an_execution_may_be_skipped_while_its_key_is_busy() -> None:
    made = workflow({"a": TASK}, concurrency=key(on_conflict="skip"))
    creation.start(made, input={"customer": "x"})
    second = creation.start(made, input={"customer": "x"})
    assert (second.state, second.state_reason) == ("cancelled", "skipped: x was busy")


def test_a_newer_execution_may_cancel_the_older_ones_of_its_key() -> None:
    made = workflow({"a": TASK}, concurrency=key(on_conflict="cancel_older"))
    first = creation.start(made, input={"customer": "x"})
    second = creation.start(made, input={"customer": "x"})
    assert fresh(first).state == "cancelled"
    assert states(second) == {"a": "queued"}


def test_cancelling_the_holder_frees_its_place_at_the_next_housekeeping() -> None:
    made = workflow({"a": TASK}, concurrency=key())
    first, second = (creation.start(made, input={"customer": "x"}) for _ in range(2))
    assert queue.cancel(first.pk, reason="not wanted")
    assert concurrency.release() == 1
    assert states(second) == {"a": "queued"}
    assert concurrency.release() == 0


def test_a_first_step_that_needs_a_decision_waits_for_the_key_too() -> None:
    made = workflow({"each": TASK | {"for_each": [1, 2]}}, concurrency=key())
    first, second = (creation.start(made, input={"customer": "x"}) for _ in range(2))
    assert StepRun.objects.filter(parent__execution=first).count() == 2
    assert not StepRun.objects.filter(parent__execution=second).exists()
    for index in range(2):
        succeed(first, "each", index=index)
    assert StepRun.objects.filter(parent__execution=second).count() == 2


def test_a_null_key_shares_nothing() -> None:
    made = workflow({"a": TASK}, concurrency=key())
    assert [states(creation.start(made, input={}))["a"] for _ in range(2)] == ["queued", "queued"]


def pooled(units: int = 1) -> dict[str, Any]:
    return TASK | {"pool": {"name": "db", "units": units}}


def test_a_full_pool_parks_the_claim_and_the_next_goes_on_when_units_come_back() -> None:
    Pool.objects.create(name="db", slots=2)
    made = workflow({"a": pooled()})
    runs = [creation.start(made) for _ in range(4)]
    held = [claim(step(run, "a")) for run in runs]
    assert [claimed is not None for claimed in held] == [True, True, False, False]
    assert Pool.objects.get().used == 2
    assert step(runs[2], "a").waiting_for == "pool"
    assert StepRun.objects.filter(dispatched_at__isnull=False).count() == 0
    claimed = held[0]
    assert claimed is not None
    queue.reschedule(
        claimed.id,
        token=claimed.token,
        state=queue.StepState.QUEUED,
        attempt_state=queue.AttemptState.RELEASED,
        at=None,
    )
    assert concurrency.release() == 1
    assert states(runs[2]) == {"a": "queued"}
    assert states(runs[3]) == {"a": "waiting"}


def test_a_step_may_take_several_units_and_gives_them_back_when_it_ends() -> None:
    Pool.objects.create(name="db", slots=3)
    made = workflow({"a": pooled(units=2)})
    first, second = creation.start(made), creation.start(made)
    assert claim(step(second, "a")) is not None
    assert claim(step(first, "a")) is None
    assert Pool.objects.get().used == 2
    queue.cancel(second.pk, reason="x")
    concurrency.release()
    succeed(first, "a")
    concurrency.release()
    assert Pool.objects.get().used == 0


def test_a_failed_step_gives_its_units_back() -> None:
    Pool.objects.create(name="db", slots=1)
    execution = begin({"a": pooled()})
    fail(execution, "a")
    assert Pool.objects.get().used == 0


def test_a_pool_that_does_not_exist_bounds_nothing() -> None:
    execution = begin({"a": pooled()})
    succeed(execution, "a")
    assert fresh(execution).state == "succeeded"


def test_what_a_schedule_or_a_caller_names_wins_over_the_definition() -> None:
    made = workflow({"a": TASK}, concurrency=key())
    for _ in range(2):
        creation.start(made, input={"customer": "x"}, concurrency_key="mine")
    assert set(Execution.objects.values_list("concurrency_key", flat=True)) == {"mine"}
    assert sorted(StepRun.objects.values_list("state", flat=True)) == ["queued", "waiting"]
