"""`/healthz`: this process answers. `/readyz`: work can flow, or which part keeps it from flowing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import redis
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from execution.models import ProcessReport
from scheduling_project.common import clock

SEEN_WITHIN: Final = timedelta(seconds=15)
REDIS_TIMEOUT: Final = 1.0  # seconds

Check = Callable[[], str]


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as this process answers at all; it asks nobody else."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when work can flow, else 503; either way each part by name with what is wrong with it."""
    checks: dict[str, dict[str, Any]] = {}
    for name, check in (("postgres", _postgres), ("redis", _redis)):
        checks[name] = _result(check)
    for kind in ("beat", "worker"):
        if checks["postgres"]["ok"]:
            checks[kind] = _result(lambda kind=kind: _process(kind))  # type: ignore[misc]
        else:
            checks[kind] = {"ok": False, "detail": "not known while Postgres is away"}
    ready = all(check["ok"] for check in checks.values())
    body = {"status": "ready" if ready else "not ready", "checks": checks}
    return JsonResponse(body, status=200 if ready else 503, headers={} if ready else {"Retry-After": "2"})


def _result(check: Check) -> dict[str, Any]:
    try:
        detail = check()
    except (DatabaseError, InterfaceError, redis.RedisError, OSError) as error:
        # The class alone: a driver's message may hold the address of the server.
        detail = f"away ({type(error).__name__})"
    return {"ok": not detail, "detail": detail or "ok"}


def _postgres() -> str:
    clock.now()
    return ""


def _redis() -> str:
    client = redis.Redis.from_url(
        settings.REDIS_URL.replace("redis+socket://", "unix://"),
        socket_timeout=REDIS_TIMEOUT,
        socket_connect_timeout=REDIS_TIMEOUT,
    )
    with client:
        client.ping()
    return ""


def _process(kind: str) -> str:
    latest = ProcessReport.objects.filter(kind=kind, stopped_at=None).order_by("-seen_at").first()
    if latest is None:
        return f"no {kind} has reported; start one with: celery -A scheduling_project {kind}"
    age = clock.now() - latest.seen_at
    if age > SEEN_WITHIN:
        return f"the latest {kind} ({latest.name}) was seen {age.total_seconds():.0f} s ago"
    return ""
