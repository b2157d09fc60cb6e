"""Limits at the doors, counted in Redis: exact under concurrency, one round trip, and quick to give up.

The Generic Cell Rate Algorithm (ITU-T I.371) in one Lua script, on Redis's own clock. A process that finds Redis
away does not ask again for a second; the caller then decides whether to let people in or not.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

PREFIX: Final = "workflow:rate:"
SOCKET_TIMEOUT: Final = 0.5  # seconds; a limiter that is slower than this is worse than none
PAUSE_AFTER_FAILURE: Final = 1.0

# KEYS[1]: where the theoretical arrival time stands, in microseconds. ARGV: microseconds per unit, microseconds of
# burst, units asked for (0: only look; fewer: give back). Answer: allowed (1 or 0), microseconds until one unit is
# free again, units that are left, microseconds until all are.
_GCRA: Final = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local each, burst, units = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local function left() return math.max(0, math.floor((burst - (arrival - now)) / each)) end
if units < 0 then
    arrival = math.max(arrival + units * each, now)
    redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1)
    return {1, 0, left(), arrival - now}
end
local wanted = math.max(units, 1) * each
local wait = arrival + wanted - burst - now
if wait > 0 then return {0, wait, left(), arrival - now} end
if units > 0 then
    arrival = arrival + wanted
    redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
end
return {1, 0, left(), arrival - now}
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` units in `period` seconds, of which `burst` may come at once."""

    count: int
    period: float
    burst: int

    @property
    def each(self) -> int:
        """Microseconds per unit."""
        return max(1, round(self.period * 1_000_000 / self.count))


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether there is room, and if not, in how many seconds there will be; how many units are left, and in how many
    seconds all of them are again."""

    allowed: bool
    retry_after: float = 0.0
    left: int = 0
    full_after: float = 0.0


class RedisAway(Exception):
    """Redis does not answer, so nothing can be counted."""


_client: redis.Redis | None = None
_script: Any = None
_lock = threading.Lock()
_away_until = 0.0


def take(name: str, rate: Rate, *, units: int = 1) -> Answer:
    """Take `units` of a rate; with 0, only look whether one would be allowed; with fewer, give them back.

    Raises:
        RedisAway: Redis does not answer, or did not a moment ago.
    """
    global _away_until
    if time.monotonic() < _away_until:
        raise RedisAway
    try:
        allowed, wait, left, full = _gcra()(keys=[PREFIX + name], args=[rate.each, rate.each * rate.burst, units])
    except (redis.RedisError, OSError) as error:
        _away_until = time.monotonic() + PAUSE_AFTER_FAILURE
        log.warning("rate_limits.redis_away", error=str(error))
        raise RedisAway from None
    return Answer(bool(allowed), float(wait) / 1_000_000, int(left), float(full) / 1_000_000)


def forget(name: str) -> None:
    """Give all units of a name back.

    Raises:
        RedisAway: Redis does not answer.
    """
    try:
        connection().delete(PREFIX + name)
    except (redis.RedisError, OSError):
        raise RedisAway from None


def connection() -> redis.Redis:
    """This process's client, with its pool; its timeouts are short."""
    global _client
    with _lock:
        if _client is None:
            _client = client_of(settings.REDIS_URL, timeout=SOCKET_TIMEOUT)
        return _client


def client_of(url: str, *, timeout: float | None) -> redis.Redis:
    """A client for a URL as Celery spells it (``redis+socket://`` is a Unix socket)."""
    if url.startswith("redis+socket://"):
        url = "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    # The library's own retries wait for seconds, far beyond what a request may.
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )


def reset() -> None:
    """Forget the client and that Redis was away (tests; after a fork)."""
    global _client, _script, _away_until
    with _lock:
        _client, _script, _away_until = None, None, 0.0


def _gcra() -> Any:
    global _script
    if _script is None:
        _script = connection().register_script(_GCRA)
    return _script
