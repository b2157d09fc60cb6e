"""What a running step can ask of the engine: who am I, log, progress, snooze, am I still wanted."""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from execution import engine, queue
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)


class Snooze(Exception):
    """Raised by a step to be run again in `seconds`, without charging the attempt."""

    def __init__(self, seconds: float, reason: str = "snoozed") -> None:
        self.seconds = seconds
        super().__init__(reason)


class GiveUp(Exception):
    """Raised by a step that knows that no further attempt can help: it fails at once."""


class LeaseLost(BaseException):
    """This attempt no longer holds its step run: cancelled, rescued, or finished by hand."""


@dataclass(slots=True)
class StepContext:
    """The running attempt, for step code: ``execution.steps.context.current()``."""

    step_run_id: UUID
    execution_id: UUID
    name: str
    label: str
    attempt: int
    idempotency_key: str
    scheduled_for: datetime | None
    token: UUID
    lost: bool = field(default=False)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Show how far this attempt has come (kept with the attempt); an absent Postgres does not disturb the step."""
        self.check()
        try:
            queue.note_progress(self.token, {"done": done, "total": total, "note": note[:500]})
        except engine.DatabaseAway as error:
            log.warning("step.progress_not_kept", step_run_id=str(self.step_run_id), error=str(error))
            engine.close()

    def check(self) -> None:
        """Raise `LeaseLost` once the engine has learned that this attempt's outcome is no longer wanted."""
        if self.lost:
            raise LeaseLost(f"{self.label} is no longer held by this attempt")


_current: ContextVar[StepContext | None] = ContextVar("workflow_step", default=None)


def current() -> StepContext | None:
    """The attempt that this code runs in; None outside a step."""
    return _current.get()


def enter(context: StepContext) -> Token[StepContext | None]:
    """Make `context` current; give the result to `leave`."""
    return _current.set(context)


def leave(mark: Token[StepContext | None]) -> None:
    """Make current again what was before `enter`."""
    _current.reset(mark)
