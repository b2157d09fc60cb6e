"""The webhooks that we send, as the OpenAPI document tells them: one per kind of notification rule."""

from __future__ import annotations

from typing import Any, Final

from execution.notifications.kinds import NotificationKind

#: What each message carries beside its body (Standard Webhooks).
HEADERS: Final = (
    ("webhook-id", "The message's id; the same with every attempt, so that a repeat can be told.", {"format": "uuid"}),
    ("webhook-timestamp", "When this attempt was signed, in seconds since 1970.", {"pattern": "^[0-9]+$"}),
    (
        "webhook-signature",
        "`v1,` and the Base64 of HMAC-SHA256 over `id.timestamp.body`; several, separated by spaces, while a secret "
        "is being rotated.",
        {"pattern": "^v1,[A-Za-z0-9+/=]+( v1,[A-Za-z0-9+/=]+)*$"},
    ),
)
EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One thing that happened. Further members are ids and figures, never inputs or outputs.",
    "required": ["kind", "subject", "title", "at"],
    "properties": {
        "kind": {"type": "string"},
        "subject": {"type": "string", "description": "Id of the execution, schedule, dead letter or queue."},
        "title": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
    },
    "additionalProperties": True,
}
MESSAGE: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What happened within the window of one rule.",
    "required": ["type", "timestamp", "data"],
    "properties": {
        "type": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "data": {
            "type": "object",
            "required": ["id", "rule", "title", "test", "count", "events"],
            "properties": {
                "id": {"type": "string", "format": "uuid"},
                "rule": {
                    "type": "object",
                    "required": ["id", "name"],
                    "properties": {"id": {"type": "string", "format": "uuid"}, "name": {"type": "string"}},
                },
                "title": {"type": "string"},
                "test": {"type": "boolean", "description": "Sent by `POST /api/notifications/rules/{id}/test`."},
                "count": {"type": "integer", "minimum": 1, "description": "How many things happened in the window."},
                "events": {
                    "type": "array",
                    "description": "The first 20 of them.",
                    "items": {"$ref": "#/components/schemas/NotificationEvent"},
                },
            },
        },
    },
}
EXAMPLE: Final[dict[str, Any]] = {
    "type": "notification.failed",
    "timestamp": "2026-03-01T02:00:07.120000+00:00",
    "data": {
        "id": "019a3c1e-7b1c-7a52-9d0e-5b1f0a6c2d44",
        "rule": {"id": "019a3c1d-0f3e-7c11-8a55-0c7b3e9d1f20", "name": "reports fail"},
        "title": "daily-report failed",
        "test": False,
        "count": 1,
        "events": [
            {
                "kind": "failed",
                "subject": "019a3c1e-1a2b-7d4e-9f60-718293a4b5c6",
                "title": "daily-report failed",
                "at": "2026-03-01T02:00:06.900000+00:00",
                "workflow": "daily-report",
            }
        ],
    },
}
SCHEMAS: Final = {"NotificationEvent": EVENT, "NotificationMessage": MESSAGE}


def webhooks() -> dict[str, Any]:
    """The `webhooks` member of the document: ``notification.<kind>`` → the POST that a receiver gets."""
    return {f"notification.{kind.value}": {"post": _post(kind)} for kind in NotificationKind}


def _post(kind: NotificationKind) -> dict[str, Any]:
    name = f"notification.{kind.value}"
    parameters = [
        {"name": header, "in": "header", "required": True, "description": text, "schema": {"type": "string", **schema}}
        for header, text, schema in HEADERS
    ]
    example = {**EXAMPLE, "type": name}
    typed = {"allOf": [{"$ref": "#/components/schemas/NotificationMessage"}, {"properties": {"type": {"const": name}}}]}
    return {
        "operationId": f"on_{kind.value}",
        "summary": f"{kind.label}.",
        "description": "Sent to the `webhook_url` of a notification rule of this kind, at least once: again after "
        "5 s, 30 s and so on for eight hours, until an answer is 2xx. 410 switches the webhook off.",
        "tags": ["notifications"],
        "security": [],
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": typed, **({"example": example} if kind == "failed" else {})}},
        },
        "responses": {
            "2XX": {"description": "It arrived."},
            "410": {"description": "Never send to this address again."},
            "default": {"description": "It is sent again later."},
        },
    }
