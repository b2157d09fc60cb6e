"""Memory limits of steps, as far as they can be had without ending the process."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from django.db import OperationalError

from execution import engine, limits, workflows
from execution.failures import failure_of
from execution.graph import compile_plan
from execution.limits import MemoryLimitExceeded, memory_kept, memory_of
from scheduling_project.common.errors import InvalidInput
from tests.execution import flow
from tests.patience import PATIENCE


@pytest.mark.parametrize(
    ("stated", "size"), [("500MB", 500_000_000), ("1.5 GiB", 3 << 29), ("2048KiB", 1 << 21), (1_000_000, 1_000_000)]
)
def test_sizes_are_read(stated: int | str, size: int) -> None:
    assert memory_of(stated) == size


@pytest.mark.parametrize("stated", ["", "lots", "5", "5 mb", "1KB", "999999999999GB", 5])
def test_bad_sizes_are_refused(stated: int | str) -> None:
    with pytest.raises(ValueError, match="must be"):
        memory_of(stated)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "step",
    [
        {**flow.http(), "limits": {"memory": "1KB"}},
        {**flow.http(), "limits": {"memory": "much"}},
        {**flow.http(), "limits": {}},
        {"wait": 5, "limits": {"memory": "100MB"}},
    ],
)
def test_a_definition_with_a_bad_limit_is_refused(step: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        workflows.create("limited", {"steps": {"a": step}}, actor="ada")
    assert "limits" in str(refused.value.fields)


def test_a_plan_knows_the_limit_in_bytes() -> None:
    assert compile_plan({"steps": {"a": flow.http(limits={"memory": "2MB"})}}).steps["a"].memory == 2_000_000
    assert compile_plan({"steps": {"a": flow.http()}}).steps["a"].memory is None


def test_policies_know_it_by_name() -> None:
    assert failure_of(MemoryLimitExceeded("x")).names[:2] == ("memory", "execution.limits.MemoryLimitExceeded")
    assert "memory" in failure_of(MemoryError()).names


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(limits, "_end", lambda process: codes.append(os.getpid()))
    monkeypatch.setattr(limits, "PERIOD", 0.01)
    monkeypatch.setattr(engine, "close", lambda: None)
    return codes


def wait_for(told: list[Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize(("written", "ends"), [(True, 1), (False, 0)])
def test_above_the_limit_the_failure_is_written_and_the_process_ends(
    ended: list[int], written: bool, ends: int
) -> None:
    told: list[str] = []

    def fail(error: MemoryLimitExceeded) -> bool:
        told.append(str(error))
        return written

    with memory_kept(1_000_000, may_exit=True, fail=fail):
        wait_for(told)
    assert told[0].endswith("its limit is 1 MB")
    assert len(ended) == ends


def test_a_failure_that_cannot_be_written_ends_the_process_too(ended: list[int]) -> None:
    def fail(error: MemoryLimitExceeded) -> bool:
        raise OperationalError("gone")

    with memory_kept(1_000_000, may_exit=True, fail=fail):
        wait_for(ended)
    assert len(ended) == 1


@pytest.mark.parametrize(("limit", "may_exit"), [(None, True), (1_000_000, False), (1 << 45, True)])
def test_nothing_happens_below_it_without_it_or_in_a_thread_pool(
    ended: list[int], limit: int | None, may_exit: bool
) -> None:
    told: list[Any] = []
    with memory_kept(limit, may_exit=may_exit, fail=lambda error: bool(told.append(error))):  # type: ignore[func-returns-value]
        time.sleep(0.05)
    assert not told
    assert not ended
