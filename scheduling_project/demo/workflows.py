"""The demo's workflows, as data."""

from __future__ import annotations

from typing import Any, Final

SHOWCASE: Final = "sales-report"
TRY_IT: Final = "try-it"
NIGHTLY: Final = "night-job"
#: The pool of the terminals at which orders are charged, and its slots.
TERMINALS: Final = ("card-terminals", 2)

WORKFLOWS: Final[dict[str, dict[str, Any]]] = {
    "sales-report": {
        "description": "Extracts sales, loads each shop, asks a flaky partner for a rate, writes a report.",
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
        "finally": {"tidy_up": {"task": "demo.tasks.tidy_up"}},
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
    "order-intake": {
        "description": "Takes an order that came by webhook: reserves it, charges it, tells what follows.",
        "input": {
            "type": "object",
            "properties": {
                "order_id": {"type": "string", "minLength": 1, "maxLength": 60},
                "product": {"type": "string"},
                "units": {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 1},
            },
            "required": ["order_id", "product"],
        },
        "steps": {
            "reserve": {
                "task": "demo.tasks.reserve",
                "with": {
                    "order_id": "${{ input.order_id }}",
                    "product": "${{ input.product }}",
                    "units": "${{ input.units || `1` }}",
                },
            },
            "charge": {
                "needs": ["reserve"],
                "task": "demo.tasks.charge",
                "with": {"order_id": "${{ input.order_id }}"},
                "pool": {"name": TERMINALS[0], "units": 1},
                "rate": {"key": "charges", "limit": 5, "per": 1, "burst": 5},
            },
            "booked": {
                "needs": ["charge"],
                "emit": {"type": "order.booked", "data": {"order_id": "${{ input.order_id }}"}},
            },
            "low": {
                "needs": ["reserve"],
                "when": {"steps": {"reserve": {"output": {"left": [{"numeric": ["<", 20]}]}}}},
                "emit": {"type": "stock.low", "data": {"product": "${{ input.product }}"}},
            },
        },
        "on_failure": {"give_back": {"task": "demo.tasks.give_back", "with": {"order_id": "${{ input.order_id }}"}}},
        "concurrency": {"key": "order-${{ input.order_id }}", "limit": 1},
    },
    "ship-order": {
        "description": "Follows on every booked order: writes the label, and hands the parcel over.",
        "input": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
        "steps": {
            "label": {"task": "demo.tasks.write_label", "with": {"order_id": "${{ input.order_id }}"}},
            "courier": {"needs": ["label"], "wait": 1},
            "shipped": {
                "needs": ["courier"],
                "emit": {"type": "order.shipped", "data": {"order_id": "${{ input.order_id }}"}},
            },
        },
    },
    "order-anew": {
        "description": "Fills the stock of a product up.",
        "input": {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]},
        "steps": {"order": {"task": "demo.tasks.order_anew", "with": {"product": "${{ input.product }}"}}},
    },
    "open-ticket": {
        "description": "Follows on every failed invoice: notes it for the people who look after it.",
        "steps": {
            "ticket": {
                "task": "demo.tasks.open_ticket",
                "with": {
                    "workflow": "${{ input.workflow }}",
                    "execution": "${{ input.execution }}",
                    "reason": "${{ input.reason }}",
                },
            }
        },
    },
    "exchange-rates": {
        "description": "Asks the partner for today's rates and publishes them.",
        "steps": {
            "ask": {"task": "demo.tasks.ask_partner", "with": {"fail_times": 1}},
            "publish": {
                "needs": ["ask"],
                "task": "demo.tasks.publish",
                "with": {"name": "rates", "content": "${{ steps.ask.output.rates }}"},
            },
        },
    },
    "stock-check": {
        "description": "Counts what the warehouse holds, and publishes it.",
        "steps": {
            "count": {"task": "demo.tasks.count_stock"},
            "publish": {
                "needs": ["count"],
                "task": "demo.tasks.publish",
                "with": {"name": "stock", "content": "${{ steps.count.output }}"},
            },
        },
    },
    "close-month": {
        "description": "Adds the shops up and publishes the sum once somebody has approved it.",
        "steps": {
            "totals": {"task": "demo.tasks.totals"},
            "approve": {"needs": ["totals"], "approval": {"expires": "30d", "message": "Are these sums right?"}},
            "publish": {
                "needs": ["approve"],
                "task": "demo.tasks.publish",
                "with": {"name": "month", "content": "${{ steps.totals.output.shops }}"},
            },
        },
    },
    NIGHTLY: {
        "description": "Stands for the jobs of a night: it takes six seconds of a worker.",
        "input": {"type": "object", "properties": {"job": {"type": "string"}}},
        "steps": {"work": {"task": "demo.tasks.sleep", "with": {"seconds": 6}}},
    },
    TRY_IT: {
        "description": "Breaks a step on purpose: it is tried three times, then waits in the dead letters.",
        "input": {
            "type": "object",
            "properties": {"broken": {"type": "boolean", "default": True}},
            "additionalProperties": False,
        },
        "steps": {
            "before": {"task": "demo.tasks.sleep", "with": {"seconds": 0.5}},
            "fragile": {
                "needs": ["before"],
                "task": "demo.tasks.fragile",
                "with": {"broken": "${{ input.broken }}"},
            },
            "after": {"needs": ["fragile"], "task": "demo.tasks.sleep", "with": {"seconds": 0.5}},
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
}
