"""The audit trail: who did what to what. Written in the transaction of the deed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from execution import live
from execution.models import AuditEntry


def record(
    *,
    actor: str,
    action: str,
    subject_kind: str,
    subject_id: object,
    subject_label: str = "",
    changes: Mapping[str, Any] | None = None,
    note: str = "",
    using: str = "default",
) -> AuditEntry:
    """Add one entry, and tell who watches its subject.

    Args:
        actor: a user name, ``key:<prefix>``, or ``system``.
        action: ``<subject kind>.<verb>``, such as ``execution.cancel``.
        changes: per field its values before and after (`difference` makes it).
    """
    if subject_kind in live.SUBJECTS:
        live.announce(live.SUBJECTS[subject_kind], [subject_id], using=using)
    return AuditEntry.objects.using(using).create(
        actor=actor[:200],
        action=action[:60],
        subject_kind=subject_kind[:40],
        subject_id=str(subject_id)[:100],
        subject_label=subject_label[:200],
        note=note[:500],
        changes=dict(changes or {}),
    )


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The members that differ, each with its value before and after (None where there was or is none).

    >>> difference({"a": 1, "b": 2}, {"a": 1, "b": 3})
    {'b': {'before': 2, 'after': 3}}
    """
    names = list(dict.fromkeys([*before, *after]))
    return {
        name: {"before": before.get(name), "after": after.get(name)}
        for name in names
        if (name in before, before.get(name)) != (name in after, after.get(name))
    }
