"""Rates, order, aging and drains against claims on other connections."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from execution import engine, queue_order, queues, rate_keys
from execution.models import QueueSettings, RateKey, StepRun
from execution.rate_keys import Rate, RateDeferred
from scheduling_project.common.errors import Conflict
from tests.execution.flow import begin, claim, fresh, held, http, step

pytestmark = [
    pytest.mark.race,
    pytest.mark.django_db(transaction=True, databases=["default", "engine"]),
    pytest.mark.usefixtures("engine_connection"),
]

Race = Callable[..., list[Any]]
ROUNDS = range(6)


def test_of_attempts_that_ask_at_once_one_begins_and_each_other_gets_an_instant_of_its_own(race: Race) -> None:
    rate = Rate(limit=1, per=600)
    claims = [held(begin({"a": http()}), "a") for _ in range(4)]

    def ask(number: int) -> str:
        try:
            rate_keys.admit(claims[number], "k", rate)
        except RateDeferred:
            return "waits"
        return "begins"

    answers = race(*[lambda number=number: ask(number) for number in range(4)])
    assert sorted(answers) == ["begins", "waits", "waits", "waits"]
    instants = list(
        StepRun.objects.filter(state="queued").order_by("available_at").values_list("available_at", flat=True)
    )
    tat = RateKey.objects.get().tat
    assert instants == [tat, tat + rate.interval, tat + 2 * rate.interval]


def test_what_is_claimed_while_it_is_moved_is_claimed_once(race: Race) -> None:
    for _ in ROUNDS:
        first, second = begin({"a": http()}), begin({"a": http()})
        run = step(second, "a")

        def move(run: StepRun = run) -> bool:
            try:
                queue_order.reorder("default", run.pk, "first", actor="ada")
            except Conflict:
                return False
            return True

        _, taken = race(move, lambda: claim(second, "a"))  # noqa: B023
        run.refresh_from_db()
        assert (taken is not None) == (run.state == "running")
        assert fresh(first).state == "queued"


def test_what_is_claimed_while_it_ages_keeps_its_lease(race: Race) -> None:
    for _ in ROUNDS:
        execution = begin({"a": http()}, options={"priority": 9})
        StepRun.objects.filter(execution=execution).update(available_at=engine.now() - timedelta(seconds=400))
        raised, other, taken = race(queue_order.age, queue_order.age, lambda: claim(execution, "a"))  # noqa: B023
        run = step(execution, "a")
        assert raised + other == run.aged <= 1
        assert run.priority == 9 - run.aged
        assert (taken is not None) == (run.state == "running")


def test_a_queue_is_never_called_drained_while_something_runs_in_it(race: Race) -> None:
    for _ in ROUNDS:
        execution = begin({"a": http()})
        race(lambda: queues.drain("default", actor="ada"), lambda: claim(execution, "a"))  # noqa: B023
        QueueSettings.objects.update(draining_at=engine.now() - timedelta(seconds=2))
        reports = race(queues.report_drained, queues.report_drained)
        running = step(execution, "a").state == "running"
        assert [name for found in reports for name in found] == ([] if running else ["default"])
        StepRun.objects.filter(execution=execution).update(
            state="queued", lease_token=None, lease_until=None, available_at=engine.now() + timedelta(days=1)
        )
        queues.resume("default", actor="ada")
