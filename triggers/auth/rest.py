"""API keys as a way to authenticate at the API; named in ``REST_FRAMEWORK``, so that no other app imports it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from scheduling_project.common import clock
from triggers import addresses
from triggers.auth import keys
from triggers.catalog import Key


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer wk_…``, ``Authorization: Api-Key wk_…`` or ``X-API-Key: wk_…``.

    The request is made in the name of the key's user, and may do what both that user and the key's scopes allow
    (`Key.verbs`; `common.permissions` asks).
    """

    def authenticate(self, request: Request) -> tuple[Any, Key] | None:
        text = credential(request.META)
        if text is None:
            return None
        now = clock.now()
        key = keys.recognise(text, now=now, address=address_of(request.META))
        user = None if key is None else get_user_model().objects.filter(pk=key.user_id, is_active=True).first()
        if key is None or user is None:
            raise exceptions.AuthenticationFailed("The API key is not valid.")
        keys.touch(key, now=now)
        return user, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


def credential(meta: Any) -> str | None:
    """The API key that a request shows, None if it shows none (other bearer tokens are somebody else's)."""
    given = str(meta.get("HTTP_X_API_KEY", "")).strip()
    if given:
        return given
    kind, _, text = str(meta.get("HTTP_AUTHORIZATION", "")).partition(" ")
    text = text.strip()
    if kind.lower() == "api-key":
        return text
    return text if kind.lower() == "bearer" and keys.looks_like_key(text) else None


def address_of(meta: Any) -> str:
    """The sender's address, by this deployment's idea of proxies."""
    return addresses.of_request(meta, behind_proxy=settings.SECURE_PROXY_SSL_HEADER is not None)
