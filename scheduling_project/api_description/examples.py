"""One example of every request body, by operation. The tests send each of them; what is documented works."""

from __future__ import annotations

from typing import Any, Final

#: Where an example names something by its id, it is this one.
SOME_ID: Final = "019a3c1e-7b1c-7a52-9d0e-5b1f0a6c2d44"

_NOTE: Final = {"note": "agreed with the data team"}
_DEFINITION: Final = {
    "input": {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}},
    "steps": {
        "fetch": {
            "http": {"url": "https://example.org/reports/${{ input.day }}"},
            "retry": {"max_attempts": 5, "backoff": 2, "retry_on": ["5xx", "timeout"]},
        },
        "store": {"needs": ["fetch"], "http": {"method": "PUT", "url": "https://example.org/store"}},
    },
    "output": "${{ steps.store.output.status }}",
}
_SCHEDULE: Final = {
    "workflow": "daily-report",
    "name": "every night",
    "cron_expression": "0 2 * * *",
    "timezone": "Europe/Berlin",
    "enabled": True,
    "start_date": "2026-01-01",
    "end_date": None,
    "max_executions": None,
    "retry_policy": {"max_attempts": 3, "backoff": 10},
    "metadata": {"team": "data"},
}
_CALENDAR: Final = {
    "name": "public-holidays",
    "description": "Nothing runs on these days.",
    "definition": {"kind": "holidays", "country": "DE", "subdivision": "BE"},
}
_TRIGGER: Final = {
    "name": "paid-orders",
    "workflow": "daily-report",
    "event_types": ["order.paid"],
    "pattern": {"data": {"total": [{"numeric": [">", 100]}]}},
    "input": {"day": "${{ event.data.day }}"},
}
_SELECTION: Final = {"workflow": "daily-report", "error_type": "ValueError", "limit": 1, "note": "a canary"}

REQUESTS: Final[dict[str, Any]] = {
    # ── Signing in ──
    "POST /api/token": {"username": "ada", "password": "correct horse battery staple"},
    "POST /api/token/refresh": {"refresh": "eyJhbGciOiJIUzI1NiIs…"},
    "POST /api/token/blacklist": {"refresh": "eyJhbGciOiJIUzI1NiIs…"},
    "POST /api/api-keys": {"name": "nightly export", "scopes": ["read", "operate"], "expires_at": None},
    # ── Workflows and executions ──
    "POST /api/workflows": {"name": "monthly-report", "definition": _DEFINITION, "labels": {"team": "data"}},
    "PUT /api/workflows/{id}": {"name": "daily-report", "definition": _DEFINITION, "note": "store by PUT"},
    "PATCH /api/workflows/{id}": {"description": "Fetches and stores the report of a day.", "priority": "high"},
    "POST /api/workflows/{id}/versions": {"definition": _DEFINITION, "note": "to be reviewed"},
    "POST /api/workflows/{id}/versions/{number}/publish": _NOTE,
    "POST /api/workflows/{id}/start": {"input": {"day": "2026-03-01"}, "priority": "high"},
    "POST /api/executions": {
        "workflow": "daily-report",
        "input": {"day": "2026-03-01"},
        "idempotency_key": "report-2026-03-01",
    },
    "POST /api/executions/{id}/cancel": {"reason": "started for the wrong day"},
    "POST /api/executions/{id}/pause": _NOTE,
    "POST /api/executions/{id}/rerun": {"input": {"day": "2026-03-02"}, "latest": True},
    "POST /api/executions/{id}/resume-from-failure": {"note": "the receiver is back"},
    "POST /api/executions/{id}/priority": {"priority": "critical"},
    "PUT /api/executions/{id}/priority": {"priority": 0},
    "PATCH /api/executions/{id}/priority": {"priority": "critical"},
    "POST /api/executions/{id}/steps/{step}/approve": _NOTE,
    "POST /api/executions/{id}/steps/{step}/reject": _NOTE,
    "POST /api/executions/{id}/steps/{step}/skip": _NOTE,
    "POST /api/executions/{id}/steps/{step}/succeed": {"output": {"status": 200}, "note": "done by hand"},
    # ── Dead letters ──
    "POST /api/dead-letters/{id}/redrive": {"mode": "resume", "note": "the receiver is back"},
    "POST /api/dead-letters/{id}/discard": _NOTE,
    "POST /api/dead-letters/bulk/redrive": {**_SELECTION, "mode": "restart"},
    "POST /api/dead-letters/bulk/discard": _SELECTION,
    "POST /api/dead-letters/redrive-jobs": {
        "workflow": "daily-report",
        "rate_per_minute": 60,
        "canary": True,
        "max_failures": 3,
        "note": "after the fix",
    },
    "POST /api/dead-letters/redrive-jobs/{id}/cancel": _NOTE,
    # ── Queues, pools, workers, secrets ──
    "PATCH /api/queues/{id}": {"age_limit": 30.0},
    "POST /api/queues/{id}/pause": _NOTE,
    "POST /api/queues/{id}/drain": _NOTE,
    "POST /api/queues/{id}/reorder": {"item": SOME_ID, "place": "first"},
    "POST /api/pools": {"name": "warehouse", "slots": 4, "description": "Connections to the warehouse."},
    "PATCH /api/pools/{id}": {"slots": 8},
    "POST /api/processes/{id}/pause": _NOTE,
    "POST /api/processes/{id}/drain": {"note": "to be upgraded", "ends": True},
    "PUT /api/secrets/{name}": {"value": "a-value-that-never-comes-out", "note": "of the report's receiver"},
    # ── Schedules ──
    "POST /api/schedules": _SCHEDULE,
    "PUT /api/schedules/{id}": {**_SCHEDULE, "cron_expression": "30 2 * * *"},
    "PATCH /api/schedules/{id}": {"cron_expression": "30 2 * * MON-FRI", "note": "not at weekends"},
    "POST /api/schedules/upsert": {**_SCHEDULE, "external_id": "reports/nightly"},
    "POST /api/schedules/{id}/pause": {"note": "maintenance", "until": "2036-03-01T06:00:00Z"},
    "POST /api/schedules/{id}/resume": {"missed": "catch_up"},
    "POST /api/schedules/{id}/trigger": {"input": {"day": "2026-03-01"}, "priority": "high"},
    "POST /api/schedules/{id}/clone": {"name": "every noon", "changes": {"cron_expression": "0 12 * * *"}},
    "POST /api/schedules/{id}/backfill": {
        "since": "2026-03-01T00:00:00Z",
        "until": "2026-03-08T00:00:00Z",
        "max_running": 2,
        "dry_run": True,
    },
    "POST /api/schedules/{id}/preview-change": {"action": "update", "changes": {"cron_expression": "0 3 * * *"}},
    "POST /api/schedules/preview": {"cron_expression": "0 2 * * *", "timezone": "Europe/Berlin", "count": 3},
    "POST /api/schedules/bulk": {"action": "pause", "workflow": "daily-report", "dry_run": True},
    "POST /api/schedules/apply": {
        "schedules": [
            {
                "name": "every night",
                "workflow": "daily-report",
                "spec": {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}], "timezone": "Europe/Berlin"},
            }
        ],
        "dry_run": True,
    },
    "PUT /api/schedules/switch": {"stopped": True, "note": "the warehouse moves"},
    "POST /api/backfills/{id}/cancel": {"stop_running": True, "note": "the wrong week"},
    "POST /api/calendars": _CALENDAR,
    "PUT /api/calendars/{id}": {**_CALENDAR, "definition": {"kind": "holidays", "country": "DE"}},
    "PATCH /api/calendars/{id}": {"description": "Berlin's public holidays."},
    "POST /api/optimizer": {"days": 1, "note": "before the new reports"},
    "POST /api/optimizer/what-if": {"days": 1, "duration_factor": 1.5, "slots": {"default": 2}},
    "POST /api/optimizer/{id}/apply": {"changes": [], "note": "agreed"},
    "POST /api/optimizer/{id}/revert": {"changes": [], "note": "it did not help"},
    # ── Triggers, webhooks, events ──
    "POST /api/triggers": _TRIGGER,
    "PUT /api/triggers/{id}": {**_TRIGGER, "event_types": ["order.paid", "order.refunded"]},
    "PATCH /api/triggers/{id}": {"throttle": {"limit": 10, "period": 60}},
    "POST /api/triggers/{id}/pause": _NOTE,
    "POST /api/triggers/{id}/test": {"type": "order.paid", "data": {"total": 120, "day": "2026-03-01"}},
    "POST /api/triggers/try-pattern": {"pattern": {"data": {"total": [{"numeric": [">", 100]}]}}, "limit": 100},
    "POST /api/webhooks": {"slug": "shop", "scheme": "standard", "description": "Orders of the shop."},
    "PUT /api/webhooks/{id}": {"slug": "shop-orders", "description": "Orders of the shop.", "rate_per_minute": 600},
    "PATCH /api/webhooks/{id}": {"rate_per_minute": 600},
    "POST /api/webhooks/{id}/pause": _NOTE,
    "POST /api/webhooks/{id}/retire": _NOTE,
    "POST /api/webhooks/{id}/rotate": {"overlap": 86400},
    "POST /api/webhooks/{id}/test": {"body": {"type": "order.paid", "data": {"total": 120, "day": "2026-03-01"}}},
    "POST /api/activations/{id}/discard": _NOTE,
    "POST /api/events": {"type": "order.paid", "id": "order-4711", "data": {"total": 120, "day": "2026-03-01"}},
    "POST /api/events/{id}/replay": {"triggers": None},
    "POST /api/events/replay": {
        "after": "2026-03-01T00:00:00Z",
        "before": "2026-03-02T00:00:00Z",
        "type": "order.*",
    },
    "POST /api/event-types": {
        "name": "order.paid",
        "description": "An order has been paid.",
        "schema": {"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}},
        "example": {"total": 120},
    },
    "PATCH /api/event-types/{name}": {"description": "An order has been paid in full."},
    # ── Notifications ──
    "POST /api/notifications/rules": {
        "name": "reports fail",
        "kind": "failed",
        "workflow": "daily-report",
        "window": 60,
        "emails": ["data@example.org"],
        "webhook_url": "https://example.org/hooks/scheduling",
    },
    "PATCH /api/notifications/rules/{id}": {"emails": ["data@example.org", "ops@example.org"]},
}
