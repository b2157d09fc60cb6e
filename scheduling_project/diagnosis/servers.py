"""Postgres and Redis: reachable, of a version that holds the protocol, safe to lose power, and of one mind on time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.db import DatabaseError, InterfaceError

from execution import broker, engine
from scheduling_project.diagnosis.finding import Finding, error, hint, ok, warning

LEAST_POSTGRES: Final = 140_000  # what Django needs, and UPDATE … RETURNING in materialized CTEs as the engine uses it
LEAST_REDIS: Final = (6, 0)
#: Seconds that clocks may differ: firing and leases run on Postgres's, logs and tokens on the host's.
SKEW_WARNING: Final = 1.0
SKEW_ERROR: Final = 5.0
#: Part of the connections or of the memory in use from which on it becomes narrow.
NARROW: Final = 0.85

FACTS = """
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS named,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('max_connections')::int AS most,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       pg_is_in_recovery() AS is_replica
"""


def postgres() -> Iterator[Finding]:
    """What Postgres says of itself. The first finding is an error when it is away."""
    try:
        row: Any = engine.fetch_one(FACTS, {}, using="default")
        skew = _skew(lambda: engine.now(using="default").timestamp())
    except (DatabaseError, InterfaceError) as away:
        kind = type(away.__cause__ or away).__name__
        yield error("postgres", f"it cannot be reached ({kind})", "start it, or correct DATABASE_URL")
        return
    yield from judge_postgres(row, skew)


def judge_postgres(row: Any, skew: float) -> Iterator[Finding]:
    """Findings from Postgres's settings and the seconds that its clock is ahead of the host's. Pure."""
    if row.version < LEAST_POSTGRES:
        yield error("postgres", f"version {row.named} is too old", "move to PostgreSQL 14 or later")
    elif row.is_replica:
        yield error("postgres", "it is a read-only replica", "let DATABASE_URL name the primary")
    else:
        yield ok("postgres", f"version {row.named}, {row.connections} of {row.most} connections")
    for name in ("fsync", "full_page_writes"):
        if getattr(row, name) == "off":
            yield error("postgres", f"{name} is off: a power failure loses or corrupts data", f"set {name} = on")
    if row.synchronous_commit == "off":
        yield warning(
            "postgres",
            "synchronous_commit is off: what was answered with success may be lost in a crash",
            "set synchronous_commit = on for this database",
        )
    if row.connections >= NARROW * row.most:
        yield warning(
            "postgres",
            f"{row.connections} of {row.most} connections are in use",
            "raise max_connections, or put a pooler in front of the web processes (DATABASE_POOL_SIZE)",
        )
    yield from _judge_skew("clock of Postgres", skew)


def redis() -> Iterator[Finding]:
    """What Redis says of itself."""
    client = broker.client()
    try:
        info: Mapping[str, Any] = client.info()
        skew = _skew(lambda: _redis_time(client))
    except broker.BrokerAway as away:
        yield error(
            "redis",
            f"it cannot be reached ({type(away).__name__}); executions are kept and wait",
            "start it, or correct REDIS_URL",
        )
        return
    try:
        settings = {name: client.config_get(name).get(name) for name in ("appendonly", "save")}
    except broker.BrokerAway:  # managed servers refuse CONFIG; INFO tells what matters most
        settings = {}
    yield from judge_redis(info, settings, skew)


def judge_redis(info: Mapping[str, Any], settings: Mapping[str, Any], skew: float) -> Iterator[Finding]:
    """Findings from INFO, some of CONFIG (empty where it was refused), and the clock's skew in seconds. Pure."""
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < LEAST_REDIS:
        yield error("redis", f"version {version} is too old", "move to Redis 6 or later (or Valkey)")
    else:
        yield ok("redis", f"version {version}, {info.get('used_memory_human', '?')} in use")
    if info.get("role") == "slave":
        yield error("redis", "it is a read-only replica", "let REDIS_URL name the primary")
    policy, most = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        yield error(
            "redis",
            f"maxmemory-policy is {policy}: under pressure it throws messages away",
            "set maxmemory-policy noeviction (CONFIG SET, and in redis.conf)",
        )
    if most and int(info.get("used_memory", 0)) >= NARROW * most:
        yield warning("redis", "nearly all of its memory is in use", "raise maxmemory, or look for other users of it")
    if settings and settings.get("appendonly") == "no" and not settings.get("save"):
        yield hint(
            "redis",
            "it keeps nothing on disk: after a restart the sweep sends again what it held",
            "nothing is lost; appendonly yes spares the second sending",
        )
    yield from _judge_skew("clock of Redis", skew)


def _redis_time(client: Any) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


def _skew(ask: Any) -> float:
    """Seconds that a server's clock is ahead of this host's: its answer against the middle of asking."""
    ask()  # the first one may open a connection
    before = time.time()
    there = ask()
    return float(there) - (before + time.time()) / 2


def _judge_skew(check: str, skew: float) -> Iterator[Finding]:
    told, todo = (
        f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this host",
        "let all hosts run chrony or ntpd",
    )
    if abs(skew) >= SKEW_ERROR:
        yield error(check, told, todo)
    elif abs(skew) >= SKEW_WARNING:
        yield warning(check, told, todo)
    else:
        yield ok(check, f"{abs(skew) * 1000:.0f} ms from this host's")
