"""The shapes that every verb takes: why, for those who look later."""

from __future__ import annotations

from typing import Any

from scheduling_project.common.api import StrictSerializer
from scheduling_project.common.fields import TextField

READ: dict[str, Any] = {"read_only": True}


class NoteSerializer(StrictSerializer):
    """Why, for the audit trail."""

    note = TextField(required=False, allow_blank=True, max_length=500, default="")


class ReasonSerializer(StrictSerializer):
    """Why, for those who look later."""

    reason = TextField(required=False, allow_blank=True, max_length=400, default="")
