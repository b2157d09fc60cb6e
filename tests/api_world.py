"""A small installation in which each operation of the API can succeed, with the example that the document shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User

from execution import creation, lifecycle, pools, queues, secret_store, workers, workflows
from execution.models import ConcurrencyKey, DeadLetter, ProcessReport, RedriveJob, Workflow
from execution.notifications import rules
from schedules import lifecycle as schedules
from schedules import optimization, shared_calendars, switch
from schedules.models import Backfill, OptimizationChange
from scheduling_project.api_description.examples import REQUESTS, SOME_ID
from scheduling_project.common import clock
from tests import factories
from tests.execution.flow import begin, fail, http, step
from triggers import catalog, endpoints, event_types, ingest
from triggers import lifecycle as triggers
from triggers.auth import keys
from triggers.models import Activation, Event


@dataclass
class World:
    """Ids by the path that they belong to; `before` makes an operation possible that is not as things are."""

    ids: dict[str, str] = field(default_factory=dict)
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    item: str = ""

    def url(self, path: str) -> str:
        """The path with ids of what is there."""
        filled = path
        for prefix in sorted(self.ids, key=len, reverse=True):
            if filled.startswith(prefix) and "{" in filled:
                filled = re.sub(r"\{(id|name)\}", self.ids[prefix], filled, count=1)
                break
        filled = filled.replace("{step}", self.ids["step"]).replace("{secret}", self.ids["secret"])
        return filled.replace("{number}", "1")

    def shown_at(self, path: str) -> str:
        """Where what an operation changes is shown."""
        if path.startswith("/api/executions/{id}/steps/{step}"):
            return self.url("/api/executions/{id}/steps/{step}")
        return self.url(path if "{" not in path else path[: path.index("}") + 1])

    def query(self, operation: str) -> str:
        """The parameters that an operation cannot do without."""
        return "?before=1&after=1" if operation == "GET /api/workflows/{id}/diff" else ""

    def body(self, operation: str) -> Any:
        """The document's example for an operation, about what is here; None where it takes no body."""
        example = REQUESTS.get(operation)
        if isinstance(example, dict) and "changes" in example and operation.startswith("POST /api/optimizer"):
            return {**example, "changes": [self.ids["change"]]}
        if isinstance(example, dict) and example.get("item") == SOME_ID:
            return {**example, "item": self.item}
        return example

    def prepare(self, operation: str) -> None:
        """Make the operation possible."""
        self.before.get(operation, lambda: None)()


def build() -> World:
    """Everything that has an address."""
    catalog.expire_now()
    ada = User.objects.get_or_create(username="ada", is_superuser=True)[0]
    world = World()
    workflow = workflows.create("daily-report", REQUESTS["POST /api/workflows"]["definition"], actor="ada")
    _schedules(world)
    _executions(world, workflow)
    _triggers(world, ada)
    ConcurrencyKey.objects.create(key="customer-1")
    pools.create("warehouse-2", slots=2, actor="ada")
    ProcessReport.objects.create(name="w1@host", kind="worker", host="host", pid=1, seen_at=clock.now())
    secret_store.set_secret("TOKEN", "a-secret-value", actor="ada")
    rule = rules.create({"name": "rule", "kind": "failed", "webhook_url": "https://example.org/"}, actor="ada").rule
    world.ids |= {
        "/api/workflows": "daily-report",
        "/api/queues": "default",
        "/api/pools": "warehouse-2",
        "/api/concurrency-keys": "customer-1",
        "/api/processes": "w1@host",
        "/api/secrets": "TOKEN",
        "/api/notifications/rules": str(rule.pk),
    }
    world.before |= {
        "POST /api/queues/{id}/resume": lambda: queues.pause("default", actor="ada"),
        "POST /api/processes/{id}/resume": lambda: workers.pause("w1@host", actor="ada"),
        "DELETE /api/workflows/{id}": lambda: _unused(world),
    }
    return world


def _unused(world: World) -> None:
    factories.make_workflow("unused")
    world.ids["/api/workflows"] = "unused"


def _schedules(world: World) -> None:
    spec = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}], "timezone": "Europe/Berlin"}
    made = schedules.create(
        name="other nights", workflow="daily-report", spec=spec, actor="ada", input={"day": "2026-03-01"}
    )
    calendar = shared_calendars.create(
        name="holidays", definition={"kind": "holidays", "country": "DE"}, description="", actor="ada"
    )
    now = clock.now()
    backfill = Backfill.objects.create(
        schedule=made, since=now - timedelta(days=2), until=now - timedelta(days=1), created_by="ada"
    )
    report = optimization.report(actor="ada", days=1)
    change = OptimizationChange.objects.create(
        report=report,
        kind="priority",
        subject_kind="schedule",
        subject=str(made.pk),
        label=made.name,
        reason="two meet",
        changes={"priority": 3},
        before={"priority": 6},
        effect={},
        revision=made.revision,
        schedule=made,
    )
    world.ids |= {
        "/api/schedules": str(made.pk),
        "/api/calendars": str(calendar.pk),
        "/api/backfills": str(backfill.pk),
        "/api/optimizer": str(report.pk),
        "change": str(change.pk),
    }
    world.before |= {
        "POST /api/schedules/{id}/resume": lambda: _quietly(schedules.pause(made.pk, actor="ada")),
        "POST /api/optimizer/{id}/revert": lambda: _quietly(
            optimization.apply(report.pk, actor="ada", changes=[change.pk])
        ),
        "PUT /api/schedules/switch": lambda: _quietly(switch.start(actor="ada")),
    }


def _quietly(made: Any) -> None:
    """What was made is not needed."""


def _executions(world: World, workflow: Workflow) -> None:
    running = begin({"approve": {"approval": {}}, "late": http()})
    failed = creation.start(workflow, input={"day": "2026-03-01"})
    fail(failed, "fetch")
    job = RedriveJob.objects.create(created_by="ada", mode="resume", total=1)
    world.item = str(step(running, "late").pk)
    world.ids |= {
        "/api/executions": str(running.pk),
        "step": str(step(running, "approve").pk),
        "/api/dead-letters": str(DeadLetter.objects.get(execution=failed).pk),
        "/api/dead-letters/redrive-jobs": str(job.pk),
        "failed": str(failed.pk),
    }

    def use_failed() -> None:
        world.ids["/api/executions"] = str(failed.pk)

    world.before |= {
        "POST /api/executions/{id}/resume": lambda: _quietly(lifecycle.pause(running.pk, actor="ada")),
        "POST /api/executions/{id}/resume-from-failure": use_failed,
        "POST /api/executions/{id}/rerun": use_failed,
    }


def _triggers(world: World, ada: User) -> None:
    made = triggers.subscribe("orders", workflow="daily-report", actor="ada", events=["order.*"])
    broken = triggers.create(
        "broken", workflow="daily-report", actor="ada", event_types=["a"], input="${{ abs(event.data) }}"
    )
    event_types.register("order.shipped", actor="ada")
    receipt = ingest.publish_event("a", "b", id="1")
    key, _ = keys.create("machine", user=ada, actor="ada")
    spare = endpoints.create("spare", actor="ada").endpoint
    rotated = endpoints.rotate(made.endpoint, actor="ada").endpoint
    activation = Activation.objects.get(trigger=broken)
    world.ids |= {
        "/api/triggers": str(made.trigger.pk),
        "/api/webhooks": str(made.endpoint.pk),
        "secret": str(rotated.secrets.order_by("created_at").first().pk),  # type: ignore[union-attr]
        "/api/events": str(Event.objects.get(pk=receipt.event_id).pk),
        "/api/event-types": "order.shipped",
        "/api/activations": str(activation.pk),
        "/api/api-keys": str(key.pk),
    }

    def use_spare() -> None:
        world.ids["/api/webhooks"] = str(spare.pk)

    def mend() -> None:
        triggers.update(broken, {"input": {}}, actor="ada")

    world.before |= {
        "DELETE /api/webhooks/{id}": use_spare,
        "POST /api/activations/{id}/retry": mend,
        "POST /api/webhooks/{id}/resume": lambda: _quietly(endpoints.pause(made.endpoint, actor="ada")),
        "POST /api/triggers/{id}/resume": lambda: _quietly(triggers.pause(made.trigger, actor="ada")),
    }
