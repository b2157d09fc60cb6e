"""A Redis server out of a wheel (or from the PATH), as an ordinary process of ours."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduling_project.embedded import binaries
from scheduling_project.embedded.errors import EmbeddedServerError
from scheduling_project.embedded.ports import LOOPBACK
from scheduling_project.embedded.server import EmbeddedServer, NotReadyYet, make_folder, write_private
from scheduling_project.supervisor.process import GuardedProcess

#: What Redis logs when it cannot read its own files.
UNREADABLE_DATA = (
    "Bad file format",
    "Fatal error loading",
    "Short read or OOM loading DB",
    "Wrong signature",
    "Can't handle RDB format",
    "Unrecoverable error reading",
    "Unexpected end of file reading the append only file",
    "Internal error in RDB reading",
    "Terminating server after rdb file reading failure",
)

CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir {folder}
pidfile {pid_file}
daemonize no
databases 64
# A broker must never drop what it holds: rather refuse to take more.
maxmemory-policy noeviction
appendonly {append_only}
appendfsync everysec
save ""
"""


class EmbeddedRedis(EmbeddedServer):
    """Redis on a loopback port with a random password, in ``folder``.

    Its data survive restarts. Should they be unreadable, they are moved aside and Redis starts empty:
    nothing that matters lives in Redis alone.
    """

    label = "Redis"
    plan = "TERM:4,KILL:1"

    @property
    def data(self) -> Path:
        """Redis's own data folder."""
        return self.folder / "data"

    @property
    def pid_file(self) -> Path:
        """The file into which Redis writes its process id."""
        return self.folder / "redis.pid"

    def _prepare(self) -> None:
        self._program = binaries.find_redis()
        self._configuration = self.folder / "redis.conf"
        self._end_earlier_run()

    def _end_earlier_run(self) -> None:
        pid = self._noted_pid()
        if pid is not None:
            self._end_leftover(pid, self.data, [(signal.SIGTERM, 8.0), (signal.SIGKILL, 3.0)])
        self.pid_file.unlink(missing_ok=True)

    def _noted_pid(self) -> int | None:
        """Return the process id that the server wrote into its file, or None."""
        try:
            return int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _remove_data(self) -> None:
        shutil.rmtree(self.folder)

    def _command(self, port: int) -> Sequence[str]:
        make_folder(self.data, mode=0o700)
        text = CONFIGURATION.format(
            host=LOOPBACK,
            port=port,
            password=self._password(self.folder),
            folder=_quoted(self.data),
            pid_file=_quoted(self.pid_file),
            append_only="yes" if self.durable else "no",
        )
        # In a file and not on the command line, where everybody could read the password.
        write_private(self._configuration, text)
        return [self._program, str(self._configuration)]

    def _probe(self, port: int, process: GuardedProcess) -> str:
        if self._noted_pid() != process.pid:  # the server writes it once it listens
            raise NotReadyYet
        password = self._password(self.folder)
        client = redis.Redis(
            host=LOOPBACK,
            port=port,
            password=password,
            socket_timeout=5,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            facts = client.info("server")
        except redis.exceptions.RedisError as error:  # refused, still loading, or somebody else's password
            raise NotReadyYet from error
        finally:
            client.close()
        if facts["process_id"] != process.pid:
            raise EmbeddedServerError(
                f"Another Redis (process {facts['process_id']}) answers on port {port} instead of ours "
                f"({process.pid}): stop it, or set REDIS_URL to the server you want."
            )
        return f"redis://:{password}@{LOOPBACK}:{port}/0"

    def _repair(self, lines: Sequence[str]) -> bool:
        if any(sign in line for line in lines for sign in UNREADABLE_DATA):
            aside = self.folder / f"data-unreadable-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
            self.data.rename(aside)
            self.notes.append(f"Redis could not read its data: they were moved to {aside} and it started empty.")
            return True
        return super()._repair(lines)


def _quoted(path: Path) -> str:
    """Quote a path for Redis's configuration file.

    >>> _quoted(Path('/tmp/a "b"'))
    '"/tmp/a \\\\"b\\\\""'
    """
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
