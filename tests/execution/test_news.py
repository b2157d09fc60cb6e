"""Durable news: told with the end, taken once."""

from __future__ import annotations

import pytest

from execution import creation, engine, news, queue
from execution.models import News
from tests import factories
from tests.execution import flow

pytestmark = pytest.mark.django_db


def tell(topic: str, subject: str) -> None:
    News.objects.create(topic=topic, subject=subject, data={"state": "succeeded"})


def test_news_are_taken_oldest_first_up_to_a_limit_and_once() -> None:
    for n in range(5):
        tell("schedule", f"s{n}")
    tell("trigger", "t")
    first = news.claim("schedule", limit=3)
    assert [row.subject for row in first] == ["s0", "s1", "s2"]
    assert first[0].data == {"state": "succeeded"}
    assert [row.subject for row in news.claim("schedule")] == ["s3", "s4"]
    assert news.claim("schedule") == []
    assert [row.subject for row in news.claim("trigger")] == ["t"]


def test_news_that_a_consumer_could_not_act_on_come_back() -> None:
    tell("schedule", "s")

    def crash() -> None:
        with engine.transaction():
            assert len(news.claim("schedule")) == 1
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        crash()
    assert len(news.claim("schedule")) == 1


@pytest.mark.parametrize(("how", "state"), [("succeed", "succeeded"), ("fail", "failed"), ("cancel", "cancelled")])
def test_the_end_of_an_execution_is_told_to_who_asked_for_it(how: str, state: str) -> None:
    options = {"news_topic": "schedule", "source": creation.Source("schedule", "s-7")}
    execution = flow.begin({"a": flow.http()}, options=options)
    flow.begin({"a": flow.http()})
    assert not News.objects.exists()
    if how == "cancel":
        assert queue.cancel(execution.pk, reason="not wanted")
    elif how == "fail":
        flow.fail(execution, "a")
    else:
        flow.succeed(execution, "a")
    (told,) = news.claim("schedule")
    assert (told.execution_id, told.subject, told.data) == (execution.pk, "s-7", {"state": state})


def test_an_execution_whose_output_cannot_be_made_is_told_as_failed() -> None:
    execution = flow.begin({"a": flow.http()}, output="${{ abs(steps.a.output) }}", options={"news_topic": "schedule"})
    flow.succeed(execution, "a", "no number")
    assert flow.fresh(execution).state == "failed"
    assert [row.data for row in news.claim("schedule")] == [{"state": "failed"}]


def test_nobody_is_told_who_did_not_ask() -> None:
    execution = flow.begin({"a": flow.http()})
    flow.succeed(execution, "a")
    assert factories.Execution.objects.filter(state="succeeded").exists()
    assert not News.objects.exists()
