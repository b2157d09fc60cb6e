"""What a running step can ask of the engine: who am I, log, progress, snooze, am I still wanted."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NoReturn
from uuid import UUID

from django.conf import settings

from execution import engine, queue, step_notes
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MAX_LINE: Final = 4_000  # characters


class Snooze(Exception):
    """Raised by a step to be run again in `seconds`, without charging the attempt."""

    def __init__(self, seconds: float, reason: str = "snoozed") -> None:
        self.seconds = seconds
        super().__init__(reason)


class GiveUp(Exception):
    """Raised by a step that knows that no further attempt can help: it fails at once."""


class CancelAsked(Exception):
    """Raised by a step that is no longer wanted by itself: it ends as skipped, and what needs it goes on."""


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
    lines: int = field(default=0)
    redact: Callable[[str], str] = field(default=str)  # takes secret values out of whatever is kept

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Show how far this attempt has come (kept with the attempt); an absent Postgres does not disturb the step."""
        self.check()
        try:
            note = self.redact(note)[:500]
            step_notes.note_progress(self.token, {"done": done, "total": total, "note": note})
        except engine.DatabaseAway as error:
            log.warning("step.progress_not_kept", step_run_id=str(self.step_run_id), error=str(error))
            engine.close()

    def log(self, message: str, level: str = "info") -> None:
        """Keep a line with this attempt; an absent Postgres does not disturb the step.

        After ``WORKFLOW_LOG_LINES`` lines one says that no more are kept.

        Raises:
            ValueError: `level` is not debug, info, warning or error.
        """
        if level not in LOG_LEVELS:
            raise ValueError(f"{level!r} is not a level: {', '.join(LOG_LEVELS)}")
        self.lines += 1
        if self.lines > settings.WORKFLOW_LOG_LINES + 1:
            return
        if self.lines > settings.WORKFLOW_LOG_LINES:
            level, message = "warning", f"more than {settings.WORKFLOW_LOG_LINES} lines: the others are not kept"
        text = self.redact(str(message)).replace("\x00", "").encode("utf-8", "backslashreplace").decode()
        try:
            step_notes.keep_line(self.token, level=level, message=text[:MAX_LINE])
        except engine.DatabaseAway as error:
            log.warning("step.line_not_kept", step_run_id=str(self.step_run_id), error=str(error))
            engine.close()

    def heartbeat(self) -> None:
        """Renew the lease right now (a thread of the worker does so all the time).

        Raises:
            LeaseLost: somebody else decided about this step meanwhile.
        """
        self.check()
        try:
            if not queue.heartbeat(self.step_run_id, self.token, lease=settings.WORKFLOW_LEASE_SECONDS):
                self.lost = True
        except engine.DatabaseAway as error:
            log.warning("step.heartbeat_failed", step_run_id=str(self.step_run_id), error=str(error))
            engine.close()
        self.check()

    def snooze(self, seconds: float, reason: str = "snoozed") -> NoReturn:
        """End this attempt without charging it, and run the step again in `seconds`."""
        raise Snooze(seconds, reason)

    def cancel(self, reason: str = "the step asked to be cancelled") -> NoReturn:
        """End this step as skipped; what needs it goes on without its output."""
        raise CancelAsked(reason)

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
