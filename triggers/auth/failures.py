"""The limiter of failed authentication: few guesses per endpoint and address, exact over all processes.

Guesses are counted in Redis. Who has none on the account is remembered for a second, so that good senders cost no
question: a guess that is made in that second is counted all the same, and the first one too many is told so.
"""

from __future__ import annotations

import time
from typing import Final

from scheduling_project.common import rate_limits
from scheduling_project.common.rate_limits import Answer, Rate

RATE: Final = Rate(count=30, period=60, burst=30)
REMEMBERED_SECONDS: Final = 1.0
MOST_REMEMBERED: Final = 10_000

_ALLOWED: Final = Answer(allowed=True, left=RATE.burst)
_clean_until: dict[str, float] = {}


def look(name: str, *, may_remember: bool = True) -> Answer:
    """Whether one more guess would be allowed; nothing is counted.

    Args:
        may_remember: an answer of the last second will do, if it was that nothing is on the account.

    Raises:
        RedisAway: nothing can be counted.
    """
    moment = time.monotonic()
    if may_remember and _clean_until.get(name, 0.0) > moment:
        return _ALLOWED
    answer = rate_limits.take(name, RATE, units=0)
    if answer.left == RATE.burst:
        if len(_clean_until) >= MOST_REMEMBERED:
            _clean_until.clear()
        _clean_until[name] = moment + REMEMBERED_SECONDS
    return answer


def count(name: str) -> Answer:
    """Count a guess. Not allowed: it was one too many.

    Raises:
        RedisAway: nothing can be counted.
    """
    _clean_until.pop(name, None)
    return rate_limits.take(name, RATE)


def forget() -> None:
    """Remember nobody (tests)."""
    _clean_until.clear()
