"""The demo's workflows and schedules, as data."""

from __future__ import annotations

from typing import Any

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
