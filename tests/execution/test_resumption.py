"""What is done again after a failure, and what is kept."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from execution.graph import compile_plan
from execution.resumption import Resumption, StepFact, resumption


def decide(steps: dict[str, Any], states: dict[str, str], items: dict[str, list[str]] | None = None) -> Any:
    """The decision with names instead of ids; `states` maps a step to ``state`` or ``state:reason``."""
    ids = {name: uuid4() for name in states}
    facts = [StepFact(ids[name], name, *text.split(":", 1)) for name, text in states.items()]
    names: dict[UUID, str] = {step_id: name for name, step_id in ids.items()}
    for name, item_states in (items or {}).items():
        for index, state in enumerate(item_states):
            fact = StepFact(uuid4(), name, state, item_of=ids[name])
            names[fact.id] = f"{name}[{index}]"
            facts.append(fact)
    found = resumption(compile_plan({"steps": steps}), facts)
    return (
        sorted(names[step_id] for step_id in found.queued),
        {names[step_id]: count for step_id, count in found.waiting.items()},
        {names[step_id]: count for step_id, count in found.fan_outs.items()},
        found.steps,
        found.failures,
    )


def http(*needs: str, **more: Any) -> dict[str, Any]:
    return {"http": {"url": "https://example.org/"}, "needs": list(needs), **more}


def test_the_failed_step_runs_again_and_what_was_skipped_behind_it_waits_for_it() -> None:
    steps = {"a": http(), "b": http("a"), "c": http("a", "b"), "d": http("c")}
    states = {"a": "succeeded", "b": "failed", "c": "skipped:needs b", "d": "skipped:needs b"}
    assert decide(steps, states) == (["b"], {"c": 1, "d": 1}, {}, 3, 1)


def test_two_failed_branches_both_run_again() -> None:
    steps = {"a": http(), "b": http(), "c": http("a", "b")}
    states = {"a": "failed", "b": "failed", "c": "skipped:needs a"}
    assert decide(steps, states) == (["a", "b"], {"c": 2}, {}, 3, 2)


def test_a_branch_that_still_runs_is_waited_for_too() -> None:
    steps = {"a": http(), "b": http(), "c": http("a", "b")}
    assert decide(steps, {"a": "failed", "b": "running", "c": "skipped:needs a"}) == (["a"], {"c": 2}, {}, 2, 1)


def test_what_a_condition_or_a_person_skipped_stays_skipped() -> None:
    steps = {"a": http(), "b": http("a"), "c": http("b")}
    states = {"a": "failed", "b": "skipped:when: no", "c": "skipped:skip by ada"}
    assert decide(steps, states) == (["a"], {}, {}, 1, 1)


def test_a_failure_that_was_handled_stays_handled() -> None:
    steps = {"a": http(on_error="continue"), "b": http("a")}
    assert decide(steps, {"a": "failed", "b": "failed"}) == (["b"], {}, {}, 1, 1)


def test_a_step_that_needs_a_decision_is_decided_anew() -> None:
    steps = {"a": {"approval": {}}, "b": http("a"), "c": http(when={"input": {"n": [1]}})}
    assert decide(steps, {"a": "failed", "b": "skipped:needs a", "c": "failed"}) == (
        [],
        {"a": 0, "b": 1, "c": 0},
        {},
        3,
        2,
    )


def test_only_the_failed_items_of_a_fan_out_run_again() -> None:
    steps = {"a": http(for_each=[1, 2, 3]), "b": http("a")}
    states = {"a": "failed", "b": "skipped:needs a"}
    items = {"a": ["succeeded", "failed", "failed"]}
    assert decide(steps, states, items) == (["a[1]", "a[2]"], {"b": 1}, {"a": 2}, 2, 1)


def test_a_fan_out_that_could_not_be_laid_out_is_tried_again() -> None:
    assert decide({"a": http(for_each=[1])}, {"a": "failed"}) == ([], {"a": 0}, {}, 1, 1)


def test_nothing_is_done_again_where_nothing_failed() -> None:
    assert resumption(compile_plan({"steps": {"a": http()}}), []) == Resumption()
    assert decide({"a": http()}, {"a": "succeeded"}) == ([], {}, {}, 0, 0)
