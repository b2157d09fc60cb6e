"""Triggers and webhook endpoints from the command line, and what must be done by hand now and then."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from scheduling_project.common import clock
from scheduling_project.common.console import json_argument, settings_argument
from triggers import endpoints, event_bus, inspection, lifecycle, maintenance, replay, self_delivery
from triggers.event_bus import RedisStreamsBus
from triggers.management.console import VerbCommand, find_endpoint, find_event, find_trigger
from triggers.models import Delivery, Trigger, WebhookEndpoint
from triggers.states import DeliveryOutcome


class Command(VerbCommand):
    help = "List, pause and resume triggers; create, change, rotate, test and retire endpoints; read an event bus."
    examples = """
triggers list
triggers add-webhook shop --workflow ship --events order.paid
triggers rotate shop --overlap 86400
triggers test-send shop --body @order.json
triggers deliveries shop --outcome unauthenticated
triggers bus orders --types "order.*" --once
"""

    def add_verbs(self, parser: CommandParser) -> None:
        self.verb("list", "list triggers", shows=True)
        self.verb("show", "one trigger and how it is", shows=True).add_argument("name")
        for verb, text in (("pause", "let it take no events"), ("resume", "let it take events again")):
            one = self.verb(verb, text)
            one.add_argument("name", help="the trigger's name")
            one.add_argument("--note", default="", help="why, for the audit trail")
        self._add_endpoint_verbs()
        self.verb("encrypt-again", "close all secrets with the first of WORKFLOW_ENCRYPTION_KEYS")
        self.verb("flush", "start what waited long enough, and turn news into events, once")
        self.verb("prune", "delete what is kept no longer")
        self.verb("replay", "let the triggers of today have an event again").add_argument("event", help="its id")
        bus = self.verb("bus", "turn what a Redis stream has into events, until interrupted")
        bus.add_argument("stream")
        bus.add_argument("--url", default=settings.REDIS_URL)
        bus.add_argument("--group", default="workflow")
        bus.add_argument("--types", default="", help="separated by commas; order.* takes all of them")
        bus.add_argument("--once", action="store_true", help="stop when the stream has nothing more")

    def _add_endpoint_verbs(self) -> None:
        self.verb("webhooks", "list webhook endpoints", shows=True)
        self.verb("webhook", "one endpoint with its secrets, without their texts", shows=True).add_argument("slug")
        adding = self.verb("add-webhook", "create an endpoint; prints its path and its secret once", shows=True)
        adding.add_argument("slug")
        adding.add_argument("--scheme", default="standard")
        adding.add_argument("--secret", default=None, help="what the sender gave you; else a random one")
        adding.add_argument("--workflow", default=None, help="also make a trigger that starts this workflow")
        adding.add_argument("--events", default="", help="its types, separated by commas")
        changing = self.verb("set-webhook", "change an endpoint")
        changing.add_argument("slug")
        for one in (adding, changing):
            one.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any field; JSON or text")
        rotating = self.verb("rotate", "give an endpoint a new secret; prints it once", shows=True)
        rotating.add_argument("slug")
        rotating.add_argument("--overlap", type=float, default=endpoints.DEFAULT_OVERLAP, help="seconds")
        rotating.add_argument("--secret", default=None, help="what the sender gave you; else a random one")
        ending = self.verb("end-secret", "end one secret before its overlap has passed")
        ending.add_argument("slug")
        ending.add_argument("hint", help="its last characters, as `webhook` shows them, or its id")
        for verb, text in (
            ("pause-webhook", "let an endpoint answer 503"),
            ("resume-webhook", "let an endpoint take deliveries again"),
            ("retire", "let an endpoint answer 410 for good"),
        ):
            moving = self.verb(verb, text)
            moving.add_argument("slug")
            moving.add_argument("--note", default="", help="why, for the audit trail")
        testing = self.verb("test-send", "deliver to an endpoint, signed by this server; it really happens", shows=True)
        testing.add_argument("slug")
        testing.add_argument("--body", default="{}", help="JSON, @file, or - for standard input")
        testing.add_argument("--delivery-id", default=None)
        logged = self.verb("deliveries", "what was delivered to an endpoint, with each trigger's verdict", shows=True)
        logged.add_argument("slug")
        logged.add_argument("--outcome", default=None, choices=DeliveryOutcome.values)
        logged.add_argument("--limit", type=int, default=20)
        counting = self.verb("stats", "what came to an endpoint, by outcome, and how long it took", shows=True)
        counting.add_argument("slug")
        counting.add_argument("--hours", type=int, default=24)

    # ── Triggers ─────────────────────────────────────────────────────────────────────────────────────────────

    def do_list(self, options: dict[str, Any]) -> None:
        now = clock.now()
        self.show(
            (
                {
                    "trigger": trigger.name,
                    "state": inspection.state_of(trigger, now=now),
                    "webhook": None if trigger.endpoint is None else trigger.endpoint.slug,
                    "types": ", ".join(trigger.event_types),
                    "workflow": trigger.workflow.name,
                }
                for trigger in Trigger.objects.select_related("workflow", "endpoint")
            ),
            ("trigger", "state", "webhook", "types", "workflow"),
        )

    def do_show(self, options: dict[str, Any]) -> None:
        trigger = find_trigger(options["name"])
        fields = ("event_types", "pattern", "authentication", "input", "throttle", "debounce", "batch", "start_at")
        self.show_one(
            {
                "name": trigger.name,
                "workflow": trigger.workflow.name,
                "webhook": None if trigger.endpoint is None else trigger.endpoint.slug,
                **{name: getattr(trigger, name) for name in (*fields, "end_at")},
                **inspection.status_of(trigger, now=clock.now()),
            }
        )

    def do_pause(self, options: dict[str, Any]) -> None:
        lifecycle.pause(find_trigger(options["name"]), actor=self.actor, note=options["note"])
        self.stdout.write("paused")

    def do_resume(self, options: dict[str, Any]) -> None:
        lifecycle.resume(find_trigger(options["name"]), actor=self.actor)
        self.stdout.write("resumed")

    # ── Webhook endpoints ────────────────────────────────────────────────────────────────────────────────────

    def do_webhooks(self, options: dict[str, Any]) -> None:
        self.show(
            (
                {"endpoint": one.slug, "state": one.state, "scheme": one.scheme, "path": one.path}
                for one in WebhookEndpoint.objects.all()
            ),
            ("endpoint", "state", "scheme", "path"),
        )

    def do_webhook(self, options: dict[str, Any]) -> None:
        endpoint = find_endpoint(options["slug"])
        names = [field.name for field in endpoint._meta.concrete_fields if field.name != "token"]
        secrets = [
            {"id": one.pk, "hint": one.hint, "created_at": one.created_at, "expires_at": one.expires_at}
            for one in endpoint.secrets.order_by("-pk")
        ]
        facts = {name: getattr(endpoint, name) for name in names}
        self.show_one({**facts, "path": endpoint.path, "secrets": secrets})

    def do_add_webhook(self, options: dict[str, Any]) -> None:
        values = {"scheme": options["scheme"], **settings_argument(options["set"])}
        slug, secret = options["slug"], options["secret"]
        types = [name.strip() for name in options["events"].split(",") if name.strip()]
        made: Any
        if options["workflow"] is None:
            if types:
                raise CommandError("--events are a trigger's, which needs a --workflow.")
            made = endpoints.create(slug, actor=self.actor, secret=secret, **values)
        else:
            made = lifecycle.subscribe(
                slug,
                workflow=options["workflow"],
                actor=self.actor,
                secret=secret,
                events=types,
                endpoint_values=values,
            )
        self._tell({"path": made.endpoint.path, "secret": made.secret})

    def do_set_webhook(self, options: dict[str, Any]) -> None:
        changes = settings_argument(options["set"])
        if not changes:
            raise CommandError("Name what to change: --set rate_per_minute=60.")
        endpoints.update(find_endpoint(options["slug"]), changes, actor=self.actor)
        self.stdout.write("saved")

    def do_rotate(self, options: dict[str, Any]) -> None:
        made = endpoints.rotate(
            find_endpoint(options["slug"]), actor=self.actor, overlap=options["overlap"], secret=options["secret"]
        )
        self._tell({"secret": made.secret})

    def do_end_secret(self, options: dict[str, Any]) -> None:
        endpoint, hint = find_endpoint(options["slug"]), options["hint"].lstrip("…")
        fitting = [one for one in endpoint.secrets.all() if hint and hint in {one.hint, str(one.pk)}]
        if len(fitting) != 1:
            raise CommandError(f"{len(fitting)} secrets of {endpoint.slug} end in {hint}; name one by its id.")
        endpoints.end_secret(endpoint, fitting[0].pk, actor=self.actor)
        self.stdout.write("ended")

    def do_pause_webhook(self, options: dict[str, Any]) -> None:
        endpoints.pause(find_endpoint(options["slug"]), actor=self.actor, note=options["note"])
        self.stdout.write("paused")

    def do_resume_webhook(self, options: dict[str, Any]) -> None:
        endpoints.resume(find_endpoint(options["slug"]), actor=self.actor)
        self.stdout.write("resumed")

    def do_retire(self, options: dict[str, Any]) -> None:
        endpoints.retire(find_endpoint(options["slug"]), actor=self.actor, note=options["note"])
        self.stdout.write("retired")

    def do_test_send(self, options: dict[str, Any]) -> None:
        body = json_argument(options["body"], name="--body")
        sent = self_delivery.send(find_endpoint(options["slug"]), body, delivery_id=options["delivery_id"])
        self.show_one({"status": sent.reply.status, "answer": sent.reply.body})
        if sent.reply.status >= 400:
            raise CommandError(f"The door answered {sent.reply.status}.")

    def do_deliveries(self, options: dict[str, Any]) -> None:
        found = Delivery.objects.filter(endpoint=find_endpoint(options["slug"])).order_by("-pk")
        if options["outcome"] is not None:
            found = found.filter(outcome=options["outcome"])
        names = ("received_at", "outcome", "status", "sender", "delivery_id", "event_id", "reason", "duration_ms")
        self.show(
            (
                {**{name: getattr(one, name) for name in names}, "verdicts": one.verdicts, "triggers": one.said}
                for one in found[: max(1, min(options["limit"], 1_000))]
            ),
            ("received_at", "outcome", "status", "sender", "event_id", "reason", "triggers"),
        )

    def do_stats(self, options: dict[str, Any]) -> None:
        if not 1 <= options["hours"] <= 24 * 90:
            raise CommandError(f"--hours must be 1 to {24 * 90}.")
        window = timedelta(hours=options["hours"])
        self.show_one(inspection.endpoint_stats_of(find_endpoint(options["slug"]), now=clock.now(), window=window))

    def _tell(self, facts: dict[str, str]) -> None:
        """What can be copied: one line each, never wrapped by a table."""
        if self.as_json:
            self.show_one(facts)
        else:
            width = max(map(len, facts)) + 1
            self.stdout.write("\n".join(f"{name + ':':{width}} {text}" for name, text in facts.items()))

    # ── By hand ──────────────────────────────────────────────────────────────────────────────────────────────

    def do_encrypt_again(self, options: dict[str, Any]) -> None:
        self.stdout.write(f"{endpoints.encrypt_again(actor=self.actor)} secrets")

    def do_flush(self, options: dict[str, Any]) -> None:
        done = maintenance.tend(using="default")
        self.stdout.write(f"{done.groups} groups, {done.news} news")

    def do_prune(self, options: dict[str, Any]) -> None:
        done = maintenance.prune()
        self.stdout.write(f"{done.events} events, {done.refusals} refusals, {done.secrets} secrets")

    def do_replay(self, options: dict[str, Any]) -> None:
        receipt = replay.replay(find_event(options["event"]), actor=self.actor)
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
