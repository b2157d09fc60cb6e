"""A jump of the clock ahead is not the death of every worker, and a jump back does not keep the dead alive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import engine, queue
from execution.maintenance import Rescued
from execution.models import StepRun
from execution.rescuer import Rescuer
from tests.execution import flow

pytestmark = pytest.mark.django_db

LEASE = 30.0


@pytest.fixture(autouse=True)
def lease(settings: Any) -> None:
    settings.WORKFLOW_LEASE_SECONDS = LEASE


def held() -> StepRun:
    execution = flow.begin({"a": flow.http()})
    flow.held(execution, "a")
    return flow.step(execution, "a")


def test_a_jump_ahead_gives_every_worker_one_lease_to_renew() -> None:
    living, dead, rescuer, now = held(), held(), Rescuer(), engine.now()
    assert rescuer.rescue(now=now, monotonic=100.0) == Rescued()
    ahead = now + timedelta(hours=1)
    assert rescuer.rescue(now=ahead, monotonic=101.0) == Rescued()
    assert living.lease_token is not None
    assert queue.heartbeat(living.pk, living.lease_token, lease=LEASE, now=ahead)
    just_before = ahead + timedelta(seconds=LEASE - 2)
    assert rescuer.rescue(now=just_before, monotonic=101.0 + LEASE - 2) == Rescued()
    assert queue.heartbeat(living.pk, living.lease_token, lease=LEASE, now=just_before)
    assert rescuer.rescue(now=ahead + timedelta(seconds=LEASE), monotonic=101.0 + LEASE) == Rescued(queued=1)
    living.refresh_from_db()
    dead.refresh_from_db()
    assert (living.state, dead.state) == ("running", "queued")


def test_time_that_passes_on_both_clocks_is_no_jump() -> None:
    run, rescuer, now = held(), Rescuer(), engine.now()
    rescuer.rescue(now=now, monotonic=0.0)
    assert rescuer.rescue(now=now + timedelta(hours=1), monotonic=3_600.0) == Rescued(queued=1)
    run.refresh_from_db()
    assert run.state == "queued"


def test_after_a_jump_back_a_dead_worker_is_found_within_one_lease() -> None:
    run, rescuer, now = held(), Rescuer(), engine.now()
    StepRun.objects.filter(pk=run.pk).update(lease_until=now + timedelta(hours=1, seconds=LEASE))
    rescuer.rescue(now=now + timedelta(hours=1), monotonic=0.0)
    assert rescuer.rescue(now=now, monotonic=1.0) == Rescued()
    run.refresh_from_db()
    assert run.lease_until == now + timedelta(seconds=LEASE)
    assert rescuer.rescue(now=now + timedelta(seconds=LEASE + 1), monotonic=2.0 + LEASE) == Rescued(queued=1)


def test_a_rescuer_reads_both_clocks_itself() -> None:
    held()
    assert Rescuer().rescue() == Rescued()
