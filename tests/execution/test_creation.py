"""How executions come into being: in bulk, once per idempotency key, with the fields that precedence gives them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import creation, engine, maintenance
from execution.creation import Source, Start, check_size, start_many
from execution.models import Execution, QueueSettings, StepRun
from scheduling_project.common.errors import Conflict, InvalidInput
from tests import factories
from tests.execution import flow

pytestmark = pytest.mark.django_db


def starts(count: int, **fields: Any) -> list[Start]:
    version = factories.make_workflow(definition=factories.CHAIN).published
    assert version is not None
    return [Start(version=version, source=Source("test", str(number)), **fields) for number in range(count)]


def many(made: list[Start]) -> list[Any]:
    return start_many(made, now=engine.now(), using="default")


def test_nothing_is_made_of_nothing() -> None:
    assert many([]) == []


def test_many_executions_are_made_in_few_statements(django_assert_max_num_queries: Any) -> None:
    made = starts(50, input={"n": 1})
    with django_assert_max_num_queries(3):
        ids = many(made)
    assert ids == [start.id for start in made]
    assert StepRun.objects.count() == 150
    assert set(Execution.objects.values_list("open_steps", flat=True)) == {3}
    assert Execution.objects.get(pk=ids[7]).source_id == "7"


def test_a_key_that_was_used_gives_the_earlier_execution_also_within_one_call() -> None:
    first, second, third = starts(3)
    keyed = [Start(version=start.version, source=start.source, idempotency_key=key) for start, key in
             [(first, "k"), (second, "k"), (third, None)]]  # fmt: skip
    ids = many(keyed)
    assert ids == [keyed[0].id, keyed[0].id, keyed[2].id]
    assert many([Start(version=first.version, source=first.source, idempotency_key="k")]) == [keyed[0].id]
    assert Execution.objects.count() == 2


@pytest.mark.parametrize(
    ("options", "minutes"),
    [
        ({"deadline": 5}, 5),
        ({"deadline": 5, "timeout": 60}, 1),
        ({"deadline": 1, "timeout": 600}, 1),
        ({"timeout": 600}, 10),
        ({}, 30),
        ({"deadline": 90}, 30),
    ],
)
def test_the_earliest_of_deadline_timeout_and_the_definitions_timeout_counts(
    options: dict[str, Any], minutes: float
) -> None:
    now = engine.now()
    if "deadline" in options:
        options = {**options, "deadline": now + timedelta(minutes=options["deadline"])}
    workflow = factories.make_workflow(definition={"steps": {"a": flow.http()}, "timeout": 1_800})
    execution = creation.start(workflow, now=now, **options)
    assert execution.deadline_at == now + timedelta(minutes=minutes)


def test_a_deadline_that_leaves_no_time_is_refused_and_one_that_passes_cancels() -> None:
    now = engine.now()
    workflow = factories.make_workflow()
    later = now + timedelta(hours=1)
    for options, rule in (
        ({"deadline": now}, "has passed already"),
        ({"deadline": later, "start_at": later}, "must be later than start_at"),
    ):
        with pytest.raises(InvalidInput) as refused:
            creation.start(workflow, now=now, **options)
        assert refused.value.fields == {"deadline": [rule]}
    assert not Execution.objects.exists()
    execution = creation.start(workflow, deadline=later)
    assert maintenance.cancel_overdue(now=later) == 0
    assert maintenance.cancel_overdue(now=later + timedelta(seconds=1)) == 1
    assert (flow.fresh(execution).state, flow.fresh(execution).state_reason) == ("cancelled", "its deadline has passed")


def test_a_later_start_waits_and_its_deadline_counts_from_there() -> None:
    now = engine.now()
    (made,) = starts(1, start_at=now + timedelta(hours=1), timeout=60)
    start_many([made], now=now, using="default")
    execution = Execution.objects.get()
    assert execution.state == "scheduled"
    assert execution.deadline_at == now + timedelta(hours=1, seconds=60)
    first = flow.step(execution, "a")
    assert (first.available_at, first.dispatched_at) == (now + timedelta(hours=1), None)
    assert flow.claim(execution, "a") is None
    assert flow.claim(execution, "a", now=now + timedelta(hours=2)) is not None


def test_nothing_is_handed_over_to_a_paused_queue() -> None:
    QueueSettings.objects.create(name="default", paused_at=engine.now())
    flow.begin({"a": flow.http(), "b": flow.http(queue="io")})
    assert list(StepRun.objects.filter(dispatched_at__isnull=False).values_list("name", flat=True)) == ["b"]


@pytest.mark.parametrize(
    ("step", "start", "definition", "expected"),
    [
        ({}, {}, {}, ("default", 6)),
        ({}, {}, {"queue": "io", "priority": "low"}, ("io", 9)),
        ({}, {"queue": "io", "priority": 3}, {"queue": "default", "priority": 9}, ("io", 3)),
        ({"queue": "io", "priority": 0}, {"queue": "default", "priority": 3}, {}, ("io", 0)),
    ],
)
def test_queue_and_priority_come_from_the_nearest_who_states_them(
    step: dict[str, Any], start: dict[str, Any], definition: dict[str, Any], expected: tuple[str, int]
) -> None:
    execution = flow.begin({"a": flow.http(**step)}, options=start, **definition)
    run = flow.step(execution, "a")
    assert (run.queue, run.priority) == expected


def test_a_draft_cannot_be_started() -> None:
    workflow = factories.make_workflow()
    workflow.published = None
    workflow.save()
    with pytest.raises(Conflict, match="no published version"):
        creation.start(workflow)


def test_an_input_that_the_schema_refuses_makes_nothing() -> None:
    schema = {"type": "object", "required": ["day"]}
    workflow = factories.make_workflow(definition={"input": schema, "steps": {"a": flow.http()}})
    with pytest.raises(InvalidInput):
        creation.start(workflow, input={})
    assert not Execution.objects.exists()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": object()}, "must be JSON"),
        (float("nan"), "must be JSON"),
        ("é" * 100, "is 202 bytes of JSON; at most 100"),
    ],
)
def test_what_is_no_json_or_too_long_is_refused_by_name(settings: Any, value: Any, problem: str) -> None:
    settings.WORKFLOW_MAX_PAYLOAD_BYTES = 100
    with pytest.raises(InvalidInput) as refused:
        check_size(value, field_name="input")
    assert problem in str(refused.value.fields)
    assert check_size({"a": 1}, field_name="input") == '{"a":1}'
