"""UUID version 7 (RFC 9562, section 5.7): ids that sort by creation time, so that indexes stay compact."""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import datetime

_lock = threading.Lock()
_last = 0
_RANDOM_B = (1 << 62) - 1


def uuid7() -> uuid.UUID:
    """A new UUIDv7, strictly increasing within this process.

    48 bits of Unix milliseconds, then 74 bits that start at random and count upwards within a
    millisecond (RFC 9562, section 6.2, method 2).
    """
    return uuid7s(1)[0]


def uuid7s(count: int) -> list[uuid.UUID]:
    """`count` new UUIDv7, ascending: the first as `uuid7` makes it, the others counted upwards from it."""
    global _last
    with _lock:
        first = (time.time_ns() // 1_000_000) << 74 | int.from_bytes(os.urandom(10), "big") >> 6
        # The clock stood still or went back: count on from the last id.
        first = first if first > _last else _last + 1
        _last = first + count - 1
    return [uuid.UUID(int=_layout(value)) for value in range(first, first + count)]


def _layout(value: int) -> int:
    """Milliseconds and random bits with version and variant put in between."""
    return value >> 74 << 80 | 0x7 << 76 | (value >> 62 & 0xFFF) << 64 | 0b10 << 62 | value & _RANDOM_B


def uuid7_floor(instant: datetime) -> uuid.UUID:
    """The smallest UUIDv7 of an (aware) instant's millisecond: ids made from then on are greater or equal."""
    return uuid.UUID(int=int(instant.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62)
