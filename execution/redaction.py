"""Taking the values of secrets out of whatever is kept: outputs, errors, tracebacks, lines, notes. Pure.

A value is found as it is and in the forms that it commonly takes on the way: inside JSON, a Python literal, a URL, and
as Base64 by itself. What a step computes from a secret in other ways cannot be recognised.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

SHORTEST = 4  # characters; a shorter value would be found in anything


def redactor(secrets: Mapping[str, str]) -> Callable[[str], str]:
    """A function that writes ``[secret NAME]`` in place of each secret's value.

    >>> redactor({"TOKEN": "hunter22"})("?key=hunter22")
    '?key=[secret TOKEN]'
    """
    names: dict[str, str] = {}
    for name, value in sorted(secrets.items()):
        for form in _forms(value):
            if len(form) >= SHORTEST:
                names.setdefault(form, name)
    if not names:
        return str
    # The longest first, or a value that begins like another one would leave its end behind.
    pattern = re.compile("|".join(re.escape(form) for form in sorted(names, key=len, reverse=True)))
    return lambda text: pattern.sub(lambda found: f"[secret {names[found.group()]}]", text)


def _forms(value: str) -> list[str]:
    raw = value.encode("utf-8", "surrogatepass")
    return [
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        quote(raw, safe=""),
        quote(raw),
        quote_plus(raw),
        base64.b64encode(raw).decode(),
    ]


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """A JSON value with every text in it redacted, keys too."""
    if redact is str:
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): redacted(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, redact) for item in value]
    return value
