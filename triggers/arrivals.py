"""An event on its way in: what every door (webhook, API, bus, chaining, replay) hands to `triggers.ingest`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

#: The members of an event as patterns and expressions see it.
ATTRIBUTES: Final = ("id", "type", "source", "subject", "time", "data", "endpoint", "headers", "extensions")
MAX_TYPE: Final = 200
MAX_TEXT: Final = 500
MAX_DEDUP_KEY: Final = 200


@dataclass(frozen=True, slots=True)
class Sender:
    """Who brought an event, and how they proved it, for a trigger's `authentication`.

    `method` is ``signature``, ``api_key``, ``user`` or ``internal``; `name` an actor, an address or a bus. A
    `trusted` one is an operator who vouches for it (replay, test).
    """

    name: str
    method: str = "internal"
    key_prefix: str = ""
    scopes: frozenset[str] = frozenset()
    endpoint: str = ""
    trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The attributes of CloudEvents 1.0 and how it came. `time` None: the moment of arrival."""

    type: str
    source: str = ""
    subject: str = ""
    time: datetime | None = None
    data: Any = None
    extensions: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = ""
    raw: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery_id: str = ""
    dedup_key: str | None = None
    cause: UUID | None = None
    depth: int = 0
    replay_of: UUID | None = None

    def document(self, *, id: UUID | str, endpoint: str, received_at: datetime) -> dict[str, Any]:
        """The event as patterns match it and expressions read it."""
        return {
            "id": str(id),
            "type": self.type,
            "source": self.source,
            "subject": self.subject,
            "time": instant_text(self.time or received_at),
            "data": self.data,
            "endpoint": endpoint,
            "headers": dict(self.headers),
            "extensions": dict(self.extensions),
        }


def instant_text(instant: datetime) -> str:
    """RFC 3339 in UTC.

    >>> instant_text(datetime(2026, 3, 1, 9, tzinfo=UTC))
    '2026-03-01T09:00:00Z'
    """
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def dedup_key(kind: str, *parts: str) -> str:
    """One text for equal parts, never longer than `MAX_DEDUP_KEY`.

    >>> dedup_key("id", "msg_1")
    'id:msg_1'
    """
    text = f"{kind}:" + "\n".join(parts)
    if len(text) <= MAX_DEDUP_KEY and text.isprintable():
        return text
    return f"{kind}:sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def at_path(value: Any, path: str) -> Any:
    """The value at a dotted path (numbers index arrays), None where there is none.

    >>> at_path({"a": [{"b": 1}]}, "a.0.b")
    1
    """
    for name in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and name.isascii() and name.isdecimal() and int(name[:9]) < len(value):
            value = value[int(name[:9])]
        else:
            return None
    return value
