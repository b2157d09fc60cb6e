"""A finishing statement opens the tables that its end can touch, and no others."""

from __future__ import annotations

import pytest

from execution import queue
from execution.finishing import EVERYTHING, Part, statement
from execution.queue import Ending
from execution.states import AttemptState, StepState

SUCCESS = Ending(state=StepState.SUCCEEDED, attempt_state=AttemptState.SUCCEEDED)
TABLES = {
    "execution_stepoutput": Part.OUTPUT,
    "execution_deadletter": Part.LETTER | Part.REDRIVE,
    "execution_news": Part.NEWS | Part.LETTER,
}


@pytest.mark.parametrize(("table", "parts"), TABLES.items())
def test_a_part_that_is_left_out_opens_no_table(table: str, parts: Part) -> None:
    assert table in statement(queue.HELD, EVERYTHING)
    assert table not in statement(queue.HELD, EVERYTHING & ~parts)


def test_the_usual_end_is_short_enough_for_the_driver_to_keep_its_parsed_form() -> None:
    usual = statement(queue.HELD, queue.parts_of(SUCCESS, is_item=False, redrives=False, tells=False))
    assert len(usual) < 4096  # psycopg parses longer statements anew at every call
    assert usual.count("UPDATE execution_steprun") == 1
    of_an_item = queue.parts_of(SUCCESS, is_item=True, redrives=False, tells=False)
    assert len(statement(queue.HELD, of_an_item, spares_last=True)) < 4096


def test_an_item_is_counted_by_its_parent_and_a_step_by_its_execution() -> None:
    item = statement(queue.HELD, queue.parts_of(SUCCESS, is_item=True))
    step = statement(queue.HELD, queue.parts_of(SUCCESS, is_item=False))
    assert "items_open - 1" in item
    assert "open_steps" not in item
    assert "open_steps - 1" in step
    assert "items_open - 1" not in step


def test_who_knows_nothing_but_the_ending_names_all_that_may_be() -> None:
    assert queue.parts_of(SUCCESS) == Part.STEP | Part.ITEM | Part.REDRIVE | Part.NEWS
    ending = Ending(
        state=StepState.FAILED,
        attempt_state=AttemptState.FAILED,
        output=1,
        has_output=True,
        successors=["next"],
        doomed=["later"],
        letter="failed",
    )
    assert queue.parts_of(ending) == EVERYTHING
