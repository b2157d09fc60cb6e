"""Workers and beats of a drill, as real processes on the servers that this process is configured for."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
from django.conf import settings
from django.db import connections

from execution.models import ProcessReport
from scheduling_project.environment import PROJECT_ROOT
from scheduling_project.supervisor.process import GuardedProcess

START_TIMEOUT = 60.0


class NotInTime(AssertionError):
    """Something that a drill waits for did not happen."""


def wait_until(what: str, condition: Callable[[], object], *, timeout: float, pause: float = 0.1) -> None:
    """Poll until `condition` is true.

    Raises:
        NotInTime: naming `what`, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not within {timeout:g} s")
        time.sleep(pause)


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process that works on the same servers as this one."""
    database = connections["default"].settings_dict
    credentials = quote(database["USER"]) + (f":{quote(database['PASSWORD'])}" if database["PASSWORD"] else "")
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "scheduling_project.settings",
        "DATABASE_URL": f"postgresql://{credentials}@{database['HOST']}:{database['PORT']}/{database['NAME']}",
        "REDIS_URL": settings.REDIS_URL,
        "EXTRA_APPS": "scheduling_project.drills",
        "DEMO": "0",
        **changes,
    }


@dataclass
class Service:
    """One running worker or beat. Its output goes to `log`."""

    name: str
    process: GuardedProcess
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        """The pool processes of a worker."""
        return psutil.Process(self.pid).children()

    def signal(self, number: int) -> None:
        """Send a signal to the service's main process."""
        os.kill(self.pid, number)

    def kill_all(self) -> None:
        """kill -9 for the process and its children, parent first, as a host that goes away."""
        children = self.children()
        os.kill(self.pid, signal.SIGKILL)
        for child in children:
            if child.is_running():
                child.kill()

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass
class Processes:
    """The workers and beats of one drill; `stop` ends whatever still runs."""

    folder: Path
    environment: Mapping[str, str]
    services: list[Service] = field(default_factory=list)

    def worker(
        self, name: str = "w1", *, queues: str = "default,io", slots: int = 2, options: tuple[str, ...] = (), **env: str
    ) -> Service:
        """Start a worker and wait until it reports life."""
        node = f"{name}@drill"
        command = ["worker", "-Q", queues, "-c", str(slots), "-n", node, "-l", "INFO", *options]
        service = self._start(name, command, env)
        self._wait_for_report(service, node)
        return service

    def beat(self, name: str = "b1", *, options: tuple[str, ...] = (), **env: str) -> Service:
        """Start a beat; it reports life under its process id."""
        schedule_file = str(self.folder / f"{name}.schedule")
        service = self._start(name, ["beat", "-l", "INFO", "-s", schedule_file, *options], env)
        if "-S" not in options:
            wait_until(
                f"beat {name} reports life",
                lambda: self._alive(service) and ProcessReport.objects.filter(kind="beat", pid=service.pid).exists(),
                timeout=START_TIMEOUT,
            )
        return service

    def web(self, port: int, name: str = "web") -> Service:
        """Start a web process on `port` and wait until it answers."""
        command = ["-m", "uvicorn", "scheduling_project.asgi:application", "--port", str(port), "--no-access-log"]
        service = self._spawn(name, [sys.executable, *command], {"DATABASE_POOL_SIZE": "8"})

        def answers() -> bool:
            self._alive(service)
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    return True
            except OSError:
                return False

        wait_until("the web process answers", answers, timeout=START_TIMEOUT)
        return service

    def stop(self) -> None:
        for service in reversed(self.services):
            service.process.stop()
        self.services.clear()

    def celery(self, name: str, command: list[str], **env: str) -> Service:
        """Start a process of `celery` with this command line."""
        return self._spawn(name, [sys.executable, "-m", "celery", *command], env)

    def _start(self, name: str, command: list[str], env: Mapping[str, str]) -> Service:
        return self._spawn(name, [sys.executable, "-m", "celery", "-A", "scheduling_project", *command], env)

    def _spawn(self, name: str, command: list[str], env: Mapping[str, str]) -> Service:
        log = self.folder / f"{name}-{len(self.services)}.log"
        with log.open("wb") as output:
            process = GuardedProcess.start(
                command, output=output, env={**self.environment, **env}, cwd=PROJECT_ROOT, plan="TERM:10,KILL:2"
            )
        service = Service(name, process, log)
        self.services.append(service)
        return service

    def _wait_for_report(self, service: Service, node: str) -> None:
        wait_until(
            f"worker {service.name} reports life",
            lambda: (
                self._alive(service)
                and ProcessReport.objects.filter(name=node, pid=service.pid, stopped_at=None).exists()
            ),
            timeout=START_TIMEOUT,
        )

    def _alive(self, service: Service) -> bool:
        if not psutil.pid_exists(service.pid):
            raise NotInTime(f"{service.name} ended while starting:\n{service.tail()}")
        return True
