"""The transition tables: complete, consistent, and the ones that the documentation shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from execution import states
from execution.states import (
    DEAD_LETTER_TRANSITIONS,
    EXECUTION_TRANSITIONS,
    STEP_TRANSITIONS,
    DeadLetterState,
    ExecutionState,
    StepState,
    Transitions,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "explanation" / "states.md"
TABLES = [
    (EXECUTION_TRANSITIONS, ExecutionState),
    (STEP_TRANSITIONS, StepState),
    (DEAD_LETTER_TRANSITIONS, DeadLetterState),
]


@pytest.mark.parametrize(("transitions", "lifecycle"), TABLES)
def test_every_state_has_its_row_and_every_arrow_leads_to_a_state(transitions: Transitions, lifecycle: type) -> None:
    assert set(transitions) == set(lifecycle)
    for current, following in transitions.items():
        assert following <= set(lifecycle)
        assert current not in following


def test_open_and_terminal_states_share_nothing_and_leave_nothing_out() -> None:
    assert set(ExecutionState) == states.EXECUTION_OPEN | states.EXECUTION_TERMINAL
    assert not states.EXECUTION_OPEN & states.EXECUTION_TERMINAL
    assert set(StepState) == states.STEP_OPEN | states.STEP_TERMINAL
    assert not states.STEP_OPEN & states.STEP_TERMINAL
    assert states.STEP_CLAIMABLE < states.STEP_OPEN


def test_every_open_state_can_be_cancelled_and_no_end_can() -> None:
    for state in ExecutionState:
        cancellable = states.may(EXECUTION_TRANSITIONS, state, ExecutionState.CANCELLED)
        assert cancellable == (state in states.EXECUTION_OPEN)
    for step_state in StepState:
        cancellable = states.may(STEP_TRANSITIONS, step_state, StepState.CANCELLED)
        assert cancellable == (step_state in states.STEP_OPEN)


def test_only_what_is_claimable_starts_to_run() -> None:
    runnable = {state for state in StepState if states.may(STEP_TRANSITIONS, state, StepState.RUNNING)}
    assert runnable == states.STEP_CLAIMABLE


def test_the_documentation_shows_these_tables() -> None:
    assert states.mermaid() in DOCUMENT.read_text(encoding="utf-8"), (
        "docs/explanation/states.md is out of date: put the text of execution.states.mermaid() into it"
    )
