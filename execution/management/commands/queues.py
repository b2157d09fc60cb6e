"""Queues from the command line: what waits and runs, what comes next, pools and concurrency keys, and the switches."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from execution import pools, queue_order, queues
from execution.api.serializers import (
    ConcurrencyKeyDetailSerializer,
    ConcurrencyKeySerializer,
    PoolDetailSerializer,
    PoolSerializer,
    QueueSerializer,
    StepRunSerializer,
)
from execution.models import ConcurrencyKey, Pool, StepRun
from scheduling_project.common import clock
from scheduling_project.common.console import VerbCommand, ago, id_argument, limit_argument

COLUMNS = ("queue", "status", "waiting", "in_flight", "running", "later", "oldest", "workers", "slots", "note")


class Command(VerbCommand):
    help = "List, peek, pause, drain, resume and reorder queues; list and size pools; list concurrency keys."
    examples = """
queues list
queues peek default --limit 10
queues pause io --note "the warehouse is away"
queues drain default               pause it; its status is drained when nothing of it runs
queues reorder default 019a5e0c-… first
queues pools
queues set-pool warehouse 8
queues keys
"""

    def add_verbs(self, parser: CommandParser) -> None:
        listing = self.verb("list", "queues with what waits, is in flight and runs", shows=True)
        listing.add_argument("--levels", action="store_true", help="each priority on a line of its own")
        peeking = self.verb("peek", "what comes next, in the order in which it will be claimed", shows=True)
        peeking.add_argument("queue")
        peeking.add_argument("--limit", type=limit_argument, default=20)
        for verb, text in (
            ("pause", "let no worker claim from it; what runs is left to end"),
            ("drain", "pause it in order to become empty"),
        ):
            one = self.verb(verb, text)
            one.add_argument("queue")
            one.add_argument("--note", default="", help="why, for the audit trail")
        self.verb("resume", "let workers claim from it again").add_argument("queue")
        moving = self.verb("reorder", "put something that waits first, last, or right before or after another")
        moving.add_argument("queue")
        moving.add_argument("item", help="id of a step run, or of an execution")
        moving.add_argument("place", choices=queue_order.PLACES)
        moving.add_argument("other", nargs="?", help="for before and after: likewise an id")
        self.verb("pools", "pools with how full they are", shows=True)
        self.verb("pool", "one pool, who holds its slots and who waits", shows=True).add_argument("name")
        sizing = self.verb("set-pool", "make a pool, or give it another size")
        sizing.add_argument("name")
        sizing.add_argument("slots", type=int)
        sizing.add_argument("--description")
        self.verb("delete-pool", "delete a pool that nobody holds or waits for").add_argument("name")
        self.verb("keys", "concurrency keys in use", shows=True).add_argument(
            "--limit", type=limit_argument, default=100
        )
        self.verb("key", "one key, who has its places and who waits", shows=True).add_argument("key")

    # ── Queues ──

    def do_list(self, options: dict[str, Any]) -> None:
        found, now = queues.stats(), clock.now()
        if self.as_json:
            self.print_json(QueueSerializer(found, many=True).data)
            return
        if options["levels"]:
            self.show(
                {
                    "queue": state.name,
                    "priority": level.priority,
                    **{name: getattr(level, name) for name in ("waiting", "in_flight", "running", "later")},
                    "oldest": ago(level.oldest_at, now),
                }
                for state in found
                for level in state.levels
            )
            return
        self.show(
            (
                {
                    "queue": state.name,
                    "status": state.status,
                    **{name: state.total(name) for name in ("waiting", "in_flight", "running", "later")},
                    "oldest": ago(state.oldest_at, now),
                    "workers": state.workers,
                    "slots": state.slots,
                    "note": f"{state.paused_by}: {state.pause_note}".strip(": "),
                }
                for state in found
            ),
            COLUMNS,
        )

    def do_peek(self, options: dict[str, Any]) -> None:
        ids = queues.peek(options["queue"], limit=options["limit"])
        runs = StepRun.objects.in_bulk(ids)
        found, now = [runs[run_id] for run_id in ids if run_id in runs], clock.now()
        if self.as_json:
            self.print_json(StepRunSerializer(found, many=True).data)
            return
        self.show(
            (
                {
                    "step_run": run.pk,
                    "step": str(run),
                    "execution": run.execution_id,
                    "priority": run.priority,
                    "state": run.state,
                    "sent": "yes" if run.dispatched_at else "",
                    "waits": ago(run.available_at, now)
                    if run.available_at <= now
                    else f"until {run.available_at:%H:%M:%S}",
                }
                for run in found
            ),
            ("step_run", "step", "execution", "priority", "state", "sent", "waits"),
        )

    def do_pause(self, options: dict[str, Any]) -> None:
        queues.pause(options["queue"], actor=self.actor, note=options["note"], using="default")
        self.stdout.write("paused")

    def do_drain(self, options: dict[str, Any]) -> None:
        queues.drain(options["queue"], actor=self.actor, note=options["note"], using="default")
        self.stdout.write("draining")

    def do_resume(self, options: dict[str, Any]) -> None:
        queues.resume(options["queue"], actor=self.actor, using="default")
        self.stdout.write("resumed")

    def do_reorder(self, options: dict[str, Any]) -> None:
        item = id_argument(options["item"], what="step run or execution")
        other = None if options["other"] is None else id_argument(options["other"], what="step run or execution")
        queue_order.reorder(options["queue"], item, options["place"], other=other, actor=self.actor, using="default")
        self.stdout.write("moved")

    # ── Pools and keys ──

    def do_pools(self, options: dict[str, Any]) -> None:
        found = PoolSerializer(Pool.objects.order_by("name"), many=True, context={"waiting": pools.waiting()}).data
        self.show(found, ("name", "slots", "used", "free", "waiting", "description"))

    def do_pool(self, options: dict[str, Any]) -> None:
        pool = pools.get(options["name"])
        context = {
            "waiting": pools.waiting(pool.name),
            "holders": pools.holders(pool.name),
            "waiters": pools.waiters(pool.name),
        }
        self.show_one(PoolDetailSerializer(pool, context=context).data)

    def do_set_pool(self, options: dict[str, Any]) -> None:
        name, values = options["name"], {"slots": options["slots"]}
        given = values if options["description"] is None else values | {"description": options["description"]}
        if Pool.objects.filter(pk=name).exists():
            pools.update(name, **given, actor=self.actor)
        else:
            pools.create(name, **given, actor=self.actor)
        self.stdout.write(f"{name} has {options['slots']} slots")

    def do_delete_pool(self, options: dict[str, Any]) -> None:
        pools.delete(options["name"], actor=self.actor)
        self.stdout.write("deleted")

    def do_keys(self, options: dict[str, Any]) -> None:
        found = ConcurrencyKeySerializer(ConcurrencyKey.objects.order_by("key")[: options["limit"]], many=True).data
        self.show(found, ("key", "limit", "used"))

    def do_key(self, options: dict[str, Any]) -> None:
        key = pools.get_key(options["key"])
        context = {"holders": pools.key_holders(key.key), "waiters": pools.key_waiters(key.key)}
        self.show_one(ConcurrencyKeyDetailSerializer(key, context=context).data)
