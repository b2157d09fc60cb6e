"""Conflicts as they are read from the database, and refused when a schedule says so."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from pytest_django import DjangoAssertNumQueries

from execution.models import Execution, Pool, ProcessReport, Workflow
from schedules import conflict_facts, conflicts, lifecycle
from schedules.conflict_facts import ConflictsRefused
from schedules.models import Schedule
from scheduling_project.common import clock
from scheduling_project.common.errors import InvalidInput
from tests.schedules.builders import workflow

NIGHTLY: dict[str, Any] = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}
DAILY: dict[str, Any] = {"timetables": [{"kind": "cron", "expression": "00 02 * * *"}]}
MINUTELY: dict[str, Any] = {"timetables": [{"kind": "cron", "expression": "* * * * *"}]}


def make(name: str, spec: dict[str, Any] = NIGHTLY, of: Any = "report", **more: Any) -> Schedule:
    return lifecycle.create(actor="x", name=name, workflow=of, spec=spec, **more)


def ran(of: Schedule, seconds: float, times: int = 6) -> None:
    now = clock.now()
    version = Workflow.objects.get(pk=of.workflow_id).published
    Execution.objects.bulk_create(
        Execution(
            workflow_id=of.workflow_id,
            version=version,
            source_kind="schedule",
            source_id=str(of.pk),
            state="succeeded",
            started_at=now,
            finished_at=now + timedelta(seconds=seconds),
        )
        for _ in range(times)
    )


def codes(schedule: Schedule, **more: Any) -> list[str]:
    return [finding.code for finding in conflict_facts.of(schedule, **more).findings]


def pooled(name: str, units: int = 1, **more: Any) -> Workflow:
    step = {"task": "demo.tasks.noop", "pool": {"name": "warehouse", "units": units}}
    return workflow(name, definition={"steps": {"only": step}, **more})


@pytest.mark.django_db
class TestReading:
    @pytest.fixture(autouse=True)
    def _a_workflow(self) -> None:
        workflow()

    def test_duplicates_are_found_by_their_words_and_by_their_fires(self) -> None:
        first = make("a")
        make("b")
        make("c", DAILY)
        make("d", NIGHTLY, workflow("other"))
        make("paused", enabled=False)
        (found,) = conflict_facts.of(first).findings
        assert [name for _, name in found.others] == ["b", "c"]
        (shared,) = conflict_facts.among(Schedule.objects.all()).findings
        assert {shared.schedule[1], *(name for _, name in shared.others)} == {"a", "b", "c"}

    def test_a_paused_schedule_is_looked_at_as_if_it_were_not(self) -> None:
        make("b")
        assert codes(make("a", enabled=False)) == ["duplicate"]

    def test_durations_come_from_its_own_runs_once_there_are_enough(self) -> None:
        slow, quick = make("slow", MINUTELY), make("quick", MINUTELY, input={"x": 1})
        ran(slow, 90)
        assert codes(slow) == ["overlapping_runs", "duplicate"]
        ran(quick, 5)
        assert codes(quick) == ["duplicate"]
        (told, _) = conflict_facts.of(slow).findings
        assert (told.figures["p95_seconds"], told.figures["runs"]) == (90.0, 6)

    def test_a_new_schedule_takes_the_durations_of_its_workflow(self) -> None:
        ran(make("old"), 90)
        assert codes(make("new", MINUTELY)) == ["overlapping_runs"]

    def test_pools_of_other_workflows_are_met_by_their_definitions(self) -> None:
        Pool.objects.create(name="warehouse", slots=3)
        first = make("a", of=pooled("one", units=2))
        # One that does not fire next at the same instant is found by the pool alone.
        often = {"timetables": [{"kind": "cron", "expression": "0 */2 * * *"}]}
        make("b", often, of=pooled("two", units=2))
        (found,) = conflict_facts.of(first).findings
        assert (found.code, found.figures["demand"]) == ("pool_full", 4)

    def test_keys_of_schedules_and_of_definitions_meet(self) -> None:
        definition = {"concurrency": {"key": "acme-${{ input.n }}"}, "steps": {"only": {"task": "demo.tasks.noop"}}}
        keyed = workflow("keyed", definition=definition)
        first = make("a", of=keyed, input={"n": 1})
        make("b", concurrency_key="acme-1")
        make("c", of=keyed, input={"n": 2})
        assert codes(first) == ["duplicate", "exclusive"]
        (_, exclusive) = conflict_facts.of(first).findings
        assert [name for _, name in exclusive.others] == ["b"]
        own = workflow("own", definition={**definition, "concurrency": {"key": "${{ execution.id }}"}})
        assert codes(make("d", of=own)) == []
        wrong = workflow("wrong", definition={**definition, "concurrency": {"key": "${{ max(input.n) }}"}})
        assert codes(make("e", of=wrong, input={"n": "text"})) == []

    def test_queues_are_as_large_as_their_live_workers(self) -> None:
        first = make("a")
        for index in range(3):
            make(f"b{index}", of=workflow(f"w{index}"))
        assert codes(first) == []
        ProcessReport.objects.create(name="w", kind="worker", host="h", pid=1, queues=["default"], slots=3)
        (found,) = conflict_facts.of(first).findings
        assert (found.code, found.figures["demand"], found.figures["limit"]) == ("queue_full", 4, 3)
        assert "queue_full" in [f.code for f in conflict_facts.among(Schedule.objects.all(), hours=48).findings]

    def test_what_cannot_be_computed_has_no_conflicts_and_harms_nobody(self) -> None:
        broken, fine = make("a"), make("b")
        broken.version.spec = {"timetables": [{"kind": "cron", "expression": "nonsense"}], "timezone": "UTC"}
        broken.version.save()
        from schedules import versions

        versions.forget()
        assert codes(broken) == []
        found = conflict_facts.of(fine)
        assert (found.findings, found.failed) == ([], 1)
        assert conflict_facts.among(Schedule.objects.all()).failed == 1

    def test_a_check_reads_as_much_with_many_schedules_as_with_few(
        self, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        first = make("a", MINUTELY)
        for index in range(12):
            make(f"b{index}", MINUTELY, input={"n": index})
        with django_assert_max_num_queries(16):
            found = conflict_facts.of(first, bounds=conflicts.Bounds(conflicts.DAY, 100, 5, 1000))
        assert found.truncated
        assert found.considered == 5
        assert conflict_facts.among(
            Schedule.objects.all(), bounds=conflicts.Bounds(conflicts.DAY, 5_000, 5, 10_000)
        ).truncated


@pytest.mark.django_db
class TestRefusing:
    @pytest.fixture(autouse=True)
    def _a_workflow(self) -> None:
        workflow()

    def test_one_that_says_so_is_not_saved(self) -> None:
        make("a")
        with pytest.raises(ConflictsRefused) as caught:
            make("b", on_conflict="reject")
        assert caught.value.extra["conflicts"][0]["code"] == "duplicate"
        assert not Schedule.objects.filter(name="b").exists()
        assert make("c", on_conflict={"never_fires": "reject"}).pk
        assert make("d", on_conflict={"duplicate": "ignore", "default": "reject"}).pk

    def test_a_change_is_refused_as_a_whole(self) -> None:
        make("a")
        other = make("b", DAILY | {"timezone": "Asia/Tokyo"}, on_conflict="reject")
        before = Schedule.objects.values().get(pk=other.pk)
        with pytest.raises(ConflictsRefused):
            lifecycle.update(other.pk, {"spec": NIGHTLY, "priority": 1}, actor="x")
        assert Schedule.objects.values().get(pk=other.pk) == before
        assert lifecycle.update(other.pk, {"description": "only words"}, actor="x").description == "only words"

    def test_warnings_are_those_that_are_not_ignored(self) -> None:
        make("a")
        assert [w["code"] for w in conflict_facts.warnings_of(make("b"))] == ["duplicate"]
        assert conflict_facts.warnings_of(make("c", on_conflict="ignore")) == []
        assert conflict_facts.warnings_of(make("d", on_conflict={"duplicate": "ignore"})) == []

    @pytest.mark.parametrize("value", ["maybe", 5, None, {}, [], {"duplicat": "warn"}, {"duplicate": "never"}])
    def test_what_a_schedule_wants_must_make_sense(self, value: Any) -> None:
        with pytest.raises(InvalidInput) as caught:
            make("a", on_conflict=value)
        assert set(caught.value.fields) == {"on_conflict"}


@pytest.mark.django_db(transaction=True)
def test_two_that_would_refuse_each_other_are_not_both_saved() -> None:
    workflow()
    begun = threading.Barrier(2)
    outcomes: list[str] = []

    def save(name: str) -> None:
        try:
            begun.wait(20)
            make(name, on_conflict="reject")
            outcomes.append("saved")
        except ConflictsRefused:
            outcomes.append("refused")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=save, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["refused", "saved"]
    assert Schedule.objects.count() == 1
