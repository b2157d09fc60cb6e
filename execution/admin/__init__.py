"""The admin of the execution app: one module per page. Importing them registers them."""

from execution.admin import (
    capacity,
    dead_letters,
    executions,
    notifications,
    pools,
    processes,
    redrive_jobs,
    secrets,
    trail,
    workflows,
)

__all__ = [
    "capacity",
    "dead_letters",
    "executions",
    "notifications",
    "pools",
    "processes",
    "redrive_jobs",
    "secrets",
    "trail",
    "workflows",
]
