"""The demo's schedules and triggers, as data."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from scheduling_project.demo.workflows import NIGHTLY

#: The schedule whose page shows what summer time does.
BERLIN: Final = "Night shift hands over (Berlin)"
ENDPOINT: Final = "shop-orders"
#: What all want to do at two o'clock, until somebody spreads them.
NIGHT_JOBS: Final = (
    "Back up the warehouse",
    "Rebuild the search",
    "Export to accounting",
    "Reconcile payments",
    "Refresh forecasts",
    "Send statements",
    "Archive old orders",
    "Update the price list",
)
PRODUCTS: Final = {"tea": 40, "coffee": 80, "cocoa": 100}


def schedules(*, first: datetime) -> list[dict[str, Any]]:
    """What the demo schedules; those that repeat in seconds begin at `first` (aware), a little apart."""

    def every(seconds: int, *, after: int = 0) -> dict[str, Any]:
        anchor = (first + timedelta(seconds=after)).isoformat()
        return {"timetables": [{"kind": "interval", "every": seconds, "anchor": anchor}]}

    def cron(expression: str, timezone: str = "Europe/Berlin") -> dict[str, Any]:
        return {"timezone": timezone, "timetables": [{"kind": "cron", "expression": expression}]}

    return [
        {
            "name": "Sales report every 20 seconds",
            "description": "Fans out over the shops; the partner fails twice and is tried again with backoff.",
            "workflow": "sales-report",
            "spec": every(20),
            "catch_up": "latest",
        },
        {
            "name": "Exchange rates every 40 seconds",
            "description": "The partner's first answer is always 503.",
            "workflow": "exchange-rates",
            "spec": every(40, after=7),
            "catch_up": "latest",
        },
        {
            "name": "A good invoice every minute",
            "workflow": "invoice",
            "input": {"invoice": {"number": "A-4712", "amount": 129.5}},
            "spec": every(60, after=3),
            "catch_up": "latest",
        },
        {
            "name": "A poisoned invoice every ten minutes",
            "description": "Fails for good and lands in the dead letters, until somebody edits and redrives it.",
            "workflow": "invoice",
            "input": {"invoice": {"number": "A-4711", "amount": "twelve"}},
            "spec": every(600),
            "catch_up": "latest",
        },
        {
            "name": "Stock check every minute",
            "workflow": "stock-check",
            "spec": every(60, after=33),
            "catch_up": "none",
        },
        {
            "name": "Close the month",
            "description": "Waits for somebody's approval: Skip, Approve and Reject are on the execution's page.",
            "workflow": "close-month",
            "spec": {"timetables": [{"kind": "once", "at": (first + timedelta(seconds=45)).isoformat()}]},
            "priority": "high",
        },
        {
            "name": "Roll up the last hours",
            "description": "A job as those of the night, by day: so that their length is known.",
            "workflow": NIGHTLY,
            "input": {"job": "roll up"},
            "spec": every(120, after=15),
            "catch_up": "none",
            "priority": "low",
        },
        {
            "name": BERLIN,
            "description": "Half past two does not exist on the last Sunday of March, and comes twice in October.",
            "workflow": "stock-check",
            "spec": cron("30 2 * * *"),
            "catch_up": "latest",
        },
        {
            "name": "Office hours check",
            "description": "Every quarter of an hour on working days in Berlin.",
            "workflow": "stock-check",
            "spec": cron("*/15 8-18 * * MON-FRI"),
            "catch_up": "none",
        },
        {
            "name": "Payroll on the last working day",
            "description": "The last weekday of the month, at nine in Lisbon.",
            "workflow": "stock-check",
            "spec": cron("0 9 LW * *", "Europe/Lisbon"),
            "catch_up": "all",
            "priority": "high",
        },
        *(
            {
                "name": f"Night: {job[0].lower()}{job[1:]}",
                "description": "One of several that all want two o'clock: the hot spot that “Spread” flattens.",
                "workflow": NIGHTLY,
                "input": {"job": job},
                "spec": cron("0 2 * * *"),
                "catch_up": "latest",
                "priority": "low",
            }
            for job in NIGHT_JOBS
        ),
    ]


#: Triggers; the first takes what the endpoint receives, the others what executions tell.
TRIGGERS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "An order arrives",
        "description": "What the shop's signed webhook delivers.",
        "workflow": "order-intake",
        "endpoint": ENDPOINT,
        "event_types": ["order.placed"],
    },
    {
        "name": "A booked order is shipped",
        "description": "A workflow that follows on a workflow.",
        "workflow": "ship-order",
        "event_types": ["order.booked"],
    },
    {
        "name": "Stock runs low",
        "description": "Several such events within five seconds are one order.",
        "workflow": "order-anew",
        "event_types": ["stock.low"],
        "debounce": {"period": 5, "timeout": 30},
    },
    {
        "name": "An invoice has failed",
        "description": "Of the executions that fail only those of one workflow.",
        "workflow": "open-ticket",
        "event_types": ["execution.failed"],
        "pattern": {"data": {"workflow": ["invoice"]}},
    },
)
