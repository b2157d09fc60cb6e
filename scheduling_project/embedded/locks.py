"""A lock on a folder that the system gives back by itself when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FolderLocked(RuntimeError):
    """Another process holds the lock; ``holder`` is what it wrote into it (its process id, usually)."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder or 'another process'}")
        self.path = path
        self.holder = holder


class FolderLock:
    """An exclusive ``flock`` on a file. The file stays; only the lock matters, so a stale file is harmless."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, note: str | None = None) -> FolderLock:
        """Take the lock and write ``note`` (default: our process id) into the file. Raises ``FolderLocked``."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 4096).decode(errors="replace").strip()
            os.close(descriptor)
            raise FolderLocked(self.path, holder) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (note or str(os.getpid())).encode(), 0)
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Give the lock back; safe to call again."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> str | None:
        """Return the note of whoever holds the lock now, or None when nobody does."""
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(descriptor, 4096).decode(errors="replace").strip()
        else:
            return None
        finally:
            os.close(descriptor)
