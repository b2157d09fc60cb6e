"""Triggers from the command line: look at them, pause, resume, flush, replay, rotate, and read a bus."""

from __future__ import annotations

import getpass
import sys
from typing import IO, Any, cast
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError
from triggers import endpoints, event_bus, inspection, lifecycle, maintenance, replay, vault
from triggers.event_bus import RedisStreamsBus
from triggers.models import Event, Trigger, WebhookEndpoint


class Command(BaseCommand):
    help = "List, pause and resume triggers; create and rotate endpoints; replay events; read an event bus."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
        verbs.add_parser("list", help="list triggers")
        for verb, text in (("pause", "let it take no events"), ("resume", "let it take events again")):
            one = verbs.add_parser(verb, help=text)
            one.add_argument("name", help="the trigger's name")
            one.add_argument("--note", default="", help="why, for the audit trail")
        verbs.add_parser("webhooks", help="list webhook endpoints")
        adding = verbs.add_parser("add-webhook", help="create an endpoint; prints its path and its secret once")
        adding.add_argument("slug")
        adding.add_argument("--scheme", default="standard")
        rotating = verbs.add_parser("rotate", help="give an endpoint a new secret; prints it once")
        rotating.add_argument("slug")
        rotating.add_argument("--overlap", type=float, default=endpoints.DEFAULT_OVERLAP, help="seconds")
        retiring = verbs.add_parser("retire", help="let an endpoint answer 410 for good")
        retiring.add_argument("slug")
        retiring.add_argument("--note", default="")
        verbs.add_parser("encrypt-again", help="close all secrets with the first of WORKFLOW_ENCRYPTION_KEYS")
        verbs.add_parser("flush", help="start what waited long enough, and turn news into events, once")
        verbs.add_parser("prune", help="delete what is kept no longer")
        replaying = verbs.add_parser("replay", help="let the triggers of today have an event again")
        replaying.add_argument("event", help="its id")
        bus = verbs.add_parser("bus", help="turn what a Redis stream has into events, until interrupted")
        bus.add_argument("stream")
        bus.add_argument("--url", default=settings.REDIS_URL)
        bus.add_argument("--group", default="workflow")
        bus.add_argument("--types", default="", help="separated by commas; order.* takes all of them")
        bus.add_argument("--once", action="store_true", help="stop when the stream has nothing more")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        self.console = Console(file=cast(IO[str], self.stdout), width=None if sys.stdout.isatty() else 160)
        try:
            getattr(self, "do_" + verb.replace("-", "_"))(options)
        except (DomainError, vault.VaultError) as error:
            raise CommandError(str(error)) from None

    @property
    def actor(self) -> str:
        return f"command:{getpass.getuser()}"

    def do_list(self, options: dict[str, Any]) -> None:
        table = Table("Trigger", "State", "Webhook", "Types", "Workflow")
        now = clock.now()
        for trigger in Trigger.objects.select_related("workflow", "endpoint"):
            slug = "" if trigger.endpoint is None else trigger.endpoint.slug
            state = inspection.state_of(trigger, now=now)
            table.add_row(trigger.name, state, slug, ", ".join(trigger.event_types), trigger.workflow.name)
        self.console.print(table)

    def do_pause(self, options: dict[str, Any]) -> None:
        lifecycle.pause(_trigger(options["name"]), actor=self.actor, note=options["note"])
        self.stdout.write("paused")

    def do_resume(self, options: dict[str, Any]) -> None:
        lifecycle.resume(_trigger(options["name"]), actor=self.actor)
        self.stdout.write("resumed")

    def do_webhooks(self, options: dict[str, Any]) -> None:
        table = Table("Endpoint", "State", "Scheme", "Path")
        for endpoint in WebhookEndpoint.objects.all():
            table.add_row(endpoint.slug, endpoint.state, endpoint.scheme, endpoint.path)
        self.console.print(table)

    def do_add_webhook(self, options: dict[str, Any]) -> None:
        made = endpoints.create(options["slug"], actor=self.actor, scheme=options["scheme"])
        self.stdout.write(f"path:   {made.endpoint.path}\nsecret: {made.secret}")

    def do_rotate(self, options: dict[str, Any]) -> None:
        made = endpoints.rotate(_endpoint(options["slug"]), actor=self.actor, overlap=options["overlap"])
        self.stdout.write(f"secret: {made.secret}")

    def do_retire(self, options: dict[str, Any]) -> None:
        endpoints.retire(_endpoint(options["slug"]), actor=self.actor, note=options["note"])
        self.stdout.write("retired")

    def do_encrypt_again(self, options: dict[str, Any]) -> None:
        self.stdout.write(f"{endpoints.encrypt_again(actor=self.actor)} secrets")

    def do_flush(self, options: dict[str, Any]) -> None:
        done = maintenance.tend(using="default")
        self.stdout.write(f"{done.groups} groups, {done.news} news")

    def do_prune(self, options: dict[str, Any]) -> None:
        done = maintenance.prune()
        self.stdout.write(f"{done.events} events, {done.refusals} refusals, {done.secrets} secrets")

    def do_replay(self, options: dict[str, Any]) -> None:
        try:
            event = Event.objects.filter(pk=UUID(options["event"])).first()
        except ValueError:
            event = None
        if event is None:
            raise CommandError("There is no such event.")
        receipt = replay.replay(event, actor=self.actor)
        self.stdout.write(f"event {receipt.event_id}, {len(receipt.execution_ids)} executions")

    def do_bus(self, options: dict[str, Any]) -> None:
        event_bus.connect_event_bus(RedisStreamsBus(options["url"], stream=options["stream"], group=options["group"]))
        event_bus.subscribe_to_events(name.strip() for name in options["types"].split(",") if name.strip())
        while True:
            done = event_bus.pump(wait=0.1 if options["once"] else 2.0)
            if done.total:
                self.stdout.write(
                    f"{done.stored} stored, {done.repeated} repeated, {done.skipped} skipped, {done.rejected} rejected"
                )
            elif options["once"]:
                return


def _trigger(name: str) -> Trigger:
    found = Trigger.objects.filter(name=name).first()
    if found is None:
        raise CommandError(f"There is no trigger {name}.")
    return found


def _endpoint(slug: str) -> WebhookEndpoint:
    found = WebhookEndpoint.objects.filter(slug=slug).first()
    if found is None:
        raise CommandError(f"There is no webhook endpoint {slug}.")
    return found
