"""A backfill's steps against each other, against its cancellation and against edits of its schedule."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction

from execution.models import Execution
from schedules import backfill, firing, lifecycle, versions
from schedules.models import BackfillFire, Schedule, ScheduleFire
from scheduling_project.common.errors import Conflict
from tests.patience import PATIENCE
from tests.schedules.builders import MINUTELY, SECONDLY, at, schedule, workflow

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "engine"]), pytest.mark.race]


@pytest.fixture(autouse=True)
def _engine(settings):
    settings.WORKFLOW_ENGINE_DATABASE = "engine"
    versions.forget()
    workflow()
    yield
    connections["engine"].close()


@pytest.fixture
def missed() -> Schedule:
    """Fifty-nine minutes missed as one range, the sixtieth started."""
    made = schedule(MINUTELY, catch_up="latest")
    firing.fire_due(at(3600))
    return made


def begin(of: Schedule, **given: Any) -> Any:
    return backfill.create(of.pk, **{"since": at(1), "until": at(3600), "actor": "ann", "max_running": 100} | given)


def in_thread(deed: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """The deed, begun in a thread of its own; the list gets what it returned or raised."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(deed())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def together(*deeds: Callable[[], Any]) -> list[Any]:
    barrier = threading.Barrier(len(deeds))

    def after_all(deed: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (barrier.wait(), deed())[1]

    begun = [in_thread(after_all(deed)) for deed in deeds]
    for thread, _ in begun:
        thread.join(PATIENCE)
    return [results[0] for _, results in begun]


def assert_each_instant_once(of: Schedule, one: Any) -> None:
    one.refresh_from_db()
    instants = list(BackfillFire.objects.filter(backfill=one).values_list("scheduled_for", flat=True))
    assert len(instants) == len(set(instants)) == one.started
    made = Execution.objects.filter(source_kind="backfill", source_id=str(one.pk))
    assert sorted(made.values_list("scheduled_for", flat=True)) == sorted(instants)
    ledger = ScheduleFire.objects.filter(schedule=of, outcome="started").exclude(execution=None)
    assert ledger.filter(scheduled_for__in=instants).count() == len(instants)
    assert sum(ScheduleFire.objects.filter(schedule=of).values_list("count", flat=True)) >= 60


def test_steps_of_one_backfill_at_the_same_moment_start_each_instant_once(missed):
    one = begin(missed)
    results = together(*[lambda: backfill.advance(one.pk) for _ in range(4)])
    assert not [r for r in results if isinstance(r, Exception)]
    while backfill.advance(one.pk):
        pass
    assert_each_instant_once(missed, one)
    assert one.started == 59


def test_a_cancellation_waits_for_the_step_in_progress_and_ends_what_it_started(missed):
    one = begin(missed)
    with transaction.atomic(using="engine"):
        begun = backfill.advance(one.pk, using="engine")
        thread, results = in_thread(lambda: backfill.cancel(one.pk, actor="ann", stop_running=True))
        thread.join(0.2)
        assert thread.is_alive(), "the step has the backfill's row"
    thread.join(PATIENCE)
    assert results[0].state == "cancelled"
    assert begun > 0
    assert not Execution.objects.filter(source_kind="backfill", finished_at=None).exists()
    assert backfill.advance(one.pk) == 0
    assert_each_instant_once(missed, one)


def test_steps_and_a_cancellation_at_the_same_moment_leave_nothing_half_done(missed):
    one = begin(missed, max_running=10)
    results = together(
        lambda: backfill.advance(one.pk),
        lambda: backfill.cancel(one.pk, actor="ann"),
        lambda: backfill.advance(one.pk),
        lambda: backfill.cancel(one.pk, actor="bob"),
    )
    refused = [r for r in results if isinstance(r, Exception)]
    assert len(refused) == 1, results
    assert isinstance(refused[0], Conflict), "the second who cancels is told"
    one.refresh_from_db()
    assert one.state == "cancelled"
    assert backfill.advance(one.pk) == 0
    assert_each_instant_once(missed, one)


def test_an_edit_waits_for_the_step_in_progress_and_later_steps_keep_to_the_old_version(missed):
    one = begin(missed, max_running=10)
    with transaction.atomic(using="engine"):
        assert backfill.advance(one.pk, using="engine") == 10
        thread, results = in_thread(lambda: lifecycle.update(missed.pk, {"spec": SECONDLY}, actor="bob", now=at(3601)))
        thread.join(0.2)
        assert thread.is_alive(), "the step has the schedule's row"
    thread.join(PATIENCE)
    assert not isinstance(results[0], Exception)
    Execution.objects.filter(source_kind="backfill").update(
        state="cancelled", finished_at=at(3601), open_steps=0, key_held=False
    )
    backfill.advance(one.pk)
    assert_each_instant_once(missed, one)
    assert set(one.fires.values_list("scheduled_for__second", flat=True)) == {0}


def test_steps_edits_and_visits_at_the_same_moment_do_not_stand_in_each_other_s_way(missed):
    one = begin(missed)
    results = together(
        lambda: backfill.advance(one.pk),
        lambda: lifecycle.update(missed.pk, {"priority": 1}, actor="bob", now=at(3660)),
        lambda: firing.fire_due(at(3720)),
        lambda: backfill.advance(one.pk),
    )
    assert not [r for r in results if isinstance(r, Exception)], results
    firing.fire_due(at(3720))
    while backfill.advance(one.pk):
        pass
    assert_each_instant_once(missed, one)
    assert one.started == 59
