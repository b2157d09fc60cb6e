"""How a place inside a JSON document is written in messages: ``$.steps.load["a b"][0]``."""

from __future__ import annotations

import json
import re
from typing import Final

ROOT: Final = "$"

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*", re.ASCII)
_MAX_KEY_SHOWN: Final = 80


def child(path: str, key: str | int) -> str:
    """The path of a member (string key) or element (integer index) of the value at ``path``.

    >>> child(child("$.steps", "a b"), 0)
    '$.steps["a b"][0]'
    """
    if isinstance(key, int):
        return f"{path}[{key}]"
    if len(key) > _MAX_KEY_SHOWN:
        key = key[:_MAX_KEY_SHOWN] + "…"
    if _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}"
    return f"{path}[{json.dumps(key)}]"
