"""Step tasks of the drills. Their effects are lines in a file outside the system, which nothing rolls back."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject, WorkerShutdown
from django.db import connections

from execution.step_tasks import step_task
from execution.steps.context import Snooze, current


class Flaky(Exception):
    """Fails on purpose, and may be retried."""


class Poisoned(Exception):
    """Fails on purpose, for good."""


class Unspeakable(Exception):
    """An error that cannot even be written down."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def _nested(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


#: Outputs that are no JSON, or that Postgres cannot keep.
NO_JSON: dict[str, Callable[[], Any]] = {
    "generator": lambda: (number for number in range(3)),
    "bytes": lambda: b"\xff\x00",
    "deep": lambda: _nested(100_000),
    "nul": lambda: {"text": "a\x00b"},
    "surrogate": lambda: "\ud800",
    "big number": lambda: 10**5_000,
    "keys": lambda: {(1, 2): 3},
}


def note(path: str, event: str) -> None:
    """Append one line to the effects file; a short O_APPEND write is atomic."""
    context = current()
    line = {
        "event": event,
        "key": context.idempotency_key if context else "",
        "attempt": context.attempt if context else 0,
        "pid": os.getpid(),
        "at": time.time(),
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


@step_task(name="drill.effect")
def effect(path: str, seconds: float = 0.0) -> dict[str, Any]:
    """Note that it began, work for some seconds, note that it ended."""
    note(path, "begin")
    time.sleep(seconds)
    note(path, "end")
    context = current()
    return {"pid": os.getpid(), "attempt": context.attempt if context else 0}


@step_task(name="drill.fail")
def fail(path: str, seconds: float = 0.0) -> None:
    """Note that it began, work for some seconds, and fail for good."""
    note(path, "begin")
    time.sleep(seconds)
    note(path, "failed")
    raise Poisoned("fails on purpose")


@step_task(name="drill.tidy")
def tidy(path: str, seconds: float) -> None:
    """Note that it began, work for some seconds, and whatever happens note that it tidied up.

    It works in small pieces: news reach a step only between two of its own instructions, never in a long sleep.
    """
    note(path, "begin")
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            time.sleep(0.05)
    finally:
        note(path, "tidied up")


@step_task(
    name="drill.flaky",
    bind=True,
    autoretry_for=(Flaky,),
    retry_backoff=1,
    retry_backoff_max=2,
    retry_jitter=False,
    max_retries=3,
)
def flaky(self: Task[Any, Any], path: str, failures: int = 1) -> int:
    """Fail the first times, then note the effect."""
    if self.request.retries < failures:
        raise Flaky(f"attempt {self.request.retries + 1} fails on purpose")
    note(path, "end")
    return int(self.request.retries)


@step_task(name="drill.ask_again", bind=True, max_retries=5)
def ask_again(self: Task[Any, Any], countdown: float = 1.0, times: int = 1) -> int:
    """Ask for a retry with `self.retry(countdown=…)`, then succeed."""
    if self.request.retries < times:
        raise self.retry(exc=Flaky("not yet"), countdown=countdown)
    return int(self.request.retries)


@step_task(name="drill.until_mended")
def until_mended(path: str, mended: str) -> str:
    """Fail for good until the file `mended` is there, then note the effect."""
    if not os.path.exists(mended):
        raise Poisoned("not mended yet")
    note(path, "end")
    return "mended"


@step_task(name="drill.use_secret")
def use_secret(token: str, path: str) -> dict[str, Any]:
    """Prove, outside the system, that the value came; then give it away in every way that a careless step may."""
    Path(path).write_text(hashlib.sha256(token.encode()).hexdigest())
    context = current()
    if context is not None:
        context.log(f"signed in with {token}")
    raise Poisoned(f"the other side refused {token}")


@step_task(name="drill.eat_memory")
def eat_memory(megabytes: int, seconds: float = 20) -> None:
    """Take so much memory and hold it."""
    held = bytearray(os.urandom(1_000)) * (megabytes * 1_000)
    time.sleep(seconds)
    del held


@step_task(name="drill.misbehave")
def misbehave(how: str, path: str = "") -> Any:
    """Do what no task should: each way must leave a clear record and a living worker."""
    match how:
        case "poisoned":
            raise Poisoned("fails for good")
        case "ignore":
            raise Ignore("nothing to do")
        case "reject":
            raise Reject("not for me", requeue=False)
        case "requeue":
            context = current()
            if context is not None and context.attempt == 1:
                raise Reject("later", requeue=True)
        case "snooze":
            context = current()
            if context is not None and context.attempt == 1:
                raise Snooze(0.5, "the gate is closed")
        case "exit":
            raise SystemExit(3)
        case "memory":
            raise MemoryError("no more")
        case "base":
            raise BaseException("very basic")
        case "unpicklable":
            error = Poisoned("holds a lock")
            error.lock = open(os.devnull)  # type: ignore[attr-defined]  # noqa: SIM115
            raise error
        case "not json":
            return {"a": object()}
        case "nan":
            return float("nan")
        case "huge":
            return "x" * 50_000_000
        case "recursion":
            loop: list[Any] = []
            loop.append(loop)
            return loop
        case "deep recursion":
            return misbehave.run(how, path)
        case "keyboard":
            raise KeyboardInterrupt
        case "shutdown":
            raise WorkerShutdown("the step wants the worker to end")
        case "group":
            raise ExceptionGroup("several", [Poisoned("one"), ValueError("two")])
        case "unspeakable":
            raise Unspeakable
        case "closes the database":
            connections.close_all()
        case "gone once":
            context = current()
            if context is not None and context.attempt == 1:
                os._exit(1)
        case _ if how in NO_JSON:
            return NO_JSON[how]()
        case "forever":
            while True:
                try:
                    time.sleep(60)
                except BaseException as refused:  # noqa: BLE001 - only the hard limit ends it
                    del refused
        case "kill":
            note(path, "begin")
            os.kill(os.getpid(), 9)
        case "kill once":
            context = current()
            if context is not None and context.attempt == 1:
                os.kill(os.getpid(), 9)
    return how
