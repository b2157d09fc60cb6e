"""Every error of the API as one document: problem+json (RFC 9457) with a stable `code` and rules per field.

{"type": "about:blank", "title": "Bad Request", "status": 400, "code": "invalid",
 "detail": "Some values are not acceptable.", "errors": {"timezone": ["is not an IANA time zone"]}}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation, ValidationError
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import set_rollback

from scheduling_project.common.errors import DomainError
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2
API_PREFIX: Final = "/api/"

_CODES: Final[Mapping[type[exceptions.APIException], str]] = {
    exceptions.ParseError: "malformed",
    exceptions.NotAuthenticated: "not_authenticated",
    exceptions.AuthenticationFailed: "authentication_failed",
    exceptions.PermissionDenied: "permission_denied",
    exceptions.NotFound: "not_found",
    exceptions.MethodNotAllowed: "method_not_allowed",
    exceptions.NotAcceptable: "not_acceptable",
    exceptions.UnsupportedMediaType: "unsupported_media_type",
    exceptions.Throttled: "throttled",
    exceptions.ValidationError: "invalid",
}


def problem(
    status: int, code: str, detail: str, *, errors: Mapping[str, Any] | None = None, **extra: Any
) -> dict[str, Any]:
    """A problem document. `errors` are rules per dotted field path."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if errors:
        document["errors"] = {path: list(rules) for path, rules in errors.items()}
    return document | extra


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """What Django REST framework answers instead of `error`."""
    set_rollback()
    document, headers = describe(error)
    if context.get("request") is not None:
        # Whatever the view would have answered with, and even if nothing the client accepts: the problem is JSON.
        context["request"].accepted_renderer, context["request"].accepted_media_type = JSONRenderer(), MEDIA_TYPE
    if document["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
        request = context.get("request")
        path = request.path if request is not None else ""
        if document["code"] == "unavailable":
            log.warning("api.unavailable", path=path, error=str(error))
        else:
            log.error("api.failed", path=path, exc_info=error)
    return Response(document, status=document["status"], headers=headers, content_type=MEDIA_TYPE)


def describe(error: Exception) -> tuple[dict[str, Any], dict[str, str]]:
    """The problem document of an error, and the headers that belong to it."""
    if isinstance(error, DomainError):
        document = problem(error.status, error.code, error.message, errors=error.fields, **error.extra)
        return document, _retry_after(error.status)
    if isinstance(error, exceptions.APIException):
        return _from_rest_framework(error)
    if isinstance(error, Http404):
        return problem(404, "not_found", "There is no such thing."), {}
    if isinstance(error, PermissionDenied):
        return problem(403, "permission_denied", str(error) or "You may not do this."), {}
    if isinstance(error, RequestDataTooBig):
        return problem(413, "too_large", "The request is larger than this server accepts."), {}
    if isinstance(error, SuspiciousOperation):
        return problem(400, "malformed", "The request is malformed."), {}
    if isinstance(error, ValidationError):
        return problem(400, "invalid", "Some values are not acceptable.", errors=_model_errors(error)), {}
    if isinstance(error, OperationalError | InterfaceError):
        return problem(503, "unavailable", "The database is away or busy; try again shortly."), _retry_after(503)
    if isinstance(error, IntegrityError):
        return problem(409, "conflict", "It contradicts something that is already there."), {}
    if isinstance(error, DataError):
        return problem(400, "invalid", "Some value cannot be kept: it is too long or out of range."), {}
    return problem(500, "internal", "This should not have happened; it has been logged."), {}


def _from_rest_framework(error: exceptions.APIException) -> tuple[dict[str, Any], dict[str, str]]:
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), "error")
    headers: dict[str, str] = {}
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        challenge = getattr(error, "auth_header", None)
        if challenge:
            headers["WWW-Authenticate"] = challenge
    wait = getattr(error, "wait", None)  # of Throttled, in seconds
    if wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    status = error.status_code
    if isinstance(error, exceptions.ValidationError):
        errors: dict[str, list[str]] = {}
        for path, rule in flatten(error.detail):
            errors.setdefault(path or "body", []).append(rule)
        return problem(status, code, "Some values are not acceptable.", errors=errors), headers
    detail: Any = error.detail
    if isinstance(detail, Mapping):  # simplejwt: {"detail": …, "code": "token_not_valid", "messages": […]}
        code, detail = str(detail.get("code", code)), detail.get("detail", "")
    return problem(status, code, str(detail)), headers


def flatten(detail: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """A serializer's nested errors as (dotted path, rule) pairs.

    >>> list(flatten({"input": {"day": ["is required"]}, "non_field_errors": ["no"]}))
    [('input.day', 'is required'), ('', 'no')]
    """
    if isinstance(detail, Mapping):
        for name, value in detail.items():
            own = name in {"non_field_errors", "__all__"}
            yield from flatten(value, path if own else f"{path}.{name}" if path else str(name))
    elif isinstance(detail, list | tuple):
        for index, value in enumerate(detail):
            nested = isinstance(value, Mapping | list | tuple)
            yield from flatten(value, (f"{path}.{index}" if path else str(index)) if nested else path)
    else:
        yield path, str(detail)


def _model_errors(error: ValidationError) -> dict[str, list[str]]:
    if hasattr(error, "error_dict"):
        return {name: list(rules) for name, rules in error.message_dict.items()}
    return {"body": list(error.messages)}


def _retry_after(status: int) -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}


# ── Errors outside of Django REST framework ──────────────────────────────────────────────────────────────────


def respond(document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> JsonResponse:
    """A problem document as a plain Django response."""
    return JsonResponse(dict(document), status=document["status"], headers=headers, content_type=MEDIA_TYPE)


@csrf_exempt
def unknown_route(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    """Nothing lives at this address of the API."""
    return respond(problem(404, "not_found", "There is nothing at this address."))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: problem+json for the API, a page elsewhere."""
    if not request.path.startswith(API_PREFIX):
        return defaults.bad_request(request, exception)
    return respond(*describe(exception))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: problem+json for the API, a page elsewhere."""
    if not request.path.startswith(API_PREFIX):
        return defaults.server_error(request)
    return respond(*describe(Exception()))
