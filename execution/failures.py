"""What went wrong, as a value: any exception a step raises, read once and classified by `execution.retry`. Pure."""

from __future__ import annotations

import signal
import traceback as tracebacks
from typing import TypeGuard

import httpx
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from execution.limits import MemoryLimitExceeded
from execution.retry import Failure
from execution.step_tasks import path_of
from execution.steps.context import CancelAsked, GiveUp, Snooze
from execution.steps.http import HttpError
from execution.steps.task_request import RetryAsked

MAX_TEXT = 20_000  # characters of a message or traceback that are kept
MAX_NAME = 300  # characters of a class path


def failure_of(error: BaseException) -> Failure:
    """The names a policy can know the error by, and what its raiser asked for."""
    if isinstance(error, Snooze):
        return Failure(("snooze",), message_of(error), retry_after=_seconds(error.seconds), asked="snooze")
    if isinstance(error, RetryAsked):
        cause = shown(error)
        return Failure(
            class_names(cause),
            message_of(cause),
            retry_after=error.delay,
            asked="retry",
            max_attempts=error.max_attempts,
            task_attempts=error.task_attempts,
        )
    if isinstance(error, Reject):
        requeue = bool(getattr(error, "requeue", False))
        return Failure(
            class_names(error),
            message_of(error),
            retry_after=0.0 if requeue else None,
            asked="snooze" if requeue else "fail",
        )
    if isinstance(error, Ignore | CancelAsked):
        return Failure(class_names(error), message_of(error), asked="ignore")
    if isinstance(error, GiveUp):
        return Failure(class_names(error), message_of(error), asked="fail")
    if isinstance(error, HttpError):
        names = (str(error.status), f"{error.status // 100}xx", *class_names(error))
        return Failure(names, message_of(error), retry_after=error.retry_after)
    names = class_names(error)
    if isinstance(error, SoftTimeLimitExceeded | TimeoutError | httpx.TimeoutException):
        names = ("timeout", *names)
    if isinstance(error, MemoryLimitExceeded | MemoryError):
        names = ("memory", *names)
    if isinstance(error, ConnectionError | httpx.TransportError):
        names = ("connection", *names)
    return Failure(names, message_of(error))


def ends_process(error: BaseException | None) -> TypeGuard[SystemExit]:
    """Whether a signal told this pool process to end, which is no failure of the step that it interrupted.

    Billiard's handler raises ``SystemExit(-(256 - signal number))``; a step's own `SystemExit` has another code.
    """
    return isinstance(error, SystemExit) and isinstance(error.code, int) and -256 < error.code <= -(256 - signal.NSIG)


def class_names(error: BaseException) -> tuple[str, ...]:
    """The class paths of an error, its own first, as `retry_on` may list them."""
    return tuple(storable(path_of(cls))[:MAX_NAME] for cls in type(error).__mro__ if issubclass(cls, BaseException))


def shown(error: BaseException) -> BaseException:
    """The error that people are to see: behind `self.retry(exc=…)` that is the one it was called for."""
    return error.cause if isinstance(error, RetryAsked) and error.cause is not None else error


def _seconds(asked: object) -> float:
    return float(asked) if isinstance(asked, int | float) else 0.0


def message_of(error: BaseException) -> str:
    """The error's text; other people's ``__str__`` may itself fail, and NUL cannot be stored."""
    try:
        text = str(error)
    except BaseException as broken:  # noqa: BLE001 - an error class is other people's code, and may even exit
        text = f"<its __str__ raised {type(broken).__name__}>"
    return storable(text)


def traceback_of(error: BaseException) -> str:
    """The traceback as text, its end kept when it is too long."""
    try:
        lines = tracebacks.format_exception(error, limit=-50)
    except BaseException as broken:  # noqa: BLE001 - formatting calls the error's own methods
        lines = [f"<its traceback could not be formatted: {type(broken).__name__}>"]
    return storable("".join(lines))


def storable(text: str) -> str:
    """Text that Postgres can hold: no NUL, no lone surrogates, bounded."""
    clean = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= MAX_TEXT else "…" + clean[-MAX_TEXT:]
