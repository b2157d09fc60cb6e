"""Who watches: by a ticket that was asked for with any credential of the API, or by the admin's session cookie.

A browser sends the cookie whichever page opens the socket, so the cookie counts only with an `Origin` of ours. A
ticket is good for thirty seconds and for one socket: it stands in an address, and addresses end up in logs. That it
was used is kept in Postgres, beside the idempotency keys, so that tickets work while Redis is away.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.contrib.auth import get_user, get_user_model
from django.core import signing
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare, get_random_string
from django.utils.http import is_same_domain

from execution import idempotency
from scheduling_project.common import clock, permissions
from scheduling_project.common.errors import DomainError
from scheduling_project.live.kinds import KINDS
from triggers.catalog import Key
from triggers.models import ApiKey

TICKET_SECONDS: Final = 30
SALT: Final = "live.ticket"
SCOPE: Final = "live ticket"


class Unauthenticated(DomainError):
    """This needs a ticket that was not used yet, or a session."""

    code = "not_authenticated"
    status = 401


class WrongOrigin(DomainError):
    """A session counts only for pages of this server's own."""

    code = "wrong_origin"
    status = 403


class WrongTransport(DomainError):
    """Sockets come over TLS (wss://) and under a name of this server's."""

    code = "wrong_transport"
    status = 403


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user, as far as an API key lets it: `allowed` are the permissions of kinds that it had when it was loaded.
    `still` reads whether its session or key holds."""

    user: Any
    verbs: frozenset[str] | None
    still: Callable[[], bool]
    allowed: frozenset[str]

    def again(self) -> Visitor | None:
        """The same visitor with the permissions of this moment; None when it may not even come in any more."""
        if not self.still():
            return None
        user = get_user_model().objects.filter(pk=self.user.pk, is_active=True).first()
        if user is None or not constant_time_compare(_password_mark(user), _password_mark(self.user)):
            return None
        return visitor(user, self.verbs, self.still)


def visitor(user: Any, verbs: frozenset[str] | None, still: Callable[[], bool]) -> Visitor:
    """A visitor with the permissions of this moment. Reads the database, so that sockets need not."""
    request = HttpRequest()
    request.user = user
    request.auth = None if verbs is None else SimpleNamespace(verbs=verbs)  # type: ignore[attr-defined]
    wanted = {kind.permission for kind in KINDS.values()}
    return Visitor(user, verbs, still, frozenset(name for name in wanted if permissions.may(request, name)))


def issue_ticket(user: Any, auth: Any) -> str:
    """A ticket for one socket in the name of a request's user, narrowed as the request was."""
    key = auth if isinstance(auth, Key) else None
    held = {
        "user": user.pk,
        "mark": _password_mark(user)[:16],
        "nonce": get_random_string(22),
        "key": None if key is None else str(key.id),
        "verbs": None if key is None else sorted(key.verbs),
    }
    return signing.dumps(held, salt=SALT, compress=False)


def redeem_ticket(text: str) -> Visitor:
    """The visitor that a ticket stands for; it is used up.

    Race: two sockets with one ticket. The unique row of its nonce lets one of them in.

    Raises:
        Unauthenticated: it is forged, too old or used, or its user or key is not valid any more.
    """
    try:
        held = signing.loads(text, salt=SALT, max_age=TICKET_SECONDS)
    except signing.BadSignature:
        raise Unauthenticated("The ticket is forged or older than 30 seconds.") from None
    if idempotency.once(SCOPE, held["nonce"], "", lambda: (204, None)).replayed:
        raise Unauthenticated("The ticket was used before.")
    user = get_user_model().objects.filter(pk=held["user"], is_active=True).first()
    if user is None or not constant_time_compare(_password_mark(user)[:16], held["mark"]):
        raise Unauthenticated("The ticket's user is not valid any more.")
    verbs = None if held["verbs"] is None else frozenset(held["verbs"])

    def still() -> bool:
        return held["key"] is None or _key_holds(held["key"])

    if not still():
        raise Unauthenticated("The ticket's API key is not valid any more.")
    return visitor(user, verbs, still)


def visitor_of(scope: Any) -> Visitor:
    """Who opens this socket. Reads the database.

    Raises:
        Unauthenticated, WrongOrigin, WrongTransport: nobody, or nobody who may.
    """
    scheme = {"ws": "http", "wss": "https"}.get(scope.get("scheme", "ws"), "http")
    request = ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, io.BytesIO())
    try:
        host = request.get_host()
    except DisallowedHost:
        raise WrongTransport("This is not a name of this server's.") from None
    if settings.SECURE_SSL_REDIRECT and not request.is_secure():
        raise WrongTransport
    ticket = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("ticket")
    if ticket:
        return redeem_ticket(ticket[0])
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not session_key:
        raise Unauthenticated
    origin = request.META.get("HTTP_ORIGIN", "")
    if not is_our_origin(origin, host=host, secure=request.is_secure()):
        raise WrongOrigin(f"A session counts only for pages of this server's own, not of {origin[:100] or 'nowhere'}.")
    user = _session_user(session_key)
    if user is None:
        raise Unauthenticated("The session has ended.")
    return visitor(user, None, lambda: _session_user(session_key) is not None)


def is_our_origin(origin: str, *, host: str, secure: bool) -> bool:
    """Whether a page of this origin is ours: the server's own host, or one of CSRF_TRUSTED_ORIGINS.

    >>> is_our_origin("https://a.example", host="a.example", secure=True)
    True
    >>> is_our_origin("http://a.example", host="a.example", secure=True)
    False
    """
    if origin == f"{'https' if secure else 'http'}://{host}":
        return True
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    parts = urlsplit(origin)
    return any(
        trusted.scheme == parts.scheme and is_same_domain(parts.netloc, trusted.netloc.lstrip("*"))
        for trusted in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS)
        if "*" in trusted.netloc and parts.netloc
    )


def _session_user(session_key: str) -> Any | None:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    return user if user.is_authenticated and user.is_active else None


def _password_mark(user: Any) -> str:
    """Changes with the user's password, so that a new one ends what was opened under the old."""
    return str(user.get_session_auth_hash())


def _key_holds(key_id: str) -> bool:
    key = ApiKey.objects.filter(pk=key_id, revoked_at=None).first()
    return key is not None and (key.expires_at is None or key.expires_at > clock.now())
