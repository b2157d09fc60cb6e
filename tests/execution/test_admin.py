"""The admin of workflows, executions, dead letters, queues, pools, processes and the audit trail."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from execution import audit, lifecycle, queues
from execution.admin import graph_layout, graph_svg, shown, timeline_svg
from execution.admin.workflows import EXAMPLE
from execution.models import (
    AuditEntry,
    ConcurrencyKey,
    DeadLetter,
    Execution,
    ExecutionOutput,
    News,
    Pool,
    ProcessReport,
    QueueSettings,
    StepRun,
    Workflow,
)
from execution.states import AttemptState, DeadLetterState, ExecutionState, StepState, WaitingFor
from scheduling_project.common.ids import uuid7, uuid7_floor
from tests import factories
from tests.admin_client import Browser, list_url, page_url, told, verb_url

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


def everything() -> list[Any]:
    """One row of each kind that has a page of its own."""
    run = factories.make_step_run(factories.make_execution(state=ExecutionState.FAILED), state=StepState.FAILED)
    letter = factories.make_dead_letter(run, traceback="Traceback…", step_input={"a": 1})
    audit.record(actor="ada", action="execution.cancel", subject_kind="execution", subject_id=run.execution_id)
    return [
        run.execution.workflow,
        run.execution,
        letter,
        AuditEntry.objects.get(),
        ProcessReport.objects.create(name="w1@host", kind="worker", host="host", pid=7, queues=["default"], slots=4),
        QueueSettings.objects.create(name="default"),
        ConcurrencyKey.objects.create(key="customer-1"),
        Pool.objects.create(name="warehouse", slots=4),
    ]


# ── Every page ───────────────────────────────────────────────────────────────────────────────────────────────


def test_every_list_and_page_answers_a_superuser(root: Browser) -> None:
    for subject in everything():
        root.page(list_url(type(subject)))
        root.page(page_url(subject))


def test_every_list_answers_when_there_is_nothing(root: Browser) -> None:
    for model in (Workflow, Execution, DeadLetter, AuditEntry, ProcessReport, QueueSettings, ConcurrencyKey, Pool):
        root.page(list_url(model))


def test_strangers_are_sent_to_the_login_page() -> None:
    stranger = Browser(anonymous=True)
    for subject in everything():
        for url in (list_url(type(subject)), page_url(subject)):
            answer = stranger.get(url)
            assert answer.status_code == 302, url
            assert "/admin/login/" in answer["Location"]


def test_staff_without_permissions_see_nothing() -> None:
    staff = Browser()
    for subject in everything():
        for url in (list_url(type(subject)), page_url(subject)):
            assert staff.get(url).status_code == 403, url


def test_staff_who_may_view_are_offered_no_verbs_and_may_do_none() -> None:
    execution = factories.make_execution()
    viewer = Browser("execution.view_execution")
    text = viewer.page(page_url(execution))
    assert "verb-cancel" not in text
    assert viewer.do(execution, "cancel", note="").status_code == 403
    assert viewer.do(execution, "rerun").status_code == 403
    execution.refresh_from_db()
    assert execution.state == ExecutionState.QUEUED


def test_pages_that_are_not_there_lead_back_to_the_index(root: Browser) -> None:
    answer = root.get(reverse("admin:execution_execution_change", args=[uuid7()]))
    assert answer.status_code == 302
    assert "doesn’t exist" in told(answer)[0]


def test_nothing_is_edited_by_a_form(root: Browser) -> None:
    execution = factories.make_execution()
    assert root.post(page_url(execution), {"state": "succeeded"}).status_code == 403
    assert root.get(reverse("admin:execution_execution_add")).status_code == 403
    assert root.post(reverse("admin:execution_execution_delete", args=[execution.pk])).status_code == 403


# ── Verbs ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_verbs_are_posts() -> None:
    execution = factories.make_execution()
    root = Browser(superuser=True)
    for verb in ("cancel", "pause", "resume", "rerun", "priority", "resume-from-failure"):
        assert root.get(verb_url(execution, verb)).status_code == 405, verb
    execution.refresh_from_db()
    assert execution.state == ExecutionState.QUEUED


def test_a_verb_needs_the_token_of_the_form() -> None:
    execution = factories.make_execution()
    browser = Browser(superuser=True)
    browser.handler.enforce_csrf_checks = True
    assert browser.do(execution, "cancel", note="").status_code == 403


def test_unknown_verbs_and_subjects_are_not_found(root: Browser) -> None:
    execution = factories.make_execution()
    assert root.do(execution, "explode").status_code == 404
    execution.pk = uuid7()
    assert root.do(execution, "cancel", note="").status_code == 404


def test_an_execution_is_cancelled_paused_and_resumed_with_a_trail(root: Browser) -> None:
    execution = factories.make_execution(with_steps=True)
    assert root.do(execution, "pause", note="look first").status_code == 302
    execution.refresh_from_db()
    assert execution.state == ExecutionState.PAUSED
    assert "verb-resume" in root.page(page_url(execution))
    root.do(execution, "resume")
    root.do(execution, "cancel", note="no longer needed")
    execution.refresh_from_db()
    assert execution.state == ExecutionState.CANCELLED
    trail = AuditEntry.objects.order_by("id").values_list("actor", "action", "note")
    assert list(trail) == [
        ("root", "execution.pause", "look first"),
        ("root", "execution.resume", ""),
        ("root", "execution.cancel", "no longer needed"),
    ]


def test_a_refusal_is_told_on_the_page(root: Browser) -> None:
    execution = factories.make_execution(state=ExecutionState.SUCCEEDED)
    answer = root.do(execution, "cancel", note="")
    assert answer.status_code == 302
    assert told(answer) == ["The execution is succeeded and cannot be cancelled."]


def test_a_rerun_takes_an_edited_input_and_leads_to_the_new_execution(root: Browser) -> None:
    execution = factories.make_execution(state=ExecutionState.SUCCEEDED, input={"day": "x"})
    answer = root.do(execution, "rerun", input='{"day": "y"}')
    started = Execution.objects.exclude(pk=execution.pk).get()
    assert started.input == {"day": "y"}
    assert answer["Location"] == page_url(started)


def test_an_input_that_is_not_json_is_shown_again_with_its_fault(root: Browser) -> None:
    execution = factories.make_execution(state=ExecutionState.SUCCEEDED)
    answer = root.do(execution, "rerun", input='{"day": ')
    assert answer.status_code == 400
    text = answer.content.decode()
    assert "is not JSON" in text
    assert "{&quot;day&quot;: " in text
    assert "is there twice" in root.do(execution, "rerun", input='{"a": 1, "a": 2}').content.decode()


def test_an_input_that_breaks_the_schema_is_told_beside_its_field(root: Browser) -> None:
    definition = {**factories.ONE_STEP, "input": {"type": "object", "required": ["day"]}}
    workflow = factories.make_workflow(definition=definition)
    answer = root.do(workflow, "run", input="{}")
    assert answer.status_code == 400
    assert "day" in answer.content.decode()
    assert not Execution.objects.exists()


def test_a_failed_execution_is_resumed_from_its_failure(root: Browser) -> None:
    execution = factories.make_execution(definition=factories.CHAIN, state=ExecutionState.FAILED)
    factories.make_step_run(execution, name="a", state=StepState.SUCCEEDED)
    factories.make_step_run(execution, name="b", state=StepState.FAILED)
    factories.make_step_run(execution, name="c", state=StepState.SKIPPED)
    answer = root.do(execution, "resume-from-failure", note="partner is back", input="{}")
    assert told(answer) == ["1 step is open again."]
    execution.refresh_from_db()
    assert execution.state == ExecutionState.RUNNING


def test_the_priority_of_an_open_execution_is_changed(root: Browser) -> None:
    execution = factories.make_execution(with_steps=True)
    root.do(execution, "priority", priority="0")
    execution.refresh_from_db()
    assert execution.priority == 0
    assert root.do(execution, "priority", priority="11").status_code == 400


def test_many_executions_are_cancelled_after_one_confirmation(root: Browser) -> None:
    some = [factories.make_execution() for _ in range(2)]
    over = factories.make_execution(state=ExecutionState.SUCCEEDED)
    asked = root.choose(Execution, "cancel", [*some, over])
    assert asked.status_code == 200
    assert Execution.objects.filter(state=ExecutionState.CANCELLED).count() == 0
    answer = root.choose(Execution, "cancel", [*some, over], confirmed="yes", **{"cancel-note": "clean up"})
    assert answer.status_code == 302
    assert Execution.objects.filter(state=ExecutionState.CANCELLED).count() == 2
    assert told(answer) == [
        "Cancel: 2 done.",
        "1 refused: The execution is succeeded and cannot be cancelled.",
    ]


def test_many_that_are_all_refused_are_told_by_reason(root: Browser) -> None:
    over = [factories.make_execution(state=ExecutionState.SUCCEEDED) for _ in range(2)]
    answer = root.choose(Execution, "cancel", over, confirmed="yes")
    assert told(answer) == ["2 refused: The execution is succeeded and cannot be cancelled."]


def test_actions_for_many_need_their_permission() -> None:
    execution = factories.make_execution()
    viewer = Browser("execution.view_execution")
    assert 'value="cancel"' not in viewer.page(list_url(Execution))
    viewer.choose(Execution, "cancel", [execution], confirmed="yes")
    execution.refresh_from_db()
    assert execution.state == ExecutionState.QUEUED


# ── Executions ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_of_executions_never_counts_and_never_grows_in_statements(
    root: Browser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    workflow = factories.make_workflow()
    for _ in range(3):
        factories.make_execution(workflow)
    with django_assert_max_num_queries(8) as few:
        root.page(list_url(Execution))
    for _ in range(20):
        factories.make_execution(workflow)
    with django_assert_max_num_queries(len(few.captured_queries)) as many:
        root.page(list_url(Execution))
    about = [query["sql"] for query in many.captured_queries if "execution_execution" in query["sql"]]
    assert len(about) == 1
    assert "COUNT(" not in about[0]
    assert '"execution_execution"."input"' not in about[0]


def test_the_page_of_an_execution_takes_as_many_statements_for_fifty_steps_as_for_one(
    root: Browser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    small = factories.make_execution(state=ExecutionState.FAILED)
    factories.make_step_run(small, state=StepState.FAILED)
    large = factories.make_execution(state=ExecutionState.FAILED)
    parent = factories.make_step_run(large, state=StepState.FAILED)
    for index in range(50):
        factories.make_step_run(large, state=StepState.SUCCEEDED, parent=parent, item_index=index)
    with django_assert_max_num_queries(20) as few:
        root.page(page_url(small))
    with django_assert_max_num_queries(len(few.captured_queries)):
        root.page(page_url(large))


def test_the_page_of_an_execution_tells_its_story(root: Browser) -> None:
    execution = factories.make_execution(definition=factories.CHAIN, state=ExecutionState.RUNNING, open_steps=2)
    done = factories.make_step_run(execution, name="a", state=StepState.SUCCEEDED, attempt=2)
    factories.make_output(done, {"rows": 41})
    factories.make_attempt(
        done,
        number=1,
        state=AttemptState.RETRYABLE,
        error_type="PartnerAway",
        traceback="Traceback of the partner",
        decision={"decision": "retry", "reason": "attempt 1 of 3", "at": "2026-03-04T12:00:05+00:00"},
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=1),
    )
    factories.make_step_run(
        execution, name="b", state=StepState.RETRYABLE, available_at=datetime.now(UTC) + timedelta(hours=1)
    )
    factories.make_step_run(execution, name="c", state=StepState.WAITING, needs_open=1)
    text = root.page(page_url(execution))
    for expected in (
        "sp-graph",
        "sp-gantt",
        "PartnerAway",
        "Traceback of the partner",
        "retry: attempt 1 of 3",
        "2026-03-04T12:00:05",
        "is tried again at",
        "c waits for b (retryable)",
        "&quot;rows&quot;: 41",
        'data-live="3"',
    ):
        assert expected in text, expected


def test_an_ended_execution_shows_its_output_and_no_longer_follows(root: Browser) -> None:
    execution = factories.make_execution(state=ExecutionState.SUCCEEDED, with_steps=True)
    ExecutionOutput.objects.create(execution=execution, data={"total": 3})
    text = root.page(page_url(execution))
    assert "&quot;total&quot;: 3" in text
    assert "data-live" not in text


def test_of_very_many_steps_those_that_did_not_end_well_are_shown(
    root: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execution.admin.execution_page.MOST_STEPS", 2)
    execution = factories.make_execution(state=ExecutionState.FAILED)
    parent = factories.make_step_run(execution, state=StepState.FAILED)
    for index, state in enumerate([StepState.SUCCEEDED, StepState.SUCCEEDED, StepState.SKIPPED]):
        factories.make_step_run(execution, state=state, parent=parent, item_index=index)
    text = root.page(page_url(execution))
    assert "2 more step runs" in text
    for index in range(2):
        factories.make_step_run(execution, state=StepState.FAILED, parent=parent, item_index=10 + index)
    assert "work[10]" in root.page(page_url(execution))


@pytest.mark.parametrize(
    ("term", "expected"),
    [("{id}", 1), ("alpha", 2), ("key-7", 1), ("nothing", 0), (" ", 3)],
)
def test_executions_are_found_by_id_workflow_and_key(root: Browser, term: str, expected: int) -> None:
    alpha, beta = factories.make_workflow("alpha-load"), factories.make_workflow("beta")
    first = factories.make_execution(alpha)
    factories.make_execution(alpha)
    factories.make_execution(beta, idempotency_key="key-7")
    text = root.page(list_url(Execution), q=term.format(id=first.pk))
    assert text.count('class="sp-link sp-mono"') == expected


def test_executions_are_narrowed_by_state_source_and_age(root: Browser) -> None:
    factories.make_execution(state=ExecutionState.FAILED)
    factories.make_execution(source_kind="schedule")
    old = factories.make_execution(id=uuid7_floor(datetime.now(UTC) - timedelta(days=3)))
    for query, expected in (
        ({"state__exact": "failed"}, 1),
        ({"source_kind": "schedule"}, 1),
        ({"created": "24h"}, 2),
        ({"created": "7d"}, 3),
        ({"created": "7d", "state__exact": "queued"}, 2),
    ):
        text = root.page(list_url(Execution), **query)
        assert text.count('class="sp-link sp-mono"') == expected, query
    assert str(old.pk) not in root.page(list_url(Execution), created="24h")


# ── Workflows ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_workflow_is_added_edited_run_and_deleted(root: Browser) -> None:
    definition = shown.json_text(factories.ONE_STEP)
    add = reverse("admin:execution_workflow_add")
    assert "create-definition" in root.page(add)
    values = {"name": "fresh", "definition": definition, "queue": "default", "priority": "3"}
    answer = root.post(add, {f"create-{name}": value for name, value in values.items()})
    workflow = Workflow.objects.get(name="fresh")
    assert answer["Location"] == page_url(workflow)
    assert workflow.priority == 3

    assert "edit-definition" in root.page(verb_url(workflow, "edit"))
    root.do(workflow, "edit", definition=shown.json_text(factories.CHAIN), note="three steps")
    workflow.refresh_from_db()
    assert workflow.published is not None
    assert workflow.published.number == 2
    text = root.page(page_url(workflow), version=1)
    assert "of version 1" in text
    assert '<span class="sp-mono">steps.a</span>' in text
    root.do(workflow, "version", number="1")
    root.do(workflow, "settings", queue="io", priority="9", description="slow")
    workflow.refresh_from_db()
    assert (workflow.published.number, workflow.queue, workflow.description) == (1, "io", "slow")

    assert root.do(workflow, "delete", name="wrong").status_code == 400
    assert root.do(workflow, "delete", name="fresh")["Location"] == list_url(Workflow)
    assert not Workflow.objects.exists()


def test_a_definition_that_cannot_be_run_is_told_and_kept_on_the_page(root: Browser) -> None:
    workflow = factories.make_workflow()
    answer = root.do(
        workflow, "edit", definition='{"steps": {"a": {"http": {"url": "https://x.example/"}, "needs": ["b"]}}}'
    )
    assert answer.status_code == 400
    text = answer.content.decode()
    assert "steps.a.needs" in text
    assert "x.example" in text


def test_adding_a_workflow_is_refused_with_a_reason(root: Browser) -> None:
    factories.make_workflow("taken")
    add = reverse("admin:execution_workflow_add")
    values = {"definition": shown.json_text(factories.ONE_STEP), "queue": "default", "priority": "6"}
    for name in ("taken", "not a name"):
        answer = root.post(add, {f"create-{key}": value for key, value in {**values, "name": name}.items()})
        assert answer.status_code == 400
        assert "sp-error" in answer.content.decode()
    assert Browser("execution.view_workflow").get(add).status_code == 403


def test_running_a_workflow_starts_an_execution_in_the_name_of_the_user(root: Browser) -> None:
    schema = {
        "properties": {"day": {"type": "string", "default": "today"}, "n": {"type": "integer"}},
        "required": ["n"],
    }
    workflow = factories.make_workflow(definition={**factories.ONE_STEP, "input": schema})
    assert "&quot;day&quot;: &quot;today&quot;" in root.page(page_url(workflow))
    answer = root.do(workflow, "run", input='{"n": 1}')
    execution = Execution.objects.get()
    assert (execution.source_kind, execution.source_label, execution.input) == ("admin", "root", {"n": 1})
    assert answer["Location"] == page_url(execution)
    assert "sp-history" in root.page(page_url(workflow))


def test_a_workflow_without_a_version_has_a_page_too(root: Browser) -> None:
    workflow = Workflow.objects.create(name="bare")
    assert "Nothing to draw" in root.page(page_url(workflow))
    assert "draft" in root.page(list_url(Workflow))
    root.page(verb_url(workflow, "edit"))


# ── Dead letters ─────────────────────────────────────────────────────────────────────────────────────────────


def failed_letter(**fields: Any) -> DeadLetter:
    execution = factories.make_execution(state=ExecutionState.FAILED)
    run = factories.make_step_run(execution, state=StepState.FAILED)
    return factories.make_dead_letter(run, **fields)


def test_a_dead_letter_is_redriven_with_an_edited_input(root: Browser) -> None:
    letter = failed_letter()
    answer = root.do(letter, "redrive", mode="resume", input='{"amount": 3}', note="fixed")
    letter.refresh_from_db()
    assert letter.state == DeadLetterState.REDRIVING
    letter.execution.refresh_from_db()
    assert letter.execution.input == {"amount": 3}
    assert answer["Location"] == page_url(letter.execution)
    assert "data-live" in root.page(page_url(letter))


def test_a_dead_letter_is_restarted_or_discarded(root: Browser) -> None:
    letter = failed_letter()
    root.do(letter, "redrive", mode="restart", input="{}")
    letter.refresh_from_db()
    assert letter.redrive_execution is not None
    assert letter.redrive_execution_id != letter.execution_id
    assert "Redriven by" in root.page(page_url(letter))
    other = failed_letter()
    assert root.do(other, "discard").status_code == 400  # it wants to know why
    root.do(other, "discard", note="a test invoice")
    other.refresh_from_db()
    assert (other.state, other.note, other.decided_by) == (DeadLetterState.DISCARDED, "a test invoice", "root")
    assert "a test invoice" in root.page(page_url(other))


def test_many_dead_letters_are_redriven_and_discarded(root: Browser) -> None:
    letters = [failed_letter() for _ in range(3)]
    root.choose(DeadLetter, "redrive-as-is", letters[:2], confirmed="yes", **{"redrive-as-is-note": "again"})
    assert DeadLetter.objects.filter(state=DeadLetterState.REDRIVING).count() == 2
    asked = root.choose(DeadLetter, "discard", letters[2:], confirmed="yes")
    assert asked.status_code == 200  # without a reason it asks again
    root.choose(DeadLetter, "discard", letters[2:], confirmed="yes", **{"discard-note": "no"})
    assert DeadLetter.objects.filter(state=DeadLetterState.DISCARDED).count() == 1


def test_open_letters_are_grouped_and_found_by_fingerprint(root: Browser) -> None:
    failed_letter(fingerprint="a" * 32)
    failed_letter(fingerprint="a" * 32)
    failed_letter(fingerprint="b" * 32, error_type="KeyError")
    text = root.page(list_url(DeadLetter))
    assert "2×" in text
    assert root.page(list_url(DeadLetter), q="a" * 32).count('title="All letters with this fingerprint"') == 2
    assert root.page(list_url(DeadLetter), q="KeyError").count('title="All letters with this fingerprint"') == 1
    assert root.page(list_url(DeadLetter), q=" ").count('title="All letters with this fingerprint"') == 3


def test_the_list_of_dead_letters_takes_few_statements(
    root: Browser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(10):
        failed_letter()
    with django_assert_max_num_queries(9) as captured:
        root.page(list_url(DeadLetter))
    listed = [query["sql"] for query in captured.captured_queries if "LIMIT 50" in query["sql"]]
    assert len(listed) == 1
    assert "traceback" not in listed[0]


# ── Machinery ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queue_is_paused_and_resumed_though_nobody_decided_about_it_before(root: Browser) -> None:
    queue = QueueSettings(name="default")
    assert "verb-pause" in root.page(page_url(queue))
    root.do(queue, "pause", note="database is full")
    text = root.page(page_url(queue))
    assert "database is full" in text
    assert "paused" in root.page(list_url(QueueSettings))
    root.do(queue, "resume")
    assert [state.paused_at for state in queues.stats(["default"])] == [None]
    assert told(root.do(queue, "resume"))[-1:] == ["Queue default is not paused."]


def test_a_queue_shows_what_runs_and_what_waits(root: Browser) -> None:
    factories.make_step_run(state=StepState.RUNNING, label="flow.now")
    factories.make_step_run(state=StepState.QUEUED, label="flow.next", priority=0, available_at=NOW)
    queue = QueueSettings(name="default")
    text = root.page(page_url(queue))
    assert "flow.now" in text
    assert "flow.next" in text
    assert "0 critical: 1" in text
    assert "no worker" in root.page(list_url(QueueSettings))
    ProcessReport.objects.create(name="w", kind="worker", host="h", pid=1, queues=["default"], slots=2)
    assert "served" in root.page(list_url(QueueSettings))


def test_queues_of_nobody_are_not_found(root: Browser) -> None:
    assert root.get(page_url(QueueSettings(name="nowhere"))).status_code == 302


def test_processes_are_alive_silent_or_stopped(root: Browser) -> None:
    now = datetime.now(UTC)
    make = ProcessReport.objects.create
    make(name="lively", kind="worker", host="h", pid=1, queues=["default"], slots=0, versions={"celery": "5.7"})
    make(name="mute", kind="beat", host="h", pid=2, seen_at=now - timedelta(minutes=5))
    gone = make(name="gone", kind="beat", host="h", pid=3, seen_at=now - timedelta(minutes=5), stopped_at=now)
    text = root.page(list_url(ProcessReport))
    for life in ("alive", "silent", "stopped"):
        assert f">{life}<" in text
    factories.make_step_run(state=StepState.RUNNING, worker="lively/4711", label="flow.held")
    text = root.page(reverse("admin:execution_processreport_change", args=["lively"]))
    assert "flow.held" in text
    assert "5.7" in text
    assert "Running now" not in root.page(page_url(gone))


def test_the_trail_shows_changes_and_leads_to_its_subject(root: Browser) -> None:
    execution = factories.make_execution(with_steps=True)
    lifecycle.set_priority(execution.pk, 0, actor="ada")
    audit.record(actor="bob", action="key.revoke", subject_kind="key", subject_id="7", changes={"odd": 3})
    text = root.page(list_url(AuditEntry))
    assert page_url(execution) in text
    changed, odd = AuditEntry.objects.order_by("id")
    assert "<pre" in root.page(page_url(changed))
    root.page(page_url(odd))
    assert "bob" not in root.page(list_url(AuditEntry), q="ada")
    assert "bob" not in root.page(list_url(AuditEntry), subject_kind="execution")
    assert "key.revoke" in root.page(list_url(AuditEntry), q="7")
    assert "key.revoke" in root.page(list_url(AuditEntry), q=" ")


# ── Drawings and texts ───────────────────────────────────────────────────────────────────────────────────────


def test_steps_stand_right_of_what_they_need_and_keep_apart() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "a"], "e": []}
    placed = graph_layout.layout(needs)
    for name, before in needs.items():
        for need in before:
            assert placed.places[need][0] < placed.places[name][0]
    assert len(set(placed.places.values())) == len(needs)
    assert placed.layers == 3
    long_edge = next(points for start, end, points in placed.edges if (start, end) == ("a", "d"))
    assert [layer for layer, _ in long_edge] == [0, 1, 2]
    assert graph_layout.layout({}).layers == 0


def test_crossing_edges_are_sorted_out() -> None:
    placed = graph_layout.layout({"a": [], "b": [], "x": ["b"], "y": ["a"]})
    rows = {name: row for name, (_, row) in placed.places.items()}
    assert (rows["a"] < rows["b"]) == (rows["y"] < rows["x"])


def test_a_graph_escapes_names_and_survives_nonsense() -> None:
    drawn = graph_svg.draw({"steps": {"<b>": {"http": {"url": "https://x/?a=1&b=2"}, "for_each": "x"}}})
    assert "<b>" not in drawn
    assert "&lt;b&gt;" in drawn
    assert "sp-node-many" in drawn
    assert graph_svg.draw({}) == ""
    circle = {"steps": {"a": {"needs": ["b"]}, "b": {"needs": ["a"]}}}
    assert graph_svg.draw(circle) == ""
    assert set(graph_svg.in_order(circle)) == {"a", "b"}


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"task": "demo.load"}, "demo.load"),
        ({"http": {"url": "https://x/", "method": "POST"}}, "POST https://x/"),
        ({"wait": {"seconds": 5}}, "wait 5"),
        ({"approval": {}}, "approval"),
        ({"wait": "5m"}, "wait 5m"),
    ],
)
def test_what_a_step_runs_is_told_in_a_few_words(step: dict[str, Any], text: str) -> None:
    assert graph_svg.target_of(step) == text


def test_a_timeline_places_bars_and_ticks() -> None:
    begin, end = NOW, NOW + timedelta(seconds=10)
    bar = timeline_svg.Bar(begin + timedelta(seconds=5), None, "running", "five <seconds>")
    wait = timeline_svg.Bar(begin, begin + timedelta(seconds=5), "", "waited", is_wait=True)
    drawn = timeline_svg.timeline([timeline_svg.Row("work", "running", "a", [wait, bar])], begin=begin, end=end)
    assert 'x="50.000%"' in drawn
    assert 'width="50.000%"' in drawn
    assert "five &lt;seconds&gt;" in drawn
    assert "sp-wait-bar" in drawn


@pytest.mark.parametrize("seconds", [0, 0.05, 0.5, 7, 90, 900, 9_000, 90_000, 90 * 86_400])
def test_a_timeline_has_a_few_ticks_whatever_its_length(seconds: float) -> None:
    drawn = timeline_svg.timeline([], begin=NOW, end=NOW + timedelta(seconds=seconds))
    assert 1 <= drawn.count("sp-tick-text") <= 8


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 ms"), (0.5, "500 ms"), (5, "5.0 s"), (75, "1 min 15 s"), (7_260, "2 h 01 min"), (200_000, "2 d 7 h")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert shown.seconds_text(seconds) == text


def test_values_are_escaped_and_cut() -> None:
    assert "<i>" not in shown.badge("open", "<i>", title='"')
    assert shown.duration(None, None) == shown.NOTHING
    assert shown.instant(None) == shown.NOTHING
    assert shown.link(None) == shown.NOTHING
    assert shown.link(News(topic="<t>", subject="s")) == "&lt;t&gt; s"  # it has no page
    assert shown.tone("no such state") == "calm"
    assert len(shown.json_text("x" * 50_000)) < 21_000


def test_waiting_step_runs_have_their_reasons_on_the_page(root: Browser) -> None:
    execution = factories.make_execution(definition=factories.CHAIN, state=ExecutionState.RUNNING, open_steps=1)
    StepRun.objects.create(
        execution=execution,
        name="a",
        kind="approval",
        label="w.a",
        queue="default",
        state=StepState.WAITING,
        waiting_for=WaitingFor.APPROVAL,
    )
    assert "waits for approval" in root.page(page_url(execution))


def test_one_worker_is_paused_drained_and_resumed(root: Browser) -> None:
    worker = ProcessReport.objects.create(
        name="w@h",
        kind="worker",
        host="h",
        pid=1,
        slots=2,
        pressure="high",
        extra_queues=["io"],
        resources={
            "cpu_percent": 12.0,
            "memory_bytes": 150_000_000,
            "processes": 3,
            "host": {"cpu_percent": 40.0, "cores": 4, "load": [1.2], "memory_percent": 61.0, "memory_total": 8e9},
        },
    )
    text = root.page(page_url(worker))
    for words in ("12 % of a core, 3 processes", "150 MB", "61 % of 8.0 GB", "takes only urgent work", "io"):
        assert words in text
    for name, values, wanted in (
        ("pause", {"note": "kernel"}, "paused"),
        ("drain", {"note": "", "ends": "on"}, "draining"),
        ("resume", {}, ""),
    ):
        root.post(reverse("admin:execution_processreport_verb", args=["w@h", name]), values)
        worker.refresh_from_db()
        assert worker.wanted == wanted
        assert (f"{wanted} by" in root.page(page_url(worker))) == bool(wanted)


def test_a_definition_is_checked_as_it_is_typed_and_nothing_is_saved() -> None:
    root, url = Browser(superuser=True), reverse("admin:execution_workflow_check")

    def problems(text: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = root.post(url, {"definition": text}).json()["problems"]
        return found

    assert problems('{"steps": {"a": {"wait": 1}}}') == []
    assert problems(json.dumps(EXAMPLE)) == []
    assert problems('{"steps": ')[0]["rule"]
    wrong = problems('{"steps": {"a": {"needs": ["b"], "wait": 1}}}')
    assert wrong[0]["at"].startswith("steps.a")
    assert not Workflow.objects.exists()
    assert root.get(url).status_code == 405


def test_checking_a_definition_is_for_those_who_may_write_one() -> None:
    url = reverse("admin:execution_workflow_check")
    assert Browser("execution.view_workflow").post(url, {"definition": "{}"}).status_code == 403
