"""What can be done to webhook endpoints and their secrets. Every deed is audited in its own transaction.

A secret's text leaves this module once: in the answer to the deed that made it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from execution import audit
from scheduling_project.common import clock, vault
from scheduling_project.common.errors import Conflict, InvalidInput, NotFound, StaleVersion
from scheduling_project.common.ids import uuid7
from triggers import catalog, checks, signatures
from triggers.models import EndpointSecret, WebhookEndpoint
from triggers.signatures import SignatureConfigError
from triggers.states import EndpointState

DEFAULT_OVERLAP: Final = 86_400  # seconds for which the replaced secrets stay valid
MAX_OVERLAP: Final = 2_592_000
MAX_SECRETS: Final = 10
MAX_SECRET_LENGTH: Final = 500


@dataclass(frozen=True, slots=True)
class Made:
    """An endpoint and the text of the secret that was just made for it."""

    endpoint: WebhookEndpoint
    secret: str


def create(slug: str, *, actor: str, secret: str | None = None, **values: Any) -> Made:
    """Create an endpoint with its first secret, a random one unless `secret` is given.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        Conflict: the slug is taken.
    """
    found = checks.checked({"slug": slug, **values}, checks.ENDPOINT)
    _check_together(found)
    scheme = found.get("scheme", signatures.DEFAULT_SCHEME)
    text = _secret_text(scheme, secret, found.get("scheme_config", {}))
    with transaction.atomic():
        endpoint = WebhookEndpoint(**found)
        _save(endpoint, created=True)
        _add_secret(endpoint, text, actor)
        _audit(endpoint, "create", actor, changes=audit.difference({}, _shown(found)))
        catalog.expire()
    return Made(endpoint, text)


def update(
    endpoint: WebhookEndpoint, changes: Mapping[str, Any], *, actor: str, expected_revision: int | None = None
) -> WebhookEndpoint:
    """Change some of its fields, all or nothing.

    Raises:
        InvalidInput: naming each value that breaks a rule.
        StaleVersion: `expected_revision` is not the present one.
        Conflict: the slug is taken.
    """
    values = checks.checked(changes, checks.ENDPOINT)
    with transaction.atomic():
        held = _hold(endpoint.pk, expected_revision)
        before = {name: getattr(held, name) for name in values}
        _check_together({"scheme": held.scheme, "scheme_config": held.scheme_config} | values)
        difference = audit.difference(before, values)
        if difference:
            for name, value in values.items():
                setattr(held, name, value)
            held.revision += 1
            _save(held)
            _audit(held, "update", actor, changes=difference)
            catalog.expire()
    return held


def pause(endpoint: WebhookEndpoint, *, actor: str, note: str = "") -> WebhookEndpoint:
    """Answer 503 for a while, so that senders keep what they have and deliver it later."""
    return _move(endpoint, EndpointState.ACTIVE, EndpointState.PAUSED, "pause", actor, note)


def resume(endpoint: WebhookEndpoint, *, actor: str) -> WebhookEndpoint:
    """Take deliveries again."""
    return _move(endpoint, EndpointState.PAUSED, EndpointState.ACTIVE, "resume", actor, "")


def retire(endpoint: WebhookEndpoint, *, actor: str, note: str = "") -> WebhookEndpoint:
    """Answer 410 for good. Events and triggers stay."""
    return _move(endpoint, None, EndpointState.RETIRED, "retire", actor, note)


def delete(endpoint: WebhookEndpoint, *, actor: str) -> None:
    """Delete an endpoint that has neither events nor triggers.

    Raises:
        Conflict: it has; it can be retired instead.
    """
    with transaction.atomic():
        held = _hold(endpoint.pk)
        try:
            with transaction.atomic():
                held.delete()
        except ProtectedError:
            raise Conflict("The endpoint has events or triggers; retire it instead.") from None
        _audit(endpoint, "delete", actor)
        catalog.expire()


def rotate(endpoint: WebhookEndpoint, *, actor: str, secret: str | None = None, overlap: Any = DEFAULT_OVERLAP) -> Made:
    """Give it a new secret. The present ones stay valid for `overlap` more seconds (0: they end at once).

    Raises:
        InvalidInput: `secret` or `overlap` break a rule.
    """
    problems: dict[str, list[str]] = {}
    if isinstance(overlap, bool) or not isinstance(overlap, int | float) or not 0 <= overlap <= MAX_OVERLAP:
        problems["overlap"] = [f"must be a number of seconds from 0 to {MAX_OVERLAP}"]
    if problems:
        raise InvalidInput(fields=problems)
    with transaction.atomic():
        held = _hold(endpoint.pk)
        text = _secret_text(held.scheme, secret, held.scheme_config)
        now = clock.now()
        until = now + timedelta(seconds=overlap)
        valid = held.secrets.valid(now)
        if overlap == 0:
            valid.delete()
        else:
            valid.filter(expires_at__isnull=True).update(expires_at=until)
            valid.filter(expires_at__gt=until).update(expires_at=until)
        held.secrets.exclude(pk__in=valid.values("pk")).delete()
        if held.secrets.count() >= MAX_SECRETS:
            raise Conflict(f"At most {MAX_SECRETS} secrets are valid at a time; end some of them first.")
        _add_secret(held, text, actor)
        _raise_revision(held)
        _audit(held, "rotate", actor, changes={"old secrets end": {"before": None, "after": until.isoformat()}})
        catalog.expire()
    return Made(held, text)


def end_secret(endpoint: WebhookEndpoint, secret_id: UUID, *, actor: str) -> None:
    """End one secret now, before its overlap has passed.

    Raises:
        NotFound: the endpoint has no such secret.
        Conflict: it is the only one.
    """
    with transaction.atomic():
        held = _hold(endpoint.pk)
        secret = held.secrets.filter(pk=secret_id).first()
        if secret is None:
            raise NotFound("The endpoint has no such secret.")
        if not held.secrets.valid(clock.now()).exclude(pk=secret_id).exists():
            raise Conflict("It is the only valid secret; rotate instead.")
        secret.delete()
        _raise_revision(held)
        _audit(held, "end_secret", actor, changes={"secret": {"before": f"…{secret.hint}", "after": None}})
        catalog.expire()


def encrypt_again(*, actor: str) -> int:
    """Close every secret with the first of ``WORKFLOW_ENCRYPTION_KEYS``, so that older keys can be dropped.

    Returns how many there are.

    Raises:
        VaultError: one was closed with a key that is no longer known.
    """
    with transaction.atomic():
        secrets = list(EndpointSecret.objects.select_for_update().order_by("pk"))
        for secret in secrets:
            secret.ciphertext = vault.rotate(secret.ciphertext)
        EndpointSecret.objects.bulk_update(secrets, ["ciphertext"], batch_size=500)
        audit.record(
            actor=actor,
            action="endpoint.encrypt_again",
            subject_kind="endpoint",
            subject_id="all",
            note=str(len(secrets)),
        )
        catalog.expire()
    return len(secrets)


def signed_headers(endpoint: WebhookEndpoint, body: bytes, *, delivery_id: str | None = None) -> dict[str, str]:
    """The headers with which the sender would deliver `body` now.

    Raises:
        Conflict: it has no secret that can sign.
    """
    now = clock.now()
    valid = [vault.decrypt(row.ciphertext) for row in endpoint.secrets.valid(now).order_by("-id")]
    try:
        return signatures.sign(
            endpoint.scheme,
            body=body,
            secrets=valid[:1],
            now=now,
            delivery_id=delivery_id or f"test_{uuid7().hex}",
            config=endpoint.scheme_config,
        )
    except SignatureConfigError as error:
        raise Conflict(f"The endpoint cannot sign: {error}") from None


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_together(values: Mapping[str, Any]) -> None:
    scheme = values.get("scheme", signatures.DEFAULT_SCHEME)
    problems = checks.scheme_config_problems(scheme, values.get("scheme_config", {}))
    if problems:
        raise InvalidInput(fields=problems)


def _secret_text(scheme: str, given: str | None, config: Mapping[str, Any]) -> str:
    if given is None:
        return signatures.new_secret(scheme)
    if not isinstance(given, str) or not 8 <= len(given) <= MAX_SECRET_LENGTH or "\x00" in given:
        raise InvalidInput(fields={"secret": [f"must be a text of 8 to {MAX_SECRET_LENGTH} characters"]})
    try:
        signatures.sign(scheme, body=b"", secrets=[given], now=0, delivery_id="check", config=config)
    except SignatureConfigError:
        raise InvalidInput(fields={"secret": [f"is not one that the scheme {scheme} can use"]}) from None
    return given


def _add_secret(endpoint: WebhookEndpoint, text: str, actor: str) -> None:
    EndpointSecret.objects.create(
        endpoint=endpoint, ciphertext=vault.encrypt(text), hint=_hint(text), created_by=actor[:200]
    )


def _hint(text: str) -> str:
    """The last four characters of a long secret, nothing of a short one."""
    hint = text[-4:] if len(text) >= 24 else ""
    return hint if hint.isprintable() else ""


def _move(
    endpoint: WebhookEndpoint, left: EndpointState | None, to: EndpointState, verb: str, actor: str, note: str
) -> WebhookEndpoint:
    with transaction.atomic():
        held = _hold(endpoint.pk)
        if held.state == to:
            return held
        if held.state == EndpointState.RETIRED or (left is not None and held.state != left):
            raise Conflict(f"The endpoint is {held.state}.")
        changes = {"state": {"before": held.state, "after": to.value}}
        held.state, held.state_note = to, note[:500]
        held.revision += 1
        _save(held)
        _audit(held, verb, actor, changes=changes, note=note)
        catalog.expire()
    return held


def _raise_revision(held: WebhookEndpoint) -> None:
    """Its secrets are part of what people see and change of it."""
    held.revision += 1
    held.save(update_fields=["revision", "updated_at"])


def _hold(pk: UUID, expected_revision: int | None = None) -> WebhookEndpoint:
    held = WebhookEndpoint.objects.select_for_update(no_key=True).filter(pk=pk).first()
    if held is None:
        raise NotFound("There is no such endpoint any more.")
    if expected_revision is not None and held.revision != expected_revision:
        raise StaleVersion(revision=held.revision)
    return held


def _save(endpoint: WebhookEndpoint, *, created: bool = False) -> None:
    try:
        with transaction.atomic():
            endpoint.save(force_insert=created)
    except IntegrityError:
        raise Conflict(
            f"There is already an endpoint named {endpoint.slug}.", fields={"slug": ["is already used"]}
        ) from None


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return shown


def _audit(
    endpoint: WebhookEndpoint, verb: str, actor: str, *, changes: Mapping[str, Any] | None = None, note: str = ""
) -> None:
    audit.record(
        actor=actor,
        action=f"endpoint.{verb}",
        subject_kind="endpoint",
        subject_id=endpoint.pk,
        subject_label=endpoint.slug,
        changes=changes,
        note=note,
    )
