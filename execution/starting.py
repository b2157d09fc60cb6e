"""Starting an execution because somebody asked for it: once per idempotency key, of one workflow only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from execution import creation
from execution.models import Execution, Workflow
from scheduling_project.common.errors import Conflict


def start_once(workflow: Workflow, values: Mapping[str, Any], *, actor: str) -> tuple[Execution, bool]:
    """Start a workflow's published version; also whether it was started now, not earlier with the same key.

    Args:
        values: what `creation.start` takes besides the source; None was not given.

    Raises:
        Conflict: the key belongs to an execution of another workflow, or nothing is published.
        InvalidInput: the input does not satisfy the workflow's schema, or is too large.
    """
    given = {name: value for name, value in values.items() if value is not None}
    found = _of_key(given.get("idempotency_key"))
    is_new = found is None
    if found is None:
        creation.check_size(given.get("input", {}), field_name="input")
        # Somebody may use the key between the look and the start; then theirs is the answer.
        found = creation.start(workflow, source=creation.Source("api", label=actor), **given)
    if found.workflow_id != workflow.pk:
        raise Conflict(
            "The idempotency key belongs to an execution of another workflow.",
            fields={"idempotency_key": ["is already used"]},
        )
    return found, is_new


def _of_key(key: str | None) -> Execution | None:
    return None if not key else Execution.objects.filter(idempotency_key=key).first()
