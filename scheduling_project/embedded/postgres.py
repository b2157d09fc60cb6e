"""A Postgres server out of a wheel, as an ordinary process of ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from scheduling_project.embedded import binaries
from scheduling_project.embedded.account import Account, unprivileged_account
from scheduling_project.embedded.errors import EmbeddedServerError
from scheduling_project.embedded.ports import LOOPBACK
from scheduling_project.embedded.server import EmbeddedServer, NotReadyYet, make_folder
from scheduling_project.supervisor.process import GuardedProcess

ROLE = "scheduling"
DATABASE = "scheduling"
#: Where the data go when the account that Postgres must run as cannot reach the folder we were given.
FALLBACK_PLACES = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108 - a new folder with a random name
#: The file in the given folder that names the place of such data.
LOCATION_FILE = "LOCATION"

CONFIGURATION = {
    "listen_addresses": LOOPBACK,
    # No socket file: its path could be too long for the system, and TCP needs the password in any case.
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
    # One machine, no replicas: the least to write.
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
SPEED_ONLY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "10min",
}


class EmbeddedPostgres(EmbeddedServer):
    """Postgres 18 on a loopback port, with a random password (SCRAM), in ``folder``.

    Run as root, the server is started as an unprivileged account; if that account cannot reach ``folder``,
    the data live in a folder of root's below ``/var/lib``, which ``LOCATION`` in the given folder names.
    """

    label = "Postgres"
    # Fast shutdown, then immediate shutdown (the next start recovers from the log), then the axe.
    plan = "INT:6,QUIT:2,KILL:1"

    def __init__(self, folder: str | os.PathLike[str], *, durable: bool = True) -> None:
        super().__init__(folder, durable=durable)
        self.home = self.folder
        self._runs_as: Account | None = None
        self._programs: binaries.PostgresPrograms | None = None

    @property
    def cluster(self) -> Path:
        """Postgres's own data folder."""
        return self.home / "cluster"

    def _remove_data(self) -> None:
        for folder in (self._noted_location(), self.folder):
            if folder is not None and folder.exists():
                shutil.rmtree(folder)

    def _account(self) -> Account | None:
        return self._runs_as

    def _prepare(self) -> None:
        self._end_earlier_run()
        self._runs_as = unprivileged_account(self.cluster)
        if self._runs_as is not None and not self._runs_as.can("-x", self.home):
            self.home = self._elsewhere(self._runs_as)
        self._programs = binaries.find_postgres(self._runs_as)
        for draft in self.home.glob("draft-*"):
            shutil.rmtree(draft, ignore_errors=True)
        if not self.cluster.exists():
            self._initialise(self._programs)
        self._check_version()

    def _command(self, port: int) -> Sequence[str]:
        assert self._programs is not None
        settings = CONFIGURATION | {"port": str(port)} | ({} if self.durable else SPEED_ONLY)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._programs.postgres, "-D", str(self.cluster), *options]

    def _probe(self, port: int, process: GuardedProcess) -> str:
        noted = self._noted_server()
        if noted is None or noted[2] != "ready":
            raise NotReadyYet
        password = self._password(self.home)
        try:
            connection = psycopg.connect(
                host=LOOPBACK,
                port=port,
                user=ROLE,
                password=password,
                dbname="postgres",
                sslmode="disable",
                connect_timeout=5,
                autocommit=True,
            )
        except psycopg.OperationalError as error:
            raise NotReadyYet from error
        with connection:
            row = connection.execute("SELECT current_setting('data_directory')").fetchone()
            answering = Path(row[0]) if row else None
            # SCRAM has proven already that the server knows our password; this proves that it is this very
            # process.
            if answering != self.cluster or noted[:2] != (process.pid, port):
                raise EmbeddedServerError(
                    f"Another Postgres answers on port {port} (its data are in {answering}, ours in {self.cluster}): "
                    "stop it, or set DATABASE_URL to the server you want."
                )
            exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if not exists:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        return f"postgresql://{ROLE}:{password}@{LOOPBACK}:{port}/{DATABASE}"

    def _noted_location(self) -> Path | None:
        """Return the folder elsewhere that an earlier run has chosen, if it did."""
        try:
            return Path((self.folder / LOCATION_FILE).read_text().strip())
        except FileNotFoundError:
            return None

    def _elsewhere(self, account: Account, places: Iterable[Path] = FALLBACK_PLACES) -> Path:
        """Make a folder that ``account`` can reach, note it down and say so."""
        for place in binaries.usable(places):
            folder = Path(tempfile.mkdtemp(prefix="scheduling-postgres-data-", dir=place))
            folder.chmod(0o711)
            if account.can("-x", folder):
                (self.folder / LOCATION_FILE).write_text(f"{folder}\n")
                self.notes.append(
                    f"Postgres cannot run as root and its account {account.user} cannot reach {self.folder}: "
                    f"its data live in {folder} (make reset deletes them there too)."
                )
                return folder
            folder.rmdir()
        raise EmbeddedServerError(
            f"Postgres cannot run as root and its account {account.user} cannot reach {self.folder}: "
            "set DATA_DIR to a folder that everybody may pass through, or run as an ordinary user."
        )

    def _noted_server(self) -> tuple[int, int, str] | None:
        """Return process id, port and state that the server wrote into ``postmaster.pid``, or None."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), int(lines[3]), lines[7].strip()
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _end_earlier_run(self) -> None:
        """Also removes the ``postmaster.pid`` that would make Postgres refuse to start.

        The file is safe to remove: the folder's lock is ours, so nobody else starts a server here, and a
        server that still has the cluster open has just been ended.
        """
        self.home = self._noted_location() or self.folder
        file = self.cluster / "postmaster.pid"
        try:
            words = file.read_text().split(maxsplit=1)
        except FileNotFoundError:
            return
        if words and words[0].isdigit():
            stops = [(signal.SIGINT, 12.0), (signal.SIGQUIT, 5.0)]
            self._end_leftover(int(words[0]), self.cluster, stops)
        with contextlib.suppress(FileNotFoundError):
            file.unlink()

    def _initialise(self, programs: binaries.PostgresPrograms) -> None:
        """Make the cluster as a draft and rename it when complete, so that a kill in between leaves nothing
        half."""
        draft = make_folder(self.home / f"draft-{os.getpid()}", mode=0o700)
        password_file = self.home / f"draft-{os.getpid()}.password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password(self.home))
        account = self._runs_as
        if account is not None:
            os.chown(draft, account.user, account.group)
            os.chown(password_file, account.user, account.group)
        command = [
            programs.initdb,
            f"--pgdata={draft}",
            f"--username={ROLE}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # Independent of the machine's locales: the same order and case rules everywhere.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            *([] if self.durable else ["--no-sync", "--no-data-checksums"]),
        ]
        try:
            done = subprocess.run(
                command,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                user=account.user if account else None,
                group=account.group if account else None,
                extra_groups=[] if account else None,
            )
        finally:
            password_file.unlink()
        if done.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise EmbeddedServerError(f"Postgres's initdb failed in {self.home}:\n  {_indented(done.stdout)}")
        draft.rename(self.cluster)

    def _check_version(self) -> None:
        try:
            version = (self.cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            version = "an unknown version"
        if version != binaries.POSTGRES_MAJOR:
            raise EmbeddedServerError(
                f"The data in {self.cluster} are of Postgres {version}, but this program runs "
                f"Postgres {binaries.POSTGRES_MAJOR}: move the folder away, or delete the data with `make reset`."
            )


def _indented(text: str) -> str:
    return "\n  ".join(text.strip().splitlines()[-10:])
