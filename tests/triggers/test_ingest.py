"""One statement for an event and all that it starts; several where something is to be asked first."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DataError, transaction

from execution.models import Execution, StepRun
from scheduling_project.common import rate_limits
from tests.factories import make_workflow
from tests.triggers.conftest import deliver, make_endpoint
from triggers import event_rows, ingest, lifecycle
from triggers.arrivals import Sender
from triggers.auth import failures
from triggers.models import Activation, Delivery, Event

pytestmark = pytest.mark.django_db

ONE = {"steps": {"a": {"task": "tests.echo"}}}
DECIDED = {"steps": {"a": {"task": "tests.echo", "when": {"input": {"go": [True]}}}, "b": {"task": "tests.echo"}}}
KEYED = {"steps": {"a": {"task": "tests.echo"}}, "concurrency": {"key": "one", "limit": 1}}


def make_trigger(name: str, definition: dict[str, Any] | None = None, **values: Any) -> None:
    lifecycle.create(name, workflow=make_workflow(definition=definition), event_types=["a"], actor="tests", **values)


@pytest.mark.parametrize("others", [{}, {"throttle": {"limit": 9, "period": 60}}], ids=["at once", "step by step"])
def test_both_ways_write_the_same_rows(others: dict[str, Any]) -> None:
    make_trigger("plain")
    make_trigger("other", **others)
    make_trigger("fails", {"input": {"required": ["day"]}, **ONE})
    make_trigger("no", pattern={"data": {"n": [2]}})
    receipt = ingest.publish_event("a", {"n": 1}, id="1")
    states = Activation.objects.values_list("trigger__name", "state").order_by("trigger__name")
    assert list(states) == [("fails", "failed"), ("other", "started"), ("plain", "started")]
    assert set(receipt.execution_ids) == set(Execution.objects.values_list("pk", flat=True))
    for run in StepRun.objects.all():
        assert (run.state, run.dispatches, run.execution.input) == ("queued", 1, {"n": 1})
        assert run.dispatched_at is not None
    (line,) = Delivery.objects.all()
    assert (line.outcome, line.status, line.event_id) == ("accepted", 202, receipt.event_id)
    assert [verdict["name"] for verdict in line.verdicts if not verdict["matched"]] == ["no"]
    again = ingest.publish_event("a", {"n": 1}, id="1")
    assert (again.duplicate, set(again.activation_ids)) == (True, set(receipt.activation_ids))
    assert sorted(Delivery.objects.values_list("outcome", flat=True)) == ["accepted", "duplicate"]
    assert Event.objects.count() == 1


def test_executions_that_need_more_than_rows_get_it() -> None:
    make_trigger("decided", DECIDED)
    make_trigger("keyed", KEYED)
    ingest.publish_event("a", {"go": False})
    ingest.publish_event("a", {"go": True})
    decided = StepRun.objects.filter(execution__source_label="decided", name="a").order_by("execution_id")
    assert [run.state for run in decided] == ["skipped", "queued"]
    keyed = StepRun.objects.filter(execution__source_label="keyed").order_by("execution_id")
    assert [(run.state, run.waiting_for) for run in keyed] == [("queued", None), ("waiting", "key")]


def test_a_failed_intake_leaves_the_callers_transaction_as_it_was() -> None:
    make_trigger("t")
    with transaction.atomic():
        with pytest.raises(DataError):
            ingest.ingest(ingest.internal("a", {}, source="/s", depth=99_999), sender=Sender("tests"))
        ingest.publish_event("a")
    assert Event.objects.count() == Execution.objects.count() == 1


def test_a_repeat_of_what_is_gone_by_now_is_none() -> None:
    arrival = ingest.internal("a", {}, source="/s", id="1")
    receipt = ingest.ingest(arrival, sender=Sender("tests"))
    assert receipt is not None
    event = Event.objects.get()
    params = event_rows.columns(arrival, event.pk, None, Sender("tests"), event.received_at)
    found = event_rows.repeat(params, Sender("tests"), using="default")
    assert found is not None
    assert found.event_id == event.pk
    Delivery.objects.all().delete()
    event.delete()
    assert event_rows.repeat(params, Sender("tests"), using="default") is None
    assert not Delivery.objects.exists()


def test_who_has_failed_nowhere_is_not_asked_for_again_within_a_second() -> None:
    endpoint = make_endpoint()
    name = f"auth:{endpoint.pk}:127.0.0.1"
    assert deliver(endpoint).status_code == 202
    for _ in range(failures.RATE.burst):  # guesses that another process counts
        rate_limits.take(name, failures.RATE)
    assert deliver(endpoint).status_code == 202
    answer = deliver(endpoint, sign=False)  # the first guess here is one too many, and ends what was remembered
    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert deliver(endpoint).status_code == 429
    strict = make_endpoint("strict", when_redis_is_away="closed")
    assert deliver(strict).status_code == 202
    for _ in range(failures.RATE.burst):
        rate_limits.take(f"auth:{strict.pk}:127.0.0.1", failures.RATE)
    assert deliver(strict).status_code == 429


def test_not_everybody_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MOST_REMEMBERED", 2)
    for number in range(5):
        assert failures.look(f"tests:{number}").allowed
        assert len(failures._clean_until) <= 2
