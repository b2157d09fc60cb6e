"""Secrets sent as they are: bearer tokens, basic credentials, keys in a header.

They prove who sends, not what is sent: the body is not covered. Both sides are hashed before they are
compared, so that neither the content nor the length of a secret shows in the time it takes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from triggers.signatures.headers import Headers, header, to_bytes
from triggers.signatures.verdict import Reason, Verdict


def verify_token(headers: Headers, name: str, secrets: Sequence[str | bytes], identifier: str | None = None) -> Verdict:
    """Whether the header holds one of the secrets, as it is."""
    value = header(headers, name)
    if value is None:
        return Verdict(False, Reason.MISSING_HEADER)
    return _compare(to_bytes(value), secrets, identifier)


def verify_bearer(headers: Headers, secrets: Sequence[str | bytes]) -> Verdict:
    """Whether ``Authorization: Bearer …`` holds one of the secrets (RFC 6750)."""
    credentials = _credentials(headers, "bearer")
    if isinstance(credentials, Reason):
        return Verdict(False, credentials)
    return _compare(to_bytes(credentials), secrets, None)


def verify_basic(headers: Headers, secrets: Sequence[str | bytes]) -> Verdict:
    """Whether ``Authorization: Basic …`` holds one of the secrets, each ``user:password`` (RFC 7617)."""
    credentials = _credentials(headers, "basic")
    if isinstance(credentials, Reason):
        return Verdict(False, credentials)
    try:
        given = base64.b64decode(to_bytes(credentials), validate=True)
    except (binascii.Error, ValueError):
        return Verdict(False, Reason.MALFORMED_HEADER)
    if b":" not in given:
        return Verdict(False, Reason.MALFORMED_HEADER)
    return _compare(given, [secret for secret in secrets if _bytes(secret).strip(b":")], None)


def basic_header(secret: str | bytes) -> str:
    """The ``Authorization`` value for ``user:password``."""
    return "Basic " + base64.b64encode(_bytes(secret)).decode()


def _credentials(headers: Headers, scheme: str) -> str | Reason:
    value = header(headers, "Authorization")
    if value is None:
        return Reason.MISSING_HEADER
    given, _, credentials = value.partition(" ")
    if given.lower() != scheme:
        return Reason.UNSUPPORTED_SIGNATURE
    credentials = credentials.strip(" ")
    return credentials or Reason.MALFORMED_HEADER


def _compare(given: bytes, secrets: Sequence[str | bytes], identifier: str | None) -> Verdict:
    usable = [(index, _bytes(secret)) for index, secret in enumerate(secrets) if secret]
    if not usable:
        return Verdict(False, Reason.NO_USABLE_SECRET)
    wanted, fitting = hashlib.sha256(given).digest(), None
    for index, secret in usable:
        if hmac.compare_digest(wanted, hashlib.sha256(secret).digest()) and fitting is None:
            fitting = index
    if fitting is None:
        return Verdict(False, Reason.MISMATCH, None, None, identifier)
    return Verdict(True, Reason.VERIFIED, fitting, None, identifier)


def _bytes(secret: str | bytes) -> bytes:
    return secret if isinstance(secret, bytes) else to_bytes(secret)
