"""Start the tests' own Postgres and Redis, early.

pytest-django reads the settings before any ``conftest.py`` is loaded, so the servers' URLs must be in the
environment by then: this plugin is named with ``-p`` in the configuration and starts both servers before
everything else.

- ``TEST_DATABASE_URL`` and ``TEST_REDIS_URL`` name servers to use instead. ``DATABASE_URL`` and ``REDIS_URL``
  are never used for tests: they may name something that matters.
- Under pytest-xdist the main process starts the servers once; each worker gets a Redis database of its own,
  and pytest-django gives it a Postgres database of its own.
- The data live in a temporary folder that is removed at the end. What a killed run left there, the next run
  removes.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
from scheduling_project.embedded.locks import FolderLock, FolderLocked

FOLDER_PREFIX = f"scheduling-tests-{os.getuid()}-"
WORKER_VARIABLE = "PYTEST_XDIST_WORKER"
#: Options with which pytest only prints something.
TALK_ONLY = {"--help", "-h", "--version", "-V"}


class TestServers:
    """The servers of one test run and the folder that holds their data."""

    __test__ = False

    def __init__(self) -> None:
        remove_leftovers()
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        # Passed through by the account that Postgres runs as when the tests run as root.
        self.folder.chmod(0o711)
        self.lock = FolderLock(self.folder / "lock").acquire()
        self.postgres = EmbeddedPostgres(self.folder / "postgres", durable=False)
        self.redis = EmbeddedRedis(self.folder / "redis", durable=False)

    def start(self) -> None:
        """Start what is not given from outside and put the URLs into the environment."""
        os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL") or self.postgres.start()
        os.environ["REDIS_URL"] = os.environ.get("TEST_REDIS_URL") or self.redis.start()

    def stop(self) -> None:
        """Stop the servers and remove their data."""
        self.redis.stop()
        self.postgres.stop()
        self.postgres.remove()
        self.lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the folders of test runs that were killed: those whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        try:
            lock = FolderLock(folder / "lock").acquire()
        except (FolderLocked, OSError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def redis_url_of_worker(url: str, worker: str) -> str:
    """Return the URL of the worker's own Redis database.

    >>> redis_url_of_worker("redis://localhost:6379/0", "gw2")
    'redis://localhost:6379/3'
    """
    number = int(re.sub(r"\D", "", worker) or 0) + 1
    return re.sub(r"/\d+$", "", url.rstrip("/")) + f"/{number}"


servers: TestServers | None = None


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, object, object]:
    """Start the servers; as a wrapper this runs before pytest-django's hook, which reads the settings."""
    global servers
    worker = os.environ.get(WORKER_VARIABLE)
    if worker:
        os.environ["REDIS_URL"] = redis_url_of_worker(os.environ["REDIS_URL"], worker)
    elif not TALK_ONLY & set(args):
        servers = TestServers()
        try:
            servers.start()
        except BaseException:
            servers.stop()
            raise
    return (yield)


def pytest_report_header() -> list[str]:
    """Say which servers the tests use."""
    if servers is None:
        return []
    return [f"servers: Postgres and Redis of this run in {servers.folder}"]


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Stop the servers at the very end."""
    global servers
    if servers is not None:
        servers.stop()
        servers = None
