"""UUID version 7 (RFC 9562, section 5.7): ids that sort by creation time, so that indexes stay compact."""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import datetime

_lock = threading.Lock()
_last = 0


def uuid7() -> uuid.UUID:
    """A new UUIDv7, strictly increasing within this process.

    48 bits of Unix milliseconds, then 74 bits that start at random and count upwards within a
    millisecond (RFC 9562, section 6.2, method 2).
    """
    global _last
    with _lock:
        value = (time.time_ns() // 1_000_000) << 74 | int.from_bytes(os.urandom(10), "big") >> 6
        # The clock stood still or went back: count on from the last id.
        _last = value = value if value > _last else _last + 1
    random_a, random_b = (value >> 62) & 0xFFF, value & ((1 << 62) - 1)
    return uuid.UUID(int=(value >> 74) << 80 | 0x7 << 76 | random_a << 64 | 0b10 << 62 | random_b)


def uuid7_floor(instant: datetime) -> uuid.UUID:
    """The smallest UUIDv7 of an (aware) instant's millisecond: ids made from then on are greater or equal."""
    return uuid.UUID(int=int(instant.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62)
