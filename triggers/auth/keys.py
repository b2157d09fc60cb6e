"""API keys: made, shown once, recognised by their SHA-256.

A key is ``wk_<prefix>_<secret>`` with 256 random bits, so a plain hash is as good as a slow one and takes
microseconds. The prefix is public; it stands in lists, the audit trail and triggers' `authentication`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import transaction

from execution import audit
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, InvalidInput
from triggers import addresses, catalog
from triggers.catalog import Key
from triggers.models import ApiKey
from triggers.scopes import SCOPES as SCOPES

SIGN: Final = "wk_"
MAX_LENGTH: Final = 200
TOUCH_SECONDS: Final = 60

_touched: dict[str, float] = {}


def looks_like_key(text: str) -> bool:
    """Whether a credential claims to be one of ours."""
    return text.startswith(SIGN)


def digest_of(text: str) -> str:
    """The form in which a key is stored and looked up."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def recognise(text: str, *, now: datetime, address: str = "", using: str = "default") -> Key | None:
    """The key of this text, if it may be used at `now` from `address`; None otherwise, for whatever reason.

    Looked up by its digest, so that the time it takes says nothing about other keys.
    """
    if not looks_like_key(text) or len(text) > MAX_LENGTH:
        return None
    key = catalog.current(using=using).keys.get(digest_of(text))
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        return None
    if key.networks and not addresses.is_in(address, key.networks):
        return None
    return key


def allows(key: Key, scope: str) -> bool:
    """Whether a key has a scope."""
    return scope in key.scopes or "admin" in key.scopes


def has_active_user(key: Key, *, using: str = "default") -> bool:
    """Whether the user in whose name the key is used may still do anything."""
    return ApiKey.objects.using(using).filter(pk=key.id, user__is_active=True).exists()


def touch(key: Key, *, now: datetime, using: str = "default") -> None:
    """Note that a key was used; at most once a minute, because nobody needs to know it better."""
    moment = time.monotonic()
    if moment - _touched.get(key.prefix, float("-inf")) < TOUCH_SECONDS:
        return
    _touched[key.prefix] = moment
    ApiKey.objects.using(using).filter(pk=key.id).update(last_used_at=now)


def create(
    name: str,
    *,
    user: User,
    actor: str,
    scopes: Sequence[str] = ("read",),
    expires_at: datetime | None = None,
    allowed_networks: Sequence[str] = (),
) -> tuple[ApiKey, str]:
    """A new key and its text, which is not kept and cannot be shown again.

    Raises:
        InvalidInput: naming each value that breaks a rule.
    """
    problems = _problems(name, scopes, expires_at, allowed_networks)
    if problems:
        raise InvalidInput(fields=problems)
    prefix = secrets.token_hex(4)
    text = f"{SIGN}{prefix}_{secrets.token_urlsafe(32)}"
    with transaction.atomic():
        key = ApiKey.objects.create(
            name=name,
            prefix=prefix,
            digest=digest_of(text),
            user=user,
            scopes=sorted(set(scopes)),
            allowed_networks=list(allowed_networks),
            expires_at=expires_at,
            created_by=actor,
        )
        _audit(key, "create", actor, {"scopes": {"before": None, "after": key.scopes}})
        catalog.expire()
    return key, text


def revoke(key: ApiKey, *, actor: str, note: str = "") -> ApiKey:
    """End a key at once, in every process within half a second.

    Raises:
        Conflict: it is revoked already.
    """
    with transaction.atomic():
        held = ApiKey.objects.select_for_update().get(pk=key.pk)
        if held.revoked_at is not None:
            raise Conflict("The key is revoked already.")
        held.revoked_at = clock.now()
        held.save(update_fields=["revoked_at"])
        _audit(held, "revoke", actor, {}, note)
        catalog.expire()
    return held


def _problems(
    name: Any, scopes: Any, expires_at: datetime | None, allowed_networks: Sequence[str]
) -> dict[str, list[str]]:
    problems: dict[str, list[str]] = {}
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= 200 or not name.isprintable():
        problems["name"] = ["must be a printable text of 1 to 200 characters"]
    if not isinstance(scopes, list | tuple) or not scopes or any(scope not in SCOPES for scope in scopes):
        problems["scopes"] = [f"must be some of {', '.join(SCOPES)}"]
    if expires_at is not None and expires_at <= clock.now():
        problems["expires_at"] = ["must lie in the future"]
    problems.update(addresses.problems_of(allowed_networks, at="allowed_networks"))
    return problems


def _audit(key: ApiKey, verb: str, actor: str, changes: dict[str, Any], note: str = "") -> None:
    audit.record(
        actor=actor,
        action=f"api_key.{verb}",
        subject_kind="api_key",
        subject_id=key.pk,
        subject_label=f"{key.name} ({key.prefix})",
        changes=changes,
        note=note,
    )
