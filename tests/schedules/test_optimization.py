"""Reports over real rows, and changes that are made, refused and put back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from execution.models import AuditEntry, Execution, Pool, ProcessReport
from execution.states import ExecutionState, StepState
from schedules import lifecycle, load_model, optimization
from schedules.load_model import Assumptions
from schedules.models import OptimizationReport, Schedule
from schedules.states import ChangeState
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound
from tests.factories import make_execution, make_step_run, make_workflow, now

pytestmark = pytest.mark.django_db

AT_TWO: dict[str, Any] = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}
STEP = {"steps": {"work": {"http": {"url": "https://example.org/"}, "timeout": 60}}}
POOLED = {"steps": {"work": {"http": {"url": "https://example.org/"}, "pool": {"name": "db"}}}}


def history(workflow: Any, seconds: float, *, pool: str = "") -> None:
    """Three executions whose only step took so long."""
    for _ in range(3):
        end = now()
        start = end - timedelta(seconds=seconds)
        execution = make_execution(workflow, state=ExecutionState.SUCCEEDED, started_at=start, finished_at=end)
        run = make_step_run(execution, state=StepState.SUCCEEDED, started_at=start, finished_at=end, pool=pool)
        run.attempts.update(started_at=start, finished_at=end)


def worker(name: str = "w1", *, host: str = "h1", slots: int = 2, queues: tuple[str, ...] = ("default",)) -> None:
    ProcessReport.objects.create(name=name, kind="worker", host=host, pid=1, queues=list(queues), slots=slots)


def crowd(count: int = 12, *, definition: dict[str, Any] = STEP, **given: Any) -> list[Schedule]:
    """So many schedules at 02:00 whose runs take a minute."""
    workflow = make_workflow("nightly", definition)
    history(workflow, 60, pool=definition["steps"]["work"].get("pool", {}).get("name", ""))
    return [
        lifecycle.create(
            actor="test", name=f"s{i:02}", workflow=workflow, spec=AT_TWO, overlap_policy="allow_all", **given
        )
        for i in range(count)
    ]


def test_a_report_finds_the_crowd_and_its_proposals_flatten_it() -> None:
    worker()
    crowd()
    made = optimization.report(actor="ann", days=3, note="nights")
    assert (made.days, made.schedules, made.created_by) == (3, 12, "ann")
    assert made.before["executions"] == 36
    assert made.before["slots"] == 2
    assert not made.before["assumed_workers"]
    assert made.before["wait_p95"] > 100
    assert made.after["wait_p95"] <= 5
    assert {change.kind for change in made.changes.all()} == {"move"}
    assert sum(point["fires"] for point in made.curve) == 36
    assert made.patterns["workflows"][0]["name"] == "nightly"
    assert AuditEntry.objects.filter(action="optimizer.report", actor="ann").exists()
    assert all("wait_p95_after" in change.effect for change in made.changes.all())


def test_applying_makes_every_change_and_reverting_puts_each_back() -> None:
    worker()
    schedules = crowd()
    made = optimization.report(actor="ann", days=2)
    applied = optimization.apply(made.pk, actor="ann")
    assert {row.state for row in applied} == {ChangeState.APPLIED}
    moved = lifecycle.get(applied[0].schedule_id)
    assert moved.version.spec == applied[0].changes["spec"]
    entry = AuditEntry.objects.filter(action="schedule.update", subject_id=str(moved.pk)).latest("id")
    assert entry.note == applied[0].reason
    assert optimization.report(actor="ann", days=2).before["wait_p95"] <= 5

    optimization.revert(made.pk, actor="bob", changes=[applied[0].pk])
    assert lifecycle.get(moved.pk).version.spec["timetables"][0]["expression"] == "0 2 * * *"
    rest = optimization.revert(made.pk, actor="bob")
    assert len(rest) == len(applied) - 1
    specs = {tuple(sorted(lifecycle.get(one.pk).version.spec["timetables"][0].items())) for one in schedules}
    assert len(specs) == 1
    again = optimization.apply(made.pk, actor="ann", changes=[applied[0].pk])
    assert again[0].decided_by == "ann"


def test_what_was_edited_since_is_refused_and_nothing_is_changed() -> None:
    worker()
    crowd()
    made = optimization.report(actor="ann", days=2)
    last = made.changes.filter(kind="move").order_by("-id").first()
    assert last is not None
    lifecycle.update(last.schedule_id, {"spec": {"timetables": [{"kind": "interval", "every": 60}]}}, actor="carl")
    before = Schedule.objects.count(), Execution.objects.count()
    with pytest.raises(Conflict, match="changed since"):
        optimization.apply(made.pk, actor="ann")
    assert not made.changes.exclude(state=ChangeState.PROPOSED).exists()
    assert before == (Schedule.objects.count(), Execution.objects.count())


def test_deeds_on_what_does_not_fit_are_refused() -> None:
    worker()
    crowd()
    made = optimization.report(actor="ann", days=2)
    with pytest.raises(NotFound):
        optimization.apply(uuid4(), actor="ann")
    with pytest.raises(NotFound):
        optimization.apply(made.pk, actor="ann", changes=[uuid4()])
    with pytest.raises(Conflict, match="proposed already"):
        optimization.revert(made.pk, actor="ann", changes=[made.changes.all()[0].pk])
    optimization.apply(made.pk, actor="ann")
    with pytest.raises(Conflict, match="applied already"):
        optimization.apply(made.pk, actor="ann", changes=[made.changes.all()[0].pk])


def test_a_small_pool_is_grown_and_shrunk_again() -> None:
    worker(slots=12)
    Pool.objects.create(name="db", slots=1)
    crowd(definition=POOLED, metadata={"placement": {"fixed": True}})
    made = optimization.report(actor="ann", days=2)
    (change,) = made.changes.filter(subject_kind="pool")
    optimization.apply(made.pk, actor="ann", changes=[change.pk])
    assert Pool.objects.get(pk="db").slots == change.changes["slots"] > 1
    Pool.objects.filter(pk="db").update(slots=99)
    with pytest.raises(Conflict, match="no longer has"):
        optimization.revert(made.pk, actor="ann", changes=[change.pk])
    Pool.objects.filter(pk="db").update(slots=change.changes["slots"])
    optimization.revert(made.pk, actor="ann", changes=[change.pk])
    assert Pool.objects.get(pk="db").slots == 1


def test_advice_cannot_be_applied() -> None:
    worker(slots=1)
    crowd(metadata={"placement": {"fixed": True}})
    made = optimization.report(actor="ann", days=2)
    (advice,) = made.changes.filter(kind="workers")
    with pytest.raises(Conflict, match="advice"):
        optimization.apply(made.pk, actor="ann", changes=[advice.pk])
    assert optimization.apply(made.pk, actor="ann") == []


def test_without_workers_slots_are_assumed_and_the_report_says_so() -> None:
    crowd(2)
    made = optimization.report(actor="ann", days=1)
    assert made.before["assumed_workers"]
    assert made.before["slots"] == load_model.ASSUMED_SLOTS


def test_what_is_paused_ended_or_without_a_version_does_not_count() -> None:
    schedules = crowd(5, max_executions=1)
    lifecycle.pause(schedules[0].pk, actor="test")
    lifecycle.pause(schedules[1].pk, actor="test", until=now() + timedelta(days=1, hours=12))
    Schedule.objects.filter(pk=schedules[2].pk).update(version=None)
    Schedule.objects.filter(pk=schedules[3].pk).update(metadata={"placement": 5})
    model = load_model.read(days=3)
    assert [fact.name for fact in model.facts] == ["s01", "s04"]
    assert [len(fact.fires) for fact in model.facts] == [1, 1]
    assert model.failed == 2


def test_jitter_counts_when_it_lets_them_fire() -> None:
    crowd(1)
    one = Schedule.objects.get()
    lifecycle.update(one.pk, {"spec": {**AT_TWO, "jitter": 3600}}, actor="test")
    (fact,) = load_model.read(days=2).facts
    assert all(0 < fire % 86_400 - 7200 <= 3600 for fire in fact.fires)


def test_what_if_adds_schedules_loses_hosts_and_lengthens_runs_and_saves_nothing() -> None:
    worker("w1", host="h1", slots=2)
    worker("w2", host="h2", slots=2)
    crowd(4)
    nothing = optimization.what_if(Assumptions(), days=1)
    assert nothing.before == {**nothing.after, "assumed_workers": False}
    add = {"cron_expression": "0 2 * * *", "count": 20, "seconds": 60}
    many = optimization.what_if(Assumptions(add=(add,)), days=1)
    assert many.after["executions"] == many.before["executions"] + 20
    assert many.after["wait_p95"] > many.before["wait_p95"]
    lost = optimization.what_if(Assumptions(lose_hosts=("h2",)), days=1)
    assert (lost.before["slots"], lost.after["slots"]) == (4, 2)
    assert lost.after["wait_max"] > lost.before["wait_max"]
    longer = optimization.what_if(Assumptions(duration_factor=2.0), days=1)
    assert longer.after["utilisation"] == pytest.approx(2 * longer.before["utilisation"], rel=0.01)
    wider = optimization.what_if(Assumptions(slots={"default": 40}), days=1)
    assert wider.after["slots"] == 40
    named = optimization.what_if(Assumptions(add=({"workflow": "nightly", "spec": AT_TWO},)), days=1)
    assert named.after["executions"] == named.before["executions"] + 1
    assert Schedule.objects.count() == 4
    assert not OptimizationReport.objects.exists()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"duration_factor": 0.0}, "duration_factor"),
        ({"lose_hosts": ("h9",)}, "lose_hosts"),
        ({"slots": {"nowhere": 1}}, "slots.nowhere"),
        ({"slots": {"default": -1}}, "slots.default"),
        ({"slots": {"default": True}}, "slots.default"),
        ({"pools": {"db": 1}}, "pools.db"),
        ({"add": ({"count": 1},)}, "add.0.spec"),
        ({"add": ({"cron_expression": "61 * * * *"},)}, "add.0.timetables.0.expression"),
        ({"add": ({"cron_expression": "@daily", "count": 0},)}, "add.0.count"),
        ({"add": ({"cron_expression": "@daily", "priority": 12},)}, "add.0.priority"),
        ({"add": ({"cron_expression": "@daily", "queue": "nowhere"},)}, "add.0.queue"),
        ({"add": ({"cron_expression": "@daily", "workflow": "nowhere"},)}, "add.0.workflow"),
        ({"add": ({"cron_expression": "@daily", "seconds": "x"},)}, "add.0.seconds"),
        ({"add": ({"cron_expression": "@daily", "count": 100_000},) * 2}, "add"),
    ],
)
def test_wrong_assumptions_are_named(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        optimization.what_if(Assumptions(**given), days=1)
    assert field in caught.value.fields


def test_pools_can_be_assumed_and_checked() -> None:
    Pool.objects.create(name="db", slots=1)
    worker(slots=12)
    crowd(6, definition=POOLED)
    wider = optimization.what_if(Assumptions(pools={"db": 6}), days=1)
    assert wider.after["wait_p95"] < wider.before["wait_p95"]
    with pytest.raises(InvalidInput):
        optimization.what_if(Assumptions(pools={"db": -1}), days=1)


@pytest.mark.parametrize(
    ("given", "field"), [({"days": 0}, "days"), ({"days": 61}, "days"), ({"tolerated": -1}, "tolerated")]
)
def test_bounds_of_a_report(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        optimization.report(actor="ann", **given)
    assert field in caught.value.fields


def test_progress_is_told_by_stage() -> None:
    crowd(3)
    told: list[str] = []
    optimization.report(actor="ann", days=1, progress=lambda what, part: told.append(what))
    assert told[0] == "Reading schedules"
    assert "Looking for better minutes" in told
    stages: list[str] = []
    optimization.what_if(Assumptions(), days=1, progress=lambda what, part: stages.append(what))
    assert "Reading schedules" in stages


def test_a_placement_is_checked_when_a_schedule_is_saved() -> None:
    with pytest.raises(InvalidInput) as caught:
        crowd(1, metadata={"placement": {"fixed": "maybe"}})
    assert "metadata.placement.fixed" in caught.value.fields
    assert not Schedule.objects.exists()
