"""Many senders at the same moment: one event per delivery, limits that hold exactly, groups that lose nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections

from execution.models import Execution, StepRun
from scheduling_project.common import clock, rate_limits
from scheduling_project.common.rate_limits import Rate
from tests.factories import make_workflow
from tests.triggers.conftest import deliver, make_endpoint
from triggers import activation, catalog, delivery_log, ingest, lifecycle
from triggers.auth import failures
from triggers.models import Activation, Event, PendingGroup, Trigger

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "engine"]), pytest.mark.race]


@pytest.fixture(autouse=True)
def fresh(settings: Any) -> Iterator[None]:
    settings.WORKFLOW_ENGINE_DATABASE = "engine"
    catalog.expire_now()
    delivery_log.forget()
    failures.forget()
    rate_limits.reset()
    yield
    connections["engine"].close()


def together(count: int, deed: Callable[[int], Any]) -> list[Any]:
    """Do it in so many threads that begin at the same moment; what they returned, or raised."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = deed(number)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def make_trigger(**values: Any) -> Trigger:
    return lifecycle.create("t", workflow=make_workflow(), event_types=["a"], actor="tests", **values)


def test_the_same_delivery_fifty_times_at_once_is_one_event_and_one_set_of_executions() -> None:
    endpoint = make_endpoint()
    for name in ("one", "two"):
        lifecycle.create(name, workflow=make_workflow(), endpoint=endpoint, actor="tests")
    answers = together(50, lambda _: deliver(endpoint, {"a": 1}, delivery_id="m1"))
    assert Counter(answer.status_code for answer in answers) == {202: 1, 200: 49}
    bodies = [answer.json() for answer in answers]
    assert len({body["event_id"] for body in bodies}) == 1
    assert len({tuple(sorted(body["execution_ids"])) for body in bodies}) == 1
    assert Event.objects.count() == 1
    assert Activation.objects.count() == Execution.objects.count() == StepRun.objects.count() == 2


def test_different_deliveries_at_once_are_all_taken_once() -> None:
    endpoint = make_endpoint()
    lifecycle.create("t", workflow=make_workflow(), endpoint=endpoint, actor="tests")
    answers = together(40, lambda number: deliver(endpoint, {"n": number}, delivery_id=f"m{number % 20}"))
    assert Counter(answer.status_code for answer in answers) == {202: 20, 200: 20}
    assert Event.objects.count() == Execution.objects.count() == 20


def test_a_rate_is_exact_at_32_threads() -> None:
    name = uuid4().hex
    rate = Rate(count=1, period=3600, burst=100)
    taken = together(32, lambda _: sum(rate_limits.take(name, rate).allowed for _ in range(10)))
    assert sum(taken) == 100
    assert not rate_limits.take(name, rate, units=0).allowed
    rate_limits.forget(name)
    assert rate_limits.take(name, rate, units=0).allowed


def test_failed_authentications_are_limited_exactly_at_32_threads() -> None:
    endpoint = make_endpoint()
    deliver(endpoint)  # nothing is on the account, and that is remembered
    answers = together(32, lambda _: [deliver(endpoint, sign=False).status_code for _ in range(2)])
    assert Counter(status for statuses in answers for status in statuses) == {401: 30, 429: 34}


def test_a_throttle_and_a_maximum_are_exact_at_32_threads() -> None:
    make_trigger(throttle={"limit": 7, "period": 3600})
    lifecycle.create("limited", workflow=make_workflow(), event_types=["a"], max_activations=5, actor="tests")
    together(32, lambda _: ingest.publish_event("a"))
    assert Activation.objects.filter(trigger__name="t", state="started").count() == 7
    assert Activation.objects.filter(trigger__name="limited", state="started").count() == 5
    assert Activation.objects.count() == 64
    assert Execution.objects.count() == 12


def test_events_that_debounce_at_once_start_one_execution() -> None:
    make_trigger(debounce={"period": 1})
    errors = [one for one in together(20, lambda _: ingest.publish_event("a")) if isinstance(one, Exception)]
    assert errors == []
    assert PendingGroup.objects.get().size == 20
    later = clock.now() + timedelta(seconds=2)
    flushed = together(4, lambda _: activation.flush(now=later, using="default"))
    assert sum(flushed) == 1
    assert Execution.objects.count() == 1
    assert Counter(Activation.objects.values_list("state", flat=True)) == {"merged": 19, "started": 1}


def test_batches_under_concurrent_events_and_flushes_take_every_event_once() -> None:
    make_trigger(batch={"size": 5, "timeout": 3600})
    later = clock.now() + timedelta(hours=2)

    def deed(number: int) -> Any:
        if number % 8 == 0:
            return activation.flush(now=later, using="default")
        return ingest.publish_event("a", {"n": number})

    errors = [one for one in together(40, deed) if isinstance(one, Exception)]
    assert errors == []
    activation.flush(now=later, using="default")
    numbers = [
        event["data"]["n"] for value in Execution.objects.values_list("input", flat=True) for event in value["events"]
    ]
    assert sorted(numbers) == sorted(number for number in range(40) if number % 8)
    assert set(Activation.objects.values_list("state", flat=True)) == {"started"}


def test_a_change_of_a_trigger_is_in_force_with_its_commit_in_every_connection() -> None:
    trigger = make_trigger()
    assert len(ingest.publish_event("a").activation_ids) == 1
    Trigger.objects.filter(pk=trigger.pk).update(event_types=["b"])  # as another process would: nothing is told here
    assert len(ingest.publish_event("a").activation_ids) == 0
    assert len(ingest.publish_event("b").activation_ids) == 1
