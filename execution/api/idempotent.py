"""`@idempotent`: a view method that honours the `Idempotency-Key` header."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder

from execution import idempotency
from scheduling_project.common.api import actor_of

Method = Callable[..., Response]

KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": idempotency.MAX_LENGTH, "pattern": "^[ -~]+$"},
    OpenApiParameter.HEADER,
    description="A repeat with the same key gets the first answer (kept for seven days).",
)


def idempotent(method: Method) -> Method:
    """Make a creating or starting method answer a repeated request with what it answered the first time.

    The repeat carries ``Idempotency-Replayed: true``. Only successes are kept: a request that failed did nothing
    and may be sent again with the same key.
    """

    @functools.wraps(method)
    def wrapped(self: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return method(self, request, *args, **kwargs)
        idempotency.check_key(key)

        def perform() -> tuple[int, Any]:
            self.check_tag(request)
            response = method(self, request, *args, **kwargs)
            return response.status_code, json.loads(json.dumps(response.data, cls=JSONEncoder))

        answer = idempotency.once(
            f"{actor_of(request)} {request.method} {request.path.rstrip('/')}",
            key,
            idempotency.request_hash(request.data, request.META.get("QUERY_STRING", "")),
            perform,
        )
        headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
        return Response(answer.body, status=answer.status, headers=headers)

    wrapped.described_by = [KEY]  # type: ignore[attr-defined]  # `common.openapi.Operations` reads it
    return wrapped
