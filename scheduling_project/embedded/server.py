"""What the embedded servers have in common: one folder, one lock, one log, one guarded process, one proven
answer."""

from __future__ import annotations

import abc
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from scheduling_project.embedded.account import Account
from scheduling_project.embedded.errors import EmbeddedServerError
from scheduling_project.embedded.locks import FolderLock, FolderLocked
from scheduling_project.embedded.ports import free_port
from scheduling_project.supervisor.process import CannotStart, GuardedProcess

#: Seconds a server may take until it answers (a crash recovery is part of it).
READY_TIMEOUT = 60.0
#: How often a server that ended for a passing reason (its port was taken meanwhile) is started anew.
START_ATTEMPTS = 5
LOG_LIMIT = 5_000_000
PASSING_REASONS = ("Address already in use", "could not bind", "still in use")


class NotReadyYet(Exception):
    """The server does not answer yet; ask again."""


def make_folder(path: Path, mode: int | None = None) -> Path:
    """Make a folder for us alone and return it; a folder that exists is left as it is.

    As root the folder may be passed through (not listed) by others, for the account that Postgres runs as.
    """
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            path.chmod(mode if mode is not None else 0o711 if os.geteuid() == 0 else 0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def last_lines(path: Path, count: int = 15, since: int = 0) -> list[str]:
    """Return the last lines of a log after byte ``since``, or none when there is no such file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since, end - 65536))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


class EmbeddedServer(abc.ABC):
    """A server of our own in a folder of its own.

    ``start()`` recovers from whatever an earlier run left behind and returns the URL of a server that has
    proven to be the one we started; ``stop()`` ends it and keeps the data. When this process dies, the
    server ends too.
    """

    #: The server's name for people.
    label: str
    #: Signals of an orderly stop, see ``supervisor.guard``.
    plan: str

    def __init__(self, folder: str | os.PathLike[str], *, durable: bool = True) -> None:
        self.folder = Path(folder).absolute()
        #: False gives up safety against a crash of the machine for speed: for tests.
        self.durable = durable
        self.url: str | None = None
        self.process: GuardedProcess | None = None
        #: Remarkable things that the start did, one sentence each, for the person in front of the terminal.
        self.notes: list[str] = []
        self._lock = FolderLock(self.folder / "lock")
        #: Where the log of the present attempt begins, in bytes.
        self._log_start = 0

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / "server.log"

    def start(self) -> str:
        """Start the server and return its URL once it answers. Raises ``EmbeddedServerError``."""
        self._take_lock()
        try:
            self.url = self._start()
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server and wait for its end; safe to call again."""
        if self.process is not None:
            self.process.stop()
            self.process = None
        self.url = None
        self._lock.release()

    def remove(self) -> None:
        """Delete the data, ending a server that a killed run may have left behind. Raises as ``start()``
        does."""
        if self.folder.exists():
            self._take_lock()
            try:
                self._end_earlier_run()
                self._remove_data()
            finally:
                self._lock.release()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _take_lock(self) -> None:
        try:
            make_folder(self.folder)
            self._lock.acquire()
        except FolderLocked as locked:
            raise EmbeddedServerError(
                f"The embedded {self.label} in {self.folder} is already running for process {locked.holder}: "
                "stop that one first (make stop), or choose another DATA_DIR."
            ) from None
        except OSError as error:
            raise EmbeddedServerError(f"Cannot write to {self.folder} ({error.strerror}): set DATA_DIR.") from error

    @abc.abstractmethod
    def _end_earlier_run(self) -> None:
        """End the server of a killed run, and remove what would make a new one refuse to start."""

    @abc.abstractmethod
    def _remove_data(self) -> None:
        """Delete the data, wherever they are."""

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Find the programs, end what is left of an earlier run, and make the data when there are none."""

    @abc.abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """Return the command line for that port."""

    @abc.abstractmethod
    def _probe(self, port: int, process: GuardedProcess) -> str:
        """Prove that the server on the port is this process with our data, and return the URL.

        Raises ``NotReadyYet`` while it does not answer.
        """

    def _repair(self, lines: Sequence[str]) -> bool:
        """Say whether the cause of an early end could be repaired, so that another attempt makes sense."""
        return any(reason in line for line in lines for reason in PASSING_REASONS)

    def _account(self) -> Account | None:
        """Return the account to run as; None for ourselves."""
        return None

    def _start(self) -> str:
        self._prepare()
        for attempt in range(START_ATTEMPTS):
            port = free_port(self._last_port() if attempt == 0 else None)
            self.process = self._spawn(port)
            url = self._wait_until_ready(port, self.process)
            if url is not None:
                write_private(self.folder / "port", str(port))
                return url
            time.sleep(0.2 * attempt)
        raise self._ended_early(f"did not start in {START_ATTEMPTS} attempts")

    def _spawn(self, port: int) -> GuardedProcess:
        account = self._account()
        # Only what the servers need: our environment holds secrets, and PG* or LC_* would change their
        # behaviour.
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "LANG": "C"}
        mode = "ab" if self.log.exists() and self.log.stat().st_size < LOG_LIMIT else "wb"
        with self.log.open(mode) as output:
            self._log_start = output.tell()
            try:
                return GuardedProcess.start(
                    self._command(port),
                    output=output,
                    env=env,
                    cwd="/",
                    plan=self.plan,
                    user=account.user if account else None,
                    group=account.group if account else None,
                    leader_only=True,
                )
            except CannotStart as error:
                raise EmbeddedServerError(f"The embedded {self.label} cannot be run: {error}.") from error

    def _wait_until_ready(self, port: int, process: GuardedProcess) -> str | None:
        """Return the URL, or None when the server ended for a reason that another attempt can get around."""
        seen = self.log.stat().st_size
        deadline = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < deadline:
            code = process.poll()
            if code is not None:
                process.stop()
                if self._repair(last_lines(self.log, count=100, since=self._log_start)):
                    return None
                raise self._ended_early(f"ended at once with exit code {code}")
            try:
                return self._probe(port, process)
            except NotReadyYet:
                time.sleep(0.03)
            if self.log.stat().st_size != seen:  # it is working on something, a recovery for instance
                seen = self.log.stat().st_size
                deadline = time.monotonic() + READY_TIMEOUT
        raise self._ended_early(f"did not answer within {READY_TIMEOUT:.0f} s")

    def _ended_early(self, what: str) -> EmbeddedServerError:
        tail = "\n  ".join(last_lines(self.log, since=self._log_start))
        return EmbeddedServerError(f"The embedded {self.label} {what}; the end of {self.log}:\n  {tail}")

    def _last_port(self) -> int | None:
        """Return the port of the last run: the same one again keeps URLs that somebody noted down valid."""
        try:
            return int((self.folder / "port").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _password(self, folder: Path) -> str:
        """Return the server's password, made on the first run and kept beside the data."""
        file = folder / "password"
        try:
            return file.read_text().strip()
        except FileNotFoundError:
            password = secrets.token_urlsafe(24)
            write_private(file, password)
            return password

    def _end_leftover(self, pid: int, data: Path, signals: Sequence[tuple[signal.Signals, float]]) -> None:
        """End the server of a run that was killed, when it still has our data open.

        A process that only happens to have the noted process id is left alone. Raises
        ``EmbeddedServerError`` when it does not end.
        """
        process = _process_working_in(pid, data)
        if process is None:
            return
        for number, seconds in signals:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                process.send_signal(number)
                process.wait(seconds)
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                self.notes.append(f"Ended the {self.label} (process {pid}) that a killed run had left behind.")
                return
        raise EmbeddedServerError(
            f"The {self.label} process {pid} of an earlier run still has {data} open and does not end: "
            f"end it with `kill -9 {pid}` and start again."
        )


def _process_working_in(pid: int, data: Path) -> psutil.Process | None:
    """Return the process of that id when its working folder is ``data`` (both servers change to theirs)."""
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).resolve() == data.resolve():
            return process
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return None
