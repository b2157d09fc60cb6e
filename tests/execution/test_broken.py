"""A definition that cannot be compiled ends its own execution, and nobody else's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import broken, creation, engine, maintenance, plans, runner
from execution.models import Attempt, DeadLetter, Execution, News, WorkflowVersion
from execution.runner import Outcome
from tests import factories
from tests.execution import flow

pytestmark = pytest.mark.django_db


def spoil(execution: Execution) -> None:
    """What a hand-made UPDATE, or a release that no longer knows a function, would do."""
    WorkflowVersion.objects.filter(pk=execution.version_id).update(
        definition={"steps": {"a": {"http": {"url": "${{ nothing( }}"}}}}
    )
    plans._plans.clear()


def fate(execution: Execution) -> tuple[str, dict[str, str], str]:
    letter = DeadLetter.objects.get(execution=execution)
    assert letter.fingerprint
    return flow.fresh(execution).state, flow.states(execution), letter.reason


def test_a_rescue_goes_on_behind_a_broken_definition() -> None:
    bad, good = (flow.begin({"a": flow.http()}, options={"news_topic": "t"}) for _ in range(2))
    for execution in (bad, good):
        flow.held(execution, "a")
    spoil(bad)
    found = maintenance.rescue(now=engine.now() + timedelta(hours=1))
    assert (found.queued, found.failed) == (1, 1)
    assert fate(bad) == ("failed", {"a": "cancelled"}, "unrunnable")
    assert Attempt.objects.get(step_run__execution=bad).state == "cancelled"
    assert News.objects.get(topic="t").execution_id == bad.pk
    assert flow.states(good) == {"a": "queued"}


def test_timers_ring_behind_a_broken_definition() -> None:
    bad, good = (flow.begin({"a": {"wait": 1}}) for _ in range(2))
    spoil(bad)
    assert maintenance.ring_timers(now=engine.now() + timedelta(seconds=2)) == 2
    assert fate(bad)[0] == "failed"
    assert flow.fresh(good).state == "succeeded"


def test_forgotten_steps_are_decided_behind_a_broken_definition() -> None:
    bad, good = (flow.begin({"a": flow.http()}) for _ in range(2))
    for execution in (bad, good):
        type(flow.step(execution, "a")).objects.filter(execution=execution).update(
            state="waiting", waiting_for="needs", dispatched_at=None
        )
    spoil(bad)
    assert maintenance.decide_forgotten(now=engine.now() + timedelta(minutes=5)) == 2
    assert fate(bad)[0] == "failed"
    assert flow.states(good) == {"a": "queued"}


def test_a_worker_that_claims_a_broken_step_fails_its_execution() -> None:
    execution = flow.begin({"a": flow.http()})
    spoil(execution)
    report = runner.run(flow.step(execution, "a").pk, worker="w@h/1")
    assert report.outcome is Outcome.FAILED
    assert "cannot be run" in report.error
    assert fate(execution)[1] == {"a": "cancelled"}


def test_what_has_ended_is_not_failed_again() -> None:
    execution = flow.begin({"a": flow.http()})
    flow.succeed(execution, "a")
    assert not broken.fail(execution.pk, plans.Unrunnable("x"))
    assert flow.fresh(execution).state == "succeeded"


@pytest.mark.parametrize(
    "definition",
    [
        {"steps": {"a": {"needs": ["a"], "http": {"url": "x"}}}},
        {"steps": {"a": {"needs": ["b"], "http": {"url": "x"}}}},
        {"steps": {"a": {"nothing": 1}}},
        {"steps": {"a": {"http": {"url": "x"}, "priority": 77}}},
        {"steps": []},
        {},
    ],
)
def test_whatever_cannot_be_compiled_is_said_in_one_way(definition: Any) -> None:
    version = factories.make_workflow().published
    assert version is not None
    version.definition = definition
    with pytest.raises(plans.Unrunnable, match="cannot be run"):
        plans.plan_of(version)


def test_a_broken_definition_cannot_be_started() -> None:
    workflow = factories.make_workflow(definition={"steps": {"a": {"nothing": 1}}})
    with pytest.raises(plans.Unrunnable):
        creation.start(workflow)
    assert not Execution.objects.exists()
