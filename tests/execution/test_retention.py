"""What is pruned, and what never is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from execution import engine, idempotency, retention
from execution.models import (
    Attempt,
    AuditEntry,
    ConcurrencyKey,
    DeadLetter,
    Execution,
    ExecutionOutput,
    IdempotencyKey,
    News,
    ProcessReport,
    RateKey,
    RedriveItem,
    RedriveJob,
    StepOutput,
    StepRun,
)
from execution.states import DeadLetterState, ExecutionState, StepState
from execution.tasks import prune as prune_task
from tests import factories

pytestmark = pytest.mark.django_db


def old(days: float) -> Any:
    return engine.now() - timedelta(days=days)


def ended(state: ExecutionState = ExecutionState.SUCCEEDED, days: float = 40, **fields: Any) -> Execution:
    return factories.make_execution(state=state, finished_at=old(days), started_at=old(days), **fields)


def test_an_old_execution_goes_with_all_that_belongs_to_it() -> None:
    execution = ended()
    run = factories.make_step_run(execution, state=StepState.SUCCEEDED)
    factories.make_step_run(execution, name="each", state=StepState.SUCCEEDED, parent=run, item_index=0)
    factories.make_output(run, {"n": 1})
    ExecutionOutput.objects.create(execution=execution, data=1)
    factories.make_dead_letter(run, state=DeadLetterState.RESOLVED)
    kept = ended(days=29)
    assert retention.prune().executions == 1
    assert list(Execution.objects.all()) == [kept]
    for model in (StepRun, StepOutput, Attempt, ExecutionOutput, DeadLetter):
        assert not model.objects.exists()


def test_failed_ones_are_kept_longer(settings: Any) -> None:
    failed = ended(ExecutionState.FAILED)
    ended(ExecutionState.CANCELLED)
    assert retention.prune().executions == 1
    assert list(Execution.objects.all()) == [failed]
    settings.WORKFLOW_FAILED_EXECUTIONS_KEPT_DAYS = 35
    assert retention.prune().executions == 1


def test_open_work_and_what_a_letter_without_a_decision_is_about_is_never_pruned() -> None:
    factories.make_execution(state=ExecutionState.RUNNING, created_at=old(1_000))
    for state in (DeadLetterState.OPEN, DeadLetterState.REDRIVING):
        execution = ended(ExecutionState.FAILED, days=1_000)
        factories.make_dead_letter(factories.make_step_run(execution, state=StepState.FAILED), state=state)
    again = ended(ExecutionState.FAILED, days=1_000)
    factories.make_dead_letter(state=DeadLetterState.OPEN, redrive_execution=again)
    caller = factories.make_execution(state=ExecutionState.RUNNING)
    ended(days=1_000, source_kind="child", source_id=str(caller.pk))
    before = Execution.objects.count()
    assert retention.prune().executions == 0
    assert Execution.objects.count() == before


def test_only_the_newest_of_a_workflow_are_kept_where_a_count_is_set(settings: Any) -> None:
    settings.WORKFLOW_EXECUTIONS_KEPT_COUNT = 2
    workflow, other = factories.make_workflow(), factories.make_workflow()
    made = [ended(days=1, workflow=workflow) for _ in range(4)]
    ended(days=1, workflow=other)
    factories.make_execution(workflow, state=ExecutionState.RUNNING)
    assert retention.prune().executions == 2
    assert Execution.objects.filter(workflow=workflow, finished_at__isnull=False).count() == 2
    assert set(Execution.objects.filter(pk__in=[row.pk for row in made])) == set(made[2:])


def test_a_letter_that_nobody_decides_expires_with_its_reason() -> None:
    letter = factories.make_dead_letter(created_at=old(91))
    fresh = factories.make_dead_letter(created_at=old(89))
    redriving = factories.make_dead_letter(state=DeadLetterState.REDRIVING, created_at=old(91))
    assert retention.prune().expired == 1
    for row in (letter, fresh, redriving):
        row.refresh_from_db()
    assert (letter.state, letter.decided_by, letter.note) == (
        "discarded", "system", "expired: nobody decided within 90 days",
    )  # fmt: skip
    assert letter.decided_at is not None
    assert (fresh.state, redriving.state) == ("open", "redriving")
    entry = AuditEntry.objects.get(subject_id=str(letter.pk))
    assert (entry.action, entry.note) == ("dead_letter.discard", "expired: nobody decided within 90 days")


def test_decided_letters_and_ended_jobs_go_but_not_those_of_a_running_job() -> None:
    decided = {"state": DeadLetterState.RESOLVED, "decided_at": old(91)}
    factories.make_dead_letter(**decided)
    held = factories.make_dead_letter(**decided)
    running = RedriveJob.objects.create(mode="resume", created_by="ada", total=1)
    RedriveItem.objects.create(job=running, letter=held, position=0)
    job = RedriveJob.objects.create(mode="resume", created_by="ada", state="done", finished_at=old(91))
    RedriveItem.objects.create(job=job, letter=held, position=0)
    done = retention.prune()
    assert (done.dead_letters, done.redrive_jobs) == (1, 1)
    assert list(DeadLetter.objects.all()) == [held]
    assert list(RedriveJob.objects.all()) == [running]


def test_audit_news_keys_and_reports_go_when_their_time_has_come() -> None:
    for days in (1, 400):
        AuditEntry.objects.create(actor="a", action="x.y", subject_kind="x", subject_id="1", created_at=old(days))
        News.objects.create(topic="t", created_at=old(days))
        IdempotencyKey.objects.create(scope="s", key=str(days), request_hash="h", status=200, created_at=old(days))
        ProcessReport.objects.create(name=f"w{days}", kind="worker", host="h", pid=1, seen_at=old(days))
        ConcurrencyKey.objects.create(key=f"k{days}", updated_at=old(days))
        RateKey.objects.create(key=f"r{days}", tat=old(days), next_wake_at=old(days), interval=1)
    AuditEntry.objects.filter(created_at__gt=old(2)).update(id=10**9)  # the newest id is the newest row
    News.objects.filter(created_at__gt=old(2)).update(id=10**9)
    ConcurrencyKey.objects.create(key="held", used=1, updated_at=old(400))
    ConcurrencyKey.objects.create(key="wanted", updated_at=old(400))
    factories.make_execution(concurrency_key="wanted")
    now = engine.now() - timedelta(hours=1)
    done = retention.prune(now=now)
    assert (done.audit_entries, done.news, done.idempotency_keys, done.process_reports, done.keys) == (1, 1, 1, 1, 2)
    assert set(ConcurrencyKey.objects.values_list("key", flat=True)) == {"k1", "held", "wanted"}
    assert timedelta(days=7) == idempotency.KEPT_FOR
    assert retention.prune(now=now).total == 0


def test_zero_days_keep_for_ever(settings: Any) -> None:
    for name in ("EXECUTIONS", "FAILED_EXECUTIONS", "DEAD_LETTERS", "AUDIT"):
        setattr(settings, f"WORKFLOW_{name}_KEPT_DAYS", 0)
    settings.WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS = 0
    ended(days=10_000)
    factories.make_dead_letter(created_at=old(10_000))
    assert retention.prune().total == 0
    settings.WORKFLOW_EXECUTIONS_KEPT_DAYS = 30
    assert retention.prune().executions == 1


def test_it_stops_when_its_time_is_over_and_goes_on_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for _ in range(5):
        ended()
    assert retention.prune(seconds=-1).total == 0
    prune_task()
    assert not Execution.objects.exists()
