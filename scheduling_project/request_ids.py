"""A name for each request: in its answer (``X-Request-ID``) and in every line that is logged while it is answered.

A caller or a proxy may give one (letters, digits, ``._-``, at most 64); anything else is replaced, so that nobody can
write into the logs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import uuid4

import structlog
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

HEADER: Final = "X-Request-ID"
_GIVEN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def name_of(given: str) -> str:
    """The name that was given, or one of our own.

    >>> name_of("edge-4711")
    'edge-4711'
    >>> len(name_of("a\\nb"))
    32
    """
    return given if _GIVEN.fullmatch(given) else uuid4().hex


@sync_and_async_middleware
def request_id(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Bind ``request_id`` to the context of the logs, and answer with it."""
    if iscoroutinefunction(get_response):

        async def answer_later(request: HttpRequest) -> HttpResponseBase:
            name = name_of(request.headers.get(HEADER, ""))
            with structlog.contextvars.bound_contextvars(request_id=name):
                later: Awaitable[HttpResponseBase] = get_response(request)
                return _named(await later, name)

        return answer_later

    def answer(request: HttpRequest) -> HttpResponseBase:
        name = name_of(request.headers.get(HEADER, ""))
        with structlog.contextvars.bound_contextvars(request_id=name):
            return _named(get_response(request), name)

    return answer


def _named(response: HttpResponseBase, name: str) -> HttpResponseBase:
    response.headers[HEADER] = name
    return response
