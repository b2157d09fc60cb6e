"""The admin's pages of redrive jobs, secrets, notifications, pools and keys, and the verbs of single steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.urls import reverse

from execution import secret_store
from execution.admin import graph_svg, shown
from execution.models import (
    AuditEntry,
    ConcurrencyKey,
    DeadLetter,
    Execution,
    Notification,
    NotificationRule,
    Pool,
    PoolLease,
    RateKey,
    RedriveItem,
    RedriveJob,
    Secret,
    StepOutput,
    StepRun,
)
from execution.notifications import rules
from execution.states import ExecutionState, StepState, WaitingFor
from execution.workflows import Change
from scheduling_project.common import vault
from tests import factories
from tests.admin_client import Browser, list_url, page_url, told

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


def letters(count: int, **fields: Any) -> list[DeadLetter]:
    made = []
    for _ in range(count):
        run = factories.make_step_run(
            factories.make_execution(state=ExecutionState.FAILED), state=StepState.FAILED, name="work"
        )
        made.append(factories.make_dead_letter(run, **fields))
    return made


def step_url(run: StepRun, verb: str) -> str:
    return reverse("admin:execution_execution_step", args=[run.execution_id, run.pk, verb])


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────

DECIDED = {
    "steps": {
        "ask": {"approval": {"message": "Is it right?"}},
        "then": {"needs": ["ask"], "http": {"url": "https://example.org/"}},
    }
}


def waiting_for_approval() -> StepRun:
    workflow = factories.make_workflow(definition=DECIDED)
    execution = factories.make_execution(workflow, state=ExecutionState.RUNNING, with_steps=True)
    run = execution.step_runs.get(name="ask")
    StepRun.objects.filter(pk=run.pk).update(
        state=StepState.WAITING, waiting_for=WaitingFor.APPROVAL, available_at=NOW + timedelta(days=900)
    )
    run.refresh_from_db()
    return run


def test_a_step_that_waits_for_people_is_approved_where_its_question_stands(root: Browser) -> None:
    run = waiting_for_approval()
    text = root.page(page_url(run.execution))
    assert "Is it right?" in text
    assert step_url(run, "approve") in text
    answer = root.post(step_url(run, "approve"), {"note": "checked"})
    assert answer["Location"] == page_url(run.execution)
    run.refresh_from_db()
    assert run.state == StepState.SUCCEEDED
    assert StepOutput.objects.get(pk=run.pk).data == {"approved": True, "by": "root", "note": "checked"}
    assert told(root.post(step_url(run, "reject"), {"note": ""}))[-1].startswith("Step ")


def test_a_step_is_rejected_skipped_or_marked_as_succeeded(root: Browser) -> None:
    rejected = waiting_for_approval()
    root.post(step_url(rejected, "reject"), {"note": "no"})
    rejected.refresh_from_db()
    assert rejected.state == StepState.FAILED
    skipped = waiting_for_approval()
    assert "What needs it goes on" in root.page(step_url(skipped, "skip"))
    root.post(step_url(skipped, "skip"), {"note": "not today"})
    skipped.refresh_from_db()
    assert skipped.state == StepState.SKIPPED
    done = waiting_for_approval()
    assert root.post(step_url(done, "succeed"), {"output": "{nonsense"}).status_code == 400
    root.post(step_url(done, "succeed"), {"output": '{"rows": 3}', "note": ""})
    assert StepOutput.objects.get(pk=done.pk).data == {"rows": 3}
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"step.reject", "step.skip", "step.succeed"}


def test_steps_need_their_own_permissions_and_must_be_there(root: Browser) -> None:
    run = waiting_for_approval()
    viewer = Browser("execution.view_execution")
    text = viewer.page(page_url(run.execution))
    assert "Is it right?" in text
    assert "/steps/" not in text
    assert viewer.post(step_url(run, "approve"), {"note": ""}).status_code == 403
    assert root.get(step_url(run, "explode")).status_code == 404
    strange = reverse("admin:execution_execution_step", args=[run.execution_id, uuid4(), "skip"])
    assert root.get(strange).status_code == 404


# ── Redrive jobs ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_group_of_dead_letters_is_redriven_as_a_job_that_can_be_cancelled(root: Browser) -> None:
    letters(3, fingerprint="a" * 32)
    letters(1, fingerprint="b" * 32)
    add = reverse("admin:execution_redrivejob_add")
    assert f"{add}?fingerprint={'a' * 32}" in root.page(list_url(DeadLetter))
    assert "a" * 32 in root.page(add, fingerprint="a" * 32)
    values = {"job-fingerprint": "a" * 32, "job-mode": "resume", "job-canary": "on", "job-note": "fixed"}
    answer = root.post(add, values)
    job = RedriveJob.objects.get()
    assert (answer["Location"], job.total, job.canary, job.max_failures) == (page_url(job), 3, True, None)
    RedriveItem.objects.filter(job=job, position=0).update(execution_id=uuid4())
    text = root.page(page_url(job))
    assert "0 of 3" in text
    assert "data-live" in text
    assert "0 of 3" in root.page(list_url(RedriveJob))
    root.do(job, "cancel", note="enough")
    job.refresh_from_db()
    assert job.state == "cancelled"
    assert "enough" in root.page(page_url(job))


def test_a_job_tells_what_is_wrong_with_it(root: Browser) -> None:
    add = reverse("admin:execution_redrivejob_add")
    answer = root.post(add, {"job-mode": "resume"})
    assert "No open dead letter is selected" in answer.content.decode()
    letters(1)
    answer = root.post(add, {"job-mode": "resume", "job-rate_per_minute": "-1"})
    assert answer.status_code == 400
    assert "rate_per_minute" in answer.content.decode() or "must be" in answer.content.decode()
    assert Browser("execution.view_deadletter").get(add).status_code == 403
    assert not RedriveJob.objects.exists()


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_secret_is_kept_changed_and_forgotten_and_never_shown(root: Browser) -> None:
    add = reverse("admin:execution_secret_add")
    value = "correct horse battery"
    answer = root.post(add, {"secret-name": "SHOP_KEY", "secret-value": value, "secret-note": "of the shop"})
    secret = Secret.objects.get()
    assert answer["Location"] == page_url(secret)
    assert vault.decrypt(secret.ciphertext) == value
    step = {"http": {"url": "https://example.org/", "headers": {"x": "${{ secrets.SHOP_KEY }}"}}}
    workflow = factories.make_workflow("uses-it", {"steps": {"call": step}})
    pages = [root.page(list_url(Secret)), root.page(page_url(secret))]
    assert workflow.name in pages[1]
    assert not any(value in page or secret.ciphertext in page for page in pages)
    again = root.post(add, {"secret-name": "SHOP_KEY", "secret-value": "another value", "secret-note": ""})
    assert again.status_code == 400
    wrong = root.post(add, {"secret-name": "7", "secret-value": "long enough here", "secret-note": ""})
    assert "not starting with a digit" in wrong.content.decode()
    root.do(secret, "change", value="something else", note="rotated")
    assert secret_store.resolve(["SHOP_KEY"]) == {"SHOP_KEY": "something else"}
    root.do(secret, "delete", note="gone")
    assert not Secret.objects.exists()


def test_only_who_handles_keys_sees_the_names_of_secrets() -> None:
    secret = secret_store.set_secret("SHOP_KEY", "correct horse battery", actor="ada")
    viewer = Browser("execution.view_secret", "execution.view_workflow")
    for url in (list_url(Secret), page_url(secret), reverse("admin:execution_secret_add")):
        assert viewer.get(url).status_code == 403


# ── Notifications ────────────────────────────────────────────────────────────────────────────────────────────

RULE = {"rule-name": "Tell Ada", "rule-kind": "failed", "rule-window": "60", "rule-emails": "ada@example.org"}


def test_a_rule_is_made_edited_tried_paused_and_deleted(root: Browser) -> None:
    add = reverse("admin:execution_notificationrule_add")
    root.post(add, RULE)
    rule = NotificationRule.objects.get()
    root.do(rule, "test")
    assert [message.subject for message in mail.outbox] == ["[test] Test of the rule Tell Ada"]
    text = root.page(page_url(rule))
    assert "Test of the rule" in text
    message = Notification.objects.get()
    assert "ada" in root.page(page_url(message)).lower()
    assert "Test of the rule" in root.page(list_url(Notification))
    root.do(rule, "pause")
    assert "paused" in root.page(list_url(NotificationRule))
    root.do(rule, "resume")
    edited = {name.removeprefix("rule-"): value for name, value in RULE.items()}
    root.do(
        rule,
        "edit",
        **edited | {"emails": "ada@example.org\nbob@example.org", "kind": "failed_in_a_row", "threshold": 3},
    )
    rule.refresh_from_db()
    assert (rule.emails, rule.threshold, rule.enabled) == (["ada@example.org", "bob@example.org"], 3, True)
    root.do(rule, "delete")
    assert not NotificationRule.objects.exists()


def test_the_secret_of_a_rules_webhook_is_shown_once(root: Browser) -> None:
    add = reverse("admin:execution_notificationrule_add")
    made = told(root.post(add, RULE | {"rule-webhook_url": "https://example.org/hook"}))[-1]
    assert "shown this once" in made
    rule = NotificationRule.objects.get()
    secret = made.split(" is ")[1].split(" –")[0]
    root.page(page_url(rule))  # on which it is told
    assert secret not in root.page(page_url(rule))
    assert "shown this once" in told(root.do(rule, "rotate"))[-1]
    NotificationRule.objects.update(webhook_disabled_at=NOW, webhook_failing_since=NOW, webhook_note="410 Gone")
    assert "410 Gone" in root.page(page_url(rule))
    assert "webhook given up" in root.page(list_url(NotificationRule))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rule-emails": "nobody"}, "must be an email address"),
        ({"rule-emails": ""}, "needs an email address or a webhook_url"),
        ({"rule-labels": "[1]"}, "must be an object of texts"),
        ({"rule-kind": "fire_late"}, "is needed for fire_late"),
    ],
)
def test_a_rule_that_says_too_little_is_refused(root: Browser, change: dict[str, str], said: str) -> None:
    answer = root.post(reverse("admin:execution_notificationrule_add"), RULE | change)
    assert answer.status_code == 400
    assert said in answer.content.decode()
    assert not NotificationRule.objects.exists()


def test_a_name_is_given_to_one_rule(root: Browser) -> None:
    rules.create({"name": "Tell Ada", "kind": "failed", "emails": ["ada@example.org"]}, actor="ada")
    assert root.post(reverse("admin:execution_notificationrule_add"), RULE).status_code == 400
    viewer = Browser("execution.view_notificationrule")
    assert viewer.get(reverse("admin:execution_notificationrule_add")).status_code == 403


# ── Pools and keys ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_pool_tells_who_holds_it_and_who_waits(root: Browser) -> None:
    pool = Pool.objects.create(name="warehouse", slots=2, used=2)
    factories.make_step_run(state=StepState.RUNNING, pool="warehouse", pool_held=1, label="flow.holds")
    factories.make_step_run(
        state=StepState.WAITING, waiting_for=WaitingFor.POOL, pool="warehouse", pool_units=1, label="flow.waits"
    )
    PoolLease.objects.create(pool=pool, holder="a notebook", units=1, expires_at=NOW)
    text = root.page(page_url(pool))
    for expected in ("flow.holds", "flow.waits", "a notebook", "1 steps"):
        assert expected in text
    assert "2 of 2" in root.page(list_url(Pool))


def test_a_pool_is_made_resized_and_deleted_while_nobody_uses_it(root: Browser) -> None:
    add = reverse("admin:execution_pool_add")
    root.post(add, {"pool-name": "warehouse", "pool-slots": "4", "pool-description": "loads"})
    pool = Pool.objects.get()
    Pool.objects.update(used=3)
    root.do(pool, "resize", slots="6", description="loads")
    pool.refresh_from_db()
    assert (pool.slots, pool.used) == (6, 3)
    assert "is in use" in told(root.do(pool, "delete"))[-1]
    Pool.objects.update(used=0)
    root.do(pool, "delete")
    assert not Pool.objects.exists()
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions == ["pool.create", "pool.update", "pool.delete"]
    wrong = root.post(add, {"pool-name": "no spaces?", "pool-slots": "4"})
    assert wrong.status_code == 400
    Pool.objects.create(name="warehouse", slots=1)
    assert "is taken" in root.post(add, {"pool-name": "warehouse", "pool-slots": "4"}).content.decode()
    assert Browser("execution.view_pool").get(add).status_code == 403


def test_concurrency_and_rate_keys_tell_who_waits(root: Browser) -> None:
    key = ConcurrencyKey.objects.create(key="customer-1", used=1)
    for held in (True, False):
        execution = factories.make_execution(state=ExecutionState.RUNNING if held else ExecutionState.QUEUED)
        Execution.objects.filter(pk=execution.pk).update(concurrency_key="customer-1", key_held=held)
    text = root.page(page_url(key))
    assert text.count("0 critical") + text.count("6 normal") == 2
    later = datetime.now(UTC) + timedelta(minutes=5)
    rate = RateKey.objects.create(key="shop-api", tat=later, next_wake_at=later, interval=0.2)
    idle = RateKey.objects.create(key="idle", tat=NOW, next_wake_at=NOW, interval=60)
    factories.make_step_run(
        state=StepState.QUEUED, rate_slot_at=later, state_reason="rate limit shop-api: 5 per 1 s", label="flow.paced"
    )
    assert "flow.paced" in root.page(page_url(rate))
    assert "flow.paced" not in root.page(page_url(idle))
    assert "200 ms" in root.page(list_url(RateKey))


# ── Drawings and differences ─────────────────────────────────────────────────────────────────────────────────


def test_sections_are_drawn_below_the_main_steps_and_listed_after_them() -> None:
    step = {"http": {"url": "https://example.org/"}}
    definition = {
        "steps": {"a": step, "b": step | {"needs": ["a"]}},
        "on_failure": {"undo": step},
        "finally": {"z": step},
    }
    drawn = graph_svg.draw(definition, {"undo": graph_svg.StepLook("succeeded")})
    assert "Graph of 4 steps" in drawn
    assert drawn.index("on_failure: when they have failed") < drawn.index("finally: last")
    assert graph_svg.in_order(definition) == ["a", "b", "undo", "z"]
    assert graph_svg.draw(definition | {"finally": {"x": step | {"needs": ["x"]}}}) == ""


def test_differences_are_told_from_and_to() -> None:
    told = shown.differences(
        [Change("a.b", "changed", 1, "<b>"), Change("c", "added", None, [2]), Change("d", "removed", "x" * 400)]
    )
    assert "<s>1</s> → <b>&lt;b&gt;</b>" in told
    assert "<b>[2]</b>" in told
    assert "…</s>" in told
    assert shown.differences([]) == shown.NOTHING
    assert "and 10 more" in shown.differences([Change("", "changed", 1, 2)] * 50)


def test_a_version_that_is_not_published_is_compared_with_the_one_that_is(root: Browser) -> None:
    from execution import workflows

    workflow = factories.make_workflow("report")
    definition = dict(workflow.versions.get().definition) | {"timeout": 60}
    workflows.save_draft(workflow, definition, actor="ada")
    text = root.page(page_url(workflow), version=2)
    assert "is not the published one" in text
    assert "timeout" in text
    assert "is not the published one" not in root.page(page_url(workflow), version=1)
