"""Wait until the servers answer: what a container does before it becomes its role."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection

from execution import broker

#: Seconds between two looks.
PAUSE: Final = 0.5


class Command(BaseCommand):
    """Exit code 0 as soon as Postgres and Redis answer, 1 when one of them does not in time."""

    help = (
        "Wait until Postgres and Redis answer. Exit code 1, with the server and its error, when one does not in time."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seconds", type=float, default=60.0, help="how long in all (default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        seconds: float = options["seconds"]
        if seconds < 0:
            raise CommandError(f"--seconds: {seconds:g} is negative.")
        until = time.monotonic() + seconds
        for name, problem_of in (("Postgres", _postgres), ("Redis", _redis)):
            while problem := problem_of():
                if time.monotonic() >= until:
                    raise CommandError(f"{name} did not answer within {seconds:g} s: {problem}")
                time.sleep(PAUSE)
        self.stdout.write("Postgres and Redis answer.")


def _postgres() -> str:
    try:
        connection.ensure_connection()
    except OperationalError as error:
        return str(error).strip()
    finally:
        connection.close()
    return ""


def _redis() -> str:
    try:
        broker.client().ping()
    except broker.BrokerAway as error:
        return str(error)
    return ""
