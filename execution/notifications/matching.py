"""Which rules fit what has happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from execution import engine
from execution.models import NotificationRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the filters of a rule are held against. None: not known, so that a filter on it does not fit."""

    workflow_id: UUID | None = None
    schedule: tuple[str, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)
    queue: str = ""


def fits(rule: NotificationRule, facts: Facts) -> bool:
    """Whether every filter of a rule fits. Pure."""
    return (
        (rule.workflow_id is None or rule.workflow_id == facts.workflow_id)
        and (not rule.schedule or rule.schedule in facts.schedule)
        and all(facts.labels.get(name) == value for name, value in rule.labels.items())
        and (not rule.queue or rule.queue == facts.queue)
    )


def of_kinds(kinds: Sequence[str], *, using: str | None = None) -> list[NotificationRule]:
    """The rules in force that look for any of `kinds`."""
    rules = NotificationRule.objects.using(using or engine.alias()).filter(enabled=True, kind__in=kinds)
    return list(rules.order_by("id"))
