"""The published JSON Schema (2020-12) of a workflow definition."""

from __future__ import annotations

from typing import Any

from execution.limits import LEAST_MEMORY, MOST_MEMORY, SIZE
from execution.retry import FAILURES_SCHEMA, POLICY_SCHEMA

STEP_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
WORKFLOW_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
#: Parts of a definition whose steps run after the main ones.
SECTIONS = ("on_success", "on_failure", "finally")
STEP_KINDS = ("task", "http", "workflow", "wait", "approval", "emit")

DURATION: dict[str, Any] = {
    "description": "Seconds, or a number with s, m, h or d.",
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 31_536_000},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?[smhd]$", "maxLength": 20},
        {"type": "string", "pattern": r"^\$\{\{[\s\S]*\}\}$", "maxLength": 4_000},
    ],
}

_STEP: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "oneOf": [{"required": [kind]} for kind in STEP_KINDS],
    "properties": {
        "description": {"type": "string", "maxLength": 2_000},
        "task": {"type": "string", "minLength": 1, "maxLength": 300, "description": "Name of a Celery task."},
        "with": {"type": "object", "description": "Keyword arguments of the task."},
        "http": {
            "type": "object",
            "additionalProperties": False,
            "required": ["url"],
            "properties": {
                "method": {"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]},
                "url": {"type": "string", "minLength": 1, "maxLength": 4_000},
                "headers": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 8_000}},
                "query": {"type": "object"},
                "json": {},
                "body": {"type": "string"},
                "expect": {
                    "type": "array",
                    "items": {"type": "string", "pattern": "^[1-5](xx|[0-9]{2})$"},
                    "minItems": 1,
                    "description": "Status codes that count as success; 2xx when left out.",
                },
            },
        },
        "workflow": {
            "description": "Another workflow, by name: it runs as a child execution, and its output is the step's.",
            "anyOf": [
                {"type": "string", "pattern": WORKFLOW_NAME, "maxLength": 200},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string", "pattern": WORKFLOW_NAME, "maxLength": 200},
                        "version": {
                            "type": "integer",
                            "minimum": 1,
                            "maximum": 999_999_999,
                            "description": "Always this version; left out: the one published when the child starts.",
                        },
                        "input": {
                            "description": "The child's input, or an expression that gives it; {} when left out.",
                            "anyOf": [
                                {"type": "object"},
                                {"type": "string", "pattern": r"^\$\{\{[\s\S]*\}\}$", "maxLength": 4_000},
                            ],
                        },
                    },
                },
            ],
        },
        "wait": {"$ref": "#/$defs/duration"},
        "approval": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "expires": {"$ref": "#/$defs/duration"},
                "message": {"type": "string", "maxLength": 2_000},
            },
        },
        "emit": {
            "type": "object",
            "additionalProperties": False,
            "required": ["type"],
            "properties": {
                "type": {"type": "string", "minLength": 1, "maxLength": 200},
                "subject": {"type": "string", "maxLength": 500},
                "data": {},
            },
        },
        "needs": {
            "type": "array",
            "items": {"type": "string", "pattern": STEP_NAME},
            "uniqueItems": True,
            "maxItems": 1_000,
        },
        "when": {"type": "object", "description": "An event pattern over {input, steps, execution}."},
        "for_each": {"description": "A list, or an expression that gives one; `item` is each of its values."},
        "max_parallel": {"type": "integer", "minimum": 1, "maximum": 100_000},
        "max_failed": {
            "description": "How many items may fail, or how many percent of them, with the step still succeeding.",
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 1_000_000},
                {"type": "string", "pattern": r"^(100|[0-9]{1,2}(\.[0-9]{1,3})?)%$"},
            ],
        },
        "on_item_error": {
            "enum": ["continue", "stop"],
            "description": "When more have failed than may: the other items go on, or no further one begins.",
        },
        "retry": {"$ref": "#/$defs/retry"},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 604_800},
        "on_error": {"enum": ["fail", "continue"]},
        "queue": {"type": "string", "minLength": 1, "maxLength": 100},
        "priority": {"$ref": "#/$defs/priority"},
        "pool": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 100},
                "units": {"type": "integer", "minimum": 1, "maximum": 1_000},
            },
            "description": "Capacity shared by steps: an attempt takes so many units of it while it runs.",
        },
        "limits": {
            "type": "object",
            "additionalProperties": False,
            "required": ["memory"],
            "properties": {
                "memory": {
                    "description": "Bytes, or a number with B, KB, MB, GB, KiB, MiB or GiB.",
                    "anyOf": [
                        {"type": "integer", "minimum": LEAST_MEMORY, "maximum": MOST_MEMORY},
                        {"type": "string", "pattern": SIZE},
                    ],
                }
            },
            "description": "What the process that runs the step may use, with all that the step starts in it.",
        },
        "rate": {
            "type": "object",
            "additionalProperties": False,
            "required": ["key", "limit", "per"],
            "properties": {
                "key": {"type": "string", "minLength": 1, "maxLength": 4_000},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100_000},
                "per": {
                    "description": "Seconds, or a number with s, m, h or d.",
                    "anyOf": [
                        {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400},
                        {"type": "string", "pattern": r"^0*[1-9][0-9]{0,3}[smh]$"},
                    ],
                },
                "burst": {"type": "integer", "minimum": 1, "maximum": 100_000},
            },
            "description": "How often attempts with the same key begin: evenly, or after a pause `burst` at once.",
        },
    },
}

DEFINITION_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Workflow definition",
    "type": "object",
    "additionalProperties": False,
    "required": ["steps"],
    "properties": {
        "description": {"type": "string", "maxLength": 5_000},
        "input": {"type": "object", "description": "A JSON Schema (2020-12) that every input must satisfy."},
        "steps": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1_000,
            "propertyNames": {"pattern": STEP_NAME},
            "additionalProperties": {"$ref": "#/$defs/step"},
        },
        **{
            name: {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 100,
                "propertyNames": {"pattern": STEP_NAME},
                "additionalProperties": {"$ref": "#/$defs/step"},
                "description": described,
            }
            for name, described in {
                "on_success": "Steps that run after the main ones have succeeded.",
                "on_failure": "Steps that run after the main ones have failed; `execution.error` says with what.",
                "finally": "Steps that run last, however it ended, also when it was cancelled or overdue.",
            }.items()
        },
        "output": {"description": "What the execution returns; expressions are evaluated at its end."},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 31_536_000},
        "retry": {"$ref": "#/$defs/retry"},
        "queue": {"type": "string", "minLength": 1, "maxLength": 100},
        "priority": {"$ref": "#/$defs/priority"},
        "concurrency": {
            "type": "object",
            "additionalProperties": False,
            "required": ["key"],
            "properties": {
                "key": {"type": "string", "minLength": 1, "maxLength": 4_000},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100_000},
                "on_conflict": {"enum": ["queue", "skip", "cancel_older"]},
            },
            "description": "How many executions with the same key run at once.",
        },
    },
    "$defs": {
        "step": _STEP,
        "duration": DURATION,
        "retry": POLICY_SCHEMA,
        "failures": FAILURES_SCHEMA,
        "priority": {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 9},
                {"enum": ["critical", "high", "normal", "low"]},
            ]
        },
    },
}
