"""Fingerprints of failures: equal for errors that differ only in ids, addresses, numbers and spaces. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

LENGTH: Final = 32
MAX_MESSAGE: Final = 2_000

# The order matters: the widest shape first, or a UUID would be taken apart into numbers and words.
_SHAPES: Final = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<uuid>"),
    (re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?Z?)?\b"), "<time>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.I), "<hex>"),
    (re.compile(r"\b(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8,}\b", re.I), "<hex>"),
    (re.compile(r"[0-9]+(?:[.,][0-9]+)*"), "<n>"),
    (re.compile(r"\s+"), " "),
)


def normalise(message: str) -> str:
    """The message with everything that changes from one occurrence to the next written as its kind.

    >>> normalise("order 4711 not found at 0x7f3a (3.5 s)")
    'order <n> not found at <hex> (<n> s)'
    """
    text = message[:MAX_MESSAGE]
    for shape, name in _SHAPES:
        text = shape.sub(name, text)
    return text.strip()


def fingerprint(error_type: str, message: str, step: str) -> str:
    """One identity for all failures of a step that are alike: 32 hexadecimal digits (SHA-256, shortened).

    >>> fingerprint("KeyError", "order 1", "load") == fingerprint("KeyError", "order 22", "load")
    True
    """
    # A separator that no part can hold keeps ("a", "bc") and ("ab", "c") apart.
    parts = (error_type, normalise(message), step)
    text = "\0".join(part.replace("\0", "") for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]
