"""The effects file of a drill: what steps did outside the system, in the order they did it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path


def read(path: Path) -> list[dict[str, object]]:
    """Every line that is whole; a killed process may leave none, never half of another's."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def ended(path: Path) -> Counter[str]:
    """How often the work of each step run was done to its end, by its idempotency key."""
    return Counter(str(line["key"]) for line in read(path) if line["event"] == "end")


def running(path: Path) -> dict[str, int]:
    """Process id by idempotency key of what has begun and not ended."""
    open_: dict[str, int] = {}
    for line in read(path):
        if line["event"] == "begin":
            open_[str(line["key"])] = int(str(line["pid"]))
        else:
            open_.pop(str(line["key"]), None)
    return open_
