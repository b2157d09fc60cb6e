"""How often a trigger starts something: throttle, limit, debounce, batch; and that what waits is started."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from execution.models import Execution
from scheduling_project.common import clock
from tests.factories import make_workflow
from triggers import activation, ingest, lifecycle, maintenance
from triggers.arrivals import Sender
from triggers.event_rows import Receipt
from triggers.models import Activation, Delivery, EndpointSecret, Event, PendingGroup, Throttle, Trigger
from triggers.states import ActivationState

pytestmark = pytest.mark.django_db

START = datetime.fromisoformat("2026-03-01T09:00:00+00:00")


def make_trigger(**values: Any) -> Trigger:
    return lifecycle.create("t", workflow=make_workflow(), event_types=["a"], actor="tests", **values)


def publish(data: Any = None, *, after: float = 0) -> Receipt:
    receipt = ingest.ingest(
        ingest.internal("a", data, source="/tests"), sender=Sender("tests"), now=START + timedelta(seconds=after)
    )
    assert receipt is not None
    return receipt


def states() -> list[str]:
    return list(Activation.objects.order_by("pk").values_list("state", flat=True))


def inputs() -> list[Any]:
    return list(Execution.objects.order_by("pk").values_list("input", flat=True))


def test_a_throttle_lets_so_many_through_and_gives_places_back_evenly() -> None:
    make_trigger(throttle={"limit": 2, "period": 10})
    for after in (0, 0, 0, 4, 5, 6, 10):
        publish(after=after)
    assert states() == ["started", "started", "throttled", "throttled", "started", "throttled", "started"]
    assert Activation.objects.filter(state="throttled").first().reason == "more than 2 in 10 s"  # type: ignore[union-attr]


def test_each_key_has_a_throttle_of_its_own() -> None:
    make_trigger(throttle={"limit": 1, "period": 10, "key": "${{ event.data.customer }}"})
    for customer in ("x", "y", "x", 3, None):
        publish({"customer": customer})
    assert states() == ["started", "started", "throttled", "started", "started"]
    assert set(Throttle.objects.values_list("key", flat=True)) == {"x", "y", "3", "null"}


def test_a_maximum_is_never_passed() -> None:
    trigger = make_trigger(max_activations=2)
    for _ in range(3):
        publish()
    assert states() == ["started", "started", "limited"]
    trigger.refresh_from_db()
    assert trigger.activation_count == 2
    lifecycle.update(trigger, {"max_activations": 3}, actor="tests")
    publish()
    assert Execution.objects.count() == 3


def test_a_debounce_starts_once_with_the_last_event_when_nothing_came_for_a_while() -> None:
    make_trigger(debounce={"period": 5}, input={"last": "${{ event.data.n }}"})
    for number, after in enumerate((0, 3, 7)):
        publish({"n": number}, after=after)
    assert states() == ["waiting"] * 3
    assert activation.flush(now=START + timedelta(seconds=11.9), using="default") == 0
    assert activation.flush(now=START + timedelta(seconds=12), using="default") == 1
    assert states() == ["merged", "merged", "started"]
    assert inputs() == [{"last": 2}]
    assert Activation.objects.values("execution_id").distinct().count() == 1
    publish({"n": 3}, after=13)
    assert PendingGroup.objects.filter(closed_at__isnull=True).count() == 1


def test_a_debounce_waits_no_longer_than_its_timeout() -> None:
    make_trigger(debounce={"period": 5, "timeout": 12})
    for after in (0, 4, 8, 11):
        publish(after=after)
    assert PendingGroup.objects.get().due_at == START + timedelta(seconds=12)


def test_a_batch_starts_when_it_is_full_with_all_its_events() -> None:
    make_trigger(batch={"size": 3, "timeout": 60}, input={"numbers": "${{ events[].data.n }}"})
    receipts = [publish({"n": number}) for number in range(4)]
    assert states() == ["started"] * 3 + ["waiting"]
    assert inputs() == [{"numbers": [0, 1, 2]}]
    assert receipts[2].execution_ids == [Execution.objects.get().pk]
    assert receipts[3].execution_ids == []
    assert receipts[3].activation_ids != []


def test_a_batch_starts_when_its_time_has_come_with_what_there_is() -> None:
    make_trigger(batch={"size": 3, "timeout": 60, "key": "${{ event.data.shop }}"})
    for shop in ("x", "y", "x"):
        publish({"shop": shop})
    assert maintenance.tend(now=START + timedelta(seconds=59)).groups == 0
    assert maintenance.tend(now=START + timedelta(seconds=60)).groups == 2
    assert sorted(len(value["events"]) for value in inputs()) == [1, 2]
    assert maintenance.tend(now=START + timedelta(seconds=61)).groups == 0


def test_a_group_whose_mapping_fails_is_kept_and_tried_again_as_one() -> None:
    trigger = make_trigger(batch={"size": 2, "timeout": 60}, input={"n": "${{ sum(events[].data.n) }}"})
    publish({"n": "one"})
    publish({"n": 2})
    assert states() == ["failed", "failed"]
    first = Activation.objects.order_by("pk").first()
    assert first is not None
    with pytest.raises(Exception, match="failed again"):
        activation.retry(first.pk, now=clock.now())
    lifecycle.update(trigger, {"input": {"n": "${{ length(events) }}"}}, actor="tests")
    assert activation.retry(first.pk, now=clock.now()).state == ActivationState.STARTED
    assert states() == ["started", "started"]
    assert inputs() == [{"n": 2}]


def test_what_waits_is_started_though_the_trigger_is_paused() -> None:
    trigger = make_trigger(debounce={"period": 5})
    publish({"n": 1})
    lifecycle.pause(trigger, actor="tests")
    assert publish({"n": 2}).activation_ids == []
    assert maintenance.tend(now=START + timedelta(seconds=5)).groups == 1
    assert inputs() == [{"n": 1}]


def test_a_trigger_has_a_beginning_and_an_end() -> None:
    make_trigger(start_at=START + timedelta(seconds=1), end_at=START + timedelta(seconds=3))
    for after in (0, 1, 2, 3):
        publish(after=after)
    assert Execution.objects.count() == 2


def test_priority_queue_policy_key_and_timeout_reach_the_execution() -> None:
    make_trigger(
        priority="critical",
        queue="io",
        retry_policy={"max_attempts": 2},
        timeout=60,
        concurrency_key="customer ${{ event.data.id }}",
    )
    publish({"id": 7})
    execution = Execution.objects.get()
    assert (execution.priority, execution.queue) == (0, "io")
    assert execution.retry_policy == {"max_attempts": 2}
    assert execution.concurrency_key == "customer 7"
    assert execution.deadline_at == START + timedelta(seconds=60)


def test_data_that_is_no_object_becomes_a_member_of_the_input() -> None:
    make_trigger()
    publish([1, 2])
    assert inputs() == [{"data": [1, 2]}]


def test_old_events_go_with_their_log_but_not_what_still_waits() -> None:
    from tests.triggers.conftest import deliver, make_endpoint

    make_trigger(debounce={"period": 5})
    waiting = publish()
    endpoint = make_endpoint()
    deliver(endpoint, {"type": "b"})
    deliver(endpoint, sign=False)
    EndpointSecret.objects.create(endpoint=endpoint, ciphertext="x", expires_at=START)
    long_ago = clock.now() - timedelta(days=31)
    Event.objects.update(received_at=long_ago)
    Delivery.objects.update(received_at=long_ago)
    Throttle.objects.create(trigger=Trigger.objects.get(), key="old", arrival_at=long_ago)
    pruned = maintenance.prune()
    assert (pruned.events, pruned.refusals, pruned.secrets, pruned.throttles) == (1, 1, 1, 1)
    assert Event.objects.get().pk == waiting.event_id
    maintenance.tend()
    Event.objects.update(received_at=long_ago)
    PendingGroup.objects.update(closed_at=long_ago)
    pruned = maintenance.prune()
    assert (pruned.events, pruned.groups) == (1, 1)
    assert Execution.objects.count() == 1
