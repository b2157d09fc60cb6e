"""The folder with everything that a local run keeps: servers' data, secrets, and who is running."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import time
from pathlib import Path

import psutil

from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
from scheduling_project.embedded.discovery import LOCK_FILE, SERVERS_FILE, withdraw
from scheduling_project.embedded.locks import FolderLock, FolderLocked
from scheduling_project.embedded.server import make_folder, write_private

SECRETS_FILE = "secrets.json"
IGNORE_FILE = ".gitignore"
#: Seconds a running ``up`` may take to stop before it is killed (it promises 10).
STOP_TIMEOUT = 15.0


class DataFolderError(RuntimeError):
    """The folder cannot be used; the message says what to do."""


class DataFolder:
    """``DATA_DIR``: used by one ``up`` at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = FolderLock(self.path / LOCK_FILE)

    def postgres(self) -> EmbeddedPostgres:
        """The embedded Postgres of this folder."""
        return EmbeddedPostgres(self.path / "postgres")

    def redis(self) -> EmbeddedRedis:
        """The embedded Redis of this folder."""
        return EmbeddedRedis(self.path / "redis")

    def take(self) -> None:
        """Make the folder where needed and take it for this process. Raises ``DataFolderError``."""
        try:
            make_folder(self.path)
            ignore = self.path / IGNORE_FILE
            if not ignore.exists():
                ignore.write_text("*\n")
            me = psutil.Process()
            self._lock.acquire(json.dumps({"pid": me.pid, "started": me.create_time()}))
        except FolderLocked as locked:
            raise DataFolderError(
                f"Another `up` (process {_pid(locked.holder)}) is running with {self.path}: "
                "stop it with `make stop`, or choose another DATA_DIR."
            ) from None
        except OSError as error:
            raise DataFolderError(f"Cannot write to {self.path} ({error.strerror}): set DATA_DIR.") from error

    def give_back(self) -> None:
        """Let another process take the folder."""
        withdraw(self.path)
        self._lock.release()

    def was_left_in_disorder(self) -> bool:
        """Say whether the last run was killed before it could clean up. Meaningful before the servers start."""
        return (self.path / SERVERS_FILE).exists()

    def secret(self, name: str) -> str:
        """Return a random secret of that name, the same one on every run with this folder."""
        file = self.path / SECRETS_FILE
        try:
            known = json.loads(file.read_text())
        except (FileNotFoundError, ValueError):
            known = {}
        if name not in known:
            known[name] = secrets.token_urlsafe(12)
            write_private(file, json.dumps(known, indent=1))
        return str(known[name])

    def stop_running(self) -> int | None:
        """Stop the ``up`` that holds the folder and return its process id; None when there is none.

        The kernel's lock proves that the process is the one that wrote its id into the lock file. Raises
        ``DataFolderError`` when that process belongs to somebody else.
        """
        holder = self._lock.holder()
        if holder is None:
            return None
        pid = _pid(holder)
        try:
            self._signal(holder, signal.SIGTERM)
            if not self._freed_within(STOP_TIMEOUT):
                self._signal(holder, signal.SIGKILL)  # the guards of its processes end them
                self._freed_within(STOP_TIMEOUT)
        except PermissionError:
            raise DataFolderError(f"Process {pid}, which runs with {self.path}, belongs to another user.") from None
        return pid

    def remove(self) -> list[Path]:
        """Delete what runs have put here, and nothing else. Returns what was deleted."""
        gone = [path for path in (self.path / "postgres", self.path / "redis") if path.exists()]
        self.postgres().remove()
        self.redis().remove()
        for name in (SECRETS_FILE, SERVERS_FILE, LOCK_FILE):
            if (self.path / name).exists():
                (self.path / name).unlink()
                gone.append(self.path / name)
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} <= {IGNORE_FILE, "static"}:
            shutil.rmtree(self.path)
        return gone

    def _freed_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._lock.holder() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _signal(self, holder: str, number: signal.Signals) -> None:
        """Signal the process that holds the lock, unless its id has passed to another one meanwhile."""
        try:
            process = psutil.Process(_pid(holder))
            if abs(process.create_time() - json.loads(holder)["started"]) < 1:
                os.kill(process.pid, number)
        except (psutil.NoSuchProcess, ProcessLookupError, KeyError):
            return


def _pid(holder: str) -> int:
    """Return the process id out of the note in the lock file; 0 when it is unreadable."""
    try:
        return int(json.loads(holder)["pid"])
    except (ValueError, KeyError, TypeError):
        return 0
