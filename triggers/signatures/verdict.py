"""What a check of a delivery's signature says: a value, never an exception."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Reason(StrEnum):
    """Why a delivery was accepted or refused. For the delivery log, never for the sender."""

    VERIFIED = "verified"
    MISSING_HEADER = "missing_header"
    MALFORMED_HEADER = "malformed_header"
    UNSUPPORTED_SIGNATURE = "unsupported_signature"
    BAD_TIMESTAMP = "bad_timestamp"
    STALE = "stale"
    FUTURE = "future"
    MISMATCH = "mismatch"
    NO_USABLE_SECRET = "no_usable_secret"  # noqa: S105 - a reason, not a secret
    BAD_CONFIG = "bad_config"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check.

    ``key_index`` is the position in ``secrets`` of the one that fitted; ``timestamp`` the sender's, in
    whole seconds since the epoch, if the scheme has one; ``delivery_id`` what the sender calls this
    delivery. The delivery id is covered by the signature only in Standard Webhooks, Svix, GitLab signing
    tokens and generic schemes whose template holds ``{id}``; and none of the values may be believed
    unless ``ok``.
    """

    ok: bool
    reason: Reason
    key_index: int | None = None
    timestamp: int | None = None
    delivery_id: str | None = None


class SignatureConfigError(ValueError):
    """A scheme's settings that make no sense; ``field`` names the setting."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def epoch_seconds(now: datetime | float) -> float:
    """Seconds since the epoch of an aware datetime, or the number itself. ValueError for a naive one."""
    if not isinstance(now, datetime):
        return now
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime or seconds since the epoch")
    return now.timestamp()
