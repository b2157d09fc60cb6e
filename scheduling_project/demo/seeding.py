"""Makes the demo: once, and what you changed since is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from execution import pools, workflows
from execution.models import Pool, Workflow
from schedules import lifecycle
from schedules.models import Schedule
from scheduling_project.common import clock
from scheduling_project.demo.models import Product
from scheduling_project.demo.schedules import ENDPOINT, PRODUCTS, TRIGGERS, schedules
from scheduling_project.demo.workflows import SHOWCASE, TERMINALS, WORKFLOWS
from triggers import endpoints
from triggers import lifecycle as trigger_lifecycle
from triggers.models import Trigger, WebhookEndpoint

ACTOR: Final = "demo"
FIRST_FIRE: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Seeded:
    """How many of each were made."""

    workflows: int
    schedules: int
    triggers: int


def seed() -> Seeded:
    """Make what is missing of the demo: stock, workflows, schedules, an endpoint and triggers."""
    Product.objects.bulk_create(
        [Product(name=name, units=units) for name, units in PRODUCTS.items()], ignore_conflicts=True
    )
    name, slots = TERMINALS
    if not Pool.objects.filter(name=name).exists():
        pools.create(name, slots=slots, description="Terminals at which the demo charges orders", actor=ACTOR)
    return Seeded(_workflows(), _schedules(), _triggers())


def _workflows() -> int:
    known = set(Workflow.objects.values_list("name", flat=True))
    missing = {name: definition for name, definition in WORKFLOWS.items() if name not in known}
    for name, definition in missing.items():
        labels = {"demo": "yes", **({"showcase": "yes"} if name == SHOWCASE else {})}
        workflows.create(name, definition, actor=ACTOR, description=definition["description"], labels=labels)
    return len(missing)


def _schedules() -> int:
    known = set(Schedule.objects.values_list("name", flat=True))
    made = 0
    for place, name in enumerate([wanted["name"] for wanted in schedules(first=clock.now())]):
        if name not in known:
            # The clock is read for each: on a slow machine the first fire of the last would have passed already.
            wanted = schedules(first=clock.now() + FIRST_FIRE)[place]
            workflow = Workflow.objects.get(name=wanted["workflow"])
            lifecycle.create(actor=ACTOR, **(wanted | {"workflow": workflow}))
            made += 1
    return made


def _triggers() -> int:
    if not WebhookEndpoint.objects.filter(slug=ENDPOINT).exists():
        endpoints.create(ENDPOINT, actor=ACTOR, description="Where the demo's shop delivers its orders")
    known = set(Trigger.objects.values_list("name", flat=True))
    missing: list[dict[str, Any]] = [dict(wanted) for wanted in TRIGGERS if wanted["name"] not in known]
    for wanted in missing:
        trigger_lifecycle.create(wanted.pop("name"), actor=ACTOR, **wanted)
    return len(missing)
