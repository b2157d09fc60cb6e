"""How often the API may be asked: per user or key, exactly, as fast as Redis counts, and not at all without Redis.

Answers tell the limit and what is left of it (``RateLimit-Policy`` and ``RateLimit`` of the IETF's
draft-ietf-httpapi-ratelimit-headers); a refusal is a 429 with ``Retry-After``.
"""

from __future__ import annotations

import math
from typing import Any, Final

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from scheduling_project.common import rate_limits
from scheduling_project.common.rate_limits import Answer, Rate
from triggers.auth.rest import address_of

POLICY: Final = "api"


class ApiRate(BaseThrottle):
    """The rate of the whole API; whoever has no credential is counted by address."""

    wait_seconds = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:
        per_minute = settings.API_REQUESTS_PER_MINUTE
        if not per_minute:
            return True
        rate = Rate(per_minute, 60, settings.API_REQUESTS_BURST)
        try:
            answer = rate_limits.take(f"api:{caller_of(request)}", rate)
        except rate_limits.RedisAway:
            return True  # the API works without Redis; what waits for it is only the broker
        request.rate_headers = headers_of(answer, rate)  # type: ignore[attr-defined]
        self.wait_seconds = answer.retry_after
        return answer.allowed

    def wait(self) -> float:
        return self.wait_seconds


def caller_of(request: Request) -> str:
    """Who is counted: a key by itself, a user over all their sessions and tokens, otherwise an address."""
    prefix = getattr(request.auth, "prefix", None)
    if prefix is not None:
        return f"key:{prefix}"
    if request.user and request.user.is_authenticated:
        return f"user:{request.user.pk}"
    return f"address:{address_of(request.META)}"


def headers_of(answer: Answer, rate: Rate) -> dict[str, str]:
    """``RateLimit-Policy: "api";q=3000;w=6`` and ``RateLimit: "api";r=2999;t=1``.

    The quota is the burst, and its window the time in which it refills: what a caller may rely on at any moment.
    """
    window = max(1, math.ceil(rate.burst * rate.period / rate.count))
    return {
        "RateLimit-Policy": f'"{POLICY}";q={rate.burst};w={window}',
        "RateLimit": f'"{POLICY}";r={answer.left};t={math.ceil(answer.full_after)}',
    }
