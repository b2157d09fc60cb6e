"""Both doors for passwords, `POST /api/token` and the admin's login, under one limit of failed attempts.

An attempt takes a unit before the password is looked at, so that attempts at the same moment cannot pass together; one
that succeeds gives it back. Counted per account and address, so that nobody can lock somebody else out from afar, and
per address over all accounts. Without Redis nothing is counted: an outage must not lock operators out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.views import TokenObtainPairView
from unfold.forms import AuthenticationForm

from scheduling_project.common import rate_limits
from scheduling_project.common.logs import get_logger
from scheduling_project.common.rate_limits import Rate
from triggers.auth.rest import address_of

log = get_logger(__name__)

#: An address may fail for so many times as many accounts (offices share addresses).
PER_ADDRESS: Final = 6


class TooManyFailures(Exception):
    """There were too many failed logins; the next may come in `wait` seconds."""

    def __init__(self, wait: float) -> None:
        self.wait = wait
        super().__init__(f"Too many failed logins. Try again in {math.ceil(wait)} seconds.")


def begin(meta: Any, username: str) -> Callable[[], None]:
    """Take a unit for an attempt; the answer gives it back and is called when the password was right.

    Raises:
        TooManyFailures: there is none left; the password must not be looked at.
    """
    count = settings.LOGIN_FAILURES_PER_MINUTE
    if not count:
        return lambda: None
    address = address_of(meta)
    account = hashlib.sha256(username.casefold().encode("utf-8", "replace")).hexdigest()[:32]
    limits = {
        f"login:{address}": Rate(count * PER_ADDRESS, 60, count * PER_ADDRESS),
        f"login:{address}:{account}": Rate(count, 60, count),
    }
    taken: list[str] = []

    def give_back() -> None:
        for name in taken:
            _take(name, limits[name], units=-1)

    for name, rate in limits.items():
        wait = _take(name, rate)
        if wait:
            give_back()
            log.warning("login.refused", address=address, wait=math.ceil(wait))
            raise TooManyFailures(wait)
        taken.append(name)
    return give_back


def _take(name: str, rate: Rate, *, units: int = 1) -> float:
    """Seconds to wait; 0.0 if it was taken or nothing can be counted."""
    try:
        answer = rate_limits.take(name, rate, units=units)
    except rate_limits.RedisAway:
        return 0.0
    return 0.0 if answer.allowed else answer.retry_after


class TokenView(TokenObtainPairView):
    """A pair of tokens for a name and a password."""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        username = request.data.get("username") if isinstance(request.data, dict) else None
        if not isinstance(username, str):
            return super().post(request, *args, **kwargs)  # refused by its serializer
        try:
            succeeded = begin(request.META, username)
        except TooManyFailures as error:
            raise exceptions.Throttled(error.wait, detail=str(error)) from None
        response = super().post(request, *args, **kwargs)
        succeeded()
        response.headers["Cache-Control"] = "no-store"
        return response


class LoginForm(AuthenticationForm):  # type: ignore[misc]
    """The admin's login, which does not look at a password after too many failures."""

    wait = 0.0

    def clean(self) -> dict[str, Any]:
        try:
            succeeded = begin(self.request.META, self.cleaned_data.get("username") or "")
        except TooManyFailures as error:
            self.wait = error.wait
            raise ValidationError(str(error), code="throttled") from None
        cleaned: dict[str, Any] = super().clean()
        succeeded()
        return cleaned


def admin_login(request: HttpRequest) -> HttpResponse:
    """The admin's login page; 429 after too many failures."""
    response = admin.site.login(request)
    form = (getattr(response, "context_data", None) or {}).get("form")
    wait = getattr(form, "wait", 0.0)
    if wait:
        response.status_code = 429
        response.headers["Retry-After"] = str(math.ceil(wait))
    return response
