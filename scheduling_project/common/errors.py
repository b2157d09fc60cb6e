"""Errors that people are meant to read. Each has a stable `code`; its docstring is the default message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

FieldErrors = Mapping[str, Sequence[str]]


class DomainError(Exception):
    """The request cannot be carried out."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 400

    def __init__(self, message: str | None = None, *, fields: FieldErrors | None = None, **extra: Any) -> None:
        """
        Args:
            message: what is wrong, for a person; the class's docstring when left out.
            fields: per field name (dotted path) what rule its value breaks.
            extra: further JSON-ready members for the problem document.
        """
        self.message = message or (self.__doc__ or "").strip().splitlines()[0]
        self.fields = dict(fields or {})
        self.extra = extra
        super().__init__(self.message)

    def __str__(self) -> str:
        if not self.fields:
            return self.message
        return f"{self.message} " + "; ".join(f"{name}: {' '.join(rules)}" for name, rules in self.fields.items())


class InvalidInput(DomainError):
    """Some values are not acceptable."""

    code = "invalid"


class NotFound(DomainError):
    """There is no such thing."""

    code = "not_found"
    status = 404


class Conflict(DomainError):
    """The present state does not allow this."""

    code = "conflict"
    status = 409


class StaleVersion(DomainError):
    """It was changed by somebody else in the meantime; read it again first."""

    code = "stale_version"
    status = 412


class Unavailable(DomainError):
    """A server that this needs is away; try again shortly."""

    code = "unavailable"
    status = 503
