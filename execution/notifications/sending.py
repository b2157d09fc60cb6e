"""Messages on their way: as email (Django's backend) and as webhooks signed by Standard Webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import smtplib
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage

from execution import audit, engine
from execution.models import Notification, NotificationRule
from execution.notifications import outbox
from execution.notifications.kinds import Channel, NotificationKind, NotificationState
from execution.notifications.outbox import Answer
from execution.steps.context import GiveUp
from execution.steps.http import absolute, pin
from scheduling_project.common import vault
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

PREFIX: Final = "whsec_"
WEBHOOK_SECONDS: Final = 10.0
GONE: Final = 410


def new_secret() -> str:
    """A secret of 24 random bytes in the form of Standard Webhooks."""
    return PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()


def signature(secret: str, *, id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature`` (Standard Webhooks, v1: HMAC-SHA256 over ``id.timestamp.body``). Pure."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def deliver(*, limit: int = 20, seconds: float = 30.0, using: str | None = None) -> int:
    """Send what is due, up to `limit` messages or for about `seconds`. Returns how many attempts were made.

    No transaction is open while a message is under way. Safe to run anywhere, any number of times at once.
    """
    give_up_at, sent = time.monotonic() + seconds, 0
    while sent < limit and time.monotonic() < give_up_at:
        claimed = outbox.claim(limit=1, now=engine.now(using=using), using=using)
        if not claimed:
            break
        attempt(claimed[0], using=using)
        sent += 1
    return sent


def attempt(message: Notification, *, using: str | None = None) -> Answer:
    """Send one claimed message and keep what came of it."""
    answer = _mail(message) if message.channel == Channel.EMAIL else _post(message, engine.now(using=using))
    now = engine.now(using=using)
    log.info(
        "notification.sent" if not answer.error else "notification.not_sent",
        notification_id=str(message.pk),
        rule=message.rule.name,
        channel=message.channel,
        attempt=message.attempts,
        status=answer.status,
        error=answer.error,
    )
    with engine.transaction(using=using) as alias:
        mine = outbox.conclude(message, answer, now=now, using=alias)
        if mine and message.channel == Channel.WEBHOOK and not message.is_test:
            _note_health(message.rule, answer, now=now, using=alias)
    return answer


# ── Email ────────────────────────────────────────────────────────────────────────────────────────────────────


def title_of(message: Notification) -> str:
    """One line that says what a message tells. Pure."""
    first = str(message.events[0]["title"]) if message.events else message.rule.name
    more = f" (and {message.count - 1} more)" if message.count > 1 else ""
    return " ".join(f"{'[test] ' if message.is_test else ''}{first}{more}".split())[:250]


def text_of(message: Notification) -> str:
    """The body of an email. Pure."""
    lines = [f"Rule: {message.rule.name} ({NotificationKind(message.rule.kind).label})", ""]
    for event in message.events:
        lines.append(f"{event['at']}  {event['title']}")
        lines += [f"    {name}: {event[name]}" for name in sorted(event) if name not in _SHOWN and event[name]]
    if message.count > len(message.events):
        lines.append(f"… and {message.count - len(message.events)} more")
    return "\n".join([*lines, "", f"Message {message.pk}"])


_SHOWN: Final = {"kind", "title", "at", "subject", "to"}


def _mail(message: Notification) -> Answer:
    to = message.events[0].get("to") if message.events else None  # a notice to others than the rule's own people
    return _send_mail(to or message.rule.emails, title_of(message), text_of(message), str(message.pk))


def _send_mail(to: Sequence[str], title: str, text: str, id: str) -> Answer:
    mail = EmailMessage(
        title, text, settings.DEFAULT_FROM_EMAIL, list(to), headers={"Message-ID": f"<{id}@scheduling>"}
    )
    try:
        mail.send()
    except smtplib.SMTPRecipientsRefused as error:
        return Answer(f"all recipients were refused: {error}", is_final=True)
    except (smtplib.SMTPException, OSError) as error:
        return Answer(f"{type(error).__name__}: {error}")
    return Answer()


# ── Webhooks ─────────────────────────────────────────────────────────────────────────────────────────────────


def payload_of(message: Notification) -> dict[str, Any]:
    """What a webhook is sent. Pure."""
    return {
        "type": f"notification.{message.rule.kind}",
        "timestamp": message.created_at.isoformat(),
        "data": {
            "id": str(message.pk),
            "rule": {"id": str(message.rule.pk), "name": message.rule.name},
            "title": title_of(message),
            "test": message.is_test,
            "count": message.count,
            "events": message.events,
        },
    }


def _post(message: Notification, now: datetime) -> Answer:
    """One signed POST to a checked address; redirects are not followed, the answer's body is not read."""
    rule, id, timestamp = message.rule, str(message.pk), int(now.timestamp())
    if not rule.webhook_url:
        return Answer("the rule has no webhook any more", is_final=True)
    body = json.dumps(payload_of(message), separators=(",", ":"), ensure_ascii=False).encode()
    try:
        sealed = [rule.ciphertext] + ([rule.old_ciphertext] if rule.old_until and rule.old_until > now else [])
        signed = [signature(vault.decrypt(text), id=id, timestamp=timestamp, body=body) for text in sealed]
        url = absolute(rule.webhook_url, None)
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": "scheduling-project",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signed),
        }
        extensions = {"sni_hostname": url.raw_host.decode("ascii")} if url.scheme == "https" else {}
        with (
            httpx.Client(timeout=WEBHOOK_SECONDS, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", pin(url), headers=headers, content=body, extensions=extensions) as response,
        ):
            status = response.status_code
    except (GiveUp, vault.VaultError) as error:
        return Answer(str(error), is_final=True)
    except httpx.HTTPError as error:
        return Answer(f"{type(error).__name__}: {error}")
    if 200 <= status < 300:
        return Answer(status=status)
    return Answer(f"HTTP {status}", status, is_final=status == GONE)


def _note_health(rule: NotificationRule, answer: Answer, *, now: datetime, using: str) -> None:
    """Remember since when a webhook fails, and switch it off when that is long or the receiver says so."""
    rules = NotificationRule.objects.using(using).filter(pk=rule.pk)
    if not answer.error:
        rules.filter(webhook_failing_since__isnull=False).update(webhook_failing_since=None, webhook_note="")
        return
    rules.filter(webhook_failing_since=None).update(webhook_failing_since=now)
    rules.update(webhook_note=answer.error[:500])
    since = rules.values_list("webhook_failing_since", flat=True).first() or now
    patience = timedelta(hours=settings.NOTIFICATION_WEBHOOK_GIVE_UP_HOURS)
    if answer.status != GONE and now - since < patience:
        return
    why = "its receiver says that it is gone" if answer.status == GONE else f"it has failed since {since.isoformat()}"
    # Race: two messages fail at once: one of them switches it off, and tells.
    if rules.filter(webhook_disabled_at=None).update(webhook_disabled_at=now, revision=rule.revision + 1):
        given_up = outbox.give_up(rule, Channel.WEBHOOK, reason=f"the webhook was switched off: {why}", now=now,
                                  using=using)  # fmt: skip
        audit.record(
            actor="system",
            action="notification_rule.webhook_off",
            subject_kind="notification_rule",
            subject_id=rule.pk,
            subject_label=rule.name,
            note=why,
            using=using,
        )
        log.error("notification.webhook_off", rule=rule.name, reason=why, given_up=given_up)
        _tell_of_the_end(rule, why, now=now, using=using)


def _tell_of_the_end(rule: NotificationRule, why: str, *, now: datetime, using: str) -> None:
    """The notice that a webhook was switched off goes by email: to the rule's own people, else to superusers."""
    to = list(rule.emails)
    if not to:
        people = get_user_model().objects.using(using).filter(is_superuser=True, is_active=True).exclude(email="")
        to = list(people.values_list("email", flat=True)[:10])
    if not to:
        return  # the audit trail, the log and the rule's page say it
    title = f"The webhook of the rule {rule.name} was switched off"
    notice = Notification.objects.using(using).create(
        rule=rule,
        channel=Channel.EMAIL,
        state=NotificationState.PENDING,
        due_at=now,
        events=[{"kind": "webhook_off", "subject": str(rule.pk), "title": title, "at": now.isoformat(),
                 "reason": why, "to": to}],
    )  # fmt: skip
    log.info("notification.notice", notification_id=str(notice.pk), recipients=len(to))
