"""What an import did or would do, row by row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.db import models


class Outcome(models.TextChoices):
    """What became of a row."""

    TRANSLATED = "translated", "Translated"
    NOTED = "noted", "Translated with a note"
    REFUSED = "refused", "Could not be translated"


class Action(models.TextChoices):
    """What was done, or in a dry run would be done, to a schedule."""

    CREATED = "created", "Created"
    UPDATED = "updated", "Updated"
    UNCHANGED = "unchanged", "As it should be"
    NONE = "none", "Nothing"


@dataclass(slots=True)
class Row:
    """One row of the source: where it stands, what it was, and the schedule that it means.

    Args:
        source: where it stands, for a person: ``line 7``, ``PeriodicTask 12``.
        values: what `schedules.lifecycle.upsert` takes; empty when refused.
        task: the task of the one-step workflow that it needs, with the names of its arguments; none: `values` names
            a workflow.
        reason: why it could not be translated.
        notes: what is not quite the same.
    """

    source: str
    text: str
    name: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    task: tuple[str, tuple[str, ...]] | None = None
    enabled: bool = True
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    action: str = Action.NONE.value
    schedule_id: str | None = None
    workflow: str = ""

    @property
    def outcome(self) -> str:
        """One of `Outcome`."""
        if self.reason:
            return Outcome.REFUSED.value
        return (Outcome.NOTED if self.notes else Outcome.TRANSLATED).value

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "source": self.source,
            "text": self.text,
            "outcome": self.outcome,
            "action": self.action,
            "name": self.name,
            "workflow": self.workflow,
            "schedule": self.schedule_id,
            "spec": self.values.get("spec"),
            "notes": self.notes,
            "reason": self.reason,
        }


@dataclass(slots=True)
class Report:
    """All rows, and what of the whole source has no counterpart."""

    dry_run: bool
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with counts by outcome and by action."""
        outcomes, actions = Counter(row.outcome for row in self.rows), Counter(row.action for row in self.rows)
        return {
            "dry_run": self.dry_run,
            "outcomes": {name: outcomes[name] for name in Outcome.values},
            "actions": {name: actions[name] for name in Action.values},
            "notes": self.notes,
            "rows": [row.as_dict() for row in self.rows],
        }
