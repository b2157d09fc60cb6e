"""The drill's own Postgres and Redis, and a way for the drill to kill, stop and start them.

The drill runs in a process of its own, whose settings name the servers; so the process that started them keeps them
and obeys orders over a socket file.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Final, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql

from scheduling_project.drills.environment import CONTROL
from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
from scheduling_project.embedded.errors import EmbeddedServerError
from scheduling_project.embedded.server import EmbeddedServer

DONE: Final = "done"
_KEY: Final = b"drill"  # the socket file lies in a folder that only its owner may enter

#: How each server is made to end at once: Redis as by the kernel, Postgres as by `pg_ctl stop -m immediate`.
SUDDEN: Final = {"redis": signal.SIGKILL, "postgres": signal.SIGQUIT}


class Keeper:
    """Holds the servers and obeys `Orders`. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.postgres = EmbeddedPostgres(folder / "postgres", durable=True)
        self.redis = EmbeddedRedis(folder / "redis", durable=False)
        self.address = str(folder / "control")
        self._listener = Listener(self.address, family="AF_UNIX", authkey=_KEY)
        self._thread = threading.Thread(target=self._serve, name="drill-servers", daemon=True)

    def __enter__(self) -> dict[str, str]:
        """The environment for the drill's process."""
        database, broker = self.postgres.start(), self.redis.start()
        self._thread.start()
        return {"DATABASE_URL": database, "REDIS_URL": broker, CONTROL: self.address}

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._listener.close()
        self.redis.stop()
        self.postgres.stop()

    def fresh(self, name: str) -> dict[str, str]:
        """Both servers running, Redis empty, and a new database `name` that is a copy of the first one, which is
        migrated once: migrating takes longer than most drills. Returns what changes in the environment.

        The checkpoint keeps what was written before out of the recovery after a crash, which the drill waits for.
        Nobody may be connected to the first database meanwhile (Postgres refuses to copy one in use).
        """
        for server in (self.postgres, self.redis):
            if server.process is None:  # a drill that broke off may have left it down
                server.start()
        assert self.postgres.url is not None
        assert self.redis.url is not None
        with redis.Redis.from_url(self.redis.url) as broker:
            broker.flushall()
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(urlsplit(self.postgres.url).path.removeprefix("/"))
        )
        self.execute("postgres", ("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()", copy, "CHECKPOINT"))
        return {"DATABASE_URL": self._url_of(name), "REDIS_URL": self.redis.url}

    def execute(self, database: str, statements: Iterable[LiteralString | sql.Composed]) -> None:
        """Run statements in a database, each in a transaction of its own."""
        with psycopg.connect(self._url_of(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _url_of(self, database: str) -> str:
        assert self.postgres.url is not None
        return urlunsplit(urlsplit(self.postgres.url)._replace(path=f"/{database}"))

    def _serve(self) -> None:
        while True:
            try:
                with self._listener.accept() as connection:
                    self._obey(connection)
            except (OSError, EOFError):
                if not Path(self.address).exists():
                    return

    def _obey(self, connection: Connection) -> None:
        while True:
            name, order = connection.recv()
            try:
                self._carry_out(name, order)
            except EmbeddedServerError as error:
                connection.send(str(error))
            else:
                connection.send(DONE)

    def _carry_out(self, name: str, order: str) -> None:
        server: EmbeddedServer = {"redis": self.redis, "postgres": self.postgres}[name]
        if order == "kill" and server.process is not None:
            with suppress(ProcessLookupError):
                os.kill(server.process.pid, SUDDEN[name])
        if order in ("kill", "stop"):
            server.stop()
        elif order == "start" and server.process is None:
            server.start()


class Orders:
    """What the drill asks of the servers' keeper; each order returns when it has been carried out.

    Raises:
        EmbeddedServerError: it could not be.
    """

    def __init__(self) -> None:
        self._connection = Client(os.environ[CONTROL], family="AF_UNIX", authkey=_KEY)

    def _order(self, server: str, order: str) -> None:
        self._connection.send((server, order))
        answer = self._connection.recv()
        if answer != DONE:
            raise EmbeddedServerError(answer)

    def kill(self, server: str) -> None:
        """End it at once: nothing is written or told before. A killed Redis comes back empty."""
        self._order(server, "kill")

    def stop(self, server: str) -> None:
        self._order(server, "stop")

    def start(self, server: str) -> None:
        """Start it on the port that it had."""
        self._order(server, "start")
