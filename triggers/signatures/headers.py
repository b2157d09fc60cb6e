"""Reading header values that may have any shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

MAX_VALUE: Final = 8_192
"""A longer value is not read at all: no scheme needs it."""

_DELIVERY_ID: Final = re.compile(r"[!-~]{1,256}", re.ASCII)

Headers = Mapping[Any, Any]
"""Header names and values as they came; both are only believed to be text after a look."""


def header(headers: Headers, name: str) -> str | None:
    """The value of a header, whatever the case of its name; None if it is absent.

    Bytes are read as Latin-1; several values are joined by commas, as HTTP does. A value that is too long,
    or is no text at all, comes out as the empty text: present and certainly wrong.
    """
    value = headers.get(name)
    if value is None:
        wanted = name.lower()
        for key, candidate in headers.items():
            spelled = key.decode("latin-1") if isinstance(key, bytes) else key
            if isinstance(spelled, str) and spelled.lower() == wanted:
                value = candidate
                break
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip(" \t") if len(value) <= MAX_VALUE else ""
    if isinstance(value, bytes):
        return _text(value.decode("latin-1"))
    if isinstance(value, list | tuple) and len(value) <= 16:
        return _text(",".join(_text(item) for item in value))
    return ""


def delivery_id(text: str | None) -> str | None:
    """The text as a delivery id: 1 to 256 printable ASCII characters without spaces, else None."""
    return text if text is not None and _DELIVERY_ID.fullmatch(text) else None


def to_bytes(text: str) -> bytes:
    """The bytes of a text that may hold lone surrogates, for comparisons that must not raise."""
    return text.encode("utf-8", "surrogatepass")
