"""What ``manage.py up`` runs: the servers, then web, worker and beat, and Flower last."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scheduling_project.embedded.discovery import announce
from scheduling_project.embedded.errors import EmbeddedServerError
from scheduling_project.embedded.ports import is_free
from scheduling_project.embedded.server import EmbeddedServer, last_lines
from scheduling_project.process_role import LEAN_BEAT
from scheduling_project.supervisor.box import Facts, render
from scheduling_project.supervisor.data_folder import DataFolder, DataFolderError
from scheduling_project.supervisor.output import Output
from scheduling_project.supervisor.reload import CodeWatcher, source_folders
from scheduling_project.supervisor.supervisor import (
    OWN_NAME,
    NotReady,
    Service,
    ServiceDied,
    StopRequested,
    Supervisor,
)

#: Seconds that a worker's running steps get to finish or to be released when everything stops.
WORKER_GRACE = 5
#: Seconds until the processes must be ready once they have been started.
READY_TIMEOUT = 90.0
#: Seconds that the port of a killed run may still be taken.
PORT_PATIENCE = 10.0
PORT_CHOICES = 50
WEB_POOL_SIZE = "10"


@dataclass(frozen=True)
class Wishes:
    """What the environment and the command line ask for."""

    data_dir: Path
    root: Path
    host: str
    port: int
    #: The port was named, so another one will not do.
    port_is_fixed: bool
    flower_port: int
    flower_port_is_fixed: bool
    database_url: str | None
    redis_url: str | None
    admin_user: str
    admin_password: str | None
    demo: bool
    reload: bool
    queues: tuple[str, ...]
    extra_apps: tuple[str, ...] = ()
    concurrency: int = 2


class PortTaken(RuntimeError):
    """The port that was asked for is in use; the message says what to do."""


def choose_port(
    wanted: int,
    *,
    variable: str,
    is_fixed: bool,
    patience: float = 0.0,
    taken: frozenset[int] = frozenset(),
    free: Callable[[int], bool] = is_free,
) -> int:
    """Return the wanted port, or the next free one when nobody insists on it.

    Waits up to ``patience`` seconds for the wanted one. Raises ``PortTaken``.
    """
    deadline = time.monotonic() + patience
    while not free(wanted) and time.monotonic() < deadline:
        time.sleep(0.2)
    if free(wanted) and wanted not in taken:
        return wanted
    if is_fixed:
        raise PortTaken(f"Port {wanted} is taken by another program: stop that one, or set {variable} to a free port.")
    for port in range(wanted + 1, min(wanted + PORT_CHOICES, 65_535)):
        if port not in taken and free(port):
            return port
    raise PortTaken(f"No free port between {wanted} and {wanted + PORT_CHOICES}: set {variable} to a free one.")


def missing_until_ok(url: str, what: str) -> str | None:
    """Return None when the URL answers 200, else in a few words what is missing."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310 - our own loopback address
            return None if answer.status == 200 else f"{what} answers {answer.status}"
    except urllib.error.HTTPError as error:
        with error:
            return f"{what} answers {error.code}: {error.read(2000).decode(errors='replace')}"
    except (OSError, ValueError) as error:
        return f"{what} does not answer yet ({error})"


class Stack:
    """Everything of one ``manage.py up``."""

    def __init__(self, wishes: Wishes, output: Output, *, colour: bool) -> None:
        self.wishes = wishes
        self.output = output
        self.colour = colour
        self.folder = DataFolder(wishes.data_dir)
        self.supervisor = Supervisor(output, cwd=wishes.root)
        self._servers: list[EmbeddedServer] = []
        self._watcher: CodeWatcher | None = None
        self._began = time.monotonic()

    def run(self) -> int:
        """Run until somebody or something ends it; return the exit code."""
        try:
            self.folder.take()
        except DataFolderError as error:
            self.say(str(error))
            return 1
        code = 1
        try:
            self._start()
            self.supervisor.watch()
        except StopRequested:
            code = 0
        except ServiceDied as died:
            self._report_death(died)
        except (EmbeddedServerError, PortTaken, NotReady) as error:
            self.say(str(error))
        finally:
            self._stop()
        return code

    def say(self, text: str) -> None:
        """Write a line, or several, in the supervisor's own name."""
        for line in text.splitlines():
            self.output.line(OWN_NAME, line)

    # Start

    def _start(self) -> None:
        wishes = self.wishes
        patience = PORT_PATIENCE if self.folder.was_left_in_disorder() else 0.0
        choose = partial(choose_port, patience=patience)
        port = choose(wishes.port, variable="PORT", is_fixed=wishes.port_is_fixed)
        flower_port = choose(
            wishes.flower_port,
            variable="FLOWER_PORT",
            is_fixed=wishes.flower_port_is_fixed,
            taken=frozenset({port}),
        )
        if port != wishes.port:
            self.say(f"Port {wishes.port} is taken: using {port}")
        urls = self._start_servers()
        password = wishes.admin_password or self.folder.secret("admin password")
        flower_password = password if "," not in password else self.folder.secret("flower password")
        env = {
            **urls,
            "DATA_DIR": str(self.folder.path),
            "PORT": str(port),
            "FLOWER_PORT": str(flower_port),
            "ADMIN_USER": wishes.admin_user,
            "ADMIN_PASSWORD": password,
            "DEMO": "1" if wishes.demo else "0",
            "PYTHONUNBUFFERED": "1",
        }
        report = self._prepare(env)
        # The processes that run other people's code have no need to know the administrator's password.
        env.pop("ADMIN_PASSWORD")
        for service in self._services(env, port):
            self.supervisor.start(service)
        self.say("starting web, worker and beat …")
        base = f"http://{'127.0.0.1' if wishes.host in {'0.0.0.0', '::'} else wishes.host}:{port}"  # noqa: S104
        self.supervisor.wait_for(partial(missing_until_ok, f"{base}/readyz", "/readyz"), timeout=READY_TIMEOUT)
        self.supervisor.start(self._flower(env, flower_port, flower_password))
        flower_url = f"http://127.0.0.1:{flower_port}"
        self.supervisor.wait_for(
            partial(missing_until_ok, f"{flower_url}/healthcheck", "Flower"), timeout=READY_TIMEOUT
        )
        if wishes.reload:
            self._watch_code()
        facts = Facts(
            url=base,
            flower_url=f"{flower_url}/",
            user=wishes.admin_user,
            password=password if report["password_is_known"] else None,
            flower_password=flower_password,
            token=str(report["token"]),
            workflow=report["workflow"] if isinstance(report["workflow"], str) else None,
            workflow_input="{}",
            data_dir=str(self.folder.path),
            seconds=time.monotonic() - self._began,
            embedded=bool(self._servers),
            demo=wishes.demo,
        )
        width = shutil.get_terminal_size((100, 24)).columns
        self.output.plain("\n" + render(facts, colour=self.colour, width=width))

    def _start_servers(self) -> dict[str, str]:
        """Start the servers that nobody has given us, and return the URLs of all."""
        given = {"DATABASE_URL": self.wishes.database_url, "REDIS_URL": self.wishes.redis_url}
        own: Mapping[str, EmbeddedServer] = {
            "DATABASE_URL": self.folder.postgres(),
            "REDIS_URL": self.folder.redis(),
        }
        urls: dict[str, str] = {}
        embedded: dict[str, str] = {}
        for variable, server in own.items():
            url = given[variable]
            if url:
                self.say(f"{server.label}: the one of {variable}")
                urls[variable] = url
                continue
            self.supervisor.check()
            self.say(f"starting {server.label} …")
            urls[variable] = embedded[variable] = server.start()
            self._servers.append(server)
            for note in server.notes:
                self.say(note)
            if server.process is not None:
                self.supervisor.adopt(server.label.lower(), server.process, partial(last_lines, server.log))
        announce(self.folder.path, embedded)
        return urls

    def _prepare(self, env: Mapping[str, str]) -> dict[str, object]:
        """Run ``manage.py prepare`` and return its report."""
        self.say("preparing the database …")
        with tempfile.TemporaryDirectory(prefix="scheduling-up-") as folder:
            report = Path(folder) / "report.json"
            command = [sys.executable, "manage.py", "prepare", "--report", str(report)]
            if self.wishes.admin_password is None:
                command.append("--initial-password")
            self.supervisor.run(Service("prepare", tuple(command), env=env, plan="TERM:5,KILL:1"))
            found: dict[str, object] = json.loads(report.read_text())
        return found

    def _services(self, env: Mapping[str, str], port: int) -> list[Service]:
        wishes = self.wishes
        celery = (sys.executable, "-m", "celery", "--quiet", "-A", "scheduling_project")
        web = (
            *(sys.executable, "-m", "uvicorn", "scheduling_project.asgi:application"),
            *("--host", wishes.host, "--port", str(port)),
            *("--timeout-graceful-shutdown", "3", "--no-access-log", "--no-use-colors"),
            *("--ws-max-size", "65536"),
        )
        worker = (
            *(*celery, "worker", "--queues", ",".join(wishes.queues), "--concurrency", str(wishes.concurrency)),
            *("--hostname", "worker@%h", "--without-mingle", "--without-gossip", "--loglevel", "INFO"),
        )
        return [
            Service(
                "web",
                web,
                env={"DATABASE_POOL_SIZE": WEB_POOL_SIZE, **env},
                plan="TERM:4,KILL:1",
                patience=3.5,
                reloads=True,
            ),
            Service(
                "worker",
                worker,
                env={"WORKFLOW_SHUTDOWN_GRACE_SECONDS": str(WORKER_GRACE), **env},
                # SIGQUIT begins Celery's soft shutdown: what runs gets the grace, nothing new is taken.
                plan=f"QUIT:{WORKER_GRACE + 1.5},KILL:1",
                patience=WORKER_GRACE + 1.5,
                leader_only=True,
                reloads=True,
            ),
            Service(
                "beat",
                (sys.executable, "-m", LEAN_BEAT, "--quiet", "-A", "scheduling_project", "beat", "--loglevel", "INFO"),
                env=env,
                plan="TERM:3,KILL:1",
                patience=1.5,
                reloads=True,
            ),
        ]

    def _flower(self, env: Mapping[str, str], port: int, password: str) -> Service:
        celery = (sys.executable, "-m", "celery", "--quiet", "-A", "scheduling_project")
        return Service(
            "flower",
            (*celery, "flower", "--address=127.0.0.1", f"--port={port}", "--logging=warning"),
            # In the environment, because everybody can read a command line.
            env={"LOG_LEVEL": "WARNING", **env, "FLOWER_BASIC_AUTH": f"{self.wishes.admin_user}:{password}"},
            plan="TERM:2,KILL:1",
            patience=1.0,
        )

    def _watch_code(self) -> None:
        folders = source_folders(self.wishes.root, self.wishes.extra_apps)
        self._watcher = CodeWatcher(folders, self.supervisor.code_changed, self.say)
        self._watcher.start()

    # Stop

    def _report_death(self, died: ServiceDied) -> None:
        self.say("")
        self.say(f"{died}; stopping everything else. Its last lines:")
        for line in died.lines:
            self.say(f"  {line}")

    def _stop(self) -> None:
        self.say("stopping … (Ctrl-C again to hurry)")
        if self._watcher is not None:
            self._watcher.stop()
        self.supervisor.stop_all()
        for server in reversed(self._servers):
            server.stop()
        self.folder.give_back()
        self.say("stopped")
