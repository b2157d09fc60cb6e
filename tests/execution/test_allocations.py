"""Leases on units of pools: taken, renewed, run out, given back, and nobody starves beside them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from execution import allocations, concurrency, dispatch, engine
from execution.models import Pool, PoolLease, StepRun
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests.api_client import Api
from tests.execution import flow

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(dispatch, "publish", len)
    return Pool.objects.create(name="db", slots=3)


def used() -> int:
    return Pool.objects.get().used


def take(units: int = 1, **options: Any) -> allocations.Lease | None:
    return allocations.allocate_resources("db", units=units, holder="etl", **options)


def test_units_are_taken_checked_and_given_back() -> None:
    assert allocations.check_resource_availability("db", units=3).is_available
    first = take(2)
    assert first is not None
    assert (first.units, first.pool, first.holder) == (2, "db", "etl")
    assert str(PoolLease.objects.get()) == "2 of db for etl"
    checked = allocations.check_resource_availability("db", units=2)
    assert (checked.free, checked.used, checked.is_available) == (1, 2, False)
    assert take(2) is None
    assert take() is not None
    assert used() == 3
    assert allocations.release(first.id)
    assert not allocations.release(first.id)
    assert used() == 1


def test_what_a_dead_holder_had_comes_back() -> None:
    lease = take(3, seconds=10)
    assert lease is not None
    longer = allocations.renew(lease.id, seconds=100)
    assert longer.expires_at > lease.expires_at
    assert allocations.expire() == 0
    late = engine.now() + timedelta(seconds=200)
    with pytest.raises(NotFound):
        allocations.renew(lease.id, now=late)
    assert allocations.expire(now=late) == 1
    assert used() == 0
    assert allocations.expire(now=late) == 0
    with pytest.raises(NotFound):
        allocations.renew(lease.id)


def test_steps_that_wait_for_the_pool_go_first() -> None:
    lease = take(3)
    assert lease is not None
    execution = flow.begin({"a": flow.http(pool={"name": "db", "units": 1})})
    assert flow.claim(execution, "a") is None
    assert flow.step(execution, "a").waiting_for == "pool"
    Pool.objects.update(slots=4)
    assert take() is None  # there is room, but not for those who ask later
    assert allocations.check_resource_availability("db").waiting == 1
    allocations.release(lease.id)
    concurrency.release()
    assert flow.claim(execution, "a") is not None
    assert take() is not None


@pytest.mark.parametrize(
    ("options", "field"),
    [({"units": 0}, "units"), ({"seconds": 0}, "seconds"), ({"seconds": 1e9}, "seconds"), ({"units": 10**7}, "units")],
)
def test_bad_wishes_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        take(**options)
    assert field in refused.value.fields
    assert used() == 0


def test_what_can_never_be_given_says_so() -> None:
    with pytest.raises(Conflict, match="3 slots"):
        take(4)
    for holder in ("", "x" * 201, "a\x00"):
        with pytest.raises(InvalidInput):
            allocations.allocate_resources("db", holder=holder)
    for call in (
        lambda: allocations.check_resource_availability("none"),
        lambda: allocations.allocate_resources("none", holder="x"),
        lambda: allocations.renew(uuid4()),
    ):
        with pytest.raises(NotFound):
            call()


def test_a_step_that_needs_many_units_is_not_starved_by_those_that_need_few(settings: Any) -> None:
    """Before it has aged small ones pass it; from then on they wait behind it."""
    small = [flow.begin({"a": flow.http(pool={"name": "db", "units": 1})}) for _ in range(3)]
    big = flow.begin({"a": flow.http(pool={"name": "db", "units": 3})})
    later = [flow.begin({"a": flow.http(pool={"name": "db", "units": 1})}) for _ in range(2)]
    held = flow.held(small[0], "a")
    assert flow.claim(big, "a") is None
    second = flow.held(small[1], "a")  # the young big one is passed
    assert concurrency.release() == 0  # two units are taken: it does not fit, and is not woken in vain
    StepRun.objects.filter(execution=big).update(aged=1, priority=5)
    assert flow.claim(later[0], "a") is None
    assert flow.step(later[0], "a").waiting_for == "pool"
    StepRun.objects.filter(pk__in=[held.id, second.id]).update(
        state="succeeded", lease_token=None, lease_until=None, finished_at=engine.now()
    )
    concurrency.release()
    assert flow.step(big, "a").state == "queued"
    assert flow.claim(big, "a") is not None
    assert used() == 3


def test_leases_are_shown_among_the_allocations() -> None:
    take(2)
    (shown,) = Api().ok("get", "/api/resources")["allocations"]
    assert (shown["kind"], shown["holder"], shown["units"]) == ("lease", "etl", 2)
    assert shown["expires_at"] is not None
