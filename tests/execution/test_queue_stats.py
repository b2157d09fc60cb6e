"""What waits in the queues, by level: what is counted where, however many queues and levels there are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from execution import engine, queue, queues
from execution.models import StepRun
from execution.states import StepState
from tests.execution import flow

pytestmark = pytest.mark.django_db(transaction=True)  # `now()` moves on


@pytest.fixture
def waiting() -> list[StepRun]:
    """Step runs in two queues and three levels, none of them sent."""
    places = [("default", 0), ("default", 6), ("default", 6), ("default", 9), ("io", 6), ("io", 6)]
    for name, priority in places:
        execution = flow.begin({"a": flow.http()})
        StepRun.objects.filter(execution=execution).update(
            queue=name, priority=priority, dispatched_at=None, dispatches=0
        )
    return list(StepRun.objects.order_by("id"))


def levels(name: str) -> list[tuple[int, int, int, int, int]]:
    """Priority, waiting, in flight, running, later: of each level of a queue."""
    (state,) = queues.stats([name])
    return [(level.priority, level.waiting, level.in_flight, level.running, level.later) for level in state.levels]


def test_every_level_of_every_queue_is_counted(waiting: list[StepRun]) -> None:
    assert levels("default") == [(0, 1, 0, 0, 0), (6, 2, 0, 0, 0), (9, 1, 0, 0, 0)]
    assert levels("io") == [(6, 2, 0, 0, 0)]
    found = {state.name: len(state.levels) for state in queues.stats()}
    assert (found["default"], found["io"]) == (3, 1)


def test_what_is_sent_runs_or_is_due_later_is_counted_apart(waiting: list[StepRun]) -> None:
    now = timezone.now()
    _, sent, later, runs, _, last = waiting
    StepRun.objects.filter(pk=sent.pk).update(dispatched_at=now, dispatches=1)
    StepRun.objects.filter(pk=later.pk).update(available_at=now + timedelta(hours=1), state=StepState.RETRYABLE)
    assert queue.claim(runs.pk, worker="w@h/1", lease=30) is not None
    StepRun.objects.filter(pk=last.pk).update(available_at=F("available_at") - timedelta(hours=2))
    assert levels("default") == [(0, 1, 0, 0, 0), (6, 0, 1, 0, 1), (9, 0, 0, 1, 0)]
    (state,) = queues.stats(["io"])
    last.refresh_from_db()
    assert state.oldest_at == last.available_at
    assert queues.size("default") == 3


def test_an_empty_queue_has_no_levels(waiting: list[StepRun]) -> None:
    engine.fetch_all("DELETE FROM execution_steprun WHERE queue = 'io'", {}, using="default")
    assert levels("io") == []
