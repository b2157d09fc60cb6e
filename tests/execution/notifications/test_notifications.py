"""Notifications: what is told, to whom, once; sent at least once, signed; a webhook that fails is switched off."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
import respx
from django.core import mail
from django.db import connection, transaction
from httpx import Response

from execution import engine
from execution.models import AuditEntry, News, Notification, NotificationAlert, NotificationRule
from execution.notifications import conditions, courier, intake, outbox, rules, sending
from execution.notifications.outbox import Told
from execution.states import ExecutionState, StepState
from schedules import monitoring
from schedules.firing import fire_due
from scheduling_project.common import vault
from scheduling_project.common.errors import Conflict, InvalidInput, StaleVersion
from tests import factories
from tests.api_client import Api
from tests.execution import flow
from tests.schedules import builders

pytestmark = pytest.mark.django_db

HOOK = "https://93.184.215.14/hook"


def rule(kind: str = "failed", **values: Any) -> NotificationRule:
    values = {"name": f"rule {kind}", "kind": kind, "window": 0, "emails": ["ops@example.org"], **values}
    return rules.create(values, actor="ada").rule


def told() -> list[str]:
    """Titles of what is in the outbox, after all news were taken."""
    while intake.consume():
        pass
    return [event["title"] for message in Notification.objects.order_by("id") for event in message.events]


def fail(name: str = "nightly", workflow: Any = None) -> Any:
    execution = flow.begin({"a": flow.http()}) if workflow is None else flow.begin(workflow=workflow)
    flow.fail(execution, "a")
    return execution


def end(workflow: Any, state: str) -> Any:
    execution = factories.make_execution(workflow, state=ExecutionState.RUNNING)
    execution.state, execution.finished_at = state, factories.now()
    execution.save(update_fields=["state", "finished_at"])
    return execution


# ── What is told ─────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_stored_for_what_nobody_looks_for() -> None:
    workflow = factories.make_workflow("w")
    end(workflow, "failed")
    rule("dead_letter")
    rule("failed", enabled=False)
    rule("recovered")
    end(workflow, "succeeded")
    assert not News.objects.filter(topic=intake.TOPIC).exists()


def test_a_failure_is_told_with_its_letter_once() -> None:
    rule("failed")
    rule("dead_letter")
    execution = flow.begin({"a": flow.http()})
    flow.fail(execution, "a")
    titles = told()
    assert len(titles) == 2
    assert any("failed" in title for title in titles)
    assert any(title.startswith("Dead letter of") for title in titles)
    assert told() == titles
    assert all(event["execution"] == str(execution.pk) for m in Notification.objects.all() for event in m.events)


def test_filters_must_all_fit() -> None:
    wanted = factories.make_workflow("wanted", labels={"team": "data"}, queue="io")
    for values in ({"workflow": wanted}, {"labels": {"team": "data"}}, {"queue": "io"}, {"schedule": "hourly"}):
        rule("failed", name=str(sorted(values)), **values)
    end(factories.make_workflow("other"), "failed")
    assert told() == []
    end(wanted, "failed")
    assert len(told()) == 3
    Notification.objects.all().delete()
    of_schedule = factories.make_execution(
        state=ExecutionState.RUNNING, source_kind="schedule", source_id="s-1", source_label="hourly"
    )
    of_schedule.state, of_schedule.finished_at = "failed", factories.now()
    of_schedule.save()
    assert len(told()) == 1


def test_an_end_that_was_taken_back_is_not_told() -> None:
    rule("failed")
    execution = end(factories.make_workflow("w"), "failed")
    execution.state, execution.finished_at = "running", None
    execution.save()
    assert told() == []
    execution.state, execution.finished_at = "failed", factories.now()
    execution.save()
    assert told() == ["w failed"]


def test_failures_in_a_row_are_told_once_and_again_after_a_success() -> None:
    workflow = factories.make_workflow("w")
    rule("failed_in_a_row", threshold=2)
    end(workflow, "failed")
    assert told() == []
    end(workflow, "failed")
    end(workflow, "failed")
    assert told() == ["w failed 2 times in a row"]
    end(workflow, "succeeded")
    end(workflow, "failed")
    assert len(told()) == 1
    end(workflow, "failed")
    assert len(told()) == 2


def test_recovery_is_told_once_also_when_the_failure_has_not_been_taken_yet() -> None:
    workflow = factories.make_workflow("w")
    rule("recovered")
    end(workflow, "failed")
    end(workflow, "succeeded")
    assert told() == ["w works again"]
    end(workflow, "succeeded")
    assert told() == ["w works again"]


def test_a_growing_group_is_told_at_each_size_and_anew_after_it_was_small(settings: Any) -> None:
    settings.WORKFLOW_DEAD_LETTER_ALERTS = [2, 4]
    rule("dead_letters_grow")
    letters = [factories.make_dead_letter(fingerprint="f") for _ in range(3)]
    assert len(told()) == 1
    letters += [factories.make_dead_letter(fingerprint="f") for _ in range(2)]
    titles = told()
    assert len(titles) == 2
    assert titles[1].startswith("4 open dead letters")
    for letter in letters:
        letter.delete()
    conditions.check()
    assert not NotificationAlert.objects.exists()


def test_a_run_that_is_too_long_is_told_once_by_seconds_or_by_what_is_usual() -> None:
    workflow = factories.make_workflow("w")
    long_ago = factories.now() - timedelta(seconds=300)
    running = factories.make_execution(workflow, state=ExecutionState.RUNNING, started_at=long_ago)
    usual = rule("running_long", name="usual")
    rule("running_long", name="by seconds", seconds=1000)
    conditions._usual.clear()
    assert conditions.check() == 0  # too little is known of it
    for _ in range(conditions.ENOUGH):
        factories.make_execution(workflow, state=ExecutionState.SUCCEEDED)
    conditions._usual.clear()
    later = factories.now() + timedelta(seconds=60)
    assert conditions.check(now=later) == 1
    assert conditions.check(now=later + timedelta(seconds=60)) == 0
    assert NotificationAlert.objects.get().rule == usual
    assert conditions.check(now=later + timedelta(seconds=900)) == 1
    running.state, running.finished_at = "succeeded", factories.now()
    running.save()
    conditions.check(now=later + timedelta(seconds=1000))
    assert not NotificationAlert.objects.exists()


def test_an_old_queue_is_told_until_it_is_young_again() -> None:
    since = factories.now() - timedelta(seconds=500)
    run = factories.make_step_run(queue="io", available_at=since)
    rule("queue_old", seconds=100, queue="io")
    assert conditions.check() == 1
    (title,) = told()
    assert "in the queue io" in title
    run.state = StepState.SKIPPED
    run.finished_at = factories.now()
    run.save()
    conditions.check(now=factories.now() + timedelta(seconds=60))
    assert not NotificationAlert.objects.exists()


def test_work_that_did_not_run_is_told_by_workflow_and_by_schedule() -> None:
    schedule = builders.schedule(name="hourly", labels={"team": "data"})
    long_ago = factories.now() - timedelta(hours=3)
    type(schedule).objects.update(created_at=long_ago)
    rule("no_run", name="workflow", workflow=schedule.workflow, seconds=60)
    rule("no_run", name="label", labels={"team": "data"}, seconds=60)
    rule("no_run", name="schedule", schedule=str(schedule.pk), seconds=60, queue="")
    rule("no_run", name="other", schedule="other", seconds=60)
    NotificationRule.objects.update(created_at=long_ago)
    assert conditions.check() == 3
    factories.make_execution(
        schedule.workflow, state=ExecutionState.RUNNING, source_kind="schedule", source_id=str(schedule.pk)
    )
    conditions.check(now=factories.now() + timedelta(seconds=30))
    assert not NotificationAlert.objects.exists()


def test_missed_and_late_instants_and_ledger_differences_are_told() -> None:
    missed, late = rule("fire_missed"), rule("fire_late", seconds=1)
    builders.workflow()
    schedule = builders.schedule(name="minutely", catch_up_window=180)
    fire_due(builders.at(600), using="default")
    told()
    (message,) = Notification.objects.filter(rule=missed)
    assert message.events[0]["count"] > 1
    assert message.events[0]["schedule"] == "minutely"
    assert Notification.objects.filter(rule=late).count() >= 1
    differs = rule("ledger_differs")
    monitoring.note_difference(schedule.pk, schedule.name, 3, using="default")
    told()
    assert Notification.objects.get(rule=differs).events[0]["differences"] == 3


# ── The outbox ───────────────────────────────────────────────────────────────────────────────────────────────


def put(of: NotificationRule, title: str = "something") -> None:
    now = factories.now()
    with engine.transaction():
        outbox.add(of, Told(kind=of.kind, subject="s", title=title, at=now), now=now)


def test_what_happens_within_the_window_is_one_message() -> None:
    grouped = rule(window=60)
    for n in range(outbox.MOST_EVENTS + 5):
        put(grouped, f"e{n}")
    (message,) = Notification.objects.all()
    assert (message.count, len(message.events)) == (outbox.MOST_EVENTS + 5, outbox.MOST_EVENTS)
    assert sending.deliver() == 0  # its window is open
    later = factories.now() + timedelta(seconds=61)
    (claimed,) = outbox.claim(limit=5, now=later)
    assert not claimed.is_open
    put(grouped, "next")
    assert Notification.objects.count() == 2


def test_an_email_says_what_happened_and_can_be_told_apart() -> None:
    put(rule(name="ops"), "broken\r\nBcc: evil@example.org")
    assert sending.deliver() == 1
    (sent,) = mail.outbox
    message = Notification.objects.get()
    assert sent.subject == "broken Bcc: evil@example.org"
    assert sent.extra_headers["Message-ID"] == f"<{message.pk}@scheduling>"
    assert (message.state, message.attempts) == ("sent", 1)
    assert sending.deliver() == 0


@respx.mock
def test_a_webhook_is_signed_by_standard_webhooks_also_with_the_secret_before() -> None:
    made = rules.create({"name": "hook", "kind": "failed", "window": 0, "webhook_url": HOOK}, actor="ada")
    route = respx.post(HOOK).mock(return_value=Response(204))
    second = rules.rotate(made.rule, actor="ada").secret
    put(NotificationRule.objects.get())
    assert sending.deliver() == 1
    request = route.calls.last.request
    headers = request.headers
    for secret in (second, made.secret):
        expected = sending.signature(
            secret, id=headers["webhook-id"], timestamp=int(headers["webhook-timestamp"]), body=request.content
        )
        assert expected in headers["webhook-signature"].split(" ")
    body = json.loads(request.content)
    assert body["type"] == "notification.failed"
    assert body["data"]["id"] == headers["webhook-id"] == str(Notification.objects.get().pk)
    stored = NotificationRule.objects.get()
    assert second not in stored.ciphertext
    assert vault.decrypt(stored.ciphertext) == second


def test_the_signature_is_that_of_the_published_example() -> None:
    found = sending.signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@respx.mock
def test_a_failed_webhook_is_tried_again_later_with_the_same_id_and_given_up_in_the_end() -> None:
    of = rules.create({"name": "h", "kind": "failed", "window": 0, "webhook_url": HOOK}, actor="ada").rule
    route = respx.post(HOOK).mock(return_value=Response(500))
    put(of)
    sending.deliver()
    message = Notification.objects.get()
    assert (message.state, message.status, message.error) == ("pending", 500, "HTTP 500")
    assert message.due_at > factories.now()
    for _ in outbox.RETRY_SECONDS:
        Notification.objects.update(due_at=factories.now() - timedelta(seconds=1))
        assert sending.deliver() == 1
    message.refresh_from_db()
    assert message.state == "failed"
    assert message.attempts == len(outbox.RETRY_SECONDS) + 1
    assert len({call.request.headers["webhook-id"] for call in route.calls}) == 1


@respx.mock
@pytest.mark.parametrize("emails", [["ops@example.org"], []])
def test_a_webhook_that_fails_for_long_is_switched_off_with_notice(emails: list[str], django_user_model: Any) -> None:
    django_user_model.objects.create(username="root", is_superuser=True, email="root@example.org")
    values = {"name": "h", "kind": "failed", "window": 0, "webhook_url": HOOK, "emails": emails}
    of = rules.create(values, actor="ada").rule
    NotificationRule.objects.update(webhook_failing_since=factories.now() - timedelta(hours=25))
    respx.post(HOOK).mock(return_value=Response(503))
    put(of)
    while sending.deliver():
        pass
    of.refresh_from_db()
    assert of.webhook_disabled_at is not None
    assert "webhook" not in of.channels
    notice = mail.outbox[-1]
    assert "was switched off" in notice.subject
    assert notice.to == (emails or ["root@example.org"])
    assert AuditEntry.objects.filter(action="notification_rule.webhook_off", actor="system").count() == 1
    again = rules.switch(of, enabled=True, actor="ada")
    assert again.webhook_disabled_at is None


@respx.mock
def test_a_receiver_that_is_gone_is_not_asked_again_and_a_good_answer_ends_the_failing() -> None:
    of = rules.create({"name": "h", "kind": "failed", "window": 0, "webhook_url": HOOK}, actor="ada").rule
    NotificationRule.objects.update(webhook_failing_since=factories.now())
    respx.post(HOOK).mock(return_value=Response(200))
    put(of)
    sending.deliver()
    assert NotificationRule.objects.get().webhook_failing_since is None
    respx.post(HOOK).mock(return_value=Response(410))
    put(of)
    sending.deliver()
    assert NotificationRule.objects.get().webhook_disabled_at is not None


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://169.254.169.254/latest", "http://[::1]/"])
def test_a_webhook_cannot_reach_what_is_not_public(url: str) -> None:
    put(rules.create({"name": "h", "kind": "failed", "window": 0, "webhook_url": url}, actor="ada").rule)
    sending.deliver()
    message = Notification.objects.get()
    assert message.state == "failed"
    assert "may not reach" in message.error


@pytest.mark.django_db(transaction=True)
def test_two_senders_never_have_the_same_message_and_a_late_answer_changes_nothing() -> None:
    put(rule())
    entered, leave, mine = threading.Event(), threading.Event(), []

    def send() -> None:
        with transaction.atomic():
            mine.extend(outbox.claim(limit=5, now=factories.now(), using="default"))
            entered.set()
            leave.wait(10)
        connection.close()

    other = threading.Thread(target=send)
    other.start()
    assert entered.wait(10)
    assert outbox.claim(limit=5, now=factories.now(), using="default") == []
    leave.set()
    other.join(10)
    later = factories.now() + timedelta(seconds=outbox.SENDING_SECONDS + 1)
    (again,) = outbox.claim(limit=5, now=later, using="default")
    assert again.attempts == 2
    assert not outbox.conclude(mine[0], outbox.Answer(), now=later, using="default")
    assert outbox.conclude(again, outbox.Answer(), now=later, using="default")


def test_the_courier_takes_news_looks_and_sends() -> None:
    runner = courier.Courier()
    rule("failed")
    end(factories.make_workflow("w"), "failed")
    assert runner.turn() == 0
    assert [sent.subject for sent in mail.outbox] == ["w failed"]
    assert runner.turn() == courier.TURN_SECONDS


# ── The API ──────────────────────────────────────────────────────────────────────────────────────────────────


@respx.mock
def test_rules_over_the_api() -> None:
    api, path = Api(), "/api/notifications/rules"
    body = {"name": "ops", "kind": "failed", "emails": ["ops@example.org"], "webhook_url": HOOK}
    made = api.ok("post", path, body, status=201)
    assert made["secret"].startswith("whsec_")
    one = f"{path}/{made['id']}"
    assert "secret" not in api.ok("get", one)
    assert [row["name"] for row in api.ok("get", path)["results"]] == ["ops"]
    assert api.ok("patch", one, {"window": 5})["secret"] == ""
    assert api.refused("patch", one, {"window": 6}, status=412, HTTP_IF_MATCH='"1"')["code"] == "stale_version"
    assert api.ok("post", f"{one}/rotate")["secret"] != made["secret"]
    respx.post(HOOK).mock(return_value=Response(200))
    sent = api.ok("post", f"{one}/test")["results"]
    assert {row["channel"]: row["state"] for row in sent} == {"email": "sent", "webhook": "sent"}
    assert len(api.ok("get", f"{one}/deliveries")["results"]) == 2
    assert api.ok("post", f"{one}/pause")["enabled"] is False
    assert api.ok("post", f"{one}/resume")["enabled"] is True
    api.refused("post", path, body, status=409)
    actions = set(AuditEntry.objects.filter(subject_kind="notification_rule").values_list("action", flat=True))
    assert {f"notification_rule.{v}" for v in ("create", "update", "rotate", "test", "pause", "resume")} <= actions
    api.ok("delete", one, status=204)
    api.refused("get", one, status=404)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "nothing"}, "kind"),
        ({"emails": []}, "emails"),
        ({"emails": ["no address"]}, "emails.0"),
        ({"webhook_url": "ftp://example.org/"}, "webhook_url"),
        ({"kind": "failed_in_a_row"}, "threshold"),
        ({"kind": "no_run"}, "seconds"),
        ({"seconds": 0}, "seconds"),
        ({"queue": "nowhere"}, "queue"),
        ({"labels": {"a": 1}}, "labels"),
        ({"threshold": 1001}, "threshold"),
        ({"window": 90_000}, "window"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_field(values: dict[str, Any], field: str) -> None:
    body = {"name": "r", "kind": "failed", "emails": ["ops@example.org"], **values}
    Api().refused("post", "/api/notifications/rules", body, status=400, field=field)
    assert not NotificationRule.objects.exists()


def test_what_cannot_be_is_refused() -> None:
    of = rule()
    with pytest.raises(Conflict):
        rules.rotate(of, actor="ada")
    with pytest.raises(StaleVersion):
        rules.update(of, {"window": 1}, actor="ada", expected_revision=7)
    with pytest.raises(InvalidInput):
        rules.update(of, {"emails": []}, actor="ada")
    NotificationRule.objects.update(emails=[])
    with pytest.raises(Conflict):
        rules.test(NotificationRule.objects.get(), actor="ada")
