"""`manage.py demo`: makes the demo, and tells what there is to see; what you changed since is left alone."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from execution.admin import shown
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError
from scheduling_project.demo import seeding, tour, webhook
from scheduling_project.environment import Environment

ACTIONS: Final = ("seed", "tour", "curl", "break")


class Command(BaseCommand):
    help = (
        "Make the demo and tell what there is to see. seed: only make it; tour: only tell; curl: print a signed "
        "webhook as one line; break: start the workflow that breaks. Example: manage.py demo"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=ACTIONS, nargs="?", help="one thing only (default: seed, then tour)")
        parser.add_argument("--url", help="address of the web process (default: http://127.0.0.1:PORT)")

    def handle(self, *args: Any, **options: Any) -> None:
        base = (options["url"] or f"http://127.0.0.1:{Environment.read().PORT}").rstrip("/")
        try:
            match options["action"]:
                case "seed":
                    self._seed()
                case "curl":
                    self.stdout.write(webhook.curl_line(base, now=clock.now()))
                case "break":
                    self._break(base)
                case "tour":
                    self._tour(base)
                case _:
                    self._seed()
                    self._tour(base)
        except DomainError as error:
            raise CommandError(error.message) from error

    def _seed(self) -> None:
        made = seeding.seed()
        self.stdout.write(
            f"demo: {made.workflows} workflows, {made.schedules} schedules and {made.triggers} triggers made"
        )

    def _tour(self, base: str) -> None:
        for number, stop in enumerate(tour.stops(), start=1):
            self.stdout.write(f"\n{number}. {stop.title}\n   {stop.text}")
            if stop.url:
                self.stdout.write(f"   {base}{stop.url}")
            if stop.is_webhook:
                self.stdout.write(f"   {webhook.curl_line(base, now=clock.now())}")
            for line in stop.commands:
                self.stdout.write(f"   {line}")

    def _break(self, base: str) -> None:
        started = tour.break_a_step(actor=seeding.ACTOR)
        self.stdout.write(f"{started.pk}\n{base}{shown.page_of(started)}")
