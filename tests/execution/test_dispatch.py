"""The hand-off: the message is Celery's own, a lost broker costs nothing but time, and everything is sent again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings

from execution import broker, dispatch, engine, handoff
from execution.models import BrokerEpoch, QueueSettings, StepRun
from execution.queue import Hint
from execution.tasks import run_step
from scheduling_project.common.ids import uuid7
from tests.execution import flow

NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """The tests' own Redis, empty."""
    monkeypatch.setattr(dispatch, "_away_until", 0.0)
    with redis.Redis.from_url(django_settings.REDIS_URL) as found:
        found.flushdb()
        yield found
        found.flushdb()


def hint(*, queue: str = "default", priority: int = 6, timeout: float | None = None, attempt: int = 0) -> Hint:
    return Hint(uuid7(), "invoices.load", queue, priority, timeout, attempt)


def stored(client: redis.Redis, hint: Hint) -> dict[str, Any]:
    (raw,) = client.lrange(broker.key_of(hint.queue, hint.priority), 0, -1)
    found: dict[str, Any] = json.loads(raw)
    return found


# ── The message ──


@pytest.mark.parametrize(
    "sent",
    [hint(), hint(queue="io", priority=0), hint(priority=9, timeout=5.0), hint(timeout=0.5, attempt=3)],
    ids=["plain", "other lane, most urgent", "with a time limit", "a later attempt"],
)
def test_a_hint_is_the_message_that_apply_async_makes(client: redis.Redis, sent: Hint) -> None:
    assert dispatch.publish([sent]) == 1
    ours = stored(client, sent)
    client.flushdb()
    limits = {} if sent.timeout is None else {
        "soft_time_limit": sent.timeout, "time_limit": sent.timeout + dispatch.HARD_LIMIT_GRACE,
    }  # fmt: skip
    run_step.apply_async(
        (str(sent.id), sent.priority), queue=sent.queue, priority=sent.priority, shadow=sent.label,
        retries=sent.attempt, task_id=ours["headers"]["id"], **limits,
    )  # fmt: skip
    real = stored(client, sent)
    for found in (ours, real):
        assert found["properties"].pop("delivery_tag")
        assert found["headers"].pop("origin").startswith("gen")
        found["properties"].pop("reply_to")  # where results would go; they are ignored
        found["body"] = json.loads(base64.b64decode(found["body"]))
    assert ours == real


def test_messages_made_from_a_template_say_what_each_alone_would_say() -> None:
    """Runs of hints of one kind, a label with every character that a format or JSON minds, and back again."""
    odd = Hint(uuid7(), 'a "b" %(id)s %d \\ ü.load', "default", 6, None, 0)
    hints = [hint(), hint(), odd, hint(queue="io", timeout=3.0), hint()]
    made = {key: [json.loads(text) for text in texts] for key, texts in dispatch.encode(hints).items()}
    tags = [found["properties"]["delivery_tag"] for texts in made.values() for found in texts]
    assert len(set(tags)) == len(hints)
    for key, texts in made.items():
        wanted = [sent for sent in hints if broker.key_of(sent.queue, sent.priority) == key]
        for found, sent in zip(texts, wanted, strict=True):
            assert found == dispatch.message(sent, delivery_tag=found["properties"]["delivery_tag"])


def test_hints_leave_in_the_order_they_came_by_priority(client: redis.Redis) -> None:
    hints = [hint(priority=number % 3) for number in range(12)]
    assert dispatch.publish(hints) == 12
    for priority in range(3):
        key = broker.key_of("default", priority)
        taken = []
        while raw := client.rpop(key):
            taken.append(json.loads(base64.b64decode(json.loads(raw)["body"]))[0][0])
        assert taken == [str(sent.id) for sent in hints if sent.priority == priority]
    assert dispatch.depth(["default"]) == 0


def test_the_depth_counts_every_priority_of_the_queues_that_are_asked_for() -> None:
    dispatch.publish([hint(priority=0), hint(priority=9), hint(queue="io")])
    assert dispatch.depth(["default"]) == 2
    assert dispatch.depth(["default", "io"]) == 3
    assert dispatch.depth([]) == 0
    assert dispatch.publish([]) == 0


# ── The broker is away ──


@pytest.fixture
def no_broker(settings: Any) -> None:
    settings.REDIS_URL = NOBODY


@pytest.mark.django_db
@pytest.mark.usefixtures("no_broker")
def test_what_could_not_be_sent_is_unmarked_and_nobody_is_disturbed(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = flow.begin({"a": flow.http(), "b": flow.http()})
    runs = list(StepRun.objects.filter(execution=execution, dispatched_at__isnull=False))
    assert len(runs) == 2
    sent = [Hint(run.pk, run.label, run.queue, run.priority, run.timeout, run.attempt) for run in runs]
    assert dispatch.publish(sent[:1]) == 0
    assert list(StepRun.objects.filter(dispatched_at=None).values_list("id", flat=True)) == [sent[0].id]
    settings.REDIS_URL = django_settings.REDIS_URL
    monkeypatch.setattr(broker, "client", lambda: pytest.fail("asked again too soon"))
    assert dispatch.publish(sent[1:]) == 0
    assert not StepRun.objects.filter(dispatched_at__isnull=False).exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("no_broker")
def test_a_sweep_without_a_broker_marks_nothing() -> None:
    flow.begin({"a": flow.http()})
    StepRun.objects.update(dispatched_at=None)
    assert dispatch.sweep() == dispatch.Sweep(broker_away=True)
    assert StepRun.objects.get().dispatched_at is None
    with pytest.raises(broker.BrokerAway):
        dispatch.depth(["default"])


@pytest.mark.django_db
def test_a_claimed_step_is_not_unmarked() -> None:
    execution = flow.begin({"a": flow.http()})
    held = flow.held(execution, "a")
    handoff.unmark([held.id])
    assert flow.step(execution, "a").state == "running"


# ── The sweep ──


@pytest.mark.django_db
def test_a_sweep_sends_what_is_due_and_again_what_nobody_claimed(client: redis.Redis, settings: Any) -> None:
    execution = flow.begin({"a": flow.http(), "later": flow.http("a")})
    StepRun.objects.update(dispatched_at=None, dispatches=0)
    now = engine.now()
    assert dispatch.sweep(now=now).due == 1
    assert dispatch.sweep(now=now) == dispatch.Sweep()
    patience = settings.WORKFLOW_REDISPATCH_SECONDS
    sent_at = now
    for expected in (1, 2, 4, 4, 4):
        early = sent_at + timedelta(seconds=patience * expected - 1)
        assert dispatch.sweep(now=early).stale == 0
        sent_at += timedelta(seconds=patience * expected + 1)
        assert dispatch.sweep(now=sent_at).stale == 1
    assert dispatch.depth(["default"]) == 6
    assert flow.step(execution, "a").dispatches == 6
    assert dispatch.Sweep(due=1).backlog
    assert not dispatch.Sweep(stale=1).backlog


@pytest.mark.django_db
def test_nothing_is_sent_of_a_paused_queue_or_another_lane(client: redis.Redis) -> None:
    flow.begin({"a": flow.http(), "b": flow.http(queue="io")})
    StepRun.objects.update(dispatched_at=None, dispatches=0)
    QueueSettings.objects.create(name="default", paused_at=engine.now())
    assert dispatch.fill(queues=["default"]) == 0
    assert dispatch.fill(queues=["io"]) == 1
    late = engine.now() + timedelta(hours=1)
    StepRun.objects.update(dispatched_at=engine.now())
    assert dispatch.sweep(now=late).stale == 1
    assert dispatch.depth(["default"]) == 0


@pytest.mark.django_db
def test_low_work_takes_no_place_of_critical_work(settings: Any) -> None:
    settings.WORKFLOW_IN_FLIGHT_PER_LEVEL = 2
    flow.begin({f"low{n}": flow.http(priority=9) for n in range(5)} | {"urgent": flow.http(priority=0)})
    StepRun.objects.update(dispatched_at=None, dispatches=0)
    assert dispatch.fill() == 3
    assert StepRun.objects.get(name="urgent").dispatched_at is not None
    assert dispatch.fill() == 0


# ── The broker's life ──


@pytest.mark.django_db
def test_the_first_sweep_remembers_the_broker_and_later_ones_count(client: redis.Redis) -> None:
    assert dispatch.check_epoch() == 0
    first = BrokerEpoch.objects.get()
    assert dispatch.check_epoch() == 0
    second = BrokerEpoch.objects.get()
    assert (second.epoch, second.counter, second.resets) == (first.epoch, first.counter + 1, 0)


def lose_everything(client: redis.Redis) -> None:
    client.flushdb()


def restart_from_an_older_snapshot(client: redis.Redis) -> None:
    client.hset(dispatch.EPOCH_KEY, "counter", 0)


@pytest.mark.django_db
@pytest.mark.parametrize("accident", [lose_everything, restart_from_an_older_snapshot])
def test_hand_overs_to_a_lost_life_of_the_broker_are_forgotten_once(client: redis.Redis, accident: Any) -> None:
    execution = flow.begin({"a": flow.http(), "b": flow.http(), "c": flow.http()})
    held = flow.held(execution, "c")
    for _ in range(3):
        assert dispatch.sweep().reset == 0
    accident(client)
    swept = dispatch.sweep()
    assert (swept.reset, swept.due) == (2, 2)
    assert dispatch.sweep() == dispatch.Sweep()
    assert BrokerEpoch.objects.get().resets == 1
    assert dispatch.depth(["default"]) == 2
    assert flow.finish(held)


@pytest.mark.django_db
def test_a_sweep_that_asked_before_the_accident_was_noticed_changes_nothing(client: redis.Redis) -> None:
    dispatch.check_epoch()
    before = handoff.broker_epoch()
    assert before is not None
    client.flushdb()
    dispatch.check_epoch()
    after = handoff.broker_epoch()
    assert not handoff.change_epoch(expected=before, epoch=uuid7(), counter=1)
    handoff.remember_epoch(before.epoch, 10**6)
    assert handoff.broker_epoch() == after


@pytest.mark.django_db(transaction=True, databases=["default", "engine"])
def test_hints_are_published_only_when_the_transaction_is_committed(client: redis.Redis) -> None:
    with engine.transaction():
        dispatch.publish_on_commit([hint()])
        assert dispatch.depth(["default"]) == 0
    assert dispatch.depth(["default"]) == 1
    dispatch.publish_on_commit([])
    assert dispatch.depth(["default"]) == 1


@pytest.mark.parametrize("name", ["default", "io"])
@pytest.mark.parametrize("priority", range(10))
def test_lists_are_named_as_kombu_names_them(name: str, priority: int) -> None:
    from scheduling_project.celery import app

    # By name: whichever test has made a Celery app last has made it the current one of this process.
    with app.connection_for_write() as connection:
        assert broker.key_of(name, priority) == connection.default_channel._q_for_pri(name, priority)
