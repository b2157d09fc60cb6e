"""Events from the command line: the inbox, publishing, and replaying."""

from __future__ import annotations

from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from scheduling_project.common.console import instant_argument, json_argument
from triggers import event_types, ingest, inspection, lifecycle, replay
from triggers.api.filters import by_type
from triggers.arrivals import Sender
from triggers.management.console import VerbCommand, find_event, find_trigger
from triggers.models import Event

MOST: Final = 1_000


class Command(VerbCommand):
    help = "List, show, publish and replay events."
    examples = """
events list --type "order.*" --limit 50
events publish order.paid --data @order.json --id order-4711
events replay 019a5e0c-7b1c-7a52-9d0e-5b1f0a6c2d44
events replay --after 2026-03-01T00:00:00Z --before 2026-03-02T00:00:00Z --type order.paid
"""

    def add_verbs(self, parser: CommandParser) -> None:
        listing = self.verb("list", "the latest events", shows=True)
        listing.add_argument("--type", default="", help="exact, or a prefix that ends in *")
        listing.add_argument("--endpoint", default=None, help="slug or id of a webhook endpoint")
        listing.add_argument("--after", default=None, help="received from this instant on")
        listing.add_argument("--before", default=None, help="received before this instant")
        listing.add_argument("--limit", type=int, default=20, help=f"at most {MOST}")
        showing = self.verb("show", "one event, and what triggers made of it", shows=True)
        showing.add_argument("event", help="its id")
        publishing = self.verb("publish", "publish an event; a repeat of source and id starts nothing", shows=True)
        publishing.add_argument("type")
        publishing.add_argument("--data", default="null", help="JSON, @file, or - for standard input")
        publishing.add_argument("--source", default="/command")
        publishing.add_argument("--subject", default="")
        publishing.add_argument("--id", default=None)
        replaying = self.verb("replay", "let the triggers of today have events again, as new ones", shows=True)
        replaying.add_argument("event", nargs="*", help="ids; none: a range of time")
        replaying.add_argument("--after", default=None, help="received from this instant on")
        replaying.add_argument("--before", default=None, help="received before this instant")
        replaying.add_argument("--type", default="")
        replaying.add_argument("--endpoint", default=None)
        replaying.add_argument("--trigger", action="append", default=None, help="these triggers alone")

    def do_list(self, options: dict[str, Any]) -> None:
        events = self._chosen(options).select_related("endpoint").defer("raw", "data", "headers").order_by("-pk")
        limit = max(1, min(options["limit"], MOST))
        self.show(
            (
                {
                    "id": event.pk,
                    "type": event.type,
                    "source": event.source,
                    "subject": event.subject,
                    "endpoint": None if event.endpoint is None else event.endpoint.slug,
                    "producer": event.producer,
                    "received_at": event.received_at,
                }
                for event in events[:limit]
            ),
            ("id", "type", "source", "subject", "endpoint", "received_at"),
        )

    def do_show(self, options: dict[str, Any]) -> None:
        event = find_event(options["event"])
        made = event.activations.select_related("trigger").order_by("pk")
        self.show_one(
            {
                "id": event.pk,
                "type": event.type,
                "source": event.source,
                "subject": event.subject,
                "time": event.time,
                "received_at": event.received_at,
                "endpoint": None if event.endpoint is None else event.endpoint.slug,
                "producer": event.producer,
                "delivery_id": event.delivery_id,
                "replay_of": event.replay_of_id,
                "depth": event.depth,
                "headers": event.headers,
                "data": event.data,
                "activations": [
                    {
                        "trigger": one.trigger.name,
                        "state": one.state,
                        "execution": one.execution_id,
                        "reason": one.reason,
                    }
                    for one in made
                ],
                "triggers_of_today": inspection.verdicts_now(event),
            }
        )

    def do_publish(self, options: dict[str, Any]) -> None:
        data = json_argument(options["data"], name="--data")
        event_types.check(options["type"], data)
        receipt = ingest.publish_event(
            options["type"],
            data,
            source=options["source"],
            subject=options["subject"],
            id=options["id"],
            sender=Sender(self.actor),
        )
        self.show_one(receipt.as_json())

    def do_replay(self, options: dict[str, Any]) -> None:
        chosen = None if options["trigger"] is None else [find_trigger(name).pk for name in options["trigger"]]
        if options["event"]:
            events = [find_event(text) for text in options["event"]]  # all are there before the first is replayed
            receipts = [replay.replay(event, actor=self.actor, trigger_ids=chosen) for event in events]
        else:
            if options["after"] is None or options["before"] is None:
                raise CommandError("Name the events, or a range with --after and --before.")
            events_of_range = self._chosen(options).filter(replay_of__isnull=True)
            receipts = replay.replay_many(events_of_range, actor=self.actor, trigger_ids=chosen)
        self.show((receipt.as_json() for receipt in receipts), ("event_id", "activation_ids", "execution_ids"))

    def _chosen(self, options: dict[str, Any]) -> Any:
        events = Event.objects.all()
        if options["type"]:
            events = by_type(events, "type", options["type"])
        endpoint = lifecycle.find_endpoint(options["endpoint"])
        if endpoint is not None:
            events = events.filter(endpoint=endpoint)
        if options["after"] is not None:
            events = events.filter(received_at__gte=instant_argument(options["after"], name="--after"))
        if options["before"] is not None:
            events = events.filter(received_at__lt=instant_argument(options["before"], name="--before"))
        return events
