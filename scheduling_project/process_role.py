"""What kind of process this is, from its command line: a beat does without what pages, workers and the CLI need.

The ``celery`` command loads all of its subcommands, Flower and its interactive shell among them, before it looks at
which one is wanted: 35 MB and a second that a beat never uses. The app therefore replaces such a process, before it
has loaded anything of its own, by one that loads `scheduling_project.lean_beat` alone (`lean_command`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

#: The module that runs a beat without the rest of Celery's command line.
LEAN_BEAT = "scheduling_project.lean_beat"
#: The Celery app of this project, as ``-A`` may name it.
APPS = ("scheduling_project", "scheduling_project.celery", "scheduling_project.celery:app")
#: Celery's options that take a value and may stand before the name of its command.
_WITH_VALUE = frozenset({"-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir"})
#: Options of the ``celery`` command that `lean_beat` understands too; with others the process stays as it is.
_FLAGS = frozenset({"-q", "--quiet", "-C", "--no-color", "--skip-checks"})


def is_beat(argv: Sequence[str]) -> bool:
    """Whether the command line is ``celery … beat`` (also ``python -m celery``), whatever its options.

    A worker with an embedded beat (``worker -B``) is a worker.

    >>> is_beat(["/usr/bin/celery", "-A", "scheduling_project", "beat", "-l", "info"])
    True
    >>> is_beat(["celery", "--app", "beat", "worker"])
    False
    """
    if not argv or not (_is_celery(argv[0]) or _is_lean(argv[0])):
        return False
    rest = iter(argv[1:])
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif not word.startswith("-"):
            return word == "beat"
    return False


def lean_command(argv: Sequence[str], original: Sequence[str]) -> list[str] | None:
    """The interpreter's arguments for the lean form of this process; None where it is to stay as it is.

    It stays when it is no beat of this project's app, already lean, given a global option that the lean form does not
    know, or started through another program (a debugger, coverage).

    Args:
        argv: `sys.argv`.
        original: `sys.orig_argv`, the interpreter and its own options included.

    >>> lean_command(["/v/bin/celery", "-A", "scheduling_project", "beat"],
    ...              ["python", "-u", "/v/bin/celery", "-A", "scheduling_project", "beat"])
    ['-u', '-m', 'scheduling_project.lean_beat', '-A', 'scheduling_project', 'beat']
    """
    if not is_beat(argv) or _is_lean(argv[0]) or "--help" in argv or global_options(argv) is None:
        return None
    options = list(original[1 : len(original) - len(argv) + 1])
    program = options.pop() if options else ""
    if program == "celery" and options and options[-1] == "-m":
        options.pop()
    elif not _is_celery(program):
        return None
    if any(not option.startswith("-") or option.startswith(("-I", "-P")) for option in options):
        return None
    return [*options, "-m", LEAN_BEAT, *argv[1:]]


def global_options(argv: Sequence[str]) -> tuple[frozenset[str], list[str]] | None:
    """The flags before ``beat`` and the words after it; None for an option unknown here or another app.

    >>> global_options(["celery", "-q", "--app=scheduling_project", "beat", "-l", "info"])
    (frozenset({'-q'}), ['-l', 'info'])
    """
    flags: set[str] = set()
    app = ""
    words = iter(argv[1:])
    for word in words:
        if word == "beat":
            return (frozenset(flags), list(words)) if app in APPS else None
        if word in ("-A", "--app"):
            app = next(words, "")
        elif word.startswith("--app="):
            app = word.removeprefix("--app=")
        elif word in _FLAGS:
            flags.add(word)
        else:
            return None
    return None


def _is_celery(program: str) -> bool:
    path = PurePath(program)
    return path.name == "celery" or path.parts[-2:] == ("celery", "__main__.py")


def is_lean(argv: Sequence[str]) -> bool:
    """Whether the command line is that of `LEAN_BEAT` itself."""
    return bool(argv) and _is_lean(argv[0])


def _is_lean(program: str) -> bool:
    return PurePath(program).parts[-2:] == ("scheduling_project", "lean_beat.py")
