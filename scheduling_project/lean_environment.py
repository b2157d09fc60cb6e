"""The environment for a beat: read and checked by a child process, so that what checks it weighs nothing here.

The library that types and checks the settings is 9 MB, of which a process that runs for months uses none after its
first second. A forked child loads it, reads, and hands the values over a pipe.
"""

from __future__ import annotations

import os
import pickle
import sys
from types import SimpleNamespace
from typing import Any


def read() -> Any:
    """The values of `environment.Environment`, by name.

    Raises:
        SystemExit: the environment cannot be used; the child has said why.
    """
    reader, writer = os.pipe()
    child = os.fork()  # at the start of the process: nothing of it runs yet beside this thread
    if child == 0:
        _hand_over(reader, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(1)
    values: dict[str, Any] = pickle.loads(text)  # noqa: S301 - our own child wrote it
    return SimpleNamespace(**values)


def _hand_over(reader: int, writer: int) -> None:
    """The child's life: read, write, and end without anything of the parent's being ended."""
    status = 1
    try:
        os.close(reader)
        from scheduling_project.environment import Environment

        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(Environment.read().model_dump(), pipe)
        status = 0
    except SystemExit as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)
