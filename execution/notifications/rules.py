"""Rules: making, changing and trying them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from execution import audit, engine
from execution.models import Notification, NotificationRule
from execution.notifications import outbox, sending
from execution.notifications.kinds import NEEDS_SECONDS, NEEDS_THRESHOLD, NotificationKind
from execution.notifications.outbox import Told
from execution.steps.context import GiveUp
from execution.steps.http import absolute
from scheduling_project.common import vault
from scheduling_project.common.errors import Conflict, InvalidInput, StaleVersion

MOST_EMAILS: Final = 50
MOST_SECONDS: Final = 366 * 86_400.0
MOST_WINDOW: Final = 86_400
OVERLAP: Final = timedelta(hours=24)
FIELDS: Final = frozenset(
    {"name", "enabled", "kind", "workflow", "schedule", "labels", "queue", "threshold", "seconds", "window", "emails",
     "webhook_url"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """A rule, and its new secret, which is shown once; empty where it has none or keeps its own."""

    rule: NotificationRule
    secret: str = ""


def create(values: Mapping[str, Any], *, actor: str) -> Made:
    """Make a rule.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        Conflict: the name is taken.
    """
    rule = NotificationRule(created_by=actor[:200], **values)
    _check(rule)
    secret = _seal(rule) if rule.webhook_url else ""
    _save(rule, "create", actor, {}, values)
    return Made(rule, secret)


def update(
    rule: NotificationRule, values: Mapping[str, Any], *, actor: str, expected_revision: int | None = None
) -> Made:
    """Change a rule. Another webhook gets another secret and begins with good health.

    Raises:
        InvalidInput, Conflict: as `create`.
        StaleVersion: it has another revision than expected.
    """
    with transaction.atomic():
        fresh = NotificationRule.objects.select_for_update().get(pk=rule.pk)
        if expected_revision is not None and fresh.revision != expected_revision:
            raise StaleVersion(revision=fresh.revision)
        before = {name: getattr(fresh, name) for name in values}
        for name, value in values.items():
            setattr(fresh, name, value)
        _check(fresh)
        secret = ""
        if "webhook_url" in values and values["webhook_url"] != before["webhook_url"]:
            fresh.ciphertext = fresh.old_ciphertext = ""
            secret = _seal(fresh) if fresh.webhook_url else ""
            _forget_health(fresh)
        fresh.revision += 1
        _save(fresh, "update", actor, before, values)
    return Made(fresh, secret)


def delete(rule: NotificationRule, *, actor: str) -> None:
    """Delete a rule with its messages."""
    with transaction.atomic():
        _audit(rule, "delete", actor, {})
        rule.delete()


def rotate(rule: NotificationRule, *, actor: str) -> Made:
    """A new secret for the webhook; for a day messages are signed with the one before, too.

    Raises:
        Conflict: the rule has no webhook.
    """
    with transaction.atomic():
        fresh = NotificationRule.objects.select_for_update().get(pk=rule.pk)
        if not fresh.webhook_url:
            raise Conflict("The rule has no webhook.")
        fresh.old_ciphertext, fresh.old_until = fresh.ciphertext, engine.now(using="default") + OVERLAP
        secret = _seal(fresh)
        fresh.revision += 1
        fresh.save()
        _audit(fresh, "rotate", actor, {})
    return Made(fresh, secret)


def switch(rule: NotificationRule, *, enabled: bool, actor: str) -> NotificationRule:
    """Switch a rule off, or on, and with it a webhook that had been given up."""
    with transaction.atomic():
        fresh = NotificationRule.objects.select_for_update().get(pk=rule.pk)
        before = {"enabled": fresh.enabled, "webhook_disabled_at": str(fresh.webhook_disabled_at or "")}
        fresh.enabled = enabled
        if enabled:
            _forget_health(fresh)
        fresh.revision += 1
        fresh.save()
        after = {"enabled": enabled, "webhook_disabled_at": str(fresh.webhook_disabled_at or "")}
        _audit(fresh, "resume" if enabled else "pause", actor, audit.difference(before, after))
    return fresh


def test(rule: NotificationRule, *, actor: str) -> list[Notification]:
    """Send a message at once through each channel, once, and say what came of it.

    Raises:
        Conflict: the rule has no channel.
    """
    now = engine.now(using="default")
    told = Told(kind=rule.kind, subject="test", title=f"Test of the rule {rule.name}", at=now, data={"asked_by": actor})
    with transaction.atomic():
        ids = outbox.add(rule, told, now=now, is_test=True, using="default")
        if not ids:
            raise Conflict("The rule has no email address and no webhook in use.")
        _audit(rule, "test", actor, {})
    for id in ids:
        for message in outbox.claim(limit=1, now=now, only=id, using="default"):
            sending.attempt(message, using="default")
    return list(Notification.objects.select_related("rule").filter(pk__in=ids).order_by("id"))


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _seal(rule: NotificationRule) -> str:
    secret = sending.new_secret()
    rule.ciphertext = vault.encrypt(secret)
    return secret


def _forget_health(rule: NotificationRule) -> None:
    rule.webhook_failing_since = rule.webhook_disabled_at = None
    rule.webhook_note = ""


def _check(rule: NotificationRule) -> None:
    problems: dict[str, list[str]] = {}

    def problem(field: str, text: str) -> None:
        problems.setdefault(field, []).append(text)

    if rule.kind not in NotificationKind.values:
        problem("kind", f"must be one of {', '.join(NotificationKind.values)}")
    if not rule.emails and not rule.webhook_url:
        problem("emails", "a rule needs an email address or a webhook_url")
    if not isinstance(rule.emails, list) or len(rule.emails) > MOST_EMAILS:
        problem("emails", f"must be a list of at most {MOST_EMAILS} addresses")
    else:
        for place, address in enumerate(rule.emails):
            try:
                validate_email(address)
            except ValidationError:
                problem(f"emails.{place}", "must be an email address")
    if rule.webhook_url:
        try:
            absolute(rule.webhook_url, None)
        except GiveUp as error:
            problem("webhook_url", str(error))
    if rule.kind in NEEDS_THRESHOLD and rule.threshold is None:
        problem("threshold", f"is needed for {rule.kind}")
    if rule.threshold is not None and not 1 <= rule.threshold <= 1_000:
        problem("threshold", f"must be from 1 to 1000, not {rule.threshold}")
    if rule.kind in NEEDS_SECONDS and rule.seconds is None:
        problem("seconds", f"is needed for {rule.kind}")
    if rule.seconds is not None and not 0 < rule.seconds <= MOST_SECONDS:
        problem("seconds", f"must be more than 0 and at most {MOST_SECONDS:g}")
    if not 0 <= rule.window <= MOST_WINDOW:
        problem("window", f"must be from 0 to {MOST_WINDOW} seconds")
    if rule.queue and rule.queue not in settings.WORKFLOW_QUEUES:
        problem("queue", f"there is no queue {rule.queue}; there are {', '.join(settings.WORKFLOW_QUEUES)}")
    if any(not isinstance(value, str) for value in rule.labels.values()):
        problem("labels", "must have texts as values")
    if problems:
        raise InvalidInput(fields=problems)


def _save(rule: NotificationRule, verb: str, actor: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    try:
        with transaction.atomic():
            rule.save()
            _audit(rule, verb, actor, audit.difference(_shown(before), _shown(after)))
    except IntegrityError as error:
        if "name" not in str(error):
            raise
        raise Conflict(f"There is a rule {rule.name} already.", name=rule.name) from None


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if name == "workflow" and value is not None else value for name, value in values.items()}


def _audit(rule: NotificationRule, verb: str, actor: str, changes: Mapping[str, Any]) -> None:
    audit.record(
        actor=actor,
        action=f"notification_rule.{verb}",
        subject_kind="notification_rule",
        subject_id=rule.pk,
        subject_label=rule.name,
        changes=changes,
    )
