"""Missed and skipped instants of schedules and lost workers, as events that triggers start something on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from execution import engine, news, workers
from execution.models import Execution, News, ProcessReport
from execution.process_reports import report_process
from schedules.firing import fire_due
from schedules.models import Schedule
from tests.factories import make_workflow
from tests.schedules import builders
from triggers import chaining, lifecycle
from triggers.models import Event, Trigger

pytestmark = pytest.mark.django_db


def make_trigger(name: str, *types: str) -> Trigger:
    return lifecycle.create(name, workflow=make_workflow(name), event_types=list(types), actor="tests")


def miss() -> Schedule:
    """A schedule that was due each minute of ten, and catches up with the last three only."""
    builders.workflow()
    schedule = builders.schedule(name="minutely", catch_up_window=180)
    fire_due(builders.at(600), using="default")
    return schedule


def lose_a_worker() -> None:
    report_process("w@h", kind="worker", host="h", pid=1, slots=2, queues=["default"], own_queues=["default"])
    ProcessReport.objects.update(seen_at=engine.now() - timedelta(seconds=60))
    assert workers.mark_lost() == ["w@h"]


def test_a_missed_instant_starts_what_a_trigger_wants() -> None:
    make_trigger("page", "schedule.fire_missed")
    make_trigger("skips", "schedule.fire_skipped", "worker.*")
    schedule = miss()
    assert {row.data["type"] for row in News.objects.filter(topic=news.EVENT)} == {"schedule.fire_missed"}
    chaining.consume()
    (event,) = Event.objects.all()
    assert (event.type, event.subject, event.source) == (
        "schedule.fire_missed",
        str(schedule.pk),
        f"/schedules/{schedule.pk}",
    )
    assert event.data["count"] > 1
    assert event.data["schedule"] == "minutely"
    (execution,) = Execution.objects.filter(source_kind="trigger")
    assert execution.input == event.data
    assert not News.objects.exists()


def test_an_instant_that_the_overlap_policy_skips_is_told_with_its_reason() -> None:
    trigger = make_trigger("skips", "schedule.*")
    builders.workflow()
    builders.schedule(name="busy", overlap_policy="skip", catch_up_window=3_600)
    fire_due(builders.at(180), using="default")
    chaining.consume()
    skipped = Event.objects.filter(type="schedule.fire_skipped")
    assert skipped
    assert all(event.data["reason"] for event in skipped)
    assert Execution.objects.filter(source_id=str(trigger.pk)).count() == Event.objects.count()


def test_a_lost_worker_starts_what_a_trigger_wants() -> None:
    make_trigger("page", "worker.lost")
    lose_a_worker()
    chaining.consume()
    (event,) = Event.objects.all()
    assert (event.type, event.source) == ("worker.lost", "/workers/w%40h")
    assert (event.data["worker"], event.data["host"]) == ("w@h", "h")
    assert Execution.objects.filter(source_kind="trigger").count() == 1


def test_nothing_is_stored_for_news_that_no_trigger_wants() -> None:
    make_trigger("all", "*")  # would listen to itself; it wants no news
    paused = make_trigger("paused", "schedule.*", "worker.*")
    lifecycle.pause(paused, actor="tests")
    miss()
    lose_a_worker()
    assert not News.objects.exists()
    assert not Event.objects.exists()


def test_news_are_left_with_the_transaction_or_not_at_all() -> None:
    make_trigger("page", "worker.lost")

    def lose_and_fail() -> None:
        with engine.transaction():
            lose_a_worker()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        lose_and_fail()
    assert not News.objects.exists()
    news.leave("worker.lost", [])
    assert not News.objects.exists()
