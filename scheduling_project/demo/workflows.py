"""The demo's workflows and schedules, as data."""

from __future__ import annotations

from datetime import datetime
from typing import Any

SHOWCASE = "sales-report"

WORKFLOWS: dict[str, dict[str, Any]] = {
    "sales-report": {
        "description": "Extracts orders, loads each shop, asks a flaky partner for a rate, writes a report.",
        "input": {
            "type": "object",
            "properties": {
                "orders": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 20},
            },
            "additionalProperties": False,
        },
        "steps": {
            "extract": {"task": "demo.tasks.extract", "with": {"orders": "${{ input.orders || `20` }}"}},
            "load": {
                "needs": ["extract"],
                "for_each": "${{ steps.extract.output.parts }}",
                "task": "demo.tasks.load",
                "with": {"part": "${{ item }}"},
            },
            "ask_partner": {"task": "demo.tasks.ask_partner", "with": {"fail_times": 2}},
            "report": {
                "needs": ["load", "ask_partner"],
                "task": "demo.tasks.report",
                "with": {
                    "day": "${{ steps.extract.output.day }}",
                    "rate": "${{ steps.ask_partner.output.rate }}",
                },
            },
        },
        "output": "${{ steps.report.output }}",
    },
    "invoice": {
        "description": "Reads an invoice and books it; a poisoned one ends in the dead letters.",
        "input": {"type": "object", "properties": {"invoice": {"type": "object"}}, "required": ["invoice"]},
        "steps": {
            "read": {"task": "demo.tasks.read_invoice", "with": {"invoice": "${{ input.invoice }}"}},
            "book": {
                "needs": ["read"],
                "task": "demo.tasks.book_invoice",
                "with": {
                    "number": "${{ steps.read.output.number }}",
                    "amount": "${{ steps.read.output.amount }}",
                },
            },
        },
    },
    "slow-sleep": {
        "description": "Sleeps; for trying out cancel, kill -9 of a worker and shutdown.",
        "input": {
            "type": "object",
            "properties": {"seconds": {"type": "number", "minimum": 0, "maximum": 3_600}},
            "required": ["seconds"],
        },
        "steps": {"sleep": {"task": "demo.tasks.sleep", "with": {"seconds": "${{ input.seconds }}"}}},
    },
    "nightly-cleanup": {
        "description": "A short step that stands for a nightly job.",
        "steps": {"clean": {"task": "demo.tasks.sleep", "with": {"seconds": 0.1}}},
    },
}


def schedules(*, first: datetime) -> list[dict[str, Any]]:
    """What the demo schedules; the interval ones begin at `first` (aware)."""

    def every(seconds: int) -> dict[str, Any]:
        return {"timetables": [{"kind": "interval", "every": seconds, "anchor": first.isoformat()}]}

    def cron(expression: str, timezone: str = "Europe/Berlin") -> dict[str, Any]:
        return {"timezone": timezone, "timetables": [{"kind": "cron", "expression": expression}]}

    return [
        {
            "name": "Sales report every 20 seconds",
            "description": "Fan-out over shops; the partner fails twice and is retried with backoff.",
            "workflow": "sales-report",
            "spec": every(20),
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
            "name": "A good invoice every minute",
            "workflow": "invoice",
            "input": {"invoice": {"number": "A-4712", "amount": 129.5}},
            "spec": every(60),
            "catch_up": "latest",
        },
        {
            "name": "Office hours check",
            "description": "Every quarter of an hour on working days in Berlin.",
            "workflow": "nightly-cleanup",
            "spec": cron("*/15 8-18 * * MON-FRI"),
            "catch_up": "none",
        },
        *(
            {
                "name": f"Nightly clean-up {number}",
                "description": "One of several at two o'clock: a hot spot, and a look at what summer time does.",
                "workflow": "nightly-cleanup",
                "spec": cron("0 2 * * *" if number < 6 else "30 2 * * *"),
                "catch_up": "latest",
                "priority": "low",
            }
            for number in range(1, 7)
        ),
    ]
