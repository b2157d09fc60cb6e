"""A background thread goes on whatever a turn raises, and ends when it is told to."""

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError
from structlog.testing import capture_logs

from execution.background import Background
from tests.patience import PATIENCE


class Turns(Background):
    """Raises in its first two turns, then waits for ever between turns."""

    area = "test"
    pause_after_failure = 0.0

    def __init__(self) -> None:
        super().__init__("turns")
        self.taken = 0
        self.reached = threading.Event()

    def turn(self) -> float:
        self.taken += 1
        if self.taken == 1:
            raise OperationalError("away\n")
        if self.taken == 2:
            raise ValueError("odd")
        self.reached.set()
        return 3600.0


def test_it_goes_on_after_turns_that_fail_and_says_why() -> None:
    turns = Turns()
    with capture_logs() as logs:
        turns.start()
        assert turns.reached.wait(PATIENCE)
        turns.stop(PATIENCE)
    assert not turns.is_alive()
    assert turns.taken == 3
    assert [(log["event"], log.get("error")) for log in logs] == [
        ("test.postgres_away", "away"),
        ("test.turn_failed", None),
    ]


def test_it_does_not_wait_for_the_end_of_its_pause() -> None:
    turns = Turns()
    turns.taken = 2
    turns.start()
    assert turns.reached.wait(PATIENCE)
    turns.stop(PATIENCE)
    assert not turns.is_alive()


def test_what_takes_no_turns_is_none() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Background("nothing")  # type: ignore[abstract]
