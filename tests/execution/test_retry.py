"""Retry decisions as tables: who states the policy, whether there is another attempt, and when."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.utils.time import get_exponential_backoff_interval
from hypothesis import given
from hypothesis import strategies as st

from execution import retry
from execution.retry import (
    NONE,
    Decision,
    Failure,
    Policy,
    calculate_retry_delay,
    decide,
    decide_worker_death,
    effective_policy,
)
from execution.retry import should_retry as asks_again

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
BOOM = Failure(("ValueError", "Exception", "BaseException"), "boom")
TASK = Policy(max_attempts=9, origin="task")


@pytest.mark.parametrize(
    ("step", "source", "workflow", "task", "origin", "attempts"),
    [
        ({"max_attempts": 5}, {"max_attempts": 6}, {"max_attempts": 7}, TASK, "step", 5),
        (None, {"max_attempts": 6}, {"max_attempts": 7}, TASK, "source", 6),
        (None, None, {"max_attempts": 7}, TASK, "workflow", 7),
        (None, None, None, TASK, "task", 9),
        (None, None, None, None, "none", 1),
        ({}, None, {"max_attempts": 7}, TASK, "step", 3),
    ],
)
def test_the_first_who_states_a_policy_decides_alone(
    step: Any, source: Any, workflow: Any, task: Policy | None, origin: str, attempts: int
) -> None:
    policy = effective_policy(step=step, source=source, workflow=workflow, task=task)
    assert (policy.origin, policy.max_attempts) == (origin, attempts)


def test_a_policy_comes_back_as_the_json_that_it_was_made_of() -> None:
    stated = {"max_attempts": 4, "retry_on": ["5xx", "timeout"], "give_up_on": ["ValueError"], "jitter": False}
    shown = Policy.of(stated, origin="workflow").as_json()
    assert shown["origin"] == "workflow"
    assert {name: shown[name] for name in stated} == stated
    assert shown["backoff"] == 2.0


@pytest.mark.parametrize(
    ("policy", "failure", "failures", "again", "reason"),
    [
        (Policy(max_attempts=3), BOOM, 1, True, "attempt 1 of 3 failed with ValueError"),
        (Policy(max_attempts=3), BOOM, 2, True, "attempt 2 of 3"),
        (Policy(max_attempts=3), BOOM, 3, False, "attempt 3 of 3 was the last"),
        (NONE, BOOM, 1, False, "the policy allows one attempt"),
        (Policy(max_attempts=retry.UNLIMITED), BOOM, 5_000, True, "failed with ValueError"),
        (Policy(retry_on=("OSError",)), BOOM, 1, False, "ValueError is not in retry_on"),
        (Policy(retry_on=("Exception",)), BOOM, 1, True, "attempt 1"),
        (Policy(give_up_on=("ValueError",)), BOOM, 1, False, "ValueError is in give_up_on"),
        (Policy(retry_on=("Exception",), give_up_on=("ValueError",)), BOOM, 1, False, "give_up_on"),
        (Policy(retry_on=("5xx",)), Failure(("503", "5xx"), ""), 1, True, "failed with 503"),
        (Policy(retry_on=("5xx",), give_up_on=("503",)), Failure(("503", "5xx"), ""), 1, False, "503 is in give_up_on"),
        (Policy(), Failure((), "nameless"), 1, True, "failed with failure"),
        (Policy(), Failure(("X",), "", asked="fail"), 1, False, "asked to be rejected"),
        # What the step's code asks for itself goes before the lists, and its own limit before the policy's.
        (Policy(retry_on=("OSError",)), Failure(("X",), "", asked="retry"), 1, True, "attempt 1 of 3"),
        (Policy(max_attempts=3), Failure(("X",), "", asked="retry", max_attempts=6), 5, True, "attempt 5 of 6"),
        (Policy(max_attempts=9), Failure(("X",), "", asked="retry", max_attempts=1), 1, False, "one attempt"),
        # The task's own limit counts only where nobody stated a policy for it.
        (NONE, Failure(("X",), "", asked="retry", task_attempts=4), 3, True, "attempt 3 of 4"),
        (TASK, Failure(("X",), "", asked="retry", task_attempts=4), 4, False, "attempt 4 of 4 was the last"),
        (Policy(max_attempts=8, origin="step"), Failure(("X",), "", asked="retry", task_attempts=4), 5, True, "of 8"),
    ],
)
def test_whether_there_is_another_attempt(
    policy: Policy, failure: Failure, failures: int, again: bool, reason: str
) -> None:
    found, why = asks_again(policy, failure, failures=failures)
    assert found is again
    assert reason in why


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (Policy(jitter=False), [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]),
        (Policy(backoff=1, backoff_max=5, jitter=False), [1, 2, 4, 5, 5]),
        (Policy(backoff=0, jitter=True), [0, 0, 0]),
        (Policy(backoff=3, factor=1, jitter=False), [3, 3, 3]),
        (Policy(backoff=0.5, factor=2, jitter=False), [0.5, 1, 2, 4]),
        (Policy(backoff=1, factor=3, backoff_max=20, jitter=False), [1, 3, 9, 20, 20]),
        (Policy(backoff=1, factor=1.5, jitter=False), [1, 1.5, 2.25, 3.375]),
        (Policy(backoff=5, backoff_max=0, jitter=False), [0, 0]),
        (Policy(backoff=5, factor=3, backoff_max=0, jitter=False), [0, 0]),
    ],
)
def test_delays_grow_up_to_their_cap(policy: Policy, delays: list[float]) -> None:
    assert [calculate_retry_delay(policy, failures=n) for n in range(1, len(delays) + 1)] == pytest.approx(delays)


def test_a_delay_stays_finite_however_often_a_step_has_failed() -> None:
    for factor in (1.0, 2.0, 10.0):
        assert calculate_retry_delay(Policy(factor=factor, jitter=False), failures=10**6) <= 600


@given(
    backoff=st.integers(1, 3600),
    backoff_max=st.integers(1, 100_000),
    failures=st.integers(1, 40),
    jitter=st.booleans(),
    seed=st.integers(),
)
def test_delays_are_celerys_own(backoff: int, backoff_max: int, failures: int, jitter: bool, seed: int) -> None:
    policy = Policy(backoff=backoff, backoff_max=backoff_max, jitter=jitter)
    random.seed(seed)
    ours = calculate_retry_delay(policy, failures=failures)
    random.seed(seed)
    assert ours == get_exponential_backoff_interval(backoff, failures - 1, backoff_max, jitter)


@given(backoff=st.floats(0, 86_400), factor=st.floats(1, 10), cap=st.floats(0, 604_800), failures=st.integers(1, 10**6))
def test_full_jitter_lies_between_zero_and_the_cap(backoff: float, factor: float, cap: float, failures: int) -> None:
    policy = Policy(backoff=backoff, factor=factor, backoff_max=cap)
    assert 0 <= calculate_retry_delay(policy, failures=failures) <= cap + 0.001


def later(**delay: float) -> datetime:
    return NOW + timedelta(**delay)


@pytest.mark.parametrize(
    ("failure", "failures", "decision", "at"),
    [
        (BOOM, 1, Decision.RETRY, later(seconds=2)),
        (BOOM, 2, Decision.RETRY, later(seconds=4)),
        (BOOM, 3, Decision.FAIL, None),
        (Failure(("503", "5xx"), "", retry_after=120.0), 1, Decision.RETRY, later(seconds=120)),
        (Failure(("X",), "", retry_after=0.0, asked="retry"), 1, Decision.RETRY, NOW),
        (Failure(("snooze",), "closed", retry_after=60.0, asked="snooze"), 99, Decision.SNOOZE, later(seconds=60)),
        (Failure(("Reject",), "", asked="snooze"), 99, Decision.SNOOZE, NOW),
        (Failure(("Ignore",), "", asked="ignore"), 1, Decision.CANCEL, None),
        (Failure(("Reject",), "", asked="fail"), 1, Decision.FAIL, None),
    ],
)
def test_one_failure_one_decision(failure: Failure, failures: int, decision: Decision, at: datetime | None) -> None:
    found = decide(Policy(max_attempts=3, jitter=False), failure, failures=failures, now=NOW)
    assert (found.decision, found.at) == (decision, at)
    assert found.reason or failure.asked == "snooze"


@pytest.mark.parametrize("asked", ["snooze", "retry"])
@pytest.mark.parametrize(
    ("delay", "expected"),
    [(math.inf, retry.MAX_DELAY), (-math.inf, 0), (math.nan, 0), (-5.0, 0), (1e300, retry.MAX_DELAY)],
)
def test_an_absurd_delay_is_bounded(asked: Any, delay: float, expected: float) -> None:
    found = decide(Policy(), Failure(("X",), "", retry_after=delay, asked=asked), failures=1, now=NOW)
    assert found.at == later(seconds=expected)


def test_a_decision_can_be_read_later() -> None:
    found = decide(Policy(jitter=False, origin="step"), BOOM, failures=1, now=NOW).as_json()
    assert found["decision"] == "retry"
    assert found["at"] == "2026-03-29T01:30:02+00:00"
    assert found["policy"]["origin"] == "step"
    assert decide(NONE, BOOM, failures=1, now=NOW).as_json()["at"] is None


@pytest.mark.parametrize(
    ("options", "deaths", "failures", "decision", "seconds", "reason"),
    [
        ({}, 1, 1, "retry", 0, "w was lost"),
        ({}, 2, 9, "retry", 0, "w was lost"),
        ({}, 3, 1, "fail", None, "w was lost: 3 workers died in this step"),
        ({"retry_on": ["5xx"]}, 1, 1, "retry", 0, "w was lost"),
        ({"max_attempts": 1}, 2, 2, "retry", 0, "w was lost"),
        ({"give_up_on": ["worker_death"]}, 1, 1, "fail", None, "w was lost; worker_death is in give_up_on"),
        ({"retry_on": ["worker_death"]}, 1, 1, "retry", 2, "w was lost; attempt 1 of 3 failed with worker_death"),
        ({"retry_on": ["worker_death"]}, 2, 3, "fail", None, "w was lost; attempt 3 of 3 was the last"),
        ({"retry_on": ["worker_death"], "max_attempts": 9}, 5, 5, "retry", 32, "w was lost; attempt 5 of 9 failed"),
        ({"retry_on": ["worker_death"], "give_up_on": ["worker_death"]}, 1, 1, "fail", None, "give_up_on"),
    ],
)
def test_a_lost_worker_is_decided_about(
    options: Any, deaths: int, failures: int, decision: str, seconds: float | None, reason: str
) -> None:
    policy = Policy.of({"jitter": False, **options}, origin="step")
    found = decide_worker_death(policy, "w was lost", deaths=deaths, most_deaths=3, failures=failures, now=NOW)
    assert found.decision == decision
    assert reason in found.reason
    assert found.at == (None if seconds is None else NOW + timedelta(seconds=seconds))
