"""Several workers and one redrive job: its canary, its letters and its end are counted once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from execution import redrives
from execution.dead_letters import Selection
from execution.models import DeadLetter, RedriveItem, RedriveJob
from tests.execution.flow import begin, fail, http

pytestmark = [
    pytest.mark.race,
    pytest.mark.django_db(transaction=True, databases=["default", "engine"]),
    pytest.mark.usefixtures("engine_connection"),
]

Race = Callable[..., list[Any]]
GROUP = Selection(fingerprint="f" * 32)


def letters(count: int) -> None:
    for _ in range(count):
        fail(begin({"a": http()}), "a")


def test_a_canary_is_one_letter_however_many_workers_come_by(race: Race) -> None:
    letters(4)
    job = redrives.create(GROUP, actor="ada")
    taken = race(*[lambda: redrives.advance(seconds=5) for _ in range(3)])
    assert sum(taken) == 1
    job.refresh_from_db()
    assert job.started == DeadLetter.objects.filter(state="redriving").count() == 1


def test_every_letter_is_taken_up_once(race: Race) -> None:
    letters(12)
    job = redrives.create(GROUP, actor="ada", canary=False)
    race(*[lambda: redrives.advance(seconds=10) for _ in range(3)])
    redrives.advance(seconds=10)
    job.refresh_from_db()
    assert (job.started, RedriveItem.objects.filter(state="redriving").count()) == (12, 12)
    assert set(DeadLetter.objects.values_list("state", "redrives")) == {("redriving", 1)}


def test_a_job_that_is_cancelled_while_it_is_advanced_ends_once(race: Race) -> None:
    for _ in range(4):
        letters(3)
        job = redrives.create(GROUP, actor="ada", canary=False)
        race(lambda: redrives.advance(seconds=5), lambda: redrives.cancel(job.pk, actor="eve"))  # noqa: B023
        job.refresh_from_db()
        assert job.state == "cancelled"
        started = RedriveItem.objects.filter(job=job).exclude(state="pending").count()
        assert job.started == started
        assert redrives.advance() == 0
    assert RedriveJob.objects.filter(state="cancelled").count() == 4
