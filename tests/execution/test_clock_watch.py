"""A jump of the wall clock is told by the monotonic clock beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from execution.clock_watch import TOLERANCE, ClockWatch

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_first_look_has_nothing_to_compare_with() -> None:
    assert ClockWatch().jump(NOON, 5.0) == 0


@pytest.mark.parametrize(
    ("wall", "monotonic", "jump"),
    [
        (10, 10, 0),
        (10 + TOLERANCE, 10, 0),
        (3600, 10, 3590),
        (-3590, 10, -3600),
        (7200, 7200, 0),  # nobody looked for two hours
        (0, TOLERANCE + 1, -TOLERANCE - 1),
    ],
)
def test_a_jump_is_what_only_one_of_the_clocks_has_come(wall: float, monotonic: float, jump: float) -> None:
    watch = ClockWatch()
    watch.jump(NOON, 1_000.0)
    assert watch.jump(NOON + timedelta(seconds=wall), 1_000.0 + monotonic) == jump


def test_a_jump_is_told_once() -> None:
    watch = ClockWatch()
    watch.jump(NOON, 0.0)
    assert watch.jump(NOON + timedelta(hours=1), 1.0) > 0
    assert watch.jump(NOON + timedelta(hours=1, seconds=1), 2.0) == 0
