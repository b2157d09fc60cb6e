"""What an examination found, how bad it is, and what to do about it."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any


class Severity(enum.StrEnum):
    """How bad it is. The exit code of the doctor is that of the worst finding."""

    OK = "ok"
    HINT = "hint"
    WARNING = "warning"
    ERROR = "error"

    @property
    def exit_code(self) -> int:
        """0 all is well (or could be better), 1 look at it today, 2 work is held up or in danger now."""
        return {"ok": 0, "hint": 0, "warning": 1, "error": 2}[self.value]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `todo` is empty where nothing is to be done."""

    check: str
    severity: Severity
    message: str
    todo: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ok(check: str, message: str) -> Finding:
    return Finding(check, Severity.OK, message)


def hint(check: str, message: str, todo: str) -> Finding:
    return Finding(check, Severity.HINT, message, todo)


def warning(check: str, message: str, todo: str) -> Finding:
    return Finding(check, Severity.WARNING, message, todo)


def error(check: str, message: str, todo: str) -> Finding:
    return Finding(check, Severity.ERROR, message, todo)
