"""A postprocessing hook of drf-spectacular: examples of requests and of errors, and the webhooks that we send."""

from __future__ import annotations

from typing import Any, Final

from scheduling_project.api_description import examples, webhooks
from scheduling_project.common.problems import MEDIA_TYPE, problem

#: What an error of a status looks like.
PROBLEMS: Final[dict[str, dict[str, Any]]] = {
    "400": problem(
        400,
        "invalid",
        "Some values are not acceptable.",
        errors={"name": ["This field is required."], "priorty": ["is not a known field"]},
    ),
    "401": problem(401, "not_authenticated", "Authentication credentials were not provided."),
    "403": problem(
        403,
        "permission_denied",
        "This needs the permission execution.run_workflow.",
        permission="execution.run_workflow",
    ),
    "404": problem(404, "not_found", "There is no such thing."),
    "409": problem(409, "conflict", "The present state does not allow this."),
    "412": problem(
        412, "stale_version", "It was changed by somebody else in the meantime; read it again first.", etag='"4"'
    ),
    "415": problem(415, "unsupported_media_type", 'Unsupported media type "text/plain" in request.'),
    "422": problem(422, "idempotency_key_reused", "This Idempotency-Key was used for another request."),
    "429": problem(429, "throttled", "Request was throttled. Expected available in 2 seconds."),
    "503": problem(503, "unavailable", "The database is away or busy; try again shortly."),
}


def describe(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Add what the operations do not say themselves. Called after `common.openapi.describe_errors`."""
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            _show_request(operation, f"{method.upper()} {path}")
            _show_problems(operation)
    result["webhooks"] = webhooks.webhooks()
    result["components"]["schemas"].update(webhooks.SCHEMAS)
    names = result["components"].setdefault("examples", {})
    names.update({f"Problem{status}": {"value": value} for status, value in PROBLEMS.items()})
    return result


def _show_request(operation: dict[str, Any], name: str) -> None:
    content = operation.get("requestBody", {}).get("content", {})
    if name in examples.REQUESTS:
        for media in content.values():
            media["example"] = examples.REQUESTS[name]


def _show_problems(operation: dict[str, Any]) -> None:
    for status, answer in operation["responses"].items():
        media = answer.get("content", {}).get(MEDIA_TYPE)
        if media is not None and status in PROBLEMS:
            media["examples"] = {PROBLEMS[status]["code"]: {"$ref": f"#/components/examples/Problem{status}"}}
