"""What is measured from rows of executions, and the profile that the simulation gets of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import analysis
from execution.analysis import Anomaly, WorkflowPattern, failing_since, profile_of
from execution.graph import compile_plan
from execution.models import Execution, StepRun, Workflow, WorkflowVersion
from execution.states import AttemptState, ExecutionState, StepState
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.ids import uuid7_floor
from tests.factories import CHAIN, make_attempt, make_execution, make_output, make_step_run, make_workflow, now

pytestmark = pytest.mark.django_db


def ended(
    workflow: Workflow,
    seconds: float,
    *,
    state: ExecutionState = ExecutionState.SUCCEEDED,
    late: float = 0,
    waited: float = 1,
    output: Any = None,
    pool: str = "",
    version: WorkflowVersion | None = None,
) -> StepRun:
    """An execution of one step that worked so many seconds."""
    start = now() - timedelta(seconds=seconds)
    execution = make_execution(
        workflow,
        state=state,
        created_at=start - timedelta(seconds=waited),
        started_at=start,
        finished_at=start + timedelta(seconds=seconds),
        scheduled_for=start - timedelta(seconds=waited + late),
    )
    if version is not None:
        Execution.objects.filter(pk=execution.pk).update(version=version)
    run = make_step_run(
        execution,
        state=StepState(state.value),
        created_at=start - timedelta(seconds=waited),
        available_at=start - timedelta(seconds=waited),
        started_at=start,
        finished_at=start + timedelta(seconds=seconds),
        pool=pool,
    )
    run.attempts.update(started_at=start, finished_at=start + timedelta(seconds=seconds))
    if output is not None:
        make_output(run, output)
    return run


def pattern_of(workflow: Workflow) -> WorkflowPattern:
    (found,) = analysis.analyze_execution_patterns(workflows=[workflow.pk]).workflows
    return found


def test_durations_rates_and_waits_per_workflow_and_step() -> None:
    workflow = make_workflow("load")
    for seconds in (2, 4, 6, 8):
        ended(workflow, seconds, late=3)
    ended(workflow, 10, state=ExecutionState.FAILED)
    make_execution(workflow, state=ExecutionState.CANCELLED)
    make_execution(workflow)

    found = pattern_of(workflow)
    assert (found.name, found.executions) == ("load", 7)
    assert (found.succeeded, found.failed, found.cancelled) == (4, 1, 1)
    assert found.p50 == pytest.approx(5, abs=0.1)
    assert found.failure_rate == pytest.approx(0.2)
    assert found.late_p50 == pytest.approx(3, abs=0.1)
    (step,) = found.steps
    assert (step.name, step.runs, step.failed, step.attempts) == ("work", 5, 1, 5)
    assert step.p50 == pytest.approx(6, abs=0.1)
    assert step.failure_rate == pytest.approx(0.2)
    assert len(step.durations) == analysis.POINTS
    assert list(step.durations) == sorted(step.durations)
    assert found.cost == pytest.approx(30 / 7, abs=0.1)
    assert found.as_dict()["steps"][0]["width"] == 1


def test_attempts_add_up_and_the_time_between_them_is_waiting_for_a_retry() -> None:
    workflow = make_workflow()
    run = ended(workflow, 10)
    start = run.started_at
    assert start is not None
    run.attempts.all().delete()
    for number, (begin, end) in enumerate([(0, 2), (7, 10)], 1):
        make_attempt(
            run,
            state=AttemptState.SUCCEEDED if number == 2 else AttemptState.RETRYABLE,
            number=number,
            started_at=start + timedelta(seconds=begin),
            finished_at=start + timedelta(seconds=end),
        )
    (step,) = pattern_of(workflow).steps
    assert step.p50 == pytest.approx(5, abs=0.01)
    assert step.retry_rate == 1
    assert step.backoff == pytest.approx(5, abs=0.01)
    assert pattern_of(workflow).waiting == pytest.approx({"queue": 1, "pool": 0, "retry": 5}, abs=0.01)


def test_waiting_of_a_step_with_a_pool_is_the_pools() -> None:
    workflow = make_workflow()
    ended(workflow, 1, waited=4, pool="db")
    assert pattern_of(workflow).waiting == pytest.approx({"queue": 0, "pool": 4, "retry": 0}, abs=0.01)


def test_only_the_latest_of_the_window_are_looked_at() -> None:
    workflow = make_workflow()
    for _ in range(5):
        ended(workflow, 1)
    (few,) = analysis.analyze_execution_patterns(workflows=[workflow.pk], sample=2).workflows
    assert few.executions == 2
    later = now() + timedelta(days=3)
    assert analysis.analyze_execution_patterns(workflows=[workflow.pk], days=1, now=later).workflows == ()
    assert make_execution(workflow).pk > uuid7_floor(now() - timedelta(seconds=1))


def test_a_workflow_that_became_slower_and_larger_is_an_anomaly() -> None:
    workflow = make_workflow()
    for _ in range(12):
        ended(workflow, 2, output={"text": "x" * 50})
    for number in range(12):
        text = "".join(f"{number * 7919 + i * 104729:x}" for i in range(600))  # does not compress away
        ended(workflow, 8, output={"text": text})
    found = analysis.analyze_execution_patterns(workflows=[workflow.pk])
    assert {one.code for one in found.workflows[0].anomalies} == {"slower", "larger_output"}
    assert found.workflows[0].trend == pytest.approx(4, abs=0.1)
    assert [one["code"] for one in found.as_dict()["anomalies"]] == ["slower", "larger_output"]


def test_a_version_since_which_most_fail_is_an_anomaly() -> None:
    workflow = make_workflow()
    for _ in range(10):
        ended(workflow, 1)
    second = WorkflowVersion.objects.create(
        workflow=workflow, number=2, definition=CHAIN, published_at=now(), created_by="test"
    )
    for _ in range(10):
        ended(workflow, 1, state=ExecutionState.FAILED, version=second)
    (anomaly,) = pattern_of(workflow).anomalies
    assert anomaly == Anomaly("failing_since", "Fails 100% of the time since version 2; 0% before.", "", 0.0, 1.0)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([], None),
        ([(1, 40, 30)], None),
        ([(1, 40, 0), (2, 20, 18)], (2, 0.0, 0.9)),
        ([(1, 40, 0), (2, 5, 5)], None),
        ([(1, 40, 20), (2, 20, 18)], None),
        ([(1, 10, 0), (2, 10, 1), (3, 10, 9)], (3, 0.05, 0.9)),
    ],
)
def test_failing_since(versions: list[tuple[int, int, int]], expected: tuple[int, float, float] | None) -> None:
    assert failing_since(versions) == expected


@pytest.mark.parametrize(("name", "value"), [("days", 0), ("days", 367), ("sample", 0), ("sample", 10_001)])
def test_bounds_are_named(name: str, value: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        analysis.analyze_execution_patterns(**{name: value})
    assert name in caught.value.fields


def test_a_profile_has_the_graphs_levels_and_measured_durations() -> None:
    workflow = make_workflow("chain", CHAIN)
    for _ in range(2):
        execution = make_execution(workflow, state=ExecutionState.SUCCEEDED)
        for name in ("a", "b"):
            run = make_step_run(execution, name=name, state=StepState.SUCCEEDED)
            begin = now()
            run.attempts.update(started_at=begin, finished_at=begin + timedelta(seconds=3))
    for _ in range(2):
        make_execution(workflow, state=ExecutionState.FAILED)
    profile = profile_of("chain", compile_plan(CHAIN), pattern_of(workflow), default_queue="default")
    assert [[stage.name for stage in level] for level in profile.levels] == [["a"], ["b"], ["c"]]
    a, c = profile.levels[0][0], profile.levels[2][0]
    assert (a.queue, a.share) == ("default", 0.5)
    assert a.durations[0] == pytest.approx(3, abs=0.01)
    assert (c.durations, c.share) == ((analysis.ASSUMED_SECONDS,), 1.0)
    assert profile.work == pytest.approx(3 / 2 * 2 + 1, abs=0.05)


def test_a_profile_of_what_never_ran_is_assumed_and_a_sleep_takes_no_worker() -> None:
    definition = {
        "steps": {
            "nap": {"wait": {"for": "5m"}},
            "call": {"needs": ["nap"], "http": {"url": "https://example.org/"}, "pool": {"name": "p", "units": 2}},
        }
    }
    profile = profile_of("new", compile_plan(definition), None, default_queue="default", queue="io")
    nap, call = profile.levels[0][0], profile.levels[1][0]
    assert (nap.queue, nap.durations) == ("", (0.0,))
    assert (call.queue, call.pool, call.units) == ("io", "p", 2)
