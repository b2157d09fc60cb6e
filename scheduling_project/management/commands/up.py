"""``manage.py up``: everything on this machine, from one command."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from scheduling_project.environment import PROJECT_ROOT, Environment
from scheduling_project.supervisor.output import Output, wants_colour
from scheduling_project.supervisor.stack import Stack, Wishes


class Command(BaseCommand):
    """Start the servers, web, worker, beat and Flower; stop them all with Ctrl-C."""

    help = (
        "Start Postgres and Redis (unless DATABASE_URL and REDIS_URL name servers), migrate, and run web, worker, "
        "beat and Flower until Ctrl-C."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address of the web server (default: %(default)s)")
        parser.add_argument("--concurrency", type=int, default=2, help="processes of the worker (default: 2)")
        parser.add_argument("--reload", action="store_true", default=None, help="restart when the code changes")
        parser.add_argument("--no-reload", action="store_false", dest="reload", help="do not")

    def handle(self, *args: Any, **options: Any) -> None:
        stream = sys.stdout
        colour = wants_colour(stream, os.environ)
        stack = Stack(wishes(options), Output(stream, colour=colour), colour=colour)
        stack.supervisor.listen_to_signals()
        sys.exit(stack.run())


def wishes(options: dict[str, Any]) -> Wishes:
    """Read the environment and the command line."""
    env = Environment.read()
    given = env.model_fields_set
    return Wishes(
        data_dir=env.DATA_DIR,
        root=PROJECT_ROOT,
        host=options["host"],
        port=env.PORT,
        port_is_fixed="PORT" in given,
        flower_port=env.FLOWER_PORT,
        flower_port_is_fixed="FLOWER_PORT" in given,
        database_url=os.environ.get("DATABASE_URL") or None,
        redis_url=os.environ.get("REDIS_URL") or None,
        admin_user=os.environ.get("ADMIN_USER") or "admin",
        admin_password=os.environ.get("ADMIN_PASSWORD") or None,
        demo=env.DEMO if "DEMO" in given else True,
        reload=env.DEBUG if options["reload"] is None else options["reload"],
        queues=tuple(env.WORKFLOW_QUEUES),
        extra_apps=tuple(env.EXTRA_APPS),
        concurrency=options["concurrency"],
    )
