"""Secrets at rest: encrypted with Fernet, under the first of several keys; the others still open what they closed.

The keys come from ``WORKFLOW_ENCRYPTION_KEYS`` (newest first). On a laptop, where there is none, one is derived
from ``SECRET_KEY``.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class VaultError(Exception):
    """A secret was encrypted with a key that is not among WORKFLOW_ENCRYPTION_KEYS."""


def encrypt(secret: str) -> str:
    """The secret as it may be stored."""
    return _vault().encrypt(secret.encode("utf-8", "surrogatepass")).decode()


def decrypt(ciphertext: str) -> str:
    """The secret that `encrypt` or `rotate` has closed.

    Raises:
        VaultError: with a key that is no longer known.
    """
    try:
        return _vault().decrypt(ciphertext.encode()).decode("utf-8", "surrogatepass")
    except InvalidToken:
        raise VaultError(VaultError.__doc__) from None


def rotate(ciphertext: str) -> str:
    """The same secret, closed with the first key.

    Raises:
        VaultError: it was closed with a key that is no longer known.
    """
    try:
        return _vault().rotate(ciphertext.encode()).decode()
    except InvalidToken:
        raise VaultError(VaultError.__doc__) from None


def derived_key(text: str) -> str:
    """A Fernet key from any text.

    >>> derived_key("laptop") == derived_key("laptop")
    True
    """
    return base64.urlsafe_b64encode(hashlib.sha256(b"workflow-encryption:" + text.encode()).digest()).decode()


def _vault() -> MultiFernet:
    keys = tuple(settings.WORKFLOW_ENCRYPTION_KEYS) or (derived_key(str(settings.SECRET_KEY)),)
    return _of(keys)


@lru_cache(maxsize=8)
def _of(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])
