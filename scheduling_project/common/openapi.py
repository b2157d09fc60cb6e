"""What the OpenAPI document says of every operation alike: how errors look, and the headers that all understand."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

from scheduling_project.common.permissions import MayDoIt, permission_of
from scheduling_project.common.preconditions import Preconditions
from scheduling_project.common.problems import MEDIA_TYPE
from scheduling_project.common.queries import members_of

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "An error (RFC 9457). `code` is stable; `errors` are rules per dotted field path.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "examples": ["invalid", "not_found", "conflict", "stale_version", "unavailable"]},
        "detail": {"type": "string"},
        "errors": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
    },
    "additionalProperties": True,
}
FIELDS: Final = OpenApiParameter("fields", str, description="Only these members of the answer, separated by commas.")
IF_MATCH: Final[dict[str, Any]] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that was read; another revision is refused with 412.",
    "schema": {"type": "string"},
}
ETAG: Final[dict[str, Any]] = {
    "description": "Names the state that is shown; send it back as `If-Match`.",
    "schema": {"type": "string"},
}
#: Error statuses that can come from anywhere, by HTTP method.
COMMON: Final = {400: "Bad request", 401: "Not authenticated", 403: "Not allowed", 404: "Not found"}
OF_CHANGES: Final = {409: "The present state does not allow it", 415: "Not JSON", 422: "Idempotency-Key reused"}


class Operations(AutoSchema):
    """Operations that tell which permission they need, as ``x-permission``, and that answer with some members."""

    def get_override_parameters(self) -> list[Any]:
        parameters = list(super().get_override_parameters())
        doing = getattr(self.view, getattr(self.view, "action", None) or "", None)
        parameters += getattr(doing, "described_by", [])  # what a decorator of the method reads
        if self.method == "GET" and members_of(self):
            parameters.append(FIELDS)
        return parameters

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        operation = super().get_operation(*args, **kwargs)
        if operation is not None and any(isinstance(rule, MayDoIt) for rule in self.view.get_permissions()):
            needed = permission_of(self.view, self.method)
            if needed is not None:
                operation["x-permission"] = needed
        if operation is not None and isinstance(self.view, Preconditions):
            self._describe_tags(operation, self.view)
        return operation

    def _describe_tags(self, operation: dict[str, Any], view: Preconditions) -> None:
        """`If-Match` where it counts, and the `ETag` of answers that show the resource."""
        if view.is_guarded(self.method):
            operation.setdefault("parameters", []).append(IF_MATCH)
            operation["responses"]["412"] = _problem("Changed by somebody else in the meantime")
        if view.tagged and set(view.tag_names()) <= members_of(self):
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    answer["headers"] = {**answer.get("headers", {}), "ETag": ETAG}


def describe_errors(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Add problem documents and common headers to every operation (a drf-spectacular postprocessing hook)."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    for name, component in result["components"]["schemas"].items():
        if name.endswith("Request") and "properties" in component:
            component.setdefault("additionalProperties", False)  # `StrictSerializer` refuses what it does not know
    result["paths"] = {path.rstrip("/"): operations for path, operations in result.get("paths", {}).items()}
    for operations in result["paths"].values():
        for method, operation in operations.items():
            _add_errors(operation, method)
    return result


def _add_errors(operation: dict[str, Any], method: str) -> None:
    errors = COMMON if method == "get" else COMMON | OF_CHANGES
    for status, description in (errors | {429: "Too many requests", 503: "The database is away"}).items():
        operation["responses"].setdefault(str(status), _problem(description))


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
