"""The plain command client to the broker, beside Celery's own connections, and how its queues are named there.

Kombu's connection retries for ever by default, which would hold up whoever publishes; this one fails fast.
"""

from __future__ import annotations

from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

#: What is raised when the broker is away.
BrokerAway = (RedisError, OSError)

SOCKET_TIMEOUT, CONNECT_TIMEOUT = 5.0, 3.0  # seconds
PRIORITY_SEPARATOR = "\x06\x16"  # kombu.transport.redis.Channel.sep


def client() -> redis.Redis:
    """This process's client of the broker; thread-safe, and a forked child gets connections of its own."""
    return _client(settings.REDIS_URL)


@cache
def _client(url: str) -> redis.Redis:
    # One more try at once: the pool's connection may be from before a restart of the broker.
    return redis.Redis.from_url(
        url.replace("redis+socket://", "unix://", 1),
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=CONNECT_TIMEOUT,
        retry=Retry(NoBackoff(), 1),
        health_check_interval=10,
    )


def key_of(queue: str, priority: int) -> str:
    """The list that holds a queue's messages of one priority, as kombu's Redis transport names it."""
    prefix = str(settings.CELERY_BROKER_TRANSPORT_OPTIONS.get("global_keyprefix", ""))
    return f"{prefix}{queue}{PRIORITY_SEPARATOR}{priority}" if priority else f"{prefix}{queue}"
