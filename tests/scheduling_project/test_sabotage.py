"""The checker is checked: without a safeguard the thing it prevents happens, and the judge of the drills says so.

`manage.py drill check-the-checker` shows the same with real processes; here each situation is played with rows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from execution import dispatch, engine, handoff, maintenance, queue
from execution.models import DeadLetter, Execution, StepRun
from schedules import claims, due, firing, versions
from schedules.models import Schedule
from scheduling_project.drills import sabotage
from scheduling_project.drills.environment import CONTROL, SABOTAGE
from scheduling_project.drills.sabotage import SABOTAGES
from scheduling_project.drills.verdict import Verdict, judge, judge_failures, judge_ledger
from tests.execution import flow
from tests.schedules.builders import MINUTELY, at, schedule
from triggers import event_rows, ingest
from triggers.arrivals import Sender
from triggers.ingest import internal
from triggers.models import Event

PATCHED = {
    claims: ("INSERT_LEDGER",),
    due: ("collect",),
    dispatch: ("check_epoch",),
    handoff: ("mark_stale",),
    event_rows: ("columns",),
    queue: ("HELD", "heartbeat", "CLAIM", "CLAIM_WITH_POOL", "parts_of", "finish"),
}


@pytest.fixture
def take_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Take a safeguard away in this process and, where it lies there, in the test's transaction."""
    for module, names in PATCHED.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))  # put back after the test

    def take(name: str) -> None:
        SABOTAGES[name].remove()
        with connection.cursor() as cursor:
            for statement in SABOTAGES[name].sql:
                cursor.execute(statement)

    return take


def judged(*executions: Execution, effects: Counter[str] | None = None) -> Verdict:
    keys: list[UUID] = [execution.pk for execution in executions]
    return judge("x", executions=keys, effects=effects or Counter(), recovery_seconds=None)


def noticed(name: str, verdict: Verdict) -> bool:
    return SABOTAGES[name].is_noticed(verdict.problems)


def test_only_a_drill_may_take_a_safeguard_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONTROL, raising=False)
    monkeypatch.setenv(SABOTAGE, "fence")
    held = queue.HELD
    with pytest.raises(ImproperlyConfigured, match="only a drill on its own servers"):
        sabotage.apply()
    assert held == queue.HELD


def test_an_unknown_safeguard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTROL, "/somewhere")
    monkeypatch.setenv(SABOTAGE, "gravity")
    with pytest.raises(ImproperlyConfigured, match="SCHEDULING_DRILL_SABOTAGE=gravity: there is unique-instant, "):
        sabotage.apply()


def test_a_drill_takes_away_what_is_named(monkeypatch: pytest.MonkeyPatch, take_away: Callable[[str], None]) -> None:
    monkeypatch.setenv(CONTROL, "/somewhere")
    monkeypatch.setenv(SABOTAGE, "fence")
    sabotage.apply()
    assert "lease_token" not in queue.HELD
    monkeypatch.delenv(SABOTAGE)
    sabotage.apply()


def test_a_statement_that_has_no_such_part_is_not_sabotaged() -> None:
    with pytest.raises(ImproperlyConfigured, match="there is no 'WHERE' to be taken away"):
        sabotage._without("SELECT 1", "WHERE")


def set_back_and_fire() -> Verdict:
    watched = schedule(MINUTELY, name="watched")
    versions.forget()
    firing.fire_due(at(300))
    Schedule.objects.filter(pk=watched.pk).update(fired_through=at(0), next_fire_at=at(60))
    firing.fire_due(at(301))
    verdict = judged()
    judge_ledger(verdict, [watched])
    return verdict


@pytest.mark.django_db
def test_the_ledgers_unique_key(take_away: Callable[[str], None]) -> None:
    assert set_back_and_fire().problems == []


@pytest.mark.django_db
def test_without_the_ledgers_unique_key(take_away: Callable[[str], None]) -> None:
    take_away("unique-instant")
    assert noticed("unique-instant", set_back_and_fire())


@pytest.mark.django_db
@pytest.mark.parametrize("without", [False, True])
def test_catch_up(take_away: Callable[[str], None], without: bool) -> None:
    if without:
        take_away("catch-up")
    watched = schedule(MINUTELY, name="watched")
    versions.forget()
    firing.fire_due(at(600))
    verdict = judged()
    judge_ledger(verdict, [watched])
    assert noticed("catch-up", verdict) is without
    assert verdict.passed is not without


@pytest.mark.django_db
@pytest.mark.parametrize("without", [False, True])
def test_sending_again(take_away: Callable[[str], None], without: bool) -> None:
    broker = redis.Redis.from_url(settings.REDIS_URL)
    broker.flushdb()
    dispatch.check_epoch()
    execution = flow.begin({"a": flow.http()})
    StepRun.objects.update(dispatched_at=engine.now(), dispatches=1)
    if without:
        take_away("re-dispatch")
    broker.flushdb()
    assert dispatch.sweep(now=engine.now() + timedelta(hours=1)).reset == (0 if without else 1)
    assert (dispatch.depth(settings.WORKFLOW_QUEUES) == 0) is without
    assert noticed("re-dispatch", judged(execution))  # nobody has run it: that is what the judge would say
    broker.flushdb()


@pytest.mark.django_db
@pytest.mark.parametrize("without", [False, True])
def test_a_delivery_that_comes_twice(take_away: Callable[[str], None], without: bool) -> None:
    if without:
        take_away("idempotent-intake")
    arrival = internal("order.paid", {"order": 7}, source="/shop", subject="", id="o-7", time=None, extensions={})
    ids = {ingest.ingest(arrival, sender=Sender("shop")).event_id for _ in range(2)}  # type: ignore[union-attr]
    assert len(ids) == Event.objects.count() == (2 if without else 1)


@pytest.mark.django_db
@pytest.mark.parametrize("without", [False, True])
def test_a_late_write(take_away: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, without: bool) -> None:
    if without:
        take_away("fence")
    execution = flow.begin({"a": flow.http()})
    late = flow.held(execution, "a")
    StepRun.objects.update(lease_until=engine.now() - timedelta(seconds=1))
    monkeypatch.setattr(settings, "WORKFLOW_LEASE_SECONDS", 0.1)  # Postgres must have been up for so long
    assert maintenance.rescue().queued == 1
    flow.held(execution, "a")
    assert flow.finish(late, {"attempt": late.attempt}) is without
    assert queue.heartbeat(late.id, late.token, lease=30) is without
    verdict = judged(execution)
    assert noticed("fence", verdict) is without


@pytest.mark.django_db
@pytest.mark.parametrize("without", [False, True])
def test_a_message_that_comes_twice(take_away: Callable[[str], None], without: bool) -> None:
    if without:
        take_away("claim-guard")
    execution = flow.begin({"a": flow.http()})
    held = [flow.claim(execution, "a") for _ in range(2)]
    worked = Counter(claim.idempotency_key for claim in held if claim is not None)
    assert noticed("claim-guard", judged(execution, effects=worked)) is without


class Killed(BaseException):
    """What ends the process between two statements."""


@pytest.mark.django_db
@pytest.mark.parametrize("without", [False, True])
def test_a_process_that_ends_right_after_a_failure(
    take_away: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, without: bool
) -> None:
    if without:
        take_away("letter-in-statement")

        def killed(seconds: float) -> None:
            raise Killed

        monkeypatch.setattr(time, "sleep", killed)
    execution = flow.begin({"a": flow.http()})
    if without:
        with pytest.raises(Killed):
            flow.fail(execution, "a")
    else:
        flow.fail(execution, "a")
    verdict = judged()
    judge_failures(verdict, [execution.pk])
    assert verdict.figures["failed"] == 1
    assert noticed("letter-in-statement", verdict) is without


@pytest.mark.django_db
def test_a_letter_that_is_written_apart_is_written(take_away: Callable[[str], None]) -> None:
    take_away("letter-in-statement")
    execution = flow.begin({"a": flow.http()})
    flow.fail(execution, "a")
    assert DeadLetter.objects.get().execution_id == execution.pk
    flow.succeed(flow.begin({"a": flow.http()}), "a")
    assert DeadLetter.objects.count() == 1


def test_every_sabotage_names_a_drill_that_there_is() -> None:
    from scheduling_project.drills.faults import FAULTS

    assert {one.noticed_by for one in SABOTAGES.values()} <= set(FAULTS)
    assert all(one.remove.__doc__ for one in SABOTAGES.values())
    SABOTAGES["ack-after-commit"].remove()  # it lies in the database alone
