"""Running management commands in tests: their output, what they print for programs, and their exit codes."""

from __future__ import annotations

import json
import sys
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command


def run(*arguments: Any) -> str:
    """What the command prints."""
    out = StringIO()
    call_command(*map(str, arguments), stdout=out, stderr=StringIO())
    return out.getvalue()


def read(*arguments: Any) -> Any:
    """What the command prints with ``--json``."""
    return json.loads(run(*arguments, "--json"))


def ends(*arguments: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that ends by itself."""
    out, err = StringIO(), StringIO()
    try:
        call_command(*map(str, arguments), stdout=out, stderr=err)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    except CommandError as error:
        return error.returncode, out.getvalue(), f"{err.getvalue()}{error}"
    return 0, out.getvalue(), err.getvalue()


def given(monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """Put a text on the standard input; returns the argument that names it."""
    monkeypatch.setattr(sys, "stdin", StringIO(text))
    return "-"
